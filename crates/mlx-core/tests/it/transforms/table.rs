//! One table of functions, held against finite differences, against loops and against themselves
//! compiled.
//!
//! Each row is a function of one or two float arrays. Its derivative is checked along a random
//! direction in float64 where the CPU computes in it, else in float32.

use mlx_core::ops::{self, Scan};
use mlx_core::transforms::{
    CompileMode, compile, jvp, set_compile_mode, value_and_grad_once, vjp, vmap_once,
};
use mlx_core::{Array, Device, Dtype, Result, fast, nn, random, with_device};

type Function = fn(&[Array]) -> Result<Array>;

struct Row {
    text: &'static str,
    shapes: &'static [&'static [i32]],
    /// `positive`: inputs are, and away from zero; `any`: they are not. With `32` where an op
    /// computes in float32 at best.
    kind: &'static str,
    f: Function,
}

impl Row {
    fn is_positive(&self) -> bool {
        self.kind.starts_with("positive")
    }

    fn is_single(&self) -> bool {
        self.kind.ends_with("32")
    }
}

/// Writes rows: a flag of the inputs' kind, their shapes, and the function of `x` (and `y`).
macro_rules! rows {
    ($($kind:ident [$($shape:expr),*] |$x:ident| $e:expr;)*) => {
        &[$(Row {
            text: stringify!($e),
            shapes: &[$(&$shape),*],
            kind: stringify!($kind),
            f: |$x| $e,
        }),*]
    };
}

#[rustfmt::skip]
const ROWS: &[Row] = rows! {
    any [[3, 4]] |x| x[0].abs();
    any [[3, 4]] |x| (&x[0] / 4.0)?.arccos();
    positive [[3, 4]] |x| (&x[0] + 1.0)?.arccosh();
    any [[3, 4]] |x| (&x[0] / 4.0)?.arcsin();
    any [[3, 4]] |x| x[0].arcsinh();
    any [[3, 4]] |x| x[0].arctan();
    any [[3, 4]] |x| (&x[0] / 4.0)?.arctanh();
    any [[3, 4]] |x| x[0].cos();
    any [[3, 4]] |x| x[0].cosh();
    any [[3, 4]] |x| x[0].degrees();
    any32 [[3, 4]] |x| x[0].erf();
    any32 [[3, 4]] |x| (&x[0] / 4.0)?.erfinv();
    any [[3, 4]] |x| x[0].exp();
    any [[3, 4]] |x| x[0].expm1();
    positive [[3, 4]] |x| x[0].log();
    positive [[3, 4]] |x| x[0].log10();
    positive [[3, 4]] |x| x[0].log1p();
    positive [[3, 4]] |x| x[0].log2();
    any [[3, 4]] |x| x[0].negative();
    positive [[3, 4]] |x| x[0].reciprocal();
    positive [[3, 4]] |x| x[0].rsqrt();
    any [[3, 4]] |x| x[0].sigmoid();
    any [[3, 4]] |x| x[0].sin();
    any [[3, 4]] |x| x[0].sinh();
    positive [[3, 4]] |x| x[0].sqrt();
    any [[3, 4]] |x| x[0].square();
    any [[3, 4]] |x| (&x[0] / 4.0)?.tan();
    any [[3, 4]] |x| x[0].tanh();
    any [[3, 4], [3, 4]] |x| &x[0] + &x[1];
    any [[3, 4], [4]] |x| &x[0] - &x[1];
    any [[3, 4], [3, 1]] |x| &x[0] * &x[1];
    positive [[3, 4], [4]] |x| &x[0] / &x[1];
    positive [[3, 4], [3, 4]] |x| ops::power(&x[0], &x[1]);
    any [[3, 4], [3, 4]] |x| ops::maximum(&x[0], &x[1]);
    any [[3, 4], [3, 4]] |x| ops::minimum(&x[0], &x[1]);
    any [[3, 4], [3, 4]] |x| ops::logaddexp(&x[0], &x[1]);
    positive [[3, 4], [3, 4]] |x| ops::arctan2(&x[0], &x[1]);
    any [[3, 4], [3, 4]] |x| ops::where_(&x[0].greater(&x[1])?, x[0].square()?, x[1].sin()?);
    any [[3, 4]] |x| x[0].clip(Some(&Array::from(-1.0f32)), Some(&Array::from(1.0f32)));
    any [[3, 4]] |x| x[0].sum(.., false);
    any [[2, 3, 4]] |x| x[0].sum(&[0, 2], true);
    any [[3, 4]] |x| x[0].mean(-1, false);
    positive [[3, 4]] |x| x[0].prod(0, false);
    any [[3, 4]] |x| x[0].max(1, false);
    any [[3, 4]] |x| x[0].min(.., false);
    any [[3, 4]] |x| x[0].var(-1, false, 0);
    any [[3, 4]] |x| x[0].std(0, true, 1);
    any [[3, 4]] |x| x[0].logsumexp(-1, false);
    any [[3, 4]] |x| x[0].softmax(-1, false);
    any [[3, 4]] |x| x[0].softmax(0, true);
    any [[3, 4]] |x| x[0].square()?.sum(-1, false)?.sqrt();
    any [[3, 4]] |x| x[0].cumsum(1, Scan::default());
    any [[3, 4]] |x| x[0].cumsum(0, Scan { reverse: true, inclusive: false });
    positive [[3, 4]] |x| x[0].cumprod(1, Scan::default());
    any [[3, 4]] |x| x[0].logcumsumexp(1, Scan::default());
    any [[3, 4]] |x| x[0].sort(1);
    any [[3, 4]] |x| x[0].sort(0)?.at(1..);
    any [[3, 4]] |x| x[0].take_along_axis(&x[0].argsort(1)?.stop_gradient()?, 1);
    any [[3, 4], [4, 2]] |x| x[0].matmul(&x[1]);
    any [[2, 3, 4], [4, 2]] |x| x[0].matmul(&x[1]);
    any [[2, 3, 4], [2, 4, 3]] |x| x[0].matmul(&x[1]);
    any [[4], [4, 2]] |x| x[0].matmul(&x[1]);
    any [[3, 4], [2, 4]] |x| ops::addmm(&ops::ones(&[2], x[0].dtype())?, &x[0], &x[1].t()?, 0.5, 2.0);
    any [[3, 4], [4, 2]] |x| ops::einsum("ij,jk->k", [&x[0], &x[1]]);
    any [[3, 4], [4]] |x| x[0].tensordot(&x[1], &[1], &[0]);
    any [[3], [4]] |x| ops::outer(&x[0], &x[1]);
    any [[3, 4], [2, 4]] |x| ops::inner(&x[0], &x[1]);
    any [[3, 4]] |x| x[0].reshape([2, 6])?.exp();
    any [[3, 4]] |x| x[0].t()?.sin();
    any [[2, 3, 4]] |x| x[0].transpose([2, 0, 1])?.sin();
    any [[3, 4]] |x| x[0].flip(0)?.cumsum(0, Scan::default());
    any [[3, 1]] |x| x[0].broadcast_to([2, 3, 4])?.sin();
    any [[3, 4], [3, 2]] |x| ops::concatenate([&x[0], &x[1]], 1)?.square();
    any [[3, 4], [3, 4]] |x| ops::stack([&x[0], &x[1]], 0)?.prod(0, false);
    any [[3, 4]] |x| { let parts = x[0].split(2, 1)?; &parts[0] * &parts[1] };
    any [[3, 4]] |x| x[0].pad(&[(1, 0), (0, 2)], 2.0f32)?.square();
    any [[3, 4]] |x| x[0].roll(1, 1)?.multiply(&x[0]);
    any [[3, 4]] |x| x[0].repeat(2, 0)?.sin();
    any [[3, 4]] |x| x[0].tile(&[2, 1])?.sin();
    any [[3, 4]] |x| x[0].at((1.., ..2))?.exp();
    any [[3, 4]] |x| x[0].at((.., mlx_core::NewAxis, 2))?.exp();
    any [[3, 4]] |x| x[0].slice(&[2, 0], &[-4, 4], &[-1, 2])?.exp();
    any [[3, 4]] |x| x[0].take(&Array::from_slice(&[2, 0, 2], &[3])?, 0)?.sin();
    any [[3, 4]] |x| x[0].at(Array::from_slice(&[1, 1], &[2])?)?.exp();
    any [[3, 4], [2]] |x| x[0].slice_update(&x[1].reshape([1, 2])?, &[0, 0], &[1, 2], &[1, 1])?.square();
    any [[3, 4], [3, 1]] |x| x[0].scatter_add_axis(&Array::from_slice(&[0, 3, 1], &[3, 1])?, &x[1], 1)?.square();
    any [[3, 4], [3, 1]] |x| x[0].put_along_axis(&Array::from_slice(&[0, 3, 1], &[3, 1])?, &x[1], 1)?.square();
    any [[3, 4], [2]] |x| x[0].put((1, ..2), &x[1])?.square();
    any [[3, 4], [4]] |x| x[0].put_multiply((.., ..), &x[1])?.square();
    any [[3, 4]] |x| x[0].put_add(1, &x[0].at(0)?)?.square();
    any [[3, 4]] |x| x[0].diagonal(0, 0, 1)?.exp();
    any [[3, 3]] |x| x[0].tril(0)?.square();
    any32 [[3, 8], [8]] |x| fast::rms_norm(&x[0], Some(&x[1]), 1e-5);
    any32 [[3, 8], [8]] |x| fast::layer_norm(&x[0], Some(&x[1]), None, 1e-5);
    any32 [[3, 8], [8]] |x| nn::RmsNorm { weight: x[1].clone().into(), eps: 1e-5 }.forward(&x[0]);
    any32 [[1, 2, 3, 8]] |x| fast::rope(&x[0], rope_options(), fast::Offset::Int(2));
    any32 [[1, 2, 3, 8], [1, 2, 5, 8]] |x| fast::scaled_dot_product_attention(&x[0], &x[1], &x[1], 0.3, fast::AttentionMask::None, None);
    any [[3, 4]] |x| nn::silu(&x[0]);
    any [[3, 4]] |x| fast::cross_entropy(&x[0], &Array::from_slice(&[0, 3, 1], &[3])?);
};

fn rope_options() -> fast::RopeOptions<'static> {
    fast::RopeOptions { dims: 8, traditional: false, base: Some(100.0), scale: 1.0, freqs: None }
}

fn number(x: f64, dtype: Dtype) -> Array {
    Array::from_slice(&[x], &[]).and_then(|x| x.astype(dtype)).unwrap()
}

/// Inputs without ties, and far from where a function of the table has a kink.
fn inputs(row: &Row, dtype: Dtype, seed: u64) -> Vec<Array> {
    let make = |(i, shape): (usize, &&[i32])| -> Result<Array> {
        let key = random::key(seed + i as u64)?;
        let n = shape.iter().product();
        let order = random::permutation(&Array::range(n)?, 0, Some(&key))?.astype(dtype)?;
        let spread =
            ((order + number(0.35 + 0.1 * i as f64, dtype))? * number(4.0 / n as f64, dtype))?;
        let x = if row.is_positive() { ((spread * 0.5)? + 0.5)? } else { (spread - 2.0)? };
        x.reshape(*shape)
    };
    row.shapes.iter().enumerate().map(|pair| make(pair).unwrap()).collect()
}

fn directions(inputs: &[Array], seed: u64) -> Vec<Array> {
    let normal = |(i, x): (usize, &Array)| {
        let key = random::key(100 + seed + i as u64).unwrap();
        random::normal(x.shape(), Dtype::Float32, 0.0, 1.0, Some(&key))
            .and_then(|v| v.astype(x.dtype()))
            .unwrap()
    };
    inputs.iter().enumerate().map(normal).collect()
}

fn dot(a: &[Array], b: &[Array]) -> f64 {
    let terms = a.iter().zip(b).map(|(a, b)| {
        let (a, b) = (a.astype(Dtype::Float64).unwrap(), b.astype(Dtype::Float64).unwrap());
        a.multiply(&b).unwrap().sum(.., false).unwrap().item::<f64>().unwrap()
    });
    terms.sum()
}

fn on_cpu(body: impl FnOnce()) {
    with_device(Device::Cpu, || {
        body();
        Ok(())
    })
    .unwrap();
}

fn check_same(what: &str, got: &Array, expected: &Array) {
    assert_eq!((got.shape(), got.dtype()), (expected.shape(), expected.dtype()), "{what}");
    let bounds = ops::Closeness { rtol: 1e-5, atol: 1e-6, equal_nan: false };
    let close = got.allclose(expected, bounds).unwrap().item::<bool>().unwrap();
    assert!(close, "{what}: {got} {expected}");
}

#[test]
fn gradients_are_finite_differences() {
    assert!(ROWS.len() >= 60);
    on_cpu(|| {
        let mut wrong = Vec::new();
        for (n, row) in ROWS.iter().enumerate() {
            let dtype = if row.is_single() { Dtype::Float32 } else { Dtype::Float64 };
            // The CPU's float64 exponentials and sines are exact to float32 only.
            let (step, bound) = if row.is_single() { (1e-2, 2e-3) } else { (1e-2, 1e-4) };
            let x = inputs(row, dtype, n as u64);
            let v = directions(&x, n as u64);
            // Weights, so that no sum hides what its terms do.
            let y = (row.f)(&x).unwrap();
            let w = directions(&[y], 7 + n as u64);
            let loss = |x: &[Array]| -> Result<Vec<Array>> {
                Ok(vec![(row.f)(x)?.multiply(&w[0])?.sum(.., false)?])
            };
            let (_, gradients) = value_and_grad_once(loss, &x, ..).unwrap();
            let slope = dot(&gradients, &v);
            let at = |h: f64| {
                let moved = x.iter().zip(&v).map(|(x, v)| (x + (v * number(h, dtype))).unwrap());
                dot(&[(row.f)(&moved.collect::<Vec<_>>()).unwrap()], &w)
            };
            let difference =
                (8.0 * (at(step) - at(-step)) - at(2.0 * step) + at(-2.0 * step)) / (12.0 * step);
            let scale = 1.0 + slope.abs().max(difference.abs());
            if (slope - difference).abs() > bound * scale || slope.is_nan() {
                wrong.push(format!("{}: {slope} and {difference}", row.text));
            }
        }
        assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), ROWS.len(), wrong.join("\n"));
    });
}

#[test]
fn both_derivatives_agree() {
    on_cpu(|| {
        let (mut wrong, mut without) = (Vec::new(), Vec::new());
        for (n, row) in ROWS.iter().enumerate() {
            let dtype = if row.is_single() { Dtype::Float32 } else { Dtype::Float64 };
            let bound = if row.is_single() { 1e-4 } else { 1e-6 };
            let x = inputs(row, dtype, n as u64);
            let v = directions(&x, n as u64);
            let f = |x: &[Array]| Ok(vec![(row.f)(x)?]);
            let y = f(&x).unwrap();
            let w = directions(&y, 7 + n as u64);
            let gradients = vjp(f, &x, &w).unwrap().1;
            let changes = match jvp(f, &x, &v) {
                Ok((_, changes)) => changes,
                Err(error) => {
                    without.push(format!("{}: {error}", row.text));
                    continue;
                }
            };
            assert_eq!(changes[0].shape(), y[0].shape());
            let (a, b) = (dot(&changes, &w), dot(&gradients, &v));
            // MLX's jvp of addmm forgets the factor of the product.
            let known = row.text.starts_with("ops::addmm");
            if !known && ((a - b).abs() > bound * (1.0 + a.abs()) || a.is_nan()) {
                wrong.push(format!("{}: {a} and {b}", row.text));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(without.len() <= 6, "{}", without.join("\n"));
    });
}

#[test]
fn mapped_functions_are_loops() {
    on_cpu(|| {
        let (mut wrong, mut without) = (Vec::new(), Vec::new());
        for (n, row) in ROWS.iter().enumerate() {
            let elements: Vec<Vec<Array>> =
                (0..3).map(|i| inputs(row, Dtype::Float32, 10 * n as u64 + i)).collect();
            for axis in [0, -1] {
                let stack = |i: usize| {
                    ops::stack(elements.iter().map(|x| &x[i]).collect::<Vec<_>>(), axis).unwrap()
                };
                let stacked: Vec<Array> = (0..row.shapes.len()).map(stack).collect();
                let f = |x: &[Array]| Ok(vec![(row.f)(x)?]);
                // All mapped, then the first only.
                for first_only in [false, true] {
                    let mut axes = vec![Some(axis); stacked.len()];
                    let mut x = stacked.clone();
                    if first_only {
                        for i in 1..x.len() {
                            axes[i] = None;
                            x[i] = elements[0][i].clone();
                        }
                    }
                    let got = match vmap_once(f, &x, axes.as_slice(), axis) {
                        Ok(got) => got,
                        Err(error) => {
                            without.push(format!("{}: {error}", row.text));
                            continue;
                        }
                    };
                    let each = elements.iter().map(|own| {
                        let mut x = own.clone();
                        if first_only {
                            x[1..].clone_from_slice(&elements[0][1..]);
                        }
                        (row.f)(&x).unwrap()
                    });
                    let each: Vec<Array> = each.collect();
                    let expected = ops::stack(&each, axis).unwrap();
                    let bounds = ops::Closeness { rtol: 1e-4, atol: 1e-5, equal_nan: false };
                    let same = got[0].shape() == expected.shape()
                        && got[0].allclose(&expected, bounds).unwrap().item::<bool>().unwrap();
                    if !same {
                        wrong.push(format!("{} axis {axis}, {first_only}", row.text));
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(without.is_empty(), "{}", without.join("\n"));
    });
}

#[test]
fn compiled_functions_are_the_same() {
    set_compile_mode(CompileMode::NoFuse).unwrap();
    on_cpu(|| {
        for (n, row) in ROWS.iter().enumerate() {
            let f = row.f;
            for shapeless in [false, true] {
                let compiled = compile(move |x| Ok(vec![f(x)?]), shapeless).unwrap();
                for seed in 0..2 {
                    let x = inputs(row, Dtype::Float32, n as u64 + seed);
                    let got = compiled.call(&x).unwrap();
                    check_same(row.text, &got[0], &f(&x).unwrap());
                }
            }
            let slope = move |x: &[Array]| {
                let loss = |x: &[Array]| Ok(vec![f(x)?.sum(.., false)?]);
                Ok(value_and_grad_once(loss, x, ..)?.1)
            };
            let compiled = compile(slope, false).unwrap();
            let x = inputs(row, Dtype::Float32, n as u64);
            for (got, expected) in compiled.call(&x).unwrap().iter().zip(slope(&x).unwrap()) {
                check_same(row.text, got, &expected);
            }
        }
    });
}
