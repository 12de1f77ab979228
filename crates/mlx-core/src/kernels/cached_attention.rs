//! From the projections to attention with a store of keys and values, in one node.

use std::ffi::CStr;
use std::ops::Range;

use super::attention::{Laid, broadcast_mask, mask_fits};
use super::compute::attention::{self as compute, Mask, Order, PackedHeads, Rows};
use super::compute::heads::{Destination, Heads, Rotation, place};
use super::compute::matmul::Element;
use super::compute::packed_rows::{PackedFormat, PackedParts, PackedStore, pack};
use super::compute::rope::{Positions, fill_table, frequencies};
use super::{Isa, elements, elements_mut, isa_number, options, shared_elements};
use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{self, HostInput, HostKernel, HostOutput};
use crate::nn::KvRows;
use crate::ops::Packed;
use crate::quantization::Quantization;

mod by_ops;
#[cfg(test)]
mod tests;

use by_ops::by_ops;

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

/// Numbers of [`nn::CachedAttention`](crate::nn::CachedAttention).
#[derive(Clone, Copy, Debug)]
pub(crate) struct CachedAttentionParts {
    pub(crate) n_heads: i32,
    pub(crate) n_kv_heads: i32,
    pub(crate) scale: f32,
    pub(crate) q_eps: Option<f32>,
    pub(crate) k_eps: Option<f32>,
    pub(crate) rope: Option<RopeParts>,
    pub(crate) window: Option<i32>,
    pub(crate) soft_cap: Option<f32>,
    /// Rows that the store has already.
    pub(crate) len: i32,
    /// The position of the first new token.
    pub(crate) offset: i32,
    /// The first of the store's rows that are passed over, and the one behind the last.
    pub(crate) skipped: [i32; 2],
}

impl CachedAttentionParts {
    /// Returns how many keys there are once `l` rows are added.
    fn n_keys(&self, l: i32) -> i32 {
        self.len + l - (self.skipped[1] - self.skipped[0])
    }
}

/// Arrays of [`nn::CachedAttention`](crate::nn::CachedAttention).
#[derive(Clone, Debug)]
pub(crate) struct CachedAttentionArrays {
    /// `[B, L, H * D]`
    pub(crate) q: Array,
    /// `[B, L, KV * D]`
    pub(crate) k: Array,
    /// `[B, L, KV * DV]`
    pub(crate) v: Array,
    /// `[B, KV, S, D]`
    pub(crate) keys: KvRows,
    /// `[B, KV, S, DV]`
    pub(crate) values: KvRows,
    /// `[D]`
    pub(crate) q_norm: Option<Array>,
    /// `[D]`
    pub(crate) k_norm: Option<Array>,
    /// `[dims / 2]`
    pub(crate) wavelengths: Option<Array>,
    /// `[H]`
    pub(crate) sinks: Option<Array>,
    /// Broadcasts to `[B, H, L, S]`, of the rows that are not passed over.
    pub(crate) mask: Option<Array>,
}

impl CachedAttentionArrays {
    fn inputs(&self) -> Vec<&Array> {
        let CachedAttentionArrays { q, k, v, keys, values, .. } = self;
        let CachedAttentionArrays { q_norm, k_norm, wavelengths, sinks, mask, .. } = self;
        let all = [q, k, v].into_iter().chain(keys.parts()).chain(values.parts());
        all.chain(q_norm).chain(k_norm).chain(wavelengths).chain(sinks).chain(mask).collect()
    }
}

/// Which arrays there are, without a handle to any: with one the node would never be the only one to
/// have keys and values.
struct Pattern {
    keys: Option<Quantization>,
    values: Option<Quantization>,
    has: [bool; 5],
}

impl Pattern {
    fn of(arrays: &CachedAttentionArrays) -> Pattern {
        let CachedAttentionArrays { q_norm, k_norm, wavelengths, sinks, mask, .. } = arrays;
        Pattern {
            keys: arrays.keys.quantization(),
            values: arrays.values.quantization(),
            has: [q_norm, k_norm, wavelengths, sinks, mask].map(Option::is_some),
        }
    }

    /// Returns arrays in the order of [`CachedAttentionArrays::inputs`] under their names.
    fn arrays(&self, inputs: &[Array]) -> Result<CachedAttentionArrays> {
        let mut inputs = inputs.iter().cloned();
        let mut next = || {
            inputs.next().ok_or_else(|| Error::new(ErrorKind::Runtime, "attention: too few inputs"))
        };
        let (q, k, v) = (next()?, next()?, next()?);
        let mut rows = |quantization: Option<Quantization>| match quantization {
            None => Ok(KvRows::Dense(next()?)),
            Some(quantization) => Ok::<_, Error>(KvRows::Packed(Packed {
                weight: next()?,
                scales: next()?,
                biases: Some(next()?),
                quantization,
            })),
        };
        let (keys, values) = (rows(self.keys)?, rows(self.values)?);
        let mut next = |i: usize| self.has[i].then(&mut next).transpose();
        Ok(CachedAttentionArrays {
            q,
            k,
            v,
            keys,
            values,
            q_norm: next(0)?,
            k_norm: next(1)?,
            wavelengths: next(2)?,
            sinks: next(3)?,
            mask: next(4)?,
        })
    }
}

#[derive(Clone, Copy)]
struct CachedAttention {
    parts: CachedAttentionParts,
    format: Option<PackedFormat>,
    has_wavelengths: bool,
    has_sinks: bool,
    /// Which input is the mask.
    mask: Option<usize>,
    isa: Isa,
}

impl HostKernel for CachedAttention {
    const NAME: &'static CStr = c"attention";

    fn params(&self) -> Vec<u64> {
        let CachedAttentionParts { n_heads, n_kv_heads, scale, q_eps, k_eps, rope, .. } =
            self.parts;
        let CachedAttentionParts { window, soft_cap, len, offset, skipped, .. } = self.parts;
        let float = |x: Option<f32>| x.map_or(u64::MAX, |x| x.to_bits().into());
        let mut params = vec![
            n_heads as u64,
            n_kv_heads as u64,
            float(Some(scale)),
            float(q_eps),
            float(k_eps),
            window.map_or(u64::MAX, |window| window as u64),
            float(soft_cap),
            len as u64,
            offset as u64,
            skipped[0] as u64,
            skipped[1] as u64,
            self.format.map_or(0, PackedFormat::number),
            self.has_sinks.into(),
            self.mask.map_or(0, |mask| mask as u64),
            isa_number(self.isa),
        ];
        if let Some(RopeParts { dims, traditional, base, scale, magnitude }) = rope {
            let flags = u64::from(traditional) | u64::from(self.has_wavelengths) << 1;
            params.extend([dims as u64, flags, float(base)]);
            params.extend([float(Some(scale)), float(Some(magnitude))]);
        }
        params
    }

    fn takes_strided(&self, input: usize) -> bool {
        self.mask == Some(input)
    }

    /// Keys and values: rows from `len` on are written, which are of no meaning before.
    fn appends_to(&self, output: usize) -> Option<usize> {
        (output > 0).then_some(output + 2)
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
    /// How many arrays keys consist of, and values.
    fn n_parts(&self) -> usize {
        if self.format.is_some() { 3 } else { 1 }
    }

    fn compute<T: Element>(
        &self,
        inputs: &[HostInput<'_>],
        outputs: &mut [HostOutput<'_>],
    ) -> Result<(), String> {
        let n_parts = self.n_parts();
        let (Some(([q, k, v], rest)), Some((out, stores))) =
            (inputs.split_first_chunk(), outputs.split_first_mut())
        else {
            return Err(format!("{} inputs", inputs.len()));
        };
        if rest.len() < 2 * n_parts || stores.len() != 2 * n_parts {
            return Err(format!("{} inputs, {} outputs", inputs.len(), 1 + stores.len()));
        }
        let (keys, values) = stores.split_at(n_parts);
        let mut rest = rest[2 * n_parts..].iter();
        let mut next = |is_there: bool| match is_there {
            true => rest.next().map(Some).ok_or_else(|| "too few inputs".to_owned()),
            false => Ok(None),
        };
        let (&[b, l, e], &[.., e_v], &[_, kv, s, _]) = (q.shape, v.shape, keys[0].shape) else {
            return Err(format!("queries {:?}, values {:?}", q.shape, v.shape));
        };
        let [b, l, kv, s] = [b, l, kv, s].map(|n| n as usize);
        let (h, len) = (self.parts.n_heads as usize, self.parts.len as usize);
        let (d, dv) = (e as usize / h, e_v as usize / kv);
        let mut norm = |eps: Option<f32>| match (eps, next(eps.is_some())?) {
            (Some(eps), Some(weight)) => Ok(Some((elements::<T>(weight.bytes)?, eps))),
            _ => Ok::<_, String>(None),
        };
        let (q_norm, k_norm) = (norm(self.parts.q_eps)?, norm(self.parts.k_eps)?);
        let wavelengths = next(self.has_wavelengths)?;
        let sinks = next(self.has_sinks)?;
        let mask = next(self.mask.is_some())?;
        let table = self.table(wavelengths, l)?;
        let rotation = self.parts.rope.map(|rope| Rotation {
            table: &table,
            dims: rope.dims as usize,
            traditional: rope.traditional,
        });

        let new = |x, norm, rotation, d| Heads { x, shape: [b, l, kv, d], norm, rotation };
        let store = Store { len, capacity: s, skipped: self.parts.skipped };
        let k = self.append(new(elements::<T>(k.bytes)?, k_norm, rotation, d), &store, keys)?;
        let v = self.append(new(elements::<T>(v.bytes)?, None, None, dv), &store, values)?;
        let x = elements::<T>(q.bytes)?;
        let mut queries = vec![T::default(); x.len()];
        let strides = [l * h * d, h * d, d];
        let to = Destination { out: &raw mut queries[..], start: 0, strides };
        // SAFETY: a vector of our own.
        unsafe { place(self.isa, Heads { x, shape: [b, l, h, d], norm: q_norm, rotation }, to) };

        let (seen, added) = match mask {
            Some(mask) if mask.dtype == Dtype::Bool => (Some(Laid::any(mask.bytes, mask)?), None),
            Some(mask) => (None, Some(Laid::any(elements::<T>(mask.bytes)?, mask)?)),
            None => (None, None),
        };
        let mask = match (&seen, &added) {
            (Some(seen), _) => Mask::Bool(seen.mask()?),
            (_, Some(added)) => Mask::Additive(added.mask()?),
            _ => Mask::Causal { window: self.parts.window.map(|window| window as usize) },
        };
        let q = compute::Heads::new(&queries, [b, h, l, d], [l * h * d, d, h * d]);
        let operands = compute::Attention {
            q: q.ok_or(OUTSIDE)?,
            k,
            v,
            mask,
            sinks: sinks.map(|sinks| elements(sinks.bytes)).transpose()?,
            scale: self.parts.scale,
            soft_cap: self.parts.soft_cap,
        };
        compute::attention(self.isa, &operands, Order::RowsFirst, elements_mut(out.bytes)?);
        Ok(())
    }

    /// Writes rows `[B, L, KV, D]` behind the store's, and returns all that are not passed over.
    fn append<'a, T: Element>(
        &self,
        rows: Heads<'_, T>,
        store: &Store,
        parts: &'a [HostOutput<'_>],
    ) -> Result<Rows<'a, T>, String> {
        let ([b, l, kv, d], &Store { len, capacity, .. }) = (rows.shape, store);
        let shape = [b, kv, len + l, d];
        match (self.format, parts) {
            (None, [out]) => {
                let out = shared_elements::<T>(out.shared)?;
                let strides = [kv * capacity * d, d, capacity * d];
                let to = Destination { out, start: len * d, strides };
                // SAFETY: MLX's memory of this size; rows from `len` on are of meaning to nobody yet,
                // and tasks of one store run one after the other.
                unsafe { place(self.isa, rows, to) };
                // SAFETY: until this task ends nobody writes any more.
                let data: &'a [T] = unsafe { &*out };
                let heads = compute::Heads::new(data, shape, [kv * capacity * d, capacity * d, d]);
                let heads = heads.and_then(|heads| heads.without(store.skipped()));
                Ok(Rows::Dense(heads.ok_or(OUTSIDE)?))
            }
            (Some(format), [weight, scales, biases]) => {
                let mut x = vec![T::default(); rows.x.len()];
                let strides = [kv * l * d, d, l * d];
                let to = Destination { out: &raw mut x[..], start: 0, strides };
                // SAFETY: a vector of our own.
                unsafe { place(self.isa, rows, to) };
                let [scales, biases] =
                    [shared_elements::<T>(scales.shared)?, shared_elements::<T>(biases.shared)?];
                let to = PackedStore { weight: weight.shared, scales, biases, format, capacity };
                // SAFETY: as above, of each of the three.
                unsafe { pack(self.isa, &x, [b * kv, l, d], len, &to) };
                // SAFETY: until this task ends nobody writes any more.
                let parts = unsafe {
                    PackedParts {
                        weight: &*to.weight,
                        scales: &*to.scales,
                        biases: &*to.biases,
                        format,
                    }
                };
                let heads = PackedHeads::new(parts, shape, capacity);
                let heads = heads.and_then(|heads| heads.without(store.skipped()));
                Ok(Rows::Packed(heads.ok_or(OUTSIDE)?))
            }
            _ => Err(format!("{} parts of a store", parts.len())),
        }
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
            let offset = self.parts.offset as f32;
            let positions = Positions { offset, n: l, scale: rope.scale };
            fill_table(self.isa, &frequencies, positions, rope.magnitude, &mut table);
        }
        Ok(table)
    }
}

const OUTSIDE: &str = "rows outside of the store";

/// Where the rows of a store are.
struct Store {
    len: usize,
    capacity: usize,
    skipped: [i32; 2],
}

impl Store {
    fn skipped(&self) -> Range<usize> {
        self.skipped[0] as usize..self.skipped[1] as usize
    }
}

/// Does what [`nn::CachedAttention`](crate::nn::CachedAttention) says; returns attention
/// `[B, L, H * DV]`, keys and values.
///
/// # Errors
/// When shapes and dtypes do not fit.
pub(crate) fn cached_attention(
    parts: CachedAttentionParts,
    mut arrays: CachedAttentionArrays,
) -> Result<(Array, KvRows, KvRows)> {
    check(&parts, &arrays)?;
    if !has_kernel(&parts, &arrays)? {
        return by_ops(&parts, arrays);
    }
    let ([b, l, _], [.., dv], dtype) = (arrays.q.dims()?, arrays.values.dims()?, arrays.q.dtype());
    if let Some(mask) = &mut arrays.mask {
        *mask = broadcast_mask(mask, [b, parts.n_heads, l, parts.n_keys(l)], dtype)?;
    }
    let inputs = arrays.inputs();
    let kernel = CachedAttention {
        parts,
        format: packed_format(&arrays.keys),
        has_wavelengths: arrays.wavelengths.is_some(),
        has_sinks: arrays.sinks.is_some(),
        mask: arrays.mask.as_ref().map(|_| inputs.len() - 1),
        isa: options().isa,
    };
    let out_shape = [b, l, parts.n_heads * dv];
    let stores: Vec<(Vec<i32>, Dtype)> = [&arrays.keys, &arrays.values]
        .into_iter()
        .flat_map(|rows| rows.parts())
        .map(|part| (part.shape().to_vec(), part.dtype()))
        .collect();
    let mut specs = vec![(&out_shape[..], dtype)];
    specs.extend(stores.iter().map(|(shape, dtype)| (&shape[..], *dtype)));
    let fallback = {
        let pattern = Pattern::of(&arrays);
        move |inputs: &[Array]| {
            let (out, keys, values) = by_ops(&parts, pattern.arrays(inputs)?)?;
            Ok([&out].into_iter().chain(keys.parts()).chain(values.parts()).cloned().collect())
        }
    };
    // The node has the only handles to keys and values from here on.
    let outputs = ffi::host_op(kernel, &inputs, &specs, Box::new(fallback))?;
    let mut outputs = outputs.into_iter();
    let mut next = || {
        outputs.next().ok_or_else(|| Error::new(ErrorKind::Runtime, "attention: too few outputs"))
    };
    Ok((next()?, arrays.keys.map_into(|_| next())?, arrays.values.map_into(|_| next())?))
}

/// Returns the format that the kernel reads rows in; none where they are dense, or of another.
fn packed_format(rows: &KvRows) -> Option<PackedFormat> {
    rows.quantization().and_then(|q| PackedFormat::new(q.bits, q.group_size))
}

fn has_kernel(parts: &CachedAttentionParts, arrays: &CachedAttentionArrays) -> Result<bool> {
    let CachedAttentionArrays { q, k, v, keys, values, .. } = arrays;
    let CachedAttentionArrays { q_norm, k_norm, wavelengths, sinks, .. } = arrays;
    let dtype = q.dtype();
    let rows_fit = [keys, values].into_iter().all(|rows| match rows {
        KvRows::Dense(rows) => rows.dtype() == dtype,
        KvRows::Packed(packed) => {
            let mut factors = [&packed.scales].into_iter().chain(&packed.biases);
            packed_format(rows).is_some() && factors.all(|x| x.dtype() == dtype)
        }
    });
    let others = [k, v].into_iter().chain(q_norm).chain(k_norm).chain(sinks);
    let rope_fits = parts.rope.is_none_or(|rope| {
        let has_one = rope.base.is_some() != wavelengths.is_some();
        has_one && rope.dims > 0 && rope.dims % 2 == 0
    });
    let wavelengths_fit = wavelengths.iter().all(|w| w.dtype() == Dtype::Float32);
    Ok(rope_fits
        && rows_fit
        && keys.quantization() == values.quantization()
        && wavelengths_fit
        && others.into_iter().all(|array| array.dtype() == dtype)
        && super::are_for(dtype)?)
}

fn check(parts: &CachedAttentionParts, arrays: &CachedAttentionArrays) -> Result<()> {
    let CachedAttentionParts { n_heads: h, n_kv_heads: kv, len, offset, skipped, .. } = *parts;
    let CachedAttentionArrays { q, k, v, keys, values, .. } = arrays;
    let CachedAttentionArrays { q_norm, k_norm, wavelengths, sinks, mask, .. } = arrays;
    let fits = match (q.shape(), keys.dims(), values.dims()) {
        (&[b, l, _], Ok([k_b, k_kv, s, d]), Ok([v_b, v_kv, v_s, dv])) => {
            let norm_fits = |norm: &Option<Array>| norm.iter().all(|w| w.shape() == [d]);
            let rows_fit = len >= 0
                && offset.checked_add(l).is_some_and(|_| offset >= 0)
                && len.checked_add(l).is_some_and(|len| len <= s)
                && 0 <= skipped[0]
                && skipped[0] <= skipped[1]
                && skipped[1] <= len;
            kv > 0
                && h > 0
                && h % kv == 0
                && d > 0
                && dv > 0
                && q.shape() == [b, l, h.saturating_mul(d)]
                && k.shape() == [b, l, kv.saturating_mul(d)]
                && v.shape() == [b, l, kv.saturating_mul(dv)]
                && (k_b, k_kv, v_b, v_kv, v_s) == (b, kv, b, kv, s)
                && rows_fit
                && norm_fits(q_norm)
                && norm_fits(k_norm)
                && sinks.iter().all(|sinks| sinks.shape() == [h])
                && mask.iter().all(|mask| {
                    parts.window.is_none() && mask_fits(mask, [b, h, l, parts.n_keys(l)], q.dtype())
                })
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
