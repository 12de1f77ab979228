//! Where a writer puts the bytes of one tensor.

use std::fmt;
use std::io::Write;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};

/// Takes the bytes of one tensor on their way into a file.
pub struct TensorSink<'a> {
    path: &'a Path,
    name: &'a str,
    /// Type and shape, for error texts.
    kind: &'a dyn fmt::Display,
    file: &'a mut dyn Write,
    missing: u64,
}

impl<'a> TensorSink<'a> {
    pub(super) fn new(
        path: &'a Path,
        name: &'a str,
        kind: &'a dyn fmt::Display,
        file: &'a mut dyn Write,
        size: u64,
    ) -> TensorSink<'a> {
        TensorSink { path, name, kind, file, missing: size }
    }

    /// Writes the next bytes of the tensor.
    ///
    /// # Errors
    /// When they are more than type and shape ask for, or the file system fails.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let count = bytes.len() as u64;
        if count > self.missing {
            return Err(self.size_error(format_args!("{} bytes too many", count - self.missing)));
        }
        self.file.write_all(bytes).map_err(|source| Error::io(self.path, source))?;
        self.missing -= count;
        Ok(())
    }

    pub(super) fn finish(self) -> Result<()> {
        match self.missing {
            0 => Ok(()),
            missing => Err(self.size_error(format_args!("{missing} bytes too few"))),
        }
    }

    fn size_error(&self, what: fmt::Arguments<'_>) -> Error {
        let (path, name, kind) = (self.path.display(), self.name, self.kind);
        let text = format!("{path}: tensor {name:?}: {what} for {kind}");
        Error::new(ErrorKind::InvalidArgument, text)
    }
}
