//! A count of the handles that this thread holds, for tests that look for leaks.
//!
//! Each owner of a C handle carries a [`Live`]. It counts in builds with debug assertions only; in
//! others it is nothing and does nothing.

#[cfg(debug_assertions)]
use std::cell::Cell;

#[cfg(debug_assertions)]
thread_local! {
    static HANDLES: Cell<isize> = const { Cell::new(0) };
}

/// One handle that is counted from its making to its end.
pub(crate) struct Live(());

impl Live {
    #[inline]
    pub(crate) fn new() -> Self {
        #[cfg(debug_assertions)]
        HANDLES.set(HANDLES.get() + 1);
        Live(())
    }
}

#[cfg(debug_assertions)]
impl Drop for Live {
    fn drop(&mut self) {
        HANDLES.set(HANDLES.get() - 1);
    }
}

/// Returns the number of handles that this thread made and did not drop, if it is counted.
pub(crate) fn live_handles() -> Option<isize> {
    #[cfg(debug_assertions)]
    return Some(HANDLES.get());
    #[cfg(not(debug_assertions))]
    None
}

#[cfg(test)]
mod tests;
