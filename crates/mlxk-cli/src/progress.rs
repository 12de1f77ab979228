//! A bar on stderr for what takes longer than a second; none where stderr is no terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::output::{Bytes, Output};

/// How long nothing is shown.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is drawn.
const INTERVAL: Duration = Duration::from_millis(100);
/// How many signs the bar has.
const WIDTH: u64 = 30;

/// Shows how far some work is, while this value lives.
pub(crate) struct Progress {
    work: Option<(mpsc::Sender<()>, thread::JoinHandle<()>)>,
}

impl Progress {
    /// Begins to show how many of `total` bytes are done.
    pub(crate) fn bytes(
        label: &'static str,
        total: u64,
        done: std::sync::Arc<AtomicU64>,
        output: &Output,
    ) -> Progress {
        if output.is_json() || !io::stderr().is_terminal() {
            return Progress { work: None };
        }
        let (end, ended) = mpsc::channel();
        let draw = move || {
            let mut wait = PATIENCE;
            while ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                write(&format!("\r\x1b[K{}", line(label, done.load(Ordering::Relaxed), total)));
                wait = INTERVAL;
            }
            if wait == INTERVAL {
                write("\r\x1b[K");
            }
        };
        Progress { work: Some((end, thread::spawn(draw))) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((end, drawing)) = self.work.take() {
            drop(end);
            // Only a panic could make it fail, and nothing depends on it.
            let _ = drawing.join();
        }
    }
}

fn line(label: &str, done: u64, total: u64) -> String {
    let done = done.min(total);
    let filled = if total == 0 {
        WIDTH
    } else {
        (u128::from(done) * u128::from(WIDTH) / u128::from(total)) as u64
    };
    let bar = "#".repeat(filled as usize) + &".".repeat((WIDTH - filled) as usize);
    format!("{label} [{bar}] {} of {}", Bytes(done), Bytes(total))
}

fn write(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_fill_up() {
        let bar = |n| "#".repeat(n) + &".".repeat(30 - n);
        assert_eq!(line("x", 0, 2000), format!("x [{}] 0 B of 2.0 kB", bar(0)));
        assert_eq!(line("x", 1000, 2000), format!("x [{}] 1.0 kB of 2.0 kB", bar(15)));
        assert_eq!(line("x", 3000, 2000), format!("x [{}] 2.0 kB of 2.0 kB", bar(30)));
        assert_eq!(line("x", 0, 0), format!("x [{}] 0 B of 0 B", bar(30)));
        assert_eq!(line("x", u64::MAX, u64::MAX).matches('#').count(), 30);
    }
}
