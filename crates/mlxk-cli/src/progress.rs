//! A bar on stderr for what takes longer than a second; none where stderr is no terminal.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::Output;

/// How long nothing is shown.
const PATIENCE: Duration = Duration::from_secs(1);

/// Both fit a terminal of 80 columns.
const STEPS: &str = "{msg} {bar:20} {pos}/{len}  {eta} left";
const BYTES: &str =
    "{msg} {bar:20} {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left";

/// Shows how much of some work is done, until it is dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
    begin: Instant,
    is_wanted: bool,
    shown: OnceLock<()>,
}

impl Progress {
    /// Begins to show how much of `total` bytes is done.
    pub(crate) fn bytes(label: &'static str, total: u64, output: &Output) -> Progress {
        Progress::new(BYTES, label, total, output)
    }

    /// Begins to show how many of `total` steps are done.
    pub(crate) fn steps(label: &'static str, total: u64, output: &Output) -> Progress {
        Progress::new(STEPS, label, total, output)
    }

    fn new(template: &str, label: &'static str, total: u64, output: &Output) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        let bar = match ProgressStyle::with_template(template) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        };
        let bar = bar.with_message(label);
        let begin = Instant::now();
        Progress { bar, begin, is_wanted: !output.is_json(), shown: OnceLock::new() }
    }

    /// Says how much there is to do, where that was not known.
    pub(crate) fn set_total(&self, total: u64) {
        self.bar.set_length(total);
    }

    /// Says that so much was done before this work began, which says nothing of its speed.
    pub(crate) fn skip(&self, n_bytes: u64) {
        if self.bar.position() == 0 && n_bytes > 0 {
            self.bar.set_position(n_bytes);
            self.bar.reset_eta();
        }
    }

    /// Says how much is done in all.
    pub(crate) fn set(&self, n: u64) {
        self.show();
        self.bar.set_position(n);
    }

    /// Says that so much more is done; any thread may.
    pub(crate) fn add(&self, n: u64) {
        self.show();
        self.bar.inc(n);
    }

    /// Returns how much is done.
    pub(crate) fn done(&self) -> u64 {
        self.bar.position()
    }

    fn show(&self) {
        if self.is_wanted && self.begin.elapsed() >= PATIENCE {
            // What it draws to draws nothing where it is no terminal.
            self.shown.get_or_init(|| self.bar.set_draw_target(ProgressDrawTarget::stderr()));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
