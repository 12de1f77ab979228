//! What the next product will read, fetched by threads that wait for it.
//!
//! Between products of a token are norms, rotations and attention, too small for several threads,
//! and memory would rest meanwhile. Who runs kernels in a known order therefore says which weights
//! come next, and threads without work bring in where each thread will begin to read.

use std::sync::atomic::{AtomicUsize, Ordering, fence};

/// Weights of a product that are told of: those of queries, keys and values, or of a gated layer.
const MOST: usize = 4;

/// Smaller ones are read before anything is gained.
const LEAST_BYTES: usize = 64 * 1024;

/// What a thread fetches of each product at most: about what it reads while a norm and attention run,
/// and half of a second-level cache.
const BYTES: usize = 256 * 1024;

const LINE: usize = 64;

/// Lines that are fetched before a thread looks for work again.
const BURST: usize = 16;

/// A notice that its readers copy, and copy again where it changed meanwhile. It tells of addresses
/// only: to fetch what is no longer there does nothing.
struct Notice {
    /// Odd while it is being written.
    version: AtomicUsize,
    starts: [AtomicUsize; MOST],
    lens: [AtomicUsize; MOST],
}

static NOTICE: Notice = Notice::new();

/// Says what the next product reads whole, each thread its share of each weight from front to back.
pub(crate) fn announce<'a>(weights: impl Iterator<Item = &'a [u8]>) {
    NOTICE.write(weights);
}

impl Notice {
    const fn new() -> Notice {
        Notice {
            version: AtomicUsize::new(0),
            starts: [const { AtomicUsize::new(0) }; MOST],
            lens: [const { AtomicUsize::new(0) }; MOST],
        }
    }

    fn write<'a>(&self, weights: impl Iterator<Item = &'a [u8]>) {
        let mut large = weights.filter(|weight| weight.len() >= LEAST_BYTES);
        let version = self.version.load(Ordering::Relaxed);
        let relaxed = Ordering::Relaxed;
        let take = || self.version.compare_exchange(version, version + 1, relaxed, relaxed);
        // Two streams at once: the other's notice is as good.
        if version % 2 == 1 || take().is_err() {
            return;
        }
        fence(Ordering::Release);
        for (start, len) in self.starts.iter().zip(&self.lens) {
            let weight = large.next().unwrap_or_default();
            start.store(weight.as_ptr() as usize, Ordering::Relaxed);
            len.store(weight.len(), Ordering::Relaxed);
        }
        self.version.store(version + 2, Ordering::Release);
    }

    /// Returns the version and each weight's address and length, if nobody is writing.
    fn read(&self) -> Option<(usize, [(usize, usize); MOST])> {
        let version = self.version.load(Ordering::Acquire);
        let load = |x: &AtomicUsize| x.load(Ordering::Relaxed);
        let weights = std::array::from_fn(|i| (load(&self.starts[i]), load(&self.lens[i])));
        fence(Ordering::Acquire);
        let is_whole = version % 2 == 0 && self.version.load(Ordering::Relaxed) == version;
        is_whole.then_some((version, weights))
    }
}

/// What one thread has fetched of the last notice.
#[derive(Default)]
pub(super) struct Fetcher {
    version: usize,
    /// Addresses, from the next line on.
    ranges: [(usize, usize); 2 * MOST],
    at: usize,
}

impl Fetcher {
    /// Fetches a little where there is something to fetch for `thread` of `n`; else returns false.
    #[inline]
    pub(super) fn fetch(&mut self, thread: usize, n: usize) -> bool {
        if NOTICE.version.load(Ordering::Relaxed) != self.version
            && let Some((version, weights)) = NOTICE.read()
        {
            *self = Fetcher { version, ranges: ranges(weights, thread, n), at: 0 };
        }
        let Some((address, end)) = self.ranges.get_mut(self.at) else { return false };
        for _ in 0..BURST {
            if *address >= *end {
                self.at += 1;
                break;
            }
            prefetch(*address);
            *address += LINE;
        }
        true
    }
}

/// Returns from where to where `thread` of `n` fetches: first where it begins to read itself, then, if
/// it is the first that waits, where the thread that calls does, which has kernels in between to run.
#[cold]
fn ranges(weights: [(usize, usize); MOST], thread: usize, n: usize) -> [(usize, usize); 2 * MOST] {
    let count = weights.iter().filter(|(_, len)| *len > 0).count().max(1);
    let begin_of = |thread: usize| {
        weights.map(|(start, len)| {
            let begin = start + len / n * thread;
            (begin, begin + (BYTES / count).min(len / n))
        })
    };
    let (own, callers) = (begin_of(thread), begin_of(0));
    std::array::from_fn(|i| match i.checked_sub(MOST) {
        None => own[i],
        Some(i) if thread == 1 => callers[i],
        Some(_) => (0, 0),
    })
}

/// Brings the line at an address into the second-level cache, if there is such memory.
#[inline]
fn prefetch(address: usize) {
    // An interpreter has no hints.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint, which faults at no address; all of x86-64 has it.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(address as *const i8);
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    // SAFETY: a hint, which faults at no address and changes nothing.
    unsafe {
        std::arch::asm!(
            "prfm pldl2keep, [{}]",
            in(reg) address,
            options(nostack, preserves_flags, readonly)
        );
    }
    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_fetches_where_it_begins() {
        let of = |weights: &[(usize, usize)], thread, n| {
            let mut all = [(0, 0); MOST];
            all[..weights.len()].copy_from_slice(weights);
            ranges(all, thread, n)
                .into_iter()
                .filter(|(start, end)| start != end)
                .collect::<Vec<_>>()
        };
        let (start, mb) = (1 << 20, 1 << 20);
        assert_eq!(of(&[(start, mb)], 0, 2), [(start, start + BYTES)]);
        let middle = start + mb / 2;
        let both = [(middle, middle + BYTES), (start, start + BYTES)];
        assert_eq!(of(&[(start, mb)], 1, 2), both);
        assert_eq!(of(&[(start, mb)], 2, 4), [(middle, middle + BYTES)]);
        // Two weights share the room; a small one ends with its share.
        let [a, b] = [(start, 3 * mb), (8 * start, BYTES / 2)];
        let ends = |thread: usize| {
            of(&[a, b], thread, 3).into_iter().map(|(start, end)| end - start).collect::<Vec<_>>()
        };
        assert_eq!(ends(2), [BYTES / 2, BYTES / 6]);
        assert_eq!(of(&[], 1, 2), []);
    }

    #[test]
    fn a_notice_is_read_whole_or_not() {
        let notice = Notice::new();
        let bytes = vec![0u8; 4 * LEAST_BYTES];
        let weights = [&bytes[..LEAST_BYTES - 1], &bytes[..LEAST_BYTES], &bytes[..]];
        notice.write(weights.into_iter());
        let (version, known) = notice.read().expect("nobody writes");
        let at = bytes.as_ptr() as usize;
        assert_eq!(known, [(at, LEAST_BYTES), (at, 4 * LEAST_BYTES), known[2], known[3]]);
        assert_eq!((version, known[2].1, known[3].1), (2, 0, 0));
        // Another writer has it.
        notice.version.store(3, Ordering::Relaxed);
        assert!(notice.read().is_none());
        notice.write(weights.into_iter());
        assert_eq!(notice.version.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn fetching_ends() {
        let bytes = vec![0u8; 2 * BYTES];
        announce([&bytes[..]].into_iter());
        let mut fetcher = Fetcher::default();
        // Other tests may announce meanwhile; each notice has an end.
        let fetched = (0..1 << 20).position(|_| !fetcher.fetch(1, 2));
        assert!(fetched.is_some_and(|n| n > 0));
    }
}
