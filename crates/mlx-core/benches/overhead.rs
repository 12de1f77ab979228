//! What one lazy op and one eval cost, beside MLX in Python.
//!
//! ```text
//! cargo bench -p mlx-core --bench overhead -- --python PROGRAM
//! ```
//!
//! Both build the same graphs of 10,000 calls on arrays so small that only the host's work counts.
//! They take turns in one run; the table has the median of each and their ratio. Without a Python
//! that has MLX, only our own times are shown.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use mlx_core::{Array, Device, Dtype, Ellipsis, Result, ops, with_device};

const N: usize = 10_000;
const ROUNDS: usize = 11;

/// Nanoseconds by name.
type Times = BTreeMap<String, f64>;

/// A rotary attention layer of small ops, as in overhead.py.
fn block(x: &Array, w: &Array, cos: &Array, sin: &Array) -> Result<Array> {
    let heads = |x: Array| x.reshape([1, 8, 4, 16])?.transpose([0, 2, 1, 3]);
    let q = heads(x.matmul(w)?)?;
    let k = heads(x.matmul(w)?)?;
    let v = heads(x.matmul(w)?)?;
    let q = rotate(&q, cos, sin)?;
    let k = rotate(&k, cos, sin)?;
    let scores = (q * 0.25)?.matmul(&k.swapaxes(-1, -2)?)?;
    let out = scores.softmax(-1, false)?.matmul(&v)?;
    x + (out.transpose([0, 2, 1, 3])?.reshape([1, 8, 64])? * 0.5)
}

const BLOCK_CALLS: usize = 9 + 2 * 7 + 3 + 2 + 4;

fn rotate(x: &Array, cos: &Array, sin: &Array) -> Result<Array> {
    let (first, second) = (x.at((Ellipsis, ..8))?, x.at((Ellipsis, 8..))?);
    let half = ops::concatenate([&(-second)?, &first], -1)?;
    (x * cos)? + (half * sin)
}

fn once(build: impl FnOnce() -> Result<Array>) -> Result<f64> {
    let start = Instant::now();
    let graph = build()?;
    let elapsed = start.elapsed().as_nanos() as f64;
    drop(graph);
    Ok(elapsed)
}

fn chain(x: &Array, n: usize, f: impl Fn(&Array) -> Result<Array>) -> Result<Array> {
    (0..n).try_fold(x.clone(), |x, _| f(&x))
}

fn round() -> Result<Times> {
    let ones = |shape: &[i32]| {
        let array = ops::ones(shape, Dtype::Float32)?;
        array.eval()?;
        Ok(array)
    };
    let (x, y, square) = (ones(&[4, 8])?, ones(&[4, 8])?, ones(&[8, 8])?);
    let (states, w) = (ones(&[1, 8, 64])?, ones(&[64, 64])?);
    let (cos, sin) = (ones(&[8, 16])?, ones(&[8, 16])?);
    type Op<'a> = &'a dyn Fn(&Array) -> Result<Array>;
    let table: [(&str, Op<'_>); 9] = [
        ("add", &|x| x + &y),
        ("multiply by number", &|x| x * 2.0),
        ("exp", &|x| x.exp()),
        ("matmul", &|x| x.matmul(&square)),
        ("softmax", &|x| x.softmax(-1, false)),
        ("reshape", &|x| x.reshape([4, 8])),
        ("transpose", &|x| x.transpose([0, 1])),
        ("slice", &|x| x.at((.., ..8))),
        ("astype", &|x| x.astype(Dtype::Float32)),
    ];
    let mut times = Times::new();
    for (name, f) in table {
        times.insert(name.to_owned(), once(|| chain(&x, N, f))? / N as f64);
    }
    let n_blocks = N / BLOCK_CALLS;
    let layers = once(|| chain(&states, n_blocks, |x| block(x, &w, &cos, &sin)))?;
    times.insert("a layer's calls".to_owned(), layers / (n_blocks * BLOCK_CALLS) as f64);
    let evals = once(|| {
        chain(&x, N / 10, |x| {
            let x = (x + &y)?;
            x.eval()?;
            Ok(x)
        })
    })?;
    times.insert("add and eval".to_owned(), evals / (N / 10) as f64);
    let mut chains = 0.0;
    for _ in 0..10 {
        let last = chain(&x, 1000, |x| x + &y)?;
        chains += once(|| last.eval().map(|()| last))?;
    }
    times.insert("eval of a chain of 1,000".to_owned(), chains / 10_000.0);
    Ok(times)
}

/// The Python program, waiting for its turn.
struct Peer(Child, BufReader<std::process::ChildStdout>);

impl Peer {
    fn start(python: &str) -> std::io::Result<Peer> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/overhead.py");
        let mut child = Command::new(python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
        Ok(Peer(child, BufReader::new(stdout)))
    }

    fn round(&mut self) -> std::io::Result<Times> {
        let stdin = self.0.stdin.as_mut().ok_or(std::io::ErrorKind::BrokenPipe)?;
        writeln!(stdin)?;
        let mut line = String::new();
        self.1.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }
}

fn median(rounds: &[Times], name: &str) -> Option<f64> {
    let mut times: Vec<f64> = rounds.iter().filter_map(|times| times.get(name).copied()).collect();
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let python = args.iter().position(|arg| arg == "--python").and_then(|i| args.get(i + 1));
    let mut peer = python.map(|python| Peer::start(python)).transpose()?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(with_device(Device::Cpu, round)?);
        if let Some(peer) = &mut peer {
            theirs.push(peer.round()?);
        }
    }
    if let Some(Peer(mut child, _)) = peer {
        drop(child.stdin.take());
        child.wait()?;
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:24} {:>10} {:>10} {:>7}", "ns per call", "mlx-core", "Python", "ratio")?;
    for name in ours[0].keys() {
        let ours = median(&ours, name).unwrap_or(f64::NAN);
        match median(&theirs, name) {
            Some(theirs) => {
                writeln!(out, "{name:24} {ours:10.0} {theirs:10.0} {:6.2}x", theirs / ours)?;
            }
            None => writeln!(out, "{name:24} {ours:10.0}")?,
        }
    }
    Ok(())
}
