//! How well a model predicts a text.

use mlx_core::{Array, Dtype, eval};

use crate::error::{Error, ErrorKind, Result};
use crate::load::Model;

/// Tokens whose logits are held at once.
const CHUNK: usize = 256;

/// The prediction of each token of a text.
#[derive(Clone, Debug)]
pub struct Perplexity {
    /// The tokens.
    pub token_ids: Vec<u32>,
    /// Natural logarithm of each token's probability after those before it; `None` for the first
    /// token of a window, which nothing predicts.
    pub token_logprobs: Vec<Option<f32>>,
    /// Mean negative log-probability.
    pub nll: f64,
    /// `exp(nll)`
    pub perplexity: f64,
}

/// Measures a text; one longer than the context is cut into windows of that length.
///
/// Logits are brought to float32 before the softmax.
///
/// # Errors
/// When there are fewer than two tokens or the model fails.
pub fn perplexity(model: &Model, token_ids: &[u32]) -> Result<Perplexity> {
    check_text(model, token_ids)?;
    let mut token_logprobs = Vec::with_capacity(token_ids.len());
    for ids in windows(token_ids, model.config().context_length) {
        token_logprobs.push(None);
        window_logprobs(model, ids, &mut token_logprobs)?;
    }
    let known: Vec<f64> = token_logprobs.iter().flatten().map(|&x| f64::from(x)).collect();
    let nll = -known.iter().sum::<f64>() / known.len() as f64;
    Ok(Perplexity { token_ids: token_ids.to_vec(), token_logprobs, nll, perplexity: nll.exp() })
}

/// Refuses a text that nothing can be said of.
pub(crate) fn check_text(model: &Model, token_ids: &[u32]) -> Result<()> {
    let config = model.config();
    if token_ids.len() < 2 {
        let n = token_ids.len();
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("the text has {n} tokens, at least 2 are needed"),
        ));
    }
    if let Some(token) = token_ids.iter().find(|&&id| id as usize >= config.vocab_size) {
        return Err(Error::format(
            "tokenizer.json",
            format!("makes token {token}, but the model has only {} tokens", config.vocab_size),
        ));
    }
    Ok(())
}

/// Cuts a text into windows of the length of the context.
pub(crate) fn windows(
    token_ids: &[u32],
    context_length: Option<usize>,
) -> impl Iterator<Item = &[u32]> {
    token_ids.chunks(context_length.unwrap_or(usize::MAX).max(2))
}

/// Appends the log-probability of every token but the first.
fn window_logprobs(
    model: &Model,
    ids: &[u32],
    logprobs: &mut Vec<Option<f32>>,
) -> mlx_core::Result<()> {
    let mut caches = model.make_cache();
    let inputs = &ids[..ids.len() - 1];
    for (inputs, targets) in inputs.chunks(CHUNK).zip(ids[1..].chunks(CHUNK)) {
        let n = inputs.len() as i32;
        let hidden = model.forward(&Array::from_slice(inputs, &[1, n])?, &mut caches)?;
        let logits = model.head(&hidden)?.astype(Dtype::Float32)?;
        let targets = Array::from_slice(targets, &[1, n, 1])?;
        let chosen = logits.take_along_axis(&targets, -1)?.squeeze(-1)?;
        let chunk = (chosen - logits.logsumexp(-1, false)?)?;
        eval(std::iter::once(&chunk).chain(caches.iter().flat_map(|cache| cache.state())))?;
        logprobs.extend(chunk.to_vec::<f32>()?.into_iter().map(Some));
    }
    Ok(())
}
