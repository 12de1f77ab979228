//! Writing a file.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use super::header::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, MAX_DEPTH, MAX_DIMS, MAX_NAME};
use super::types::GgmlType;
use super::value::{GgufArray, GgufValue, ValueType};
use crate::error::{Error, ErrorKind, Result};
use crate::io::{TensorSink, atomic};

/// The longest name of a tensor that ggml reads.
const MAX_TENSOR_NAME: usize = 63;

const VERSION: u32 = 3;

/// What the header will say of a tensor whose bytes come later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufLayout {
    /// The name, which no other tensor of the file has: 1 to 63 bytes, as ggml demands.
    pub name: String,
    /// The element type.
    pub ty: GgmlType,
    /// The shape, row-major; at most four axes, the last of whole blocks.
    pub shape: Vec<i32>,
}

/// Writes a file of version 3 to `path`, which is replaced whole or not at all, as by
/// [`atomic::write_file`].
///
/// `data` is called once for each element of `layout`, with its position and a sink that takes
/// exactly the bytes of that tensor, in one piece or many. Tensors and metadata keep the order in
/// which they come, so that the same input always gives the same file. The alignment is what the
/// metadata say under `general.alignment`, else 32 bytes.
///
/// # Errors
/// Of kind [`InvalidArgument`](ErrorKind::InvalidArgument) when a name or key is empty, too long
/// or repeated, a shape does not fit its type, or arrays lie too deep in one another; whatever
/// `data` returns; otherwise when the file system fails.
pub fn write_gguf_streamed(
    path: impl AsRef<Path>,
    layout: &[GgufLayout],
    metadata: &[(&str, GgufValue)],
    data: impl FnMut(usize, &mut TensorSink<'_>) -> Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    let plan = Plan::new(layout, metadata).map_err(|text| {
        Error::new(ErrorKind::InvalidArgument, format!("{}: {text}", path.display()))
    })?;
    atomic::write_file(path, |file| plan.write(path, file, data))
}

/// A checked layout with the header that announces it.
struct Plan<'a> {
    layout: &'a [GgufLayout],
    /// Bytes of each tensor, and of the padding behind it.
    sizes: Vec<(u64, u64)>,
    /// With the padding behind it.
    header: Vec<u8>,
}

impl<'a> Plan<'a> {
    fn new(layout: &'a [GgufLayout], metadata: &[(&str, GgufValue)]) -> Result<Plan<'a>, String> {
        let mut header = MAGIC.to_vec();
        header.extend(VERSION.to_le_bytes());
        header.extend((layout.len() as u64).to_le_bytes());
        header.extend((metadata.len() as u64).to_le_bytes());

        let mut alignment = DEFAULT_ALIGNMENT;
        let mut keys = BTreeSet::new();
        for (key, value) in metadata {
            check_name("key", key, MAX_NAME)?;
            if !keys.insert(key) {
                return Err(format!("key {key:?} is given twice"));
            }
            if *key == ALIGNMENT_KEY {
                alignment = alignment_of(value)?;
            }
            put_string(&mut header, key);
            header.extend(value.value_type().id().to_le_bytes());
            put_value(&mut header, value).map_err(|text| format!("key {key:?}: {text}"))?;
        }

        let mut sizes = Vec::with_capacity(layout.len());
        let mut names = BTreeSet::new();
        let mut offset = 0u64;
        for GgufLayout { name, ty, shape } in layout {
            check_name("tensor", name, MAX_TENSOR_NAME)?;
            if !names.insert(name) {
                return Err(format!("tensor {name:?} is given twice"));
            }
            if shape.len() > MAX_DIMS {
                return Err(format!("tensor {name:?}: {shape:?} has more than {MAX_DIMS} axes"));
            }
            let no_size = || {
                let block = ty.block_size();
                format!("tensor {name:?}: {ty} {shape:?} has no size: rows hold blocks of {block}")
            };
            let size = ty.byte_size(shape).ok_or_else(no_size)?;
            let end = offset.checked_add(size).ok_or_else(no_size)?;
            let next = end.checked_next_multiple_of(alignment.into()).ok_or_else(no_size)?;
            put_string(&mut header, name);
            header.extend((shape.len() as u32).to_le_bytes());
            for dim in shape.iter().rev() {
                header.extend(i64::from(*dim).to_le_bytes());
            }
            header.extend(ty.id().to_le_bytes());
            header.extend(offset.to_le_bytes());
            sizes.push((size, next - end));
            offset = next;
        }
        let aligned = header.len().checked_next_multiple_of(alignment as usize);
        header.resize(aligned.ok_or("the header's size overflows")?, 0);
        Ok(Plan { layout, sizes, header })
    }

    fn write(
        &self,
        path: &Path,
        file: &mut dyn Write,
        mut data: impl FnMut(usize, &mut TensorSink<'_>) -> Result<()>,
    ) -> Result<()> {
        let io = |source| Error::io(path, source);
        file.write_all(&self.header).map_err(io)?;
        for (position, (tensor, &(size, padding))) in
            self.layout.iter().zip(&self.sizes).enumerate()
        {
            let kind = format_args!("{} {:?}", tensor.ty, tensor.shape);
            let mut sink = TensorSink::new(path, &tensor.name, &kind, &mut *file, size);
            data(position, &mut sink)?;
            sink.finish()?;
            std::io::copy(&mut std::io::Read::take(std::io::repeat(0), padding), file)
                .map_err(io)?;
        }
        Ok(())
    }
}

fn check_name(what: &str, name: &str, longest: usize) -> Result<(), String> {
    match name.len() {
        0 => Err(format!("a {what} cannot have an empty name")),
        length if length > longest => {
            Err(format!("{what} {name:?} has {length} bytes, more than {longest}"))
        }
        _ => Ok(()),
    }
}

fn alignment_of(value: &GgufValue) -> Result<u32, String> {
    match value {
        // More would make files of nothing but padding.
        GgufValue::U32(alignment) if alignment.is_power_of_two() && *alignment <= 1 << 20 => {
            Ok(*alignment)
        }
        _ => Err(format!("{ALIGNMENT_KEY} is {value}, not a U32 power of two up to 1048576")),
    }
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &GgufValue) -> Result<(), String> {
    match value {
        GgufValue::U8(value) => out.extend(value.to_le_bytes()),
        GgufValue::I8(value) => out.extend(value.to_le_bytes()),
        GgufValue::U16(value) => out.extend(value.to_le_bytes()),
        GgufValue::I16(value) => out.extend(value.to_le_bytes()),
        GgufValue::U32(value) => out.extend(value.to_le_bytes()),
        GgufValue::I32(value) => out.extend(value.to_le_bytes()),
        GgufValue::U64(value) => out.extend(value.to_le_bytes()),
        GgufValue::I64(value) => out.extend(value.to_le_bytes()),
        GgufValue::F32(value) => out.extend(value.to_le_bytes()),
        GgufValue::F64(value) => out.extend(value.to_le_bytes()),
        GgufValue::Bool(value) => out.push((*value).into()),
        GgufValue::String(text) => put_string(out, text),
        GgufValue::Array(values) => put_array(out, values, MAX_DEPTH)?,
    }
    Ok(())
}

fn put_array(out: &mut Vec<u8>, array: &GgufArray, depth: usize) -> Result<(), String> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(format!("arrays lie more than {MAX_DEPTH} deep in one another"));
    };
    let ty: ValueType = array.value_type();
    out.extend(ty.id().to_le_bytes());
    out.extend((array.len() as u64).to_le_bytes());
    macro_rules! numbers {
        ($values:expr) => {
            $values.iter().for_each(|value| out.extend(value.to_le_bytes()))
        };
    }
    match array {
        GgufArray::U8(values) => out.extend(values),
        GgufArray::I8(values) => numbers!(values),
        GgufArray::U16(values) => numbers!(values),
        GgufArray::I16(values) => numbers!(values),
        GgufArray::U32(values) => numbers!(values),
        GgufArray::I32(values) => numbers!(values),
        GgufArray::U64(values) => numbers!(values),
        GgufArray::I64(values) => numbers!(values),
        GgufArray::F32(values) => numbers!(values),
        GgufArray::F64(values) => numbers!(values),
        GgufArray::Bool(values) => out.extend(values.iter().map(|value| u8::from(*value))),
        GgufArray::String(values) => values.iter().for_each(|text| put_string(out, text)),
        GgufArray::Array(values) => {
            values.iter().try_for_each(|array| put_array(out, array, depth))?;
        }
    }
    Ok(())
}
