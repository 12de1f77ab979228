//! Weight files: what there is, whether each is sound, and whether they are all of the model.
//!
//! The loader's own reader goes first: what it opens is whole, and only its index is compared
//! further. Where it refuses, each file is looked at by itself, to say which and why.

use std::collections::{BTreeMap, BTreeSet};

use mlx_lm::core::ErrorKind;
use mlx_lm::core::io::{Checkpoint, GgufFile, IndexDisagreement, NpzFile, SafetensorsFile};
use serde::Deserialize;

use super::config::is_pointer;
use super::listing::{Entry, State, unfinished_downloads};
use super::{Findings, Model, codes};

pub(super) const INDEX: &str = "model.safetensors.index.json";
const PICKLES: [&str; 5] = [".bin", ".pt", ".pth", ".ckpt", ".pkl"];

/// Checks the weights; returns those files that are sound, for a look at their content.
pub(super) fn check(model: &Model<'_>, findings: &mut Findings) -> Vec<SafetensorsFile> {
    let listing = &model.listing;
    let top = listing.ending(&[".safetensors"], false);
    let nested = listing.ending(&[".safetensors"], true);
    let index = Index::read(model, INDEX, findings);
    let unfinished = unfinished_downloads(model.dir);
    let before = findings.list.len();
    let sound = if !top.is_empty() {
        safetensors(model, &top, index.as_ref(), findings)
    } else if index.as_ref().is_some_and(|index| !index.files.is_empty()) && nested.is_empty() {
        let index = index.as_ref().map(|index| index.files.len()).unwrap_or_default();
        let text = format!("{INDEX}: names {index} weight files, and none is there");
        findings.add(&codes::DOWNLOAD_INCOMPLETE, text);
        Vec::new()
    } else if !nested.is_empty() {
        findings.add(&codes::WEIGHTS_NESTED, format!("{}: in a subdirectory", nested[0].name));
        each_safetensors(model, &nested, findings)
    } else {
        other_formats(model, &unfinished, findings);
        Vec::new()
    };
    let complete = findings.list.len() == before || !findings.has_error();
    if complete && let Some(name) = unfinished.first() {
        let text = format!("{name}: the download of a file of this repository did not finish");
        findings.add(&codes::BLOB_INCOMPLETE, text);
    }
    sound
}

/// The files that an index names.
struct Index {
    files: BTreeSet<String>,
}

impl Index {
    fn read(model: &Model<'_>, name: &str, findings: &mut Findings) -> Option<Index> {
        #[derive(Deserialize)]
        struct Raw {
            weight_map: BTreeMap<String, String>,
        }
        let files = model.files.as_ref().filter(|_| !is_pointer(model, name))?;
        let parsed = match files.read(name).transpose()? {
            Ok(bytes) => serde_json::from_slice::<Raw>(&bytes).map_err(|e| e.to_string()),
            Err(error) => Err(model.short(&error.to_string())),
        };
        match parsed {
            Ok(raw) if raw.weight_map.is_empty() => {
                findings.add(&codes::INDEX_INVALID, format!("{name}: names no tensor"));
                None
            }
            Ok(raw) => Some(Index { files: raw.weight_map.into_values().collect() }),
            Err(error) => {
                findings.add(&codes::INDEX_INVALID, format!("{name}: {error}"));
                None
            }
        }
    }
}

fn safetensors(
    model: &Model<'_>,
    top: &[&Entry],
    index: Option<&Index>,
    findings: &mut Findings,
) -> Vec<SafetensorsFile> {
    let error = match Checkpoint::open_dir(model.dir) {
        Ok(checkpoint) => {
            unused(model, top, &checkpoint, findings);
            compare_index(model, &checkpoint, index, findings);
            metadata(checkpoint.files(), findings);
            return checkpoint.files().to_vec();
        }
        Err(error) => error,
    };
    let before = findings.list.len();
    let sound = each_safetensors(model, top, findings);
    absent(top, index, findings);
    if findings.list.len() == before {
        let text = model.short(&error.to_string());
        match error.kind() {
            ErrorKind::NotFound => {
                // Dead links and pointers are told already.
                let told = top.iter().any(|entry| !entry.is_file());
                if !told {
                    findings.add(&codes::SHARD_MISSING, text);
                }
            }
            ErrorKind::Format if text.contains("both hold tensor") => {
                findings.add(&codes::TENSOR_DUPLICATE, text);
            }
            _ if top.iter().any(|entry| !entry.is_file()) => {}
            _ => findings.add(&codes::WEIGHTS_CORRUPT, text),
        }
    }
    sound
}

/// Opens each file by itself.
fn each_safetensors(
    model: &Model<'_>,
    entries: &[&Entry],
    findings: &mut Findings,
) -> Vec<SafetensorsFile> {
    let mut sound = Vec::new();
    for entry in entries {
        match open(model, entry) {
            Some(Ok(file)) => sound.push(file),
            Some(Err((code, text))) => findings.add(code, text),
            None => {}
        }
    }
    metadata(&sound, findings);
    sound
}

/// Opens a file; nothing where it is no file, of which another finding tells.
fn open(
    model: &Model<'_>,
    entry: &Entry,
) -> Option<Result<SafetensorsFile, (&'static codes::Code, String)>> {
    let State::File(size) = entry.state else { return None };
    if size == 0 {
        return Some(Err((&codes::WEIGHTS_EMPTY, format!("{}: has no content", entry.name))));
    }
    Some(SafetensorsFile::open(model.dir.join(&entry.name)).map_err(|error| {
        let text = model.short(&error.to_string());
        let code = match error.kind() {
            ErrorKind::Unsupported => &codes::DTYPE_UNSUPPORTED,
            ErrorKind::Format if text.contains("truncated: expected") => &codes::WEIGHTS_TRUNCATED,
            ErrorKind::Io => &codes::FILE_UNREADABLE,
            _ => &codes::WEIGHTS_CORRUPT,
        };
        (code, text)
    }))
}

/// Tells of files that are promised and not there.
fn absent(top: &[&Entry], index: Option<&Index>, findings: &mut Findings) {
    let names: BTreeSet<&str> = top.iter().map(|entry| entry.name.as_str()).collect();
    let numbered: Vec<(&str, u32, u32)> =
        names.iter().filter_map(|name| numbering(name, ".safetensors")).collect();
    let totals: BTreeSet<u32> = numbered.iter().map(|(_, _, total)| *total).collect();
    if totals.len() > 1 {
        let totals: Vec<String> = totals.iter().map(u32::to_string).collect();
        let text = format!("the weight files are numbered as {}", totals.join(" and as "));
        findings.add(&codes::SHARD_TOTALS, text);
        return;
    }
    let gaps = gaps(&numbered);
    let indexed = index.map(|index| &index.files).into_iter().flatten();
    let unlisted: BTreeSet<&str> =
        indexed.map(String::as_str).filter(|name| !names.contains(name)).collect();
    let (first, count, total) = match (gaps.first(), unlisted.first()) {
        // Both tell the same where the index is that of these files; the numbering has no doubt.
        (Some(gap), _) => (gap.clone(), gaps.len(), totals.first().copied().unwrap_or(0) as usize),
        (None, Some(name)) if unlisted.len() < index.map_or(0, |index| index.files.len()) => {
            (format!("{name:?}"), unlisted.len(), index.map_or(0, |index| index.files.len()))
        }
        _ => return,
    };
    let text = format!("{count} of {total} weight files are absent, {first} the first of them");
    findings.add(&codes::SHARD_MISSING, text);
}

/// Takes `…-00002-of-00005` of a name apart: what stands before, number, total.
pub(super) fn numbering<'a>(name: &'a str, ending: &str) -> Option<(&'a str, u32, u32)> {
    let (rest, total) = name.strip_suffix(ending)?.rsplit_once("-of-")?;
    let (prefix, number) = rest.rsplit_once('-')?;
    let parse = |digits: &str| match digits.len() {
        1..=6 if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
        _ => None,
    };
    Some((prefix, parse(number)?, parse(total)?))
}

/// Lists the numbers that lack, in words.
fn gaps(numbered: &[(&str, u32, u32)]) -> Vec<String> {
    let mut sets: BTreeMap<(&str, u32), BTreeSet<u32>> = BTreeMap::new();
    for (prefix, number, total) in numbered {
        sets.entry((prefix, *total)).or_default().insert(*number);
    }
    let mut gaps = Vec::new();
    for ((prefix, total), numbers) in sets {
        let first = u32::from(!numbers.contains(&0));
        let lacking = (first..first + total).filter(|number| !numbers.contains(number));
        gaps.extend(lacking.map(|number| format!("number {number} of \"{prefix}-…\"")));
    }
    gaps
}

/// Looks at those safetensors files that the loader passes over.
fn unused(model: &Model<'_>, top: &[&Entry], checkpoint: &Checkpoint, findings: &mut Findings) {
    let used: BTreeSet<_> = checkpoint.files().iter().map(|file| file.path().file_name()).collect();
    for entry in top.iter().filter(|e| !used.contains(&Some(std::ffi::OsStr::new(&e.name)))) {
        if let Some(Err((_, text))) = open(model, entry) {
            findings.add(&codes::UNUSED_WEIGHTS_BROKEN, text);
        }
    }
}

/// Says in which way an index does not fit the files, which the loader opened in spite of it.
fn compare_index(
    model: &Model<'_>,
    checkpoint: &Checkpoint,
    index: Option<&Index>,
    findings: &mut Findings,
) {
    use IndexDisagreement as D;
    if index.is_none() {
        let files = checkpoint.files().len();
        if files > 1 && model.listing.get(INDEX).is_none() {
            let text = format!("{INDEX}: there is none for {files} weight files");
            findings.add(&codes::INDEX_MISSING, text);
        }
        return;
    }
    let report = checkpoint.report();
    let lacking = report.iter().filter(|d| matches!(d, D::AbsentTensor { .. })).count();
    let other = report.iter().find(|d| !matches!(d, D::AbsentTensor { .. } | D::TotalSize { .. }));
    if let Some(example) = other {
        let more = match report.len() - 1 {
            0 => String::new(),
            n => format!(", and {n} more disagreements with the files"),
        };
        findings.add(&codes::INDEX_STALE, format!("{example}{more}"));
    } else if lacking > 0 {
        let first = report.iter().find(|d| matches!(d, D::AbsentTensor { .. }));
        let first = first.map(ToString::to_string).unwrap_or_default();
        let more =
            if lacking > 1 { format!(", nor {} others", lacking - 1) } else { String::new() };
        findings.add(&codes::TENSOR_MISSING, format!("{first}{more}"));
    } else if let Some(total) = report.first() {
        findings.add(&codes::INDEX_TOTAL, total.to_string());
    }
}

fn metadata(files: &[SafetensorsFile], findings: &mut Findings) {
    let mut without = files.iter().filter(|file| !file.metadata().contains_key("format"));
    if let Some(first) = without.next() {
        let name = first.path().file_name().unwrap_or_default().to_string_lossy();
        let more = match without.count() {
            0 => String::new(),
            n => format!(", like {n} others"),
        };
        let text = format!("{name}: its metadata has no \"format\"{more}");
        findings.add(&codes::METADATA_MISSING, text);
    }
}

/// Looks for weights in other formats than safetensors.
fn other_formats(model: &Model<'_>, unfinished: &[String], findings: &mut Findings) {
    let listing = &model.listing;
    let npz = listing.ending(&[".npz"], false);
    let gguf = listing.ending(&[".gguf"], true);
    let pickles = listing.ending(&PICKLES, true);
    if !npz.is_empty() {
        npz_weights(model, &npz, findings);
    } else if !gguf.is_empty() {
        gguf_weights(model, &gguf, findings);
    } else if !pickles.is_empty() {
        pickle_weights(model, &pickles, findings);
    } else if let Some(name) = unfinished.first() {
        let text = format!("no weight file is there, and {name} is an unfinished download");
        findings.add(&codes::DOWNLOAD_INCOMPLETE, text);
    } else {
        findings.add(&codes::WEIGHTS_MISSING, "there is no weight file");
    }
}

/// Tells of files without content; returns those that have some.
fn with_content<'e>(entries: &[&'e Entry], findings: &mut Findings) -> Vec<&'e Entry> {
    let mut others = Vec::new();
    for entry in entries {
        match entry.state {
            State::File(0) => {
                findings.add(&codes::WEIGHTS_EMPTY, format!("{}: has no content", entry.name));
            }
            State::File(_) => others.push(*entry),
            _ => {}
        }
    }
    others
}

fn npz_weights(model: &Model<'_>, npz: &[&Entry], findings: &mut Findings) {
    for entry in with_content(npz, findings) {
        if let Err(error) = NpzFile::open(model.dir.join(&entry.name)) {
            findings.add(&codes::WEIGHTS_CORRUPT, model.short(&error.to_string()));
        }
    }
    let text = format!("{}: npz weights; they load nowhere but in old programs", npz[0].name);
    findings.add(&codes::WEIGHTS_NPZ, text);
}

fn gguf_weights(model: &Model<'_>, gguf: &[&Entry], findings: &mut Findings) {
    for entry in with_content(gguf, findings) {
        if let Err(error) = GgufFile::open(model.dir.join(&entry.name)) {
            findings.add(&codes::GGUF_CORRUPT, model.short(&error.to_string()));
        }
    }
    numbered_gaps(gguf, ".gguf", findings);
}

fn pickle_weights(model: &Model<'_>, pickles: &[&Entry], findings: &mut Findings) {
    const INDEX: &str = "pytorch_model.bin.index.json";
    with_content(pickles, findings);
    if let Some(index) = Index::read(model, INDEX, findings) {
        let absent: Vec<&String> =
            index.files.iter().filter(|name| model.listing.get(name).is_none()).collect();
        if let Some(first) = absent.first() {
            let text = format!("{INDEX}: names {} absent files, {first:?} first", absent.len());
            findings.add(&codes::SHARD_MISSING, text);
        }
    } else {
        numbered_gaps(pickles, ".bin", findings);
    }
    let text = format!("{}: pickle is never loaded, as it can run code", pickles[0].name);
    findings.add(&codes::WEIGHTS_PICKLE, text);
}

fn numbered_gaps(entries: &[&Entry], ending: &str, findings: &mut Findings) {
    let numbered: Vec<_> =
        entries.iter().filter_map(|entry| numbering(&entry.name, ending)).collect();
    let gaps = gaps(&numbered);
    if let Some(first) = gaps.first() {
        let text = format!("{} numbered weight files are absent, {first} first", gaps.len());
        findings.add(&codes::SHARD_MISSING, text);
    }
}
