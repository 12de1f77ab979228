//! Every call of the file system fails in turn.

use std::fs;
use std::io;
use std::path::Path;

use mlx_lm::save::{Boundary, SaveError, Saved};

use super::model::{EXTRA, N_SHARDS, Tree, Workspace, exists, tree};
use super::refusals::io_kind;
use super::test_fs::{Call, Fault, TestFs};

const EIO: i32 = 5;
const EACCES: i32 = 13;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

/// The calls of an undisturbed save.
fn calls(prepare: impl Fn() -> Workspace, resume: bool) -> Vec<Call> {
    let fs = TestFs::new(None);
    prepare().save_on(&fs, resume).unwrap();
    fs.calls()
}

/// Whether the call that fails is there for convenience only, so that a save without it is as good.
fn may_be_ignored(call: &Call, workspace: &Workspace) -> bool {
    let below_partial = call.path.starts_with(workspace.partial());
    let name = call.path.file_name().unwrap_or_default().to_string_lossy();
    let is_journal = name.starts_with("journal.json") || call.path == workspace.partial();
    match call.name {
        // Sizes of what is copied, and whether what is removed is there.
        "available_space" | "metadata" | "symlink_metadata" => true,
        "open" => name.ends_with(".safetensors"),
        "create_new" | "write" | "rename" | "sync" if is_journal => true,
        // A resumed run's own directory in its parent; finished files in theirs.
        "sync" => call.path == workspace.dir || below_partial,
        "remove_file" | "remove_dir" => below_partial,
        _ => false,
    }
}

fn check_committed(
    result: &Result<Saved, SaveError>,
    call: &Call,
    fs_tree: &Tree,
    reference: &Tree,
) {
    match result {
        Ok(_) => assert_eq!(fs_tree, reference, "{call:?}"),
        Err(SaveError::NotDurable { unsynced, .. }) => {
            assert_eq!((unsynced.len(), call.name), (1, "sync"), "{unsynced:?} {call:?}");
            assert_eq!(unsynced[0].path.file_name(), named_at_destination(&call.path), "{call:?}");
            assert_eq!(fs_tree, reference, "{call:?}");
        }
        Err(SaveError::Incomplete { missing, unsynced, .. }) => {
            assert!(unsynced.is_empty() && missing.len() == 1, "{missing:?} {unsynced:?}");
            let name = &missing[0].name;
            assert!(EXTRA.contains(&name.as_str()) && call.path.ends_with(name), "{call:?}");
            let mut expected = reference.clone();
            expected.remove(name);
            assert_eq!(fs_tree, &expected, "{call:?}");
        }
        Err(error) => panic!("{error:?} {call:?}"),
    }
}

/// The directories in which a result grows are the destination when they are told of.
fn named_at_destination(path: &Path) -> Option<&std::ffi::OsStr> {
    match path.file_name() {
        Some(name) if name == "model" => Some("result".as_ref()),
        Some(_) if path.ends_with("result") => path.file_name(),
        name => name,
    }
}

/// Lets one call fail and checks that the result is what is reported, and can be completed.
fn check_fault(
    prepare: &dyn Fn() -> Workspace,
    resume: bool,
    at: usize,
    errno: i32,
    reference: &Tree,
) {
    let workspace = prepare();
    let source = tree(&workspace.source());
    let fs = TestFs::new(Some((at, Fault::Once(errno))));
    let result = workspace.save_on(&fs, resume);
    let call = fs.calls()[at].clone();
    let what = format!("call {at} {call:?} with {errno}: {result:?}");
    assert_eq!(tree(&workspace.source()), source, "{what}");
    if result.is_ok() {
        assert!(may_be_ignored(&call, &workspace), "{what}");
    }
    match &result {
        Err(SaveError::NotCommitted { error, partial }) => {
            assert!(!exists(&workspace.destination()), "{what}");
            let expected = io::Error::from_raw_os_error(errno).kind();
            assert_eq!(io_kind(error), Some(expected), "{what}");
            // An earlier run's is not looked for before the destination is sound.
            let was_seen = partial.is_some() || !resume;
            assert!(!was_seen || partial.is_some() == exists(&workspace.partial()), "{what}");
            let n_finished = partial.as_ref().and_then(|partial| partial.n_finished_shards);
            let saved = workspace.save_plainly(true).unwrap();
            assert!(n_finished.is_none_or(|n| n == saved.n_resumed_shards), "{what} {saved:?}");
            assert_eq!(tree(&workspace.destination()), *reference, "{what}");
            assert!(!exists(&workspace.partial()), "{what}");
        }
        committed => {
            let rename = call.path == workspace.dir && call.name == "sync";
            if !(rename && committed.is_err()) {
                check_committed(committed, &call, &tree(&workspace.destination()), reference);
            }
            let saved = committed.as_ref().unwrap_or_else(|error| error.saved().unwrap());
            assert_eq!(saved.left_over.is_some(), exists(&workspace.partial()), "{what}");
        }
    }
    assert_eq!(tree(&workspace.source()), source, "{what}");
}

#[test]
fn each_call_of_a_save() {
    let reference = Workspace::reference();
    let calls = calls(Workspace::new, false);
    assert!(calls.len() > 220, "{}", calls.len());
    for at in 0..calls.len() {
        for errno in [EIO, ENOSPC, EACCES] {
            check_fault(&Workspace::new, false, at, errno, &reference);
        }
    }
}

#[test]
fn each_call_of_a_resumed_save() {
    let reference = Workspace::reference();
    let interrupted = || {
        let workspace = Workspace::new();
        workspace.interrupt(900);
        assert!(exists(&workspace.partial()));
        workspace
    };
    let calls = calls(interrupted, true);
    for at in 0..calls.len() {
        for errno in [EIO, EROFS] {
            check_fault(&interrupted, true, at, errno, &reference);
        }
    }
}

/// Lets the first call fail for which `chosen` says so.
fn fail(errno: i32, chosen: impl Fn(&Call) -> bool) -> (Workspace, Result<Saved, SaveError>) {
    let at = calls(Workspace::new, false).iter().position(chosen).expect("there is such a call");
    let workspace = Workspace::new();
    let result = workspace.save_on(&TestFs::new(Some((at, Fault::Once(errno)))), false);
    (workspace, result)
}

fn is(call: &Call, name: &str, file: &str) -> bool {
    call.name == name && call.path.ends_with(file)
}

#[test]
fn a_failed_sync_is_named() {
    let shard = format!("model-00002-of-{N_SHARDS:05}.safetensors");
    for (file, boundary) in [
        (shard.as_str(), Boundary::File),
        ("config.json", Boundary::File),
        ("tokenizer.json", Boundary::File),
        ("modeling.py", Boundary::File),
        ("chat_templates", Boundary::Directory),
    ] {
        let (workspace, result) = fail(EIO, |call| is(call, "sync", file));
        let Err(SaveError::NotDurable { unsynced, saved }) = result else { panic!("{result:?}") };
        assert_eq!(unsynced[0].boundary, boundary);
        assert_eq!(unsynced[0].path, workspace.destination().join(file));
        assert_eq!(unsynced[0].error.raw_os_error(), Some(EIO));
        assert_eq!(saved.path, workspace.destination());
        assert_eq!(tree(&workspace.destination()), Workspace::reference());
    }
    // The last sync of the directory, and that of the one above behind the rename.
    let all = calls(Workspace::new, false);
    let rename = all.iter().position(|call| call.name == "rename_new").unwrap();
    for (at, boundary) in [(rename - 1, Boundary::Directory), (rename + 1, Boundary::Rename)] {
        assert_eq!(all[at].name, "sync");
        let workspace = Workspace::new();
        let result = workspace.save_on(&TestFs::new(Some((at, Fault::Once(EIO)))), false);
        let Err(SaveError::NotDurable { unsynced, .. }) = &result else { panic!("{result:?}") };
        assert_eq!((unsynced.len(), unsynced[0].boundary), (1, boundary));
        assert_eq!(unsynced[0].path.components(), workspace.destination().components());
        let text = result.unwrap_err().to_string();
        assert!(text.contains("power cut") && text.contains("result"), "{text}");
    }
}

#[test]
fn a_disk_that_is_full_when_it_syncs_commits_nothing() {
    let (workspace, result) = fail(ENOSPC, |call| is(call, "sync", "tokenizer.json"));
    let Err(SaveError::NotCommitted { error, .. }) = result else { panic!("{result:?}") };
    assert_eq!(io_kind(&error), Some(io::ErrorKind::StorageFull));
    assert!(!exists(&workspace.destination()));
}

#[test]
fn a_file_that_is_not_copied_is_named_and_one_that_matters_ends_it() {
    for file in EXTRA {
        let name = if file == "README.md" { "create_new" } else { "copy" };
        let (workspace, result) = fail(EACCES, |call| is(call, name, file));
        let Err(SaveError::Incomplete { missing, .. }) = &result else { panic!("{result:?}") };
        assert_eq!(missing[0].name, file);
        assert_eq!(
            missing[0].error.as_ref().and_then(io_kind),
            Some(io::ErrorKind::PermissionDenied)
        );
        assert!(!exists(&workspace.destination().join(file)));
        assert!(result.unwrap_err().to_string().contains(file));
    }
    for file in ["tokenizer.json", "chat_template.jinja", "chat_templates/tool_use.jinja"] {
        let (workspace, result) = fail(EACCES, |call| is(call, "copy", file));
        assert!(matches!(result, Err(SaveError::NotCommitted { .. })), "{result:?}");
        assert!(!exists(&workspace.destination()));
    }
}

#[test]
fn a_source_that_vanishes_is_told() {
    let workspace = Workspace::new();
    let mut progress = |p: mlx_lm::save::Progress| {
        if p.n_bytes == p.n_total_bytes {
            let _ = fs::remove_file(workspace.source().join("tokenizer.json"));
        }
        std::ops::ControlFlow::Continue(())
    };
    let result = workspace.save(super::model::Options {
        resume: false,
        fingerprint: "same",
        file_system: &mlx_lm::save::RealFileSystem,
        progress: &mut progress,
    });
    let error = result.unwrap_err();
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
    assert!(error.hints().iter().any(|hint| hint.contains("--resume")), "{:?}", error.hints());
}
