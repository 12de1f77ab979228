//! The header, read and checked against the file it heads.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};

/// The size of the length that begins a file.
pub(super) const LENGTH_SIZE: usize = 8;

/// The longest header; the `safetensors` crate has the same limit.
pub(super) const MAX_HEADER_SIZE: usize = 100_000_000;

/// The key in the header that is not a tensor.
pub(super) const METADATA_KEY: &str = "__metadata__";

/// What a header says of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The element type; [`Dtype::Uint8`] for the 8-bit floats, which MLX has not.
    pub dtype: Dtype,
    /// The format's name of the element type, such as `BF16` or `F8_E4M3`.
    pub stored_dtype: &'static str,
    /// The shape; a scalar has none.
    pub shape: Vec<i32>,
    /// Where the bytes lie in the file.
    pub range: Range<usize>,
}

/// The format's names of element types; the first of a [`Dtype`] is the one written.
const STORED_DTYPES: [(&str, Dtype); 19] = [
    ("BOOL", Dtype::Bool),
    ("U8", Dtype::Uint8),
    ("I8", Dtype::Int8),
    ("U16", Dtype::Uint16),
    ("I16", Dtype::Int16),
    ("F16", Dtype::Float16),
    ("BF16", Dtype::Bfloat16),
    ("U32", Dtype::Uint32),
    ("I32", Dtype::Int32),
    ("F32", Dtype::Float32),
    ("U64", Dtype::Uint64),
    ("I64", Dtype::Int64),
    ("F64", Dtype::Float64),
    ("C64", Dtype::Complex64),
    ("F8_E4M3", Dtype::Uint8),
    ("F8_E5M2", Dtype::Uint8),
    ("F8_E8M0", Dtype::Uint8),
    ("F8_E4M3FNUZ", Dtype::Uint8),
    ("F8_E5M2FNUZ", Dtype::Uint8),
];

/// Element types smaller than a byte, for which MLX has no element type and no shape.
const PACKED_DTYPES: [&str; 3] = ["F4", "F6_E2M3", "F6_E3M2"];

/// Returns the name under which `dtype` is stored.
pub(super) fn stored_dtype(dtype: Dtype) -> &'static str {
    let stored = STORED_DTYPES.iter().find(|(_, candidate)| *candidate == dtype);
    stored.expect("every dtype is in the table").0
}

/// Computes the size in bytes of a tensor; `None` when a dimension is negative or the size, or a
/// stride, does not fit 63 bits.
pub(in crate::io) fn byte_size(dtype: Dtype, shape: &[i32]) -> Option<u64> {
    let mut strided = dtype.size() as i64;
    for &dim in shape {
        if dim < 0 {
            return None;
        }
        // MLX multiplies up the strides of an empty tensor too, so a 0 hides no overflow.
        strided = strided.checked_mul(i64::from(dim.max(1)))?;
    }
    Some(if shape.contains(&0) { 0 } else { strided.cast_unsigned() })
}

/// A header that was found to describe its file in full.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) metadata: BTreeMap<String, String>,
    /// The tensors in the order of their bytes.
    pub(super) tensors: Vec<(String, TensorInfo)>,
    /// Positions in `tensors`, sorted by name.
    pub(super) by_name: Vec<usize>,
}

impl Header {
    /// Reads and checks the header of the file whose content is `bytes`; `path` is for error texts.
    pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<Header> {
        let json = split(bytes).map_err(|text| Error::format(path, text))?;
        let raw: RawHeader = serde_json::from_str(json)
            .map_err(|error| Error::format(path, format_args!("header: {error}")))?;
        let data_start = LENGTH_SIZE + json.len();

        let mut tensors = Vec::with_capacity(raw.tensors.len());
        for (name, tensor) in raw.tensors {
            let tensor = check_tensor(tensor).map_err(|error| {
                error.context(format_args!("{}: tensor {name:?}", path.display()))
            })?;
            tensors.push((name, tensor));
        }
        // Writers sort the JSON as they please; the offsets tell the order.
        tensors.sort_by_key(|(_, tensor)| (tensor.begin, tensor.end));
        let mut by_name: Vec<usize> = (0..tensors.len()).collect();
        by_name.sort_by(|&a, &b| tensors[a].0.cmp(&tensors[b].0));
        if let Some(pair) = by_name.windows(2).find(|pair| tensors[pair[0]].0 == tensors[pair[1]].0)
        {
            let name = &tensors[pair[0]].0;
            return Err(Error::format(path, format_args!("tensor {name:?} is listed twice")));
        }
        let size = check_layout(&tensors).map_err(|text| Error::format(path, text))?;
        check_file_size(data_start, size, bytes.len()).map_err(|text| Error::format(path, text))?;

        let place = |offset: u64| data_start + offset as usize;
        let tensors: Vec<_> = tensors
            .into_iter()
            .map(|(name, CheckedTensor { stored_dtype, dtype, shape, begin, end })| {
                (name, TensorInfo { dtype, stored_dtype, shape, range: place(begin)..place(end) })
            })
            .collect();
        check_bools(bytes, &tensors).map_err(|text| Error::format(path, text))?;

        Ok(Header { metadata: raw.metadata, tensors, by_name })
    }
}

/// Finds the text of the header.
fn split(bytes: &[u8]) -> Result<&str, String> {
    if let Some(what) = foreign(bytes) {
        return Err(format!("not a safetensors file but {what}"));
    }
    let file_size = bytes.len();
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_SIZE>() else {
        return Err(format!(
            "truncated: expected at least {LENGTH_SIZE} bytes, file has {file_size}"
        ));
    };
    let length = u64::from_le_bytes(*length);
    let header_size = match usize::try_from(length) {
        Ok(0) => return Err("not a safetensors file: its header has 0 bytes".into()),
        Ok(size) if size <= MAX_HEADER_SIZE => size,
        _ => {
            return Err(format!(
                "not a safetensors file: its header would have {length} bytes, more than {MAX_HEADER_SIZE}"
            ));
        }
    };
    let Some(header) = rest.get(..header_size) else {
        let expected = LENGTH_SIZE + header_size;
        return Err(format!("truncated: expected at least {expected} bytes, file has {file_size}"));
    };
    if header[0] != b'{' {
        return Err(format!("header begins with byte {:#04x}, not with a brace", header[0]));
    }
    str::from_utf8(header).map_err(|error| format!("header is not UTF-8: {error}"))
}

/// Recognizes what is often found under the name of a weight file.
fn foreign(bytes: &[u8]) -> Option<&'static str> {
    const MAGICS: [(&[u8], &str); 4] = [
        (b"version https://git-lfs", "a git-lfs pointer; the file itself was never downloaded"),
        (b"GGUF", "a GGUF file"),
        (b"PK\x03\x04", "a zip archive, as PyTorch and NumPy write"),
        (b"<!DOCTYPE", "a web page"),
    ];
    MAGICS.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, what)| *what)
}

/// A tensor whose own entry makes sense; offsets count from the start of the data.
struct CheckedTensor {
    stored_dtype: &'static str,
    dtype: Dtype,
    shape: Vec<i32>,
    begin: u64,
    end: u64,
}

fn check_tensor(raw: RawTensor<'_>) -> Result<CheckedTensor> {
    let RawTensor { dtype, shape, data_offsets: (begin, end) } = raw;
    let Some(&(stored_dtype, dtype)) = STORED_DTYPES.iter().find(|(name, _)| *name == dtype) else {
        return Err(if PACKED_DTYPES.contains(&&*dtype) {
            Error::new(ErrorKind::Unsupported, format!("dtype {dtype} is smaller than a byte"))
        } else {
            Error::new(ErrorKind::Format, format!("unknown dtype {dtype:?}"))
        });
    };
    let shape: Vec<i32> = shape.into_iter().map(|Dim(dim)| dim).collect();
    let bad = |text| Error::new(ErrorKind::Format, text);
    let size = byte_size(dtype, &shape)
        .ok_or_else(|| bad(format!("size of {stored_dtype} {} overflows", shown(&shape))))?;
    if begin > end {
        return Err(bad(format!("data_offsets [{begin}, {end}] are out of order")));
    }
    if end - begin != size {
        let (held, shape) = (end - begin, shown(&shape));
        return Err(bad(format!(
            "data_offsets [{begin}, {end}] hold {held} bytes, {stored_dtype} {shape} needs {size}"
        )));
    }
    Ok(CheckedTensor { stored_dtype, dtype, shape, begin, end })
}

/// Prints a shape for an error, but not thousands of axes.
fn shown(shape: &[i32]) -> String {
    match shape.len() {
        0..=32 => format!("{shape:?}"),
        axes => format!("of {axes} axes"),
    }
}

/// Checks that sorted tensors lie one right after the other, and returns where the last ends.
fn check_layout(tensors: &[(String, CheckedTensor)]) -> Result<u64, String> {
    let mut end = 0;
    for (position, (name, tensor)) in tensors.iter().enumerate() {
        let begin = tensor.begin;
        if begin > end {
            return Err(format!(
                "tensor {name:?}: bytes {end}..{begin} before it belong to no tensor"
            ));
        }
        if begin < end {
            let before = &tensors[position - 1].0;
            let shared = end.min(tensor.end);
            return Err(format!(
                "tensor {name:?}: bytes {begin}..{shared} also belong to {before:?}"
            ));
        }
        end = tensor.end;
    }
    Ok(end)
}

fn check_file_size(data_start: usize, data_size: u64, file_size: usize) -> Result<(), String> {
    let expected = (data_start as u64).checked_add(data_size);
    let expected = expected.ok_or_else(|| format!("{data_size} bytes of data overflow"))?;
    let actual = file_size as u64;
    if actual < expected {
        return Err(format!("truncated: expected {expected} bytes, file has {actual}"));
    }
    if actual > expected {
        let extra = actual - expected;
        return Err(format!(
            "{extra} bytes follow the last tensor: expected {expected} bytes, file has {actual}"
        ));
    }
    Ok(())
}

/// Checks that every `BOOL` is 0 or 1: any other byte is undefined behaviour as a `bool`, in Rust
/// and in C++.
fn check_bools(bytes: &[u8], tensors: &[(String, TensorInfo)]) -> Result<(), String> {
    for (name, info) in tensors.iter().filter(|(_, info)| info.dtype == Dtype::Bool) {
        if let Some(byte) = bytes[info.range.clone()].iter().find(|byte| **byte > 1) {
            return Err(format!("tensor {name:?}: BOOL holds the byte {byte}, not 0 or 1"));
        }
    }
    Ok(())
}

/// The JSON object, every pair kept, so that a repeated name is seen.
struct RawHeader<'a> {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(String, RawTensor<'a>)>,
}

#[derive(serde::Deserialize)]
struct RawTensor<'a> {
    #[serde(borrow)]
    dtype: Cow<'a, str>,
    shape: Vec<Dim>,
    data_offsets: (u64, u64),
}

struct Dim(i32);

struct Metadata(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for RawHeader<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeaderVisitor;
        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = RawHeader<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut metadata = None;
                let mut tensors = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    let named = |error| de::Error::custom(format_args!("{name:?}: {error}"));
                    if name != METADATA_KEY {
                        let tensor = map.next_value().map_err(named)?;
                        tensors.push((name, tensor));
                        continue;
                    }
                    // MLX writes null when there is no metadata.
                    let value = map.next_value::<Option<Metadata>>().map_err(named)?;
                    if metadata.replace(value).is_some() {
                        return Err(de::Error::custom("__metadata__ is listed twice"));
                    }
                }
                let metadata = metadata.flatten().map_or_else(BTreeMap::new, |Metadata(map)| map);
                Ok(RawHeader { metadata, tensors })
            }
        }
        deserializer.deserialize_map(HeaderVisitor)
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MetadataVisitor;
        impl<'de> Visitor<'de> for MetadataVisitor {
            type Value = Metadata;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut metadata = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    if metadata.contains_key(&key) {
                        return Err(de::Error::custom(format_args!("{key:?} is listed twice")));
                    }
                    metadata.insert(key, value);
                }
                Ok(Metadata(metadata))
            }
        }
        deserializer.deserialize_map(MetadataVisitor)
    }
}

impl<'de> Deserialize<'de> for Dim {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DimVisitor;
        impl Visitor<'_> for DimVisitor {
            type Value = Dim;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a dimension in 0..={}", i32::MAX)
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Dim, E> {
                let dim = i32::try_from(value);
                dim.map(Dim).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(value), &self))
            }
        }
        // A negative or fractional number finds no visit method and is refused with its value.
        deserializer.deserialize_u64(DimVisitor)
    }
}

#[cfg(test)]
mod tests;
