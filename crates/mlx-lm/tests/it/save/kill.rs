//! The process is killed at every call of the file system.
//!
//! A child runs this test binary again, with the test [`child`] alone, which saves and kills itself
//! by SIGKILL. What is left is then completed here.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use super::model::{Tree, Workspace, exists, tree};
use super::test_fs::{Fault, TestFs};

const DIRECTORY: &str = "MLX_LM_TEST_SAVE_IN";
const CALL: &str = "MLX_LM_TEST_SAVE_KILLED_AT";
const SIGKILL: i32 = 9;

/// What the child does; nothing in a run of all tests.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIRECTORY) else { return };
    let at = std::env::var(CALL).unwrap().parse().unwrap();
    let fs = TestFs::new(Some((at, Fault::Kill)));
    Workspace::at(dir.into()).save_on(&fs, true).unwrap();
}

/// Runs a child that is killed at a call; returns whether it was, and did not end before.
fn killed(workspace: &Workspace, at: usize) -> bool {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "save::kill::child", "--test-threads=1"])
        .env(DIRECTORY, &workspace.dir)
        .env(CALL, at.to_string())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    match status.signal() {
        Some(signal) => assert_eq!(signal, SIGKILL),
        None => assert!(status.success(), "the child failed at call {at}"),
    }
    status.signal().is_some()
}

/// Checks that the destination is absent or complete, and completes it.
fn check_left(workspace: &Workspace, reference: &Tree, what: &str) {
    let is_committed = exists(&workspace.destination());
    if is_committed {
        assert_eq!(tree(&workspace.destination()), *reference, "{what}");
    }
    match workspace.save_plainly(true) {
        Ok(_) => assert!(!exists(&workspace.partial()), "{what}"),
        // All that was to do was to remove what is no longer needed.
        Err(error) => {
            assert!(
                is_committed && error.to_string().contains("already exists"),
                "{what}: {error}"
            );
        }
    }
    assert_eq!(tree(&workspace.destination()), *reference, "{what}");
}

#[test]
fn at_each_call() {
    let reference = Workspace::reference();
    let source = tree(&Workspace::new().source());
    let mut at = 0;
    loop {
        let workspace = Workspace::new();
        if !killed(&workspace, at) {
            break;
        }
        check_left(&workspace, &reference, &format!("killed at call {at}"));
        assert_eq!(tree(&workspace.source()), source);
        at += 1;
    }
    assert!(at > 220, "only {at} calls");
}

#[test]
fn again_and_again() {
    let reference = Workspace::reference();
    let workspace = Workspace::new();
    let mut n_kills = 0;
    // Enough for one weight file each time.
    while killed(&workspace, 70 + n_kills) {
        n_kills += 1;
        assert!(n_kills < 100, "no progress");
    }
    assert!(n_kills > 2, "{n_kills}");
    check_left(&workspace, &reference, "after several kills");
}
