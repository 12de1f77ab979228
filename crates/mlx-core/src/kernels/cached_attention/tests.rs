use super::*;
use crate::ops::{self, Closeness};
use crate::transforms::{compile, grad_once};
use crate::{Device, random, with_device};

const PARTS: CachedAttentionParts = CachedAttentionParts {
    n_heads: 6,
    n_kv_heads: 2,
    scale: 0.3,
    q_eps: None,
    k_eps: None,
    rope: None,
    window: None,
    soft_cap: None,
    len: 0,
    offset: 0,
    skipped: [0, 0],
};

fn normal(shape: &[i32], dtype: Dtype, seed: u64) -> Result<Array> {
    random::normal(shape, Dtype::Float32, 0.0, 1.0, Some(&random::key(seed)?))?.astype(dtype)
}

fn arrays(b: i32, l: i32, dtype: Dtype) -> Result<CachedAttentionArrays> {
    Ok(CachedAttentionArrays {
        q: normal(&[b, l, 6 * 16], dtype, 1)?,
        k: normal(&[b, l, 2 * 16], dtype, 2)?,
        v: normal(&[b, l, 2 * 8], dtype, 3)?,
        keys: KvRows::Dense(normal(&[b, 2, 40, 16], dtype, 4)?),
        values: KvRows::Dense(normal(&[b, 2, 40, 8], dtype, 5)?),
        q_norm: None,
        k_norm: None,
        wavelengths: None,
        sinks: None,
        mask: None,
    })
}

/// Attention, then all parts of keys and values.
fn list((out, keys, values): (Array, KvRows, KvRows)) -> Vec<Array> {
    let stores = keys.parts().into_iter().chain(values.parts());
    [&out].into_iter().chain(stores).cloned().collect()
}

fn dense(rows: &KvRows) -> &Array {
    match rows {
        KvRows::Dense(rows) => rows,
        KvRows::Packed(_) => panic!("packed"),
    }
}

fn check_close(a: &Array, b: &Array, rtol: f64) -> Result<()> {
    assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()));
    let bounds = Closeness { rtol, atol: rtol, equal_nan: false };
    assert!(a.allclose(b, bounds)?.item::<bool>()?, "{a}\n{b}");
    Ok(())
}

#[test]
fn agrees_with_ops() -> Result<()> {
    let rope =
        RopeParts { dims: 12, traditional: false, base: Some(1e4), scale: 1.0, magnitude: 1.0 };
    let stretched = RopeParts { base: None, magnitude: 1.3, traditional: true, ..rope };
    with_device(Device::Cpu, || {
        for (dtype, rtol) in
            [(Dtype::Float32, 1e-5), (Dtype::Float16, 4e-3), (Dtype::Bfloat16, 4e-2)]
        {
            for (b, l, len) in [(1, 1, 0), (1, 1, 17), (2, 5, 0), (3, 7, 33), (2, 1, 39)] {
                for (rope, eps, window) in [
                    (None, None, None),
                    (Some(rope), None, Some(4)),
                    (Some(stretched), Some(1e-5), None),
                ] {
                    let mut arrays = arrays(b, l, dtype)?;
                    if eps.is_some() {
                        arrays.q_norm = Some(normal(&[16], dtype, 6)?);
                        arrays.k_norm = Some(normal(&[16], dtype, 7)?);
                    }
                    if rope.is_some_and(|rope| rope.base.is_none()) {
                        arrays.wavelengths = Some(ops::full(&[6], 9.0, Dtype::Float32)?);
                    }
                    let parts = CachedAttentionParts {
                        q_eps: eps,
                        k_eps: eps,
                        rope,
                        window,
                        len,
                        offset: len + 5,
                        ..PARTS
                    };
                    assert!(has_kernel(&parts, &arrays)?);
                    let expected = list(by_ops(&parts, arrays.clone())?);
                    for (a, b) in list(cached_attention(parts, arrays)?).iter().zip(&expected) {
                        check_close(a, b, rtol)?;
                    }
                }
            }
        }
        Ok(())
    })
}

#[test]
fn rows_are_written_where_the_store_lies() -> Result<()> {
    with_device(Device::Cpu, || {
        let address = |x: &Array| x.with_bytes(|bytes| bytes.as_ptr() as usize);
        let step = |keys: Array, values: Array, len: i32| -> Result<[Array; 2]> {
            let (keys, values) = (KvRows::Dense(keys), KvRows::Dense(values));
            let arrays = CachedAttentionArrays { keys, values, ..arrays(1, 1, Dtype::Float32)? };
            let parts = CachedAttentionParts { len, ..PARTS };
            let (out, keys, values) = cached_attention(parts, arrays)?;
            out.eval()?;
            Ok([dense(&keys).clone(), dense(&values).clone()])
        };
        let arrays = arrays(1, 1, Dtype::Float32)?;
        let (given_keys, given_values) = (dense(&arrays.keys), dense(&arrays.values));
        let given = given_keys.copy()?;
        crate::eval([&given, given_keys])?;
        // The first time into memory of its own, for what was given may be anyone's.
        let [keys, values] = step(given_keys.clone(), given_values.clone(), 3)?;
        assert_ne!(address(&keys)?, address(given_keys)?);
        check_close(given_keys, &given, 0.0)?;
        let first = address(&keys)?;
        let [keys, values] = step(keys, values, 4)?;
        assert_eq!(address(&keys)?, first);
        // A handle that stays, and a view, which knows nothing of the last rows, make it a copy.
        let kept = keys.clone();
        let [keys, values] = step(keys, values, 5)?;
        assert_ne!(address(&keys)?, first);
        drop(kept);
        let second = address(&keys)?;
        let view = keys.reshape([2, 640])?.reshape([1, 2, 40, 16])?;
        view.eval()?;
        let [keys, values] = step(keys, values, 6)?;
        assert_eq!(address(&keys)?, second);
        let [other, _] = step(view, values, 6)?;
        assert_ne!(address(&other)?, second);
        Ok(())
    })
}

#[test]
fn transforms_see_what_ops_compute() -> Result<()> {
    with_device(Device::Cpu, || {
        let arrays = arrays(2, 3, Dtype::Float32)?;
        // Compiled, they would be other random numbers.
        crate::eval(arrays.inputs())?;
        let parts = CachedAttentionParts { len: 4, ..PARTS };
        let inputs = [arrays.q.clone(), arrays.k.clone(), arrays.v.clone()];
        let with = {
            let arrays = arrays.clone();
            move |x: &[Array]| CachedAttentionArrays {
                q: x[0].clone(),
                k: x[1].clone(),
                v: x[2].clone(),
                ..arrays.clone()
            }
        };
        let ours = {
            let with = with.clone();
            move |x: &[Array]| Ok(list(cached_attention(parts, with(x))?))
        };
        let expected = list(by_ops(&parts, arrays)?);
        let compiled = compile(ours.clone(), false)?;
        for _ in 0..2 {
            for (a, b) in compiled.call(&inputs)?.iter().zip(&expected) {
                check_close(a, b, 1e-5)?;
            }
        }
        let ours = |x: &[Array]| Ok(vec![ours(x)?[0].square()?.sum(.., false)?]);
        let theirs = |x: &[Array]| Ok(vec![by_ops(&parts, with(x))?.0.square()?.sum(.., false)?]);
        for i in 0..3 {
            let (a, b) = (grad_once(ours, &inputs, i)?, grad_once(theirs, &inputs, i)?);
            check_close(&a[0], &b[0], 1e-5)?;
        }
        Ok(())
    })
}

#[test]
fn what_does_not_fit_is_refused() -> Result<()> {
    with_device(Device::Cpu, || {
        let arrays = arrays(1, 2, Dtype::Float32)?;
        let parts = |change: fn(&mut CachedAttentionParts)| {
            let mut parts = PARTS;
            change(&mut parts);
            parts
        };
        for parts in [
            parts(|p| p.len = 39),
            parts(|p| p.len = -1),
            parts(|p| p.len = i32::MAX),
            parts(|p| p.n_heads = 5),
            parts(|p| p.n_kv_heads = 0),
            parts(|p| p.window = Some(0)),
            parts(|p| p.skipped = [0, 1]),
            parts(|p| p.offset = -1),
        ] {
            let error = cached_attention(parts, arrays.clone()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{parts:?}");
        }
        assert!(cached_attention(PARTS, arrays).is_ok());
        Ok(())
    })
}

/// A way to attend beside the plain one.
#[derive(Clone, Copy, Debug, Default)]
struct Variant {
    window: Option<i32>,
    soft_cap: Option<f32>,
    has_sinks: bool,
    /// Adds to scores; else it is of booleans.
    mask: Option<bool>,
    skipped: [i32; 2],
    packed: Option<Quantization>,
}

impl Variant {
    /// Every option, by itself and with others.
    fn all() -> Vec<Variant> {
        let packed =
            |bits, group_size| Some(Quantization { bits, group_size, ..Quantization::default() });
        let mut all = Vec::new();
        for packed in [None, packed(4, 32), packed(8, 64)] {
            for (window, skipped) in
                [(None, [0, 0]), (Some(4), [0, 0]), (None, [0, 5]), (Some(9), [2, 6])]
            {
                for (has_sinks, soft_cap) in [(false, None), (true, None), (true, Some(2.0))] {
                    all.push(Variant { window, skipped, has_sinks, soft_cap, packed, mask: None });
                }
            }
            for mask in [Some(true), Some(false)] {
                all.push(Variant { mask, packed, skipped: [1, 3], ..Variant::default() });
            }
        }
        all
    }

    /// Rows of 64 in a store of 40.
    fn apply(
        self,
        b: i32,
        l: i32,
        len: i32,
        dtype: Dtype,
    ) -> Result<(CachedAttentionParts, CachedAttentionArrays)> {
        let Variant { window, soft_cap, has_sinks, mask, skipped, packed } = self;
        let parts = CachedAttentionParts { window, soft_cap, len, offset: len, skipped, ..PARTS };
        let rows = |seed| -> Result<KvRows> {
            let rows = normal(&[b, 2, 40, 64], dtype, seed)?;
            packed.map_or(Ok(KvRows::Dense(rows.clone())), |packed| KvRows::pack(&rows, packed))
        };
        let mask = match mask {
            None => None,
            Some(adds) => {
                let mask = normal(&[6, l, parts.n_keys(l)], dtype, 8)?;
                Some(if adds { mask } else { mask.greater(-1.0)? })
            }
        };
        let arrays = CachedAttentionArrays {
            q: normal(&[b, l, 6 * 64], dtype, 1)?,
            k: normal(&[b, l, 2 * 64], dtype, 2)?,
            v: normal(&[b, l, 2 * 64], dtype, 3)?,
            keys: rows(4)?,
            values: rows(5)?,
            q_norm: None,
            k_norm: None,
            wavelengths: None,
            sinks: if has_sinks { Some(normal(&[6], dtype, 9)?) } else { None },
            mask,
        };
        Ok((CachedAttentionParts { scale: 0.15, ..parts }, arrays))
    }
}

/// Against attention by ops over what the packed rows stand for: packing is no part of the difference.
#[test]
fn variants_agree_with_ops() -> Result<()> {
    with_device(Device::Cpu, || {
        for variant in Variant::all() {
            for (b, l) in [(2, 1), (1, 3), (2, 12)] {
                for (dtype, rtol) in
                    [(Dtype::Float32, 1e-5), (Dtype::Float16, 4e-3), (Dtype::Bfloat16, 4e-2)]
                {
                    let (parts, arrays) = variant.apply(b, l, 20, dtype)?;
                    assert!(has_kernel(&parts, &arrays)?);
                    let (_, keys, values) = by_ops(&parts, arrays.clone())?;
                    let (ours, our_keys, our_values) = cached_attention(parts, arrays.clone())?;
                    let stores = [(&our_keys, &keys), (&our_values, &values)];
                    for (ours, theirs) in stores {
                        for (ours, theirs) in ours.parts().into_iter().zip(theirs.parts()) {
                            check_close(ours, theirs, 0.0)?;
                        }
                    }
                    // The rows as they are now, unpacked, by ops that round nothing in between.
                    let wide = |x: &Array| x.astype(Dtype::Float32);
                    let some = |x: &Option<Array>| x.as_ref().map(wide).transpose();
                    let unpacked = |rows: &KvRows| -> Result<KvRows> {
                        let rows = rows.map(|part| {
                            if part.dtype() == Dtype::Uint32 {
                                Ok(part.clone())
                            } else {
                                wide(part)
                            }
                        })?;
                        Ok(KvRows::Dense(rows.to_dense(Dtype::Float32)?))
                    };
                    let k = unpacked(&keys)?;
                    let new = |rows: &KvRows| {
                        dense(rows)
                            .at((.., .., 20..20 + l))?
                            .transpose([0, 2, 1, 3])?
                            .reshape([b, l, -1])
                    };
                    let v = unpacked(&values)?;
                    let wide_arrays = CachedAttentionArrays {
                        q: wide(&arrays.q)?,
                        k: new(&k)?,
                        v: new(&v)?,
                        keys: k,
                        values: v,
                        sinks: some(&arrays.sinks)?,
                        mask: match &arrays.mask {
                            Some(mask) if mask.dtype() == Dtype::Bool => Some(mask.clone()),
                            mask => some(mask)?,
                        },
                        ..arrays
                    };
                    let (expected, ..) = by_ops(&parts, wide_arrays)?;
                    check_close(&ours, &expected.astype(dtype)?, rtol)?;
                }
            }
        }
        Ok(())
    })
}

/// On a GPU packed rows go through products of MLX's own.
#[test]
fn ops_take_packed_rows_as_they_are() -> Result<()> {
    with_device(Device::Cpu, || {
        for variant in Variant::all() {
            let (parts, arrays) = variant.apply(2, 3, 20, Dtype::Float32)?;
            let (ours, ..) = cached_attention(parts, arrays.clone())?;
            check_close(&by_ops(&parts, arrays)?.0, &ours, 1e-4)?;
        }
        Ok(())
    })
}

#[test]
fn packed_rows_are_written_where_the_store_lies() -> Result<()> {
    with_device(Device::Cpu, || {
        let packed = Some(Quantization { bits: 8, ..Quantization::default() });
        let variant = Variant { packed, ..Variant::default() };
        let (parts, arrays) = variant.apply(1, 1, 3, Dtype::Float32)?;
        let addresses = |rows: &KvRows| -> Result<Vec<usize>> {
            let address = |x: &Array| x.with_bytes(|bytes| bytes.as_ptr() as usize);
            rows.parts().into_iter().map(address).collect()
        };
        let (out, keys, values) = cached_attention(parts, arrays.clone())?;
        out.eval()?;
        let before = addresses(&keys)?;
        let next = CachedAttentionArrays { keys, values, ..arrays };
        let (out, keys, _) = cached_attention(CachedAttentionParts { len: 4, ..parts }, next)?;
        out.eval()?;
        assert_eq!(addresses(&keys)?, before);
        Ok(())
    })
}
