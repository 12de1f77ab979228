use mlx_core::{Array, Dtype, Result, ops, random};
use proptest::prelude::*;

use super::{FullCache, KvCache, RotatingCache};

fn rows(n: i32, seed: u64) -> Result<Array> {
    random::normal(&[1, 2, n, 4], Dtype::Float32, 0.0, 1.0, Some(&random::key(seed)?))
}

fn check_equal(a: &Array, b: &Array) -> Result<()> {
    assert_eq!(a.shape(), b.shape());
    assert!(a.array_equal(b, false)?.item::<bool>()?);
    Ok(())
}

/// A step of a random history: tokens to append, or to forget.
fn histories() -> impl Strategy<Value = Vec<i32>> {
    let step = prop_oneof![5 => 1..4i32, 1 => 200..300i32, 1 => -3..0i32];
    proptest::collection::vec(step, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn full_cache_is_concatenation(history in histories()) {
        let check = || -> Result<()> {
            let mut cache = FullCache::default();
            let mut all = ops::zeros(&[1, 2, 0, 4], Dtype::Float32)?;
            for (seed, &n) in history.iter().enumerate() {
                if n < 0 {
                    let kept = (all.dim(2)? + n).max(0);
                    assert!(cache.trim(-n));
                    all = all.at((.., .., ..kept))?;
                } else {
                    let new = rows(n, seed as u64)?;
                    all = ops::concatenate([&all, &new], 2)?;
                    let (keys, values) = cache.update_and_fetch(&new, &(&new * 2.0)?)?;
                    check_equal(&keys, &all)?;
                    check_equal(&values, &(&all * 2.0)?)?;
                }
                assert_eq!(cache.offset(), all.dim(2)?);
            }
            Ok(())
        };
        check().expect("cache");
    }

    /// Whatever the ring's order, the rows that the mask lets through are the last ones.
    #[test]
    fn rotating_cache_keeps_the_last(history in proptest::collection::vec(1..6i32, 1..20), max_size in 2..9i32) {
        let check = || -> Result<()> {
            let mut cache = RotatingCache::new(max_size);
            let mut total = 0;
            for &n in &history {
                let positions = Array::range(n)?.add(total)?.astype(Dtype::Float32)?;
                let new = positions.reshape([1, 1, n, 1])?;
                let (keys, _) = cache.update_and_fetch(&new, &new)?;
                total += n;
                let mut held = keys.to_vec::<f32>()?;
                held.sort_by(f32::total_cmp);
                // Several tokens at once also need what the first of them sees.
                let len = total.min(if n == 1 { max_size } else { max_size - 1 + n });
                let first = total - len.min(held.len() as i32);
                assert_eq!(held, (first..total).map(|i| i as f32).collect::<Vec<_>>());
                assert!(held.len() as i32 >= total.min(max_size));
                assert_eq!(cache.offset(), total);
            }
            Ok(())
        };
        check().expect("cache");
    }
}
