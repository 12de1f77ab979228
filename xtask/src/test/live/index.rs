//! An index of weights against the headers of the files that it names, read here a second time, so
//! that `mlxk health` is held against what lies on the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::Session;
use super::portfolio::Model;
use super::report::Row;

const INDEX: &str = "model.safetensors.index.json";

/// More than any header has.
const LARGEST_HEADER: u64 = 100 << 20;

/// What `mlxk health` calls a wrong index.
const CODES: &[&str] = &["index_invalid", "index_stale"];

pub fn check(session: &Session, model: &Model, row: &mut Row) -> Result<()> {
    let dir = session.dir(model)?;
    if !dir.is_dir() {
        row.notes.push("none of its files is here".to_owned());
        return Ok(());
    }
    let told = findings(&session.program.json(&["health", &model.name])?);
    match compare(&dir) {
        Ok(compared) => {
            let wrong: Vec<_> = told.iter().filter(|code| CODES.contains(&code.as_str())).collect();
            ensure!(wrong.is_empty(), "`mlxk health` says {wrong:?}, and it is {compared:?}");
            row.notes.push(match compared {
                Compared::Tensors(n) => format!("{n} tensors are in place"),
                Compared::NoIndex => "it has no index".to_owned(),
            });
            Ok(())
        }
        Err(error) if told.is_empty() => bail!("{error:#}, of which `mlxk health` says nothing"),
        Err(error) => bail!("{error:#}; `mlxk health` says {}", told.join(", ")),
    }
}

/// Returns the codes of what is more than a note.
fn findings(data: &Value) -> Vec<String> {
    let entries = ["healthy", "unhealthy"].map(|kind| data[kind].as_array());
    let findings = entries.into_iter().flatten().flatten();
    let findings = findings.filter_map(|entry| entry["findings"].as_array()).flatten();
    let serious = findings.filter(|finding| finding["severity"] != "note");
    serious.filter_map(|finding| finding["code"].as_str().map(str::to_owned)).collect()
}

#[derive(Debug, PartialEq)]
enum Compared {
    NoIndex,
    Tensors(usize),
}

/// Fails when a tensor is not where the index says, or is nowhere in the index.
fn compare(dir: &Path) -> Result<Compared> {
    let path = dir.join(INDEX);
    if !path.exists() {
        return Ok(Compared::NoIndex);
    }
    let index: Value = serde_json::from_slice(&fs::read(path)?).context(INDEX)?;
    let map = index["weight_map"].as_object().with_context(|| format!("{INDEX}: no weight_map"))?;
    let mut expected: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (tensor, file) in map {
        let file = file.as_str().with_context(|| format!("{INDEX}: {tensor} is in no file"))?;
        let is_name = Path::new(file).components().count() == 1 && !file.starts_with('.');
        ensure!(is_name, "{INDEX}: {file} is no name of a file");
        expected.entry(file).or_default().insert(tensor);
    }
    for (file, tensors) in &expected {
        let held = tensors_in(&dir.join(file)).context((*file).to_owned())?;
        let held: BTreeSet<&str> = held.iter().map(String::as_str).collect();
        if let Some(tensor) = tensors.difference(&held).next() {
            bail!("{file} has no {tensor}, which {INDEX} puts there");
        }
        if let Some(tensor) = held.difference(tensors).next() {
            bail!("{INDEX} has no {tensor}, which is in {file}");
        }
    }
    Ok(Compared::Tensors(map.len()))
}

/// Reads the names of a file's tensors.
fn tensors_in(path: &Path) -> Result<Vec<String>> {
    let mut file = File::open(path)?;
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    ensure!(length <= LARGEST_HEADER, "a header of {length} bytes");
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header)?;
    ensure!(header.len() as u64 == length, "the header ends early");
    let header: Value = serde_json::from_slice(&header)?;
    let header = header.as_object().context("the header is no object")?;
    Ok(header.keys().filter(|key| *key != "__metadata__").cloned().collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shard(tensors: &[&str]) -> Vec<u8> {
        let entry = |name: &&str| {
            ((*name).to_owned(), json!({"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}))
        };
        let header: serde_json::Map<String, Value> = tensors.iter().map(entry).collect();
        let header = Value::Object(header).to_string();
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()
    }

    #[test]
    fn tensors_are_looked_for_where_the_index_has_them() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &[u8]| fs::write(dir.path().join(name), content).unwrap();
        let index = |map: Value| write(INDEX, json!({"weight_map": map}).to_string().as_bytes());
        assert_eq!(compare(dir.path()).unwrap(), Compared::NoIndex);
        write("a.safetensors", &shard(&["x", "y"]));
        write("b.safetensors", &shard(&["z"]));
        let (a, b) = ("a.safetensors", "b.safetensors");
        index(json!({"x": a, "y": a, "z": b}));
        assert_eq!(compare(dir.path()).unwrap(), Compared::Tensors(3));
        for (map, says) in [
            (json!({"x": a, "z": b}), "has no y, which is in a.safetensors"),
            (json!({"x": a, "y": b, "z": b}), "has no y, which is in a.safetensors"),
            (json!({"x": a, "y": a, "z": b, "w": b}), "b.safetensors has no w"),
            (json!({"x": "c.safetensors"}), "c.safetensors"),
            (json!({"x": "../a.safetensors"}), "no name of a file"),
            (json!({"x": 1}), "x is in no file"),
            (json!(null), "no weight_map"),
        ] {
            index(map);
            let error = format!("{:#}", compare(dir.path()).unwrap_err());
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn notes_are_no_findings() {
        let finding = |code: &str, severity: &str| json!({"code": code, "severity": severity});
        let data = json!({
            "healthy": [{"findings": [finding("a", "note"), finding("b", "warning")]}],
            "unhealthy": [{"findings": [finding("c", "error")]}],
        });
        assert_eq!(findings(&data), ["b", "c"]);
    }

    #[test]
    fn broken_headers_are_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        for content in [&b""[..], b"\xff\xff\xff\xff\xff\xff\xff\xff{}", b"\x09\0\0\0\0\0\0\0{}"] {
            fs::write(&path, content).unwrap();
            assert!(tensors_in(&path).is_err());
        }
    }
}
