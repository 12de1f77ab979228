use proptest::prelude::*;

use super::*;
use crate::kernels::compute::{cases, every, most};

/// A source that has only what the trait asks for.
struct Unpacked<'a>(Dense<'a, f32>);

impl WeightRows for Unpacked<'_> {
    fn n_rows(&self) -> usize {
        self.0.n_rows
    }
    fn depth(&self) -> usize {
        self.0.depth
    }
    #[inline(always)]
    fn unpack<S: Level>(&self, row: usize, k0: usize, out: &mut [f32]) {
        assert!(k0.is_multiple_of(BLOCK));
        assert!(out.len().is_multiple_of(BLOCK) || k0 + out.len() == self.0.depth);
        self.0.unpack::<S>(row, k0, out);
    }
}

/// Numbers of either sign, all of which every element type has.
fn values<T: Float>(seed: u64, n: usize) -> Vec<T> {
    let mut state = seed | 1;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        T::from_f32((state >> 56) as f32 / 64.0 - 2.0)
    };
    std::iter::repeat_with(next).take(n).collect()
}

/// Checks against sums in `f64`. Each of `k` additions and products in `f32` rounds by half a
/// unit of `2⁻²³` of the sum of magnitudes at most; the result is then rounded to its type.
fn check_products<T: Element>([m, n, k]: [usize; 3], seed: u64, type_epsilon: f64) {
    let (x, w) = (values::<T>(seed, m * k), values::<T>(seed + 2, n * k));
    let bias = values::<T>(seed + 4, n);
    let wide: Vec<f32> = w.iter().map(|w| w.to_f32()).collect();
    for isa in Isa::available() {
        let mut results = [(); 2].map(|()| vec![T::from_f32(f32::NAN); m * n]);
        let [dense, unpacked] = &mut results;
        matmul(isa, &x, &Dense::new(&w, n, k), Some(&bias), dense);
        matmul(isa, &x, &Unpacked(Dense::new(&wide, n, k)), Some(&bias), unpacked);
        for (i, row) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
            let (x, w) = (&x[i * k..][..k], &w[row * k..][..k]);
            let products = x.iter().zip(w).map(|(x, w)| f64::from(x.to_f32() * w.to_f32()));
            let start = f64::from(bias[row].to_f32());
            let (sum, magnitude) =
                products.fold((start, start.abs()), |(sum, all), x| (sum + x, all + x.abs()));
            let bound = (k + 2) as f64 * magnitude * 2.0f64.powi(-24)
                + sum.abs() * type_epsilon
                + f64::from(f32::MIN_POSITIVE);
            for result in &results {
                let ours = f64::from(result[i * n + row].to_f32());
                let off = (ours - sum).abs();
                assert!(off <= bound, "{isa:?} {m} {n} {k}, {i} {row}: {ours}, not {sum}");
            }
        }
    }
}

fn check_dtypes(sizes: [usize; 3], seed: u64) {
    check_products::<f32>(sizes, seed, 0.0);
    check_products::<f16>(sizes, seed, 2.0f64.powi(-11));
    check_products::<bf16>(sizes, seed, 2.0f64.powi(-8));
}

#[test]
fn edges_of_blocks_and_tiles() {
    let mut all = vec![];
    for m in [1, 2, 3, 4, 5, 8, 24, 25, 31, 257] {
        for (n, k) in [(1, 1), (7, 16), (49, 255), (50, 256), (97, 257), (5, 513), (3, 0)] {
            all.push([m, n, k].map(most));
        }
    }
    all.iter().step_by(every(9)).for_each(|sizes| check_dtypes(*sizes, 11));
}

/// Rows of which one is more than a part is meant to have.
#[test]
fn long_rows() {
    check_dtypes([1, 3, 70_000], 5);
}

#[test]
fn sizes_of_nothing() {
    for sizes in [[0, 3, 5], [3, 0, 5], [0, 0, 0]] {
        check_dtypes(sizes, 1);
    }
}

#[test]
#[should_panic(expected = "sizes")]
fn refuses_rows_of_another_size() {
    let w = [0.0f32; 6];
    matmul(Isa::SCALAR, &[0.0; 5], &Dense::new(&w, 2, 3), None, &mut [0.0; 4]);
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn products_are_the_sums(m in 1..most(40), n in 1..most(150), k in 1..most(700), seed: u32) {
        check_dtypes([m, n, k], seed.into());
    }

    #[test]
    fn many_rows(m in 40..40 + most(560), n in 1..most(60), k in 1..most(300), seed: u32) {
        check_dtypes([m, n, k], seed.into());
    }
}
