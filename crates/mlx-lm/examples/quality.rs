//! What each format costs: the tables of docs/quantization.md.
//!
//! ```text
//! cargo run --release -p mlx-lm --example quality
//! cargo run --release -p mlx-lm --example quality -- shapes
//! ```
//!
//! The first converts the trained model, unpacked to bfloat16, to every format and compares each on the
//! answers of its tests. The second converts the tiny models of the tests, one or more of each family
//! and all with random weights, to 3, 4, 6 and 8 bits with either search for scales, and compares them
//! on random tokens.

use std::error::Error;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use mlx_core::kernels::{Arithmetic, ScaleSearch};
use mlx_core::{Dtype, QuantMode};
use mlx_lm::convert::{ConvertArgs, QuantPredicate, Recipe, convert};
use mlx_lm::divergence::{Run, divergence};
use mlx_lm::files::ModelFiles;
use mlx_lm::load::{LoadOptions, Model};
use mlx_lm::quality::{CompareArgs, Comparison, Sensitivities, SensitivityArgs, compare};
use mlx_lm::tokenizer::Tokenizer;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const SEARCHES: [(ScaleSearch, &str); 2] =
    [(ScaleSearch::MinMax, "min-max"), (ScaleSearch::LeastSquares, "least squares")];

/// Random tokens on which tiny models are compared.
const N_RANDOM: usize = 200;

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        None => formats(),
        Some("shapes") => shapes(),
        Some(_) => Err("the only argument there is is `shapes`".into()),
    }
}

/// What becomes of the trained model's layers.
enum Format {
    Bits(i32),
    Recipe(Recipe),
    Mode(QuantMode),
    Target(f64),
}

impl Format {
    fn name(&self) -> String {
        match self {
            Format::Bits(bits) => format!("{bits}-bit"),
            Format::Recipe(recipe) => recipe.name().to_owned(),
            Format::Mode(mode) => mode.name().to_owned(),
            Format::Target(target) => format!("`--target-bpw {target}`"),
        }
    }
}

fn formats() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let dense = dir.path().join("dense");
    convert(ConvertArgs {
        source: fixtures::path("../models/demo"),
        destination: dense.clone(),
        dequantize: true,
        dtype: Some(Dtype::Bfloat16),
        ..ConvertArgs::default()
    })?;
    let bits = [8, 6, 5, 4, 3, 2].map(Format::Bits);
    let recipes = Recipe::ALL.map(Format::Recipe);
    let modes = QuantMode::ALL[1..].iter().map(|&mode| Format::Mode(mode));
    let targets = [6.5, 6.0, 5.5, 4.8, 4.5, 4.0, 3.5, 3.0].map(Format::Target);
    let all = bits.into_iter().chain(recipes).chain(modes).chain(targets);
    let mut out = std::io::stdout();
    writeln!(
        out,
        "| format | scales | bits per weight | perplexity | mean KL | 99 % KL | same top |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|")?;
    for (i, format) in all.enumerate() {
        for (search, name) in SEARCHES {
            if matches!(format, Format::Mode(_)) && search != ScaleSearch::MinMax {
                continue;
            }
            let to = dir.path().join(format!("{i}-{name}"));
            let found = converted(&dense, &to, &format, search)?;
            let d = &found.divergence;
            writeln!(
                out,
                "| {} | {name} | {:.2} | {:.2} | {:.1e} | {:.1e} | {:.1} % |",
                format.name(),
                found.other.bits_per_weight(),
                d.perplexity,
                d.mean_kl,
                d.kl_99,
                100.0 * d.same_top,
            )?;
            std::fs::remove_dir_all(to)?;
        }
    }
    Ok(())
}

/// Converts the model and compares the result with it.
fn converted(
    dense: &Path,
    to: &Path,
    format: &Format,
    scale_search: ScaleSearch,
) -> Result<Comparison> {
    let files = ModelFiles::directory(dense)?;
    let text = answers();
    let mut args = ConvertArgs {
        source: dense.to_owned(),
        destination: to.to_owned(),
        quantize: true,
        dtype: Some(Dtype::Bfloat16),
        scale_search,
        ..ConvertArgs::default()
    };
    let mut assignment;
    match format {
        Format::Bits(bits) => args.q_bits = *bits,
        Format::Recipe(recipe) => args.recipe = Some(*recipe),
        Format::Mode(mode) => args.q_mode = *mode,
        Format::Target(target) => {
            let mut token_ids = Tokenizer::load(&files)?.encode(&text, true)?;
            token_ids.truncate(256);
            assignment = Sensitivities::measure(SensitivityArgs {
                files: &files,
                token_ids: &token_ids,
                group_size: 64,
                scale_search,
                dtype: Some(Dtype::Bfloat16),
                progress: &mut |_, _| ControlFlow::Continue(()),
            })?
            .assign(*target)?;
            args.predicate = Some(&mut assignment as &mut dyn QuantPredicate);
        }
    }
    convert(args)?;
    Ok(compare(CompareArgs {
        reference: &files,
        other: &ModelFiles::directory(to)?,
        text: &text,
        arithmetic: Arithmetic::Exact,
    })?)
}

/// The answers that the model gives in its tests.
fn answers() -> String {
    let data = fixtures::json("mlx-lm/demo_greedy.json");
    let cases = data["cases"].as_array().into_iter().flatten();
    let answers = cases.filter_map(|case| case["output"].as_str());
    answers.map(|answer| format!("{answer}<|im_end|>\n")).collect()
}

fn shapes() -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "| model | bits | mean KL, min-max | least squares | ratio |")?;
    writeln!(out, "|---|---|---|---|---|")?;
    let (mut n, mut n_better) = (0, 0);
    for source in checkpoints()? {
        for bits in [3, 4, 6, 8] {
            let Some([plain, searched]) = tiny(&source, bits)? else { continue };
            let name = source.file_name().unwrap_or_default().display();
            let ratio = searched / plain;
            writeln!(out, "| {name} | {bits} | {plain:.2e} | {searched:.2e} | {ratio:.2} |")?;
            n += 1;
            n_better += usize::from(searched <= plain);
        }
    }
    writeln!(out, "\n{n_better} of {n} are better with least squares.")?;
    Ok(())
}

/// Lists the models of the tests.
fn checkpoints() -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for folder in ["mlx-lm/checkpoints", "mlx-lm/families"] {
        for entry in fixtures::path(folder).read_dir()? {
            let path = entry?.path();
            if path.join("config.json").is_file() {
                all.push(path);
            }
        }
    }
    all.sort();
    Ok(all)
}

/// Returns the divergence of a tiny model's quantized forms from itself; `None` where it is quantized
/// already or cannot be read alone.
fn tiny(source: &Path, bits: i32) -> Result<Option<[f64; 2]>> {
    let load = |dir: &Path| -> mlx_lm::Result<Model> {
        Ok(Model::load(&ModelFiles::directory(dir)?, &LoadOptions::default())?.0)
    };
    let Ok(reference) = load(source) else { return Ok(None) };
    if reference.config().quantization.is_some() {
        return Ok(None);
    }
    let mut state = 1u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((state >> 33) % reference.config().vocab_size as u64) as u32
    };
    let tokens: Vec<u32> = std::iter::repeat_with(next).take(N_RANDOM).collect();
    let mut found = [0.0; 2];
    for ((scale_search, _), kl) in SEARCHES.into_iter().zip(&mut found) {
        let dir = tempfile::tempdir()?;
        let destination = dir.path().join("x");
        let converted = convert(ConvertArgs {
            source: source.to_owned(),
            destination: destination.clone(),
            quantize: true,
            q_bits: bits,
            q_group_size: 32,
            scale_search,
            ..ConvertArgs::default()
        });
        if converted.map_or(0, |converted| converted.n_quantized) == 0 {
            return Ok(None);
        }
        let other = load(&destination)?;
        let run = |model| Run { model, arithmetic: Arithmetic::Exact };
        *kl = divergence(run(&reference), run(&other), &tokens)?.mean_kl;
    }
    Ok(Some(found))
}
