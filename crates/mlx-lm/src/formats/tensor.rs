//! Tensors of a layer, checked as they are looked up.

use half::{bf16, f16};
use mlx_core::Dtype;
use mlx_core::io::Checkpoint;

use super::settings::GroupSize;
use crate::error::{Error, Result};

/// A tensor as a checkpoint stores it.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    /// The safetensors name of the element type, such as `F8_E4M3`.
    pub stored_dtype: &'a str,
    /// The shape.
    pub shape: &'a [i32],
    /// The elements, little endian, last axis innermost.
    pub bytes: &'a [u8],
}

/// Where tensors are looked up.
pub trait Tensors<'a> {
    /// Finds a tensor by its full name.
    fn get(&self, name: &str) -> Option<TensorView<'a>>;
}

impl<'a> Tensors<'a> for &'a Checkpoint {
    fn get(&self, name: &str) -> Option<TensorView<'a>> {
        let (file, info) = Checkpoint::get(self, name)?;
        let bytes = file.bytes(name)?;
        Some(TensorView { stored_dtype: info.stored_dtype, shape: &info.shape, bytes })
    }
}

/// Numbers in the bytes of an array.
#[derive(Clone, Debug, PartialEq)]
pub struct Floats {
    /// The element type.
    pub dtype: Dtype,
    /// The elements, little endian.
    pub bytes: Vec<u8>,
}

impl Floats {
    /// Rounds to the nearest number of `dtype`, which is one of the options'.
    pub(super) fn round(dtype: Dtype, values: &[f32]) -> Floats {
        let mut bytes = vec![0; values.len() * dtype.size()];
        write_floats(dtype, values, &mut bytes);
        Floats { dtype, bytes }
    }

    pub(super) fn small(bytes: Vec<u8>) -> Floats {
        Floats { dtype: Dtype::Uint8, bytes }
    }
}

/// Writes numbers as `dtype`, which is one of the options'.
pub(super) fn write_floats(dtype: Dtype, values: &[f32], out: &mut [u8]) {
    match dtype {
        Dtype::Float32 => {
            for (value, out) in values.iter().zip(out.as_chunks_mut().0) {
                *out = value.to_le_bytes();
            }
        }
        Dtype::Float16 => {
            for (value, out) in values.iter().zip(out.as_chunks_mut().0) {
                *out = f16::from_f32(*value).to_le_bytes();
            }
        }
        _ => {
            for (value, out) in values.iter().zip(out.as_chunks_mut().0) {
                *out = bf16::from_f32(*value).to_le_bytes();
            }
        }
    }
}

/// The tensors below one path.
pub(super) struct Layer<'s, 'a> {
    pub(super) path: &'s str,
    pub(super) tensors: &'s dyn Tensors<'a>,
}

impl<'a> Layer<'_, 'a> {
    /// Finds the tensor whose name is the path and `suffix`.
    pub(super) fn find(&self, suffix: &str) -> Result<Option<Tensor<'a>>> {
        let name = format!("{}{suffix}", self.path);
        self.tensors.get(&name).map(|view| Tensor::new(name, view)).transpose()
    }

    /// Finds a tensor that must be there if the settings say so.
    pub(super) fn find_or_need(&self, suffix: &str, needed: bool) -> Result<Option<Tensor<'a>>> {
        if needed { self.need(suffix).map(Some) } else { self.find(suffix) }
    }

    pub(super) fn need(&self, suffix: &str) -> Result<Tensor<'a>> {
        let missing = || Error::format(format_args!("{}{suffix}", self.path), "tensor is missing");
        self.find(suffix)?.ok_or_else(missing)
    }
}

/// A tensor whose bytes are as many as its shape and element type say.
#[derive(Debug)]
pub(super) struct Tensor<'a> {
    name: String,
    pub(super) dtype: &'a str,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: &'a [u8],
}

impl<'a> Tensor<'a> {
    fn new(name: String, view: TensorView<'a>) -> Result<Tensor<'a>> {
        let TensorView { stored_dtype: dtype, shape, bytes } = view;
        let sizes: Option<Vec<usize>> =
            shape.iter().map(|&dim| usize::try_from(dim).ok()).collect();
        let size = sizes.as_ref().and_then(|sizes| {
            sizes.iter().try_fold(element_size(dtype)?, |size, &dim| size.checked_mul(dim))
        });
        match sizes {
            Some(shape) if size == Some(bytes.len()) => Ok(Tensor { name, dtype, shape, bytes }),
            _ => {
                let text = format!("{} bytes for shape {shape:?} of {dtype}", bytes.len());
                Err(Error::format(name, text))
            }
        }
    }

    /// Makes an error that names the tensor and what it should be.
    pub(super) fn unexpected(&self, expected: impl std::fmt::Display) -> Error {
        let Tensor { name, dtype, shape, .. } = self;
        Error::format(name, format_args!("expected {expected}, found {shape:?} of {dtype}"))
    }

    pub(super) fn expect_dtype(&self, dtypes: &[&str]) -> Result<()> {
        if dtypes.contains(&self.dtype) {
            return Ok(());
        }
        Err(self.unexpected(dtypes.join(" or ")))
    }

    pub(super) fn expect_shape(&self, shape: &[usize]) -> Result<()> {
        if self.shape == shape { Ok(()) } else { Err(self.unexpected(format_args!("{shape:?}"))) }
    }

    /// Returns the two sizes of a matrix, neither of which is 0.
    pub(super) fn matrix(&self) -> Result<(usize, usize)> {
        match self.shape[..] {
            [rows, columns] if rows > 0 && columns > 0 => Ok((rows, columns)),
            _ => Err(self.unexpected("a matrix")),
        }
    }

    /// Returns the sizes without those that are 1: scales come with axes to broadcast along.
    pub(super) fn squeezed(&self) -> Vec<usize> {
        self.shape.iter().copied().filter(|&dim| dim != 1).collect()
    }

    /// Returns `[rows, columns]` as a shape, if MLX can have it.
    pub(super) fn shape_of(&self, rows: Option<usize>, columns: Option<usize>) -> Result<Vec<i32>> {
        let size = |size: Option<usize>| i32::try_from(size?).ok().filter(|&size| size > 0);
        match (size(rows), size(columns)) {
            (Some(rows), Some(columns)) => Ok(vec![rows, columns]),
            _ => Err(self.unexpected("a weight of sizes from 1 to 2147483647")),
        }
    }

    /// Returns the first of the sizes with which `columns` inputs make `n_groups`.
    pub(super) fn groups_of(
        &self,
        sizes: &[GroupSize],
        columns: usize,
        n_groups: usize,
    ) -> Result<GroupSize> {
        let fits = |size: &&GroupSize| match size {
            GroupSize::Row => n_groups == 1,
            GroupSize::Inputs(size) => columns.div_ceil(*size) == n_groups,
        };
        sizes.iter().find(fits).copied().ok_or_else(|| {
            let sizes: Vec<String> = sizes.iter().map(ToString::to_string).collect();
            self.unexpected(format_args!("{} for {columns} inputs", sizes.join(" or ")))
        })
    }

    /// Reads floating scales; those of 8 bits are powers of two, as are bytes.
    pub(super) fn floats(&self) -> Result<Vec<f32>> {
        let values: Vec<f32> = match self.dtype {
            "F32" => self.bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            "F16" => {
                let halves = self.bytes.as_chunks().0.iter();
                halves.map(|b| f16::from_le_bytes(*b).to_f32()).collect()
            }
            "BF16" => {
                let halves = self.bytes.as_chunks().0.iter();
                halves.map(|b| bf16::from_le_bytes(*b).to_f32()).collect()
            }
            "F8_E8M0" | "U8" => self.bytes.iter().map(|&b| power_of_two(b)).collect(),
            _ => return Err(self.unexpected("floating scales")),
        };
        match values.iter().find(|value| !value.is_finite()) {
            Some(value) => Err(Error::format(&self.name, format_args!("holds {value}"))),
            None => Ok(values),
        }
    }

    /// Reads the only scale.
    pub(super) fn positive(&self) -> Result<f32> {
        self.expect_dtype(&["F32", "BF16", "F16"])?;
        match self.floats()?[..] {
            [scale] if scale > 0.0 && scale.recip().is_finite() => Ok(scale),
            _ => Err(self.unexpected("one positive number")),
        }
    }

    /// Reads integers that are positions or sizes.
    pub(super) fn indices(&self) -> Result<Vec<usize>> {
        let index = |value: i64| {
            let text = || format!("holds {value}, which is no position or size");
            usize::try_from(value).map_err(|_| Error::format(&self.name, text()))
        };
        match self.dtype {
            "I32" => {
                let words = self.bytes.as_chunks().0.iter();
                words.map(|b| index(i64::from(i32::from_le_bytes(*b)))).collect()
            }
            "I64" => {
                let words = self.bytes.as_chunks().0.iter();
                words.map(|b| index(i64::from_le_bytes(*b))).collect()
            }
            _ => Err(self.unexpected("I32 or I64")),
        }
    }
}

/// Returns the word at a position of packed integers.
#[inline(always)]
pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.as_chunks().0.get(at).map_or(0, |word| u32::from_le_bytes(*word))
}

/// Returns the number that a byte of E8M0 means; 255 is NaN.
pub(super) fn power_of_two(exponent: u8) -> f32 {
    match exponent {
        0 => f32::from_bits(1 << 22),
        255 => f32::NAN,
        exponent => f32::from_bits(u32::from(exponent) << 23),
    }
}

/// Returns the byte of E8M0 for a power of two.
pub(super) fn exponent_of(value: f32) -> Option<u8> {
    if value == power_of_two(0) {
        return Some(0);
    }
    let bits = value.to_bits();
    (value.is_normal() && bits & 0x807f_ffff == 0).then_some((bits >> 23) as u8)
}

fn element_size(dtype: &str) -> Option<usize> {
    Some(match dtype {
        "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" => 1,
        "U16" | "I16" | "F16" | "BF16" => 2,
        "U32" | "I32" | "F32" => 4,
        "U64" | "I64" | "F64" | "C64" => 8,
        _ => return None,
    })
}
