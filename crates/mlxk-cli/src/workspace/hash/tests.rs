use std::os::unix::fs::symlink;

use proptest::prelude::*;
use serde::Deserialize;

use super::super::patterns;
use super::*;

#[derive(Deserialize)]
struct Case {
    name: String,
    patterns: Option<Vec<String>>,
    entries: Vec<Entry>,
    aggregate: Option<String>,
    index: Option<Vec<Expected>>,
}

#[derive(Deserialize)]
struct Entry {
    path: String,
    text: Option<String>,
    hex: Option<String>,
    size: Option<u64>,
    link: Option<String>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Expected {
    path: String,
    size: u64,
    sha: String,
}

impl Entry {
    fn write(&self, root: &Path) {
        let path = root.join(&self.path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        if let Some(target) = &self.link {
            symlink(target.replace("{root}", root.to_str().unwrap()), path).unwrap();
        } else if let Some(size) = self.size {
            std::fs::write(&path, b"\x02\0\0\0\0\0\0\0{}").unwrap();
            File::options().write(true).open(path).unwrap().set_len(size).unwrap();
        } else if let Some(hex) = &self.hex {
            let byte = |i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
            let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
            std::fs::write(path, bytes).unwrap();
        } else {
            std::fs::write(path, self.text.as_ref().unwrap()).unwrap();
        }
    }
}

fn defaults() -> Vec<String> {
    patterns::DEFAULT.map(String::from).to_vec()
}

#[test]
fn every_tree_hashes_as_in_mlx_knife() {
    let cases: Vec<Case> =
        serde_json::from_value(fixtures::json("mlxk-cli/workspace_hash.json")).unwrap();
    assert!(cases.len() > 40);
    for case in cases {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        case.entries.iter().for_each(|entry| entry.write(&root));
        let hash = content_hash(&root, &case.patterns.unwrap_or_else(defaults)).ok();
        let index = hash.as_ref().map(|hash| {
            let entries = hash.index.iter();
            let shown = |e: &IndexEntry| Expected {
                path: e.path.clone(),
                size: e.size,
                sha: e.sha.clone(),
            };
            entries.map(shown).collect::<Vec<_>>()
        });
        assert_eq!(index, case.index, "{}", case.name);
        assert_eq!(hash.map(|hash| hash.aggregate), case.aggregate, "{}", case.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Only content and names count: not the order of making, nor times, nor what is excluded.
    #[test]
    fn equal_trees_have_equal_hashes(
        files in proptest::collection::btree_map("[a-cäé한]{1,3}(/[a-c]{1,2})?", ".{0,8}", 1..6),
        other in ".{0,8}",
    ) {
        let make = |files: &[(&String, &String)]| {
            let dir = tempfile::tempdir().unwrap();
            for (name, text) in files {
                let path = dir.path().join(name);
                // A name may be that of a directory already there, or below a file.
                let made = std::fs::create_dir_all(path.parent().unwrap());
                let _ = made.and_then(|()| std::fs::write(path, text));
            }
            dir
        };
        let files: Vec<_> = files
            .iter()
            .filter(|(name, _)| !files.keys().any(|k| k.starts_with(&format!("{name}/"))))
            .collect();
        let reversed: Vec<_> = files.iter().rev().copied().collect();
        let (a, b) = (make(&files), make(&reversed));
        std::fs::write(b.path().join("x.log"), "excluded").unwrap();
        let hash = |dir: &tempfile::TempDir| content_hash(dir.path(), &defaults()).unwrap();
        prop_assert_eq!(hash(&a).aggregate, hash(&b).aggregate);
        // And any other content of a file shows.
        let (name, text) = files[0];
        std::fs::write(b.path().join(name), &other).unwrap();
        prop_assert_eq!(hash(&a).aggregate == hash(&b).aggregate, *text == other);
    }
}
