//! From the projections to attention with a store of keys and values, in one node.

use std::ffi::CStr;

use super::compute::attention::{self as compute, Mask, Order};
use super::compute::heads::{Destination, Heads, Rotation, place};
use super::compute::matmul::Element;
use super::compute::rope::{Positions, fill_table, frequencies};
use super::{Isa, elements, elements_mut, isa_number, options, shared_elements};
use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::fast::{AttentionMask, Offset, RopeOptions};
use crate::ffi::{self, HostInput, HostKernel, HostOutput};
use crate::{fast, nn};

/// The rotation of queries and keys, but for wavelengths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RopeParts {
    pub(crate) dims: i32,
    pub(crate) traditional: bool,
    /// Absent where wavelengths are given.
    pub(crate) base: Option<f32>,
    pub(crate) scale: f32,
    pub(crate) magnitude: f32,
}

/// Numbers of [`nn::CachedAttention`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct CachedAttentionParts {
    pub(crate) n_heads: i32,
    pub(crate) n_kv_heads: i32,
    pub(crate) scale: f32,
    pub(crate) q_eps: Option<f32>,
    pub(crate) k_eps: Option<f32>,
    pub(crate) rope: Option<RopeParts>,
    pub(crate) window: Option<i32>,
    /// Rows that the store has already.
    pub(crate) len: i32,
}

/// Arrays of [`nn::CachedAttention`].
#[derive(Clone, Debug)]
pub(crate) struct CachedAttentionArrays {
    /// `[B, L, H * D]`
    pub(crate) q: Array,
    /// `[B, L, KV * D]`
    pub(crate) k: Array,
    /// `[B, L, KV * DV]`
    pub(crate) v: Array,
    /// `[B, KV, S, D]`
    pub(crate) keys: Array,
    /// `[B, KV, S, DV]`
    pub(crate) values: Array,
    /// `[D]`
    pub(crate) q_norm: Option<Array>,
    /// `[D]`
    pub(crate) k_norm: Option<Array>,
    /// `[dims / 2]`
    pub(crate) wavelengths: Option<Array>,
}

impl CachedAttentionArrays {
    fn inputs(&self) -> Vec<&Array> {
        let CachedAttentionArrays { q, k, v, keys, values, q_norm, k_norm, wavelengths } = self;
        let all = [q, k, v, keys, values].into_iter();
        all.chain(q_norm).chain(k_norm).chain(wavelengths).collect()
    }
}

#[derive(Clone, Copy)]
struct CachedAttention {
    parts: CachedAttentionParts,
    has_wavelengths: bool,
    isa: Isa,
}

impl HostKernel for CachedAttention {
    const NAME: &'static CStr = c"attention";

    fn params(&self) -> Vec<u64> {
        let CachedAttentionParts { n_heads, n_kv_heads, scale, q_eps, k_eps, rope, window, len } =
            self.parts;
        let float = |x: Option<f32>| x.map_or(u64::MAX, |x| x.to_bits().into());
        let mut params = vec![
            n_heads as u64,
            n_kv_heads as u64,
            float(Some(scale)),
            float(q_eps),
            float(k_eps),
            window.map_or(u64::MAX, |window| window as u64),
            len as u64,
            isa_number(self.isa),
        ];
        if let Some(RopeParts { dims, traditional, base, scale, magnitude }) = rope {
            let flags = u64::from(traditional) | u64::from(self.has_wavelengths) << 1;
            params.extend([dims as u64, flags, float(base)]);
            params.extend([float(Some(scale)), float(Some(magnitude))]);
        }
        params
    }

    /// Keys and values: rows from `len` on are written, which are of no meaning before.
    fn appends_to(&self, output: usize) -> Option<usize> {
        [None, Some(3), Some(4)][output]
    }

    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String> {
        match inputs.first().map(|q| q.dtype) {
            Some(Dtype::Float32) => self.compute::<f32>(inputs, outputs),
            Some(Dtype::Float16) => self.compute::<half::f16>(inputs, outputs),
            Some(Dtype::Bfloat16) => self.compute::<half::bf16>(inputs, outputs),
            dtype => Err(format!("no kernel for {dtype:?}")),
        }
    }
}

impl CachedAttention {
    fn compute<T: Element>(
        &self,
        inputs: &[HostInput<'_>],
        outputs: &mut [HostOutput<'_>],
    ) -> Result<(), String> {
        let (Some(([q, k, v, keys, values], mut rest)), [out, k_out, v_out]) =
            (inputs.split_first_chunk(), outputs)
        else {
            return Err(format!("{} inputs", inputs.len()));
        };
        let (&[b, l, _], &[_, kv, s, d], &[.., dv]) = (q.shape, keys.shape, values.shape) else {
            return Err(format!("queries {:?}, keys {:?}", q.shape, keys.shape));
        };
        let [b, l, kv, s, d, dv] = [b, l, kv, s, d, dv].map(|n| n as usize);
        let (h, len) = (self.parts.n_heads as usize, self.parts.len as usize);
        let mut next = |is_there: bool| match (is_there, rest) {
            (false, _) => Ok(None),
            (true, [first, others @ ..]) => {
                rest = others;
                Ok(Some(first))
            }
            (true, []) => Err("too few inputs".to_owned()),
        };
        let mut norm = |eps: Option<f32>| match (eps, next(eps.is_some())?) {
            (Some(eps), Some(weight)) => Ok(Some((elements::<T>(weight.bytes)?, eps))),
            _ => Ok::<_, String>(None),
        };
        let (q_norm, k_norm) = (norm(self.parts.q_eps)?, norm(self.parts.k_eps)?);
        let wavelengths = next(self.has_wavelengths)?;
        let table = self.table(wavelengths, l)?;
        let rotation = self.parts.rope.map(|rope| Rotation {
            table: &table,
            dims: rope.dims as usize,
            traditional: rope.traditional,
        });

        let append = |x, norm, rotation, d, out: &HostOutput<'_>| {
            let out = shared_elements::<T>(out.shared)?;
            let to = Destination { out, start: len * d, strides: [kv * s * d, d, s * d] };
            // SAFETY: MLX's memory of this size; rows from `len` on are of meaning to nobody yet, and
            // tasks of one store run one after the other.
            unsafe { place(self.isa, Heads { x, shape: [b, l, kv, d], norm, rotation }, to) };
            // SAFETY: until this task ends nobody writes any more.
            Ok::<&[T], String>(unsafe { &*out })
        };
        let k_out = append(elements::<T>(k.bytes)?, k_norm, rotation, d, k_out)?;
        let v_out = append(elements::<T>(v.bytes)?, None, None, dv, v_out)?;
        let x = elements::<T>(q.bytes)?;
        let mut queries = vec![T::default(); x.len()];
        let strides = [l * h * d, h * d, d];
        let to = Destination { out: &raw mut queries[..], start: 0, strides };
        // SAFETY: a vector of our own.
        unsafe { place(self.isa, Heads { x, shape: [b, l, h, d], norm: q_norm, rotation }, to) };

        let heads = |data, shape: [usize; 4], strides| {
            compute::Heads::new(data, shape, strides).ok_or("elements outside of the buffer")
        };
        let stored = |data, d| heads(data, [b, kv, len + l, d], [kv * s * d, s * d, d]);
        let window = self.parts.window.map(|window| window as usize);
        let operands = compute::Attention {
            q: heads(&queries, [b, h, l, d], [l * h * d, d, h * d])?,
            k: stored(k_out, d)?,
            v: stored(v_out, dv)?,
            mask: Mask::Causal { window },
            sinks: None,
            scale: self.parts.scale,
            soft_cap: None,
        };
        compute::attention(self.isa, &operands, Order::RowsFirst, elements_mut(out.bytes)?);
        Ok(())
    }

    fn table(&self, wavelengths: Option<&HostInput<'_>>, l: usize) -> Result<Vec<f32>, String> {
        let Some(rope) = self.parts.rope else { return Ok(Vec::new()) };
        let frequencies = match (wavelengths, rope.base) {
            (Some(wavelengths), _) => {
                elements::<f32>(wavelengths.bytes)?.iter().map(|x| x.recip()).collect()
            }
            (None, base) => frequencies(self.isa, base.unwrap_or(1.0), rope.dims as usize / 2),
        };
        let mut table = vec![0.0; l * 2 * frequencies.len()];
        if !table.is_empty() {
            let offset = self.parts.len as f32;
            let positions = Positions { offset, n: l, scale: rope.scale };
            fill_table(self.isa, &frequencies, positions, rope.magnitude, &mut table);
        }
        Ok(table)
    }
}

/// Does what [`nn::CachedAttention`] says; returns attention `[B, L, H * DV]`, keys and values.
///
/// # Errors
/// When shapes and dtypes do not fit.
pub(crate) fn cached_attention(
    parts: CachedAttentionParts,
    arrays: CachedAttentionArrays,
) -> Result<[Array; 3]> {
    check(&parts, &arrays)?;
    if !has_kernel(&parts, &arrays)? {
        return by_ops(&parts, arrays);
    }
    let ([b, l, _], [.., dv]) = (arrays.q.dims()?, arrays.values.dims::<4>()?);
    let kernel = CachedAttention {
        parts,
        has_wavelengths: arrays.wavelengths.is_some(),
        isa: options().isa,
    };
    let fallback = {
        let has = [&arrays.q_norm, &arrays.k_norm, &arrays.wavelengths].map(Option::is_some);
        move |inputs: &[Array]| {
            let mut rest = inputs[5..].iter().cloned();
            let mut next = |is_there: bool| if is_there { rest.next() } else { None };
            let arrays = CachedAttentionArrays {
                q: inputs[0].clone(),
                k: inputs[1].clone(),
                v: inputs[2].clone(),
                keys: inputs[3].clone(),
                values: inputs[4].clone(),
                q_norm: next(has[0]),
                k_norm: next(has[1]),
                wavelengths: next(has[2]),
            };
            Ok(by_ops(&parts, arrays)?.to_vec())
        }
    };
    let (keys_shape, values_shape) = (arrays.keys.shape().to_vec(), arrays.values.shape().to_vec());
    let dtype = arrays.q.dtype();
    let specs = [
        (&[b, l, parts.n_heads * dv][..], dtype),
        (&keys_shape[..], dtype),
        (&values_shape[..], dtype),
    ];
    // The node has the only handles to keys and values from here on.
    let outputs = ffi::host_op(kernel, &arrays.inputs(), &specs, Box::new(fallback))?;
    outputs.try_into().map_err(|_| Error::new(ErrorKind::Runtime, "attention: not three outputs"))
}

fn has_kernel(parts: &CachedAttentionParts, arrays: &CachedAttentionArrays) -> Result<bool> {
    let CachedAttentionArrays { q, k, v, keys, values, q_norm, k_norm, wavelengths } = arrays;
    let dtype = q.dtype();
    let others = [k, v, keys, values].into_iter().chain(q_norm).chain(k_norm);
    let rope_fits = parts.rope.is_none_or(|rope| {
        let has_one = rope.base.is_some() != wavelengths.is_some();
        has_one && rope.dims > 0 && rope.dims % 2 == 0
    });
    let wavelengths_fit = wavelengths.iter().all(|w| w.dtype() == Dtype::Float32);
    Ok(rope_fits
        && wavelengths_fit
        && others.into_iter().all(|array| array.dtype() == dtype)
        && super::are_for(dtype)?)
}

fn check(parts: &CachedAttentionParts, arrays: &CachedAttentionArrays) -> Result<()> {
    let CachedAttentionParts { n_heads: h, n_kv_heads: kv, len, .. } = *parts;
    let CachedAttentionArrays { q, k, v, keys, values, q_norm, k_norm, wavelengths } = arrays;
    let fits = match (q.shape(), keys.shape(), values.shape()) {
        (&[b, l, _], &[_, _, s, d], &[.., dv]) => {
            let norm_fits = |norm: &Option<Array>| norm.iter().all(|w| w.shape() == [d]);
            kv > 0
                && h > 0
                && h % kv == 0
                && d > 0
                && dv > 0
                && q.shape() == [b, l, h.saturating_mul(d)]
                && k.shape() == [b, l, kv.saturating_mul(d)]
                && v.shape() == [b, l, kv.saturating_mul(dv)]
                && keys.shape() == [b, kv, s, d]
                && values.shape() == [b, kv, s, dv]
                && len >= 0
                && len.checked_add(l).is_some_and(|len| len <= s)
                && norm_fits(q_norm)
                && norm_fits(k_norm)
                && parts.window.is_none_or(|window| window > 0)
                && parts.rope.is_none_or(|rope| {
                    (0..=d).contains(&rope.dims)
                        && wavelengths.iter().all(|w| w.shape() == [rope.dims / 2])
                })
        }
        _ => false,
    };
    if fits {
        return Ok(());
    }
    let text = format!(
        "cached attention: queries {q:?}, keys {k:?}, values {v:?} and stores {keys:?}, {values:?} \
         do not fit {parts:?}"
    );
    Err(Error::new(ErrorKind::InvalidArgument, text))
}

/// Does as the kernel, by ops.
fn by_ops(parts: &CachedAttentionParts, arrays: CachedAttentionArrays) -> Result<[Array; 3]> {
    let CachedAttentionArrays { q, k, v, keys, values, q_norm, k_norm, wavelengths } = arrays;
    let CachedAttentionParts { n_heads, n_kv_heads, len, .. } = *parts;
    let [b, l, _] = q.dims()?;
    let heads = |x: &Array, n: i32, norm: Option<(&Array, f32)>| {
        let x = x.reshape([b, l, n, -1])?;
        let x = match norm {
            Some((weight, eps)) => fast::rms_norm(&x, Some(weight), eps)?,
            None => x,
        };
        x.transpose([0, 2, 1, 3])
    };
    let rotated = |x: Array| match parts.rope {
        Some(RopeParts { dims, traditional, base, scale, magnitude }) => {
            let freqs = wavelengths.as_ref();
            let options = RopeOptions { dims, traditional, base, scale, freqs };
            nn::rotate(&x, options, Offset::Int(len), magnitude)
        }
        None => Ok(x),
    };
    let q = rotated(heads(&q, n_heads, q_norm.as_ref().zip(parts.q_eps))?)?;
    let k = rotated(heads(&k, n_kv_heads, k_norm.as_ref().zip(parts.k_eps))?)?;
    let v = heads(&v, n_kv_heads, None)?;
    let append = |store: Array, rows: &Array| {
        let mut stop = rows.shape().to_vec();
        stop[2] += len;
        store.slice_update(rows, &[0, 0, len, 0], &stop, &[1; 4])
    };
    let (keys, values) = (append(keys, &k)?, append(values, &v)?);
    let seen = |store: &Array| store.at((.., .., ..len + l));
    let window = match parts.window {
        Some(window) => Some(super::attention::causal_mask(l, len + l, Some(window))?),
        None => None,
    };
    let mask = match &window {
        Some(window) => AttentionMask::Array(window),
        None if l == 1 => AttentionMask::None,
        None => AttentionMask::Causal,
    };
    let out = nn::attention(&q, &seen(&keys)?, &seen(&values)?, parts.scale, mask)?;
    Ok([out, keys, values])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{self, Closeness};
    use crate::transforms::{compile, grad_once};
    use crate::{Device, random, with_device};

    const PARTS: CachedAttentionParts = CachedAttentionParts {
        n_heads: 6,
        n_kv_heads: 2,
        scale: 0.3,
        q_eps: None,
        k_eps: None,
        rope: None,
        window: None,
        len: 0,
    };

    fn normal(shape: &[i32], dtype: Dtype, seed: u64) -> Result<Array> {
        random::normal(shape, Dtype::Float32, 0.0, 1.0, Some(&random::key(seed)?))?.astype(dtype)
    }

    fn arrays(b: i32, l: i32, dtype: Dtype) -> Result<CachedAttentionArrays> {
        Ok(CachedAttentionArrays {
            q: normal(&[b, l, 6 * 16], dtype, 1)?,
            k: normal(&[b, l, 2 * 16], dtype, 2)?,
            v: normal(&[b, l, 2 * 8], dtype, 3)?,
            keys: normal(&[b, 2, 40, 16], dtype, 4)?,
            values: normal(&[b, 2, 40, 8], dtype, 5)?,
            q_norm: None,
            k_norm: None,
            wavelengths: None,
        })
    }

    fn check_close(a: &Array, b: &Array, rtol: f64) -> Result<()> {
        assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()));
        let bounds = Closeness { rtol, atol: rtol, equal_nan: false };
        assert!(a.allclose(b, bounds)?.item::<bool>()?, "{a}\n{b}");
        Ok(())
    }

    #[test]
    fn agrees_with_ops() -> Result<()> {
        let rope =
            RopeParts { dims: 12, traditional: false, base: Some(1e4), scale: 1.0, magnitude: 1.0 };
        let stretched = RopeParts { base: None, magnitude: 1.3, traditional: true, ..rope };
        with_device(Device::Cpu, || {
            for (dtype, rtol) in
                [(Dtype::Float32, 1e-5), (Dtype::Float16, 4e-3), (Dtype::Bfloat16, 4e-2)]
            {
                for (b, l, len) in [(1, 1, 0), (1, 1, 17), (2, 5, 0), (3, 7, 33), (2, 1, 39)] {
                    for (rope, eps, window) in [
                        (None, None, None),
                        (Some(rope), None, Some(4)),
                        (Some(stretched), Some(1e-5), None),
                    ] {
                        let mut arrays = arrays(b, l, dtype)?;
                        if eps.is_some() {
                            arrays.q_norm = Some(normal(&[16], dtype, 6)?);
                            arrays.k_norm = Some(normal(&[16], dtype, 7)?);
                        }
                        if rope.is_some_and(|rope| rope.base.is_none()) {
                            arrays.wavelengths = Some(ops::full(&[6], 9.0, Dtype::Float32)?);
                        }
                        let parts = CachedAttentionParts {
                            q_eps: eps,
                            k_eps: eps,
                            rope,
                            window,
                            len,
                            ..PARTS
                        };
                        assert!(has_kernel(&parts, &arrays)?);
                        let expected = by_ops(&parts, arrays.clone())?;
                        for (a, b) in cached_attention(parts, arrays)?.iter().zip(&expected) {
                            check_close(a, b, rtol)?;
                        }
                    }
                }
            }
            Ok(())
        })
    }

    #[test]
    fn rows_are_written_where_the_store_lies() -> Result<()> {
        with_device(Device::Cpu, || {
            let address = |x: &Array| x.with_bytes(|bytes| bytes.as_ptr() as usize);
            let step = |keys: Array, values: Array, len: i32| -> Result<[Array; 2]> {
                let arrays =
                    CachedAttentionArrays { keys, values, ..arrays(1, 1, Dtype::Float32)? };
                let parts = CachedAttentionParts { len, ..PARTS };
                let [out, keys, values] = cached_attention(parts, arrays)?;
                out.eval()?;
                Ok([keys, values])
            };
            let arrays = arrays(1, 1, Dtype::Float32)?;
            let given = arrays.keys.copy()?;
            crate::eval([&given, &arrays.keys])?;
            // The first time into memory of its own, for what was given may be anyone's.
            let [keys, values] = step(arrays.keys.clone(), arrays.values.clone(), 3)?;
            assert_ne!(address(&keys)?, address(&arrays.keys)?);
            check_close(&arrays.keys, &given, 0.0)?;
            let first = address(&keys)?;
            let [keys, values] = step(keys, values, 4)?;
            assert_eq!(address(&keys)?, first);
            // A handle that stays, and a view, which knows nothing of the last rows, make it a copy.
            let kept = keys.clone();
            let [keys, values] = step(keys, values, 5)?;
            assert_ne!(address(&keys)?, first);
            drop(kept);
            let second = address(&keys)?;
            let view = keys.reshape([2, 640])?.reshape([1, 2, 40, 16])?;
            view.eval()?;
            let [keys, values] = step(keys, values, 6)?;
            assert_eq!(address(&keys)?, second);
            let [other, _] = step(view, values, 6)?;
            assert_ne!(address(&other)?, second);
            Ok(())
        })
    }

    #[test]
    fn transforms_see_what_ops_compute() -> Result<()> {
        with_device(Device::Cpu, || {
            let arrays = arrays(2, 3, Dtype::Float32)?;
            // Compiled, they would be other random numbers.
            crate::eval(arrays.inputs())?;
            let parts = CachedAttentionParts { len: 4, ..PARTS };
            let inputs = [arrays.q.clone(), arrays.k.clone(), arrays.v.clone()];
            let with = {
                let arrays = arrays.clone();
                move |x: &[Array]| CachedAttentionArrays {
                    q: x[0].clone(),
                    k: x[1].clone(),
                    v: x[2].clone(),
                    ..arrays.clone()
                }
            };
            let ours = {
                let with = with.clone();
                move |x: &[Array]| Ok(cached_attention(parts, with(x))?.to_vec())
            };
            let expected = by_ops(&parts, arrays)?;
            let compiled = compile(ours.clone(), false)?;
            for _ in 0..2 {
                for (a, b) in compiled.call(&inputs)?.iter().zip(&expected) {
                    check_close(a, b, 1e-5)?;
                }
            }
            let ours = |x: &[Array]| Ok(vec![ours(x)?[0].square()?.sum(.., false)?]);
            let theirs =
                |x: &[Array]| Ok(vec![by_ops(&parts, with(x))?[0].square()?.sum(.., false)?]);
            for i in 0..3 {
                let (a, b) = (grad_once(ours, &inputs, i)?, grad_once(theirs, &inputs, i)?);
                check_close(&a[0], &b[0], 1e-5)?;
            }
            Ok(())
        })
    }

    #[test]
    fn what_does_not_fit_is_refused() -> Result<()> {
        with_device(Device::Cpu, || {
            let arrays = arrays(1, 2, Dtype::Float32)?;
            let parts = |change: fn(&mut CachedAttentionParts)| {
                let mut parts = PARTS;
                change(&mut parts);
                parts
            };
            for parts in [
                parts(|p| p.len = 39),
                parts(|p| p.len = -1),
                parts(|p| p.len = i32::MAX),
                parts(|p| p.n_heads = 5),
                parts(|p| p.n_kv_heads = 0),
                parts(|p| p.window = Some(0)),
            ] {
                let error = cached_attention(parts, arrays.clone()).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{parts:?}");
            }
            assert!(cached_attention(PARTS, arrays).is_ok());
            Ok(())
        })
    }
}
