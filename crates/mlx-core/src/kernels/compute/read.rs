//! Reading memory and nothing else: what a kernel that reads weights once can reach.

use std::sync::atomic::{AtomicU64, Ordering};

use super::isa::{Isa, Level, multiversion};
use super::pool;

/// As many bytes as quantized products take for a part.
const PART: usize = 64 * 1024;

/// Bytes that are added up together.
const BLOCK: usize = 128;

/// Reads all `data` in one job for all threads and returns a sum of it, so that no reading is left out:
/// of words of eight bytes, and of the bytes that are left of a slice behind the last whole block.
pub(crate) fn read(isa: Isa, data: &[&[u8]]) -> u64 {
    let parts: Vec<&[u8]> = data.iter().flat_map(|data| data.chunks(PART)).collect();
    let sum = AtomicU64::new(0);
    pool::run(parts.len(), &|i| {
        sum.fetch_add(read_part(isa, parts[i]), Ordering::Relaxed);
    });
    sum.into_inner()
}

multiversion! {
    fn read_part[] = read_part_body(data: &[u8]) -> u64
}

#[inline(always)]
fn read_part_body<L: Level>(data: &[u8]) -> u64 {
    // The CPU's own prefetcher does not look beyond a page.
    const AHEAD: usize = 8 * 1024;
    let mut sums = [0u64; BLOCK / 8];
    let (blocks, rest) = data.as_chunks::<BLOCK>();
    for block in blocks {
        L::prefetch(block.as_ptr().wrapping_add(AHEAD));
        L::prefetch(block.as_ptr().wrapping_add(AHEAD + BLOCK / 2));
        for (sum, word) in sums.iter_mut().zip(block.as_chunks().0) {
            *sum = sum.wrapping_add(u64::from_ne_bytes(*word));
        }
    }
    let rest = rest.iter().map(|byte| u64::from(*byte));
    sums.into_iter().chain(rest).fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_read_once() {
        let naive = |data: &[u8]| {
            let (blocks, rest) = data.as_chunks::<BLOCK>();
            let words = blocks.as_flattened().as_chunks().0;
            let words = words.iter().map(|word| u64::from_ne_bytes(*word));
            words.chain(rest.iter().map(|byte| u64::from(*byte))).fold(0, u64::wrapping_add)
        };
        let data: Vec<u8> = (0..3 * PART + 1000).map(|i| (i * i % 251) as u8).collect();
        for n in [0, 1, 127, 128, 129, PART, PART + 1, data.len() - 1] {
            // One of them starts in the middle of a word.
            let slices = [&data[..n], &data[1..], &data[..200]];
            let expected = slices.iter().map(|data| naive(data)).fold(0, u64::wrapping_add);
            for isa in Isa::available() {
                assert_eq!(read(isa, &slices), expected, "{n} {isa:?}");
            }
        }
    }
}
