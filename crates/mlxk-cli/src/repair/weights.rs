//! Weight files in another container, with the same bytes for every tensor.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use mlx_lm::core::io::{
    NpyFile, NpzFile, SafetensorsFile, TensorLayout, write_safetensors_streamed,
};
use serde_json::{Map, Value, json};

use super::{Change, Plan};
use crate::error::CommandError;

const METADATA: &str = "__metadata__";

/// The longest header of a safetensors file.
const MAX_HEADER: u64 = 100_000_000;

/// A weight file made from another.
pub(crate) enum Rewrite {
    /// The arrays of an npz file.
    Npz(PathBuf),
    /// A safetensors file whose metadata names this format.
    Format(PathBuf, &'static str),
}

pub(super) fn plan(plan: &mut Plan) -> Result<(), CommandError> {
    if plan.has("weights_npz") {
        npz(plan);
    }
    if plan.has("metadata_missing") {
        metadata(plan)?;
    }
    Ok(())
}

fn npz(plan: &mut Plan) {
    let files = plan.files.iter().filter(|(name, _)| name.ends_with(".npz") && !name.contains('/'));
    let files: Vec<(String, PathBuf)> = files.map(|(n, p)| (n.clone(), p.clone())).collect();
    let total = files.len();
    for (i, (name, path)) in files.into_iter().enumerate() {
        let new = match total {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{total:05}.safetensors", i + 1),
        };
        plan.changes.insert(new, Change::Rewrite(Rewrite::Npz(path)));
        plan.changes.insert(name, Change::Remove);
    }
}

fn metadata(plan: &mut Plan) -> Result<(), CommandError> {
    // Packed weights can only be MLX's; of others nothing tells, and transformers has this default.
    let packed = plan.object("config.json")["quantization"].is_object();
    let format = if packed { "mlx" } else { "pt" };
    for (name, path) in plan.files.clone() {
        if name.ends_with(".safetensors") && !name.contains('/') {
            let file = SafetensorsFile::open(&path)?;
            if !file.metadata().contains_key("format") {
                plan.changes.insert(name, Change::Rewrite(Rewrite::Format(path, format)));
            }
        }
    }
    Ok(())
}

impl Rewrite {
    /// Lists the tensors with their sizes in bytes.
    pub(super) fn tensors(&self) -> Result<Vec<(String, u64)>, CommandError> {
        match self {
            Rewrite::Npz(path) => {
                let file = NpzFile::open(path)?;
                let tensors = file.names().map(|name| {
                    let array = file.read(name)?;
                    Ok((name.to_owned(), array.tensor_bytes().as_slice().len() as u64))
                });
                tensors.collect()
            }
            Rewrite::Format(path, _) => {
                let file = SafetensorsFile::open(path)?;
                let tensors = file.tensors();
                Ok(tensors.map(|(name, info)| (name.to_owned(), info.range.len() as u64)).collect())
            }
        }
    }

    /// Writes the new file.
    pub(super) fn execute(&self, to: &Path) -> Result<(), CommandError> {
        match self {
            Rewrite::Npz(path) => from_npz(path, to),
            Rewrite::Format(path, format) => {
                with_format(path, to, format).map_err(|error| CommandError::file(path, &error))
            }
        }
    }
}

impl fmt::Display for Rewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rewrite::Npz(path) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                write!(f, "the arrays of {name}, byte for byte")
            }
            Rewrite::Format(_, format) => {
                write!(f, "\"format\": {format:?} in its metadata; no tensor changes")
            }
        }
    }
}

fn from_npz(path: &Path, to: &Path) -> Result<(), CommandError> {
    let file = NpzFile::open(path)?;
    let names: Vec<&str> = file.names().collect();
    let mut layout = Vec::new();
    for name in &names {
        let array = file.read(name)?;
        let (dtype, shape) = (array.dtype(), array.shape().to_vec());
        layout.push(TensorLayout { name: (*name).to_owned(), dtype, shape });
    }
    write_safetensors_streamed(to, &layout, &[("format", "mlx")], |position, sink| {
        let array = file.read(names[position])?;
        sink.write(&row_major(&array))
    })?;
    Ok(())
}

/// Returns the elements with the last axis varying fastest, as safetensors has them.
fn row_major(array: &NpyFile) -> Vec<u8> {
    let bytes = array.tensor_bytes().as_slice();
    let shape: Vec<usize> = array.shape().iter().map(|&dim| dim as usize).collect();
    if !array.is_fortran_order() || shape.len() < 2 || bytes.is_empty() {
        return bytes.to_vec();
    }
    let size = bytes.len() / shape.iter().product::<usize>();
    let mut strides = vec![size; shape.len()];
    for axis in 1..shape.len() {
        strides[axis] = strides[axis - 1] * shape[axis - 1];
    }
    let mut index = vec![0; shape.len()];
    let mut out = Vec::with_capacity(bytes.len());
    while out.len() < bytes.len() {
        let at: usize = index.iter().zip(&strides).map(|(i, stride)| i * stride).sum();
        out.extend_from_slice(&bytes[at..at + size]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    out
}

/// Copies a safetensors file with one more entry in its metadata. The header is not read as
/// tensors, so that also element types that MLX lacks stay what they are.
fn with_format(path: &Path, to: &Path, format: &str) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its header is too long"));
    }
    let mut header = Vec::new();
    (&mut file).take(length).read_to_end(&mut header)?;
    let header: Map<String, Value> = serde_json::from_slice(&header)?;
    let mut metadata = match header.get(METADATA) {
        Some(Value::Object(metadata)) => metadata.clone(),
        _ => Map::new(),
    };
    metadata.insert("format".to_owned(), format.into());
    let mut changed = Map::new();
    changed.insert(METADATA.to_owned(), json!(metadata));
    changed.extend(header.into_iter().filter(|(key, _)| key != METADATA));
    let mut header = serde_json::to_vec(&changed)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut out = BufWriter::new(File::create_new(to)?);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    file.seek(io::SeekFrom::Start(8 + length))?;
    io::copy(&mut file, &mut out)?;
    out.flush()
}
