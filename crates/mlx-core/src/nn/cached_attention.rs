//! Attention with a store of keys and values.

use std::ops::Range;

use super::{RmsNorm, Rope};
use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::{self, CachedAttentionArrays, CachedAttentionParts, RopeParts};
use crate::ops::{self, Packed};
use crate::quantization::{QuantMode, Quantization};

/// Keys or values of all heads, `[B, KV, S, D]`.
#[derive(Clone, Debug)]
pub enum KvRows {
    /// As they are.
    Dense(Array),
    /// In groups along each row, in affine mode.
    Packed(Packed),
}

impl KvRows {
    /// Makes rows of zeros, packed if a format is given.
    ///
    /// # Errors
    /// When a size is negative, the format is not affine, or a row is not of whole groups.
    pub fn zeros(
        shape: [i32; 4],
        dtype: Dtype,
        quantization: Option<Quantization>,
    ) -> Result<KvRows> {
        let Some(quantization) = quantization else {
            return Ok(KvRows::Dense(ops::zeros(&shape, dtype)?));
        };
        let [b, n, s, d] = shape;
        let Quantization { group_size, bits, .. } = quantization;
        check_packs(d, quantization)?;
        let factors = || ops::zeros(&[b, n, s, d / group_size], dtype);
        Ok(KvRows::Packed(Packed {
            weight: ops::zeros(&[b, n, s, d / 32 * bits], Dtype::Uint32)?,
            scales: factors()?,
            biases: Some(factors()?),
            quantization,
        }))
    }

    /// Packs rows.
    ///
    /// # Errors
    /// When the format is not affine, or a row is not of whole groups.
    pub fn pack(rows: &Array, quantization: Quantization) -> Result<KvRows> {
        check_packs(rows.dim(-1)?, quantization)?;
        Ok(KvRows::Packed(ops::quantize(rows, quantization)?))
    }

    /// Returns rows of this dtype, unpacked where they are packed.
    ///
    /// # Errors
    /// When the parts do not fit each other.
    pub fn to_dense(&self, dtype: Dtype) -> Result<Array> {
        match self {
            KvRows::Dense(rows) => rows.astype(dtype),
            KvRows::Packed(packed) => packed.dequantize(dtype),
        }
    }

    /// Returns the arrays that they consist of, all with as many rows.
    pub fn parts(&self) -> Vec<&Array> {
        match self {
            KvRows::Dense(rows) => vec![rows],
            KvRows::Packed(Packed { weight, scales, biases, .. }) => {
                [weight, scales].into_iter().chain(biases).collect()
            }
        }
    }

    /// Does something to each of the arrays, and drops the handle to it first.
    ///
    /// # Errors
    /// As `f`.
    pub fn map_into(self, mut f: impl FnMut(Array) -> Result<Array>) -> Result<KvRows> {
        Ok(match self {
            KvRows::Dense(rows) => KvRows::Dense(f(rows)?),
            KvRows::Packed(Packed { weight, scales, biases, quantization }) => {
                KvRows::Packed(Packed {
                    weight: f(weight)?,
                    scales: f(scales)?,
                    biases: biases.map(f).transpose()?,
                    quantization,
                })
            }
        })
    }

    /// Does something to each of the arrays.
    ///
    /// # Errors
    /// As `f`.
    pub fn map(&self, mut f: impl FnMut(&Array) -> Result<Array>) -> Result<KvRows> {
        self.clone().map_into(|part| f(&part))
    }

    /// Writes packed or dense rows like these behind the first `len`. What lies there is of no meaning,
    /// so on a CPU the memory is reused if there is no other handle to the arrays, whoever looks at views
    /// of the first rows meanwhile.
    ///
    /// # Errors
    /// When the two are not alike, or there is no room.
    pub fn append(self, rows: &KvRows, len: i32) -> Result<KvRows> {
        let mut parts = rows.parts().into_iter();
        self.map_into(|store| {
            let Some(rows) = parts.next() else {
                return Err(Error::new(ErrorKind::InvalidArgument, "keys and values: not alike"));
            };
            match kernels::has_append(&store, rows, len)? {
                true => kernels::append(store, rows, len, update_rows),
                false => update_rows(&store, rows, len),
            }
        })
    }

    /// Returns the format, if they are packed.
    pub fn quantization(&self) -> Option<Quantization> {
        match self {
            KvRows::Dense(_) => None,
            KvRows::Packed(packed) => Some(packed.quantization),
        }
    }

    /// Returns the sizes `[B, KV, S, D]`.
    ///
    /// # Errors
    /// When there are not four axes, or the parts do not fit each other.
    pub fn dims(&self) -> Result<[i32; 4]> {
        let Packed { weight, scales, biases, quantization } = match self {
            KvRows::Dense(rows) => return rows.dims(),
            KvRows::Packed(packed) => packed,
        };
        let [b, n, s, n_groups] = scales.dims()?;
        quantization.check()?;
        let d = n_groups.saturating_mul(quantization.group_size);
        let bits = i64::from(d) * i64::from(quantization.bits);
        let fits = quantization.mode == QuantMode::Affine
            && biases.as_ref().is_some_and(|biases| biases.shape() == scales.shape())
            && weight.dims::<4>()? == [b, n, s, (bits / 32) as i32]
            && bits % 32 == 0
            && weight.dtype() == Dtype::Uint32;
        if fits {
            return Ok([b, n, s, d]);
        }
        let text = format!("keys and values: {self:?} do not fit each other");
        Err(Error::new(ErrorKind::InvalidArgument, text))
    }
}

/// Returns the store with rows in it from row `at` on.
fn update_rows(store: &Array, rows: &Array, at: i32) -> Result<Array> {
    let mut stop = rows.shape().to_vec();
    if let Some(stop) = stop.get_mut(2) {
        *stop = stop.saturating_add(at);
    }
    store.slice_update(rows, &[0, 0, at, 0], &stop, &[1; 4])
}

/// Fails unless rows of `d` elements are whole groups of an affine format, and whole words.
fn check_packs(d: i32, quantization: Quantization) -> Result<()> {
    quantization.check()?;
    let Quantization { group_size, mode, .. } = quantization;
    if mode == QuantMode::Affine && d % group_size == 0 {
        return Ok(());
    }
    let text = format!("keys and values: rows of {d} cannot be {quantization}");
    Err(Error::new(ErrorKind::InvalidArgument, text))
}

/// Keys and values of the tokens seen so far, with room for more.
#[derive(Clone, Debug)]
pub struct KvStore {
    /// `[B, KV, S, D]`, rows from `len` on are of no meaning.
    pub keys: KvRows,
    /// `[B, KV, S, DV]`
    pub values: KvRows,
    /// How many rows there are.
    pub len: i32,
    /// The position of the next token: `len`, unless rows were dropped.
    pub offset: i32,
    /// Rows of tokens that are no longer seen.
    pub skipped: Range<i32>,
}

impl KvStore {
    /// Takes room for rows, with none in it yet.
    pub fn new(keys: KvRows, values: KvRows) -> KvStore {
        KvStore { keys, values, len: 0, offset: 0, skipped: 0..0 }
    }
}

/// What happens to heads between the projections and the output projection: norms, rotation, and
/// attention to all tokens so far, each seeing itself and those before it.
#[derive(Clone, Copy, Debug)]
pub struct CachedAttention<'a> {
    /// Number of query heads.
    pub n_heads: i32,
    /// Number of key and value heads; divides `n_heads`.
    pub n_kv_heads: i32,
    /// Factor on the scores.
    pub scale: f32,
    /// The norm of each query head.
    pub q_norm: Option<&'a RmsNorm>,
    /// The norm of each key head.
    pub k_norm: Option<&'a RmsNorm>,
    /// The rotation of queries and keys.
    pub rope: Option<&'a Rope>,
    /// How many tokens up to itself a token sees; all where it is absent.
    pub window: Option<i32>,
    /// What is seen instead of tokens up to itself: true where it is, or something added to scores.
    /// Broadcasts to `[B, H, L, S]`, where `S` is the store's rows with new ones and without those
    /// skipped. There is no window then.
    pub mask: Option<&'a Array>,
    /// `[H]`, of the queries' dtype: a score for each head that has no value (gpt-oss).
    pub sinks: Option<&'a Array>,
    /// Scores become `cap * tanh(score / cap)`, before any mask (Gemma 2).
    pub soft_cap: Option<f32>,
}

impl CachedAttention<'_> {
    /// Plain attention of so many query heads, and key and value heads.
    pub const fn new(n_heads: i32, n_kv_heads: i32, scale: f32) -> Self {
        CachedAttention {
            n_heads,
            n_kv_heads,
            scale,
            q_norm: None,
            k_norm: None,
            rope: None,
            window: None,
            mask: None,
            sinks: None,
            soft_cap: None,
        }
    }

    /// Writes keys and values of `L` new tokens behind the store's rows, and attends: one pass of our
    /// own on a CPU. The store's memory is reused if there is no other handle to its arrays. Packed
    /// rows are read as they are; new ones are packed first, and then attended to.
    ///
    /// # Shape
    /// `q: [B, L, H * D]`, `k: [B, L, KV * D]`, `v: [B, L, KV * DV] → [B, L, H * DV]`
    ///
    /// # Errors
    /// When the shapes do not fit, or the store has no room.
    ///
    /// ```
    /// use mlx_core::nn::{CachedAttention, KvRows, KvStore, Rope};
    /// use mlx_core::{Dtype, ops};
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let room = KvRows::zeros([1, 1, 32, 8], Dtype::Float32, None)?;
    /// let store = KvStore::new(room.clone(), room);
    /// let rope = Rope::new(8, 10000.0);
    /// let attention =
    ///     CachedAttention { rope: Some(&rope), ..CachedAttention::new(2, 1, 8f32.powf(-0.5)) };
    /// let (q, kv) = (ops::ones(&[1, 5, 16], Dtype::Float32)?, ops::ones(&[1, 5, 8], Dtype::Float32)?);
    /// let (y, store) = attention.forward(q, kv.clone(), kv, store)?;
    /// assert_eq!((y.shape(), store.len), (&[1, 5, 16][..], 5));
    /// # Ok(())
    /// # }
    /// ```
    pub fn forward(
        &self,
        q: Array,
        k: Array,
        v: Array,
        store: KvStore,
    ) -> Result<(Array, KvStore)> {
        let KvStore { keys, values, len, offset, skipped } = store;
        let n = k.dim(1)?;
        let parts = CachedAttentionParts {
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            scale: self.scale,
            q_eps: self.q_norm.map(|norm| norm.eps),
            k_eps: self.k_norm.map(|norm| norm.eps),
            rope: self.rope.map(|rope| RopeParts {
                dims: rope.dims,
                traditional: rope.traditional,
                base: rope.freqs.is_none().then_some(rope.base),
                scale: rope.scale,
                magnitude: rope.magnitude,
            }),
            window: self.window,
            soft_cap: self.soft_cap,
            len,
            offset,
            skipped: [skipped.start, skipped.end],
        };
        let weight = |norm: Option<&RmsNorm>| norm.map(|norm| (*norm.weight).clone());
        let arrays = CachedAttentionArrays {
            q,
            k,
            v,
            keys,
            values,
            q_norm: weight(self.q_norm),
            k_norm: weight(self.k_norm),
            wavelengths: self.rope.and_then(|rope| rope.freqs.clone()),
            sinks: self.sinks.cloned(),
            mask: self.mask.cloned(),
        };
        let (out, keys, values) = kernels::cached_attention(parts, arrays)?;
        Ok((out, KvStore { keys, values, len: len + n, offset: offset + n, skipped }))
    }
}
