//! How many threads kernels have where nobody says.
//!
//! One for each core: two threads of one core share what kernels need. What counts are the cores
//! that this process may run on, and no more than its quota. A virtual machine may tell of two
//! threads of one core where it has two cores, or the other way around; the former is found out by
//! reading on both.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// Returns the number of threads for this process.
pub(super) fn threads() -> usize {
    // Counts processors by this thread's affinity, and knows the quotas of control groups.
    let available = thread::available_parallelism().map_or(1, usize::from);
    choose(available, topology(), read_speed)
}

/// Processors that may be used, and the cores that they are threads of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Topology {
    processors: usize,
    cores: usize,
}

/// On more, starting threads takes longer than measuring may, and memory is the limit anyway.
const MOST_MEASURED: usize = 8;

/// What all threads of some cores together read more than one of each, if they are no such threads.
const FASTER: f64 = 1.4;

/// Chooses among `available` processors; `speed` measures how much so many threads read.
fn choose(available: usize, topology: Option<Topology>, speed: impl Fn(usize) -> f64) -> usize {
    let available = available.max(1);
    let Some(Topology { processors, cores }) = topology else { return available };
    let all = available.min(processors).max(1);
    let one_each = available.min(cores).max(1);
    if one_each == all || all > MOST_MEASURED {
        return one_each;
    }
    if speed(all) > FASTER * speed(one_each) { all } else { one_each }
}

/// What Linux tells.
#[cfg(target_os = "linux")]
fn topology() -> Option<Topology> {
    let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
    read_topology(&status, |processor| {
        let dir = format!("/sys/devices/system/cpu/cpu{processor}/topology");
        std::fs::read_to_string(format!("{dir}/thread_siblings_list")).ok()
    })
}

#[cfg(not(target_os = "linux"))]
fn topology() -> Option<Topology> {
    None
}

/// Takes a thread's `status` and, for each processor, the list of its core's threads, if it is
/// there at all.
fn read_topology(status: &str, siblings: impl Fn(usize) -> Option<String>) -> Option<Topology> {
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let lists: Vec<BTreeSet<usize>> =
        read_list(allowed)?.into_iter().filter_map(|i| read_list(&siblings(i)?)).collect();
    let cores = lists.iter().collect::<BTreeSet<_>>().len();
    (cores > 0).then_some(Topology { processors: lists.len(), cores })
}

/// More than this is no machine.
const MAX_PROCESSORS: usize = 1 << 16;

/// Reads numbers and ranges, such as `0-3,8,10-11`.
fn read_list(text: &str) -> Option<BTreeSet<usize>> {
    let mut list = BTreeSet::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last >= MAX_PROCESSORS {
            return None;
        }
        list.extend(first..=last);
    }
    Some(list)
}

/// How long threads read; there are two such times.
const READING: Duration = Duration::from_micros(1200);

/// Numbers that each thread reads again and again, more than the caches of one core hold.
const NUMBERS: usize = 1 << 18;

/// Returns how many rounds `n` threads read together.
fn read_speed(n: usize) -> f64 {
    let barrier = Barrier::new(n);
    let read = || {
        let numbers = vec![1u32; NUMBERS];
        barrier.wait();
        let (start, mut rounds) = (Instant::now(), 0);
        while start.elapsed() < READING {
            // A part at a time, as a round may take as long as there is.
            let at = rounds % 16 * (NUMBERS / 16);
            black_box(black_box(&numbers[at..at + NUMBERS / 16]).iter().fold(0, |a, x| a ^ x));
            rounds += 1;
        }
        rounds as f64 / start.elapsed().as_secs_f64()
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..n).map(|_| scope.spawn(read)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).sum()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine by the lists of its processors; an empty one is of a processor that is off.
    fn read(allowed: &str, lists: &[&str]) -> Option<Topology> {
        let status = format!("Name:\tx\nCpus_allowed:\tff\nCpus_allowed_list:\t{allowed}\n");
        read_topology(&status, |i| {
            lists.get(i).filter(|list| !list.is_empty()).map(|list| format!("{list}\n"))
        })
    }

    fn found(processors: usize, cores: usize) -> Option<Topology> {
        Some(Topology { processors, cores })
    }

    #[test]
    fn lists_have_numbers_and_ranges() {
        for (text, expected) in [
            ("0\n", Some(vec![0])),
            ("0-2", Some(vec![0, 1, 2])),
            ("0,4", Some(vec![0, 4])),
            ("1-2,8,10-11\n", Some(vec![1, 2, 8, 10, 11])),
            ("", Some(vec![])),
            ("a", None),
            ("3-", None),
            ("0-99999999999", None),
        ] {
            assert_eq!(read_list(text), expected.map(BTreeSet::from_iter), "{text:?}");
        }
    }

    #[test]
    fn threads_of_one_core_count_once() {
        let smt = ["0,4", "1,5", "2,6", "3,7", "0,4", "1,5", "2,6", "3,7"];
        assert_eq!(read("0-7", &smt), found(8, 4));
        // Both threads of one core, one of each, and three of two.
        assert_eq!(read("0,4", &smt), found(2, 1));
        assert_eq!(read("4-7", &smt), found(4, 4));
        assert_eq!(read("0-1,5", &smt), found(3, 2));
        assert_eq!(read("0-1", &["0", "1"]), found(2, 2));
        assert_eq!(read("0-1", &["0-1", "0-1"]), found(2, 1));
        // Processors that are off, or none to be seen.
        assert_eq!(read("0-3", &["0", "1", "", ""]), found(2, 2));
        assert_eq!(read("0-3", &[]), None);
        assert_eq!(read_topology("Name:\tx\n", |_| None), None);
    }

    #[test]
    fn quota_cores_and_speed_decide() {
        let never = |n: usize| -> f64 { panic!("measured {n}") };
        let by_core = |n: usize| n.min(2) as f64 * (1.0 + 0.1 * (n / 3) as f64);
        let by_processor = |n: usize| n as f64;
        assert_eq!(choose(8, None, never), 8);
        assert_eq!(choose(0, None, never), 1);
        assert_eq!(choose(2, found(2, 2), never), 2);
        assert_eq!(choose(4, found(4, 2), by_core), 2);
        assert_eq!(choose(4, found(4, 2), by_processor), 4);
        // A quota of less than the cores leaves nothing to measure.
        assert_eq!(choose(1, found(4, 2), never), 1);
        assert_eq!(choose(2, found(8, 4), never), 2);
        assert_eq!(choose(3, found(4, 2), by_processor), 3);
        assert_eq!(choose(64, found(64, 32), never), 32);
    }

    #[test]
    fn reading_is_brief_and_some_is_read() {
        let start = Instant::now();
        assert!(read_speed(2) > 0.0);
        // By a machine that does nothing else it is 2 ms.
        assert!(start.elapsed() < Duration::from_secs(2));
        assert!(threads() >= 1);
    }
}
