//! All of a file before its tensors' bytes, read and checked against the file's size.
//!
//! Nothing that the file says is believed before it is compared with the bytes that remain: no
//! count allocates, no length is added without a check, no nesting goes deeper than a limit.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use super::types::GgmlType;
use super::value::{GgufArray, GgufValue, ValueType};
use crate::error::{Error, ErrorKind, Result};

pub(super) const MAGIC: &[u8; 4] = b"GGUF";
pub(super) const ALIGNMENT_KEY: &str = "general.alignment";
pub(super) const DEFAULT_ALIGNMENT: u32 = 32;

/// The most axes of a tensor in ggml.
pub(super) const MAX_DIMS: usize = 4;

/// The longest key or tensor name; the format's limit for keys.
pub(super) const MAX_NAME: usize = 65_535;

/// How deep arrays may lie in arrays; ggml itself has none inside another.
pub(super) const MAX_DEPTH: usize = 8;

/// What a header says of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufTensor {
    /// The element type.
    pub ty: GgmlType,
    /// The shape, row-major as everywhere here: the reverse of the order in the file.
    pub shape: Vec<i32>,
    /// Where the bytes lie in the file.
    pub range: Range<usize>,
}

/// A header that was found to fit its file.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) alignment: u32,
    pub(super) metadata: Vec<(String, GgufValue)>,
    /// Positions in `metadata`.
    pub(super) keys: BTreeMap<String, usize>,
    pub(super) tensors: Vec<(String, GgufTensor)>,
    /// Positions in `tensors`.
    pub(super) names: BTreeMap<String, usize>,
}

impl Header {
    /// Reads and checks the header of the file whose content is `bytes`; `path` is for error texts.
    pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<Header> {
        read(bytes).map_err(|Refused { kind, text }| {
            Error::new(kind, format!("{}: {text}", path.display()))
        })
    }
}

/// Why a file is not read.
struct Refused {
    kind: ErrorKind,
    text: String,
}

impl From<String> for Refused {
    fn from(text: String) -> Self {
        Refused { kind: ErrorKind::Format, text }
    }
}

fn unsupported(text: impl Into<String>) -> Refused {
    Refused { kind: ErrorKind::Unsupported, text: text.into() }
}

fn read(bytes: &[u8]) -> Result<Header, Refused> {
    let mut cursor = Cursor { bytes, position: 0 };
    let version = read_version(&mut cursor)?;
    let n_tensors = cursor.u64("the number of tensors")?;
    let n_values = cursor.u64("the number of metadata values")?;
    // A tensor takes 24 bytes at the least, a value 13.
    cursor.check_count(n_tensors, 24, "tensors")?;
    cursor.check_count(n_values, 13, "metadata values")?;

    let mut metadata = Vec::new();
    let mut keys = BTreeMap::new();
    for position in 0..n_values {
        let key = cursor.name("key", position)?;
        let value = read_value(&mut cursor).map_err(|e| e.of(&format!("key {key:?}")))?;
        if keys.insert(key.clone(), metadata.len()).is_some() {
            return Err(format!("key {key:?} is listed twice").into());
        }
        metadata.push((key, value));
    }
    let alignment = match keys.get(ALIGNMENT_KEY).and_then(|&position| metadata.get(position)) {
        None => DEFAULT_ALIGNMENT,
        Some((_, value)) => check_alignment(value)?,
    };

    let mut raw = Vec::new();
    let mut names = BTreeMap::new();
    for position in 0..n_tensors {
        let name = cursor.name("tensor", position)?;
        let tensor = read_tensor(&mut cursor).map_err(|e| e.of(&format!("tensor {name:?}")))?;
        if names.insert(name.clone(), raw.len()).is_some() {
            return Err(format!("tensor {name:?} is listed twice").into());
        }
        raw.push((name, tensor));
    }
    let data_start = cursor.position.checked_next_multiple_of(alignment as usize);
    let tensors = place(raw, data_start, alignment, bytes.len())?;
    check_overlap(&tensors)?;
    Ok(Header { version, alignment, metadata, keys, tensors, names })
}

impl Refused {
    fn of(mut self, what: &str) -> Refused {
        self.text = format!("{what}: {}", self.text);
        self
    }
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<u32, Refused> {
    let magic = cursor.bytes.get(..4).unwrap_or(cursor.bytes);
    if !MAGIC.starts_with(magic) {
        return Err(format!("not a GGUF file: it begins with {}", magic.escape_ascii()).into());
    }
    cursor.take(4, "the magic number")?;
    let version = cursor.u32("the version")?;
    match version {
        2 | 3 => Ok(version),
        1 => Err(unsupported("GGUF version 1 is not read; convert the model again")),
        _ if matches!(version.swap_bytes(), 1..=0xffff) => {
            let version = version.swap_bytes();
            Err(unsupported(format!("a big-endian file (version {version}) is not read")))
        }
        _ => Err(unsupported(format!("GGUF version {version} is not read, only 2 and 3"))),
    }
}

fn check_alignment(value: &GgufValue) -> Result<u32, Refused> {
    match value {
        GgufValue::U32(alignment) if alignment.is_power_of_two() => Ok(*alignment),
        GgufValue::U32(alignment) => {
            Err(format!("{ALIGNMENT_KEY} is {alignment}, not a power of two").into())
        }
        _ => Err(format!("{ALIGNMENT_KEY} is {value}, not a 32-bit unsigned integer").into()),
    }
}

fn read_value(cursor: &mut Cursor<'_>) -> Result<GgufValue, Refused> {
    const WHAT: &str = "a value";
    Ok(match cursor.value_type()? {
        ValueType::U8 => GgufValue::U8(u8::from_le_bytes(cursor.array(WHAT)?)),
        ValueType::I8 => GgufValue::I8(i8::from_le_bytes(cursor.array(WHAT)?)),
        ValueType::U16 => GgufValue::U16(u16::from_le_bytes(cursor.array(WHAT)?)),
        ValueType::I16 => GgufValue::I16(i16::from_le_bytes(cursor.array(WHAT)?)),
        ValueType::U32 => GgufValue::U32(u32::from_le_bytes(cursor.array(WHAT)?)),
        ValueType::I32 => GgufValue::I32(i32::from_le_bytes(cursor.array(WHAT)?)),
        ValueType::U64 => GgufValue::U64(u64::from_le_bytes(cursor.array(WHAT)?)),
        ValueType::I64 => GgufValue::I64(i64::from_le_bytes(cursor.array(WHAT)?)),
        ValueType::F32 => GgufValue::F32(f32::from_le_bytes(cursor.array(WHAT)?)),
        ValueType::F64 => GgufValue::F64(f64::from_le_bytes(cursor.array(WHAT)?)),
        ValueType::Bool => GgufValue::Bool(bool_of(u8::from_le_bytes(cursor.array(WHAT)?))?),
        ValueType::String => GgufValue::String(cursor.string()?),
        ValueType::Array => GgufValue::Array(read_array(cursor, MAX_DEPTH)?),
    })
}

fn bool_of(byte: u8) -> Result<bool, Refused> {
    match byte {
        0 | 1 => Ok(byte == 1),
        _ => Err(format!("a bool is the byte {byte}, not 0 or 1").into()),
    }
}

fn read_array(cursor: &mut Cursor<'_>, depth: usize) -> Result<GgufArray, Refused> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(unsupported(format!("arrays lie more than {MAX_DEPTH} deep in one another")));
    };
    let ty = cursor.value_type()?;
    let count = cursor.u64("the length of an array")?;
    macro_rules! numbers {
        ($variant:ident, $t:ty) => {{
            let (values, _) = cursor.values(count, size_of::<$t>())?.as_chunks();
            GgufArray::$variant(values.iter().map(|bytes| <$t>::from_le_bytes(*bytes)).collect())
        }};
    }
    Ok(match ty {
        ValueType::U8 => numbers!(U8, u8),
        ValueType::I8 => numbers!(I8, i8),
        ValueType::U16 => numbers!(U16, u16),
        ValueType::I16 => numbers!(I16, i16),
        ValueType::U32 => numbers!(U32, u32),
        ValueType::I32 => numbers!(I32, i32),
        ValueType::U64 => numbers!(U64, u64),
        ValueType::I64 => numbers!(I64, i64),
        ValueType::F32 => numbers!(F32, f32),
        ValueType::F64 => numbers!(F64, f64),
        ValueType::Bool => {
            let bytes = cursor.values(count, 1)?.iter();
            GgufArray::Bool(bytes.map(|byte| bool_of(*byte)).collect::<Result<_, _>>()?)
        }
        ValueType::String => {
            cursor.check_count(count, 8, "strings")?;
            GgufArray::String((0..count).map(|_| cursor.string()).collect::<Result<_, _>>()?)
        }
        ValueType::Array => {
            cursor.check_count(count, 12, "arrays")?;
            let arrays = (0..count).map(|_| read_array(cursor, depth));
            GgufArray::Array(arrays.collect::<Result<_, _>>()?)
        }
    })
}

/// A tensor whose own entry makes sense; the offset counts from the start of the data.
struct RawTensor {
    ty: GgmlType,
    shape: Vec<i32>,
    offset: u64,
    size: u64,
}

fn read_tensor(cursor: &mut Cursor<'_>) -> Result<RawTensor, Refused> {
    let n_dims = cursor.u32("the number of dimensions")? as usize;
    if n_dims > MAX_DIMS {
        return Err(format!("{n_dims} dimensions, ggml has at most {MAX_DIMS}").into());
    }
    let mut shape = Vec::with_capacity(n_dims);
    for _ in 0..n_dims {
        let dim = cursor.u64("a dimension")?;
        shape
            .push(i32::try_from(dim).map_err(|_| {
                Refused::from(format!("dimension {dim} is more than {}", i32::MAX))
            })?);
    }
    shape.reverse();
    let id = cursor.u32("the type")?;
    let offset = cursor.u64("the offset")?;
    let ty = GgmlType::from_id(id).ok_or_else(|| unsupported(GgmlType::describe_unknown(id)))?;
    let size = ty.byte_size(&shape).ok_or_else(|| {
        let block = ty.block_size();
        format!("{ty} {shape:?} has no size: rows hold blocks of {block}, or it overflows")
    })?;
    Ok(RawTensor { ty, shape, offset, size })
}

/// Finds where the tensors lie in the file.
fn place(
    raw: Vec<(String, RawTensor)>,
    data_start: Option<usize>,
    alignment: u32,
    file_size: usize,
) -> Result<Vec<(String, GgufTensor)>, Refused> {
    let place = |RawTensor { ty, shape, offset, size }| -> Result<GgufTensor, Refused> {
        if !u64::is_multiple_of(offset, alignment.into()) {
            return Err(format!("offset {offset} is not a multiple of {alignment}").into());
        }
        let overflow = || Refused::from(format!("offset {offset} and {size} bytes overflow"));
        let begin = data_start
            .and_then(|start| start.checked_add(usize::try_from(offset).ok()?))
            .ok_or_else(overflow)?;
        let end =
            usize::try_from(size).ok().and_then(|n| begin.checked_add(n)).ok_or_else(overflow)?;
        if end > file_size && size > 0 {
            return Err(format!("truncated: expected {end} bytes, file has {file_size}").into());
        }
        // A tensor without bytes has no place, and must not give a range outside of the file.
        let range = if size == 0 { 0..0 } else { begin..end };
        Ok(GgufTensor { ty, shape, range })
    };
    raw.into_iter()
        .map(|(name, tensor)| match place(tensor) {
            Ok(tensor) => Ok((name, tensor)),
            Err(refused) => Err(refused.of(&format!("tensor {name:?}"))),
        })
        .collect()
}

fn check_overlap(tensors: &[(String, GgufTensor)]) -> Result<(), Refused> {
    let filled = tensors.iter().filter(|(_, tensor)| !tensor.range.is_empty());
    let sorted: BTreeSet<(usize, usize, &str)> =
        filled.map(|(name, tensor)| (tensor.range.start, tensor.range.end, &**name)).collect();
    let mut before: Option<(usize, &str)> = None;
    for (begin, end, name) in sorted {
        if let Some((taken, other)) = before
            && begin < taken
        {
            let shared = end.min(taken);
            return Err(format!(
                "tensor {name:?}: bytes {begin}..{shared} also belong to {other:?}"
            )
            .into());
        }
        before = Some((end, name));
    }
    Ok(())
}

/// Reads from the front of the file and never past its end.
struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    fn remaining(&self) -> u64 {
        self.bytes.len().saturating_sub(self.position) as u64
    }

    fn take(&mut self, count: u64, what: &str) -> Result<&'a [u8], Refused> {
        let end = usize::try_from(count).ok().and_then(|n| self.position.checked_add(n));
        let Some(bytes) = end.and_then(|end| self.bytes.get(self.position..end)) else {
            let (position, size) = (self.position, self.bytes.len());
            return Err(format!(
                "truncated: {what} takes {count} bytes from byte {position}, file has {size}"
            )
            .into());
        };
        self.position += bytes.len();
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Refused> {
        let bytes = self.take(N as u64, what)?;
        Ok(bytes.first_chunk().copied().unwrap_or([0; N]))
    }

    fn u32(&mut self, what: &str) -> Result<u32, Refused> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, Refused> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    fn value_type(&mut self) -> Result<ValueType, Refused> {
        let id = self.u32("the type of a value")?;
        ValueType::from_id(id).ok_or_else(|| format!("unknown type of value {id}").into())
    }

    fn string(&mut self) -> Result<String, Refused> {
        let length = self.u64("the length of a string")?;
        let bytes = self.take(length, "a string")?;
        let text = str::from_utf8(bytes);
        Ok(text.map_err(|error| format!("string is not UTF-8: {error}"))?.to_owned())
    }

    fn name(&mut self, what: &str, position: u64) -> Result<String, Refused> {
        let name = self.string().map_err(|refused| refused.of(&format!("{what} {position}")))?;
        match name.len() {
            0 => Err(format!("{what} {position} has an empty name").into()),
            1..=MAX_NAME => Ok(name),
            length => Err(format!("{what} {position} has a name of {length} bytes").into()),
        }
    }

    /// Takes `count` values of `size` bytes.
    fn values(&mut self, count: u64, size: usize) -> Result<&'a [u8], Refused> {
        self.check_count(count, size as u64, "values")?;
        self.take(count.saturating_mul(size as u64), "an array")
    }

    /// Checks that `count` things of `least` bytes or more can be in the rest of the file.
    fn check_count(&self, count: u64, least: u64, what: &str) -> Result<(), Refused> {
        if count.checked_mul(least).is_some_and(|size| size <= self.remaining()) {
            return Ok(());
        }
        let (position, size) = (self.position, self.bytes.len());
        Err(format!("truncated: {count} {what} from byte {position}, file has {size}").into())
    }
}

#[cfg(test)]
mod tests;
