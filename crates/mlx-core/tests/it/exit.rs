//! The end of the process while a stream still works.

use std::process::Command;
use std::time::Instant;

use mlx_core::{Array, Dtype, Result, async_eval, ops};

const CHILD: &str = "MLX_CORE_TEST_EXIT_CHILD";

/// Work of some tenths of a second, in few enough ops that starting it does not wait for it.
fn work() -> Result<Array> {
    let mut x = ops::ones(&[1 << 20], Dtype::Float32)?;
    for _ in 0..40 {
        x = x.sin()?;
    }
    Ok(x)
}

/// MLX destroys its CPU allocator at exit while its stream threads may still use it, and the heap
/// is corrupt every now and then. So exit waits for them.
#[test]
fn exit_waits_for_work_under_way() {
    if std::env::var_os(CHILD).is_some() {
        return async_eval([&work().expect("a graph")]).expect("work starts");
    }
    let start = Instant::now();
    work().and_then(|x| x.eval()).expect("work");
    let alone = start.elapsed();

    let start = Instant::now();
    let output = Command::new(std::env::current_exe().expect("this test program"))
        .args(["--exact", "exit::exit_waits_for_work_under_way"])
        .env(CHILD, "1")
        .output()
        .expect("the child starts");
    assert!(output.status.success(), "{output:?}");
    // Without the wait it is gone in a hundredth of the time; a busy machine may halve or double it.
    assert!(start.elapsed() > alone / 5, "gone after {:?}, work is {alone:?}", start.elapsed());
}
