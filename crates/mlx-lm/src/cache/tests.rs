use mlx_core::nn::{self, CachedAttention, KvRows, KvStore};
use mlx_core::{
    Array, Device, Dtype, Quantization, Result, async_eval, eval, kernels, ops, random, with_device,
};
use proptest::prelude::*;

use super::{FullCache, KvCache, NewRows, RotatingCache};
use crate::layers::mask::Mask;

fn rows(n: i32, seed: u64) -> Result<Array> {
    random::normal(&[1, 2, n, 4], Dtype::Float32, 0.0, 1.0, Some(&random::key(seed)?))
}

fn check_equal(a: &Array, b: &Array) -> Result<()> {
    assert_eq!(a.shape(), b.shape());
    assert!(a.array_equal(b, false)?.item::<bool>()?);
    Ok(())
}

fn new_rows(n: i32, head_dim: i32) -> NewRows {
    NewRows { batch: 1, n, n_kv_heads: 2, head_dim, value_dim: head_dim, dtype: Dtype::Float32 }
}

/// Appends rows to what the cache lends.
fn by_lending(cache: &mut dyn KvCache, new: &Array) -> Result<(Array, Array)> {
    let n = new.dim(2)?;
    let KvStore { keys, values, len, offset, skipped } =
        cache.lend(&new_rows(n, 4))?.expect("it lends");
    let keys = keys.append(&KvRows::Dense(new.clone()), len)?;
    let values = values.append(&KvRows::Dense((new * 2.0)?), len)?;
    let seen = |rows: &KvRows| rows.to_dense(Dtype::Float32)?.at((.., .., ..len + n));
    let all = (seen(&keys)?, seen(&values)?);
    cache.put_back(KvStore { keys, values, len: len + n, offset: offset + n, skipped });
    Ok(all)
}

/// Appends tokens by attention, and returns its result.
fn attend(cache: &mut dyn KvCache, [q, k, v]: [&Array; 3], scale: f32) -> Result<Array> {
    let [_, n, e] = k.dims()?;
    let window = match cache.make_mask(n, None)? {
        Mask::Window(window) => Some(window),
        _ => None,
    };
    let attention = CachedAttention { window, ..CachedAttention::new(2, 2, scale) };
    let store = cache.lend(&new_rows(n, e / 2))?.expect("it lends");
    let (out, store) = attention.forward(q.clone(), k.clone(), v.clone(), store)?;
    cache.put_back(store);
    Ok(out)
}

fn attend_random(cache: &mut dyn KvCache, n: i32) -> Result<Array> {
    let x = random::normal(&[1, n, 64], Dtype::Float32, 0.0, 1.0, None)?;
    attend(cache, [&x, &x, &x], 0.5)
}

fn caches() -> [Box<dyn KvCache>; 4] {
    let quantization = Quantization { group_size: 32, bits: 8, ..Quantization::default() };
    [
        Box::new(FullCache::default()),
        Box::new(FullCache::packed(quantization)),
        Box::new(RotatingCache::new(10)),
        Box::new(RotatingCache::with_first(10, 3)),
    ]
}

/// Where the arrays of a cache lie.
fn addresses(cache: &dyn KvCache) -> Result<Vec<usize>> {
    let address = |x: &&Array| x.with_bytes(|bytes| bytes.as_ptr() as usize);
    cache.state().iter().map(address).collect()
}

/// Also while steps are on their way: a copy of the cache for each token would cost as much as it.
#[test]
fn tokens_are_written_in_place() -> Result<()> {
    with_device(Device::Cpu, || {
        for mut cache in caches() {
            let cache = cache.as_mut();
            attend_random(cache, 5)?.eval()?;
            let first = addresses(cache)?;
            let mut outputs = Vec::new();
            for _ in 0..240 {
                let out = attend_random(cache, 1)?;
                // As a layer that shares them does.
                let (keys, values) = cache.fetch(Dtype::Float32)?;
                let shared = (keys * values)?.sum(-1, false)?;
                async_eval([&out, &shared])?;
                outputs.extend([out, shared]);
            }
            eval(&outputs)?;
            assert_eq!(addresses(cache)?, first);
            // Not where a handle stays.
            let kept = cache.state().into_iter().cloned().collect::<Vec<_>>();
            attend_random(cache, 1)?.eval()?;
            assert_ne!(addresses(cache)?, first);
            drop(kept);
            // Nor over rows that were handed out and taken back.
            let second = addresses(cache)?;
            if cache.trim(2) {
                attend_random(cache, 1)?.eval()?;
                assert_ne!(addresses(cache)?, second);
            }
        }
        Ok(())
    })
}

/// Steps of some layers as one node give what each layer gives by itself, and copy no rows either.
#[test]
fn fused_steps_give_the_same() -> Result<()> {
    /// More than 64 arrays where keys and values are packed.
    const N_LAYERS: usize = 11;
    with_device(Device::Cpu, || {
        for kind in 0..caches().len() {
            let layers = || -> Vec<Box<dyn KvCache>> {
                (0..N_LAYERS).filter_map(|_| caches().into_iter().nth(kind)).collect()
            };
            let step = |layers: &mut [Box<dyn KvCache>], x: &Array| -> Result<Array> {
                layers
                    .iter_mut()
                    .try_fold(x.clone(), |x, cache| attend(cache.as_mut(), [&x, &x, &x], 0.5))
            };
            let (mut fused, mut plain) = (layers(), layers());
            let mut places: Vec<Vec<usize>> = Vec::new();
            for n in [12, 1, 1, 3, 1, 20, 1] {
                let x = random::normal(&[1, n, 64], Dtype::Float32, 0.0, 1.0, None)?;
                x.eval()?;
                let expected = step(&mut plain, &x)?;
                check_equal(&kernels::fused(|| step(&mut fused, &x))?, &expected)?;
                for (fused, plain) in fused.iter().zip(&plain) {
                    assert_eq!(fused.offset(), plain.offset());
                    for (fused, plain) in fused.state().into_iter().zip(plain.state()) {
                        check_equal(fused, plain)?;
                    }
                }
                let now = fused.iter().map(|cache| addresses(cache.as_ref()));
                places.push(now.collect::<Result<Vec<_>>>()?.concat());
            }
            assert!(places.windows(2).all(|pair| pair[0] == pair[1]), "kind {kind}");
        }
        Ok(())
    })
}

/// Rows stay few, however many tokens there are.
#[test]
fn a_rotating_cache_has_an_end() -> Result<()> {
    with_device(Device::Cpu, || {
        let mut cache = RotatingCache::new(20);
        for n in [700, 1, 1].into_iter().chain(std::iter::repeat_n(1, 600)) {
            attend_random(&mut cache, n)?.eval()?;
            let capacity = cache.state()[0].dim(2)?;
            assert!(capacity <= 768, "{capacity}");
        }
        assert_eq!(cache.state()[0].dim(2)?, 19 + 256);
        assert_eq!(cache.offset(), 1302);
        Ok(())
    })
}

/// The values that attention without scores takes the mean of: a token's position and its square.
fn positions(range: std::ops::Range<i32>) -> Result<Array> {
    let n = range.len() as i32;
    let p = Array::range(n)?.add(range.start)?.astype(Dtype::Float32)?.divide(64.0)?;
    let both = ops::stack([&p, &p.square()?], -1)?;
    both.tile(&[1, 32])?.reshape([1, n, 64])
}

/// Packed rows differ from dense ones by what packing makes of them, and by nothing else.
#[test]
fn a_quantized_cache_attends_to_what_its_rows_stand_for() -> Result<()> {
    with_device(Device::Cpu, || {
        for (bits, group_size) in [(4, 32), (8, 32), (6, 32)] {
            let quantization = Quantization { bits, group_size, ..Quantization::default() };
            let mut packed = FullCache::packed(quantization);
            let mut unpacked = FullCache::packed(quantization);
            for (seed, n) in [5, 1, 300, 1, 1].into_iter().enumerate() {
                let x = random::normal(
                    &[1, n, 64],
                    Dtype::Float32,
                    0.0,
                    1.0,
                    Some(&random::key(seed as u64)?),
                )?;
                let ours = attend(&mut packed, [&x, &x, &x], 0.2)?;
                let heads = |x: &Array| x.reshape([1, n, 2, 32])?.transpose([0, 2, 1, 3]);
                let rows = heads(&x)?;
                let mask = unpacked.make_mask(n, None)?;
                let (k, v) = unpacked.update_and_fetch(&rows, &rows)?;
                let expected = mask.with_attention([n, k.dim(2)?], |mask| {
                    nn::attention(&rows, &k, &v, 0.2, mask, None)
                })?;
                let off = ours.subtract(&expected)?.abs()?.max(.., false)?.item::<f32>()?;
                assert!(off < 1e-5, "{bits} bits: {off}");
                // And packing is within a step of numbers that are hardly ever beyond 4.5.
                let off = k.at((.., .., -n..))?.subtract(&rows)?.abs()?.max(.., false)?;
                let step = 9.0 / (1 << bits) as f32;
                let off = off.item::<f32>()?;
                assert!(off <= step, "{bits} bits: {off}");
            }
        }
        Ok(())
    })
}

/// What was kept is packed too, and is where it was.
#[test]
fn caches_are_packed_on_the_way() -> Result<()> {
    with_device(Device::Cpu, || {
        let quantization = Quantization { group_size: 32, bits: 8, ..Quantization::default() };
        for (mut cache, mut plain) in caches().into_iter().zip(caches()) {
            for n in [7, 1, 12] {
                for cache in [&mut cache, &mut plain] {
                    let x = positions(cache.offset()..cache.offset() + n)?;
                    attend(cache.as_mut(), [&x, &x, &x], 0.0)?;
                }
            }
            cache.quantize(quantization)?;
            assert!(cache.state().len() == 6 && cache.offset() == 20);
            let x = positions(20..21)?;
            let ours = attend(cache.as_mut(), [&x, &x, &x], 0.0)?;
            let expected = attend(plain.as_mut(), [&x, &x, &x], 0.0)?;
            let off = ours.subtract(&expected)?.abs()?.max(.., false)?.item::<f32>()?;
            assert!(off < 2e-3, "{off}");
        }
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
                    let (keys, values) = cache.fetch(Dtype::Float32)?;
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

    /// The rows that mlx-lm's ring has after each step, and its mask over them, as a list.
    #[test]
    fn a_rotating_cache_sees_what_the_reference_does(
        history in proptest::collection::vec(prop_oneof![3 => Just(1i32), 1 => 1..6i32, 1 => 5..300i32], 1..25),
        (max_size, keep) in (2..40i32).prop_flat_map(|max_size| (Just(max_size), 0..4.min(max_size))),
        is_trimmed in any::<bool>(),
    ) {
        let check = || -> Result<()> {
            let mut cache = RotatingCache::with_first(max_size, keep);
            let (mut rows, mut offset) = (Vec::<i32>::new(), 0);
            for (step, &n) in history.iter().enumerate() {
                let x = positions(offset..offset + n)?;
                let out = attend(&mut cache, [&x, &x, &x], 0.0)?;
                let excess = (rows.len() as i32 - (max_size - 1)).max(0);
                if excess > 0 {
                    rows.drain(keep as usize..(keep + excess) as usize);
                }
                rows.extend(offset..offset + n);
                offset += n;
                let out = out.reshape([n, 64])?.at((.., ..2))?.to_vec::<f32>()?;
                for (i, out) in out.chunks_exact(2).enumerate() {
                    let end = rows.len() - n as usize + i + 1;
                    let seen = &rows[end.saturating_sub(max_size as usize)..end];
                    let mean = |f: fn(f32) -> f32| {
                        seen.iter().map(|&p| f(p as f32 / 64.0)).sum::<f32>() / seen.len() as f32
                    };
                    let expected = [mean(|p| p), mean(|p| p * p)];
                    for (ours, expected) in out.iter().zip(expected) {
                        let bound = 1e-4 * (1.0 + expected);
                        assert!((ours - expected).abs() < bound, "{ours}, not {expected}: {seen:?}");
                    }
                }
                assert_eq!(cache.offset(), offset);
                // Only before the ring has gone round.
                if step == 1 && is_trimmed {
                    assert_eq!(cache.trim(1), offset < max_size);
                    if offset < max_size {
                        rows.pop();
                        offset -= 1;
                    }
                }
            }
            Ok(())
        };
        with_device(Device::Cpu, check).expect("cache");
    }
}
