//! Attention in one pass, without a matrix of scores.

use std::borrow::Cow;
use std::ffi::CStr;

use half::{bf16, f16};

use super::compute::attention as compute;
use super::compute::matmul::Element;
use super::{Isa, elements, elements_mut};
use crate::array::Array;
use crate::device::Device;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::fast::{AttentionMask, scaled_dot_product_attention};
use crate::ffi::{self, HostInput, HostKernel, HostOutput};
use crate::nn::KvRows;
use crate::ops::promote_types;
use crate::{NewAxis, ops, stream};

/// What [`attention`] does beside products and a softmax.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionOptions<'a> {
    pub(crate) scale: f32,
    pub(crate) mask: AttentionMask<'a>,
    /// With a causal mask: how many keys up to its own a query sees.
    pub(crate) window: Option<i32>,
    /// `[H]`: extra scores whose values are zero.
    pub(crate) sinks: Option<&'a Array>,
    /// Scores become `cap * tanh(score / cap)`, before any mask.
    pub(crate) soft_cap: Option<f32>,
}

impl<'a> AttentionOptions<'a> {
    pub(crate) fn new(scale: f32, mask: AttentionMask<'a>) -> AttentionOptions<'a> {
        AttentionOptions { scale, mask, window: None, sinks: None, soft_cap: None }
    }
}

/// Which mask there is; an array is an input.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MaskKind {
    None,
    Causal,
    Array,
}

#[derive(Clone, Copy)]
struct Attention {
    scale: f32,
    mask: MaskKind,
    window: Option<i32>,
    has_sinks: bool,
    soft_cap: Option<f32>,
    isa: Isa,
}

impl HostKernel for Attention {
    const NAME: &'static CStr = c"attention";

    fn params(&self) -> Vec<u64> {
        vec![
            self.scale.to_bits().into(),
            self.mask as u64,
            self.window.map_or(u64::MAX, |window| window as u64),
            self.has_sinks.into(),
            self.soft_cap.map_or(u64::MAX, |cap| cap.to_bits().into()),
            self.isa.name().bytes().fold(0, |hash, byte| hash << 7 | u64::from(byte)),
        ]
    }

    /// All but the sinks: caches are views of larger stores, and heads come transposed.
    fn takes_strided(&self, input: usize) -> bool {
        input < 3 || (input == 3 && self.mask == MaskKind::Array)
    }

    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String> {
        let ([q, ..], [out]) = (inputs, outputs) else {
            return Err(format!("{} inputs", inputs.len()));
        };
        match q.dtype {
            Dtype::Float32 => self.compute::<f32>(inputs, out),
            Dtype::Float16 => self.compute::<f16>(inputs, out),
            Dtype::Bfloat16 => self.compute::<bf16>(inputs, out),
            dtype => Err(format!("no kernel for {dtype}")),
        }
    }
}

impl Attention {
    fn compute<T: Element>(
        &self,
        inputs: &[HostInput<'_>],
        out: &mut HostOutput<'_>,
    ) -> Result<(), String> {
        let [q, k, v, rest @ ..] = inputs else {
            return Err(format!("{} inputs", inputs.len()));
        };
        let (mask, sinks) = match (self.mask, rest) {
            (MaskKind::Array, [mask, sinks @ ..]) => (Some(mask), sinks.first()),
            (_, sinks) => (None, sinks.first()),
        };
        let floats = || inputs[..3].iter().chain(mask.filter(|m| m.dtype != Dtype::Bool));
        if floats().chain(sinks).any(|input| input.dtype != q.dtype) {
            return Err("dtypes differ".to_owned());
        }
        let [q, k, v] = [Laid::<T>::rows(q)?, Laid::rows(k)?, Laid::rows(v)?];
        let (seen, added) = match mask {
            Some(mask) if mask.dtype == Dtype::Bool => (Some(Laid::any(mask.bytes, mask)?), None),
            Some(mask) => (None, Some(Laid::any(elements::<T>(mask.bytes)?, mask)?)),
            None => (None, None),
        };
        let mask = match (self.mask, &seen, &added) {
            (MaskKind::Causal, ..) => {
                compute::Mask::Causal { window: self.window.map(|window| window as usize) }
            }
            (_, Some(seen), _) => compute::Mask::Bool(seen.mask()?),
            (_, _, Some(added)) => compute::Mask::Additive(added.mask()?),
            _ => compute::Mask::None,
        };
        let operands = compute::Attention {
            q: q.heads()?,
            k: compute::Rows::Dense(k.heads()?),
            v: compute::Rows::Dense(v.heads()?),
            mask,
            sinks: sinks.map(|sinks| elements(sinks.bytes)).transpose()?,
            scale: self.scale,
            soft_cap: self.soft_cap,
        };
        compute::attention(
            self.isa,
            &operands,
            compute::Order::HeadsFirst,
            elements_mut(out.bytes)?,
        );
        Ok(())
    }
}

const OUTSIDE: &str = "elements outside of the buffer";

/// An input with strides that the kernel takes, copied where it had others.
pub(super) struct Laid<'a, T: Clone> {
    data: Cow<'a, [T]>,
    shape: [usize; 4],
    strides: [usize; 4],
}

impl<'a, T: Element> Laid<'a, T> {
    /// One whose rows are contiguous.
    fn rows(input: &HostInput<'a>) -> Result<Laid<'a, T>, String> {
        let data = elements(input.bytes)?;
        match (input.shape, input.strides) {
            ([.., n], [.., stride]) if *n > 1 && *stride != 1 => Laid::copied(data, input),
            _ => Laid::any(data, input),
        }
    }

    fn heads(&self) -> Result<compute::Heads<'_, T>, String> {
        let [b, h, s, _] = self.strides;
        compute::Heads::new(&self.data, self.shape, [b, h, s]).ok_or_else(|| OUTSIDE.to_owned())
    }
}

impl<'a, T: Copy + Default> Laid<'a, T> {
    /// One whose strides are not negative.
    pub(super) fn any(data: &'a [T], input: &HostInput<'a>) -> Result<Laid<'a, T>, String> {
        let strides: Option<Vec<usize>> =
            input.strides.iter().map(|&stride| usize::try_from(stride).ok()).collect();
        match strides.as_deref() {
            Some(&[b, h, l, s]) => {
                Ok(Laid { data: Cow::Borrowed(data), shape: sizes(input)?, strides: [b, h, l, s] })
            }
            _ => Laid::copied(data, input),
        }
    }

    fn copied(data: &[T], input: &HostInput<'_>) -> Result<Laid<'a, T>, String> {
        let shape = sizes(input)?;
        let strides: [i64; 4] = input.strides.try_into().map_err(|_| "number of axes")?;
        let mut copy = vec![T::default(); shape.iter().product()];
        for (i, x) in copy.iter_mut().enumerate() {
            let (mut rest, mut place) = (i, input.start as i64);
            for axis in (0..4).rev() {
                place += (rest % shape[axis]) as i64 * strides[axis];
                rest /= shape[axis];
            }
            *x = *usize::try_from(place).ok().and_then(|place| data.get(place)).ok_or(OUTSIDE)?;
        }
        let [_, h, l, s] = shape;
        Ok(Laid { data: Cow::Owned(copy), shape, strides: [h * l * s, l * s, s, 1] })
    }

    pub(super) fn mask(&self) -> Result<compute::MaskArray<'_, T>, String> {
        compute::MaskArray::new(&self.data, self.shape, self.strides)
            .ok_or_else(|| OUTSIDE.to_owned())
    }
}

fn sizes(input: &HostInput<'_>) -> Result<[usize; 4], String> {
    let [b, h, l, s] = input.shape else { return Err(format!("shape {:?}", input.shape)) };
    Ok([*b as usize, *h as usize, *l as usize, *s as usize])
}

/// Tells whether [`attention`] takes these here.
///
/// # Errors
/// When there is no current stream.
pub(crate) fn has_attention(
    [q, k, v]: [&Array; 3],
    options: &AttentionOptions<'_>,
) -> Result<bool> {
    Ok(fits([q, k, v], options) && stream::current_device()? == Device::Cpu)
}

fn fits([q, k, v]: [&Array; 3], options: &AttentionOptions<'_>) -> bool {
    let (&[b, h, l, d], &[k_b, kv, s, k_d], &[v_b, v_kv, v_s, _]) =
        (q.shape(), k.shape(), v.shape())
    else {
        return false;
    };
    let dtype = q.dtype();
    let mask_is_known = match options.mask {
        AttentionMask::None => options.window.is_none(),
        AttentionMask::Causal => options.window.is_none_or(|window| window > 0),
        AttentionMask::Array(mask) => {
            options.window.is_none() && mask_fits(mask, [b, h, l, s], dtype)
        }
    };
    matches!(dtype, Dtype::Float32 | Dtype::Float16 | Dtype::Bfloat16)
        && k.dtype() == dtype
        && v.dtype() == dtype
        && (k_b, v_b, v_kv, v_s, k_d) == (b, b, kv, s, d)
        && kv > 0
        && h % kv == 0
        && mask_is_known
        && options.sinks.is_none_or(|sinks| sinks.shape() == [h] && sinks.dtype() == dtype)
}

/// Tells whether a mask broadcasts to a shape, and is of booleans or adds to scores of a dtype.
pub(super) fn mask_fits(mask: &Array, shape: [i32; 4], dtype: Dtype) -> bool {
    let axes = mask.shape().iter().rev().zip(shape.into_iter().rev());
    mask.ndim() <= 4
        && axes.into_iter().all(|(&n, full)| n == full || n == 1)
        && promote_types(mask.dtype(), dtype) == dtype
}

/// Gives a mask all its axes, and one that is added the dtype of the scores.
pub(super) fn broadcast_mask(mask: &Array, shape: [i32; 4], dtype: Dtype) -> Result<Array> {
    let is_bool = mask.dtype() == Dtype::Bool;
    let mask = if is_bool { mask.clone() } else { mask.astype(dtype)? };
    mask.broadcast_to(shape)
}

/// `softmax(scale * q × kᵀ + mask) × v` by a kernel of ours, softmax in float32.
///
/// Agrees with [`scaled_dot_product_attention`] also where a mask hides all keys: these count the
/// same then, unless they are hidden by adding an infinity, which gives NaN.
///
/// # Shape
/// `q: [B, H, L, D]`, `k: [B, KV, S, D]`, `v: [B, KV, S, DV] → [B, H, L, DV]`
///
/// # Errors
/// When the current device is no CPU, or shapes and dtypes do not fit.
pub(crate) fn attention(
    q: &Array,
    k: &Array,
    v: &Array,
    options: AttentionOptions<'_>,
) -> Result<Array> {
    if !fits([q, k, v], &options) {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("attention: queries {q:?}, keys {k:?} and values {v:?} do not fit {options:?}"),
        ));
    }
    let ([b, h, l, _], [_, _, s, dv]) = (q.dims()?, v.dims()?);
    let (mask, kind) = match options.mask {
        AttentionMask::None => (None, MaskKind::None),
        AttentionMask::Causal => (None, MaskKind::Causal),
        AttentionMask::Array(mask) => {
            (Some(broadcast_mask(mask, [b, h, l, s], q.dtype())?), MaskKind::Array)
        }
    };
    let kernel = Attention {
        scale: options.scale,
        mask: kind,
        window: options.window,
        has_sinks: options.sinks.is_some(),
        soft_cap: options.soft_cap,
        isa: super::options().isa,
    };
    let inputs: Vec<&Array> = [q, k, v].into_iter().chain(&mask).chain(options.sinks).collect();
    let outputs = ffi::host_op(
        kernel,
        &inputs,
        &[(&[b, h, l, dv], q.dtype())],
        Box::new(move |inputs| Ok(vec![composed(kernel, inputs)?])),
    )?;
    outputs.into_iter().next().ok_or_else(|| Error::new(ErrorKind::Runtime, "attention: no output"))
}

/// Does as the kernel, by MLX's ops.
fn composed(kernel: Attention, inputs: &[Array]) -> Result<Array> {
    let Attention { scale, mask, window, has_sinks, soft_cap, .. } = kernel;
    let (q, k, v) = (&inputs[0], &inputs[1], &inputs[2]);
    let sinks = if has_sinks { inputs.last() } else { None };
    let causal = match mask {
        MaskKind::Causal if window.is_some() || soft_cap.is_some() => {
            Some(causal_mask(q.dim(2)?, k.dim(2)?, window)?)
        }
        _ => None,
    };
    let mask = match mask {
        MaskKind::None => AttentionMask::None,
        MaskKind::Causal => causal.as_ref().map_or(AttentionMask::Causal, AttentionMask::Array),
        MaskKind::Array => AttentionMask::Array(&inputs[3]),
    };
    if soft_cap.is_none() {
        return scaled_dot_product_attention(q, k, v, scale, mask, sinks);
    }
    let mask = match mask {
        AttentionMask::Array(mask) => Some(mask),
        _ => None,
    };
    let [k, v] = [k, v].map(|rows| KvRows::Dense(rows.clone()));
    by_scores(q, [&k, &v], Scores { scale, mask, sinks, soft_cap })
}

/// What becomes of the scores of [`by_scores`].
#[derive(Clone, Copy)]
pub(super) struct Scores<'a> {
    pub(super) scale: f32,
    /// Broadcasts to `[B, H, L, S]`, of which axes in front may be absent.
    pub(super) mask: Option<&'a Array>,
    pub(super) sinks: Option<&'a Array>,
    pub(super) soft_cap: Option<f32>,
}

/// Attends by ops that make all scores, and take packed keys and values as they are.
pub(super) fn by_scores(q: &Array, [k, v]: [&KvRows; 2], options: Scores<'_>) -> Result<Array> {
    let Scores { scale, mask, sinks, soft_cap } = options;
    let ([_, h, l, _], [_, kv, ..]) = (q.dims()?, k.dims()?);
    let shared = h / kv;
    let q = q.multiply(scale)?.unflatten(1, [kv, shared])?;
    let mut scores = product(&q, k, true)?;
    if let Some(cap) = soft_cap {
        scores = scores.divide(cap)?.tanh()?.multiply(cap)?;
    }
    if let Some(mask) = mask {
        let mask = match mask.ndim() {
            3 | 4 if mask.dim(-3)? == 1 => mask.expand_dims(-3)?,
            3 | 4 => mask.unflatten(mask.ndim() as i32 - 3, [kv, shared])?,
            _ => mask.clone(),
        };
        scores = match (mask.dtype(), scores.dtype().finfo()) {
            (Dtype::Bool, Some(finfo)) => ops::where_(&mask, &scores, finfo.min as f32)?,
            _ => scores.add(&mask)?,
        };
    }
    if let Some(sinks) = sinks {
        let sinks = sinks.reshape([1, kv, shared, 1, 1])?;
        let sinks = sinks.broadcast_to([scores.dim(0)?, kv, shared, l, 1])?;
        scores = ops::concatenate([&sinks, &scores], -1)?;
    }
    let weights = scores.softmax(-1, true)?;
    let weights = weights.at((.., .., .., .., i32::from(sinks.is_some())..))?;
    product(&weights, v, false)?.flatten(1, 2)
}

/// Multiplies `[B, KV, H / KV, L, …]` with rows, or with their columns.
fn product(x: &Array, rows: &KvRows, transpose: bool) -> Result<Array> {
    match rows.map(|part| part.expand_dims(2))? {
        KvRows::Packed(packed) if x.size() > 0 && packed.weight.size() > 0 => {
            packed.matmul_by_mlx(x, transpose)
        }
        rows => {
            let rows = rows.to_dense(x.dtype())?;
            x.matmul(&if transpose { rows.swapaxes(-1, -2)? } else { rows })
        }
    }
}

/// `[L, S]`: true where a query sees a key, the last one being at the last key.
pub(super) fn causal_mask(l: i32, s: i32, window: Option<i32>) -> Result<Array> {
    let keys = Array::range(s)?;
    let queries = Array::range(l)?.add(s - l)?.at((.., NewAxis))?;
    let mask = queries.greater_equal(&keys)?;
    match window {
        Some(window) => mask.logical_and(queries.less(keys.add(window)?)?),
        None => Ok(mask),
    }
}

#[cfg(test)]
mod tests;
