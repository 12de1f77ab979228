//! `model.safetensors.index.json`, which tells in which file each tensor should be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use serde::Deserialize;

use super::checkpoint::Checkpoint;
use super::header::MAX_HEADER_SIZE;
use crate::error::{Error, Result};

/// The name of the index in a model's directory.
pub(super) const INDEX_NAME: &str = "model.safetensors.index.json";

/// A point in which the index of a checkpoint and the headers of its files differ.
///
/// The headers are right and the checkpoint is read by them. Many programs that convert models
/// leave a stale index behind, so this is worth telling but no error.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IndexDisagreement {
    /// The index is not JSON, or has no map from tensors to files.
    Unreadable {
        /// What is wrong with it.
        reason: String,
    },
    /// The index names a file that is not there, but nothing suggests that it is needed.
    AbsentFile {
        /// The absent file.
        file: String,
    },
    /// A file is there that the index does not name.
    UnlistedFile {
        /// The file.
        file: String,
    },
    /// The index names a tensor that no file holds.
    AbsentTensor {
        /// The tensor.
        tensor: String,
        /// The file in which the index has it.
        indexed: String,
    },
    /// A file holds a tensor that the index does not name.
    UnlistedTensor {
        /// The tensor.
        tensor: String,
        /// The file that holds it.
        found: String,
    },
    /// A tensor is in another file than the index says.
    OtherFile {
        /// The tensor.
        tensor: String,
        /// The file in which the index has it.
        indexed: String,
        /// The file that holds it.
        found: String,
    },
    /// The tensors' sizes do not add up to the index's total.
    TotalSize {
        /// The total of the index in bytes.
        indexed: u64,
        /// The total of the headers in bytes.
        found: u64,
    },
}

impl fmt::Display for IndexDisagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{INDEX_NAME}: ")?;
        match self {
            Self::Unreadable { reason } => f.write_str(reason),
            Self::AbsentFile { file } => write!(f, "names the absent file {file:?}"),
            Self::UnlistedFile { file } => write!(f, "does not name the file {file:?}"),
            Self::AbsentTensor { tensor, indexed } => {
                write!(f, "has tensor {tensor:?} in {indexed:?}, no file holds it")
            }
            Self::UnlistedTensor { tensor, found } => {
                write!(f, "does not name tensor {tensor:?} of {found:?}")
            }
            Self::OtherFile { tensor, indexed, found } => {
                write!(f, "has tensor {tensor:?} in {indexed:?}, it is in {found:?}")
            }
            Self::TotalSize { indexed, found } => {
                write!(f, "has a total_size of {indexed} bytes, the tensors have {found}")
            }
        }
    }
}

/// The content of an index.
pub(super) struct Index {
    weight_map: BTreeMap<String, String>,
    total_size: Option<u64>,
}

impl Index {
    /// Reads the index of `dir`. The outer error says that the file system failed, the inner one
    /// that the index makes no sense; `None` is no index.
    pub(super) fn read(dir: &Path) -> Result<Option<Result<Index, String>>> {
        let path = dir.join(INDEX_NAME);
        let size = match path.metadata() {
            Ok(metadata) if metadata.is_file() => metadata.len(),
            Ok(_) => return Ok(Some(Err("not a regular file".into()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(&path, error)),
        };
        if size > MAX_HEADER_SIZE as u64 {
            return Ok(Some(Err(format!("{size} bytes are too many for an index"))));
        }
        let text = std::fs::read(&path).map_err(|source| Error::io(&path, source))?;
        Ok(Some(Index::parse(&text)))
    }

    fn parse(text: &[u8]) -> Result<Index, String> {
        #[derive(Deserialize)]
        struct Raw {
            weight_map: BTreeMap<String, String>,
            // Informative only, so whatever it holds does not spoil the map.
            #[serde(default)]
            metadata: serde_json::Value,
        }
        let raw: Raw = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let total_size = &raw.metadata["total_size"];
        // Some programs write the total as a float.
        let total_size =
            total_size.as_u64().or_else(|| total_size.as_f64().map(|size| size as u64));
        Ok(Index { weight_map: raw.weight_map, total_size })
    }

    /// Returns the names of the files, sorted.
    pub(super) fn files(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }

    /// Tells whether `checkpoint` holds every tensor that should be in one of `files`.
    pub(super) fn covers(&self, files: &BTreeSet<&str>, checkpoint: &Checkpoint) -> bool {
        let mut indexed = self.weight_map.iter().filter(|(_, file)| files.contains(file.as_str()));
        indexed.all(|(tensor, _)| checkpoint.get(tensor).is_some())
    }

    /// Lists everything in which the index and the headers differ.
    pub(super) fn compare(&self, checkpoint: &Checkpoint) -> Vec<IndexDisagreement> {
        let name_of =
            |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let present: BTreeSet<String> =
            checkpoint.files().iter().map(|file| name_of(file.path())).collect();
        let indexed_files = self.files();
        let mut report = Vec::new();

        for file in &indexed_files {
            if !present.contains(*file) {
                report.push(IndexDisagreement::AbsentFile { file: (*file).into() });
            }
        }
        for file in present.iter().filter(|file| !indexed_files.contains(file.as_str())) {
            report.push(IndexDisagreement::UnlistedFile { file: file.clone() });
        }
        for (tensor, indexed) in &self.weight_map {
            let (tensor, indexed) = (tensor.clone(), indexed.clone());
            match checkpoint.get(&tensor).map(|(file, _)| name_of(file.path())) {
                None => report.push(IndexDisagreement::AbsentTensor { tensor, indexed }),
                Some(found) if found != indexed => {
                    report.push(IndexDisagreement::OtherFile { tensor, indexed, found });
                }
                Some(_) => {}
            }
        }
        for (tensor, file, _) in checkpoint.tensors() {
            if !self.weight_map.contains_key(tensor) {
                let found = name_of(file.path());
                report.push(IndexDisagreement::UnlistedTensor { tensor: tensor.into(), found });
            }
        }
        let found = checkpoint.total_bytes();
        if let Some(indexed) = self.total_size.filter(|indexed| *indexed != found) {
            report.push(IndexDisagreement::TotalSize { indexed, found });
        }
        report
    }
}
