//! How far apart two runs of a model are on a text: what a way of computing costs.
//!
//! A run is a model and an arithmetic, so that one model is compared with itself in two
//! arithmetics, or a quantized one with the one it was made of.

use mlx_core::kernels::{self, Arithmetic, KernelOptions};
use mlx_core::{Array, Dtype, Result as CoreResult, eval};

use crate::cache::Cache;
use crate::error::{Error, ErrorKind, Result};
use crate::generate::{GenerateOptions, TokenSession};
use crate::load::Model;
use crate::perplexity::{check_text, windows};

/// Tokens whose logits are held at once, of both runs.
const CHUNK: usize = 64;

/// A model and how it computes.
#[derive(Clone, Copy)]
pub struct Run<'m> {
    /// The model.
    pub model: &'m Model,
    /// What products with packed weights round, on a CPU.
    pub arithmetic: Arithmetic,
}

/// The distance of a run's predictions from a reference's.
#[derive(Clone, Debug, PartialEq)]
pub struct Divergence {
    /// How many predictions were compared.
    pub n: usize,
    /// Mean Kullback–Leibler divergence of the run's distributions from the reference's, in nats.
    pub mean_kl: f64,
    /// The divergence that 99 % of the predictions do not exceed.
    pub kl_99: f64,
    /// Share of the predictions whose likeliest token is the reference's.
    pub same_top: f64,
    /// The reference's perplexity of the text.
    pub reference_perplexity: f64,
    /// The run's perplexity of the text.
    pub perplexity: f64,
}

/// Compares the predictions of every token of a text but the first; one longer than the context is
/// cut into windows of that length, as [`perplexity`](crate::perplexity::perplexity) does.
///
/// Logits are brought to float32 before the softmax.
///
/// # Errors
/// When there are fewer than two tokens, a token is not in the vocabulary of both, or a model fails.
pub fn divergence(reference: Run<'_>, run: Run<'_>, token_ids: &[u32]) -> Result<Divergence> {
    let runs = [reference, run];
    for Run { model, .. } in runs {
        check_text(model, token_ids)?;
    }
    let window = runs.iter().filter_map(|run| run.model.config().context_length).min();
    let mut all = Predictions::default();
    for ids in windows(token_ids, window) {
        let mut caches = runs.map(|run| run.model.make_cache());
        for (inputs, targets) in ids[..ids.len() - 1].chunks(CHUNK).zip(ids[1..].chunks(CHUNK)) {
            let [reference, other] = &mut caches;
            let p = logprobs(runs[0], inputs, reference)?;
            let q = logprobs(runs[1], inputs, other)?;
            all.add([&p, &q], targets)?;
        }
    }
    Ok(all.summary())
}

/// What a run predicts of a text, kept, to compare many runs with it.
///
/// It holds a float32 for each token of the text and of the vocabulary; the text is one that fits.
pub struct Reference {
    token_ids: Vec<u32>,
    /// The logarithms of probabilities, of one chunk after the other.
    chunks: Vec<Array>,
}

impl Reference {
    /// Predicts a text.
    ///
    /// # Errors
    /// When it has fewer than two tokens or more than the context, a token is not in the vocabulary, or
    /// the model fails.
    pub fn new(run: Run<'_>, token_ids: &[u32]) -> Result<Reference> {
        check_text(run.model, token_ids)?;
        if let Some(window) = run.model.config().context_length.filter(|&n| n < token_ids.len()) {
            let n = token_ids.len();
            let text = format!("the text has {n} tokens, and the context {window}");
            return Err(Error::new(ErrorKind::ContextLength, text));
        }
        let mut cache = run.model.make_cache();
        let inputs = &token_ids[..token_ids.len() - 1];
        let chunks = inputs.chunks(CHUNK).map(|inputs| logprobs(run, inputs, &mut cache));
        let chunks = chunks.collect::<CoreResult<_>>()?;
        Ok(Reference { token_ids: token_ids.to_vec(), chunks })
    }

    /// Returns how far a run's predictions are from these.
    ///
    /// # Errors
    /// When a token is not in its vocabulary, or the model fails.
    pub fn divergence(&self, run: Run<'_>) -> Result<Divergence> {
        let ids = &self.token_ids;
        check_text(run.model, ids)?;
        let mut cache = run.model.make_cache();
        let mut all = Predictions::default();
        let texts = ids[..ids.len() - 1].chunks(CHUNK).zip(ids[1..].chunks(CHUNK));
        for (p, (inputs, targets)) in self.chunks.iter().zip(texts) {
            let q = logprobs(run, inputs, &mut cache)?;
            all.add([p, &q], targets)?;
        }
        Ok(all.summary())
    }
}

/// Returns the share of the reference's greedy tokens that the run makes too, up to the first other
/// one, of at most `max_tokens` behind each prompt.
///
/// # Errors
/// When a prompt is empty or does not fit the context, or a model fails.
pub fn greedy_agreement(
    reference: Run<'_>,
    run: Run<'_>,
    prompts: &[&[u32]],
    max_tokens: usize,
) -> Result<f64> {
    let generate = |run: Run<'_>, prompt: &[u32]| -> Result<Vec<u32>> {
        let options = GenerateOptions {
            max_tokens: Some(max_tokens),
            arithmetic: run.arithmetic,
            ..GenerateOptions::default()
        };
        TokenSession::new(run.model).generate(prompt, &options)?.collect()
    };
    let (mut same, mut all) = (0, 0);
    for prompt in prompts {
        let expected = generate(reference, prompt)?;
        let found = generate(run, prompt)?;
        same += expected.iter().zip(&found).take_while(|(a, b)| a == b).count();
        all += expected.len();
    }
    Ok(if all == 0 { 1.0 } else { same as f64 / all as f64 })
}

/// What is known of each prediction.
#[derive(Default)]
struct Predictions {
    kl: Vec<f32>,
    same_top: usize,
    /// Sums of the logarithms of the text's probabilities.
    logprobs: [f64; 2],
}

impl Predictions {
    /// Adds those of `targets`, of which the reference has the logarithms `p` and the other `q`.
    fn add(&mut self, [p, q]: [&Array; 2], targets: &[u32]) -> CoreResult<()> {
        // As Σ p (ln p/q - 1 + q/p), whose terms are not negative, so that little is lost to rounding.
        let ratio = (q - p)?;
        let kl = (p.exp()? * (ratio.expm1()? - &ratio)?)?.sum(-1, false)?;
        let same = p.argmax(-1, false)?.equal(&q.argmax(-1, false)?)?;
        let targets = Array::from_slice(targets, &[1, targets.len() as i32, 1])?;
        let chosen = [p, q].map(|x| x.take_along_axis(&targets, -1));
        self.kl.extend(kl.to_vec::<f32>()?);
        self.same_top += same.to_vec::<bool>()?.into_iter().filter(|&same| same).count();
        for (sum, chosen) in self.logprobs.iter_mut().zip(chosen) {
            *sum += chosen?.to_vec::<f32>()?.into_iter().map(f64::from).sum::<f64>();
        }
        Ok(())
    }

    fn summary(mut self) -> Divergence {
        self.kl.sort_by(f32::total_cmp);
        let n = self.kl.len();
        let mean = |sum: f64| sum / n as f64;
        let [reference_perplexity, perplexity] = self.logprobs.map(|sum| (-mean(sum)).exp());
        Divergence {
            n,
            mean_kl: mean(self.kl.iter().map(|&kl| f64::from(kl)).sum()),
            kl_99: f64::from(self.kl[(n * 99).div_ceil(100) - 1]),
            same_top: mean(self.same_top as f64),
            reference_perplexity,
            perplexity,
        }
    }
}

/// Returns the logarithms of all tokens' probabilities after each of `inputs`, `[1, L, V]`.
fn logprobs(run: Run<'_>, inputs: &[u32], caches: &mut [Cache]) -> CoreResult<Array> {
    let options = KernelOptions { arithmetic: run.arithmetic, ..kernels::options() };
    let logits = kernels::with_options(options, || {
        let tokens = Array::from_slice(inputs, &[1, inputs.len() as i32])?;
        run.model.head(&run.model.forward(&tokens, caches)?)?.astype(Dtype::Float32)
    })?;
    let logprobs = (&logits - logits.logsumexp(-1, true)?)?;
    eval(std::iter::once(&logprobs).chain(caches.iter().flat_map(|cache| cache.state())))?;
    Ok(logprobs)
}
