//! Rows behind those of a store, in the store's memory.

use std::ffi::CStr;

use crate::array::Array;
use crate::device::Device;
use crate::error::Result;
use crate::ffi::{self, HostInput, HostKernel, HostOutput};
use crate::stream;

/// Copies rows behind the first `len` of each head's.
#[derive(Clone, Copy)]
struct Append {
    len: i32,
}

impl HostKernel for Append {
    const NAME: &'static CStr = c"append";

    fn params(&self) -> Vec<u64> {
        vec![self.len as u64]
    }

    /// The rows: heads come transposed, and as parts of longer rows.
    fn takes_strided(&self, input: usize) -> bool {
        input == 1
    }

    /// The store: rows from `len` on are written, which are of no meaning before.
    fn appends_to(&self, _output: usize) -> Option<usize> {
        Some(0)
    }

    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String> {
        let ([_, rows], [out]) = (inputs, outputs) else {
            return Err(format!("{} inputs, expected 2", inputs.len()));
        };
        let (&[b, h, n, d], &[out_b, out_h, capacity, out_d]) = (rows.shape, out.shape) else {
            return Err(format!("rows {:?}, store {:?}", rows.shape, out.shape));
        };
        let has_room = (0..=capacity).contains(&self.len) && n <= capacity - self.len;
        if [b, h, d] != [out_b, out_h, out_d] || !has_room {
            return Err(format!("no room for rows {:?} in {:?}", rows.shape, out.shape));
        }
        let size = rows.dtype.size();
        let (d, to) = (d as usize, out.shared.cast::<u8>());
        // Elements that lie one behind the other are copied together.
        let (run, n_runs) = if rows.strides[3] == 1 || d == 1 { (d, 1) } else { (1, d) };
        for i in 0..b {
            for j in 0..h {
                for k in 0..n {
                    let head = i as usize * h as usize + j as usize;
                    let row = (head * capacity as usize + (self.len + k) as usize) * d;
                    let place = [i, j, k].into_iter().zip(rows.strides);
                    let start: i64 = place.map(|(i, stride)| i64::from(i) * stride).sum();
                    for r in 0..n_runs {
                        let at = start + r as i64 * rows.strides[3];
                        let at = rows.start.wrapping_add_signed(at as isize) * size;
                        let from = &rows.bytes[at..][..run * size];
                        // SAFETY: the row is one of the store's, as was seen above. Rows from `len` on
                        // are of meaning to nobody yet, and tasks of one store run one after the other.
                        unsafe {
                            to.add((row + r * run) * size)
                                .copy_from_nonoverlapping(from.as_ptr(), run * size);
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// Tells whether [`append`] is for these: there are rows of the same kind and room for them, on a CPU.
pub(crate) fn has_append(store: &Array, rows: &Array, len: i32) -> Result<bool> {
    let (&[b, h, capacity, d], &[rows_b, rows_h, n, rows_d]) = (store.shape(), rows.shape()) else {
        return Ok(false);
    };
    Ok([b, h, d] == [rows_b, rows_h, rows_d]
        && (0..=capacity).contains(&len)
        && n <= capacity - len
        && rows.size() > 0
        && store.dtype() == rows.dtype()
        && stream::current_device()? == Device::Cpu)
}

/// Writes `rows`, `[B, H, N, D]`, behind the first `len` rows of each head of `store`, `[B, H, S, D]`,
/// whose own rows from there on are of no meaning, even where they are still seen; `fallback` does the
/// same by MLX. [`has_append`] tells whether they fit.
///
/// The memory is reused if this was given the only handle to the store, whoever looks at its first
/// rows meanwhile. MLX's own update copies the store then.
///
/// # Errors
/// When the two do not fit.
pub(crate) fn append(
    store: Array,
    rows: &Array,
    len: i32,
    fallback: fn(&Array, &Array, i32) -> Result<Array>,
) -> Result<Array> {
    let (shape, dtype) = (store.shape().to_vec(), store.dtype());
    let fallback = move |inputs: &[Array]| Ok(vec![fallback(&inputs[0], &inputs[1], len)?]);
    let outputs = [(&shape[..], dtype)];
    super::only(
        "append",
        ffi::host_op(Append { len }, &[&store, rows], &outputs, Box::new(fallback))?,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::KvRows;
    use crate::transforms::{compile, vmap};
    use crate::{Dtype, random, with_device};

    fn normal(shape: &[i32], dtype: Dtype, seed: u64) -> Result<Array> {
        let x = random::normal(shape, Dtype::Float32, 0.0, 9.0, Some(&random::key(seed)?))?;
        x.astype(dtype)
    }

    fn by_mlx(store: &Array, rows: &Array, len: i32) -> Result<Array> {
        let [b, h, n, d] = rows.dims()?;
        store.slice_update(rows, &[0, 0, len, 0], &[b, h, len + n, d], &[1; 4])
    }

    fn append_rows(store: Array, rows: &Array, len: i32) -> Result<Array> {
        match KvRows::Dense(store).append(&KvRows::Dense(rows.clone()), len)? {
            KvRows::Dense(store) => Ok(store),
            KvRows::Packed(_) => panic!("packed"),
        }
    }

    fn same(a: &Array, b: &Array) -> Result<bool> {
        Ok(a.dtype() == b.dtype() && a.array_equal(b, false)?.item::<bool>()?)
    }

    #[test]
    fn rows_lie_behind_the_others() -> Result<()> {
        with_device(Device::Cpu, || {
            for dtype in [Dtype::Float32, Dtype::Bfloat16, Dtype::Uint32, Dtype::Uint8] {
                for (b, h, n, d) in [(1, 1, 1, 1), (2, 3, 4, 5), (1, 2, 1, 64), (2, 1, 7, 3)] {
                    let store = normal(&[b, h, 9, d], dtype, 1)?;
                    let rows = normal(&[b, h, n, d], dtype, 2)?;
                    let swapped = rows.swapaxes(1, 2)?.contiguous()?.swapaxes(1, 2)?;
                    let across = rows.swapaxes(2, 3)?.contiguous()?.swapaxes(2, 3)?;
                    let spread = rows.at((.., .., .., ..1))?.broadcast_to([b, h, n, d])?;
                    for rows in [&rows, &swapped, &across, &spread] {
                        for len in [0, 2] {
                            assert!(has_append(&store, rows, len)?, "{rows:?}");
                            let found = append_rows(store.clone(), rows, len)?;
                            assert!(same(&found, &by_mlx(&store, rows, len)?)?, "{rows:?} {len}");
                        }
                    }
                }
            }
            Ok(())
        })
    }

    #[test]
    fn what_does_not_fit_is_left_to_mlx() -> Result<()> {
        with_device(Device::Cpu, || {
            let store = normal(&[1, 2, 9, 4], Dtype::Float32, 1)?;
            let rows = |n, dtype| normal(&[1, 2, n, 4], dtype, 2);
            assert!(has_append(&store, &rows(2, Dtype::Float32)?, 7)?);
            assert!(!has_append(&store, &rows(2, Dtype::Float32)?, 8)?);
            assert!(!has_append(&store, &rows(2, Dtype::Float32)?, -1)?);
            assert!(!has_append(&store, &rows(0, Dtype::Float32)?, 3)?);
            assert!(!has_append(&store, &rows(2, Dtype::Float16)?, 3)?);
            assert!(!has_append(&store, &rows(2, Dtype::Float32)?.at(0)?, 3)?);
            assert!(append_rows(store.clone(), &rows(2, Dtype::Float32)?, 8).is_err());
            let wider = append_rows(store.clone(), &rows(2, Dtype::Float16)?, 3)?;
            assert!(same(&wider, &by_mlx(&store, &rows(2, Dtype::Float16)?, 3)?)?);
            Ok(())
        })
    }

    /// Views of the first rows keep what they show.
    #[test]
    fn memory_stays_while_it_is_looked_at() -> Result<()> {
        with_device(Device::Cpu, || {
            let address = |x: &Array| x.with_bytes(|bytes| bytes.as_ptr() as usize);
            let rows = normal(&[1, 2, 8, 16], Dtype::Float32, 3)?;
            let mut store = crate::ops::zeros(&[1, 2, 8, 16], Dtype::Float32)?;
            let (mut views, mut places) = (vec![], vec![]);
            for len in 0..8 {
                let row = rows.at((.., .., len..len + 1))?;
                store = append_rows(store, &row, len)?;
                let view = store.at((.., .., ..len + 1))?;
                crate::eval([&store, &view])?;
                views.push(view);
                places.push(address(&store)?);
            }
            assert!(places[1..].iter().all(|place| *place == places[0]), "{places:?}");
            for (n, view) in (1..).zip(&views) {
                assert!(same(view, &rows.at((.., .., ..n))?)?, "{n}");
            }
            // With another handle it is copied.
            let kept = store.clone();
            let other = append_rows(store, &rows.at((.., .., ..1))?, 7)?;
            crate::eval([&other])?;
            assert_ne!(address(&kept)?, address(&other)?);
            assert!(same(&kept, &rows)?);
            Ok(())
        })
    }

    #[test]
    fn runs_under_transforms() -> Result<()> {
        with_device(Device::Cpu, || {
            let store = normal(&[2, 1, 2, 6, 4], Dtype::Float32, 1)?;
            let rows = normal(&[2, 1, 2, 3, 4], Dtype::Float32, 2)?;
            let expected = [0, 1].map(|i| by_mlx(&store.at(i)?, &rows.at(i)?, 2));
            let f = |x: &[Array]| Ok(vec![append_rows(x[0].clone(), &x[1], 2)?]);
            let found = vmap(f, 0, 0)?.call(&[store.clone(), rows.clone()])?;
            let compiled = compile(f, false)?.call(&[store.at(1)?, rows.at(1)?])?;
            let [first, second] = expected;
            assert!(same(&found[0].at(0)?, &first?)?);
            let second = second?;
            assert!(same(&found[0].at(1)?, &second)? && same(&compiled[0], &second)?);
            Ok(())
        })
    }
}
