//! What fast arithmetic costs: a model's predictions and greedy tokens in it, against exact ones.
//!
//! ```text
//! cargo run --release -p mlx-lm --example divergence -- demo
//! cargo run --release -p mlx-lm --example divergence -- DIRECTORY TEXT
//! cargo run --release -p mlx-lm --example divergence -- config.json
//! ```
//!
//! Without a text, `demo` is measured on the conversations of its tests, and another model on random
//! tokens; a configuration gets random weights.

use std::error::Error;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use mlx_core::kernels::Arithmetic;
use mlx_lm::divergence::{Run, divergence, greedy_agreement};
use mlx_lm::files::ModelFiles;
use mlx_lm::load::{LoadOptions, Model};
use mlx_lm::tokenizer::Tokenizer;
use serde_json::Value;

/// Random tokens where there is no text.
const N_RANDOM: usize = 256;

/// Tokens of each prompt, and those that are generated behind it.
const PROMPT: usize = 32;
const MAX_TOKENS: usize = 32;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (name, text) = match &arguments[..] {
        [name] => (name, None),
        [name, text] => (name, Some(fs::read_to_string(text)?)),
        _ => return Err("arguments: demo, DIRECTORY or config.json, and perhaps a TEXT".into()),
    };
    let (model, tokens) = load(name, text.as_deref())?;
    let [exact, fast] =
        [Arithmetic::Exact, Arithmetic::Fast].map(|arithmetic| Run { model: &model, arithmetic });
    let found = divergence(exact, fast, &tokens)?;
    let prompts: Vec<&[u32]> = tokens.chunks_exact(PROMPT).take(8).collect();
    let greedy = greedy_agreement(exact, fast, &prompts, MAX_TOKENS)?;
    let mut out = std::io::stdout();
    writeln!(
        out,
        "| model | tokens | mean KL | 99 % KL | same top | perplexity, exact | fast | greedy |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|---|")?;
    writeln!(
        out,
        "| {name} | {} | {:.1e} | {:.1e} | {:.2} % | {:.4} | {:.4} | {:.1} % |",
        found.n,
        found.mean_kl,
        found.kl_99,
        100.0 * found.same_top,
        found.reference_perplexity,
        found.perplexity,
        100.0 * greedy,
    )?;
    Ok(())
}

fn load(name: &str, text: Option<&str>) -> Result<(Model, Vec<u32>), Box<dyn Error>> {
    if Path::new(name).is_file() {
        let config: Value = serde_json::from_str(&fs::read_to_string(name)?)?;
        let model = Model::random(&config, None, 0)?;
        let tokens = random_tokens(&model);
        return Ok((model, tokens));
    }
    let files = match name {
        "demo" => ModelFiles::embedded(name, fixtures::demo::FILES),
        _ => ModelFiles::directory(name)?,
    };
    let (model, _) = Model::load(&files, &LoadOptions::default())?;
    let tokens = match text {
        Some(text) => Tokenizer::load(&files)?.encode(text, true)?,
        None if name == "demo" => conversations(),
        None => random_tokens(&model),
    };
    Ok((model, tokens))
}

fn random_tokens(model: &Model) -> Vec<u32> {
    let mut state = 1u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((state >> 33) % model.config().vocab_size as u64) as u32
    };
    std::iter::repeat_with(next).take(N_RANDOM).collect()
}

fn conversations() -> Vec<u32> {
    let data = fixtures::json("mlx-lm/demo_greedy.json");
    let cases = data["cases"].as_array().into_iter().flatten();
    let ids = cases.flat_map(|case| [&case["prompt_ids"], &case["output_ids"]]);
    let ids = ids.filter_map(Value::as_array).flatten().filter_map(Value::as_u64);
    ids.map(|id| id as u32).collect()
}
