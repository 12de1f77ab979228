//! Destinations, plans and disks that are refused before anything is written.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use mlx_lm::ErrorKind;
use mlx_lm::save::{FileSystem, RealFileSystem, SaveError};
use serde_json::json;

use super::model::{Options, Workspace, exists, go_on, tree};
use super::test_fs::{Fault, TestFs};

fn options(file_system: &dyn FileSystem) -> Options<'_> {
    Options { resume: false, fingerprint: "", file_system, progress: Box::leak(Box::new(go_on)) }
}

/// Checks that nothing changed below the workspace and that the text says what it should.
fn check_refused(workspace: &Workspace, to: &Path, kind: ErrorKind, says: &[&str]) {
    for resume in [false, true] {
        let before = tree(&workspace.dir);
        let options = Options { resume, ..options(&RealFileSystem) };
        let error = workspace.save_to(to, options).unwrap_err();
        assert!(matches!(error, SaveError::NotCommitted { partial: None, .. }), "{error:?}");
        assert_eq!(error.kind(), kind, "{error}");
        let text = format!("{error} {:?}", error.hints());
        assert!(says.iter().all(|word| text.contains(word)), "{text}");
        assert_eq!(tree(&workspace.dir), before, "{text}");
    }
}

#[test]
fn what_exists_is_never_replaced() {
    let workspace = Workspace::new();
    let at = |name: &str| workspace.dir.join(name);
    fs::create_dir(at("directory")).unwrap();
    fs::write(at("file"), "x").unwrap();
    symlink(at("source"), at("link")).unwrap();
    symlink(at("nowhere"), at("dangling")).unwrap();
    symlink("loop", at("loop")).unwrap();
    for name in ["directory", "file", "link", "dangling", "loop", "source"] {
        let says: &[&str] = if name == "source" { &["source"] } else { &["already exists", name] };
        check_refused(&workspace, &at(name), ErrorKind::InvalidArgument, says);
    }
    assert!(!exists(&at("nowhere")));
}

#[test]
fn places_that_cannot_be() {
    let workspace = Workspace::new();
    let at = |name: &str| workspace.dir.join(name);
    fs::create_dir(at("plain")).unwrap();
    symlink(at("source"), at("alias")).unwrap();
    let invalid = ErrorKind::InvalidArgument;
    for (path, kind, says) in [
        (at("source/result"), invalid, "source"),
        (at("source/chat_templates/result"), invalid, "source"),
        (at("alias/result"), invalid, "source"),
        (at("plain/../source/result"), invalid, "source"),
        (at("absent/result"), ErrorKind::NotFound, "create"),
        (at("source/config.json/result"), ErrorKind::InvalidArgument, "not a directory"),
        (at("plain/.."), invalid, "name of a new directory"),
        (PathBuf::from("/"), invalid, "name of a new directory"),
    ] {
        check_refused(&workspace, &path, kind, &[says]);
    }
}

#[test]
fn a_parent_may_be_a_link_and_names_may_begin_alike() {
    let workspace = Workspace::new();
    fs::create_dir(workspace.dir.join("real")).unwrap();
    symlink("real", workspace.dir.join("alias")).unwrap();
    for to in ["alias/result", "source-4bit", "real/source"] {
        workspace.save_to(&workspace.dir.join(to), options(&RealFileSystem)).unwrap();
    }
    assert_eq!(tree(&workspace.dir.join("real/result")), Workspace::reference());
}

#[test]
fn a_name_without_a_directory_is_in_the_current_one() {
    // Refused for what is there, so that nothing is written to where the tests run.
    let workspace = Workspace::new();
    let error = workspace.save_to(Path::new("Cargo.toml"), options(&RealFileSystem)).unwrap_err();
    assert!(error.to_string().contains("already exists"), "{error}");
}

#[test]
fn a_disk_that_is_too_small() {
    let small = |n_bytes| TestFs::new(None).with_space(n_bytes);
    let workspace = Workspace::new();
    let before = tree(&workspace.dir);
    let error = workspace.save_on(&small(1 << 20), false).unwrap_err();
    let SaveError::NotCommitted { error: cause, partial: None } = &error else {
        panic!("{error:?}")
    };
    assert!(error.to_string().contains("too few"), "{error}");
    assert!(error.hints()[0].contains("disk space"), "{:?}", error.hints());
    assert_eq!(io_kind(cause), Some(io::ErrorKind::StorageFull));
    assert_eq!(tree(&workspace.dir), before);
    workspace.save_on(&small(2 << 20), false).unwrap();
}

/// Returns the kind of the file system's error behind an error.
pub(super) fn io_kind(error: &mlx_lm::Error) -> Option<io::ErrorKind> {
    let source = std::error::Error::source(error)?;
    Some(source.downcast_ref::<io::Error>()?.kind())
}

#[test]
fn read_only_places() {
    const EROFS: i32 = 30;
    let workspace = Workspace::new();
    let fs_calls = TestFs::new(None);
    workspace.save_on(&fs_calls, false).unwrap();
    let at = fs_calls.calls().iter().position(|call| call.name == "create_dir").unwrap();
    let workspace = Workspace::new();
    let error = workspace.save_on(&TestFs::new(Some((at, Fault::Once(EROFS)))), false).unwrap_err();
    assert!(error.hints()[0].contains("read-only"), "{:?}", error.hints());
    assert!(!exists(&workspace.partial()) && !exists(&workspace.destination()));

    let closed = workspace.dir.join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    let result = workspace.save_to(&closed.join("result"), options(&RealFileSystem));
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
    // The superuser may write anywhere, and then there is nothing to see here.
    if let Err(error) = result {
        assert!(error.hints()[0].contains("may write"), "{:?}", error.hints());
        assert!(tree(&closed).is_empty());
    }
}

#[test]
fn plans_that_make_no_files() {
    let check = |change: &dyn Fn(&mut Workspace), says: &str| {
        let mut workspace = Workspace::new();
        change(&mut workspace);
        let destination = workspace.destination();
        check_refused(&workspace, &destination, ErrorKind::InvalidArgument, &[says]);
    };
    let renamed = |name: &'static str| {
        move |workspace: &mut Workspace| workspace.tensors[3].name = name.to_owned()
    };
    let shaped = |shape: &'static [i32]| {
        move |workspace: &mut Workspace| workspace.tensors[3].shape = shape.to_vec()
    };
    check(&|workspace| workspace.tensors.clear(), "no tensors");
    check(&renamed("layers.9.weight"), "given twice");
    check(&renamed(""), "name");
    check(&renamed("__metadata__"), "__metadata__");
    check(&shaped(&[-1]), "no valid size");
    check(&shaped(&[i32::MAX; 5]), "no valid size");
    check(&|workspace| workspace.config = json!([1]), "not a JSON object");
}

#[test]
fn a_model_larger_than_any_disk() {
    let mut workspace = Workspace::new();
    for tensor in &mut workspace.tensors[..3] {
        tensor.shape = vec![1 << 30, 1 << 30];
    }
    let error = workspace.save_plainly(false).unwrap_err();
    assert!(error.to_string().contains("too few"), "{error}");
    assert!(!exists(&workspace.partial()) && !exists(&workspace.destination()));
}
