//! The power goes at every call of the file system, and takes what no sync made durable.

use super::model::{Workspace, exists, tree};
use super::test_fs::{Fault, Loss, TestFs};

const LOSSES: [Loss; 3] = [
    Loss { entries: true, content: true },
    Loss { entries: false, content: true },
    Loss { entries: true, content: false },
];

#[test]
fn a_result_that_was_reported_survives() {
    let reference = Workspace::reference();
    for loss in LOSSES {
        let workspace = Workspace::new();
        let fs = TestFs::new(None);
        workspace.save_on(&fs, false).unwrap();
        fs.cut_power(loss);
        assert_eq!(tree(&workspace.destination()), reference, "{loss:?}");
    }
}

#[test]
fn at_each_call() {
    let reference = Workspace::reference();
    let n_calls = {
        let fs = TestFs::new(None);
        Workspace::new().save_on(&fs, false).unwrap();
        fs.calls().len()
    };
    let mut n_resumed = 0;
    for (at, loss) in (0..n_calls).flat_map(|at| LOSSES.map(|loss| (at, loss))) {
        let workspace = Workspace::new();
        let source = tree(&workspace.source());
        let fs = TestFs::new(Some((at, Fault::Dead)));
        let result = workspace.save_on(&fs, false);
        fs.cut_power(loss);
        let what = format!("{loss:?} at call {at} {:?}: {result:?}", fs.calls()[at]);
        if result.is_ok() {
            assert_eq!(tree(&workspace.destination()), reference, "{what}");
        }
        assert_eq!(tree(&workspace.source()), source, "{what}");
        let is_committed = exists(&workspace.destination());
        match workspace.save_plainly(true) {
            Ok(saved) => n_resumed += usize::from(saved.n_resumed_shards > 0),
            Err(error) if is_committed => {
                assert!(error.to_string().contains("already exists"), "{what}: {error}");
            }
            Err(error) => panic!("{what}: {error}"),
        }
        assert_eq!(tree(&workspace.destination()), reference, "{what}");
    }
    assert!(
        n_resumed > n_calls,
        "{n_resumed} of {n_calls} calls and losses had something to resume"
    );
}
