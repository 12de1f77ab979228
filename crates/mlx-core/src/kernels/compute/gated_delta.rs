//! The gated delta rule, with the norms in front of it and the gated one behind.
//!
//! A value head's state is `[DV, D]`, and its rows know nothing of each other. Tokens are therefore taken in
//! chunks, of which all pass over some rows at a time, while these are in the first-level cache.

use super::Float;
use super::exp::sigmoid;
use super::isa::{Isa, Level, multiversion};
use super::rows::{fold, for_each, rows_per_part};
use super::scratch::Scratch;

/// Tokens of a chunk.
const TOKENS: usize = 32;

/// Rows that are worked on together; their sums over lanes are, too.
const ROWS: usize = 4;

/// Rows that a chunk passes over at a time.
const BLOCK: usize = 4 * ROWS;

/// Lanes of sums.
const LANES: usize = 8;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Sequences.
    pub(crate) n: usize,
    /// Tokens of each.
    pub(crate) l: usize,
    /// Key heads, which divide value heads.
    pub(crate) hk: usize,
    pub(crate) hv: usize,
    /// Size of a key.
    pub(crate) d: usize,
    /// Size of a value.
    pub(crate) dv: usize,
}

impl Sizes {
    /// Returns the size of a token's queries, keys and values.
    fn qkv(&self) -> usize {
        2 * self.hk * self.d + self.hv * self.dv
    }
}

/// What [`nn::GatedDelta`](crate::nn::GatedDelta) is given.
#[derive(Clone, Copy)]
pub(crate) struct GatedDelta<'a, T> {
    pub(crate) sizes: Sizes,
    /// `[N, L, 2 * HK * D + HV * DV]`
    pub(crate) qkv: &'a [T],
    /// `[N, L, HV * DV]`
    pub(crate) z: &'a [T],
    /// `[N, L, HV]`
    pub(crate) b: &'a [T],
    /// `[N, L, HV]`
    pub(crate) a: &'a [T],
    /// `[HV]`
    pub(crate) a_log: &'a [f32],
    /// `[HV]`
    pub(crate) dt_bias: &'a [f32],
    /// `[DV]`
    pub(crate) norm: &'a [f32],
    pub(crate) eps: f32,
    /// `[N, HV, DV, D]`
    pub(crate) state: Option<&'a [f32]>,
    /// `[N, L]`, zero where there is no token.
    pub(crate) tokens: Option<&'a [u8]>,
}

/// Writes the state behind the last token, `[N, HV, DV, D]`, and the output, `[N, L, HV * DV]`.
///
/// # Panics
/// When sizes do not fit.
pub(crate) fn gated_delta<T: Float>(
    isa: Isa,
    rule: &GatedDelta<'_, T>,
    state: &mut [f32],
    out: &mut [T],
) {
    let Sizes { n, l, hk, hv, d, dv } = rule.sizes;
    let (n_heads, n_tokens, of_state) = (n * hv, n * l, n * hv * dv * d);
    assert!(hk > 0 && d > 0 && dv > 0 && hv.is_multiple_of(hk), "sizes of heads");
    let sizes = [rule.qkv.len(), rule.z.len(), rule.b.len(), rule.a.len(), out.len()];
    let expected = [rule.sizes.qkv(), hv * dv, hv, hv, hv * dv].map(|size| size * n_tokens);
    assert_eq!(sizes, expected, "sizes of tokens");
    assert_eq!([rule.a_log.len(), rule.dt_bias.len(), rule.norm.len()], [hv, hv, dv], "sizes");
    assert!(rule.tokens.is_none_or(|tokens| tokens.len() == n_tokens), "number of tokens");
    assert!(rule.state.is_none_or(|before| before.len() == of_state), "size of the state before");
    assert_eq!(state.len(), of_state, "size of the state");

    let mut heads: Vec<Head<'_, T>> = state
        .chunks_exact_mut(dv * d)
        .enumerate()
        .map(|(index, state)| Head { index, state, out: Vec::with_capacity(l) })
        .collect();
    for (i, out) in out.chunks_exact_mut(dv).enumerate() {
        heads[i / (l * hv) * hv + i % hv].out.push(out);
    }
    let step = rows_per_part(n_heads, l.max(1) * dv * d);
    for_each(heads.chunks_mut(step), |heads| part(isa, rule, heads));
}

/// A value head of a sequence, and what is written of it.
struct Head<'a, T> {
    index: usize,
    /// `[DV, D]`
    state: &'a mut [f32],
    /// `[DV]` of each token.
    out: Vec<&'a mut [T]>,
}

multiversion! { fn part[T: Float] = part_body(rule: &GatedDelta<'_, T>, heads: &mut [Head<'_, T>]) }

#[inline(always)]
fn part_body<S: Level, T: Float>(rule: &GatedDelta<'_, T>, heads: &mut [Head<'_, T>]) {
    let Sizes { d, dv, .. } = rule.sizes;
    let mut scratch = Scratch::new(TOKENS * (2 * d + dv));
    let (q, rest) = scratch.split_at_mut(TOKENS * d);
    let (k, y) = rest.split_at_mut(TOKENS * d);
    for Head { index, state, out } in heads {
        match rule.state {
            Some(before) => state.copy_from_slice(&before[*index * dv * d..][..dv * d]),
            None => state.fill(0.0),
        }
        for (i, out) in out.chunks_mut(TOKENS).enumerate() {
            chunk::<S, T>(rule, [*index, i * TOKENS], state, [q, k, y], out);
        }
    }
}

/// What a token does to all rows of a state.
#[derive(Clone, Copy, Default)]
struct Step {
    decay: f32,
    beta: f32,
    /// The product of query and key.
    qk: f32,
}

/// Applies the rule to the tokens from `start` on that `out` is for; `q`, `k` and `y` are scratch memory.
#[inline(always)]
fn chunk<S: Level, T: Float>(
    rule: &GatedDelta<'_, T>,
    [index, start]: [usize; 2],
    state: &mut [f32],
    [q, k, y]: [&mut [f32]; 3],
    out: &mut [&mut [T]],
) {
    let Sizes { l, hk, hv, d, dv, .. } = rule.sizes;
    let (first, head) = (index / hv * l + start, index % hv);
    let key_head = head / (hv / hk);
    let rate = rule.a_log[head].exp();
    let mut steps = [Step::default(); TOKENS];
    let keys = q.chunks_exact_mut(d).zip(k.chunks_exact_mut(d));
    for (i, ((step, (q, k)), _)) in steps.iter_mut().zip(keys).zip(&*out).enumerate() {
        let token = first + i;
        let qkv = &rule.qkv[token * rule.sizes.qkv()..];
        unit::<S, T>(&qkv[key_head * d..][..d], (d as f32).sqrt().recip(), q);
        unit::<S, T>(&qkv[(hk + key_head) * d..][..d], 1.0, k);
        step.qk = q.iter().zip(&*k).fold(0.0, |sum, (q, k)| S::fma(*q, *k, sum));
        let at = token * hv + head;
        let x = rule.a[at].to_f32() + rule.dt_bias[head];
        let softplus = x.max(0.0) + (-x.abs()).exp().ln_1p();
        (step.decay, step.beta) = match rule.tokens {
            Some(tokens) if tokens[token] == 0 => (1.0, 0.0),
            _ => ((-rate * softplus).exp(), sigmoid::<S>(rule.b[at].to_f32())),
        };
    }
    let values =
        |i: usize| &rule.qkv[(first + i) * rule.sizes.qkv() + 2 * hk * d + head * dv..][..dv];
    for (block, state) in state.chunks_mut(BLOCK * d).enumerate() {
        for i in 0..out.len() {
            let (q, k) = (&q[i * d..][..d], &k[i * d..][..d]);
            let n = state.len() / d;
            let v = &values(i)[block * BLOCK..][..n];
            let y = &mut y[i * dv + block * BLOCK..][..n];
            let whole = n / ROWS * ROWS;
            for row in (0..whole).step_by(ROWS) {
                let (state, v) = (&mut state[row * d..][..ROWS * d], &v[row..][..ROWS]);
                rows::<S, T, ROWS>(state, [q, k], v, steps[i], &mut y[row..][..ROWS]);
            }
            for row in whole..n {
                let (state, v) = (&mut state[row * d..][..d], &v[row..][..1]);
                rows::<S, T, 1>(state, [q, k], v, steps[i], &mut y[row..][..1]);
            }
        }
    }
    for (i, (y, out)) in y.chunks_exact(dv).zip(out).enumerate() {
        let z = &rule.z[((first + i) * hv + head) * dv..][..dv];
        let squares = fold(y, 0.0, |sum, x| S::fma(x, x, sum), |a, b| a + b);
        let scale = (squares / dv as f32 + rule.eps).sqrt().recip();
        for (((out, y), weight), z) in out.iter_mut().zip(y).zip(rule.norm).zip(z) {
            let z = z.to_f32();
            *out = T::from_f32(y * scale * weight * (z * sigmoid::<S>(z)));
        }
    }
}

/// Writes `x` with the length `length`.
#[inline(always)]
fn unit<S: Level, T: Float>(x: &[T], length: f32, out: &mut [f32]) {
    let squares = fold(x, 0.0, |sum, x| S::fma(x, x, sum), |a, b| a + b);
    let scale = (squares + 1e-6).sqrt().recip() * length;
    for (out, x) in out.iter_mut().zip(x) {
        *out = x.to_f32() * scale;
    }
}

/// Applies one token to `N` rows, `[N, D]`, and writes what its query finds in them.
///
/// With `S'` the rows before, `S' q` and `S' k` are summed in one pass; that of the rows behind is
/// `decay · S' q + delta · (q k)`.
#[inline(always)]
fn rows<S: Level, T: Float, const N: usize>(
    state: &mut [f32],
    [q, k]: [&[f32]; 2],
    v: &[T],
    Step { decay, beta, qk }: Step,
    y: &mut [f32],
) {
    let d = q.len();
    let ((q_lanes, q_rest), (k_lanes, k_rest)) = (q.as_chunks::<LANES>(), k.as_chunks::<LANES>());
    let (mut by_q, mut by_k) = ([[0.0; LANES]; ROWS], [[0.0; LANES]; ROWS]);
    for (i, (q, k)) in q_lanes.iter().zip(k_lanes).enumerate() {
        for r in 0..N {
            let x = *state[r * d + i * LANES..].first_chunk().expect("a vector of the row");
            by_q[r] = S::fma8(x, *q, by_q[r]);
            by_k[r] = S::fma8(x, *k, by_k[r]);
        }
    }
    let (mut by_q, mut by_k) = (S::totals(&by_q), S::totals(&by_k));
    let n_lanes = q_lanes.len() * LANES;
    for (i, (q, k)) in q_rest.iter().zip(k_rest).enumerate() {
        for r in 0..N {
            let x = state[r * d + n_lanes + i];
            by_q[r] = S::fma(x, *q, by_q[r]);
            by_k[r] = S::fma(x, *k, by_k[r]);
        }
    }
    for r in 0..N {
        let delta = beta * (v[r].to_f32() - decay * by_k[r]);
        y[r] = S::fma(decay, by_q[r], delta * qk);
        for (x, k) in state[r * d..][..d].iter_mut().zip(k) {
            *x = S::fma(delta, *k, decay * *x);
        }
    }
}

#[cfg(test)]
mod tests;
