//! Buffers that a thread keeps from one part of a job to the next.
//!
//! A token has thousands of parts, and the allocator takes a tenth of their time.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

thread_local! {
    static KEPT: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Longer ones are given back to the system.
const MAX_KEPT: usize = 1 << 18;

/// Numbers of no particular value.
pub(crate) struct Scratch {
    buffer: Vec<f32>,
    len: usize,
}

impl Scratch {
    pub(crate) fn new(len: usize) -> Scratch {
        // Fails only while the thread ends.
        let kept = KEPT.try_with(|kept| kept.borrow_mut().pop());
        let mut buffer = kept.ok().flatten().unwrap_or_default();
        if buffer.len() < len {
            buffer.resize(len, 0.0);
        }
        Scratch { buffer, len }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.buffer.len() <= MAX_KEPT {
            let buffer = std::mem::take(&mut self.buffer);
            let _ = KEPT.try_with(|kept| kept.borrow_mut().push(buffer));
        }
    }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.buffer[..self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.buffer[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_kept_and_never_shared() {
        let mut a = Scratch::new(100);
        let mut b = Scratch::new(10);
        a.fill(1.0);
        b.fill(2.0);
        assert_eq!((a.len(), b.len()), (100, 10));
        assert!(a.iter().all(|&x| x == 1.0) && b.iter().all(|&x| x == 2.0));
        let place = b.as_ptr();
        drop(b);
        let c = Scratch::new(5);
        assert_eq!((c.as_ptr(), c.len()), (place, 5));
        assert_eq!(Scratch::new(2 * MAX_KEPT).len(), 2 * MAX_KEPT);
        assert_ne!(c.as_ptr(), a.as_ptr());
    }
}
