//! `cargo xtask bench cpu`: our speed on a CPU beside llama.cpp's and mlx-lm's, in the same minutes;
//! `cargo xtask bench list` is in [`list`].
//!
//! A machine's speed changes from one minute to the next, so the programs take turns, each with each
//! number of threads, and medians over the rounds are compared. Both sides have random weights of
//! one shape; the peer's model lies in a directory of the user's.

mod list;
mod shapes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::flags::{Bench, Subject};
use crate::shell;

/// The shape of a Qwen2 model, and what its weights are.
struct Model {
    name: &'static str,
    shape: Shape,
    weights: Weights,
    /// Where the peer's model is.
    gguf: Option<&'static str>,
    /// Tokens of the prompt, and generated behind it.
    work: &'static [[u32; 2]],
}

/// Hidden size, feed-forward size, query heads, key heads, layers, vocabulary.
type Shape = [u32; 6];

#[derive(Clone, Copy)]
enum Weights {
    Bfloat16,
    /// Bits, in groups of 64.
    Affine(u32),
    Mode(&'static str),
}

const HALF_B: Shape = [896, 4864, 14, 2, 24, 151_936];
const USUAL: &[[u32; 2]] = &[[128, 64], [512, 64]];

const MODELS: [Model; 5] = [
    Model {
        name: "0.5B 4-bit",
        shape: HALF_B,
        weights: Weights::Affine(4),
        gguf: Some("q4_0-qwen05.gguf"),
        work: USUAL,
    },
    Model {
        name: "0.5B bf16",
        shape: HALF_B,
        weights: Weights::Bfloat16,
        gguf: Some("bf16-qwen05.gguf"),
        work: USUAL,
    },
    Model {
        name: "1.5B 4-bit",
        shape: [1536, 8960, 12, 2, 28, 151_936],
        weights: Weights::Affine(4),
        gguf: Some("q4_0-1536-8960-12-2-28-151936.gguf"),
        work: &[[128, 64]],
    },
    Model {
        name: "3B 4-bit",
        shape: [2048, 11_008, 16, 2, 36, 151_936],
        weights: Weights::Affine(4),
        gguf: Some("q4_0-2048-11008-16-2-36-151936.gguf"),
        work: &[[128, 64]],
    },
    Model {
        name: "0.5B 4-bit, context of 8k",
        shape: HALF_B,
        weights: Weights::Affine(4),
        gguf: Some("q4_0-qwen05.gguf"),
        work: &[[8192, 64]],
    },
];

/// What is measured beside 4 bits for what a byte of weights takes.
const MODES: [(&str, Weights); 8] = [
    ("2-bit", Weights::Affine(2)),
    ("3-bit", Weights::Affine(3)),
    ("5-bit", Weights::Affine(5)),
    ("6-bit", Weights::Affine(6)),
    ("8-bit", Weights::Affine(8)),
    ("mxfp4", Weights::Mode("mxfp4")),
    ("nvfp4", Weights::Mode("nvfp4")),
    ("mxfp8", Weights::Mode("mxfp8")),
];

/// Tokens per second of one test, by number of threads, a number for each round.
type Speeds = BTreeMap<u32, Vec<f64>>;

pub fn run(flags: &Bench) -> Result<ExitCode> {
    if flags.rounds == 0 || flags.threads.is_empty() {
        bail!("no rounds, or no numbers of threads");
    }
    if let (Subject::List, Some(name)) = (flags.subject, flags.only_for_models()) {
        bail!("`{name}` is for `bench cpu`; a list takes `--rounds` only");
    }
    shell::step("building mlxk");
    shell::run(shell::cargo().args(["build", "--release", "--package", "mlxk-cli"]))?;
    let target = shell::target_dir()?;
    let (mlxk, configs) = (target.join("release/mlxk"), target.join("bench"));
    if let Subject::List = flags.subject {
        list::run(&mlxk, flags.rounds)?;
        return Ok(ExitCode::SUCCESS);
    }
    std::fs::create_dir_all(&configs)?;
    let bench = Runs { mlxk, configs, flags };
    match (flags.modes, flags.shapes) {
        (true, _) => bench.modes(),
        (_, true) => bench.shapes(),
        _ => bench.peers(),
    }
}

/// The programs and where their models lie.
struct Runs<'a> {
    mlxk: PathBuf,
    configs: PathBuf,
    flags: &'a Bench,
}

impl Runs<'_> {
    /// Prints our speeds beside the peers'.
    fn peers(&self) -> Result<ExitCode> {
        let flags = self.flags;
        println!(
            "| model | test | mlxk | threads | peer | speed | threads | ratio | of reading alone | outside kernels |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|");
        for model in &MODELS {
            if flags.filter.as_ref().is_some_and(|filter| !model.name.contains(filter.as_str())) {
                continue;
            }
            let config = self.write_config(model.name, model.shape, model.weights)?;
            for &work in model.work {
                self.beside_llama(model, &config, work)?;
            }
            if let Some(python) = &flags.mlx_lm {
                self.beside_mlx_lm(model, &config, python)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn beside_llama(&self, model: &Model, config: &Path, work: [u32; 2]) -> Result<()> {
        let flags = self.flags;
        let peer = flags.peer_models(model)?;
        let (mut ours, mut theirs) =
            ([Speeds::new(), Speeds::new()], [Speeds::new(), Speeds::new()]);
        let (mut shares, mut outside) = (Speeds::new(), Speeds::new());
        for round in 0..flags.rounds {
            for &threads in &flags.threads {
                shell::step(&format!("{}, round {}, {threads} threads", model.name, round + 1));
                let found = self.measure_ours(config, threads, work)?;
                add(&mut ours, threads, [found.prompt, found.generate]);
                shares.entry(threads).or_default().push(found.share);
                outside.entry(threads).or_default().push(found.outside);
                if let Some((bench, gguf)) = &peer {
                    // Not every program of that kind takes long prompts.
                    match measure_llama(bench, gguf, threads, work) {
                        Ok(found) => add(&mut theirs, threads, found),
                        Err(error) => eprintln!("{}: {error:#}", model.name),
                    }
                }
            }
        }
        let [prompt, generate] = work;
        let threads = best(&ours[1]).map_or(0, |best| best.0);
        let percent = |of: &Speeds| {
            of.get(&threads).map_or(f64::NAN, |values| 100.0 * median(values.clone()))
        };
        let behind = format!(" {:.0} % | {:.0} % |", percent(&shares), percent(&outside));
        let tests = [format!("pp{prompt}"), format!("tg{generate} @ d{prompt}")];
        let behind = [" – | – |".to_owned(), behind];
        for (((test, ours), theirs), behind) in tests.iter().zip(&ours).zip(&theirs).zip(&behind) {
            println!("| {} | {test} |{}{behind}", model.name, row("llama.cpp", ours, theirs));
        }
        Ok(())
    }

    /// Prints what shapes of other kinds take for a byte that they read, against a dense one.
    fn shapes(&self) -> Result<ExitCode> {
        const WORK: [u32; 2] = [128, 64];
        let threads = *self.flags.threads.iter().max().unwrap_or(&1);
        println!(
            "| shape | pp128 | tg64 | time for a byte, dense = 1 | mlx-lm, pp16 | tg4 | ratio of tg |"
        );
        println!("|---|---|---|---|---|---|---|");
        let mut dense = None;
        for (name, shape) in shapes::all() {
            let config = self.configs.join(format!("{}.json", name.replace(' ', "-")));
            std::fs::write(&config, shape.to_string())?;
            let base = dense.get_or_insert_with(|| config.clone()).clone();
            if self.flags.filter.as_ref().is_some_and(|filter| !name.contains(filter.as_str())) {
                continue;
            }
            let (mut found, mut ratios) = (Vec::new(), Vec::new());
            for round in 0..self.flags.rounds {
                shell::step(&format!("{name}, round {}", round + 1));
                let one = self.measure_ours(&config, threads, WORK)?;
                let other = self.measure_ours(&base, threads, WORK)?;
                ratios.push(other.bytes_per_second() / one.bytes_per_second());
                found.push(one);
            }
            let of = |value: fn(&Ours) -> f64| median(found.iter().map(value).collect());
            let (prompt, generate) = (of(|ours| ours.prompt), of(|ours| ours.generate));
            let theirs = match &self.flags.mlx_lm {
                // Not every version of it runs experts that are quantized.
                Some(python) => match measure_mlx_lm(python, &config, FEW) {
                    Ok([pp, tg]) => format!("{pp:.2} | {tg:.2} | {:.0}", generate / tg),
                    Err(error) => {
                        eprintln!("{name}: {error:#}");
                        "fails | fails | –".to_owned()
                    }
                },
                None => "– | – | –".to_owned(),
            };
            let ratio = median(ratios);
            println!("| {name} | {prompt:.1} | {generate:.1} | {ratio:.2} | {theirs} |");
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Few tokens in one round: mlx-lm takes seconds for each.
    fn beside_mlx_lm(&self, model: &Model, config: &Path, python: &Path) -> Result<()> {
        const WORK: [u32; 2] = FEW;
        shell::step(&format!("{}, mlx-lm", model.name));
        let theirs = measure_mlx_lm(python, config, WORK)?;
        let threads = *self.flags.threads.iter().max().unwrap_or(&1);
        let ours = self.measure_ours(config, threads, WORK)?;
        let [prompt, generate] = WORK;
        let tests = [format!("pp{prompt}"), format!("tg{generate} @ d{prompt}")];
        for ((test, ours), theirs) in tests.iter().zip([ours.prompt, ours.generate]).zip(theirs) {
            let of = |threads, speed| Speeds::from([(threads, vec![speed])]);
            let row = row("mlx-lm", &of(threads, ours), &of(1, theirs));
            println!("| {} | {test} |{row} – | – |", model.name);
        }
        Ok(())
    }

    /// Prints what a byte of weights takes in each mode, against one of 4 bits.
    fn modes(&self) -> Result<ExitCode> {
        const WORK: [u32; 2] = [0, 64];
        let threads = *self.flags.threads.iter().max().unwrap_or(&1);
        let four = self.write_config("0.5B 4-bit", HALF_B, Weights::Affine(4))?;
        println!(
            "| weights | tokens/s | weights read | of reading alone | outside kernels | time for a byte, 4-bit = 1 |"
        );
        println!("|---|---|---|---|---|---|");
        let modes =
            [("4-bit", Weights::Affine(4)), ("bf16", Weights::Bfloat16)].into_iter().chain(MODES);
        for (name, weights) in modes {
            if self.flags.filter.as_ref().is_some_and(|filter| !name.contains(filter.as_str())) {
                continue;
            }
            let config = self.write_config(&format!("0.5B {name}"), HALF_B, weights)?;
            let (mut found, mut ratios) = (Vec::new(), Vec::new());
            for round in 0..self.flags.rounds {
                shell::step(&format!("{name}, round {}", round + 1));
                let one = self.measure_ours(&config, threads, WORK)?;
                let base = self.measure_ours(&four, threads, WORK)?;
                ratios.push(base.bytes_per_second() / one.bytes_per_second());
                found.push(one);
            }
            let of = |value: fn(&Ours) -> f64| median(found.iter().map(value).collect());
            println!(
                "| {name} | {:.1} | {:.1} GB/s | {:.0} % | {:.0} % | {:.2} |",
                of(|ours| ours.generate),
                of(Ours::bytes_per_second) / 1e9,
                100.0 * of(|ours| ours.share),
                100.0 * of(|ours| ours.outside),
                median(ratios),
            );
        }
        Ok(ExitCode::SUCCESS)
    }

    fn measure_ours(&self, config: &Path, threads: u32, work: [u32; 2]) -> Result<Ours> {
        let [prompt, generate] = work.map(|n| n.to_string());
        let repetitions = if work[0] > 1000 { "1" } else { "3" };
        let isa = self.flags.isa.iter().flat_map(|isa| ["--isa", isa]);
        let text = shell::output(
            Command::new(&self.mlxk)
                .args(["bench", "--json", "-r", repetitions])
                .args(["-p", &prompt, "-n", &generate, "-d", &prompt])
                .args(isa)
                .args(["--threads", &threads.to_string(), "--synthetic"])
                .arg(config),
        )?;
        let report: Value = serde_json::from_str(&text).context("mlxk bench --json")?;
        let data = &report["data"];
        let results = data["results"].as_array().map(Vec::as_slice).unwrap_or_default();
        let of = |key: &str, field: &str| {
            let result = results.iter().find(|result| result[key].as_u64().is_some_and(|n| n > 0));
            result.and_then(|result| result[field].as_f64())
        };
        let found = (|| {
            Some(Ours {
                prompt: if work[0] == 0 { 0.0 } else { of("n_prompt", "median")? },
                generate: of("n_gen", "median")?,
                size: data["model"]["active_bytes"].as_f64()?,
                share: of("n_gen", "share_of_reading")?,
                outside: of("n_gen", "outside_kernels")?,
            })
        })();
        found.with_context(|| format!("mlxk bench --json has no figures: {text}"))
    }

    fn write_config(&self, name: &str, shape: Shape, weights: Weights) -> Result<PathBuf> {
        let name: String = name.chars().filter(|c| *c != ',').collect();
        let path = self.configs.join(format!("{}.json", name.replace(' ', "-")));
        std::fs::write(&path, config(shape, weights).to_string())?;
        Ok(path)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn config(shape: Shape, weights: Weights) -> Value {
    let [hidden, feed_forward, heads, kv_heads, layers, vocabulary] = shape;
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
    config["quantization"] = match weights {
        Weights::Bfloat16 => return config,
        Weights::Affine(bits) => json!({ "group_size": 64, "bits": bits }),
        Weights::Mode("nvfp4") => json!({ "group_size": 16, "bits": 4, "mode": "nvfp4" }),
        Weights::Mode(mode) => {
            let bits = if mode == "mxfp8" { 8 } else { 4 };
            json!({ "group_size": 32, "bits": bits, "mode": mode })
        }
    };
    config
}

impl Bench {
    /// The peer's program and its model, if the user has given the one and has the other.
    fn peer_models(&self, model: &Model) -> Result<Option<(PathBuf, PathBuf)>> {
        let (Some(bench), Some(gguf)) = (&self.llama, model.gguf) else { return Ok(None) };
        let dir = match &self.models {
            Some(dir) => dir.clone(),
            None => bench.parent().map(Path::to_path_buf).unwrap_or_default(),
        };
        let gguf = dir.join(gguf);
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

/// Our figures of one run.
struct Ours {
    /// Tokens per second.
    prompt: f64,
    generate: f64,
    /// Bytes of the weights.
    size: f64,
    /// The part of plain reading's speed at which generation read them.
    share: f64,
    /// The part of generation in which no kernel ran.
    outside: f64,
}

impl Ours {
    fn bytes_per_second(&self) -> f64 {
        self.generate * self.size
    }
}

/// Tokens of a prompt and behind it, where each takes seconds.
const FEW: [u32; 2] = [16, 4];

fn measure_mlx_lm(python: &Path, config: &Path, work: [u32; 2]) -> Result<[f64; 2]> {
    let script = shell::root().join("xtask/src/bench/mlx_lm_speed.py");
    let text = shell::output(
        Command::new(python).arg(script).arg(config).args(work.map(|n| n.to_string())),
    )?;
    speeds_in(&text).with_context(|| format!("mlx-lm: no speeds in {text:?}"))
}

/// Takes the better of the program's rounds but for the first, which warms it up.
fn measure_llama(bench: &Path, gguf: &Path, threads: u32, work: [u32; 2]) -> Result<[f64; 2]> {
    let [prompt, generate] = work;
    let text = shell::output(
        Command::new(bench).arg(gguf).args([threads, prompt, generate].map(|n| n.to_string())),
    )?;
    let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
    speeds_in(rest).with_context(|| format!("{}: no speeds in {text:?}", bench.display()))
}

/// Takes the greatest of lines with two numbers each, of a prompt and of generation.
fn speeds_in(text: &str) -> Option<[f64; 2]> {
    let rounds = text.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse::<f64>().ok());
        Some([numbers.next()?, numbers.next()?])
    });
    rounds.reduce(|a, b| [a[0].max(b[0]), a[1].max(b[1])])
}

/// Compares the medians of either side's best number of threads.
fn row(peer: &str, ours: &Speeds, theirs: &Speeds) -> String {
    let (Some(ours), theirs) = (best(ours), best(theirs)) else { return " – |".to_owned() };
    let cell = |(threads, median, low, high): (u32, f64, f64, f64)| {
        format!(" {median:.1} ({low:.1}–{high:.1}) | {threads} |")
    };
    match theirs {
        Some(theirs) => {
            format!("{} {peer} |{} {:.2} |", cell(ours), cell(theirs), ours.1 / theirs.1)
        }
        None => format!("{} – | – | – | – |", cell(ours)),
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
        let row_of = |theirs| row("llama.cpp", &ours, theirs);
        let expected = " 44.0 (40.0–48.0) | 2 | llama.cpp | 21.0 (20.0–22.0) | 1 | 2.10 |";
        assert_eq!(row_of(&theirs), expected);
        assert_eq!(row_of(&Speeds::new()), " 44.0 (40.0–48.0) | 2 | – | – | – | – |");
        assert_eq!(speeds_in("pp8 5.5 tok/s  tg2 1.5 tok/s\nno\npp8 5 x 2"), Some([5.5, 2.0]));
    }
}
