//! `mlxk bench`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use mlx_lm::bench::Generation;
use mlx_lm::core::kernels::{self, Arithmetic, Isa, KernelOptions};
use mlx_lm::core::{Array, Device, Dtype, MLX_VERSION, memory};
use mlx_lm::load::{LoadOptions, Model};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::CLI_VERSION;
use crate::cli::{KvArgs, Precision};
use crate::error::{CommandError, Kind};
use crate::model;
use crate::output::{Bytes, Count, Output};
use crate::running;

/// Measure the speed of a model
///
/// The tests are those of llama-bench: `pp512` processes a prompt of 512 tokens, `tg128`
/// generates 128 tokens behind an empty prompt, `tg128 @ d4096` behind one of 4096 tokens, which are
/// not part of the time. Each runs once to warm up and is then timed
/// several times. Speeds are in tokens per second, mean and standard deviation.
///
/// On a CPU it also measures how fast memory can be read, which bounds generation: each token reads
/// all weights once.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model: a name in the cache or a part of one, a directory, or `demo`
    #[arg(required_unless_present = "synthetic", value_hint = clap::ValueHint::AnyPath)]
    model: Option<PathBuf>,

    /// Lengths of the prompts, separated by commas; 0 leaves the test out
    #[arg(short = 'p', long, value_name = "N,…", value_delimiter = ',', default_value = "512")]
    n_prompt: Vec<usize>,

    /// Numbers of tokens to generate, separated by commas; 0 leaves the test out
    #[arg(short = 'n', long, value_name = "N,…", value_delimiter = ',', default_value = "128")]
    n_gen: Vec<usize>,

    /// Lengths of the context that generation starts behind, separated by commas
    #[arg(short = 'd', long, value_name = "N,…", value_delimiter = ',', default_value = "0")]
    n_depth: Vec<usize>,

    /// How often each test is timed
    #[arg(short, long, value_name = "N", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    repetitions: u32,

    /// Measure random weights of the shapes that this config.json asks for
    #[arg(long, value_name = "CONFIG", conflicts_with = "model")]
    #[arg(value_hint = clap::ValueHint::FilePath)]
    synthetic: Option<PathBuf>,

    /// Compute in this element type instead of the model's own
    #[arg(long, value_enum)]
    dtype: Option<Precision>,

    #[command(flatten)]
    kv: KvArgs,

    /// Sum products with quantized weights in float32 on a CPU, not of activations in 8 bits
    #[arg(long)]
    exact: bool,

    /// Compute with these instructions of the CPU instead of the best that it has: scalar, avx2, avx512
    /// or neon
    #[arg(long, value_name = "NAME", value_parser = isa)]
    isa: Option<Isa>,
}

fn isa(name: &str) -> Result<Isa, String> {
    Isa::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
        format!("this CPU has {}", names.join(", "))
    })
}

/// `data` of the envelope.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "bench")]
pub(crate) struct Data {
    model: ModelInfo,
    device: String,
    /// The instructions that kernels computed with; on a CPU only.
    isa: Option<&'static str>,
    cli_version: &'static str,
    mlx_version: &'static str,
    results: Vec<TestResult>,
    peak_memory_bytes: usize,
    /// How fast the weights themselves can be read and nothing else; on a CPU only.
    read_bytes_per_second: Option<f64>,
}

#[derive(Serialize, JsonSchema)]
struct ModelInfo {
    name: String,
    synthetic: bool,
    model_type: String,
    quantization: Option<String>,
    n_parameters: u64,
    size_bytes: u64,
    /// What of them one token reads: the experts that are chosen, a row of an embedding.
    active_bytes: u64,
}

#[derive(Serialize, JsonSchema)]
struct TestResult {
    test: String,
    n_prompt: usize,
    n_gen: usize,
    n_depth: usize,
    repetitions: usize,
    tokens_per_second: f64,
    stddev: f64,
    median: f64,
    samples: Vec<f64>,
    /// The part of a generation's time in which no kernel ran; on a CPU only.
    outside_kernels: Option<f64>,
    /// How fast a generation read the weights, by how fast nothing but reading does right after it: the
    /// median of all repetitions; on a CPU only.
    share_of_reading: Option<f64>,
    /// Bytes per second of these readings.
    #[serde(skip)]
    readings: Vec<f64>,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<(), CommandError> {
    let tests = tests(args)?;
    let (name, model) = load(args, output)?;
    check_lengths(&tests, &model)?;
    let weights = read_weights(&model);
    memory::reset_peak()?;
    let arithmetic = if args.exact { Arithmetic::Exact } else { Arithmetic::Fast };
    let isa = args.isa.unwrap_or(kernels::options().isa);
    let options = KernelOptions { arithmetic, isa };
    let results = kernels::with_options(options, || {
        tests
            .iter()
            .map(|test| measure(&model, &weights, test, args))
            .collect::<Result<Vec<_>, _>>()
    })?;
    let (config, device) = (model.config(), Device::default_device());
    let peak_memory_bytes = memory::peak()?;
    let readings = results.iter().flat_map(|result| result.readings.iter().copied());
    let readings: Vec<f64> = readings.collect();
    let read_bytes_per_second = (!readings.is_empty()).then(|| statistics(&readings).2);
    let data = Data {
        model: ModelInfo {
            name,
            synthetic: args.synthetic.is_some(),
            model_type: config.model_type.clone(),
            quantization: config.quantization.as_ref().map(|q| q.default.to_string()),
            n_parameters: model.n_parameters(),
            size_bytes: model.weight_bytes(),
            active_bytes: model.active_bytes(),
        },
        device: format!("{device:?}").to_lowercase(),
        isa: (device == Device::Cpu).then(|| isa.name()),
        cli_version: CLI_VERSION,
        mlx_version: MLX_VERSION,
        results,
        peak_memory_bytes,
        read_bytes_per_second,
    };
    match output.is_json() {
        true => output.success("bench", &data),
        false => output.write(&table(&data)),
    }
}

/// The weights that plain reading is measured with: all, but no more than a machine has in memory where
/// few of many experts are ever read.
fn read_weights(model: &Model) -> Vec<Array> {
    const MOST_BYTES: usize = 2 << 30;
    let (mut arrays, mut n_bytes) = (Vec::new(), 0);
    model.for_each_array(&mut |_, array| {
        if n_bytes < MOST_BYTES {
            n_bytes += array.nbytes();
            arrays.push(array.clone());
        }
    });
    arrays
}

/// What one row of the table measures.
struct Test {
    n_prompt: usize,
    n_gen: usize,
    n_depth: usize,
}

fn tests(args: &Args) -> Result<Vec<Test>, CommandError> {
    let prompts = args.n_prompt.iter().map(|&n_prompt| Test { n_prompt, n_gen: 0, n_depth: 0 });
    let generations = args.n_depth.iter().flat_map(|&n_depth| {
        args.n_gen.iter().map(move |&n_gen| Test { n_prompt: 0, n_gen, n_depth })
    });
    let tests: Vec<Test> =
        prompts.chain(generations).filter(|test| test.n_prompt + test.n_gen > 0).collect();
    match tests.is_empty() {
        true => Err(CommandError::usage("-p 0 and -n 0 leave nothing to measure")),
        false => Ok(tests),
    }
}

fn load(args: &Args, output: &Output) -> Result<(String, Model), CommandError> {
    let dtype = args.dtype.map(Dtype::from);
    match (&args.synthetic, &args.model) {
        (Some(config), _) => Ok((config.display().to_string(), synthetic(config, dtype)?)),
        (None, Some(path)) => {
            let files = model::files(path)?;
            running::enter("bench", path);
            let (model, notes) = Model::load(&files, &LoadOptions { dtype })?;
            notes.iter().for_each(|note| output.warning(note));
            Ok((path.display().to_string(), model))
        }
        (None, None) => Err(CommandError::usage("a model or --synthetic is needed")),
    }
}

/// Makes a model of random weights from a config.json, or from the one in a directory.
fn synthetic(path: &Path, dtype: Option<Dtype>) -> Result<Model, CommandError> {
    let path = if path.is_dir() { path.join("config.json") } else { path.to_path_buf() };
    let text = std::fs::read_to_string(&path).map_err(|e| CommandError::file(&path, &e))?;
    let config: Value = serde_json::from_str(&text)
        .map_err(|e| CommandError::new(Kind::InvalidModel, format!("{}: {e}", path.display())))?;
    Model::random(&config, dtype, 0).map_err(|e| e.context(path.display()).into())
}

/// Refuses a test that the model's context window cannot hold.
fn check_lengths(tests: &[Test], model: &Model) -> Result<(), CommandError> {
    let Some(context) = model.config().context_length else { return Ok(()) };
    let length = |test: &Test| test.n_prompt.max(test.n_gen.saturating_add(test.n_depth));
    let longest = tests.iter().map(length).max().unwrap_or(0);
    if longest <= context {
        return Ok(());
    }
    let text = format!("{longest} tokens do not fit the context window of {context} tokens");
    Err(CommandError::new(Kind::ContextLength, text)
        .hint(format!("-p, and -n with -d, take at most {context} for this model")))
}

fn measure(
    model: &Model,
    weights: &[Array],
    test: &Test,
    args: &Args,
) -> Result<TestResult, CommandError> {
    let &Test { n_prompt, n_gen, n_depth } = test;
    let is_told = n_gen > 0 && Device::default_device() == Device::Cpu;
    let kv = args.kv.into();
    let time = || match n_prompt {
        0 => mlx_lm::bench::text_generation(model, n_depth, n_gen, kv),
        _ => mlx_lm::bench::prompt_processing(model, n_prompt, kv)
            .map(|seconds| Generation { seconds, kernel_seconds: 0.0 }),
    };
    time()?;
    let (mut samples, mut outside) = (Vec::new(), Vec::new());
    let (mut readings, mut shares) = (Vec::new(), Vec::new());
    for _ in 0..args.repetitions {
        let Generation { seconds, kernel_seconds } = time()?;
        let speed = (n_prompt + n_gen) as f64 / seconds;
        samples.push(speed);
        if is_told {
            outside.push(1.0 - kernel_seconds / seconds);
            // Each time anew: what memory gives changes from one second to the next on shared machines.
            let reading = kernels::read_speed(weights)?;
            shares.push(speed * model.active_bytes() as f64 / reading);
            readings.push(reading);
        }
    }
    let (tokens_per_second, stddev, median) = statistics(&samples);
    Ok(TestResult {
        test: name(test),
        n_prompt,
        n_gen,
        n_depth,
        repetitions: samples.len(),
        tokens_per_second,
        stddev,
        median,
        samples,
        outside_kernels: is_told.then(|| statistics(&outside).2),
        share_of_reading: is_told.then(|| statistics(&shares).2),
        readings,
    })
}

fn name(test: &Test) -> String {
    match (test.n_prompt, test.n_depth) {
        (0, 0) => format!("tg{}", test.n_gen),
        (0, n_depth) => format!("tg{} @ d{n_depth}", test.n_gen),
        (n_prompt, _) => format!("pp{n_prompt}"),
    }
}

/// Returns mean, standard deviation of a sample, and median.
fn statistics(samples: &[f64]) -> (f64, f64, f64) {
    let n = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / n;
    let squares: f64 = samples.iter().map(|x| (x - mean).powi(2)).sum();
    let stddev = if samples.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 };
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (below, above) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    (mean, stddev, (below + above) / 2.0)
}

/// Lays the results out as llama-bench does.
fn table(data: &Data) -> String {
    let ModelInfo {
        name, model_type, quantization, n_parameters, size_bytes, active_bytes, ..
    } = &data.model;
    let quantization = quantization.as_deref().unwrap_or("dense");
    let model = format!("{model_type} {quantization}");
    let head = ["model", "size", "params", "device", "test", "t/s"].map(str::to_owned);
    let rows = data.results.iter().map(|result| {
        [
            model.clone(),
            Bytes(*size_bytes).to_string(),
            Count(*n_parameters).to_string(),
            data.device.clone(),
            result.test.clone(),
            format!("{:.2} ± {:.2}", result.tokens_per_second, result.stddev),
        ]
    });
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; 6] = std::array::from_fn(|column| width(column).unwrap_or(0));
    let mut text = format!("{name}\n\n");
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .enumerate()
            .map(|(column, (cell, width))| match column {
                0 | 3 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            })
            .collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
        if index == 0 {
            let rules = widths.iter().enumerate().map(|(column, width)| match column {
                0 | 3 => "-".repeat(*width),
                _ => format!("{}:", "-".repeat(width - 1)),
            });
            let _ = writeln!(text, "| {} |", rules.collect::<Vec<_>>().join(" | "));
        }
    }
    let generations = data
        .results
        .iter()
        .filter_map(|result| Some((result, result.outside_kernels?, result.share_of_reading?)));
    for (result, outside, share) in generations {
        let _ = write!(
            text,
            "\n{}: weights at {}/s, {:.0} % of reading alone ({}/s); {:.0} % of the time outside of kernels",
            result.test,
            Bytes((result.median * *active_bytes as f64) as u64),
            100.0 * share,
            Bytes(statistics(&result.readings).2 as u64),
            100.0 * outside,
        );
    }
    let peak = Bytes(data.peak_memory_bytes as u64);
    let isa = data.isa.map(|isa| format!(", {isa}")).unwrap_or_default();
    let _ = writeln!(text, "\npeak memory: {peak}; MLX {MLX_VERSION}, mlxk {CLI_VERSION}{isa}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_those_of_a_sample() {
        assert_eq!(statistics(&[3.0]), (3.0, 0.0, 3.0));
        assert_eq!(statistics(&[4.0, 1.0]), (2.5, 4.5f64.sqrt(), 2.5));
        assert_eq!(statistics(&[1.0, 9.0, 2.0]), (4.0, 19.0f64.sqrt(), 2.0));
    }
}
