use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::dtype::Dtype;
use crate::io::{TensorData, write_safetensors};

const INDEX: &str = "model.safetensors.index.json";

/// Makes a directory of files, given as `name: tensors separated by spaces`; every tensor is one
/// byte.
fn dir_of(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, tensors) in files {
        write(dir.path(), name, tensors);
    }
    dir
}

fn write(dir: &Path, file: &str, tensors: &str) {
    let data = TensorData { dtype: Dtype::Uint8, shape: vec![1], bytes: vec![7].into() };
    let tensors = tensors.split_whitespace().map(|name| (name, data.clone()));
    write_safetensors(dir.join(file), tensors, &[]).unwrap();
}

fn index(entries: &[(&str, &str)]) -> String {
    let weight_map: BTreeMap<_, _> = entries.iter().copied().collect();
    serde_json::json!({ "weight_map": weight_map }).to_string()
}

fn check_files(dir: &TempDir, expected: &[&str]) -> Checkpoint {
    let checkpoint = Checkpoint::open_dir(dir.path()).unwrap();
    let files =
        checkpoint.files().iter().map(|file| file.path().file_name().unwrap().to_str().unwrap());
    assert_eq!(files.collect::<Vec<_>>(), expected);
    checkpoint
}

fn check_refused(dir: &TempDir, kind: ErrorKind, fragments: &[&str]) {
    let error = Checkpoint::open_dir(dir.path()).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    assert!(text.starts_with(&dir.path().display().to_string()), "{text}");
    for fragment in fragments {
        assert!(text.contains(fragment), "expected {fragment:?} in {text:?}");
    }
}

#[test]
fn chooses_files() {
    let cases: [(&[&str], &[&str]); 7] = [
        (&["model.safetensors"], &["model.safetensors"]),
        (
            &[
                "model-00002-of-00002.safetensors",
                "model-00001-of-00002.safetensors",
                "adapters.safetensors",
                "consolidated.safetensors",
            ],
            &["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
        ),
        (
            &["weights.safetensors", "b.safetensors", "consolidated.safetensors"],
            &["b.safetensors", "weights.safetensors"],
        ),
        (&["._w.safetensors", "w.safetensors"], &["w.safetensors"]),
        (&["consolidated.safetensors"], &["consolidated.safetensors"]),
        (
            &["model.safetensors", "._model.safetensors", "model.safetensors.tmp"],
            &["model.safetensors"],
        ),
        (
            &["model-0-of-2.safetensors", "model-1-of-2.safetensors"],
            &["model-0-of-2.safetensors", "model-1-of-2.safetensors"],
        ),
    ];
    for (names, expected) in cases {
        let files: Vec<(&str, &str)> = names.iter().map(|name| (*name, *name)).collect();
        let dir = dir_of(&files);
        std::fs::create_dir(dir.path().join("model-of-old.safetensors")).unwrap();
        let checkpoint = check_files(&dir, expected);
        assert!(checkpoint.report().is_empty());
    }
}

#[test]
fn joins_files() {
    let dir = dir_of(&[
        ("model-00001-of-00002.safetensors", "c a"),
        ("model-00002-of-00002.safetensors", "b"),
    ]);
    let checkpoint = Checkpoint::open_dir(dir.path()).unwrap();
    let order: Vec<&str> = checkpoint.tensors().map(|(name, _, _)| name).collect();
    assert_eq!(order, ["c", "a", "b"]);
    assert_eq!((checkpoint.len(), checkpoint.is_empty(), checkpoint.total_bytes()), (3, false, 3));
    let (file, info) = checkpoint.get("b").unwrap();
    assert!(file.path().ends_with("model-00002-of-00002.safetensors"));
    assert_eq!(info.shape, [1]);
    assert_eq!(checkpoint.bytes("a").unwrap(), [7]);
    let bytes = checkpoint.tensor_bytes("c").unwrap();
    assert!(checkpoint.get("d").is_none() && checkpoint.bytes("").is_none());
    drop(checkpoint);
    assert_eq!(bytes.as_slice(), [7], "the mapping outlives the checkpoint");
}

#[test]
fn reads_the_index_of_a_whole_model() {
    let dir = dir_of(&[
        ("model-00001-of-00002.safetensors", "a"),
        ("model-00002-of-00002.safetensors", "b c"),
    ]);
    let text = r#"{"metadata": {"total_size": 3.0}, "weight_map": {"a": "model-00001-of-00002.safetensors",
        "b": "model-00002-of-00002.safetensors", "c": "model-00002-of-00002.safetensors"}}"#;
    std::fs::write(dir.path().join(INDEX), text).unwrap();
    assert!(Checkpoint::open_dir(dir.path()).unwrap().report().is_empty());
}

#[test]
fn an_indexed_file_of_any_name_belongs() {
    let dir =
        dir_of(&[("model.safetensors", "a"), ("mtp.safetensors", "b"), ("other.safetensors", "c")]);
    let text = index(&[("a", "model.safetensors"), ("b", "mtp.safetensors")]);
    std::fs::write(dir.path().join(INDEX), text).unwrap();
    assert!(check_files(&dir, &["model.safetensors", "mtp.safetensors"]).report().is_empty());
}

#[test]
fn absent_files_are_named() {
    let of_3 = [
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
    ];
    let whole = [("a", of_3[0]), ("b", of_3[1]), ("c", of_3[2])];
    type Case<'a> = (&'a [(&'a str, &'a str)], Option<String>, &'a [&'a str]);
    // Files, index, fragments.
    let cases: [Case<'_>; 8] = [
        (
            &[(of_3[1], "b")],
            None,
            &["2 weight files are absent", of_3[0], of_3[2], "download the model again"],
        ),
        (&[(of_3[1], "b")], Some(index(&whole)), &["2 weight files", of_3[0], of_3[2]]),
        (&[], Some(index(&whole)), &["3 weight files", of_3[0], of_3[1], of_3[2]]),
        (&[(of_3[0], "a")], Some("{".into()), &["2 weight files", of_3[1], of_3[2]]),
        (&[("x-1-of-2.safetensors", "a")], None, &["1 weight files", "\"x-2-of-2.safetensors\""]),
        // Nothing in the names shows that the one file is not the model.
        (&[("model-vision.safetensors", "v")], Some(index(&whole)), &["3 weight files"]),
        (&[("consolidated.safetensors", "x")], Some(index(&whole)), &["3 weight files"]),
        // One of the indexed files is there, so the index is not stale.
        (
            &[("model.safetensors", "a")],
            Some(index(&[("a", "model.safetensors"), ("b", "vision.safetensors")])),
            &["1 weight files", "vision.safetensors"],
        ),
    ];
    for (files, index, fragments) in cases {
        let dir = dir_of(files);
        if let Some(index) = index {
            std::fs::write(dir.path().join(INDEX), index).unwrap();
        }
        check_refused(&dir, ErrorKind::NotFound, fragments);
    }
}

#[cfg(unix)]
#[test]
fn a_link_to_nowhere_is_an_absent_file() {
    let dir = dir_of(&[("model-00001-of-00002.safetensors", "a"), ("blob", "b")]);
    let link = dir.path().join("model-00002-of-00002.safetensors");
    std::os::unix::fs::symlink("blob", &link).unwrap();
    assert_eq!(Checkpoint::open_dir(dir.path()).unwrap().len(), 2);
    std::fs::remove_file(dir.path().join("blob")).unwrap();
    check_refused(
        &dir,
        ErrorKind::NotFound,
        &["1 weight files", "model-00002-of-00002.safetensors"],
    );
}

#[test]
fn a_stale_index_is_reported() {
    use IndexDisagreement::*;
    // The converted model is complete by its own names and shares no file with the index.
    let dir = dir_of(&[("model.safetensors", "new.a new.scales")]);
    let [first, second] =
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"].map(String::from);
    std::fs::write(dir.path().join(INDEX), index(&[("a", &first), ("b", &second)])).unwrap();
    let (model, s) = (|| "model.safetensors".to_owned(), String::from);
    let checkpoint = check_files(&dir, &["model.safetensors"]);
    assert_eq!(
        checkpoint.report(),
        [
            AbsentFile { file: first.clone() },
            AbsentFile { file: second.clone() },
            UnlistedFile { file: model() },
            AbsentTensor { tensor: s("a"), indexed: first },
            AbsentTensor { tensor: s("b"), indexed: second },
            UnlistedTensor { tensor: s("new.a"), found: model() },
            UnlistedTensor { tensor: s("new.scales"), found: model() },
        ]
    );

    // The file is absent, but others hold its tensors.
    let dir = dir_of(&[("model-x.safetensors", "a b")]);
    let text = r#"{"metadata": {"total_size": 9}, "weight_map": {"a": "model-x.safetensors", "b": "model-y.safetensors"}}"#;
    std::fs::write(dir.path().join(INDEX), text).unwrap();
    let checkpoint = check_files(&dir, &["model-x.safetensors"]);
    assert_eq!(
        checkpoint.report(),
        [
            AbsentFile { file: s("model-y.safetensors") },
            OtherFile {
                tensor: s("b"),
                indexed: s("model-y.safetensors"),
                found: s("model-x.safetensors")
            },
            TotalSize { indexed: 9, found: 2 },
        ]
    );
    assert_eq!(
        checkpoint.report()[1].to_string(),
        r#"model.safetensors.index.json: has tensor "b" in "model-y.safetensors", it is in "model-x.safetensors""#
    );
}

#[test]
fn a_broken_index_is_reported() {
    for (text, fragment) in [
        ("", "EOF while parsing"),
        ("[]", "expected struct"),
        ("{}", "missing field `weight_map`"),
        (r#"{"weight_map": {"a": 1}}"#, "expected a string"),
        (r#"{"weight_map": ["a"]}"#, "expected a map"),
    ] {
        let dir = dir_of(&[("model.safetensors", "a")]);
        std::fs::write(dir.path().join(INDEX), text).unwrap();
        let checkpoint = check_files(&dir, &["model.safetensors"]);
        let [disagreement] = checkpoint.report() else { panic!("{:?}", checkpoint.report()) };
        assert!(matches!(disagreement, IndexDisagreement::Unreadable { .. }));
        assert!(disagreement.to_string().contains(fragment), "{disagreement}");
    }
    // What the index says of itself is of no weight.
    let dir = dir_of(&[("model.safetensors", "a")]);
    let text = r#"{"metadata": [1], "weight_map": {"a": "model.safetensors"}, "x": 1}"#;
    std::fs::write(dir.path().join(INDEX), text).unwrap();
    assert!(Checkpoint::open_dir(dir.path()).unwrap().report().is_empty());
}

#[test]
fn the_same_tensor_twice_is_refused() {
    let dir = dir_of(&[("model-a.safetensors", "x y"), ("model-b.safetensors", "y z")]);
    let fragments = ["model-a.safetensors and ", "model-b.safetensors both hold tensor \"y\""];
    check_refused(&dir, ErrorKind::Format, &fragments);
}

#[test]
fn an_unsound_file_is_named() {
    let dir = dir_of(&[("model-a.safetensors", "x")]);
    std::fs::write(dir.path().join("model-b.safetensors"), [0; 500]).unwrap();
    check_refused(&dir, ErrorKind::Format, &["model-b.safetensors: not a safetensors file"]);
}

#[test]
fn no_weights_says_what_there_is_instead() {
    let cases: [(&[&str], &[&str]); 4] = [
        (&["config.json"], &["no safetensors weights"]),
        (&["x-Q4.gguf"], &["found \"x-Q4.gguf\" (GGUF is not supported yet)"]),
        (&["weights.00.npz"], &["found \"weights.00.npz\" (npz weights are not supported yet)"]),
        (
            &["pytorch_model-1-of-2.bin", "consolidated.00.pth"],
            &[
                "found \"consolidated.00.pth\", \"pytorch_model-1-of-2.bin\" (pickle is never loaded",
                "convert it",
            ],
        ),
    ];
    for (names, fragments) in cases {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        check_refused(&dir, ErrorKind::NotFound, fragments);
    }
    let dir = tempfile::tempdir().unwrap();
    let absent = Checkpoint::open_dir(dir.path().join("absent")).unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::NotFound);
}

#[test]
fn takes_numberings_apart() {
    let parse = |name| {
        let numbering = Numbering::parse(name);
        numbering.map(|(Numbering { prefix, total, .. }, number)| (prefix, number, total))
    };
    assert_eq!(parse("model-00002-of-00005.safetensors"), Some(("model", 2, 5)));
    assert_eq!(parse("a-of-b-1-of-3.safetensors"), Some(("a-of-b", 1, 3)));
    for name in [
        "model.safetensors",
        "model-1-of-.safetensors",
        "model--of-2.safetensors",
        "1-of-2.safetensors",
        "m-1-of-2.bin",
        "m-1-of-9999999.safetensors",
        "m-+1-of-2.safetensors",
    ] {
        assert_eq!(parse(name), None, "{name}");
    }
}
