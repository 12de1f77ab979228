//! The same by MLX's ops, token by token: on a GPU, and for transforms.

use super::{GatedDeltaArrays, GatedDeltaParts};
use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::{NewAxis, fast, nn, ops};

/// Does as the kernel, by ops.
pub(super) fn by_ops(parts: &GatedDeltaParts, arrays: GatedDeltaArrays) -> Result<(Array, Array)> {
    let GatedDeltaArrays { qkv, z, b, a, a_log, dt_bias, norm, state, tokens } = arrays;
    let GatedDeltaParts { n_key_heads: hk, key_head_dim: d, eps } = *parts;
    let ([batch, l, _], hv, dv) = (qkv.dims()?, a.dim(-1)?, norm.dim(0)?);
    let wide = |x: &Array| x.astype(Dtype::Float32);
    let keys = hk * d;

    let heads = |x: Array, n: i32, d: i32| wide(&x)?.reshape([batch, l, n, d]);
    let unit = |x: Array, scale: f32| {
        let x = fast::rms_norm(&heads(x, hk, d)?, None, 1e-6 / d as f32)?;
        (x * scale)?.repeat(hv / hk, 2)
    };
    let q = unit(qkv.at((.., .., ..keys))?, (d as f32).recip())?;
    let k = unit(qkv.at((.., .., keys..2 * keys))?, (d as f32).sqrt().recip())?;
    let v = heads(qkv.at((.., .., 2 * keys..))?, hv, dv)?;
    let rate = nn::softplus(&(wide(&a)? + wide(&dt_bias)?)?)?;
    let mut decay = ((wide(&a_log)?.exp()? * rate)? * -1.0)?.exp()?;
    let mut beta = wide(&b)?.sigmoid()?;
    if let Some(tokens) = tokens {
        let tokens = tokens.expand_dims(-1)?;
        (decay, beta) = (ops::where_(&tokens, decay, 1.0)?, ops::where_(&tokens, beta, 0.0)?);
    }

    let mut state = match state {
        Some(state) => state,
        None => ops::zeros(&[batch, hv, dv, d], Dtype::Float32)?,
    };
    let mut rows = Vec::new();
    for t in 0..l {
        let k = k.at((.., t))?.expand_dims(2)?;
        state = (state * decay.at((.., t, .., NewAxis, NewAxis))?)?;
        let known = (&state * &k)?.sum(-1, false)?;
        let delta = ((v.at((.., t))? - known)? * beta.at((.., t, .., NewAxis))?)?;
        state = (state + (delta.expand_dims(-1)? * k)?)?;
        rows.push((&state * q.at((.., t))?.expand_dims(2)?)?.sum(-1, false)?);
    }
    let y = match rows.is_empty() {
        true => ops::zeros(&[batch, 0, hv, dv], Dtype::Float32)?,
        false => ops::stack(&rows, 1)?,
    };
    let y = fast::rms_norm(&y, Some(&wide(&norm)?), eps)?;
    let y = (y * nn::silu(&heads(z, hv, dv)?)?)?;
    Ok((y.astype(qkv.dtype())?.reshape([batch, l, hv * dv])?, state))
}
