//! Mamba 2: a recurrence whose rates depend on the token (arXiv 2405.21060).

use mlx_core::nn::{self, GatedActivation, Linear, Param, RmsNorm, SsmScan};
use mlx_core::{Array, Dtype, NewAxis, Weights, fast, ops};

use super::check_size;
use super::conv::ShortConv;
use super::mask::Mask;
use super::mixer::Mixer;
use crate::cache::{Cache, RecurrentCache};
use crate::error::{Error, Result};

/// What a Mamba 2 layer is made from.
#[derive(Clone, Debug)]
pub struct Mamba2Args {
    /// Size of the hidden state.
    pub hidden_size: i32,
    /// Number of heads.
    pub n_heads: i32,
    /// Size of a head.
    pub head_dim: i32,
    /// Numbers that the state has for each element of a head.
    pub state_size: i32,
    /// Number of groups of heads, which write and read alike; also of those that are normed together.
    pub n_groups: i32,
    /// Number of tokens that an output of the convolution depends on.
    pub n_taps: i32,
    /// Whether the convolution has a bias.
    pub conv_bias: bool,
    /// Whether the projections have a bias.
    pub proj_bias: bool,
    /// The least and the greatest step in time.
    pub time_step_limit: [f32; 2],
    /// Epsilon of the norm.
    pub eps: f32,
}

impl Mamba2Args {
    /// Returns how many elements all heads have, and how many channels the convolution.
    ///
    /// # Errors
    /// When one of the numbers is out of range.
    pub fn check(&self) -> Result<[i32; 2]> {
        let Mamba2Args { n_heads, head_dim, state_size, n_groups, .. } = *self;
        check_size("hidden_size", self.hidden_size)?;
        check_size("mamba_num_heads", n_heads)?;
        check_size("mamba_head_dim", head_dim)?;
        check_size("ssm_state_size", state_size)?;
        check_size("n_groups", n_groups)?;
        let inner = n_heads.saturating_mul(head_dim);
        let channels = n_groups.saturating_mul(state_size).saturating_mul(2).saturating_add(inner);
        check_size("the heads of a mamba layer", inner)?;
        check_size("the channels of a mamba layer", channels)?;
        if n_heads % n_groups != 0 {
            let text = format!("{n_heads} heads of mamba layers in {n_groups} groups");
            return Err(Error::format("config.json", text));
        }
        let [least, greatest] = self.time_step_limit;
        if least.is_nan() || greatest.is_nan() || least > greatest {
            let text = format!("\"time_step_limit\" is {least} to {greatest}");
            return Err(Error::format("config.json", text));
        }
        Ok([inner, channels])
    }
}

/// A convolution over few tokens, then the recurrence, and a gated norm of what it gives.
pub struct Mamba2 {
    in_proj: Linear,
    conv1d: ShortConv,
    /// `[H]`
    dt_bias: Param,
    /// `[H]`
    a_log: Param,
    /// `[H]`
    d: Param,
    norm: RmsNorm,
    out_proj: Linear,
    args: Mamba2Args,
}

mlx_core::module! {
    Mamba2 { in_proj, conv1d, dt_bias, "A_log" => a_log, "D" => d, norm, out_proj }
}

impl Mamba2 {
    /// Takes the weights.
    ///
    /// # Errors
    /// When a tensor cannot be read, or a number is out of range.
    pub fn new(w: &Weights, args: &Mamba2Args) -> Result<Mamba2> {
        let [inner, channels] = args.check()?;
        let &Mamba2Args { hidden_size: dim, n_heads, proj_bias, .. } = args;
        Ok(Mamba2 {
            in_proj: w.linear("in_proj", dim, inner + channels + n_heads, proj_bias)?,
            conv1d: ShortConv::new(&w.at("conv1d"), channels, args.n_taps, args.conv_bias)?
                .with_silu(),
            dt_bias: w.param("dt_bias", &[n_heads])?,
            a_log: w.param_in_float32("A_log", &[n_heads])?,
            d: w.param("D", &[n_heads])?,
            norm: w.rms_norm("norm", inner, args.eps)?,
            out_proj: w.linear("out_proj", inner, dim, proj_bias)?,
            args: args.clone(),
        })
    }

    /// Returns the steps in time, `[B, L, H]`: none where there is no token, which keeps the state.
    fn time_steps(&self, dt: &Array, tokens: Option<&Array>) -> mlx_core::Result<Array> {
        let wide = |x: &Array| x.astype(Dtype::Float32);
        let [least, greatest] = self.args.time_step_limit.map(Array::from);
        let steps = nn::softplus(&(wide(dt)? + wide(&self.dt_bias)?)?)?;
        let steps = steps.clip(Some(&least), Some(&greatest))?;
        match tokens {
            Some(tokens) => ops::where_(&tokens.at((.., .., NewAxis))?, &steps, 0.0),
            None => Ok(steps),
        }
    }

    /// Returns the norm of each group of `gate`d heads.
    fn gated_norm(&self, y: &Array, gate: &Array) -> mlx_core::Result<Array> {
        let [b, l, inner] = gate.dims()?;
        let n_groups = self.args.n_groups;
        let y = nn::gated(gate, y, GatedActivation::Silu)?;
        let groups = y.reshape([b, l, n_groups, inner / n_groups])?;
        let normed = fast::rms_norm(&groups, None, self.norm.eps)?.reshape([b, l, inner])?;
        normed * &*self.norm.weight
    }
}

impl Mixer for Mamba2 {
    fn forward(&self, x: &Array, _mask: &Mask, cache: &mut Cache) -> mlx_core::Result<Array> {
        let cache = cache.as_recurrent()?;
        let [b, l, _] = x.dims()?;
        let Mamba2Args { n_heads, head_dim, state_size, n_groups, .. } = self.args;
        let inner = n_heads * head_dim;
        let tokens = cache.tokens(l)?;
        let projected = self.in_proj.forward(x)?;
        let (behind, part) = (projected.dim(-1)? - n_heads, |x: &Array, from: i32, to: i32| {
            x.at((.., .., from..to))
        });
        let gate = part(&projected, 0, inner)?;
        let dt = part(&projected, behind, behind + n_heads)?;
        let mixed = part(&projected, inner, behind)?;
        let mixed = self.conv1d.forward(&mixed, tokens.as_ref(), cache, 0)?;
        let of_groups = |from: i32| {
            let rows = part(&mixed, from, from + n_groups * state_size)?;
            rows.reshape([b, l, n_groups, state_size])
        };
        let state = cache.take(1);
        let scan = SsmScan {
            x: &part(&mixed, 0, inner)?.reshape([b, l, n_heads, head_dim])?,
            dt: &self.time_steps(&dt, tokens.as_ref())?,
            a: &self.a_log.astype(Dtype::Float32)?.exp()?.negative()?,
            b: &of_groups(inner)?,
            c: &of_groups(inner + n_groups * state_size)?,
            d: &self.d,
            state: state.as_ref(),
        };
        let (y, next) = scan.forward()?;
        cache.set(1, next);
        cache.advance(l);
        self.out_proj.forward(&self.gated_norm(&y.reshape([b, l, inner])?, &gate)?)
    }

    fn make_cache(&self, _window: Option<i32>) -> Cache {
        Cache::Recurrent(RecurrentCache::new(2))
    }
}

#[cfg(test)]
mod tests {
    use mlx_core::{Device, Result, random, with_device};

    use super::*;
    use crate::cache::Padding;

    fn args() -> Mamba2Args {
        Mamba2Args {
            hidden_size: 12,
            n_heads: 4,
            head_dim: 6,
            state_size: 8,
            n_groups: 2,
            n_taps: 4,
            conv_bias: true,
            proj_bias: false,
            time_step_limit: [0.0, f32::INFINITY],
            eps: 1e-5,
        }
    }

    fn layer() -> Mamba2 {
        let w = Weights::random(5, Dtype::Float32, None).expect("weights");
        Mamba2::new(&w, &args()).expect("a layer")
    }

    /// What a layer gives for tokens, in steps that end there.
    fn outputs(layer: &Mamba2, x: &Array, cache: &mut Cache, ends: &[i32]) -> Result<Array> {
        let mut start = 0;
        let parts = ends.iter().map(|&end| {
            let part = x.at((.., start..end))?;
            start = end;
            layer.forward(&part, &Mask::Causal, cache)
        });
        ops::concatenate(&parts.collect::<Result<Vec<_>>>()?, 1)
    }

    fn check_close(a: &Array, b: &Array) -> Result<()> {
        let bounds = ops::Closeness { rtol: 1e-4, atol: 1e-5, equal_nan: false };
        assert!(a.allclose(b, bounds)?.item::<bool>()?, "{a}\n{b}");
        Ok(())
    }

    #[test]
    fn steps_of_any_length_agree() -> Result<()> {
        with_device(Device::Cpu, || {
            let layer = layer();
            let x = random::normal(&[2, 70, 12], Dtype::Float32, 0.0, 20.0, None)?;
            let whole = outputs(&layer, &x, &mut layer.make_cache(None), &[70])?;
            let single: Vec<i32> = (1..=70).collect();
            for ends in [&[65, 70][..], &[2, 3, 70], &single] {
                check_close(&outputs(&layer, &x, &mut layer.make_cache(None), ends)?, &whole)?;
            }
            Ok(())
        })
    }

    #[test]
    fn padding_has_no_effect() -> Result<()> {
        with_device(Device::Cpu, || {
            let layer = layer();
            let x = random::normal(&[3, 9, 12], Dtype::Float32, 0.0, 20.0, None)?;
            let padding = [0, 3, 7];
            for ends in [&[9][..], &[2, 4, 9]] {
                let mut cache = layer.make_cache(None);
                cache.pad(&Padding::new(&padding)?);
                let together = outputs(&layer, &x, &mut cache, ends)?;
                for (i, &start) in (0..).zip(&padding) {
                    let row = x.at((i..i + 1, start..))?;
                    let cache = &mut layer.make_cache(None);
                    let alone = outputs(&layer, &row, cache, &[9 - start])?;
                    check_close(&together.at((i..i + 1, start..))?, &alone)?;
                }
            }
            Ok(())
        })
    }

    #[test]
    fn numbers_that_no_model_has_are_refused() {
        let change: [fn(&mut Mamba2Args); 8] = [
            |args| args.n_heads = 0,
            |args| args.n_heads = i32::MAX,
            |args| args.head_dim = 1 << 23,
            |args| args.state_size = 1 << 23,
            |args| args.n_groups = 3,
            |args| args.n_groups = -1,
            |args| args.time_step_limit = [1.0, 0.0],
            |args| args.time_step_limit = [0.0, f32::NAN],
        ];
        for (i, change) in change.iter().enumerate() {
            let mut args = args();
            change(&mut args);
            assert!(args.check().is_err(), "{i}");
        }
        args().check().expect("sizes of a model");
    }
}
