//! The two speeds that llama-bench reports.

use std::time::Instant;

use mlx_core::{Array, async_eval, eval, kernels, random};

use crate::cache::Cache;
use crate::error::Result;
use crate::generate::KvQuantization;
use crate::load::Model;

/// Prompt tokens that go through the model at once.
const PREFILL_STEP: usize = 2048;

/// Returns the seconds that a prompt of `n_tokens` random tokens takes, up to the logits of the
/// last, with caches packed as `kv` says.
///
/// # Errors
/// When the model fails, or keys and values cannot be packed so.
pub fn prompt_processing(
    model: &Model,
    n_tokens: usize,
    kv: Option<KvQuantization>,
) -> Result<f64> {
    let tokens = random_tokens(model, n_tokens)?;
    let mut caches = model.make_cache();
    let start = Instant::now();
    let chunks = n_tokens.div_ceil(PREFILL_STEP);
    for (i, chunk) in tokens.chunks(PREFILL_STEP).enumerate() {
        let tokens = Array::from_slice(chunk, &[1, chunk.len() as i32])?;
        let logits = kernels::fused(|| {
            let hidden = model.forward(&tokens, &mut caches)?;
            let is_last = i + 1 == chunks;
            is_last.then(|| model.head(&hidden.at((.., -1..))?)).transpose()
        })?;
        pack(&mut caches, kv)?;
        eval(caches.iter().flat_map(|cache| cache.state()).chain(&logits))?;
    }
    Ok(start.elapsed().as_secs_f64())
}

/// How long greedy steps took.
#[derive(Clone, Copy, Debug)]
pub struct Generation {
    /// From the first step to the last token's number.
    pub seconds: f64,
    /// Of these, how long CPU kernels ran; 0 on other devices.
    pub kernel_seconds: f64,
}

/// Measures `n_tokens` greedy steps behind a context of `depth` random tokens, with caches packed as
/// `kv` says.
///
/// # Errors
/// When the model fails, or keys and values cannot be packed so.
pub fn text_generation(
    model: &Model,
    depth: usize,
    n_tokens: usize,
    kv: Option<KvQuantization>,
) -> Result<Generation> {
    let mut caches = model.make_cache();
    for chunk in random_tokens(model, depth)?.chunks(PREFILL_STEP) {
        let tokens = Array::from_slice(chunk, &[1, chunk.len() as i32])?;
        kernels::fused(|| model.forward(&tokens, &mut caches).map(drop))?;
        pack(&mut caches, kv)?;
        eval(caches.iter().flat_map(|cache| cache.state()))?;
    }
    let mut token = Array::from_slice(&random_tokens(model, 1)?, &[1, 1])?;
    let (start, busy) = (Instant::now(), kernels::busy());
    let mut previous: Option<Array> = None;
    for _ in 0..n_tokens {
        token = kernels::fused(|| {
            let hidden = model.forward(&token, &mut caches)?;
            model.head(&hidden)?.argmax(-1, false)
        })?;
        pack(&mut caches, kv)?;
        async_eval([&token])?;
        // Read as a reader would: each token, one step behind.
        if let Some(previous) = previous.replace(token.clone()) {
            previous.item::<u32>()?;
        }
    }
    if let Some(last) = previous {
        last.item::<u32>()?;
    }
    let kernel_seconds = (kernels::busy() - busy).as_secs_f64();
    Ok(Generation { seconds: start.elapsed().as_secs_f64(), kernel_seconds })
}

fn pack(caches: &mut [Cache], kv: Option<KvQuantization>) -> Result<()> {
    kv.map_or(Ok(()), |kv| kv.apply(caches))
}

fn random_tokens(model: &Model, n: usize) -> Result<Vec<u32>> {
    let key = random::key(0)?;
    let high = model.config().vocab_size as i32;
    let shape = [i32::try_from(n).unwrap_or(i32::MAX)];
    let tokens = random::randint(0, high, &shape, mlx_core::Dtype::Uint32, Some(&key))?;
    Ok(tokens.to_vec()?)
}
