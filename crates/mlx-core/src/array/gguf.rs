//! Arrays from and to GGUF files: unpacked, or in MLX's packed forms without loss.

use std::collections::BTreeMap;
use std::path::Path;

use half::{bf16, f16};

use super::Array;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::io::{
    GgmlType, GgufFile, GgufLayout, GgufPacked, GgufScales, GgufTensor, GgufValue, TensorSink,
    write_gguf_streamed,
};
use crate::ops::Packed;
use crate::quantization::{QuantMode, Quantization, QuantizationConfig};

/// Elements that are converted at a time; whole blocks of every type.
const CHUNK: usize = 1 << 14;

/// What [`load_gguf`] makes of quantized tensors; others keep their element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GgufLoad {
    /// Numbers of this floating type.
    Dequantize(Dtype),
    /// One of MLX's packed forms where it has the same numbers ([`GgufPacked`] lists them), else
    /// numbers. The floating type is that of affine scales and biases, and of those numbers.
    ///
    /// With `float32` nothing is lost, but a 4-bit weight takes 6 bits with its scale and bias
    /// instead of 5, and MLX computes products with it in `float32`. With another type scales and
    /// what MLX makes of them are rounded to it.
    Packed(Dtype),
}

/// What [`load_gguf`] found.
#[derive(Clone, Debug, Default)]
pub struct GgufArrays {
    /// Arrays by name; a packed `x.weight` has `x.scales` beside it, and `x.biases` if affine.
    pub arrays: BTreeMap<String, Array>,
    /// The file's metadata.
    pub metadata: BTreeMap<String, GgufValue>,
    /// The form of each packed weight, under its name without `.weight`.
    pub quantization: QuantizationConfig,
}

/// Reads every array of a GGUF file. What is not quantized is not copied where the device allows.
///
/// ```
/// use mlx_core::io::{GgmlType, GgufValue};
/// use mlx_core::{Array, Dtype, GgufLoad, GgufSource, load_gguf, save_gguf};
///
/// # fn main() -> mlx_core::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("x.gguf");
/// let w = Array::range(64)?.reshape([2, 32])?.astype(Dtype::Float32)?;
/// let tensors = [("q.weight", GgufSource::Quantized(&w, GgmlType::Q8_0)), ("w", (&w).into())];
/// save_gguf(&path, tensors, &[("general.name", GgufValue::from("x"))])?;
///
/// let file = load_gguf(&path, GgufLoad::Packed(Dtype::Float32))?;
/// assert_eq!(file.metadata["general.name"].as_str(), Some("x"));
/// assert_eq!(file.arrays["w"].shape(), [2, 32]);
/// assert_eq!(file.arrays["q.weight"].shape(), [2, 8]);
/// assert_eq!(file.arrays["q.scales"].shape(), [2, 1]);
/// assert_eq!(file.quantization.of("q").unwrap().bits, 8);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When the file is missing or its content is not what the format demands, the dtype is not
/// floating, or two arrays would have one name.
pub fn load_gguf(path: impl AsRef<Path>, load: GgufLoad) -> Result<GgufArrays> {
    let (GgufLoad::Dequantize(dtype) | GgufLoad::Packed(dtype)) = load;
    if !dtype.is_floating() {
        let text = format!("load_gguf: {dtype} is not a floating type");
        return Err(Error::new(ErrorKind::InvalidArgument, text));
    }
    let file = GgufFile::open(path)?;
    let mut found = GgufArrays {
        metadata: file.metadata().map(|(key, value)| (key.to_owned(), value.clone())).collect(),
        ..GgufArrays::default()
    };
    for (name, tensor) in file.tensors() {
        let packed = match load {
            GgufLoad::Packed(_) => file.packed(name)?,
            GgufLoad::Dequantize(_) => None,
        };
        match packed {
            None => found.insert(&file, name.to_owned(), unpacked(&file, name, tensor, dtype)?)?,
            Some(packed) => {
                let path = name.strip_suffix(".weight").unwrap_or(name);
                let form = Some(packed.quantization);
                let Packed { weight, scales, biases, .. } = Packed::from_gguf(&packed, dtype)?;
                found.insert(&file, name.to_owned(), weight)?;
                found.insert(&file, format!("{path}.scales"), scales)?;
                if let Some(biases) = biases {
                    found.insert(&file, format!("{path}.biases"), biases)?;
                }
                found.quantization.layers.insert(path.to_owned(), form);
            }
        }
    }
    Ok(found)
}

impl GgufArrays {
    fn insert(&mut self, file: &GgufFile, name: String, array: Array) -> Result<()> {
        if self.arrays.contains_key(&name) {
            let text = format!("packing leads to a second tensor {name:?}");
            return Err(Error::format(file.path(), text));
        }
        self.arrays.insert(name, array);
        Ok(())
    }
}

/// Makes an array of one tensor, converting a part after the other.
fn unpacked(file: &GgufFile, name: &str, tensor: &GgufTensor, dtype: Dtype) -> Result<Array> {
    let GgufTensor { ty, shape, .. } = tensor;
    let bytes = file.tensor_bytes(name).ok_or_else(|| {
        Error::new(ErrorKind::Runtime, format!("{}: no tensor {name:?}", file.path().display()))
    })?;
    if let Some(dtype) = ty.dtype() {
        return Array::from_tensor(&bytes, shape, dtype);
    }
    let bytes = bytes.stored()?;
    let mut out = Vec::with_capacity(super::count(shape)?.saturating_mul(dtype.size()));
    let mut values = vec![0.0; CHUNK];
    for blocks in bytes.chunks(CHUNK / ty.block_size() * ty.block_bytes()) {
        let values = &mut values[..blocks.len() / ty.block_bytes() * ty.block_size()];
        ty.dequantize(blocks, values)?;
        put_floats(&mut out, values, dtype)?;
    }
    Array::from_bytes(&out, shape, dtype)
}

/// Adds numbers as elements of a floating type.
fn put_floats(out: &mut Vec<u8>, values: &[f32], dtype: Dtype) -> Result<()> {
    match dtype {
        Dtype::Float32 => values.iter().for_each(|x| out.extend(x.to_ne_bytes())),
        Dtype::Float16 => values.iter().for_each(|x| out.extend(f16::from_f32(*x).to_ne_bytes())),
        Dtype::Bfloat16 => values.iter().for_each(|x| out.extend(bf16::from_f32(*x).to_ne_bytes())),
        Dtype::Float64 => values.iter().for_each(|x| out.extend(f64::from(*x).to_ne_bytes())),
        _ => {
            let text = format!("load_gguf: {dtype} is not a floating type");
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
    }
    Ok(())
}

impl Packed {
    /// Makes arrays of a packed weight that comes from a GGUF file, with affine scales and biases
    /// of the floating type `dtype`, which is exact only if it is `float32`.
    ///
    /// # Errors
    /// When the parts do not have the sizes that shape and form ask for.
    pub fn from_gguf(packed: &GgufPacked, dtype: Dtype) -> Result<Packed> {
        let GgufPacked { quantization, shape, weight, scales } = packed;
        let bad = || {
            let text = format!("packed: {shape:?} does not fit {quantization}");
            Error::new(ErrorKind::InvalidArgument, text)
        };
        let (row, outer) = shape.split_last().ok_or_else(bad)?;
        let with_row = |row: i64| -> Result<Vec<i32>> {
            let row = i32::try_from(row).map_err(|_| bad())?;
            Ok(outer.iter().copied().chain([row]).collect())
        };
        quantization.check()?;
        let Quantization { group_size, bits, .. } = *quantization;
        let groups = with_row(i64::from(row / group_size))?;
        let weight = Array::from_bytes(
            weight,
            &with_row(i64::from(*row) * i64::from(bits) / 32)?,
            Dtype::Uint32,
        )?;
        let floats = |values: &[f32]| {
            let mut bytes = Vec::with_capacity(values.len() * dtype.size());
            put_floats(&mut bytes, values, dtype)?;
            Array::from_bytes(&bytes, &groups, dtype)
        };
        let (scales, biases) = match scales {
            GgufScales::Affine { scales, biases } => (floats(scales)?, Some(floats(biases)?)),
            GgufScales::Micro(scales) => (Array::from_slice(scales, &groups)?, None),
        };
        Ok(Packed { weight, scales, biases, quantization: *quantization })
    }

    /// Reads scales, biases and, if asked for, the weight.
    fn to_gguf(&self, with_weight: bool) -> Result<GgufPacked> {
        self.quantization.check()?;
        let mut shape = self.weight.shape().to_vec();
        if let Some(row) = shape.last_mut() {
            let size = i64::from(*row) * 32 / i64::from(self.quantization.bits);
            *row = i32::try_from(size).unwrap_or(-1);
        }
        let scales = match (self.quantization.mode, &self.biases) {
            (QuantMode::Affine, Some(biases)) => GgufScales::Affine {
                scales: self.scales.to_vec_as::<f32>()?,
                biases: biases.to_vec_as::<f32>()?,
            },
            _ => GgufScales::Micro(self.scales.to_vec::<u8>()?),
        };
        let weight = match with_weight {
            true => self.weight.with_bytes(<[u8]>::to_vec)?,
            false => Vec::new(),
        };
        Ok(GgufPacked { quantization: self.quantization, shape, weight, scales })
    }
}

/// What [`save_gguf`] writes as one tensor.
#[derive(Clone, Copy, Debug)]
pub enum GgufSource<'a> {
    /// An array as it is.
    Array(&'a Array),
    /// An array converted to a type of which [`GgmlType::can_quantize`] is true.
    Quantized(&'a Array, GgmlType),
    /// A packed weight, in the type that [`GgufPacked::ggml_type`] finds.
    Packed(&'a Packed),
}

impl<'a> From<&'a Array> for GgufSource<'a> {
    fn from(array: &'a Array) -> Self {
        GgufSource::Array(array)
    }
}

impl<'a> From<&'a Packed> for GgufSource<'a> {
    fn from(packed: &'a Packed) -> Self {
        GgufSource::Packed(packed)
    }
}

/// Writes arrays to a GGUF file of version 3, which is replaced whole or not at all.
///
/// Arrays are computed and written one after the other, in the order given; [`load_gguf`] shows
/// it in use.
///
/// # Errors
/// When ggml has no such type or shape, or none that holds a packed weight without loss; when a
/// name is empty, longer than 63 bytes or repeated; when an array cannot be computed or the file
/// system fails. What was at `path` before is then still there.
pub fn save_gguf<'a, S: Into<GgufSource<'a>>>(
    path: impl AsRef<Path>,
    tensors: impl IntoIterator<Item = (&'a str, S)>,
    metadata: &[(&str, GgufValue)],
) -> Result<()> {
    let (layout, sources): (Vec<GgufLayout>, Vec<GgufSource<'a>>) = tensors
        .into_iter()
        .map(|(name, source)| {
            let source = source.into();
            let (ty, shape) = source.layout().map_err(|e| e.context(format!("tensor {name:?}")))?;
            Ok((GgufLayout { name: name.to_owned(), ty, shape }, source))
        })
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .unzip();
    write_gguf_streamed(path, &layout, metadata, |position, sink| {
        let GgufLayout { name, ty, .. } = &layout[position];
        sources[position].write(*ty, sink).map_err(|e| e.context(format!("tensor {name:?}")))
    })
}

impl GgufSource<'_> {
    fn layout(&self) -> Result<(GgmlType, Vec<i32>)> {
        let unsupported =
            |text: String| Error::new(ErrorKind::Unsupported, format!("save_gguf: {text}"));
        match self {
            GgufSource::Array(array) => {
                let ty = GgmlType::of_dtype(array.dtype()).ok_or_else(|| {
                    unsupported(format!("ggml has no type for {}", array.dtype()))
                })?;
                Ok((ty, array.shape().to_vec()))
            }
            GgufSource::Quantized(array, ty) if ty.can_quantize() => {
                Ok((*ty, array.shape().to_vec()))
            }
            GgufSource::Quantized(_, ty) => {
                Err(unsupported(format!("there is no way from numbers to {ty}")))
            }
            GgufSource::Packed(packed) => {
                let parts = packed.to_gguf(false)?;
                let ty = parts.ggml_type().ok_or_else(|| {
                    unsupported(format!("no ggml type has the numbers of {}", parts.quantization))
                })?;
                Ok((ty, parts.shape))
            }
        }
    }

    fn write(&self, ty: GgmlType, sink: &mut TensorSink<'_>) -> Result<()> {
        match self {
            GgufSource::Array(array) => array.with_bytes(|bytes| sink.write(bytes))?,
            GgufSource::Quantized(array, _) => {
                let values = array.to_vec_as::<f32>()?;
                values.chunks(CHUNK).try_for_each(|values| sink.write(&ty.quantize(values)?))
            }
            GgufSource::Packed(packed) => match packed.to_gguf(true)?.to_blocks() {
                Some((_, blocks)) => sink.write(&blocks),
                None => Err(Error::new(
                    ErrorKind::InvalidArgument,
                    "save_gguf: scales and weight do not fit each other",
                )),
            },
        }
    }
}
