//! MLX's counters and limits of memory, and what happens when there is no more.

use mlx_core::{Array, Dtype, ErrorKind, eval, memory, ops};

use crate::alone::alone;

const MEGABYTE: usize = 1 << 20;

#[test]
fn memory_is_counted() {
    alone("memory::memory_is_counted", || {
        memory::clear_cache().unwrap();
        let start = memory::active().unwrap();
        memory::reset_peak().unwrap();
        let x = ops::ones(&[MEGABYTE as i32], Dtype::Float32).unwrap();
        let y = (&x + &x).unwrap();
        assert!(memory::active().unwrap() < start + MEGABYTE, "nothing is computed yet");
        eval([&x, &y]).unwrap();
        assert!(memory::active().unwrap() >= start + 4 * MEGABYTE);
        assert!(memory::peak().unwrap() >= start + 4 * MEGABYTE);
        drop((x, y));
        assert_eq!(memory::active().unwrap(), start);
        assert!(memory::peak().unwrap() >= start + 4 * MEGABYTE);
        assert!(memory::cache().unwrap() >= 4 * MEGABYTE);
        memory::clear_cache().unwrap();
        assert_eq!(memory::cache().unwrap(), 0);
        memory::reset_peak().unwrap();
        assert!(memory::peak().unwrap() < start + MEGABYTE);

        let limit = memory::limit().unwrap();
        assert_eq!(memory::set_limit(64 * MEGABYTE).unwrap(), limit);
        assert_eq!(memory::set_limit(limit).unwrap(), 64 * MEGABYTE);
        let limit = memory::set_cache_limit(0).unwrap();
        ops::ones(&[MEGABYTE as i32], Dtype::Float32).unwrap().eval().unwrap();
        assert_eq!(memory::cache().unwrap(), 0);
        assert_eq!(memory::set_cache_limit(limit).unwrap(), 0);

        // A thread keeps the arrays of numbers until it is told not to.
        drop(Array::from(2.0f32) * 3.0);
        assert!(memory::active().unwrap() > start);
        memory::clear_cache().unwrap();
        assert_eq!(memory::active().unwrap(), start);
    });
}

/// Work on 8 MB at a time, each part freed as it is done.
fn many_parts() -> Array {
    let mut sum = Array::from(0.0f32);
    for n in 0..40 {
        let part = ops::full(&[2 * MEGABYTE as i32], n as f32, Dtype::Float32).unwrap();
        sum = (sum + (part + 1.0).unwrap().max(.., false).unwrap()).unwrap();
    }
    sum
}

#[test]
fn the_limit_slows_down_and_refuses_nothing() {
    alone("memory::the_limit_slows_down_and_refuses_nothing", || {
        let old = memory::set_limit(MEGABYTE).unwrap();
        assert!(old > MEGABYTE, "by default most of the machine's memory");
        assert_eq!(memory::limit().unwrap(), MEGABYTE);
        // One array alone is eight times the limit.
        let expected = 820.0;
        assert_eq!(many_parts().item::<f32>().unwrap(), expected);
        for limit in [0, usize::MAX] {
            memory::set_limit(limit).unwrap();
            assert_eq!(many_parts().item::<f32>().unwrap(), expected);
            assert_eq!(memory::limit().unwrap(), limit);
        }
    });
}

#[test]
fn the_cache_keeps_no_more_than_its_limit() {
    alone("memory::the_cache_keeps_no_more_than_its_limit", || {
        let use_and_free = |megabytes: usize| {
            let shape = [(megabytes * MEGABYTE / 4) as i32];
            ops::full(&shape, 1.0f32, None).unwrap().contiguous().unwrap().exp().unwrap().eval()
        };
        let old = memory::set_cache_limit(3 * MEGABYTE).unwrap();
        for megabytes in [1, 2, 3, 8] {
            use_and_free(megabytes).unwrap();
            assert!(memory::cache().unwrap() <= 3 * MEGABYTE + 4096, "{megabytes}");
        }
        memory::clear_cache().unwrap();
        use_and_free(2).unwrap();
        let kept = memory::cache().unwrap();
        assert!((2 * MEGABYTE..=2 * MEGABYTE + 65536).contains(&kept), "{kept}");
        // A lower limit gives back what is above it, at once.
        assert_eq!(memory::set_cache_limit(MEGABYTE).unwrap(), 3 * MEGABYTE);
        assert!(memory::cache().unwrap() <= MEGABYTE);
        memory::set_cache_limit(usize::MAX).unwrap();
        use_and_free(40).unwrap();
        assert!(memory::cache().unwrap() >= 40 * MEGABYTE);
        memory::set_cache_limit(old).unwrap();
        assert!(memory::cache().unwrap() <= old);
    });
}

#[test]
fn the_peak_counts_from_where_it_is_reset() {
    alone("memory::the_peak_counts_from_where_it_is_reset", || {
        let held = ops::ones(&[MEGABYTE as i32], Dtype::Float32).unwrap().exp().unwrap();
        held.eval().unwrap();
        memory::reset_peak().unwrap();
        // From nothing, not from what is in use: the next allocation brings it up to date.
        assert_eq!(memory::peak().unwrap(), 0);
        let more = (&held + 1.0).unwrap();
        more.eval().unwrap();
        assert!(memory::peak().unwrap() >= 8 * MEGABYTE);
        drop(more);
        let peak = memory::peak().unwrap();
        assert!(memory::active().unwrap() < peak);
        assert_eq!(memory::peak().unwrap(), peak);
    });
}

#[test]
fn the_wired_limit_is_metals() {
    alone("memory::the_wired_limit_is_metals", || {
        if !mlx_core::Device::Gpu.is_available() {
            assert_eq!(memory::set_wired_limit(MEGABYTE).unwrap(), 0);
            assert_eq!(memory::set_wired_limit(usize::MAX).unwrap(), 0);
        }
    });
}

#[test]
fn running_out_of_memory_is_an_error() {
    // 16 TiB, which no machine that runs this has.
    let huge = ops::zeros(&[1 << 21, 1 << 21], Dtype::Float32).unwrap();
    let error = (huge + 1.0).unwrap().eval().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
    assert_eq!(ops::ones(&[2], Dtype::Float32).unwrap().to_vec::<f32>().unwrap(), [1.0; 2]);
}
