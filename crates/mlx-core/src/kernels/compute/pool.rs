//! The threads that kernels run on, one pool for the process.
//!
//! A decoder calls some hundred kernels a token, each some ten microseconds long, so threads that
//! slept in between would spend as long waking up, and would wake on the core of the thread that
//! woke them. A worker therefore watches for the next job a little before it sleeps.
//!
//! Each thread has a range of a job's parts, which it takes one by one off a counter, so that memory is
//! read on and on; one that is done takes what is left of the others', so that a thread that the
//! system stopped holds nothing up but the part it has.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, TryLockError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::ahead::Fetcher;
use super::cores;

/// How long a worker watches for work before it sleeps.
const WATCH: Duration = Duration::from_millis(2);

/// Calls `task(i)` for each `i` below `parts`, on several threads, and returns when all are done.
///
/// Runs on the calling thread alone where another job has the threads.
///
/// # Panics
/// As the first task that panicked, after all are done.
pub(crate) fn run(parts: usize, task: &(dyn Fn(usize) + Sync)) {
    static POOL: Mutex<Option<Pool>> = Mutex::new(None);
    let wanted = threads();
    let alone = || {
        let panic = (0..parts).filter_map(|i| catch_unwind(AssertUnwindSafe(|| task(i))).err());
        // Folded, not found: the parts after it still run.
        if let Some(panic) = panic.reduce(|first, _| first) {
            resume_unwind(panic);
        }
    };
    if parts < 2 || wanted < 2 {
        return alone();
    }
    let mut pool: MutexGuard<'_, Option<Pool>> = match POOL.try_lock() {
        Ok(pool) => pool,
        // A job that panicked left the pool whole.
        Err(TryLockError::Poisoned(pool)) => pool.into_inner(),
        Err(TryLockError::WouldBlock) => return alone(),
    };
    if pool.as_ref().is_none_or(|pool| pool.workers.len() + 1 != wanted) {
        *pool = Some(Pool::new(wanted - 1));
    }
    let panic = pool.as_ref().and_then(|pool| pool.run(parts, task));
    drop(pool);
    if let Some(panic) = panic {
        resume_unwind(panic);
    }
}

static THREADS: AtomicUsize = AtomicUsize::new(0);

/// Sets on how many threads kernels of this process run; 0 is one for each core that it may use.
///
/// What it may use is told by its affinity and the quota of its control group, at the first use.
/// A job under way keeps its threads.
pub fn set_threads(n: usize) {
    THREADS.store(n.min(MAX_THREADS), Ordering::Relaxed);
}

/// More than this is a mistake, not a machine.
const MAX_THREADS: usize = 1024;

/// Returns on how many threads kernels of this process run.
pub fn threads() -> usize {
    match THREADS.load(Ordering::Relaxed) {
        0 => {
            static DEFAULT: OnceLock<usize> = OnceLock::new();
            *DEFAULT.get_or_init(cores::threads)
        }
        n => n,
    }
}

/// What workers do, until the last of them has left it.
struct Job {
    /// Borrowed from the caller of [`Pool::run`], who waits for all workers.
    task: *const (dyn Fn(usize) + Sync),
    parts: usize,
}

struct Shared {
    /// Counts jobs; odd while one is under way.
    epoch: AtomicU64,
    job: Mutex<Option<Job>>,
    /// The next part of each thread's range; the caller's is the first.
    next: Box<[Counter]>,
    /// Workers that may still touch the job.
    busy: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    is_closed: AtomicBool,
}

/// On a cache line of its own, because each thread counts in its own.
#[derive(Default)]
#[repr(align(64))]
struct Counter(AtomicUsize);

// SAFETY: `Job::task` is `Sync`, and is only called while the caller of `Pool::run` waits.
unsafe impl Send for Job {}

struct Worker {
    thread: Thread,
    sleeps: Arc<AtomicBool>,
}

struct Pool {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
}

impl Pool {
    fn new(n_workers: usize) -> Pool {
        let shared = Arc::new(Shared {
            epoch: AtomicU64::new(0),
            job: Mutex::new(None),
            next: (0..=n_workers).map(|_| Counter::default()).collect(),
            busy: AtomicUsize::new(0),
            panic: Mutex::new(None),
            is_closed: AtomicBool::new(false),
        });
        let workers = (0..n_workers)
            .filter_map(|i| {
                let (shared, sleeps) = (Arc::clone(&shared), Arc::new(AtomicBool::new(false)));
                let is_asleep = Arc::clone(&sleeps);
                let builder = thread::Builder::new().name("mlx-core kernel".to_owned());
                let handle = builder.spawn(move || work(&shared, 1 + i, &is_asleep)).ok()?;
                Some(Worker { thread: handle.thread().clone(), sleeps })
            })
            .collect();
        Pool { shared, workers }
    }

    fn run(&self, parts: usize, task: &(dyn Fn(usize) + Sync)) -> Option<Box<dyn Any + Send>> {
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes; no worker holds the reference when this returns.
        let task: *const (dyn Fn(usize) + Sync) = unsafe {
            std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(task)
        };
        *lock(&shared.job) = Some(Job { task, parts });
        for (i, next) in shared.next.iter().enumerate() {
            next.0.store(shared.range(i, parts).start, Ordering::Relaxed);
        }
        shared.epoch.fetch_add(1, Ordering::SeqCst);
        for worker in &self.workers {
            if worker.sleeps.load(Ordering::SeqCst) {
                worker.thread.unpark();
            }
        }
        // SAFETY: the caller's reference is live.
        shared.take_parts(0, unsafe { &*task }, parts);
        // From here no worker enters; those inside are waited for.
        *lock(&shared.job) = None;
        shared.epoch.fetch_add(1, Ordering::SeqCst);
        let (mut spins, mut ahead) = (0u32, Fetcher::default());
        while shared.busy.load(Ordering::Acquire) != 0 {
            spins += 1;
            ahead.fetch(0, shared.next.len());
            if spins < 2_000 { std::hint::spin_loop() } else { thread::yield_now() }
        }
        lock(&shared.panic).take()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::SeqCst);
        self.shared.epoch.fetch_add(2, Ordering::SeqCst);
        for worker in &self.workers {
            worker.thread.unpark();
        }
    }
}

impl Shared {
    /// Takes parts of the thread's own range, neighbours as a rule, and then what is left of others'.
    fn take_parts(&self, thread: usize, task: &(dyn Fn(usize) + Sync), parts: usize) {
        let n = self.next.len();
        for i in (thread..n).chain(0..thread) {
            let end = self.range(i, parts).end;
            loop {
                let part = self.next[i].0.fetch_add(1, Ordering::Relaxed);
                if part >= end {
                    break;
                }
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| task(part))) {
                    lock(&self.panic).get_or_insert(panic);
                }
            }
        }
    }

    /// The parts that are a thread's own.
    fn range(&self, thread: usize, parts: usize) -> Range<usize> {
        let n = self.next.len();
        parts * thread / n..parts * (thread + 1) / n
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn work(shared: &Shared, thread: usize, sleeps: &AtomicBool) {
    let (mut seen, mut ahead) = (0, Fetcher::default());
    loop {
        let epoch = wait(shared, sleeps, seen, &mut || ahead.fetch(thread, shared.next.len()));
        if shared.is_closed.load(Ordering::SeqCst) {
            return;
        }
        seen = epoch;
        // Entered under the lock, so that the caller either sees this worker or took the job away.
        let job = {
            let job = lock(&shared.job);
            if job.is_some() {
                shared.busy.fetch_add(1, Ordering::SeqCst);
            }
            job.as_ref().map(|job| (job.task, job.parts))
        };
        if let Some((task, parts)) = job {
            // SAFETY: the caller waits until `busy` is 0 again.
            shared.take_parts(thread, unsafe { &*task }, parts);
            shared.busy.fetch_sub(1, Ordering::Release);
        }
    }
}

/// Waits for an epoch with a job other than `seen`, and brings in meanwhile what that will read.
fn wait(
    shared: &Shared,
    sleeps: &AtomicBool,
    seen: u64,
    fetch_ahead: &mut dyn FnMut() -> bool,
) -> u64 {
    let is_new = || {
        let epoch = shared.epoch.load(Ordering::SeqCst);
        (epoch != seen && epoch % 2 == 1 || shared.is_closed.load(Ordering::SeqCst))
            .then_some(epoch)
    };
    let start = Instant::now();
    loop {
        for _ in 0..200 {
            if let Some(epoch) = is_new() {
                return epoch;
            }
            if !fetch_ahead() {
                std::hint::spin_loop();
            }
        }
        if start.elapsed() > WATCH {
            sleeps.store(true, Ordering::SeqCst);
            let epoch = loop {
                if let Some(epoch) = is_new() {
                    break epoch;
                }
                thread::park();
            };
            sleeps.store(false, Ordering::SeqCst);
            return epoch;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::compute::most;

    #[test]
    fn each_part_runs_once() {
        for parts in [0, 1, 2, 3, 64, 1000].map(most) {
            for _ in 0..most(50) {
                let counts: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                run(parts, &|i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{parts}");
            }
        }
    }

    #[test]
    fn a_panic_comes_back_after_all_parts() {
        let check = || {
            let done = AtomicUsize::new(0);
            let result = catch_unwind(AssertUnwindSafe(|| {
                run(8, &|i| {
                    assert_ne!(i, 3, "part three");
                    done.fetch_add(1, Ordering::Relaxed);
                });
            }));
            assert!(result.is_err());
            assert_eq!(done.load(Ordering::Relaxed), 7);
        };
        check();
        // Within a job that has the threads.
        run(2, &|_| check());
        run(4, &|_| {});
    }

    #[test]
    fn several_callers_do_not_wait_for_one_another() {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let sum = AtomicUsize::new(0);
                        run(10, &|i| {
                            sum.fetch_add(i, Ordering::Relaxed);
                        });
                        assert_eq!(sum.into_inner(), 45);
                    }
                });
            }
        });
    }
}
