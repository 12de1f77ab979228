//! Reading memory and nothing else: what a kernel that reads weights once can reach.

use std::sync::atomic::{AtomicU64, Ordering};

use super::isa::{Isa, Level, multiversion};
use super::pool;

/// As many bytes as quantized products take for a part.
const PART: usize = 64 * 1024 / 8;

/// Reads `data` on all threads and returns a sum of it, so that no reading is left out.
pub(crate) fn read(isa: Isa, data: &[u64]) -> u64 {
    let parts: Vec<&[u64]> = data.chunks(PART).collect();
    let sum = AtomicU64::new(0);
    pool::run(parts.len(), &|i| {
        sum.fetch_add(read_part(isa, parts[i]), Ordering::Relaxed);
    });
    sum.into_inner()
}

multiversion! {
    fn read_part[] = read_part_body(data: &[u64]) -> u64
}

#[inline(always)]
fn read_part_body<L: Level>(data: &[u64]) -> u64 {
    // The CPU's own prefetcher does not look beyond a page.
    const AHEAD: usize = 8 * 1024 / 8;
    let mut sums = [0u64; 16];
    let (blocks, rest) = data.as_chunks::<16>();
    for block in blocks {
        L::prefetch(block.as_ptr().wrapping_add(AHEAD));
        L::prefetch(block.as_ptr().wrapping_add(AHEAD + 8));
        for i in 0..16 {
            sums[i] = sums[i].wrapping_add(block[i]);
        }
    }
    sums.iter().chain(rest).fold(0, |sum, x| sum.wrapping_add(*x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_once() {
        for n in [0, 1, 15, 16, 17, PART, PART + 1, 3 * PART + 100] {
            let data: Vec<u64> = (0..n as u64).map(|i| i * i).collect();
            let expected = data.iter().fold(0u64, |sum, x| sum.wrapping_add(*x));
            for isa in Isa::available() {
                assert_eq!(read(isa, &data), expected, "{n} {isa:?}");
            }
        }
    }
}
