//! How long a conversion takes, and in how much memory, beside mlx-lm's of the same files:
//!
//! ```sh
//! cargo bench -p mlx-lm --bench convert -- --python PROGRAM
//! ```
//!
//! The source is a checkpoint of 1 GB in bfloat16, of the shape of Qwen2.5-0.5B, with random weights; each
//! program quantizes it to affine 4-bit several times, in turns. Memory is what a process has beside pages of
//! files (`RssAnon`, Linux only), asked for every few milliseconds.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mlx_core::Dtype;
use mlx_core::io::{TensorLayout, write_safetensors_streamed};
use mlx_lm::convert::{ConvertArgs, convert};
use serde_json::json;

const TIMES: usize = 5;
const CHILD: &str = "--convert";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match &args[..] {
        [flag, source, destination] if flag == CHILD => {
            let (source, destination) = (source.into(), destination.into());
            convert(ConvertArgs { source, destination, quantize: true, ..ConvertArgs::default() })
                .expect("a conversion");
        }
        [flag, python] if flag == "--python" => measure(python),
        // `cargo test` runs benches, too, and nobody waits for this one there.
        _ => say("--python PROGRAM names a Python that has mlx-lm"),
    }
}

fn say(line: &str) {
    // Nobody reads what cannot be written.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn measure(python: &str) {
    let root = tempfile::tempdir().expect("a directory");
    let (source, destination) = (root.path().join("source"), root.path().join("destination"));
    write_source(&source);
    let own = std::env::current_exe().expect("this program");
    let script = format!(
        "import sys, mlx_lm.convert as c\nfrom mlx_lm import utils\nm = sys.modules['mlx_lm.convert']\n\
         m.load = lambda p, **_: (lambda model, config: (model, None, config))(*utils.load_model(__import__('pathlib').Path(p), lazy=True))\n\
         m.save = lambda d, _, model, t, config: (utils.save_model(d, model, donate_model=True), utils.save_config(config, d / 'config.json'))\n\
         m.convert({source:?}, {destination:?}, quantize=True)"
    );
    let mut all = [Vec::new(), Vec::new()];
    for _ in 0..TIMES {
        let mut ours = Command::new(&own);
        ours.arg(CHILD).args([&source, &destination]);
        let mut theirs = Command::new(python);
        theirs.args(["-c", &script]);
        for (command, results) in [ours, theirs].iter_mut().zip(&mut all) {
            results.push(run(command));
            std::fs::remove_dir_all(&destination).expect("a result");
        }
    }
    for (name, results) in ["ours", "mlx-lm"].into_iter().zip(&mut all) {
        results.sort_by_key(|(time, _)| *time);
        let (time, _) = results[TIMES / 2];
        let memory = results.iter().map(|(_, memory)| *memory).max().unwrap_or(0);
        let (seconds, gb) = (time.as_secs_f64(), memory as f64 / 1e9);
        say(&format!("{name:<8} {seconds:6.2} s   {gb:6.3} GB beside files"));
    }
}

/// Runs a program to its end; returns the time that it took and the greatest memory seen.
fn run(command: &mut Command) -> (Duration, u64) {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::null()).spawn().expect("it starts");
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    loop {
        most = most.max(anonymous_bytes(Path::new(&status)));
        if let Some(status) = child.try_wait().expect("it runs") {
            assert!(status.success(), "{status}");
            return (start.elapsed(), most);
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

fn anonymous_bytes(status: &Path) -> u64 {
    let text = std::fs::read_to_string(status).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or(0) * 1024
}

fn write_source(directory: &Path) {
    const LAYERS: i32 = 24;
    const SIZE: i32 = 896;
    const INNER: i32 = 4864;
    let config = json!({
        "model_type": "qwen2", "hidden_size": SIZE, "intermediate_size": INNER,
        "num_hidden_layers": LAYERS, "num_attention_heads": 14, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6, "rope_theta": 1e6, "vocab_size": 151_936,
        "tie_word_embeddings": true, "torch_dtype": "bfloat16",
    });
    let mut layout = Vec::new();
    let mut add = |name: String, shape: &[i32]| {
        layout.push(TensorLayout { name, dtype: Dtype::Bfloat16, shape: shape.to_vec() });
    };
    add("model.embed_tokens.weight".to_owned(), &[151_936, SIZE]);
    for layer in 0..LAYERS {
        let mut add =
            |name: &str, shape: &[i32]| add(format!("model.layers.{layer}.{name}"), shape);
        for (name, rows) in [("q", SIZE), ("k", 128), ("v", 128)] {
            add(&format!("self_attn.{name}_proj.weight"), &[rows, SIZE]);
            add(&format!("self_attn.{name}_proj.bias"), &[rows]);
        }
        add("self_attn.o_proj.weight", &[SIZE, SIZE]);
        add("mlp.gate_proj.weight", &[INNER, SIZE]);
        add("mlp.up_proj.weight", &[INNER, SIZE]);
        add("mlp.down_proj.weight", &[SIZE, INNER]);
        add("input_layernorm.weight", &[SIZE]);
        add("post_attention_layernorm.weight", &[SIZE]);
    }
    add("model.norm.weight".to_owned(), &[SIZE]);
    std::fs::create_dir(directory).expect("a directory");
    std::fs::write(directory.join("config.json"), config.to_string()).expect("a file");
    let mut state = 1u64;
    let file = directory.join("model.safetensors");
    write_safetensors_streamed(file, &layout, &[("format", "pt")], |position, sink| {
        let n: i32 = layout[position].shape.iter().product();
        let number = |state: &mut u64| {
            *state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let unit = (*state >> 40) as f32 / 8_388_608.0 - 1.0;
            (unit * 0.05).to_bits().to_le_bytes()[2..].to_vec()
        };
        let bytes: Vec<u8> = (0..n).flat_map(|_| number(&mut state)).collect();
        sink.write(&bytes)
    })
    .expect("a file");
}
