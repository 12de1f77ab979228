//! Signals: Ctrl-C ends an answer and not the program, a closed pipe ends the program quietly.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::SIGINT;
use signal_hook::flag;

use crate::error::{CommandError, Kind};

/// Lets a write to a closed pipe end the program, as it does any other, so that `| head` is quiet.
pub(crate) fn end_quietly_on_broken_pipe() {
    #[cfg(unix)]
    {
        let always = Arc::new(AtomicBool::new(true));
        // Should this fail, such a write is an error that gets reported.
        let _ = flag::register_conditional_default(signal_hook::consts::SIGPIPE, always);
    }
}

/// Catches Ctrl-C: the first asks for the end of the answer, the second ends the program.
pub(crate) struct Interrupt {
    asked: Arc<AtomicBool>,
    ends_program: Arc<AtomicBool>,
}

impl Interrupt {
    /// Begins to catch. Before this, Ctrl-C ends the program.
    pub(crate) fn catch() -> Result<Self, CommandError> {
        let interrupt = Interrupt { asked: Arc::default(), ends_program: Arc::default() };
        // Handlers run in the order of registration: the flag that ends the program is looked at
        // before this very signal sets it.
        flag::register_conditional_default(SIGINT, interrupt.ends_program.clone())
            .and_then(|_| flag::register(SIGINT, interrupt.ends_program.clone()))
            .and_then(|_| flag::register(SIGINT, interrupt.asked.clone()))
            .map_err(|e| CommandError::new(Kind::General, format!("cannot catch Ctrl-C: {e}")))?;
        Ok(interrupt)
    }

    /// Forgets a Ctrl-C of the past; the next is the first again.
    pub(crate) fn reset(&self) {
        self.asked.store(false, Ordering::SeqCst);
        self.ends_program.store(false, Ordering::SeqCst);
    }

    /// Returns the flag that the first Ctrl-C sets.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        self.asked.clone()
    }
}
