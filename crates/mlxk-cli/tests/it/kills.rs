//! `mlxk clone` and `mlxk convert`, killed at random moments.
//!
//! Whatever moment it is, source and cache are as they were, the target is absent or all there, and
//! the same command then does its work. The library's own tests kill a save at each call of the file
//! system; here it is the whole program and the clock.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::corpus::{INDEX, Model};
use crate::health::mlxk_with;
use crate::workspaces::{run, text, tree};

/// Set to a number of kills; without it they end when the time is over and every command was killed
/// often enough, which takes longer where the machine has other work.
const KILLS: &str = "MLXK_TEST_KILLS";
const TIME: Duration = Duration::from_secs(12);
const LIMIT: Duration = Duration::from_secs(600);
const ENOUGH: u32 = 6;
const SENTINEL: &str = ".mlxk_workspace.json";

type Tree = BTreeMap<String, Vec<u8>>;

/// A command, and what it makes.
struct Job {
    args: Vec<String>,
    made: Tree,
    took: Duration,
}

/// Numbers without a pattern (Marsaglia, *Xorshift RNGs*, 2003).
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A cache, sources, and a place for what is made of them.
struct Place {
    _keep: TempDir,
    root: PathBuf,
}

impl Place {
    fn new() -> Place {
        let keep = tempfile::tempdir().expect("a directory");
        let root = keep.path().canonicalize().expect("a directory");
        let place = Place { _keep: keep, root };
        let mut broken = Model::llama(2);
        broken.remove(INDEX);
        (0..8).for_each(|i| broken.put(&format!("extra/{i}.txt"), vec![b'x'; 1 << 14]));
        broken.write_cached(&place.hub(), "org/m");
        broken.write(&place.root.join("sources/broken"));
        let mut dense = Model::llama(1);
        dense.edit("config.json", |config| config["model_type"] = json!("of_no_family"));
        dense.put("model.safetensors", matrices());
        dense.write(&place.root.join("sources/dense"));
        std::fs::create_dir(place.out()).expect("a directory");
        place
    }

    fn hub(&self) -> PathBuf {
        self.root.join("hub")
    }

    fn out(&self) -> PathBuf {
        self.root.join("out")
    }

    fn target(&self) -> PathBuf {
        self.out().join("ws")
    }

    fn jobs(&self) -> Vec<Job> {
        let (target, broken, dense) =
            (self.target(), self.root.join("sources/broken"), self.root.join("sources/dense"));
        let commands: [&[&str]; 3] = [
            &["clone", "org/m", text(&target)],
            &["convert", text(&broken), text(&target), "--repair-all"],
            &["convert", text(&dense), text(&target), "--quantize", "4"],
        ];
        commands.into_iter().map(|args| self.job(args)).collect()
    }

    /// Sees what a command makes when nobody kills it.
    fn job(&self, args: &[&str]) -> Job {
        let times = (0..3).map(|_| {
            let _ = std::fs::remove_dir_all(self.target());
            let begin = Instant::now();
            run(&self.hub(), args).ok();
            begin.elapsed()
        });
        let took = times.max().expect("three");
        let data = run(&self.hub(), &["health", text(&self.target()), "--json"]).data();
        assert_eq!(data["summary"]["healthy_count"], 1, "{data:#}");
        let made = content(&self.target());
        std::fs::remove_dir_all(self.target()).expect("removed");
        Job { args: args.iter().map(ToString::to_string).collect(), made, took }
    }

    /// Runs a command after a kill, and goes on with what is left where it asks for that.
    fn run_again(&self, job: &Job) {
        let args: Vec<&str> = job.args.iter().map(String::as_str).collect();
        let ran = run(&self.hub(), &args);
        if ran.code != Some(0) {
            assert!(ran.stderr.contains("--resume"), "{}", ran.stderr);
            run(&self.hub(), &[&args[..], &["--resume"]].concat()).ok();
        }
        assert!(content(&self.target()) == job.made, "{:?}: another result", job.args);
        let left = self.out().read_dir().expect("a directory").count();
        assert_eq!(left, 1, "{:?}: leftovers are gone", job.args);
    }
}

/// Hashes a workspace but for its sentinel, which has times in it.
fn content(workspace: &Path) -> Tree {
    let mut tree = tree(workspace);
    tree.remove(SENTINEL).expect("a workspace is managed");
    let sentinel = std::fs::read(workspace.join(SENTINEL)).expect("a file");
    let sentinel: Value = serde_json::from_slice(&sentinel).expect("JSON");
    assert_eq!(sentinel["managed"], true);
    tree
}

/// A safetensors file of 1 MB in float32.
fn matrices() -> Vec<u8> {
    const ROWS: usize = 256;
    const N: usize = 4;
    let size = ROWS * ROWS * 4;
    let tensors = (0..N).map(|i| {
        let offsets = [i * size, (i + 1) * size];
        let entry = json!({"dtype": "F32", "shape": [ROWS, ROWS], "data_offsets": offsets});
        (format!("model.layers.{i}.mlp.down_proj.weight"), entry)
    });
    let mut header: serde_json::Map<String, Value> = tensors.collect();
    header.insert("__metadata__".to_owned(), json!({"format": "mlx"}));
    let mut header = Value::Object(header).to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut random = Random(1);
    let numbers = (0..N * ROWS * ROWS).flat_map(|_| (random.next() as f32 - 0.5).to_le_bytes());
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend(numbers);
    bytes
}

#[test]
#[expect(clippy::print_stdout, reason = "whoever asks for a thousand kills wants to read of them")]
fn a_kill_at_any_moment_leaves_all_or_nothing() {
    let wanted: Option<u32> =
        std::env::var(KILLS).ok().map(|n| n.parse().unwrap_or_else(|e| panic!("{KILLS}: {e}")));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time");
    let seed = now.as_nanos() as u64 | 1;
    let mut random = Random(seed);
    let place = Place::new();
    let jobs = place.jobs();
    let before = (tree(&place.hub()), tree(&place.root.join("sources")));
    let begin = Instant::now();
    // Killed; of those with a target; of those with something half done.
    let (mut kills, mut complete, mut partial) = ([0; 3], [0; 3], [0; 3]);
    for i in 0.. {
        let done: u32 = kills.iter().sum();
        let is_enough = kills.iter().all(|&n| n >= ENOUGH) && partial.iter().all(|&n: &u32| n > 0);
        let is_over = is_enough && begin.elapsed() > TIME || begin.elapsed() > LIMIT;
        if wanted.map_or(is_over, |wanted| done >= wanted) {
            break;
        }
        let which = i % jobs.len();
        let job = &jobs[which];
        let mut child = mlxk_with(&place.hub(), None).args(&job.args).spawn().expect("starts");
        std::thread::sleep(job.took.mul_f64(1.1 * random.next()));
        child.kill().expect("killed");
        if child.wait().expect("ended").success() {
            // It was quicker than the clock.
            std::fs::remove_dir_all(place.target()).expect("removed");
            continue;
        }
        kills[which] += 1;
        let after = (tree(&place.hub()), tree(&place.root.join("sources")));
        assert!(after == before, "seed {seed}, kill {i}: {:?} changed its source", job.args);
        let left: Vec<_> = place.out().read_dir().expect("a directory").flatten().collect();
        let names = left.iter().map(|entry| entry.file_name().into_string().expect("UTF-8"));
        let (whole, hidden): (Vec<_>, Vec<_>) = names.partition(|name| name == "ws");
        // Hidden, and by its name nothing that a command takes for a workspace.
        let is_marked = |name: &String| name.starts_with(".ws.mlxk-partial");
        assert!(
            hidden.len() <= 1 && hidden.iter().all(is_marked),
            "seed {seed}, kill {i}: {hidden:?}"
        );
        if !whole.is_empty() {
            complete[which] += 1;
            let made = content(&place.target());
            assert!(made == job.made, "seed {seed}, kill {i}: {:?} is incomplete", job.args);
            std::fs::remove_dir_all(place.target()).expect("removed");
        } else if !hidden.is_empty() {
            partial[which] += 1;
        }
        place.run_again(job);
        std::fs::remove_dir_all(place.target()).expect("removed");
    }
    println!("{kills:?} kills of clone, repair, quantize in {:.0?}:", begin.elapsed());
    println!("{complete:?} left all, {partial:?} something hidden, the others nothing");
    assert!(kills.iter().all(|&n| n >= ENOUGH), "{kills:?} kills");
    assert!(partial.iter().all(|&n| n > 0), "{partial:?} left something half done");
}
