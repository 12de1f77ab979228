//! Weights packed, unpacked and converted on the host: bytes in, bytes out, on all threads.
//!
//! Conversion goes through a checkpoint part by part, with no graph. What comes out is what MLX's
//! `quantize`, `dequantize` and `astype` give on a CPU, bit for bit.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};

use super::compute::packing::{self, Packing, Parts, ScaleSearch, Scales};
use super::compute::quantized::{E4m3, E8m0, Format, Rows, Scale, dequantize_rows};
use super::compute::rows::{for_each, rows_per_part};
use super::quantized::format_of;
use super::{Float, elements, elements_mut, options, with_float};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::quantization::{QuantMode, Quantization};

/// The bytes of packed weights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedBytes {
    /// The weights, words of 32 bits in little endian.
    pub weight: Vec<u8>,
    /// One for each group: in the type that weights were rounded to for affine, else a byte.
    pub scales: Vec<u8>,
    /// As the scales, for affine only.
    pub biases: Vec<u8>,
}

/// Packs rows of weights, `[…, columns]`, in the type `from`, after rounding them to `to`.
///
/// What is searched for are scales and biases of integers; floats have those of MLX in any event.
///
/// ```
/// use mlx_core::kernels::{ScaleSearch, pack_rows, unpack_rows};
/// use mlx_core::{Dtype, Quantization};
///
/// # fn main() -> mlx_core::Result<()> {
/// let row: Vec<u8> = (0..64).flat_map(|i| (i as f32 - 20.0).to_le_bytes()).collect();
/// let quantization = Quantization { bits: 6, ..Quantization::default() };
/// let packed = pack_rows(&row, 64, [Dtype::Float32; 2], quantization, ScaleSearch::MinMax)?;
/// assert_eq!((packed.weight.len(), packed.scales.len()), (48, 4));
/// assert_eq!(unpack_rows(&packed, 64, Dtype::Float32, quantization)?, row);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When rows are no whole groups, a type is none of `float16`, `bfloat16` and `float32`, there is no such
/// quantization, or a weight is infinite or not a number.
pub fn pack_rows(
    rows: &[u8],
    columns: usize,
    [from, to]: [Dtype; 2],
    quantization: Quantization,
    search: ScaleSearch,
) -> Result<PackedBytes> {
    let packing = Packing { search, ..packing_of(quantization, columns)? };
    if columns == 0 || !rows.len().is_multiple_of(columns * from.size()) {
        return Err(invalid(format!("{} bytes as rows of {columns} {from}", rows.len())));
    }
    let packed = with_float!(from, S => with_float!(to, T => pack::<S, T>(packing, rows, columns)));
    packed
        .map_err(invalid)?
        .ok_or_else(|| Error::new(ErrorKind::Format, "a weight is infinite or not a number"))
}

/// `None` where a weight is not finite.
fn pack<S: Float, T: Float>(
    packing: Packing,
    rows: &[u8],
    columns: usize,
) -> Result<Option<PackedBytes>, String> {
    let rows = aligned::<S>(rows);
    let weights = elements::<S>(&rows)?;
    let n_groups = weights.len() / packing.group_size;
    let is_affine = matches!(packing.format, Format::Affine(_));
    let mut packed = vec![0; packing.packed_bytes(weights.len())];
    let isa = options().isa;
    let step = rows_per_part(weights.len() / columns, columns) * columns;
    let groups = step / packing.group_size;
    let weights = weights.chunks(step).zip(packed.chunks_mut(packing.packed_bytes(step)));
    let is_finite = AtomicBool::new(true);
    let work = |weights: &[S], packed: &mut [u8], scales: Scales<'_, T>| {
        if !packing::pack(isa, packing, weights, Parts { packed, scales }) {
            is_finite.store(false, Ordering::Relaxed);
        }
    };
    let mut result = PackedBytes::default();
    if is_affine {
        let mut scales = vec![T::default(); n_groups];
        let mut biases = scales.clone();
        let parts = scales.chunks_mut(groups).zip(biases.chunks_mut(groups));
        for_each(weights.zip(parts), |((weights, packed), (scales, biases))| {
            work(weights, packed, Scales::Affine(scales, biases));
        });
        (result.scales, result.biases) = (bytes_of(&scales), bytes_of(&biases));
    } else {
        let mut scales = vec![0; n_groups];
        for_each(weights.zip(scales.chunks_mut(groups)), |((weights, packed), scales)| {
            work(weights, packed, Scales::Bytes(scales));
        });
        result.scales = scales;
    }
    result.weight = packed;
    Ok(is_finite.into_inner().then_some(result))
}

/// Unpacks weights to rows, `[…, columns]`, of `dtype`, which is that of the scales where they are not
/// bytes.
///
/// # Errors
/// When sizes do not fit, the type is none of `float16`, `bfloat16` and `float32`, or there is no such
/// quantization.
pub fn unpack_rows(
    packed: &PackedBytes,
    columns: usize,
    dtype: Dtype,
    quantization: Quantization,
) -> Result<Vec<u8>> {
    packing_of(quantization, columns)?;
    let unpacked = with_float!(dtype, T => match quantization.mode {
        QuantMode::Affine => unpack::<T, T>(packed, columns, quantization, elements),
        QuantMode::Nvfp4 => {
            unpack::<E4m3, T>(packed, columns, quantization, |bytes| Ok(E4m3::slice(bytes)))
        }
        _ => unpack::<E8m0, T>(packed, columns, quantization, |bytes| Ok(E8m0::slice(bytes))),
    });
    unpacked.map_err(invalid)
}

fn unpack<S: Scale, T: Float>(
    packed: &PackedBytes,
    columns: usize,
    quantization: Quantization,
    scales_of: fn(&[u8]) -> Result<&[S], String>,
) -> Result<Vec<u8>, String> {
    let format = format_of(quantization).ok_or("no kernel for this format")?;
    let group_size = quantization.group_size as usize;
    let [scales, biases] = [&packed.scales, &packed.biases].map(|bytes| aligned::<S>(bytes));
    let (scales, biases) = (scales_of(&scales)?, scales_of(&biases)?);
    let w = Rows::new(format, group_size, columns, &packed.weight, scales, biases)?;
    let rows: Vec<usize> = (0..packed.weight.len() / (columns * format.bits() / 8)).collect();
    let mut bytes = vec![0; rows.len() * columns * size_of::<T>()];
    dequantize_rows(options().isa, &w, &rows, elements_mut::<T>(&mut bytes)?);
    Ok(bytes)
}

/// Converts numbers of one floating type to another, to the nearest, ties to even.
///
/// ```
/// use mlx_core::Dtype;
/// use mlx_core::kernels::convert_floats;
///
/// # fn main() -> mlx_core::Result<()> {
/// let half = convert_floats(&1.5f32.to_le_bytes(), [Dtype::Float32, Dtype::Bfloat16])?;
/// assert_eq!(half, [0xc0, 0x3f]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When a type is none of `float16`, `bfloat16` and `float32`, or the last number is not whole.
pub fn convert_floats(numbers: &[u8], [from, to]: [Dtype; 2]) -> Result<Vec<u8>> {
    with_float!(from, S => with_float!(to, T => convert::<S, T>(numbers))).map_err(invalid)
}

fn convert<S: Float, T: Float>(numbers: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; numbers.len() / size_of::<S>() * size_of::<T>()];
    let numbers = aligned::<S>(numbers);
    let (from, to) = (elements::<S>(&numbers)?, elements_mut::<T>(&mut bytes)?);
    let (step, isa) = (rows_per_part(from.len(), 1), options().isa);
    for_each(from.chunks(step).zip(to.chunks_mut(step)), |(from, to)| {
        packing::convert(isa, from, to);
    });
    Ok(bytes)
}

/// A file's tensors may lie anywhere; those that do not lie as their type needs are copied.
fn aligned<T>(bytes: &[u8]) -> Cow<'_, [u8]> {
    match bytes.as_ptr().cast::<T>().is_aligned() {
        true => bytes.into(),
        // Large blocks of memory lie well for every type.
        false => bytes.to_vec().into(),
    }
}

fn bytes_of<T: Float>(numbers: &[T]) -> Vec<u8> {
    // SAFETY: a `Float` is made of bytes without padding.
    let bytes =
        unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast::<u8>(), size_of_val(numbers)) };
    bytes.to_vec()
}

fn packing_of(quantization: Quantization, columns: usize) -> Result<Packing> {
    let is_whole = quantization.mode == QuantMode::Affine || quantization.is_default();
    let format = format_of(quantization).filter(|_| is_whole);
    let group_size = quantization.group_size.max(0) as usize;
    match format {
        Some(format) if columns.is_multiple_of(group_size) => {
            Ok(Packing { format, group_size, search: ScaleSearch::MinMax })
        }
        Some(_) => Err(invalid(format!("rows of {columns} in groups of {group_size}"))),
        None => Err(invalid(format!("quantization: there is no {quantization}"))),
    }
}

fn invalid(text: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, text)
}

#[cfg(test)]
mod tests;
