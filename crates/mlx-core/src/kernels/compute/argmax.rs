//! The position of the greatest element of each row.

use super::Float;
use super::isa::{Isa, Level, multiversion};
use super::rows::{fold, for_each, rows_per_part};

/// Elements whose maximum is found before it is asked where it is.
const BLOCK: usize = 1024;

/// Writes the position of the greatest of each row of `d` elements: the first of equal ones. A NaN
/// is passed over, but for one in front, beside which nothing is greater; MLX's op does the same.
///
/// # Panics
/// When `d` is 0, or more than positions can tell.
pub(crate) fn argmax<T: Float>(isa: Isa, x: &[T], d: usize, out: &mut [u32]) {
    assert!(d > 0 && u32::try_from(d).is_ok(), "size of a row");
    let step = rows_per_part(out.len(), d);
    for_each(x.chunks(d * step).zip(out.chunks_mut(step)), |(x, out)| argmax_rows(isa, x, d, out));
}

multiversion! { fn argmax_rows[T: Float] = argmax_body(x: &[T], d: usize, out: &mut [u32]) }

#[inline(always)]
fn argmax_body<S: Level, T: Float>(x: &[T], d: usize, out: &mut [u32]) {
    for (x, out) in x.chunks_exact(d).zip(out) {
        let greater = |a: f32, b: f32| if b > a { b } else { a };
        let (mut best, mut block) = (f32::NEG_INFINITY, None);
        for (i, x) in x.chunks(BLOCK).enumerate() {
            let max = fold(x, f32::NEG_INFINITY, greater, greater);
            if max > best {
                (best, block) = (max, Some(i));
            }
        }
        *out = match block {
            Some(i) if !x[0].to_f32().is_nan() => {
                let block = x[i * BLOCK..].iter().position(|x| x.to_f32() == best);
                (i * BLOCK + block.unwrap_or(0)) as u32
            }
            _ => 0,
        };
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::compute::{cases, most};

    /// As MLX's loop is.
    fn spec(x: &[f32]) -> u32 {
        let (mut best, mut at) = (x[0], 0);
        for (i, &x) in x.iter().enumerate() {
            if x > best {
                (best, at) = (x, i as u32);
            }
        }
        at
    }

    fn check<T: Float>(rows: usize, values: &[f32]) {
        let x: Vec<T> = values.iter().map(|&x| T::from_f32(x)).collect();
        let d = x.len() / rows;
        // What the rows leave over may be as long as a row.
        let expected: Vec<u32> = x[..rows * d]
            .chunks_exact(d)
            .map(|x| spec(&x.iter().map(|x| x.to_f32()).collect::<Vec<_>>()))
            .collect();
        for isa in Isa::available() {
            let mut out = vec![u32::MAX; rows];
            argmax(isa, &x[..rows * d], d, &mut out);
            assert_eq!(out, expected, "{}", isa.name());
        }
    }

    fn check_dtypes(rows: usize, values: &[f32]) {
        check::<f32>(rows, values);
        check::<f16>(rows, values);
        check::<bf16>(rows, values);
    }

    /// Few values, so that there are ties, and the special ones among them.
    fn value() -> impl Strategy<Value = f32> {
        let special = vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, f32::MAX];
        prop_oneof![
            20 => (-8..8i32).prop_map(|x| x as f32 / 2.0),
            1 => prop::sample::select(special),
        ]
    }

    proptest! {
        #![proptest_config(cases(64))]

        #[test]
        fn the_first_of_the_greatest(
            rows in 1..4usize,
            values in prop::collection::vec(value(), 4..400),
        ) {
            check_dtypes(rows, &values);
        }

        #[test]
        fn wherever_it_is_in_long_rows(at in 0..5000usize, n in 1..most(5000)) {
            let mut values: Vec<f32> = (0..n).map(|i| -((i % 7) as f32)).collect();
            values[at % n] = 1.0;
            values[n - 1] = 1.0;
            check_dtypes(1, &values);
        }
    }

    #[test]
    fn undefined_and_infinite_ones() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        for values in [
            [nan, 1.0, 2.0],
            [1.0, nan, 2.0],
            [nan, nan, nan],
            [-inf, -inf, -inf],
            [-inf, nan, -inf],
            [-inf, nan, -9.0],
            [0.0, inf, inf],
            [-0.0, 0.0, -0.0],
        ] {
            check_dtypes(1, &values);
        }
    }

    #[test]
    fn several_threads_agree_with_one() {
        let values: Vec<f32> = (0..300 * 257).map(|i| (i as f32 * 0.7).sin()).collect();
        check::<f32>(300, &values);
    }
}
