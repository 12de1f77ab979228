//! Functions in files, in MLX's own format, which Python reads and writes too.
//!
//! MLX writes them. It does not read them here: its reader believes what a file says of counts,
//! shapes and dtypes, and what it makes of a wrong one reads out of bounds when computed. So
//! `format.rs` reads a file with every bound checked, and `replay.rs` computes it with this crate's
//! ops, which check their arguments like any other call.

mod format;
mod replay;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use crate::array::Array;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::Exporter;

use format::Function;

/// Keyword arguments.
pub type Kwargs = BTreeMap<String, Array>;

/// How [`FunctionExporter`] writes a function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportOptions {
    /// Whether a trace serves all shapes of the same rank.
    pub shapeless: bool,
    /// A text to go with the function.
    pub metadata: String,
}

/// Writes `f` as it does with `args` and `kwargs` to a file, which Python's `import_function` and
/// [`import_function`] read.
///
/// What `f` does is traced: arrays that it captures become part of the file, their values and not
/// how they came about if they have been computed. A `shapeless` trace serves all shapes of the
/// same rank that `f` does the same for; MLX does not check which.
///
/// # Errors
/// Those of `f`; when an op cannot be written; those of the file system. The file is then as it was.
///
/// ```
/// use mlx_core::{Array, transforms::export::{Kwargs, export_function, import_function}};
///
/// # fn main() -> mlx_core::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("scale.mlxfn");
/// let scale = |x: &[Array], _: &Kwargs| Ok(vec![(&x[0] * 2.0)?]);
/// let x = Array::from_slice(&[1.0f32, 2.0], &[2])?;
/// export_function(&path, scale, &[x.clone()], &Kwargs::new(), false)?;
/// let scale = import_function(&path)?;
/// assert_eq!(scale.call(&[x])?[0].to_vec::<f32>()?, [2.0, 4.0]);
/// # Ok(())
/// # }
/// ```
pub fn export_function(
    path: impl AsRef<Path>,
    f: impl Fn(&[Array], &Kwargs) -> Result<Vec<Array>> + 'static,
    args: &[Array],
    kwargs: &Kwargs,
    shapeless: bool,
) -> Result<()> {
    let options = ExportOptions { shapeless, ..ExportOptions::default() };
    let mut exporter = FunctionExporter::new(path, f, options)?;
    exporter.trace(args, kwargs)?;
    exporter.finish()
}

/// Writes several traces of a function, for arguments of different shapes, dtypes or names, to one
/// file.
///
/// ```
/// use mlx_core::{Array, transforms::export};
///
/// # fn main() -> mlx_core::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("sum.mlxfn");
/// let sum = |x: &[Array], _: &export::Kwargs| Ok(vec![x[0].sum(.., false)?]);
/// let mut exporter = export::FunctionExporter::new(&path, sum, Default::default())?;
/// let none = export::Kwargs::new();
/// exporter.trace(&[Array::from_slice(&[1.0f32], &[1])?], &none)?;
/// exporter.trace(&[Array::from_slice(&[1.0f32, 2.0], &[2])?], &none)?;
/// exporter.finish()?;
/// # Ok(())
/// # }
/// ```
pub struct FunctionExporter {
    exporter: Exporter,
    failed: bool,
    temporary: TempPath,
    path: PathBuf,
}

impl FunctionExporter {
    /// Starts a file, which is there once [`FunctionExporter::finish`] returns.
    ///
    /// # Errors
    /// When no file can be made beside `path`.
    pub fn new(
        path: impl AsRef<Path>,
        f: impl Fn(&[Array], &Kwargs) -> Result<Vec<Array>> + 'static,
        options: ExportOptions,
    ) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let dir = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix(".write-").suffix(".tmp");
        // A temporary file is private by default; this one becomes an ordinary file (minus umask).
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let temporary = builder.tempfile_in(dir).map_err(|e| Error::io(&path, e))?.into_temp_path();
        let name =
            temporary.to_str().and_then(|name| CString::new(name).ok()).ok_or_else(|| {
                let text = format!("{}: path is not text", path.display());
                Error::new(ErrorKind::InvalidArgument, text)
            })?;
        let f = Box::new(f);
        let exporter = Exporter::new(&name, f, options.shapeless, &options.metadata)?;
        Ok(FunctionExporter { exporter, failed: false, temporary, path })
    }

    /// Traces the function with these arguments and writes the trace.
    ///
    /// # Errors
    /// Those of the function; when an op cannot be written; when there is a trace of such arguments
    /// already; after an earlier error.
    pub fn trace(&mut self, args: &[Array], kwargs: &Kwargs) -> Result<()> {
        if self.failed {
            return Err(broken());
        }
        // Also where the function panics.
        self.failed = true;
        self.exporter.trace(args, kwargs)?;
        self.failed = false;
        Ok(())
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// After an earlier error; those of the file system.
    pub fn finish(self) -> Result<()> {
        if self.failed {
            return Err(broken());
        }
        drop(self.exporter);
        self.temporary.persist(&self.path).map_err(|e| Error::io(&self.path, e.error))
    }
}

fn broken() -> Error {
    Error::new(ErrorKind::InvalidArgument, "export: an earlier trace failed")
}

/// A function read by [`import_function`].
pub struct ImportedFunction {
    file: format::File,
}

/// Reads a function that [`export_function`] or Python wrote.
///
/// Its constants are read now. It computes on the current stream, like any function, whatever it
/// was written on.
///
/// # Errors
/// When the file cannot be read, is not what the format demands, or has an op that this crate
/// cannot replay: linear algebra, Fourier transforms, convolutions, quantized and custom kernels.
pub fn import_function(path: impl AsRef<Path>) -> Result<ImportedFunction> {
    Ok(ImportedFunction { file: format::File::read(path.as_ref())? })
}

impl ImportedFunction {
    /// Calls the function with positional arguments.
    ///
    /// # Errors
    /// When there is no trace of such arguments, or an op of it fails.
    pub fn call(&self, args: &[Array]) -> Result<Vec<Array>> {
        self.call_kwargs(args, &Kwargs::new())
    }

    /// Calls the function with positional and keyword arguments.
    ///
    /// # Errors
    /// When there is no trace of such arguments, or an op of it fails.
    pub fn call_kwargs(&self, args: &[Array], kwargs: &Kwargs) -> Result<Vec<Array>> {
        let matching = |function: &&Function| {
            let positional = function.inputs.len() - function.keywords.len();
            args.len() == positional
                && kwargs.keys().eq(function.keywords.iter())
                && args.iter().chain(kwargs.values()).zip(&function.inputs).all(|(x, input)| {
                    x.dtype() == input.dtype
                        && x.ndim() == input.shape.len()
                        && (self.file.shapeless || x.shape() == input.shape)
                })
        };
        let Some(function) = self.file.functions.iter().find(matching) else {
            let text = format!("import: no trace for {args:?} and {kwargs:?}");
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        };
        let inputs = args.iter().chain(kwargs.values()).cloned().collect();
        replay::run(function, inputs, self.file.shapeless)
    }

    /// Returns the text that was written with the function.
    pub fn metadata(&self) -> &str {
        &self.file.metadata
    }

    /// Returns the version of MLX that wrote the file.
    pub fn mlx_version(&self) -> &str {
        &self.file.version
    }
}
