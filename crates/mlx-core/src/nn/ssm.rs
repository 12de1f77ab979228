//! The recurrence of state-space models.

use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::{self, SsmArrays};
use crate::ops::{self, Scan};
use crate::{Ellipsis, NewAxis};

/// The inputs of the recurrence of Mamba 2 (arXiv 2405.21060).
///
/// Each head keeps a state `S`, `[P, N]`, which decays from token to token and takes each in:
/// `S ← exp(dt · a) · S + dt · x ⊗ b`, and gives `y = S · c + d · x`. A token whose `dt` is 0 leaves the
/// state as it is.
///
/// ```
/// use mlx_core::nn::SsmScan;
/// use mlx_core::{Array, Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let x = Array::from_slice(&[1.0f32, 0.0, 0.0], &[1, 3, 1, 1])?;
/// let (dt, a) = (ops::ones(&[1, 3, 1], Dtype::Float32)?, Array::from_slice(&[-2.0f32.ln()], &[1])?);
/// let (b, d) = (ops::ones(&[1, 3, 1, 1], Dtype::Float32)?, ops::zeros(&[1], Dtype::Float32)?);
/// let scan = SsmScan { x: &x, dt: &dt, a: &a, b: &b, c: &b, d: &d, state: None };
/// let (y, state) = scan.forward()?;
/// assert!(y.to_vec::<f32>()?.iter().zip([1.0, 0.5, 0.25]).all(|(y, z)| (y - z).abs() < 1e-6));
/// assert_eq!(state.shape(), [1, 1, 1, 1]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SsmScan<'a> {
    /// `[B, L, H, P]`
    pub x: &'a Array,
    /// Steps in time, `[B, L, H]`.
    pub dt: &'a Array,
    /// Rates of growth, negative as a rule, `[H]`.
    pub a: &'a Array,
    /// What a token writes, `[B, L, G, N]`: each group for `H / G` heads that follow one another.
    pub b: &'a Array,
    /// What a token reads, `[B, L, G, N]`.
    pub c: &'a Array,
    /// Factor on the input itself, `[H]`.
    pub d: &'a Array,
    /// `[B, H, P, N]`; zeros before the first token.
    pub state: Option<&'a Array>,
}

/// So many tokens become products of matrices at a time.
const CHUNK: i32 = 64;

impl SsmScan<'_> {
    /// Applies the recurrence to all tokens; on a CPU in one pass.
    ///
    /// It computes in float32; the state is kept in that, too.
    ///
    /// # Shape
    /// `[B, L, H, P]` of the type of `x`, and the state, `[B, H, P, N]`
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self) -> Result<(Array, Array)> {
        let [b, l, h, p] = self.x.dims()?;
        let [_, _, g, n] = self.b.dims()?;
        let state_shape = [b, h, p, n];
        let fits = self.b.shape() == [b, l, g, n]
            && self.c.shape() == [b, l, g, n]
            && self.dt.shape() == [b, l, h]
            && self.a.shape() == [h]
            && self.d.shape() == [h]
            && self.state.is_none_or(|state| state.shape() == state_shape)
            && g > 0
            && h % g == 0;
        if !fits {
            let text = format!("ssm_scan: {self:?} do not fit");
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
        let wide = |x: &Array| x.astype(Dtype::Float32);
        let dtype = self.x.dtype();
        let arrays = SsmArrays {
            x: self.x.clone(),
            dt: wide(self.dt)?,
            a: wide(self.a)?,
            b: self.b.astype(dtype)?,
            c: self.c.astype(dtype)?,
            d: wide(self.d)?,
            state: match self.state {
                Some(state) => wide(state)?,
                None => ops::zeros(&state_shape, Dtype::Float32)?,
            },
        };
        match kernels::are_for(dtype)? && arrays.state.size() > 0 {
            true => kernels::ssm_scan(&arrays, scan_by_ops),
            false => scan_by_ops(&arrays),
        }
    }
}

/// Does as [`SsmScan::forward`] by products of matrices: within a chunk every token is weighted with
/// those before it, as in attention, and between chunks there is the state.
fn scan_by_ops(arrays: &SsmArrays) -> Result<(Array, Array)> {
    let SsmArrays { x, dt, a, b, c, d, state } = arrays;
    let [n_b, l, h, p] = x.dims()?;
    let [_, _, g, n] = b.dims()?;
    let repeats = h / g;
    let dtype = x.dtype();
    let x = x.astype(Dtype::Float32)?;
    let from_input = (&x * d.at((.., NewAxis))?)?;
    if l == 0 {
        return Ok((from_input.astype(dtype)?, state.clone()));
    }
    // Heads come before tokens, those of a group together: [B, G, H/G, L, …].
    let of_heads = |x: &Array, size: i32| x.swapaxes(1, 2)?.reshape([n_b, g, repeats, l, size]);
    let of_groups = |x: &Array| x.astype(Dtype::Float32)?.swapaxes(1, 2)?.expand_dims(2);
    let rates = of_heads(&(dt * a)?, 1)?.squeeze(-1)?;
    let x = of_heads(&(dt.at((Ellipsis, NewAxis))? * &x)?, p)?;
    let (b, c) = (of_groups(b)?, of_groups(c)?);
    let mut state = state.reshape([n_b, g, repeats, p, n])?;
    let mut ys = Vec::new();
    for start in (0..l).step_by(CHUNK as usize) {
        let of_chunk = start..l.min(start + CHUNK);
        let rows = |x: &Array| x.at((.., .., .., of_chunk.clone()));
        let (x, rates, b, c) = (rows(&x)?, rows(&rates)?, rows(&b)?, rows(&c)?);
        let decays = decays(&rates)?;
        let from_start = rates.cumsum(-1, Scan::default())?.exp()?.expand_dims(-1)?;
        let scores = (c.matmul(&b.swapaxes(-1, -2)?)? * &decays)?;
        let from_state = (c.matmul(&state.swapaxes(-1, -2)?)? * &from_start)?;
        ys.push((scores.matmul(&x)? + from_state)?);
        let to_end = decays.at((Ellipsis, -1, .., NewAxis))?;
        let added = (x * to_end)?.swapaxes(-1, -2)?.matmul(&b)?;
        state = ((state * from_start.at((Ellipsis, -1.., ..))?)? + added)?;
    }
    let y = ops::concatenate(&ys, 3)?.reshape([n_b, h, l, p])?.swapaxes(1, 2)?;
    Ok(((y + from_input)?.astype(dtype)?, state.reshape([n_b, h, p, n])?))
}

/// Returns what is left of each token at each later one, `[…, L, L]`: the exponential of the sum of the
/// rates between them. Sums from the start would cancel out.
fn decays(rates: &Array) -> Result<Array> {
    let l = rates.dim(-1)?;
    let shape = [rates.shape(), &[l]].concat();
    let steps = rates.expand_dims(-1)?.broadcast_to(shape)?.tril(-1)?;
    steps.cumsum(-2, Scan::default())?.exp()?.tril(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Closeness;
    use crate::transforms::{compile, grad_once, vmap};
    use crate::{Device, random, with_device};

    fn check_close(a: &Array, b: &Array, tolerance: f64) -> Result<()> {
        assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()));
        let bounds = Closeness { rtol: tolerance, atol: tolerance, equal_nan: false };
        assert!(a.allclose(b, bounds)?.item::<bool>()?, "{a}\n{b}");
        Ok(())
    }

    /// `x`, `dt`, `a`, `b`, `c`, `d` and the state, of so many tokens.
    fn arrays(l: i32, dtype: Dtype) -> Result<[Array; 7]> {
        let [n_b, h, p, g, n] = [2, 6, 5, 3, 8];
        random::seed(3)?;
        let normal = |shape: &[i32]| random::normal(shape, Dtype::Float32, 0.0, 1.0, None);
        // As the layers have them: parts of one array.
        let all = normal(&[n_b, l, h * p + 2 * g * n])?.astype(dtype)?;
        let parts = all.split_at(&[h * p, h * p + g * n], -1)?;
        let grouped = |x: &Array| x.reshape([n_b, l, g, n]);
        Ok([
            parts[0].reshape([n_b, l, h, p])?,
            normal(&[n_b, l, h])?.abs()?,
            normal(&[h])?.exp()?.negative()?,
            grouped(&parts[1])?,
            grouped(&parts[2])?,
            normal(&[h])?,
            normal(&[n_b, h, p, n])?,
        ])
    }

    fn of(x: &[Array]) -> SsmArrays {
        let [x, dt, a, b, c, d, state] = [0, 1, 2, 3, 4, 5, 6].map(|i| x[i].clone());
        SsmArrays { x, dt, a, b, c, d, state }
    }

    fn by_ops(x: &[Array]) -> Result<Vec<Array>> {
        scan_by_ops(&of(x)).map(|(y, state)| vec![y, state])
    }

    fn forward(x: &[Array]) -> Result<Vec<Array>> {
        let state = Some(&x[6]);
        let scan = SsmScan { x: &x[0], dt: &x[1], a: &x[2], b: &x[3], c: &x[4], d: &x[5], state };
        scan.forward().map(|(y, state)| vec![y, state])
    }

    /// Applies `scan` to some tokens after the others.
    fn in_parts(
        x: &[Array; 7],
        ends: &[i32],
        scan: fn(&[Array]) -> Result<Vec<Array>>,
    ) -> Result<Vec<Array>> {
        let (mut ys, mut state, mut start) = (Vec::new(), x[6].clone(), 0);
        for &end in ends {
            let mut part = x.clone();
            for i in [0, 1, 3, 4] {
                part[i] = x[i].at((.., start..end))?;
            }
            part[6] = state;
            let [y, next] = <[Array; 2]>::try_from(scan(&part)?).expect("two");
            ys.push(y);
            (state, start) = (next, end);
        }
        Ok(vec![ops::concatenate(&ys, 1)?, state])
    }

    #[test]
    fn kernel_and_ops_agree_in_any_parts() -> Result<()> {
        with_device(Device::Cpu, || {
            let x = arrays(150, Dtype::Float32)?;
            let expected = by_ops(&x)?;
            let single: Vec<i32> = (1..=150).collect();
            for ends in [&[150][..], &[64, 128, 150], &[1, 70, 71, 150], &single] {
                for scan in [by_ops, forward] {
                    for (found, expected) in in_parts(&x, ends, scan)?.iter().zip(&expected) {
                        check_close(found, expected, 2e-4)?;
                    }
                }
            }
            for (dtype, tolerance) in [(Dtype::Float16, 4e-3), (Dtype::Bfloat16, 3e-2)] {
                let x = arrays(20, dtype)?;
                for (found, expected) in forward(&x)?.iter().zip(by_ops(&x)?) {
                    check_close(found, &expected, tolerance)?;
                }
            }
            Ok(())
        })
    }

    #[test]
    fn a_step_of_no_time_keeps_the_state() -> Result<()> {
        with_device(Device::Cpu, || {
            let mut x = arrays(3, Dtype::Float32)?;
            x[1] = ops::zeros(x[1].shape(), Dtype::Float32)?;
            for scan in [by_ops, forward] {
                check_close(&scan(&x)?[1], &x[6], 0.0)?;
            }
            let none = arrays(0, Dtype::Float32)?;
            for scan in [by_ops, forward] {
                check_close(&scan(&none)?[1], &none[6], 0.0)?;
            }
            Ok(())
        })
    }

    #[test]
    fn runs_under_transforms() -> Result<()> {
        with_device(Device::Cpu, || {
            let x = arrays(9, Dtype::Float32)?;
            let expected = by_ops(&x)?;
            for (found, expected) in compile(forward, false)?.call(&x)?.iter().zip(&expected) {
                check_close(found, expected, 1e-4)?;
            }
            let stacked = x.iter().map(|x| x.expand_dims(0)).collect::<Result<Vec<_>>>()?;
            let mapped = vmap(forward, &[Some(0); 7], 0)?.call(&stacked)?;
            for (found, expected) in mapped.iter().zip(&expected) {
                check_close(&found.squeeze(0)?, expected, 1e-4)?;
            }
            let loss = |scan: fn(&[Array]) -> Result<Vec<Array>>| {
                move |x: &[Array]| {
                    let both = scan(x)?;
                    let sums = [&both[0], &both[1]].map(|y| y.square()?.sum(.., false));
                    let [a, b] = sums;
                    Ok(vec![(a? + b?)?])
                }
            };
            for i in 0..7 {
                let ours = grad_once(loss(forward), &x, i)?;
                check_close(&ours[0], &grad_once(loss(by_ops), &x, i)?[0], 1e-3)?;
            }
            Ok(())
        })
    }

    #[test]
    fn refuses_what_does_not_fit() -> Result<()> {
        let x = arrays(2, Dtype::Float32)?;
        for (i, shape) in [(1, &[2, 2, 5][..]), (2, &[5]), (4, &[2, 2, 3, 9]), (6, &[2, 6, 5, 9])] {
            let mut x = x.clone();
            x[i] = ops::zeros(shape, Dtype::Float32)?;
            let error = forward(&x).expect_err("a shape that does not fit").to_string();
            assert!(error.starts_with("ssm_scan: "), "{error}");
        }
        let mut x = x;
        for i in [3, 4] {
            x[i] = ops::zeros(&[2, 2, 4, 8], Dtype::Float32)?;
        }
        assert!(forward(&x).is_err(), "4 groups of 6 heads");
        Ok(())
    }
}
