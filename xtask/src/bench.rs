//! `cargo xtask bench cpu`: our speed on a CPU beside llama.cpp's, in the same minutes.
//!
//! A machine's speed changes from one minute to the next, so the programs take turns, each with each
//! number of threads, and medians over the rounds are compared. Both sides have random weights of
//! one shape; the peer's model lies in a directory of the user's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::flags::{Bench, Device};
use crate::shell;

/// The shape of a Qwen2 model, and what its weights are.
struct Model {
    name: &'static str,
    /// Hidden size, feed-forward size, query heads, key heads, layers, vocabulary.
    shape: [u32; 6],
    /// Bits of affine weights in groups of 64; absent for bfloat16.
    bits: Option<u32>,
    /// Where the peer's model is.
    gguf: &'static str,
}

const MODELS: [Model; 4] = [
    Model {
        name: "0.5B 4-bit",
        shape: [896, 4864, 14, 2, 24, 151_936],
        bits: Some(4),
        gguf: "q4_0-qwen05.gguf",
    },
    Model {
        name: "0.5B bf16",
        shape: [896, 4864, 14, 2, 24, 151_936],
        bits: None,
        gguf: "bf16-qwen05.gguf",
    },
    Model {
        name: "1.5B 4-bit",
        shape: [1536, 8960, 12, 2, 28, 151_936],
        bits: Some(4),
        gguf: "q4_0-1536-8960-12-2-28-151936.gguf",
    },
    Model {
        name: "3B 4-bit",
        shape: [2048, 11_008, 16, 2, 36, 151_936],
        bits: Some(4),
        gguf: "q4_0-2048-11008-16-2-36-151936.gguf",
    },
];

const N_PROMPT: u32 = 128;
const N_GENERATE: u32 = 64;

/// Tokens per second of one test, by number of threads, a number for each round.
type Speeds = BTreeMap<u32, Vec<f64>>;

pub fn run(flags: &Bench) -> Result<ExitCode> {
    match flags.device {
        Device::Cpu => cpu(flags),
    }
}

fn cpu(flags: &Bench) -> Result<ExitCode> {
    if flags.rounds == 0 || flags.threads.is_empty() {
        bail!("no rounds, or no numbers of threads");
    }
    shell::step("building mlxk");
    shell::run(shell::cargo().args(["build", "--release", "--package", "mlxk-cli"]))?;
    let target = shell::target_dir()?;
    let (mlxk, configs) = (target.join("release/mlxk"), target.join("bench"));
    std::fs::create_dir_all(&configs)?;
    println!("| model | test | mlxk | threads | llama.cpp | threads | ratio |");
    println!("|---|---|---|---|---|---|---|");
    for model in &MODELS {
        if flags.filter.as_ref().is_some_and(|filter| !model.name.contains(filter.as_str())) {
            continue;
        }
        let config = configs.join(format!("{}.json", model.name.replace(' ', "-")));
        std::fs::write(&config, model.config().to_string())?;
        let peer = flags.peer_models(model)?;
        let (mut ours, mut theirs) =
            ([Speeds::new(), Speeds::new()], [Speeds::new(), Speeds::new()]);
        for round in 0..flags.rounds {
            for &threads in &flags.threads {
                shell::step(&format!("{}, round {}, {threads} threads", model.name, round + 1));
                add(&mut ours, threads, measure_ours(&mlxk, &config, threads)?);
                if let Some((bench, gguf)) = &peer {
                    add(&mut theirs, threads, measure_peer(bench, gguf, threads)?);
                }
            }
        }
        let tests = [format!("pp{N_PROMPT}"), format!("tg{N_GENERATE}")];
        for ((test, ours), theirs) in tests.iter().zip(&ours).zip(&theirs) {
            println!("| {} | {test} |{}", model.name, row(ours, theirs));
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Model {
    fn config(&self) -> Value {
        let [hidden, feed_forward, heads, kv_heads, layers, vocabulary] = self.shape;
        let mut config = json!({
            "model_type": "qwen2",
            "hidden_size": hidden,
            "intermediate_size": feed_forward,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "num_hidden_layers": layers,
            "vocab_size": vocabulary,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1e6,
            "max_position_embeddings": 32_768,
            "tie_word_embeddings": true,
            "torch_dtype": "bfloat16",
        });
        if let Some(bits) = self.bits {
            config["quantization"] = json!({ "group_size": 64, "bits": bits });
        }
        config
    }
}

impl Bench {
    /// The peer's program and its model, if the user has given the one and has the other.
    fn peer_models(&self, model: &Model) -> Result<Option<(PathBuf, PathBuf)>> {
        let Some(bench) = &self.llama else { return Ok(None) };
        let dir = match &self.models {
            Some(dir) => dir.clone(),
            None => bench.parent().map(Path::to_path_buf).unwrap_or_default(),
        };
        let gguf = dir.join(model.gguf);
        if !bench.is_file() {
            bail!("{}: no such program", bench.display());
        }
        if !gguf.is_file() {
            eprintln!("{}: not there, so without llama.cpp", gguf.display());
            return Ok(None);
        }
        Ok(Some((bench.clone(), gguf)))
    }
}

fn add(speeds: &mut [Speeds; 2], threads: u32, found: [f64; 2]) {
    for (speeds, found) in speeds.iter_mut().zip(found) {
        speeds.entry(threads).or_default().push(found);
    }
}

fn measure_ours(mlxk: &Path, config: &Path, threads: u32) -> Result<[f64; 2]> {
    let text = shell::output(
        Command::new(mlxk)
            .args(["bench", "--json", "-r", "3"])
            .args(["-p", &N_PROMPT.to_string(), "-n", &N_GENERATE.to_string()])
            .args(["--threads", &threads.to_string(), "--synthetic"])
            .arg(config),
    )?;
    let report: Value = serde_json::from_str(&text).context("mlxk bench --json")?;
    let median = |i: usize| report["data"]["results"][i]["median"].as_f64();
    match (median(0), median(1)) {
        (Some(prompt), Some(generate)) => Ok([prompt, generate]),
        _ => bail!("mlxk bench --json has no medians: {text}"),
    }
}

/// Takes the better of the peer's rounds but for the first, which warms it up.
fn measure_peer(bench: &Path, gguf: &Path, threads: u32) -> Result<[f64; 2]> {
    let text = shell::output(
        Command::new(bench).arg(gguf).args([threads, N_PROMPT, N_GENERATE].map(|n| n.to_string())),
    )?;
    let mut rounds = text.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse::<f64>().ok());
        Some([numbers.next()?, numbers.next()?])
    });
    rounds.next();
    let best = rounds.reduce(|a, b| [a[0].max(b[0]), a[1].max(b[1])]);
    best.with_context(|| format!("{}: no speeds in {text:?}", bench.display()))
}

/// Compares the medians of either side's best number of threads.
fn row(ours: &Speeds, theirs: &Speeds) -> String {
    let (Some(ours), theirs) = (best(ours), best(theirs)) else { return " – |".to_owned() };
    let cell = |(threads, median, low, high): (u32, f64, f64, f64)| {
        format!(" {median:.1} ({low:.1}–{high:.1}) | {threads} |")
    };
    match theirs {
        Some(theirs) => format!("{}{} {:.2} |", cell(ours), cell(theirs), ours.1 / theirs.1),
        None => format!("{} – | – | – |", cell(ours)),
    }
}

/// Threads, median, least and most of the number of threads with the greatest median.
fn best(speeds: &Speeds) -> Option<(u32, f64, f64, f64)> {
    let all = speeds.iter().filter_map(|(&threads, speeds)| {
        let mut speeds = speeds.clone();
        speeds.sort_by(f64::total_cmp);
        Some((threads, speeds[speeds.len() / 2], *speeds.first()?, *speeds.last()?))
    });
    all.max_by(|a, b| a.1.total_cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_the_best_threads_are_compared() {
        let ours = Speeds::from([(1, vec![10.0, 30.0, 20.0]), (2, vec![44.0, 40.0, 48.0])]);
        let theirs = Speeds::from([(1, vec![22.0, 21.0, 20.0]), (2, vec![5.0, 6.0, 7.0])]);
        assert_eq!(row(&ours, &theirs), " 44.0 (40.0–48.0) | 2 | 21.0 (20.0–22.0) | 1 | 2.10 |");
        assert_eq!(row(&ours, &Speeds::new()), " 44.0 (40.0–48.0) | 2 | – | – | – |");
    }
}
