//! Products with weights chosen from a stack against products with each by itself.

use proptest::prelude::*;

use super::*;
use crate::kernels::compute::routes::Routes;

/// Sizes, and which block of activations goes to which weight.
#[derive(Debug)]
struct Stack {
    format: Format,
    group_size: usize,
    n: usize,
    k: usize,
    n_weights: usize,
    m: usize,
    n_blocks: usize,
    pairs: Vec<[usize; 2]>,
}

prop_compose! {
    fn stacks()(
        (format, group_size) in prop::sample::select(FORMATS.to_vec()).prop_flat_map(|format| {
            (Just(format), prop::sample::select(group_sizes(format)))
        }),
        groups in 1usize..6,
        n in 1..most(40),
        n_weights in 1usize..7,
        m in 1usize..4,
        n_blocks in 1usize..5,
        pairs in prop::collection::vec((any::<usize>(), any::<usize>()), 0..most(24)),
    ) -> Stack {
        let pairs = pairs.into_iter().map(|(a, b)| [a % n_blocks, b % n_weights]).collect();
        Stack { format, group_size, n, k: groups * group_size, n_weights, m, n_blocks, pairs }
    }
}

impl Stack {
    /// Weights, with activations of `width`.
    fn case(&self, width: usize) -> Case {
        let mut case = case(self.format, self.group_size, 1, self.n_weights * self.n, self.k);
        let mut noise = Noise(77);
        case.x = (0..self.n_blocks * self.m * width).map(|_| noise.float()).collect();
        case
    }

    fn routes(&self) -> Routes {
        Routes::new(&self.pairs, self.m, self.n_blocks, self.n_weights).expect("in range")
    }

    /// One of the weights by itself.
    fn weight<'a>(&self, case: &'a Case, i: usize) -> Rows<'a, bf16> {
        let groups = self.n * self.k / self.group_size;
        let bytes = self.n * self.k * self.format.bits() / 8;
        let biases = match case.biases.is_empty() {
            true => &[][..],
            false => &case.biases[i * groups..][..groups],
        };
        let (packed, scales) =
            (&case.packed[i * bytes..][..bytes], &case.scales[i * groups..][..groups]);
        Rows::new(self.format, self.group_size, self.k, packed, scales, biases).expect("sizes fit")
    }

    fn check_products(&self, isa: Isa, is_fast: bool) -> Result<(), TestCaseError> {
        let case = self.case(self.k);
        let input = |x: &[f32]| match is_fast {
            true => Input::fast(isa, x, self.k, self.group_size, self.format),
            false => Input::exact(x, self.k, self.format),
        };
        let x = match is_fast {
            true => Input::fast_apart(isa, &case.x, self.k, self.group_size, self.format),
            false => input(&case.x),
        };
        let bias: Vec<f32> = (0..self.n_weights * self.n).map(|i| i as f32 / 8.0).collect();
        let stack =
            Layer { w: weight(self.format, self.group_size, self.k, &case), bias: Some(&bias[..]) };
        let plain = Layer { bias: None, ..stack };
        let len = self.pairs.len() * self.m * self.n;
        let [mut out, mut out_plain, mut gated] = [(); 3].map(|()| vec![f32::NAN; len]);
        let routes = self.routes();
        gather_matmul(isa, &x, &[stack, plain], &routes, &mut [&mut out, &mut out_plain]);
        gather_gated_matmul(isa, &x, GatedActivation::Relu, [stack, plain], &routes, &mut gated);
        let block = self.m * self.k;
        for (p, &[b, i]) in self.pairs.iter().enumerate() {
            let x = input(&case.x[b * block..][..block]);
            let expected = run_on(isa, &x, self.weight(&case, i));
            let size = expected.iter().fold(1.0f32, |a, x| a.max(x.abs()));
            for (j, expected) in expected.iter().enumerate() {
                let at = p * self.m * self.n + j;
                let bias = bias[i * self.n + j % self.n];
                let bound = 2e-5 * (size + bias);
                prop_assert!((out_plain[at] - expected).abs() <= bound, "pair {p} at {j}");
                prop_assert!((out[at] - expected - bias).abs() <= bound, "pair {p} at {j}, bias");
                prop_assert_eq!(gated[at], out[at].max(0.0) * out_plain[at]);
            }
        }
        Ok(())
    }

    fn check_sums(&self, isa: Isa) -> Result<(), TestCaseError> {
        let case = self.case(self.n);
        let w = weight(self.format, self.group_size, self.k, &case);
        let mut out = vec![f32::NAN; self.pairs.len() * self.m * self.k];
        gather_sums(isa, &case.x, &w, &self.routes(), &mut out);
        let mut dense = vec![0.0f32; w.n_rows * self.k];
        let all: Vec<usize> = (0..w.n_rows).collect();
        dequantize_rows(isa, &w, &all, &mut dense);
        for (p, &[b, i]) in self.pairs.iter().enumerate() {
            for row in 0..self.m {
                let x = &case.x[(b * self.m + row) * self.n..][..self.n];
                for column in 0..self.k {
                    let products = x.iter().enumerate().map(|(j, x)| {
                        f64::from(*x) * f64::from(dense[(i * self.n + j) * self.k + column])
                    });
                    let (sum, size) =
                        products.fold((0.0, 0.0f64), |(sum, size), x| (sum + x, size + x.abs()));
                    let found = f64::from(out[(p * self.m + row) * self.k + column]);
                    let bound = 1e-6 * size.max(1e-3) * self.n as f64;
                    prop_assert!((found - sum).abs() <= bound, "{p} {row} {column}: {found} {sum}");
                }
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn products_are_those_with_each_weight_by_itself(stack in stacks(), is_fast: bool) {
        for isa in Isa::available() {
            stack.check_products(isa, is_fast)?;
        }
    }

    #[test]
    fn sums_of_rows_are_those_of_float64(stack in stacks()) {
        for isa in Isa::available() {
            stack.check_sums(isa)?;
        }
    }
}

/// Sizes with several parts of columns, and many rows for one weight.
#[test]
fn large_stacks_are_shared_out_whole() {
    for (format, n, k, n_pairs) in [
        (Format::Affine(4), 300, 1024, 3),
        (Format::Fp4, 130, 4096, 2),
        (Format::Affine(3), 33, 256, 150),
    ] {
        let pairs = (0..n_pairs).map(|p| [p % 7, if p > 5 { 1 } else { p % 2 }]).collect();
        let stack = Stack { format, group_size: 32, n, k, n_weights: 2, m: 1, n_blocks: 7, pairs };
        for isa in Isa::available() {
            for is_fast in [true, false] {
                stack.check_products(isa, is_fast).expect("products");
            }
            stack.check_sums(isa).expect("sums");
        }
    }
}

#[test]
fn unpacked_rows_are_what_their_bits_say() {
    for (format, group_size) in formats() {
        let (n, k) = (5, 3 * group_size);
        let case = case(format, group_size, 1, n, k);
        let w = weight(format, group_size, k, &case);
        let mut expected = Vec::new();
        for row in [4, 0, 4] {
            for (c, packed) in w.row(row).chunks(CHUNK * format.bits() / 8).enumerate() {
                let mut chunk = [0; CHUNK];
                format.unpack(packed, &mut chunk);
                for (i, q) in chunk.iter().enumerate().take(k - c * CHUNK) {
                    let g = row * w.n_groups() + (c * CHUNK + i) / group_size;
                    let (offset, bias) = match format {
                        Format::Fp4 => (12.0, 0.0),
                        _ => (0.0, case.biases[g].to_f32()),
                    };
                    let product =
                        bf16::from_f32((f32::from(*q) - offset) * case.scales[g].to_f32());
                    expected.push(bf16::from_f32(product.to_f32() + bias));
                }
            }
        }
        for isa in Isa::available() {
            let mut out = vec![bf16::NAN; 3 * k];
            dequantize_rows(isa, &w, &[4, 0, 4], &mut out);
            assert_eq!(out, expected, "{} {format:?} {group_size}", isa.name());
        }
    }
}
