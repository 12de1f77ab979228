//! The weight files of one model.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use super::file::SafetensorsFile;
use super::header::TensorInfo;
use super::index::{Index, IndexDisagreement};
use crate::error::{Error, ErrorKind, Result};
use crate::io::TensorBytes;

/// The tensors of one or more safetensors files as one map.
///
/// ```
/// use mlx_core::io::Checkpoint;
/// use mlx_core::{Array, Weights, save_safetensors};
///
/// # fn main() -> mlx_core::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path();
/// save_safetensors(dir.join("model.safetensors"), [("model.norm", &Array::from(1.0f32))], &[])?;
/// let checkpoint = Checkpoint::open_dir(dir)?;
/// let weights = Weights::from_checkpoint(&checkpoint, |name| Some(name.replace("model.", "")));
/// assert_eq!(weights.array("norm", &[])?.item::<f32>()?, 1.0);
/// weights.finish()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Checkpoint {
    files: Vec<SafetensorsFile>,
    /// File and position in it of every tensor, sorted by name.
    by_name: Vec<(u32, u32)>,
    report: Vec<IndexDisagreement>,
}

impl Checkpoint {
    /// Opens the weight files of a model's directory.
    ///
    /// These are `model*.safetensors` and what `model.safetensors.index.json` names beside them;
    /// if there are none, every other `*.safetensors` but `consolidated*`; if there are none,
    /// `consolidated*.safetensors`. Hidden files and subdirectories are passed over.
    ///
    /// The headers tell which tensors there are. The index serves to notice absent files and is
    /// otherwise only compared, see [`report`](Self::report). An index that names none of the
    /// files, as some converters leave behind, is no sign of absent files if the files at hand
    /// are complete by their own numbering.
    ///
    /// # Errors
    /// - [`NotFound`](ErrorKind::NotFound): the directory holds no weights, only weights in other
    ///   formats, or not all of them: a file that the index names, that a numbering such as
    ///   `-00001-of-00005` promises, or that is a link to nowhere. All absent files are named.
    /// - [`Format`](ErrorKind::Format): a file is unsound, see [`SafetensorsFile::open`], or two
    ///   files hold the same tensor.
    pub fn open_dir(dir: impl AsRef<Path>) -> Result<Checkpoint> {
        let dir = dir.as_ref();
        let listing = Listing::read(dir)?;
        let (index, unreadable) = match Index::read(dir)? {
            Some(Ok(index)) => (Some(index), None),
            Some(Err(reason)) => (None, Some(IndexDisagreement::Unreadable { reason })),
            None => (None, None),
        };
        let indexed = index.as_ref().map_or_else(BTreeSet::new, Index::files);

        let shards = listing.shards(&indexed);
        let absent_by_index: BTreeSet<&str> =
            indexed.iter().filter(|file| !shards.contains(**file)).copied().collect();
        let mut absent = numbering_gaps(&shards);
        absent
            .extend(listing.dangling.iter().filter(|name| shards.contains(name.as_str())).cloned());
        if !absent.is_empty() || shards.is_empty() && !absent_by_index.is_empty() {
            absent.extend(absent_by_index.into_iter().map(String::from));
            return Err(absent_error(dir, &absent));
        }
        if shards.is_empty() {
            return Err(listing.no_weights_error(dir));
        }

        let files = shards.iter().map(|name| SafetensorsFile::open(dir.join(name)));
        let mut checkpoint = Checkpoint::from_files(files.collect::<Result<_>>()?)?;
        checkpoint.report.extend(unreadable);
        if let Some(index) = &index {
            let stale = absent_by_index.len() == indexed.len() && complete_by_name(&shards);
            if !stale && !index.covers(&absent_by_index, &checkpoint) {
                let absent = absent_by_index.into_iter().map(String::from).collect();
                return Err(absent_error(dir, &absent));
            }
            checkpoint.report = index.compare(&checkpoint);
        }
        Ok(checkpoint)
    }

    /// Joins opened files.
    ///
    /// # Errors
    /// Of kind [`Format`](ErrorKind::Format) when two of them hold a tensor of the same name.
    pub fn from_files(files: Vec<SafetensorsFile>) -> Result<Checkpoint> {
        let places = files.iter().enumerate().flat_map(|(file, opened)| {
            (0..opened.len()).map(move |position| (file as u32, position as u32))
        });
        let mut by_name: Vec<(u32, u32)> = places.collect();
        let name_at =
            |&(file, position): &(u32, u32)| files[file as usize].tensor_at(position as usize).0;
        by_name.sort_by(|a, b| name_at(a).cmp(name_at(b)));
        if let Some(pair) = by_name.windows(2).find(|pair| name_at(&pair[0]) == name_at(&pair[1])) {
            let [a, b] = [pair[0], pair[1]].map(|(file, _)| files[file as usize].path().display());
            let text = format!("{a} and {b} both hold tensor {:?}", name_at(&pair[0]));
            return Err(Error::new(ErrorKind::Format, text));
        }
        Ok(Checkpoint { files, by_name, report: Vec::new() })
    }

    /// Returns the files, in the order of their names if they come from a directory.
    pub fn files(&self) -> &[SafetensorsFile] {
        &self.files
    }

    /// Returns in what the directory's index and the headers differ; empty without an index.
    pub fn report(&self) -> &[IndexDisagreement] {
        &self.report
    }

    /// Returns the number of tensors.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Tells whether the files hold no tensor.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Lists the tensors, file by file, in the order of their bytes.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &SafetensorsFile, &TensorInfo)> {
        self.files
            .iter()
            .flat_map(|file| file.tensors().map(move |(name, info)| (name, file, info)))
    }

    /// Finds a tensor and the file that holds it.
    pub fn get(&self, name: &str) -> Option<(&SafetensorsFile, &TensorInfo)> {
        let at = |&(file, position): &(u32, u32)| {
            let file = &self.files[file as usize];
            (file, file.tensor_at(position as usize))
        };
        let found = self.by_name.binary_search_by(|place| at(place).1.0.cmp(name)).ok()?;
        let (file, (_, info)) = at(&self.by_name[found]);
        Some((file, info))
    }

    /// Returns the bytes of a tensor.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.get(name)?.0.bytes(name)
    }

    /// Returns the bytes of a tensor together with a share of the mapping that keeps them.
    pub fn tensor_bytes(&self, name: &str) -> Option<TensorBytes> {
        self.get(name)?.0.tensor_bytes(name)
    }

    /// Returns the size of all tensors in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.tensors().map(|(_, _, info)| info.range.len() as u64).sum()
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tensors, files) = (self.len(), self.files.len());
        write!(f, "Checkpoint({tensors} tensors in {files} files)")
    }
}

/// The files of a directory; what is not UTF-8 or hidden is nobody's weight file.
struct Listing {
    names: BTreeSet<String>,
    /// Those of `names` that are links to nowhere, as an interrupted download leaves them.
    dangling: BTreeSet<String>,
}

impl Listing {
    fn read(dir: &Path) -> Result<Listing> {
        let io = |source| Error::io(dir, source);
        let (mut names, mut dangling) = (BTreeSet::new(), BTreeSet::new());
        for entry in dir.read_dir().map_err(io)? {
            let entry = entry.map_err(io)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with('.') {
                continue;
            }
            match entry.path().metadata() {
                Ok(metadata) if metadata.is_dir() => continue,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    dangling.insert(name.clone());
                }
                // Anything else is told when the file is opened, if it comes to that.
                Ok(_) | Err(_) => {}
            }
            names.insert(name);
        }
        Ok(Listing { names, dangling })
    }

    /// Chooses the weight files.
    fn shards(&self, indexed: &BTreeSet<&str>) -> BTreeSet<String> {
        let choose = |choice: &dyn Fn(&str) -> bool| -> BTreeSet<String> {
            let names = self.names.iter().filter(|name| name.ends_with(".safetensors"));
            names.filter(|name| choice(name)).cloned().collect()
        };
        let consolidated = |name: &str| name.starts_with("consolidated");
        [
            choose(&|name| name.starts_with("model") || indexed.contains(name)),
            choose(&|name| !consolidated(name)),
            choose(&consolidated),
        ]
        .into_iter()
        .find(|shards| !shards.is_empty())
        .unwrap_or_default()
    }

    fn no_weights_error(&self, dir: &Path) -> Error {
        const PICKLES: [&str; 5] = [".bin", ".pt", ".pth", ".ckpt", ".pkl"];
        const OTHERS: [(&[&str], &str); 3] = [
            (&[".gguf"], "GGUF is not supported yet"),
            (&[".npz"], "npz weights are not supported yet"),
            (&PICKLES, "pickle is never loaded, as it can run code; convert it to safetensors"),
        ];
        let mut text = format!("{}: no safetensors weights", dir.display());
        for (suffixes, note) in OTHERS {
            let is_other = |name: &&String| suffixes.iter().any(|suffix| name.ends_with(suffix));
            let others: Vec<&String> = self.names.iter().filter(is_other).collect();
            if !others.is_empty() {
                text += &format!("; found {} ({note})", join(others.iter().copied()));
            }
        }
        Error::new(ErrorKind::NotFound, text)
    }
}

fn absent_error(dir: &Path, absent: &BTreeSet<String>) -> Error {
    let (count, names) = (absent.len(), join(absent));
    let text = format!(
        "{}: {count} weight files are absent: {names}; download the model again",
        dir.display()
    );
    Error::new(ErrorKind::NotFound, text)
}

/// Joins names, each quoted, but not without end.
fn join<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    const MOST: usize = 64;
    let names: Vec<String> = names.into_iter().map(|name| format!("{name:?}")).collect();
    let shown = names[..names.len().min(MOST)].join(", ");
    match names.len().saturating_sub(MOST) {
        0 => shown,
        hidden => format!("{shown} and {hidden} more"),
    }
}

/// The `-00001-of-00005` of a file name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Numbering<'a> {
    prefix: &'a str,
    width: usize,
    total: u32,
}

impl<'a> Numbering<'a> {
    /// Takes a file name apart into its numbering and its number.
    fn parse(name: &'a str) -> Option<(Numbering<'a>, u32)> {
        let (rest, total) = name.strip_suffix(".safetensors")?.rsplit_once("-of-")?;
        let (prefix, number) = rest.rsplit_once('-')?;
        let parse = |digits: &str| match digits.len() {
            1..=6 if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
            _ => None,
        };
        let numbering = Numbering { prefix, width: number.len(), total: parse(total)? };
        Some((numbering, parse(number)?))
    }

    fn name(&self, number: u32) -> String {
        let Numbering { prefix, width, total } = self;
        format!("{prefix}-{number:0width$}-of-{total:0width$}.safetensors")
    }
}

/// Lists the files that the numbering of `shards` promises and that are not among them.
fn numbering_gaps(shards: &BTreeSet<String>) -> BTreeSet<String> {
    let mut numberings: BTreeMap<Numbering<'_>, BTreeSet<u32>> = BTreeMap::new();
    for (numbering, number) in shards.iter().filter_map(|name| Numbering::parse(name)) {
        numberings.entry(numbering).or_default().insert(number);
    }
    let mut gaps = BTreeSet::new();
    for (numbering, numbers) in numberings {
        // Most count from 1, some from 0.
        let first = if numbers.contains(&0) { 0 } else { 1 };
        let promised = first..first + numbering.total;
        gaps.extend(promised.filter(|number| !numbers.contains(number)).map(|n| numbering.name(n)));
    }
    gaps
}

/// Tells whether the names of `shards`, which have no numbering gaps, promise a whole model.
fn complete_by_name(shards: &BTreeSet<String>) -> bool {
    shards.iter().all(|name| name == "model.safetensors" || Numbering::parse(name).is_some())
}

#[cfg(test)]
mod tests;
