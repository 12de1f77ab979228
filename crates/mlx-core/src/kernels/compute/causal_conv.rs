//! Convolutions of each channel over a token and the few before it.

use super::Float;
use super::exp::sigmoid;
use super::isa::{Isa, Level, multiversion};
use super::rows::{for_each, rows_per_part};
use super::scratch::Scratch;

/// Channels whose sums are in registers or near them.
const CHANNELS: usize = 64;

/// What [`nn::CausalConv`](crate::nn::CausalConv) is given.
#[derive(Clone, Copy)]
pub(crate) struct CausalConv<'a, T> {
    /// Number of tokens `L`, of channels `C` and of taps `K`, each at least 1.
    pub(crate) sizes: [usize; 3],
    /// `[N, L, C]`
    pub(crate) x: &'a [T],
    /// `[N, K - 1, C]`: the inputs before the first, or zeros.
    pub(crate) before: Option<&'a [T]>,
    /// `[C, K]`: the last tap is the token's own.
    pub(crate) weight: &'a [T],
    /// `[C]`
    pub(crate) bias: Option<&'a [T]>,
    /// `[N, L]`, zero where there is no token and an input counts as zero.
    pub(crate) tokens: Option<&'a [u8]>,
    /// Whether sums go through `x * sigmoid(x)`.
    pub(crate) has_silu: bool,
}

impl<'a, T> CausalConv<'a, T> {
    /// Returns an input of a sequence, counted from the first that is before its tokens; none where it
    /// counts as zero.
    #[inline(always)]
    fn input(&self, sequence: usize, i: usize) -> Option<&'a [T]> {
        let [l, c, k] = self.sizes;
        let Some(token) = i.checked_sub(k - 1) else {
            return self.before.map(|before| &before[(sequence * (k - 1) + i) * c..][..c]);
        };
        let row = sequence * l + token;
        let is_token = self.tokens.is_none_or(|tokens| tokens[row] != 0);
        is_token.then(|| &self.x[row * c..][..c])
    }
}

/// Writes the results, `[N, L, C]`, summed in float32 and rounded once, and the last inputs,
/// `[N, K - 1, C]`.
///
/// # Panics
/// When sizes do not fit.
pub(crate) fn causal_conv<T: Float>(
    isa: Isa,
    conv: &CausalConv<'_, T>,
    out: &mut [T],
    after: &mut [T],
) {
    let [l, c, k] = conv.sizes;
    assert!(l > 0 && c > 0 && k > 0, "sizes of a convolution");
    let n = conv.x.len() / (l * c);
    let of_memory = n * (k - 1) * c;
    assert_eq!([conv.x.len(), out.len()], [n * l * c; 2], "sizes of inputs and results");
    assert_eq!(after.len(), of_memory, "size of the last inputs");
    assert!(conv.before.is_none_or(|before| before.len() == of_memory), "size of inputs before");
    assert_eq!(conv.weight.len(), c * k, "size of the weight");
    assert!(conv.bias.is_none_or(|bias| bias.len() == c), "size of the bias");
    assert!(conv.tokens.is_none_or(|tokens| tokens.len() == n * l), "number of tokens");
    for (i, after) in after.chunks_exact_mut(c).enumerate() {
        match conv.input(i / (k - 1), l + i % (k - 1)) {
            Some(input) => after.copy_from_slice(input),
            None => after.fill(T::default()),
        }
    }
    let step = rows_per_part(n * l, c * k);
    for_each(out.chunks_mut(step * c).enumerate(), |(i, out)| part(isa, conv, i * step, out));
}

multiversion! {
    fn part[T: Float] = part_body(conv: &CausalConv<'_, T>, first: usize, out: &mut [T])
}

/// Writes the results of rows from `first` on.
#[inline(always)]
fn part_body<S: Level, T: Float>(conv: &CausalConv<'_, T>, first: usize, out: &mut [T]) {
    let [l, c, k] = conv.sizes;
    // Taps of neighbouring channels side by side, `[K, C]`.
    let mut taps = Scratch::new(k * c);
    for (i, weight) in conv.weight.chunks_exact(k).enumerate() {
        for (j, weight) in weight.iter().enumerate() {
            taps[j * c + i] = weight.to_f32();
        }
    }
    for (row, out) in (first..).zip(out.chunks_exact_mut(c)) {
        for (block, out) in out.chunks_mut(CHANNELS).enumerate() {
            let (start, n) = (block * CHANNELS, out.len());
            let mut sums = [0.0; CHANNELS];
            if let Some(bias) = conv.bias {
                for (sum, bias) in sums.iter_mut().zip(&bias[start..]) {
                    *sum = bias.to_f32();
                }
            }
            for j in 0..k {
                let Some(input) = conv.input(row / l, row % l + j) else { continue };
                let (input, taps) = (&input[start..][..n], &taps[j * c + start..][..n]);
                for ((sum, x), tap) in sums.iter_mut().zip(input).zip(taps) {
                    *sum = S::fma(x.to_f32(), *tap, *sum);
                }
            }
            if conv.has_silu {
                for sum in &mut sums {
                    *sum *= sigmoid::<S>(*sum);
                }
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = T::from_f32(sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::compute::{cases, most};

    /// By the book: results and last inputs.
    fn spec<T: Float>(conv: &CausalConv<'_, T>) -> (Vec<f64>, Vec<f64>) {
        let [l, c, k] = conv.sizes;
        let wide = |x: &T| f64::from(x.to_f32());
        let (mut out, mut after) = (Vec::new(), Vec::new());
        for n in 0..conv.x.len() / (l * c) {
            let zeros = vec![0.0; (k - 1) * c];
            let mut inputs: Vec<f64> = match conv.before {
                Some(before) => before[n * (k - 1) * c..][..(k - 1) * c].iter().map(wide).collect(),
                None => zeros,
            };
            for i in n * l..(n + 1) * l {
                let is_token = conv.tokens.is_none_or(|tokens| tokens[i] != 0);
                let row = conv.x[i * c..][..c].iter();
                inputs.extend(row.map(|x| if is_token { wide(x) } else { 0.0 }));
            }
            for t in 0..l {
                for i in 0..c {
                    let taps = (0..k)
                        .map(|j| wide(&conv.weight[i * k + j]) * inputs[(t + j) * c + i])
                        .sum::<f64>();
                    let sum = taps + conv.bias.map_or(0.0, |bias| wide(&bias[i]));
                    out.push(if conv.has_silu { sum / (1.0 + (-sum).exp()) } else { sum });
                }
            }
            after.extend(&inputs[l * c..]);
        }
        (out, after)
    }

    fn check<T: Float>(n: usize, sizes: [usize; 3], has: [bool; 4], values: &[f32], bound: f64) {
        let [l, c, k] = sizes;
        let of = |n: usize, shift: usize| -> Vec<T> {
            (0..n).map(|i| T::from_f32(values[(i * 7 + shift) % values.len()])).collect()
        };
        let (x, before) = (of(n * l * c, 0), of(n * (k - 1) * c, 1));
        let (weight, bias) = (of(c * k, 2), of(c, 3));
        let tokens: Vec<u8> =
            (0..n * l).map(|i| u8::from(values[i % values.len()] > 0.0)).collect();
        let [has_before, has_bias, has_tokens, has_silu] = has;
        let conv = CausalConv {
            sizes,
            x: &x,
            before: has_before.then_some(&before[..]),
            weight: &weight,
            bias: has_bias.then_some(&bias[..]),
            tokens: has_tokens.then_some(&tokens[..]),
            has_silu,
        };
        let expected = spec(&conv);
        for isa in Isa::available() {
            let (mut out, mut after) =
                (vec![T::default(); x.len()], vec![T::default(); before.len()]);
            causal_conv(isa, &conv, &mut out, &mut after);
            for (ours, expected) in [(&out, &expected.0), (&after, &expected.1)] {
                assert_eq!(ours.len(), expected.len());
                for (ours, expected) in ours.iter().zip(expected) {
                    let ours = f64::from(ours.to_f32());
                    assert!((ours - expected).abs() <= bound * expected.abs().max(1.0));
                }
            }
        }
    }

    proptest! {
        #![proptest_config(cases(48))]

        #[test]
        fn agree_with_float64(
            n in 0..3usize,
            sizes in [1..most(20), 1..most(150), 1..6usize],
            has in prop::array::uniform4(any::<bool>()),
            values in prop::collection::vec(-2.0..2.0f32, 200..400),
        ) {
            check::<f32>(n, sizes, has, &values, 3e-6);
            check::<f16>(n, sizes, has, &values, 1e-3);
            check::<bf16>(n, sizes, has, &values, 5e-3);
        }
    }

    #[test]
    fn several_threads_agree_with_one() {
        let values: Vec<f32> = (0..997).map(|i| (i as f32 * 0.7).sin()).collect();
        check::<f32>(2, [50, 300, 4], [true; 4], &values, 3e-6);
    }
}
