//! What holds of linear algebra and Fourier transforms whatever the numbers, and under transforms.

use mlx_core::fft::{self, Fft, FftN, FftNorm};
use mlx_core::linalg::{self, NormOrd, Uplo};
use mlx_core::ops::Closeness;
use mlx_core::transforms::{compile, grad, vmap};
use mlx_core::{Array, Device, Dtype, Result, ops, random, with_device};
use proptest::prelude::*;

fn check_close(a: &Array, b: &Array, bound: f64) -> Result<()> {
    assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()));
    let closeness = Closeness { rtol: bound, atol: bound, equal_nan: false };
    assert!(a.allclose(b, closeness)?.item::<bool>()?, "{a}\n{b}");
    Ok(())
}

fn normal(shape: &[i32], seed: u64) -> Result<Array> {
    random::normal(shape, Dtype::Float32, 0.0, 1.0, Some(&random::key(seed)?))
}

/// A matrix that is far from singular.
fn regular(n: i32, seed: u64) -> Result<Array> {
    normal(&[n, n], seed)? + (ops::identity(n, Dtype::Float32)? * (2.0 * n as f32))?
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_inverse_transform_gives_the_input_back(
        (rows, n, seed) in (1..4i32, 1..70i32, any::<u64>()),
        norm in prop_oneof![Just(FftNorm::Backward), Just(FftNorm::Ortho), Just(FftNorm::Forward)],
    ) {
        let check = || {
            let x = normal(&[rows, n], seed)?;
            let options = Fft { norm, ..Fft::default() };
            let back = fft::irfft(&fft::rfft(&x, options)?, Fft { n: Some(n), ..options })?;
            check_close(&back, &x, 1e-5)?;
            let options = FftN { norm, ..FftN::default() };
            let back = fft::ifftn(&fft::fftn(&x, options)?, options)?;
            check_close(&back.real()?, &x, 1e-5)?;
            check_close(&fft::ifftshift(&fft::fftshift(&x, ..)?, ..)?, &x, 0.0)
        };
        with_device(Device::Cpu, check).unwrap();
    }

    #[test]
    fn a_solution_solves((n, k, seed) in (1..12i32, 1..4i32, any::<u64>())) {
        let check = || {
            let (a, x) = (regular(n, seed)?, normal(&[n, k], seed ^ 1)?);
            check_close(&linalg::solve(&a, &a.matmul(&x)?)?, &x, 1e-4)?;
            check_close(&linalg::inv(&a)?.matmul(&a)?, &ops::identity(n, Dtype::Float32)?, 1e-4)?;
            let (p, l, u) = linalg::lu(&a)?;
            check_close(&l.matmul(&u)?.take(&p, 0)?, &a, 1e-4)?;
            let (sign, log) = linalg::slogdet(&a)?;
            let det = (sign * log.exp()?)?;
            check_close(&(linalg::det(&a)? / &det)?, &Array::from(1.0f32), 1e-3)
        };
        with_device(Device::Cpu, check).unwrap();
    }

    #[test]
    fn norms_agree_with_singular_values((m, n, seed) in (1..9i32, 1..9i32, any::<u64>())) {
        let check = || {
            let a = normal(&[m, n], seed)?;
            let s = linalg::svdvals(&a)?;
            for (ord, expected) in [
                (NormOrd::Nuclear, s.sum(.., false)?),
                (NormOrd::Frobenius, s.square()?.sum(.., false)?.sqrt()?),
                (NormOrd::P(2.0), s.max(.., false)?),
                (NormOrd::P(-2.0), s.min(.., false)?),
            ] {
                check_close(&linalg::norm(&a, ord, .., false)?, &expected, 1e-5)?;
            }
            Ok(())
        };
        with_device(Device::Cpu, check).unwrap();
    }
}

#[test]
fn decompositions_run_under_transforms() {
    let check = || {
        let stack = normal(&[3, 4, 4], 5)?;
        let expected = linalg::svdvals(&stack)?;
        let f = |x: &[Array]| Ok(vec![linalg::svdvals(&x[0])?]);
        check_close(&vmap(f, &[0], &[0])?.call(std::slice::from_ref(&stack))?[0], &expected, 1e-5)?;
        let compiled = compile(f, false)?;
        for _ in 0..2 {
            check_close(&compiled.call(std::slice::from_ref(&stack))?[0], &expected, 1e-5)?;
        }
        // MLX has no derivative of it, and says so.
        let loss = |x: &[Array]| Ok(vec![linalg::eigvalsh(&x[0], Uplo::Lower)?.sum(.., false)?]);
        let error = grad(loss, 0)?.call(&[regular(3, 8)?]).unwrap_err();
        assert!(error.to_string().contains("Not implemented for Eigh"), "{error}");
        Ok(())
    };
    with_device(Device::Cpu, check).unwrap();
}

#[test]
fn an_error_of_lapack_is_told_where_the_result_is_read() {
    let check = || {
        let singular = ops::zeros(&[2, 2], Dtype::Float32)?;
        let error = linalg::inv(&singular)?.eval().unwrap_err();
        assert!(error.to_string().contains("LU factorization failed"), "{error}");
        let bad = ops::full(&[2, 2], f32::NAN, Dtype::Float32)?;
        let error = linalg::eigvals(&bad)?.eval().unwrap_err();
        assert!(
            error.to_string().contains("NaN or infinity in a matrix of shape [2, 2]"),
            "{error}"
        );
        // The next op of the same stream is not concerned.
        assert_eq!(linalg::det(&ops::identity(4, Dtype::Float32)?)?.item::<f32>()?, 1.0);
        Ok(())
    };
    with_device(Device::Cpu, check).unwrap();
}
