use super::*;
use crate::ops::Closeness;
use crate::transforms::{compile, grad_once, vmap};
use crate::{Result, Slice, random, with_device};

const DTYPES: [(Dtype, f64); 3] =
    [(Dtype::Float32, 1e-5), (Dtype::Float16, 4e-3), (Dtype::Bfloat16, 3e-2)];

/// Queries `[B, H, L, D]`, keys and values.
fn inputs(q: [i32; 4], kv: i32, s: i32, dtype: Dtype) -> Result<[Array; 3]> {
    let [b, _, _, d] = q;
    let normal = |shape: &[i32], seed| -> Result<Array> {
        random::normal(shape, Dtype::Float32, 0.0, 1.0, Some(&random::key(seed)?))?.astype(dtype)
    };
    Ok([normal(&q, 1)?, normal(&[b, kv, s, d], 2)?, normal(&[b, kv, s, d + 1], 3)?])
}

fn check_close(a: &Array, b: &Array, rtol: f64) -> Result<()> {
    assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()));
    let bounds = Closeness { rtol, atol: rtol, equal_nan: true };
    assert!(a.allclose(b, bounds)?.item::<bool>()?, "{a}\n{b}");
    Ok(())
}

fn kernel_of(options: &AttentionOptions<'_>) -> Attention {
    Attention {
        scale: options.scale,
        mask: match options.mask {
            AttentionMask::None => MaskKind::None,
            AttentionMask::Causal => MaskKind::Causal,
            AttentionMask::Array(_) => MaskKind::Array,
        },
        window: options.window,
        has_sinks: options.sinks.is_some(),
        soft_cap: options.soft_cap,
        isa: Isa::detect(),
    }
}

/// Checks against MLX's ops in float32, which round nothing in between.
fn check(all: &[Array; 3], options: AttentionOptions<'_>, rtol: f64) -> Result<()> {
    let [q, k, v] = all;
    let ours = attention(q, k, v, options)?;
    let mut wide: Vec<Array> =
        all.iter().map(|x| x.astype(Dtype::Float32)).collect::<Result<_>>()?;
    if let AttentionMask::Array(mask) = options.mask {
        let shape = [q.dim(0)?, q.dim(1)?, q.dim(2)?, k.dim(2)?];
        wide.push(mask.broadcast_to(shape)?);
    }
    if let Some(sinks) = options.sinks {
        wide.push(sinks.astype(Dtype::Float32)?);
    }
    let expected = composed(kernel_of(&options), &wide)?.astype(q.dtype())?;
    check_close(&ours, &expected, rtol)
}

#[test]
fn agrees_with_mlx() -> Result<()> {
    let shapes = [
        ([1, 1, 1, 1], 1, 1),
        ([2, 14, 1, 64], 2, 300),
        ([1, 4, 7, 33], 4, 7),
        ([2, 6, 50, 16], 3, 70),
        ([1, 2, 9, 8], 1, 4),
        ([0, 2, 3, 8], 1, 4),
        ([1, 2, 0, 8], 1, 4),
    ];
    with_device(Device::Cpu, || {
        for (dtype, rtol) in DTYPES {
            for (shape, kv, s) in shapes {
                let all = inputs(shape, kv, s, dtype)?;
                let [_, h, l, _] = shape;
                let bias =
                    random::normal(&[h, l, s], Dtype::Float32, 0.0, 1.0, Some(&random::key(4)?))?;
                let (is_seen, bias) = (bias.greater(-1.0)?, bias.astype(dtype)?);
                let (row, sinks) = (is_seen.at(0)?, bias.at((.., 0, 0)));
                for mask in [
                    AttentionMask::None,
                    AttentionMask::Causal,
                    AttentionMask::Array(&is_seen),
                    AttentionMask::Array(&row),
                    AttentionMask::Array(&bias),
                ] {
                    let options = AttentionOptions::new(0.3, mask);
                    check(&all, options, rtol)?;
                    check(&all, AttentionOptions { soft_cap: Some(2.0), ..options }, rtol)?;
                }
                let options = AttentionOptions::new(0.3, AttentionMask::Causal);
                check(&all, AttentionOptions { window: Some(3), ..options }, rtol)?;
                if l > 0 {
                    let options = AttentionOptions { sinks: Some(&sinks?), ..options };
                    check(&all, options, rtol)?;
                    check(&all, AttentionOptions { soft_cap: Some(2.0), ..options }, rtol)?;
                }
            }
        }
        Ok(())
    })
}

#[test]
fn agrees_with_mlx_where_nothing_is_seen() -> Result<()> {
    with_device(Device::Cpu, || {
        for l in [1, 20] {
            let all = inputs([1, 2, l, 8], 1, 5, Dtype::Float32)?;
            let hidden = ops::zeros(&[l, 5], Dtype::Bool)?;
            let infinite = ops::full(&[l, 5], f32::NEG_INFINITY, None)?;
            for mask in [&hidden, &infinite] {
                check(&all, AttentionOptions::new(1.0, AttentionMask::Array(mask)), 1e-6)?;
            }
            let [q, k, v] = &inputs([1, 2, l, 8], 1, 0, Dtype::Float32)?;
            let ours = attention(q, k, v, AttentionOptions::new(1.0, AttentionMask::None))?;
            assert_eq!(ours.abs()?.max(.., false)?.item::<f32>()?, 0.0);
        }
        Ok(())
    })
}

#[test]
fn takes_any_strides() -> Result<()> {
    with_device(Device::Cpu, || {
        let options = AttentionOptions::new(0.3, AttentionMask::Causal);
        let [q, k, v] = inputs([2, 6, 20, 16], 6, 40, Dtype::Float16)?;
        let (half, last) = (k.at((.., ..3, ..20))?, v.at((.., 3.., 20..))?);
        let heads_last = |x: &Array| x.transpose([0, 2, 1, 3])?.contiguous();
        let transposed =
            [heads_last(&q)?, heads_last(&k)?, heads_last(&v)?].map(|x| x.transpose([0, 2, 1, 3]));
        let [q_t, k_t, v_t] = transposed;
        let back = |x: &Array, axis: usize| {
            let mut slices = [Slice::step(1); 4];
            slices[axis].step = -1;
            let [b, h, s, d] = slices;
            x.at((b, h, s, d))
        };
        let columns = k.swapaxes(2, 3)?.contiguous()?.swapaxes(2, 3)?;
        let broadcast = v.at((.., ..1, ..))?.broadcast_to([2, 6, 40, 17])?;
        for all in [
            [q.clone(), half, last],
            [q_t?, k_t?, v_t?],
            [back(&q, 0)?, back(&k, 2)?, back(&v, 1)?],
            [back(&q, 3)?, columns, broadcast],
        ] {
            check(&all, options, 4e-3)?;
        }
        let mask = random::normal(&[40, 20], Dtype::Float32, 0.5, 1.0, None)?.t()?.greater(0.0)?;
        let all = [q, k, v];
        for mask in [&mask, &back(&mask.at((NewAxis, NewAxis))?, 3)?] {
            check(&all, AttentionOptions { mask: AttentionMask::Array(mask), ..options }, 4e-3)?;
        }
        Ok(())
    })
}

#[test]
fn a_cache_that_grows_is_read_where_it_lies() -> Result<()> {
    with_device(Device::Cpu, || {
        let [_, k, v] = inputs([1, 4, 1, 16], 2, 30, Dtype::Float32)?;
        let store = |d| ops::zeros(&[1, 2, 64, d], Dtype::Float32);
        let mut stores = [store(16)?, store(17)?];
        let mut results = vec![];
        for i in 0..30 {
            let [q, ..] = inputs([1, 4, 1, 16], 2, 1, Dtype::Float32)?;
            for (store, x) in stores.iter_mut().zip([&k, &v]) {
                let (row, d) = (x.at((.., .., i..i + 1))?, x.dim(3)?);
                *store = store.slice_update(&row, &[0, 0, i, 0], &[1, 2, i + 1, d], &[1; 4])?;
            }
            let [k, v] = [0, 1].map(|n| stores[n].at((.., .., ..i + 1)));
            let options = AttentionOptions::new(0.3, AttentionMask::None);
            results.push((q.clone(), attention(&q, &k?, &v?, options)?));
        }
        for (i, (q, ours)) in results.iter().enumerate() {
            let end = i as i32 + 1;
            let [k, v] = [k.at((.., .., ..end))?, v.at((.., .., ..end))?];
            let mask = AttentionMask::None;
            let theirs = scaled_dot_product_attention(q, &k, &v, 0.3, mask, None)?;
            check_close(ours, &theirs, 1e-5)?;
        }
        Ok(())
    })
}

#[test]
fn runs_under_compile_vmap_and_grad() -> Result<()> {
    with_device(Device::Cpu, || {
        let all = inputs([3, 4, 5, 8], 2, 9, Dtype::Float32)?;
        let mask = causal_mask(5, 9, None)?;
        for (soft_cap, window) in [(None, None), (Some(2.0), None), (None, Some(3))] {
            let f = move |x: &[Array]| {
                let options = AttentionOptions::new(0.3, AttentionMask::Causal);
                let options = AttentionOptions { soft_cap, window, ..options };
                Ok(vec![attention(&x[0], &x[1], &x[2], options)?])
            };
            let expected = &f(&all)?[0];
            let compiled = compile(f, false)?;
            for _ in 0..2 {
                check_close(&compiled.call(&all)?[0], expected, 1e-6)?;
            }
            let one_more =
                all.iter().map(|x| x.expand_dims(1)?.contiguous()).collect::<Result<Vec<_>>>()?;
            let mapped = vmap(f, &[Some(0); 3], 0)?.call(&one_more)?;
            check_close(&mapped[0].squeeze(1)?, expected, 1e-5)?;
        }
        let loss = |y: Array| Ok(vec![y.square()?.sum(.., false)?]);
        let ours = |x: &[Array]| {
            let options = AttentionOptions::new(0.3, AttentionMask::Array(&mask));
            loss(attention(&x[0], &x[1], &x[2], options)?)
        };
        let theirs = |x: &[Array]| {
            let mask = AttentionMask::Array(&mask);
            loss(scaled_dot_product_attention(&x[0], &x[1], &x[2], 0.3, mask, None)?)
        };
        for input in 0..3 {
            let [ours, theirs] = [grad_once(ours, &all, input)?, grad_once(theirs, &all, input)?];
            check_close(&ours[0], &theirs[0], 1e-5)?;
        }
        Ok(())
    })
}

#[test]
fn refuses_what_does_not_fit() -> Result<()> {
    with_device(Device::Cpu, || {
        let [q, k, v] = inputs([1, 4, 5, 8], 2, 9, Dtype::Float32)?;
        let plain = AttentionOptions::new(0.3, AttentionMask::None);
        let (half, wide, mask) = (
            k.astype(Dtype::Float16)?,
            k.at((.., .., .., ..7))?,
            ops::zeros(&[4, 9], Dtype::Bool)?,
        );
        let masked = AttentionOptions::new(0.3, AttentionMask::Array(&mask));
        for (q, k, v, options) in [
            (&q, &half, &v, plain),
            (&q, &wide, &v, plain),
            (&q.at(0)?, &k, &v, plain),
            (&q.at((.., ..3))?, &k, &v, plain),
            (&q, &k, &v.at((.., .., ..3))?, plain),
            (&q, &k, &v, masked),
            (&q, &k, &v, AttentionOptions { window: Some(2), ..plain }),
            (&q, &k, &v, AttentionOptions { sinks: Some(&half), ..plain }),
        ] {
            assert!(!has_attention([q, k, v], &options)?);
            let error = attention(q, k, v, options).expect_err("no fit");
            assert!(error.to_string().starts_with("attention: "), "{error}");
        }
        assert!(has_attention([&q, &k, &v], &plain)?);
        Ok(())
    })
}
