//! Tests that need a process to themselves: MLX counts memory for the whole process, and the
//! other tests run in threads of this one.

use std::process::Command;

const ALONE: &str = "MLX_CORE_TEST_ALONE";

/// Runs `body`, which is the whole of the test `name`, in a child process.
pub(crate) fn alone(name: &str, body: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        return body();
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&child.stdout);
    let stderr = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{}\n{stdout}{stderr}", child.status);
    assert!(stdout.contains("1 passed"), "there is no test {name}:\n{stdout}");
}
