//! The recurrence of a state-space model, token by token, in float32.

use super::Float;
use super::isa::{Isa, Level, multiversion};
use super::rows::{LANES, for_each};

/// The inputs of [`scan`]: `B` sequences of `L` tokens, `H` heads of size `P` in `G` groups, and `N`
/// numbers of state for each element of a head.
#[derive(Clone, Copy)]
pub(crate) struct Scan<'a, T> {
    /// `[B, L, H, P, G, N]`
    pub(crate) sizes: [usize; 6],
    pub(crate) x: Rows<'a, T>,
    /// `[B, L, H]`
    pub(crate) dt: &'a [f32],
    /// `[H]`
    pub(crate) a: &'a [f32],
    pub(crate) b: Rows<'a, T>,
    pub(crate) c: Rows<'a, T>,
    /// `[H]`
    pub(crate) d: &'a [f32],
    /// `[B, H, P, N]`
    pub(crate) state: &'a [f32],
}

/// Rows of heads or groups, `[B, L, H, P]` or `[B, L, G, N]`, as they lie.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a, T> {
    pub(crate) data: &'a [T],
    /// The place of the first element.
    pub(crate) start: usize,
    /// Elements from one to the next along each axis.
    pub(crate) strides: [i64; 4],
}

impl<T: Float> Rows<'_, T> {
    /// Writes a part of a row, from element `first` on.
    #[inline(always)]
    fn read(&self, at: [usize; 3], first: usize, out: &mut [f32]) {
        let step = |i: usize, stride: i64| (i as i64).wrapping_mul(stride) as isize;
        let [sequence, token, head, element] = self.strides;
        let offset = step(at[0], sequence) + step(at[1], token) + step(at[2], head);
        let start = self.start.wrapping_add_signed(offset + step(first, element));
        if element == 1 {
            for (out, x) in out.iter_mut().zip(&self.data[start..]) {
                *out = x.to_f32();
            }
        } else {
            for (i, out) in out.iter_mut().enumerate() {
                *out = self.data[start.wrapping_add_signed(step(i, element))].to_f32();
            }
        }
    }
}

/// A block of so many rows of a state is worked on by itself, so that it stays in the first-level cache.
const BLOCK: usize = 32;

/// Applies the recurrence `S ← exp(dt · a) · S + dt · x ⊗ b` to each head's state `S`, `[P, N]`, for one
/// token after the other, and writes `y = S · c + d · x` of each, `[B, L, H, P]`, and the last states.
///
/// # Panics
/// When sizes do not fit.
pub(crate) fn scan<T: Float>(isa: Isa, scan: &Scan<'_, T>, y: &mut [T], state: &mut [f32]) {
    let [b, l, h, p, g, n] = scan.sizes;
    assert!(p > 0 && n > 0, "size of a state");
    assert!(g > 0 && h % g == 0, "groups of heads");
    assert_eq!((y.len(), state.len()), (b * l * h * p, b * h * p * n), "sizes of results");
    assert_eq!((scan.dt.len(), scan.state.len()), (b * l * h, state.len()), "sizes of inputs");
    assert_eq!((scan.a.len(), scan.d.len()), (h, h), "numbers of heads");
    let n_blocks = p.div_ceil(BLOCK);
    let states = state.chunks_exact_mut(p * n).flat_map(|state| state.chunks_mut(BLOCK * n));
    let mut parts: Vec<Part<'_, T>> = states
        .enumerate()
        .map(|(i, state)| Part {
            sequence: i / (h * n_blocks),
            head: i / n_blocks % h,
            first: i % n_blocks * BLOCK,
            state,
            y: Vec::with_capacity(l),
        })
        .collect();
    for (row, y) in y.chunks_exact_mut(p).enumerate() {
        let head = row / (l * h) * h + row % h;
        for (block, y) in y.chunks_mut(BLOCK).enumerate() {
            parts[head * n_blocks + block].y.push(y);
        }
    }
    for_each(parts.into_iter(), |part| scan_part(isa, scan, part));
}

/// Some rows of one head's state, and what they give for each token.
struct Part<'a, T> {
    sequence: usize,
    head: usize,
    /// The first row.
    first: usize,
    /// `[rows, N]`
    state: &'a mut [f32],
    /// `[L][rows]`
    y: Vec<&'a mut [T]>,
}

multiversion! { fn scan_part[T: Float] = scan_body(scan: &Scan<'_, T>, part: Part<'_, T>) }

#[inline(always)]
fn scan_body<S: Level, T: Float>(scan: &Scan<'_, T>, part: Part<'_, T>) {
    let [_, l, h, p, g, n] = scan.sizes;
    let Part { sequence, head, first, state, y } = part;
    state.copy_from_slice(&scan.state[((sequence * h + head) * p + first) * n..][..state.len()]);
    let mut x = [0.0; BLOCK];
    let mut rows = vec![0.0; 2 * n];
    let (b, c) = rows.split_at_mut(n);
    for (token, y) in y.into_iter().enumerate() {
        let x = &mut x[..y.len()];
        scan.x.read([sequence, token, head], first, x);
        let group = head / (h / g);
        scan.b.read([sequence, token, group], 0, b);
        scan.c.read([sequence, token, group], 0, c);
        let dt = scan.dt[(sequence * l + token) * h + head];
        let decay = (dt * scan.a[head]).exp();
        let rows = state.chunks_exact_mut(n).zip(&*x).zip(&mut *y);
        for ((state, &x), y) in rows {
            let sum = step::<S>(state, decay, dt * x, b, c);
            *y = T::from_f32(S::fma(scan.d[head], x, sum));
        }
    }
}

/// Brings a row of a state to the next token and returns its product with `c`.
#[inline(always)]
fn step<S: Level>(state: &mut [f32], decay: f32, x: f32, b: &[f32], c: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (states, state_rest) = state.as_chunks_mut::<LANES>();
    let ((bs, b_rest), (cs, c_rest)) = (b.as_chunks::<LANES>(), c.as_chunks::<LANES>());
    for ((state, b), c) in states.iter_mut().zip(bs).zip(cs) {
        for i in 0..LANES {
            state[i] = S::fma(decay, state[i], x * b[i]);
            lanes[i] = S::fma(state[i], c[i], lanes[i]);
        }
    }
    for (((lane, state), b), c) in lanes.iter_mut().zip(state_rest).zip(b_rest).zip(c_rest) {
        *state = S::fma(decay, *state, x * b);
        *lane = S::fma(*state, *c, *lane);
    }
    let mut n = LANES;
    while n > 1 {
        n /= 2;
        for i in 0..n {
            lanes[i] += lanes[n + i];
        }
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::compute::{cases, most};

    struct Case {
        sizes: [usize; 6],
        x: Vec<f32>,
        dt: Vec<f32>,
        a: Vec<f32>,
        b: Vec<f32>,
        c: Vec<f32>,
        d: Vec<f32>,
        state: Vec<f32>,
    }

    impl Case {
        fn new(sizes: [usize; 6]) -> Case {
            let [b, l, h, p, g, n] = sizes;
            let waves = |n: usize, step: f32| -> Vec<f32> {
                (0..n).map(|i| (i as f32 * step + step).sin()).collect()
            };
            Case {
                sizes,
                x: waves(b * l * h * p, 0.7),
                // Every fifth token is none.
                dt: (0..b * l * h).map(|i| ((i / h) % 5) as f32 * 0.1).collect(),
                a: (0..h).map(|i| -0.3 - i as f32).collect(),
                b: waves(b * l * g * n, 0.3),
                c: waves(b * l * g * n, 1.1),
                d: waves(h, 0.9),
                state: waves(b * h * p * n, 0.2),
            }
        }

        /// In float64.
        fn expected(&self, x: &[f64], b: &[f64], c: &[f64]) -> (Vec<f64>, Vec<f64>) {
            let [n_b, l, h, p, g, n] = self.sizes;
            let mut state: Vec<f64> = self.state.iter().map(|&x| x.into()).collect();
            let mut y = vec![0.0; x.len()];
            for (i, y) in y.iter_mut().enumerate() {
                let [row, element] = [i / p, i % p];
                let [token, head] = [row / h, row % h];
                let dt = f64::from(self.dt[row]);
                let decay = (dt * f64::from(self.a[head])).exp();
                let group = token * g + head / (h / g);
                let at = ((token / l * h + head) * p + element) * n;
                *y = f64::from(self.d[head]) * x[i];
                for j in 0..n {
                    let state = &mut state[at + j];
                    *state = decay * *state + dt * x[i] * b[group * n + j];
                    *y += *state * c[group * n + j];
                }
            }
            assert_eq!(state.len(), n_b * h * p * n);
            (y, state)
        }

        fn check<T: Float>(&self, bound: f64) {
            let [_, l, h, p, g, n] = self.sizes;
            let narrow = |x: &[f32]| -> Vec<T> { x.iter().map(|&x| T::from_f32(x)).collect() };
            let wide = |x: &[T]| -> Vec<f64> { x.iter().map(|x| x.to_f32().into()).collect() };
            let [x, b, c] = [&self.x, &self.b, &self.c].map(|x| narrow(x));
            let (expected, expected_state) = self.expected(&wide(&x), &wide(&b), &wide(&c));
            // The elements of `b` lie in the reverse order.
            let reversed: Vec<T> = b.iter().rev().copied().collect();
            let [head, group] = [[l * h * p, h * p, p, 1], [l * g * n, g * n, n, 1]];
            let [head, group] = [head, group].map(|strides| strides.map(|stride| stride as i64));
            for isa in Isa::available() {
                let (mut y, mut state) = (narrow(&self.x), vec![9.0; self.state.len()]);
                let inputs = Scan {
                    sizes: self.sizes,
                    x: Rows { data: &x, start: 0, strides: head },
                    dt: &self.dt,
                    a: &self.a,
                    b: Rows {
                        data: &reversed,
                        start: reversed.len().saturating_sub(1),
                        strides: group.map(|stride| -stride),
                    },
                    c: Rows { data: &c, start: 0, strides: group },
                    d: &self.d,
                    state: &self.state,
                };
                scan(isa, &inputs, &mut y, &mut state);
                for (y, expected) in wide(&y).iter().zip(&expected) {
                    assert!(
                        (y - expected).abs() <= bound * expected.abs().max(1.0),
                        "{y} {expected}"
                    );
                }
                for (&state, expected) in state.iter().zip(&expected_state) {
                    assert!((f64::from(state) - expected).abs() <= 1e-4, "{state} {expected}");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(cases(32))]

        #[test]
        fn agrees_with_float64(
            (b, l, g, repeats) in (1..3usize, 0..9usize, 1..3usize, 1..3usize),
            (p, n) in (1..most(70), 1..most(140)),
        ) {
            let case = Case::new([b, l, g * repeats, p, g, n]);
            case.check::<f32>(1e-5);
            case.check::<f16>(2e-3);
            case.check::<bf16>(1e-2);
        }
    }

    #[test]
    fn nothing_has_no_effect() {
        for sizes in [[0, 3, 2, 4, 1, 4], [1, 0, 2, 4, 1, 4], [1, 2, 0, 4, 1, 4]] {
            Case::new(sizes).check::<f32>(0.0);
        }
    }
}
