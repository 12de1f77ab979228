//! Drawing a token from a distribution over a vocabulary, of which some are dropped before, without
//! sorting it.
//!
//! Each filter keeps a top of the distribution, so what it needs is the least value that stays. That
//! is found by selection, which halves the candidates until one is left: a number of steps that
//! grows with the vocabulary, not with its sorting.

use super::Float;
use super::exp::exp;
use super::isa::{Isa, Level, multiversion};
use super::rows::fold;

/// What of a distribution to keep; the filters work one after another in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenFilter {
    /// The likeliest tokens until they have this share of all probability, with ties at the edge.
    pub top_p: Option<f32>,
    /// Tokens at least this likely, relative to the likeliest, and in any case so many.
    pub min_p: Option<(f32, usize)>,
    /// All but the tokens that are likelier than the least likely of those above a threshold.
    pub xtc: Option<Xtc>,
    /// So many of the likeliest tokens; of ties at the edge the first.
    pub top_k: Option<usize>,
}

/// Excludes top choices (XTC): see [`TokenFilter::xtc`].
#[derive(Clone, Debug, PartialEq)]
pub struct Xtc {
    /// How often it is done at all.
    pub probability: f32,
    /// The probability above which a token is likely.
    pub threshold: f32,
    /// Tokens that stay.
    pub special_tokens: Vec<u32>,
}

const DROPPED: f32 = f32::NEG_INFINITY;

/// Draws a token from logits: `draws` are two numbers of `0..1`, one that chooses the token, and one that
/// says whether XTC applies, by its probability.
pub(crate) fn sample<T: Float>(
    isa: Isa,
    logits: &[T],
    filter: &TokenFilter,
    temperature: f32,
    draws: [f32; 2],
) -> u32 {
    let mut logprobs: Vec<f32> = logits.iter().map(|x| x.to_f32()).collect();
    let max = max(isa, &logprobs);
    let mut probs = vec![0.0; logprobs.len()];
    let offset = max + (exp_all(isa, &logprobs, max, 1.0, &mut probs) as f32).ln();
    logprobs.iter_mut().for_each(|x| *x -= offset);
    let excludes = filter.xtc.as_ref().is_some_and(|xtc| draws[1] <= xtc.probability);
    drop_tokens(isa, filter, excludes, &mut logprobs);
    draw(isa, &logprobs, temperature, draws[0], &mut probs)
}

/// Draws an index: the first up to which lies more than `share` of all `exp(logprobs / temperature)`.
/// `probs` is room for as many numbers.
fn draw(isa: Isa, logprobs: &[f32], temperature: f32, share: f32, probs: &mut [f32]) -> u32 {
    let max = max(isa, logprobs);
    let total = exp_all(isa, logprobs, max, temperature.recip(), probs);
    let mut rest = total * f64::from(share);
    for (i, &prob) in probs.iter().enumerate() {
        rest -= f64::from(prob);
        if rest < 0.0 && prob > 0.0 {
            return i as u32;
        }
    }
    // Rounding may leave nothing to the last; of what is no distribution, there is only a first.
    probs.iter().rposition(|&prob| prob > 0.0).unwrap_or(0) as u32
}

/// Sets log-probabilities that `filter` drops to minus infinity. XTC works where `excludes` says so.
fn drop_tokens(isa: Isa, filter: &TokenFilter, excludes: bool, logprobs: &mut [f32]) {
    if let Some(p) = filter.top_p {
        top_p(isa, p, logprobs);
    }
    if let Some((p, keep)) = filter.min_p {
        min_p(isa, p, keep, logprobs);
    }
    if let Some(xtc) = filter.xtc.as_ref().filter(|_| excludes) {
        exclude(isa, xtc, logprobs);
    }
    if let Some(k) = filter.top_k {
        top_k(k, logprobs);
    }
}

/// Drops tokens below the first, from the likeliest on, before which `p` of the mass lies.
fn top_p(isa: Isa, p: f32, logprobs: &mut [f32]) {
    let mut probs = vec![0.0; logprobs.len()];
    let total = exp_all(isa, logprobs, 0.0, 1.0, &mut probs);
    let target = f64::from((total as f32) * p);
    // All that are less likely than this have too little mass together to be reached.
    let least = ((total - target) / logprobs.len().max(1) as f64) as f32 * 0.999;
    let mut candidates: Vec<f32> = logprobs
        .iter()
        .zip(&probs)
        .filter_map(|(&logprob, &prob)| (prob >= least).then_some(logprob))
        .collect();
    if let Some(threshold) = threshold(&mut candidates, target) {
        drop_below(isa, threshold, logprobs);
    }
}

/// Returns the least of the candidates, from the likeliest on, before which less than `target` of
/// the mass lies.
fn threshold(mut candidates: &mut [f32], target: f64) -> Option<f32> {
    let mut above = 0.0;
    while candidates.len() > 1 {
        let middle = candidates.len() / 2;
        candidates.select_nth_unstable_by(middle, |a, b| b.total_cmp(a));
        let (likely, rest) = candidates.split_at_mut(middle);
        let mass: f64 = likely.iter().map(|x| f64::from(x.exp())).sum();
        // What follows the likelier half is kept if the mass before it is less than the target.
        if above + mass < target {
            above += mass;
            candidates = rest;
        } else {
            candidates = likely;
        }
    }
    candidates.first().copied()
}

/// Drops tokens less likely than `p` times the likeliest, but for the `keep` likeliest.
fn min_p(isa: Isa, p: f32, keep: usize, logprobs: &mut [f32]) {
    let least = max(isa, logprobs) + p.ln();
    match keep {
        0 | 1 => drop_below(isa, least, logprobs),
        _ => drop_below_top(keep, least, logprobs),
    }
}

/// Drops all tokens that are likelier than the least likely of the likely ones.
fn exclude(isa: Isa, xtc: &Xtc, logprobs: &mut [f32]) {
    let max = max(isa, logprobs);
    let mut probs = vec![0.0; logprobs.len()];
    let total = exp_all(isa, logprobs, max, 1.0, &mut probs);
    let scale = (total as f32).recip();
    let likely = probs.iter().map(|prob| prob * scale).filter(|&prob| prob > xtc.threshold);
    let least = likely.fold(f32::INFINITY, f32::min);
    let special: Vec<_> = xtc
        .special_tokens
        .iter()
        .filter_map(|&token| Some((token as usize, *logprobs.get(token as usize)?)))
        .collect();
    for (logprob, prob) in logprobs.iter_mut().zip(&probs) {
        if prob * scale > least {
            *logprob = DROPPED;
        }
    }
    special.into_iter().for_each(|(token, logprob)| logprobs[token] = logprob);
}

/// Drops all but the `k` likeliest.
fn top_k(k: usize, logprobs: &mut [f32]) {
    if 0 < k && k < logprobs.len() {
        drop_below_top(k, f32::INFINITY, logprobs);
    }
}

/// Drops what is less than `least` and not among the `k` greatest, of ties the first.
fn drop_below_top(k: usize, least: f32, logprobs: &mut [f32]) {
    let (kth, mut ties) = nth(logprobs, k);
    for logprob in logprobs {
        let is_tie = *logprob == kth && ties > 0;
        ties -= usize::from(is_tie);
        let is_kept = is_tie || *logprob > kth || *logprob >= least;
        *logprob = if is_kept { *logprob } else { DROPPED };
    }
}

/// Returns the `n`th greatest, and how many of the `n` greatest are equal to it.
fn nth(values: &[f32], n: usize) -> (f32, usize) {
    let mut values = values.to_vec();
    let n = n.clamp(1, values.len().max(1));
    if values.is_empty() {
        return (DROPPED, 0);
    }
    values.select_nth_unstable_by(n - 1, |a, b| b.total_cmp(a));
    let least = values[n - 1];
    (least, values[..n].iter().filter(|&&x| x == least).count())
}

multiversion! { fn max[] = max_body(x: &[f32]) -> f32 }

#[inline(always)]
fn max_body<S: Level>(x: &[f32]) -> f32 {
    let greater = |a: f32, b: f32| if b > a { b } else { a };
    fold(x, DROPPED, greater, greater)
}

multiversion! {
    /// Writes `exp((x - offset) * factor)` and returns the sum.
    fn exp_all[] = exp_all_body(x: &[f32], offset: f32, factor: f32, out: &mut [f32]) -> f64
}

/// Numbers that are added in float32.
const SUMMED: usize = 1024;

#[inline(always)]
fn exp_all_body<S: Level>(x: &[f32], offset: f32, factor: f32, out: &mut [f32]) -> f64 {
    let mut total = 0.0;
    for (x, out) in x.chunks(SUMMED).zip(out.chunks_mut(SUMMED)) {
        for (x, out) in x.iter().zip(&mut *out) {
            *out = exp::<S>((x - offset) * factor);
        }
        total += f64::from(fold(out, 0.0, |sum, x| sum + x, |a, b| a + b));
    }
    total
}

multiversion! { fn drop_below[] = drop_below_body(least: f32, x: &mut [f32]) }

#[inline(always)]
fn drop_below_body<S: Level>(least: f32, x: &mut [f32]) {
    for x in x {
        *x = if *x < least { DROPPED } else { *x };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::compute::{cases, every, most};

    /// Log-probabilities of these logits.
    fn normalized(logits: &[f32]) -> Vec<f32> {
        let sum: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
        logits.iter().map(|x| x - sum.ln() as f32).collect()
    }

    /// Indices from the likeliest on, and the first of ties before the others.
    fn sorted(logprobs: &[f32]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..logprobs.len()).collect();
        order.sort_by(|&a, &b| logprobs[b].total_cmp(&logprobs[a]));
        order
    }

    fn keep(logprobs: &mut [f32], is_kept: impl Fn(usize, f32) -> bool) {
        for (i, x) in logprobs.iter_mut().enumerate() {
            *x = if is_kept(i, *x) { *x } else { DROPPED };
        }
    }

    /// By sorting, filter by filter, in `f64`.
    fn spec(filter: &TokenFilter, excludes: bool, logprobs: &[f32]) -> Vec<f32> {
        let mut out = logprobs.to_vec();
        let prob = |x: f32| f64::from(x).exp();
        if let Some(p) = filter.top_p {
            let total: f64 = out.iter().map(|&x| prob(x)).sum();
            let (mut above, mut least) = (0.0, f32::INFINITY);
            for i in sorted(&out) {
                if above >= total * f64::from(p) {
                    break;
                }
                (above, least) = (above + prob(out[i]), out[i]);
            }
            keep(&mut out, |_, x| x >= least);
        }
        if let Some((p, n)) = filter.min_p {
            let order = sorted(&out);
            let least = out[order[0]] + p.ln();
            let kept = if n > 1 { &order[..n.min(order.len())] } else { &[] };
            keep(&mut out, |i, x| x >= least || kept.contains(&i));
        }
        if let Some(xtc) = filter.xtc.as_ref().filter(|_| excludes) {
            let total: f64 = out.iter().map(|&x| prob(x)).sum();
            let likely = |x: f32| prob(x) / total > f64::from(xtc.threshold);
            let least = out.iter().copied().filter(|&x| likely(x)).fold(f32::INFINITY, f32::min);
            let special = |i: usize| xtc.special_tokens.contains(&(i as u32));
            keep(&mut out, |i, x| x <= least || special(i));
        }
        if let Some(k) = filter.top_k.filter(|&k| k < out.len()) {
            let order = sorted(&out);
            keep(&mut out, |i, _| order[..k].contains(&i));
        }
        out
    }

    fn check(token_filter: &TokenFilter, excludes: bool, logits: &[f32]) {
        let logprobs = normalized(logits);
        let expected = spec(token_filter, excludes, &logprobs);
        for isa in Isa::available() {
            let mut found = logprobs.clone();
            drop_tokens(isa, token_filter, excludes, &mut found);
            assert_eq!(found, expected, "{} {token_filter:?} {excludes}", isa.name());
        }
    }

    proptest! {
        #![proptest_config(cases(256))]

        #[test]
        fn keep_what_sorting_keeps(
            logits in prop::collection::vec(-12.0..4.0f32, 1..most(700)),
            has_ties in any::<bool>(),
            top_p in prop::option::of(0.02..0.99f32),
            min_p in prop::option::of((0.001..0.9f32, 1..9usize)),
            xtc in prop::option::of((0.0..0.4f32, prop::collection::vec(0..900u32, 0..3))),
            top_k in prop::option::of(1..80usize),
            excludes in any::<bool>(),
        ) {
            let round = |x: f32| if has_ties { x.round() } else { x };
            let logits: Vec<f32> = logits.into_iter().map(round).collect();
            let xtc = xtc.map(|(threshold, special_tokens)| Xtc { probability: 1.0, threshold, special_tokens });
            check(&TokenFilter { top_p, min_p, xtc, top_k }, excludes, &logits);
        }
    }

    #[test]
    fn flat_and_peaked_distributions() {
        let n = most(5000);
        let flat = vec![0.0; n];
        let mut peaked = flat.clone();
        peaked[77] = 30.0;
        for logits in [flat, peaked] {
            for p in [0.1, 0.9, 0.999_9] {
                check(&TokenFilter { top_p: Some(p), ..TokenFilter::default() }, false, &logits);
            }
            for k in [1, 9, n - 1, n, 2 * n] {
                check(&TokenFilter { top_k: Some(k), ..TokenFilter::default() }, false, &logits);
            }
        }
    }

    #[test]
    fn nothing_and_minus_infinity_go_through() {
        let all = TokenFilter {
            top_p: Some(0.5),
            min_p: Some((0.5, 3)),
            xtc: Some(Xtc { probability: 1.0, threshold: 0.1, special_tokens: vec![7] }),
            top_k: Some(2),
        };
        for isa in Isa::available() {
            drop_tokens(isa, &all, true, &mut []);
            let mut x = [DROPPED, 0.0, DROPPED];
            drop_tokens(isa, &all, false, &mut x);
            assert_eq!(x, [DROPPED, 0.0, DROPPED]);
            let mut x = [f32::NAN; 3];
            drop_tokens(isa, &all, true, &mut x);
        }
    }

    #[test]
    fn draws_are_shared_out_as_probabilities_are() {
        let logits = [1.0f32, -2.0, f32::NEG_INFINITY, 3.0, 0.5];
        let isas = Isa::available().into_iter();
        for (isa, temperature) in isas.flat_map(|isa| [(isa, 0.5), (isa, 2.0)]) {
            let weights = logits.map(|x| f64::from(x / temperature).exp());
            let total: f64 = weights.iter().sum();
            let filter = TokenFilter::default();
            let n = most(10_000);
            let mut counts = [0; 5];
            for i in 0..n {
                let share = (i as f32 + 0.5) / n as f32;
                counts[sample(isa, &logits, &filter, temperature, [share, 0.0]) as usize] += 1;
            }
            for (count, weight) in counts.into_iter().zip(weights) {
                let expected = weight / total * n as f64;
                assert!((f64::from(count) - expected).abs() <= 1.5, "{counts:?}: {expected}");
            }
        }
    }

    #[test]
    fn only_kept_tokens_are_drawn() {
        let logits: Vec<f32> = (0..most(3000)).map(|i| (i * 37 % 101) as f32 / 20.0).collect();
        let xtc = |probability| Xtc { probability, threshold: 0.001, special_tokens: vec![] };
        for (xtc, draw, excludes) in
            [(xtc(0.5), 0.4, true), (xtc(0.5), 0.6, false), (xtc(0.0), 0.1, false)]
        {
            let filter = TokenFilter {
                top_p: Some(0.7),
                xtc: Some(xtc),
                top_k: Some(9),
                ..TokenFilter::default()
            };
            let kept = spec(&filter, excludes, &normalized(&logits));
            for isa in Isa::available() {
                for share in (0..50).step_by(every(11)).map(|i| i as f32 / 50.0) {
                    let token = sample(isa, &logits, &filter, 1.5, [share, draw]) as usize;
                    assert!(kept[token] > DROPPED, "{token} at {share}");
                }
            }
        }
        // What is no distribution has a first token.
        for logits in [[f32::NAN; 3], [f32::NEG_INFINITY; 3]] {
            let token =
                sample(Isa::available()[0], &logits, &TokenFilter::default(), 1.0, [0.5, 0.5]);
            assert!(token < 3);
        }
    }
}
