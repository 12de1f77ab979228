//! Runs that were interrupted, and what the next one makes of what they left.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::symlink;

use mlx_lm::ErrorKind;
use mlx_lm::save::{Partial, RealFileSystem, SaveError};

use super::model::{N_SHARDS, Options, Workspace, exists, go_on, tree};

/// A workspace in which a run was stopped when so many weight files were finished.
fn interrupted(n_finished: usize) -> Workspace {
    let workspace = Workspace::new();
    let sizes: Vec<u64> = {
        let other = Workspace::new();
        other.save_plainly(false).unwrap();
        let files = tree(&other.destination());
        let weights = files.iter().filter(|(name, _)| name.ends_with(".safetensors"));
        weights.map(|(_, bytes)| bytes.len() as u64).collect()
    };
    let error = workspace.interrupt(sizes[..n_finished].iter().sum::<u64>() + 1);
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(!exists(&workspace.destination()));
    workspace
}

fn partial(error: &SaveError) -> Option<&Partial> {
    match error {
        SaveError::NotCommitted { partial, .. } => partial.as_ref(),
        _ => panic!("{error:?}"),
    }
}

#[test]
fn an_interrupted_run_leaves_nothing_or_what_can_be_resumed() {
    let workspace = Workspace::new();
    let error = workspace.interrupt(1);
    assert_eq!((error.kind(), partial(&error)), (ErrorKind::Cancelled, None));
    assert_eq!(fs::read_dir(&workspace.dir).unwrap().count(), 1, "only the source");

    let workspace = interrupted(3);
    let error = workspace.save_plainly(false).unwrap_err();
    let expected =
        Partial { path: workspace.partial(), n_finished_shards: Some(3), n_shards: N_SHARDS };
    assert_eq!(partial(&error), Some(&expected));
    assert!(error.hints().iter().any(|hint| hint.contains("--resume")), "{:?}", error.hints());
    let saved = workspace.save_plainly(true).unwrap();
    assert_eq!(saved.n_resumed_shards, 3);
    assert_eq!(tree(&workspace.destination()), Workspace::reference());
    assert!(!exists(&workspace.partial()));
}

#[test]
fn progress_counts_what_was_there() {
    let workspace = interrupted(3);
    let mut seen = Vec::new();
    let result = workspace.save(Options {
        resume: true,
        fingerprint: "same",
        file_system: &RealFileSystem,
        progress: &mut |p| {
            seen.push(p);
            ControlFlow::Continue(())
        },
    });
    result.unwrap();
    let last = seen.last().unwrap();
    assert_eq!(last.n_bytes, last.n_total_bytes);
    assert!(last.n_resumed_bytes > 0 && last.n_resumed_bytes < last.n_bytes, "{last:?}");
}

#[test]
fn an_interrupted_check_keeps_all() {
    let workspace = interrupted(3);
    let before = tree(&workspace.partial());
    let result = workspace.save(Options {
        resume: true,
        fingerprint: "same",
        file_system: &RealFileSystem,
        progress: &mut |_| ControlFlow::Break(()),
    });
    assert_eq!(partial(&result.unwrap_err()).unwrap().n_finished_shards, Some(3));
    assert_eq!(tree(&workspace.partial()), before);
}

#[test]
fn resuming_nothing_begins() {
    let workspace = Workspace::new();
    assert_eq!(workspace.save_plainly(true).unwrap().n_resumed_shards, 0);
    assert_eq!(tree(&workspace.destination()), Workspace::reference());
    let error = workspace.save_plainly(true).unwrap_err();
    assert!(error.to_string().contains("already exists"), "{error}");
}

#[test]
fn another_source_or_other_options_are_refused() {
    let check = |workspace: &Workspace, fingerprint: &str| {
        let before = tree(&workspace.partial());
        let result = workspace.save(Options {
            resume: true,
            fingerprint,
            file_system: &RealFileSystem,
            progress: &mut go_on,
        });
        let error = result.unwrap_err();
        assert!(error.to_string().contains("another source or other options"), "{error}");
        assert!(error.hints()[0].contains("remove"), "{:?}", error.hints());
        assert_eq!(tree(&workspace.partial()), before);
    };
    let mut workspace = interrupted(2);
    check(&workspace, "other");
    workspace.tensors[32].shape = vec![1];
    check(&workspace, "same");
}

/// Changes what an interrupted run left, resumes, and returns how many files were used.
fn resume_after(change: impl Fn(&Workspace)) -> usize {
    let workspace = interrupted(3);
    change(&workspace);
    let saved = workspace.save_plainly(true).unwrap();
    assert_eq!(tree(&workspace.destination()), Workspace::reference());
    assert!(!exists(&workspace.partial()));
    saved.n_resumed_shards
}

#[test]
fn a_damaged_file_is_made_again() {
    let shard = |w: &Workspace, n: usize| {
        w.partial().join(format!("model/model-{n:05}-of-{N_SHARDS:05}.safetensors"))
    };
    let flipped = resume_after(|w| {
        let mut bytes = fs::read(shard(w, 2)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(shard(w, 2), bytes).unwrap();
    });
    let cut = resume_after(|w| fs::write(shard(w, 1), "x").unwrap());
    let gone = resume_after(|w| fs::remove_file(shard(w, 3)).unwrap());
    let linked = resume_after(|w| {
        fs::rename(shard(w, 1), w.dir.join("elsewhere")).unwrap();
        symlink(w.dir.join("elsewhere"), shard(w, 1)).unwrap();
    });
    assert_eq!([flipped, cut, gone, linked], [2; 4]);
    let none = resume_after(|w| fs::remove_dir_all(w.partial().join("model")).unwrap());
    assert_eq!(none, 0);
    // What is not in the journal is not in the result, whatever it is.
    let more = resume_after(|w| {
        fs::create_dir_all(w.partial().join("model/deep/er")).unwrap();
        fs::write(w.partial().join("model/deep/er/file"), "x").unwrap();
        symlink(w.source(), w.partial().join("model/config.json")).unwrap();
    });
    assert_eq!(more, 3);
}

#[test]
fn what_no_run_left_is_told_and_kept() {
    let check = |change: &dyn Fn(&Workspace), says: &str| {
        let workspace = interrupted(3);
        change(&workspace);
        let before = tree(&workspace.dir);
        for resume in [false, true] {
            let error = workspace.save_plainly(resume).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Format, "{error}");
            assert!(error.to_string().contains(says), "{error}");
            assert_eq!(partial(&error).unwrap().n_finished_shards, None);
            assert!(error.hints()[0].contains("remove"), "{:?}", error.hints());
            assert_eq!(tree(&workspace.dir), before);
        }
    };
    let journal = |w: &Workspace| w.partial().join("journal.json");
    check(&|w| fs::write(journal(w), "{").unwrap(), "journal.json");
    check(&|w| fs::write(journal(w), vec![b' '; (16 << 20) + 1]).unwrap(), "larger than");
    check(&|w| fs::remove_file(journal(w)).unwrap(), "no journal");
    check(&|w| fs::write(w.partial().join("mine"), "x").unwrap(), "mine");
    let newer = |w: &Workspace| {
        let text = fs::read_to_string(journal(w)).unwrap();
        fs::write(journal(w), text.replace("\"version\": 1", "\"version\": 2")).unwrap();
    };
    check(&newer, "version 2");
    let replaced = |w: &Workspace| {
        fs::remove_dir_all(w.partial()).unwrap();
        fs::write(w.partial(), "x").unwrap();
    };
    check(&replaced, "not a directory");
    let linked = |w: &Workspace| {
        fs::rename(w.partial(), w.dir.join("elsewhere")).unwrap();
        symlink(w.dir.join("elsewhere"), w.partial()).unwrap();
    };
    check(&linked, "not a directory");
    let inside_linked = |w: &Workspace| {
        fs::remove_dir_all(w.partial().join("model")).unwrap();
        symlink(w.source(), w.partial().join("model")).unwrap();
    };
    check(&inside_linked, "not a directory");
}

#[test]
fn a_journal_leads_nowhere_else() {
    let workspace = interrupted(3);
    let journal = workspace.partial().join("journal.json");
    let text = fs::read_to_string(&journal).unwrap();
    let names = ["../../source/config.json", "/etc/passwd", "", "..", "."];
    for name in names {
        let other = text.replace(&format!("model-00001-of-{N_SHARDS:05}.safetensors"), name);
        fs::write(&journal, other).unwrap();
        let error = workspace.save_plainly(false).unwrap_err();
        assert_eq!(partial(&error).unwrap().n_finished_shards, Some(2), "{name}");
    }
    assert_eq!(workspace.save_plainly(true).unwrap().n_resumed_shards, 2);
    assert_eq!(tree(&workspace.destination()), Workspace::reference());
}

#[test]
fn one_process_at_a_time() {
    let workspace = Workspace::new();
    let mut others = Vec::new();
    let result = workspace.save(Options {
        resume: false,
        fingerprint: "same",
        file_system: &RealFileSystem,
        progress: &mut |_| {
            others.push([false, true].map(|resume| workspace.save_plainly(resume).unwrap_err()));
            ControlFlow::Continue(())
        },
    });
    result.unwrap();
    assert!(others.len() > N_SHARDS);
    for error in others.into_iter().flatten() {
        assert!(error.to_string().contains("another process"), "{error}");
        assert_eq!(partial(&error).unwrap().n_finished_shards, None);
    }
    assert_eq!(tree(&workspace.destination()), Workspace::reference());
}

#[test]
fn a_destination_that_appears_meanwhile_is_not_replaced() {
    for is_dir in [false, true] {
        let workspace = Workspace::new();
        let result = workspace.save(Options {
            resume: false,
            fingerprint: "same",
            file_system: &RealFileSystem,
            progress: &mut |p| {
                if p.n_bytes == p.n_total_bytes && !exists(&workspace.destination()) {
                    match is_dir {
                        true => fs::create_dir(workspace.destination()).unwrap(),
                        false => fs::write(workspace.destination(), "theirs").unwrap(),
                    }
                }
                ControlFlow::Continue(())
            },
        });
        let error = result.unwrap_err();
        assert!(error.to_string().contains("already exists"), "{error}");
        assert_eq!(partial(&error).unwrap().n_finished_shards, Some(N_SHARDS));
        match is_dir {
            true => fs::remove_dir(workspace.destination()).unwrap(),
            false => fs::remove_file(workspace.destination()).unwrap(),
        }
        assert_eq!(workspace.save_plainly(true).unwrap().n_resumed_shards, N_SHARDS);
        assert_eq!(tree(&workspace.destination()), Workspace::reference());
    }
}
