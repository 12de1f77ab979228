use mlx_core::nn::{CachedAttention, KvStore};
use mlx_core::{Array, Device, Dtype, Result, async_eval, eval, ops, random, with_device};
use proptest::prelude::*;

use super::{FullCache, KvCache, NewRows, RotatingCache};

fn rows(n: i32, seed: u64) -> Result<Array> {
    random::normal(&[1, 2, n, 4], Dtype::Float32, 0.0, 1.0, Some(&random::key(seed)?))
}

fn check_equal(a: &Array, b: &Array) -> Result<()> {
    assert_eq!(a.shape(), b.shape());
    assert!(a.array_equal(b, false)?.item::<bool>()?);
    Ok(())
}

/// Appends rows to what the cache lends.
fn by_lending(cache: &mut FullCache, new: &Array) -> Result<(Array, Array)> {
    let n = new.dim(2)?;
    let rows =
        NewRows { batch: 1, n, n_kv_heads: 2, head_dim: 4, value_dim: 4, dtype: Dtype::Float32 };
    let KvStore { keys, values, len } = cache.lend(&rows)?.expect("it lends");
    let write = |store: Array, rows: &Array| {
        store.slice_update(rows, &[0, 0, len, 0], &[1, 2, len + n, 4], &[1; 4])
    };
    let (keys, values) = (write(keys, new)?, write(values, &(new * 2.0)?)?);
    let seen = (keys.at((.., .., ..len + n))?, values.at((.., .., ..len + n))?);
    cache.put_back(KvStore { keys, values, len: len + n });
    Ok(seen)
}

/// Appends `n` tokens by attention, and returns its result.
fn attend(cache: &mut FullCache, n: i32) -> Result<Array> {
    let rows =
        NewRows { batch: 1, n, n_kv_heads: 2, head_dim: 4, value_dim: 4, dtype: Dtype::Float32 };
    let attention = CachedAttention {
        n_heads: 2,
        n_kv_heads: 2,
        scale: 0.5,
        q_norm: None,
        k_norm: None,
        rope: None,
        window: None,
    };
    let x = random::normal(&[1, n, 8], Dtype::Float32, 0.0, 1.0, None)?;
    let store = cache.lend(&rows)?.expect("it lends");
    let (out, store) = attention.forward(x.clone(), x.clone(), x, store)?;
    cache.put_back(store);
    Ok(out)
}

/// Also while steps are on their way: a copy of the cache for each token would cost as much as it.
#[test]
fn tokens_are_written_in_place() -> Result<()> {
    with_device(Device::Cpu, || {
        let mut cache = FullCache::default();
        let address = |cache: &FullCache| -> Result<Vec<usize>> {
            let address = |x: &&Array| x.with_bytes(|bytes| bytes.as_ptr() as usize);
            cache.state().iter().map(address).collect()
        };
        attend(&mut cache, 5)?.eval()?;
        let first = address(&cache)?;
        let mut outputs = Vec::new();
        for _ in 0..20 {
            let out = attend(&mut cache, 1)?;
            async_eval([&out])?;
            outputs.push(out);
        }
        eval(&outputs)?;
        assert_eq!(address(&cache)?, first);
        // Not where a handle stays, nor over rows that were handed out and taken back.
        let kept = cache.state().into_iter().cloned().collect::<Vec<_>>();
        attend(&mut cache, 1)?.eval()?;
        assert_ne!(address(&cache)?, first);
        drop(kept);
        let second = address(&cache)?;
        assert!(cache.trim(2));
        attend(&mut cache, 1)?.eval()?;
        assert_ne!(address(&cache)?, second);
        Ok(())
    })
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
                    let (keys, values) = match seed % 2 {
                        0 => cache.update_and_fetch(&new, &(&new * 2.0)?)?,
                        _ => by_lending(&mut cache, &new)?,
                    };
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
