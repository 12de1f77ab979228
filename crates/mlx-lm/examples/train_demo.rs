//! Trains the architecture of the `demo` model from nothing on what that model says, and saves a
//! model that `mlxk run` loads.
//!
//! ```text
//! cargo run --release -p mlx-lm --example train_demo -- DIRECTORY [STEPS]
//! mlxk run DIRECTORY "What is the capital of France?"
//! ```

use std::error::Error;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use mlx_core::nn;
use mlx_core::nn::losses::{CrossEntropyOptions, Reduction, cross_entropy};
use mlx_core::optim::{
    AdamW, Optimizer, clip_grad_norm, cosine_decay, join_schedules, linear_schedule,
};
use mlx_core::{Array, Dtype, eval, memory};
use mlx_lm::chat::{Message, RenderOptions};
use mlx_lm::files::ModelFiles;
use mlx_lm::generate::{GenerateOptions, TokenSession};
use mlx_lm::load::{Loaded, Model};
use mlx_lm::models::LanguageModel;
use serde_json::Value;

const BATCH: usize = 8;
const SEED: u64 = 1;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let directory = PathBuf::from(args.next().ok_or("usage: train_demo DIRECTORY [STEPS]")?);
    let steps: u32 = match args.next() {
        Some(steps) => steps.to_str().ok_or("STEPS is not a number")?.parse()?,
        None => 300,
    };
    if directory.exists() {
        return Err(format!("{} exists already", directory.display()).into());
    }
    let mut out = std::io::stdout().lock();

    let teacher =
        mlx_lm::load(&ModelFiles::embedded("demo", fixtures::demo::FILES), &Default::default())?;
    let conversations = generate(&teacher)?;
    let n_tokens: usize = conversations.iter().map(Vec::len).sum();
    writeln!(out, "{} conversations, {n_tokens} tokens", conversations.len())?;

    let mut config = teacher.model.config().raw.clone();
    if let Some(config) = config.as_object_mut() {
        config.retain(|key, _| !key.starts_with("quantization"));
    }
    let mut model = Model::random(&config, Some(Dtype::Float32), SEED)?;
    writeln!(out, "{} parameters", model.n_parameters())?;
    train(&mut model, &conversations, steps, &mut out)?;
    save(&model, &config, &directory)?;
    writeln!(
        out,
        "saved; try: mlxk run {} \"What is the capital of France?\"",
        directory.display()
    )?;
    Ok(())
}

/// Returns the demo model's prompts of one turn with its answers to them, as tokens.
fn generate(teacher: &Loaded) -> Result<Vec<Vec<u32>>, Box<dyn Error>> {
    let template = teacher.tokenizer.chat_template().ok_or("the demo model has no template")?;
    let prompts = fixtures::json("mlx-lm/demo_prompts.json");
    let prompts = prompts.as_array().ok_or("not a list")?.iter();
    let mut conversations = Vec::new();
    for prompt in prompts.filter(|p| p["tools"].is_null()) {
        let [message] = prompt["messages"].as_array().map_or(&[][..], Vec::as_slice) else {
            continue;
        };
        let message = Message::user(message["content"].as_str().unwrap_or_default());
        let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
        let text = template.render(&[message], None, &options)?;
        let mut tokens = teacher.tokenizer.encode(&text, false)?;
        let mut session = TokenSession::new(&teacher.model);
        let options = GenerateOptions { max_tokens: Some(60), ..GenerateOptions::default() };
        let answer: Vec<u32> = session.generate(&tokens, &options)?.collect::<Result<_, _>>()?;
        tokens.extend(answer);
        conversations.push(tokens);
    }
    Ok(conversations)
}

/// Sequences of one length, and where each is more than padding.
struct Batch {
    /// `[B, L]`
    tokens: Array,
    /// `[B, L]`
    targets: Array,
    /// `[B, L]`, 1 or 0.
    mask: Array,
}

impl Batch {
    fn new(conversations: &[&Vec<u32>]) -> mlx_core::Result<Batch> {
        let length = conversations.iter().map(|c| c.len()).max().unwrap_or(1) - 1;
        let (mut tokens, mut targets, mut mask) = (Vec::new(), Vec::new(), Vec::new());
        for conversation in conversations {
            for i in 0..length {
                let at = |i: usize| conversation.get(i).copied().unwrap_or(0);
                tokens.push(at(i));
                targets.push(at(i + 1));
                mask.push(if i + 1 < conversation.len() { 1.0f32 } else { 0.0 });
            }
        }
        let shape = [conversations.len() as i32, length as i32];
        Ok(Batch {
            tokens: Array::from_slice(&tokens, &shape)?,
            targets: Array::from_slice(&targets, &shape)?,
            mask: Array::from_slice(&mask, &shape)?,
        })
    }

    /// Returns the mean cross entropy of the tokens that follow.
    fn loss(&self, model: &dyn LanguageModel) -> mlx_core::Result<Array> {
        let hidden = model.forward(&self.tokens, &mut model.make_cache())?;
        let logits = model.head(&hidden)?;
        let options = CrossEntropyOptions {
            weights: Some(&self.mask),
            reduction: Reduction::Sum,
            ..CrossEntropyOptions::default()
        };
        cross_entropy(&logits, &self.targets, options)? / self.mask.sum(.., false)?
    }
}

fn train(
    model: &mut Model,
    conversations: &[Vec<u32>],
    steps: u32,
    out: &mut impl std::io::Write,
) -> Result<(), Box<dyn Error>> {
    let warmup = (steps / 10).max(1);
    let rate = join_schedules(
        vec![linear_schedule(0.0, 2e-3, warmup)?, cosine_decay(2e-3, steps.max(2) - warmup, 1e-5)?],
        &[warmup],
    )?;
    let mut optimizer = Optimizer::new(AdamW { bias_correction: true, ..AdamW::default() }, rate)?;
    let start = Instant::now();
    for step in 1..=steps {
        // Strides that share no factor with the number of conversations visit all of them.
        let first = step as usize * BATCH;
        let chosen = (first..first + BATCH).map(|i| &conversations[i * 7 % conversations.len()]);
        let batch = Batch::new(&chosen.collect::<Vec<_>>())?;
        let (loss, gradients) = nn::value_and_grad(&mut **model, |model| batch.loss(model))?;
        let (gradients, _) = clip_grad_norm(&gradients, 1.0)?;
        optimizer.update(&mut **model, &gradients)?;
        eval(model.parameters().values().chain(optimizer.state().values()).chain([&loss]))?;
        if step == 1 || step % 25 == 0 || step == steps {
            let loss = loss.item::<f32>()?;
            let seconds = start.elapsed().as_secs_f64();
            let peak = memory::peak()? as f64 / 1e6;
            writeln!(
                out,
                "step {step:4}  loss {loss:7.4}  {seconds:6.1} s  {peak:5.0} MB at most"
            )?;
        }
    }
    Ok(())
}

/// Writes the model as a directory with the demo model's tokenizer.
fn save(model: &Model, config: &Value, directory: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(directory)?;
    for (name, content) in fixtures::demo::FILES {
        if !matches!(*name, "config.json" | "model.safetensors") {
            fs::write(directory.join(name), content)?;
        }
    }
    model.save_weights(&directory.join("model.safetensors"))?;
    fs::write(directory.join("config.json"), serde_json::to_string_pretty(config)?)?;
    Ok(())
}
