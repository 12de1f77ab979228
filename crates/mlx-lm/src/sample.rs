//! From logits to a token: penalties, filters, and the draw.
//!
//! The order is mlx-lm's. Processors change the logits: bias, then repetition, presence and
//! frequency penalties. Filters drop tokens from the log-probabilities: top-p, min-p, XTC, top-k.
//! The temperature comes last, so filters see the distribution at temperature one.
//!
//! Everything stays in the lazy graph: the last tokens may not be computed yet.

use mlx_core::kernels::{self, TokenFilter, Xtc};
use mlx_core::{Array, Dtype, Ellipsis, Result, ops, random};

use crate::error::{Error, ErrorKind};

/// How tokens are chosen. The default is greedy.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Spread of the distribution; 0 takes the likeliest token.
    pub temperature: f32,
    /// Keeps the likeliest tokens that together have this probability; off at 0 and 1.
    pub top_p: f32,
    /// Keeps this many tokens; off at 0.
    pub top_k: usize,
    /// Keeps tokens at least this likely, relative to the likeliest; off at 0.
    pub min_p: f32,
    /// Tokens that `min_p` always keeps.
    pub min_tokens_to_keep: usize,
    /// Chance that the likeliest tokens are excluded (XTC); off at 0.
    pub xtc_probability: f32,
    /// Probability above which XTC counts a token as likely, at most one half.
    pub xtc_threshold: f32,
    /// Tokens that XTC never excludes.
    pub xtc_special_tokens: Vec<u32>,
    /// Divides the logits of tokens that occurred (arXiv 1909.05858); off at 0 and 1.
    pub repetition_penalty: f32,
    /// Subtracted once from tokens that occurred; off at 0.
    pub presence_penalty: f32,
    /// Subtracted for each occurrence; off at 0.
    pub frequency_penalty: f32,
    /// How many of the last tokens the repetition penalty looks at.
    pub repetition_context_size: usize,
    /// How many of the last tokens the presence penalty looks at.
    pub presence_context_size: usize,
    /// How many of the last tokens the frequency penalty looks at.
    pub frequency_context_size: usize,
    /// Added to the logits of single tokens.
    pub logit_bias: Vec<(u32, f32)>,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling {
            temperature: 0.0,
            top_p: 0.0,
            top_k: 0,
            min_p: 0.0,
            min_tokens_to_keep: 1,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            xtc_special_tokens: Vec::new(),
            repetition_penalty: 0.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_context_size: 20,
            presence_context_size: 20,
            frequency_context_size: 20,
            logit_bias: Vec::new(),
        }
    }
}

impl Sampling {
    /// Refuses settings outside their range, and tokens that the model does not have.
    ///
    /// # Errors
    /// When a setting makes no sense; the text names it.
    pub fn check(&self, vocab_size: usize) -> crate::error::Result<()> {
        if self.min_tokens_to_keep == 0 {
            let message = "min_tokens_to_keep: 0 is out of range, at least 1";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let ranges = [
            ("temperature", self.temperature, 0.0, f32::MAX),
            ("top_p", self.top_p, 0.0, 1.0),
            ("min_p", self.min_p, 0.0, 1.0),
            ("xtc_probability", self.xtc_probability, 0.0, 1.0),
            ("xtc_threshold", self.xtc_threshold, 0.0, 0.5),
            ("repetition_penalty", self.repetition_penalty, 0.0, f32::MAX),
            ("presence_penalty", self.presence_penalty, -f32::MAX, f32::MAX),
            ("frequency_penalty", self.frequency_penalty, -f32::MAX, f32::MAX),
        ];
        let fail = |message| Err(Error::new(ErrorKind::InvalidArgument, message));
        for (name, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                return fail(match high {
                    f32::MAX => format!("{name}: {value} is out of range, at least {low}"),
                    _ => format!("{name}: {value} is not in {low}..={high}"),
                });
            }
        }
        let biased = self.logit_bias.iter().map(|(token, _)| token);
        for &token in biased.chain(&self.xtc_special_tokens) {
            if token as usize >= vocab_size {
                return fail(format!(
                    "token {token} is not below the vocabulary size {vocab_size}"
                ));
            }
        }
        if let Some((token, bias)) = self.logit_bias.iter().find(|(_, bias)| bias.is_nan()) {
            return fail(format!("logit_bias: {bias} for token {token}"));
        }
        Ok(())
    }

    /// Returns how many of the last tokens the active penalties look at.
    fn context_size(&self) -> usize {
        let repetition = self.repetition_context_size * usize::from(self.repeats());
        let presence = self.presence_context_size * usize::from(self.presence_penalty != 0.0);
        let frequency = self.frequency_context_size * usize::from(self.frequency_penalty != 0.0);
        repetition.max(presence).max(frequency)
    }

    fn repeats(&self) -> bool {
        !matches!(self.repetition_penalty, 0.0 | 1.0)
    }
}

/// Chooses tokens of one sequence.
pub struct Sampler {
    sampling: Sampling,
    key: Array,
    /// `[1, n]`: the last tokens, for the penalties.
    recent: Option<Array>,
}

impl Sampler {
    /// Starts a sequence that has `prompt` so far. The same seed gives the same draws.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn new(sampling: Sampling, prompt: &[u32], seed: Option<u64>) -> Result<Sampler> {
        let key = match seed {
            Some(seed) => random::key(seed)?,
            None => random::next_key()?,
        };
        let mut sampler = Sampler { sampling, key, recent: None };
        let tail = prompt.len().saturating_sub(sampler.sampling.context_size());
        sampler
            .remember(&Array::from_slice(&prompt[tail..], &[1, (prompt.len() - tail) as i32])?)?;
        Ok(sampler)
    }

    /// Adds tokens, `[1, n]`, to what the penalties look at.
    fn remember(&mut self, tokens: &Array) -> Result<()> {
        let context_size = self.sampling.context_size();
        if context_size == 0 {
            return Ok(());
        }
        let all = match self.recent.take() {
            Some(recent) => ops::concatenate([&recent, tokens], 1)?,
            None => tokens.clone(),
        };
        self.recent = Some(last(&all, context_size)?);
        Ok(())
    }

    /// Chooses a token and remembers it.
    ///
    /// # Shape
    /// `logits: [1, V] → [1]`, `uint32`
    ///
    /// # Errors
    /// When memory runs out.
    pub fn sample(&mut self, logits: &Array) -> Result<Array> {
        let logits = process(logits, self.recent.as_ref(), &self.sampling)?;
        let token = if self.sampling.temperature == 0.0 {
            logits.argmax(-1, false)?
        } else {
            let keys = random::split(&self.key, 2)?;
            self.key = keys.at(0)?;
            let draws =
                random::uniform(0.0f32, 1.0f32, &[1, 2], Dtype::Float32, Some(&keys.at(1)?))?;
            draw(&logits, &draws, &self.sampling)?
        };
        self.remember(&token.reshape([1, 1])?)?;
        Ok(token)
    }
}

/// Applies bias and penalties.
///
/// # Shape
/// `logits: [1, V]`, `recent: [1, n] → [1, V]`
///
/// # Errors
/// When memory runs out.
pub fn process(logits: &Array, recent: Option<&Array>, sampling: &Sampling) -> Result<Array> {
    let mut logits = logits.clone();
    if !sampling.logit_bias.is_empty() {
        let (tokens, values): (Vec<u32>, Vec<f32>) = sampling.logit_bias.iter().copied().unzip();
        let n = tokens.len() as i32;
        let values = Array::from_slice(&values, &[1, n])?.astype(logits.dtype())?;
        logits = logits.scatter_add_axis(&Array::from_slice(&tokens, &[1, n])?, &values, -1)?;
    }
    let Some(recent) = recent.filter(|recent| recent.size() > 0) else { return Ok(logits) };
    if sampling.repeats() {
        let recent = last(recent, sampling.repetition_context_size)?;
        let penalty = sampling.repetition_penalty;
        let seen = logits.take_along_axis(&recent, -1)?;
        let lowered = ops::where_(&seen.less(0.0f32)?, (&seen * penalty)?, (&seen / penalty)?)?;
        logits = logits.put_along_axis(&recent, lowered, -1)?;
    }
    if sampling.presence_penalty != 0.0 {
        let counts = counts(&last(recent, sampling.presence_context_size)?, &logits)?;
        let lowered = (&logits - sampling.presence_penalty)?;
        logits = ops::where_(&counts.greater(0.0f32)?, lowered, &logits)?;
    }
    if sampling.frequency_penalty != 0.0 {
        let counts = counts(&last(recent, sampling.frequency_context_size)?, &logits)?;
        logits = (logits - (counts * sampling.frequency_penalty)?)?;
    }
    Ok(logits)
}

/// Returns the last `n` of `[1, …]` tokens.
fn last(tokens: &Array, n: usize) -> Result<Array> {
    let excess = tokens.dim(1)?.saturating_sub(i32::try_from(n).unwrap_or(i32::MAX));
    if excess > 0 { tokens.at((.., excess..)) } else { Ok(tokens.clone()) }
}

/// Counts each token of the vocabulary among `recent`, in the shape and dtype of `logits`.
fn counts(recent: &Array, logits: &Array) -> Result<Array> {
    let ones = ops::ones(recent.shape(), logits.dtype())?;
    logits.zeros_like()?.scatter_add_axis(recent, &ones, -1)
}

/// Draws a token after dropping others; `draws`, of `0..1`, choose it and say whether XTC applies.
///
/// # Shape
/// `logits: [1, V]`, `draws: [1, 2]` of float32 `→ [1]`
fn draw(logits: &Array, draws: &Array, sampling: &Sampling) -> Result<Array> {
    let token_filter = TokenFilter {
        top_p: (0.0 < sampling.top_p && sampling.top_p < 1.0).then_some(sampling.top_p),
        min_p: (sampling.min_p > 0.0).then_some((sampling.min_p, sampling.min_tokens_to_keep)),
        xtc: (sampling.xtc_probability > 0.0).then(|| Xtc {
            probability: sampling.xtc_probability,
            threshold: sampling.xtc_threshold,
            special_tokens: sampling.xtc_special_tokens.clone(),
        }),
        top_k: (sampling.top_k > 0).then_some(sampling.top_k),
    };
    let (temperature, sampling) = (sampling.temperature, sampling.clone());
    let ops = move |logits: &Array, draws: &Array| draw_by_ops(logits, draws, &sampling);
    kernels::sample_tokens(logits, draws, token_filter, temperature, ops)
}

fn draw_by_ops(logits: &Array, draws: &Array, sampling: &Sampling) -> Result<Array> {
    let logits = logits.astype(Dtype::Float32)?;
    let logprobs = (&logits - logits.logsumexp(-1, true)?)?;
    let kept = filter(&logprobs, sampling, &draws.at((Ellipsis, 1..))?)?;
    let probs = (kept * sampling.temperature.recip())?.softmax(-1, true)?;
    let up_to = probs.cumsum(-1, ops::Scan::default())?;
    let share = (up_to.at((Ellipsis, -1..))? * draws.at((Ellipsis, ..1))?)?;
    let before = up_to.less_equal(share)?.sum(-1, false)?;
    before.minimum(logits.dim(-1)? - 1)?.astype(Dtype::Uint32)
}

/// Drops tokens: those left out get minus infinity. XTC applies where `draw`, of `0..1`, is not above
/// its probability.
///
/// # Shape
/// `logprobs: [1, V]`, `draw: [1, 1] → [1, V]`
///
/// # Errors
/// When memory runs out.
pub fn filter(logprobs: &Array, sampling: &Sampling, draw: &Array) -> Result<Array> {
    let mut logprobs = logprobs.clone();
    if 0.0 < sampling.top_p && sampling.top_p < 1.0 {
        logprobs = top_p(&logprobs, sampling.top_p)?;
    }
    if sampling.min_p > 0.0 {
        logprobs = min_p(&logprobs, sampling.min_p, sampling.min_tokens_to_keep)?;
    }
    if sampling.xtc_probability > 0.0 {
        logprobs = xtc(&logprobs, sampling, draw)?;
    }
    if sampling.top_k > 0 {
        logprobs = top_k(&logprobs, sampling.top_k)?;
    }
    Ok(logprobs)
}

const DROPPED: f32 = f32::NEG_INFINITY;

/// Keeps the likeliest tokens until their mass reaches `p`; ties at the edge are kept.
fn top_p(logprobs: &Array, p: f32) -> Result<Array> {
    let sorted = logprobs.sort(-1)?;
    let probs = sorted.astype(Dtype::Float32)?.exp()?;
    let above = probs.cumsum(-1, ops::Scan { reverse: true, inclusive: false })?;
    let total = (above.at((.., ..1))? + probs.at((.., ..1))?)?;
    let n_dropped = above.greater_equal((total * p)?)?.sum(-1, true)?;
    let threshold = sorted.take_along_axis(&n_dropped, -1)?;
    ops::where_(&logprobs.less(threshold)?, DROPPED, logprobs)
}

fn min_p(logprobs: &Array, p: f32, keep: usize) -> Result<Array> {
    let threshold = (logprobs.max(-1, true)? + p.ln())?;
    let mut dropped = logprobs.less(threshold)?;
    let n = logprobs.dim(-1)?;
    let keep = i32::try_from(keep).unwrap_or(n).min(n);
    if keep > 1 {
        let order = logprobs.argpartition(n - keep, -1)?;
        dropped = dropped.put_along_axis(&order.at((.., n - keep..))?, false, -1)?;
    }
    ops::where_(&dropped, DROPPED, logprobs)
}

/// Excludes all tokens that are likelier than the least likely of the likely ones.
fn xtc(logprobs: &Array, sampling: &Sampling, draw: &Array) -> Result<Array> {
    let probs = logprobs.softmax(-1, false)?;
    let likely = probs.greater(sampling.xtc_threshold)?;
    let least_likely = ops::where_(&likely, &probs, f32::INFINITY)?.min(-1, true)?;
    let mut excluded = probs.greater(least_likely)?;
    if !sampling.xtc_special_tokens.is_empty() {
        let tokens = &sampling.xtc_special_tokens;
        let tokens = Array::from_slice(tokens, &[1, tokens.len() as i32])?;
        excluded = excluded.put_along_axis(&tokens, false, -1)?;
    }
    let applies = draw.less_equal(sampling.xtc_probability)?;
    ops::where_(&excluded.logical_and(applies)?, DROPPED, logprobs)
}

/// DIFFERENCE: keeping as many as there are, or more, changes nothing; mlx-lm fails.
fn top_k(logprobs: &Array, k: usize) -> Result<Array> {
    let n = logprobs.dim(-1)?;
    let Some(k) = i32::try_from(k).ok().filter(|&k| k < n) else { return Ok(logprobs.clone()) };
    let order = logprobs.negative()?.argpartition(k - 1, -1)?;
    logprobs.put_along_axis(&order.at((.., k..))?, DROPPED, -1)
}

#[cfg(test)]
mod tests {
    use mlx_core::{Device, with_device};

    use super::*;

    /// Also where XTC is a matter of chance.
    #[test]
    fn the_kernel_draws_as_ops_do() -> Result<()> {
        let all = Sampling {
            temperature: 0.7,
            top_p: 0.9,
            min_p: 0.01,
            min_tokens_to_keep: 3,
            top_k: 40,
            xtc_probability: 0.5,
            xtc_threshold: 0.05,
            ..Sampling::default()
        };
        let of = |temperature| Sampling { temperature, ..Sampling::default() };
        let cases = [
            of(1.0),
            of(0.2),
            Sampling { top_p: 0.8, ..of(1.0) },
            Sampling { min_p: 0.1, ..of(2.0) },
            Sampling { top_k: 5, ..of(0.5) },
            Sampling { xtc_probability: 1.0, ..of(1.0) },
            all,
        ];
        with_device(Device::Cpu, || {
            let mut n_other = 0;
            for (i, sampling) in cases.iter().enumerate() {
                for seed in 0..40 {
                    let [of_logits, of_draws] =
                        [random::key(seed)?, random::key(1000 + 100 * i as u64 + seed)?];
                    let shape = [1, 3000];
                    let logits =
                        random::normal(&shape, Dtype::Float32, 0.0, 2.0, Some(&of_logits))?;
                    let draws =
                        random::uniform(0.0f32, 1.0f32, &[1, 2], Dtype::Float32, Some(&of_draws))?;
                    let tokens = [
                        draw(&logits, &draws, sampling)?.item::<u32>()?,
                        draw_by_ops(&logits, &draws, sampling)?.item::<u32>()?,
                    ];
                    n_other += usize::from(tokens[0] != tokens[1]);
                }
            }
            // Sums are rounded otherwise, so that a draw at an edge may fall on the other side.
            assert!(n_other <= 2, "{n_other} of {}", 40 * cases.len());
            Ok(())
        })
    }
}
