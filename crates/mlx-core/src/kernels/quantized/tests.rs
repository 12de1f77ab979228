use super::*;
use crate::nn::{self, Linear, Module, WeightMatrix};
use crate::ops::{Closeness, quantize};
use crate::transforms::grad_once;
use crate::{Device, random, with_device};

pub(super) fn all() -> Vec<Quantization> {
    let affine = [2, 3, 4, 5, 6, 8].into_iter().flat_map(|bits| {
        let of = move |group_size| Quantization { group_size, bits, mode: QuantMode::Affine };
        [32, 64, 128].map(of)
    });
    affine.chain(QuantMode::ALL[1..].iter().map(|&mode| Quantization::of(mode))).collect()
}

/// The largest difference over the largest product.
pub(super) fn error(a: &Array, b: &Array) -> Result<f32> {
    assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()));
    let (a, b) = (a.astype(Dtype::Float32)?, b.astype(Dtype::Float32)?);
    let difference = (&a - &b)?.abs()?.max(.., false)?.item::<f32>()?;
    Ok(difference / b.abs()?.max(.., false)?.item::<f32>()?)
}

/// MLX sums in the input's type; what it sums in float32 is nearer to the truth.
pub(super) fn widened(packed: &Packed) -> Result<Packed> {
    let as_float32 = |array: &Array| array.astype(Dtype::Float32);
    Ok(match &packed.biases {
        Some(biases) => Packed {
            scales: as_float32(&packed.scales)?,
            biases: Some(as_float32(biases)?),
            ..packed.clone()
        },
        None => packed.clone(),
    })
}

/// Calls `check` for every format and dtype, with the bounds of exact and of fast arithmetic.
pub(super) fn check_formats(
    check: impl Fn(Quantization, Dtype, [f32; 2]) -> Result<()>,
) -> Result<()> {
    with_device(Device::Cpu, || {
        for quantization in all() {
            check(quantization, Dtype::Float32, [1e-6, 0.02])?;
            check(quantization, Dtype::Float16, [1e-3, 0.02])?;
            check(quantization, Dtype::Bfloat16, [8e-3, 0.03])?;
        }
        Ok(())
    })
}

fn check_format(quantization: Quantization, dtype: Dtype, bounds: [f32; 2]) -> Result<()> {
    let key = random::key(3)?;
    let k = 3 * quantization.group_size.max(32);
    let w = random::normal(&[10, k], Dtype::Float32, 0.0, 1.0, Some(&key))?.astype(dtype)?;
    let x = random::normal(&[2, 3, k], Dtype::Float32, 0.1, 1.0, Some(&key))?.astype(dtype)?;
    let packed = quantize(&w, quantization)?;
    let wide = x.astype(Dtype::Float32)?;
    let expected = widened(&packed)?.matmul_by_mlx(&wide, true)?.astype(dtype)?;
    for (arithmetic, bound) in [Arithmetic::Exact, Arithmetic::Fast].into_iter().zip(bounds) {
        let options = KernelOptions { arithmetic, ..options() };
        let layers = [(&packed, None)];
        let ours = crate::kernels::with_options(options, || quantized_matmul(&x, &layers))?;
        let error = error(&ours.expect("there is a kernel")[0], &expected)?;
        assert!(error <= bound, "{quantization} {dtype} {arithmetic:?}: {error}");
    }
    Ok(())
}

#[test]
fn agrees_with_mlx() -> Result<()> {
    check_formats(check_format)
}

#[test]
fn runs_under_transforms_and_on_views() -> Result<()> {
    with_device(Device::Cpu, || {
        let packed = quantize(
            &random::normal(&[8, 64], Dtype::Float32, 0.0, 1.0, Some(&random::key(1)?))?,
            Quantization::of(QuantMode::Affine),
        )?;
        let x = random::normal(&[64, 5], Dtype::Float32, 0.0, 1.0, Some(&random::key(2)?))?.t()?;
        let close = |a: &Array, b: &Array| -> Result<()> {
            let bounds = Closeness { rtol: 1e-5, atol: 2e-4, equal_nan: false };
            assert!(a.allclose(b, bounds)?.item::<bool>()?, "{a}\n{b}");
            Ok(())
        };
        let f = {
            let packed = packed.clone();
            move |x: &[Array]| Ok(vec![packed.matmul(&x[0], true)?])
        };
        let expected = packed.matmul_by_mlx(&x, true)?;
        let inputs = [x.clone()];
        close(&f(&inputs)?[0], &expected)?;
        close(&crate::transforms::compile(f.clone(), false)?.call(&inputs)?[0], &expected)?;
        // The gradient by the input; MLX has no vmap of the product.
        let loss = |x: &[Array]| Ok(vec![f(x)?[0].square()?.sum(.., false)?]);
        let by_mlx =
            |x: &[Array]| Ok(vec![packed.matmul_by_mlx(&x[0], true)?.square()?.sum(.., false)?]);
        close(&grad_once(loss, &inputs, 0)?[0], &grad_once(by_mlx, &inputs, 0)?[0])
    })
}

fn layer(n: i32, has_bias: bool) -> Result<Linear> {
    let mut layer = Linear::new(128, n, has_bias)?;
    layer.weight.quantize(Quantization::of(QuantMode::Affine))?;
    // Compiled functions would make what is not there yet once more, and round it otherwise.
    crate::eval(layer.parameters().values())?;
    Ok(layer)
}

#[test]
fn layers_together_are_layers_one_by_one() -> Result<()> {
    with_device(Device::Cpu, || {
        // Of some numbers MLX and we round sums by a little more than the bound apart.
        random::seed(7)?;
        let layers = [layer(8, true)?, layer(24, false)?, layer(8, true)?];
        let [a, b, c] = &layers;
        let x = random::normal(&[2, 3, 128], Dtype::Float32, 0.0, 1.0, None)?;
        let check = |ours: &Array, theirs: &Array| -> Result<()> {
            assert_eq!((ours.shape(), ours.dtype()), (theirs.shape(), theirs.dtype()));
            assert!(error(ours, theirs)? < 1e-6, "{ours}\n{theirs}");
            Ok(())
        };
        let by_mlx = |layer: &Linear, x: &Array| {
            let WeightMatrix::Packed(packed) = &layer.weight else { panic!("not packed") };
            let product = packed.matmul_by_mlx(x, true)?;
            layer.bias.as_deref().map_or(Ok(product.clone()), |bias| product.add(bias))
        };
        let f = {
            let [a, b, c] = layers.clone();
            move |x: &[Array]| Ok(Linear::forward_each([&a, &b, &c], &x[0])?.to_vec())
        };
        let inputs = [x.clone()];
        let compiled = crate::transforms::compile(f.clone(), false)?.call(&inputs)?;
        for ((layer, ours), compiled) in layers.iter().zip(f(&inputs)?).zip(&compiled) {
            check(&ours, &by_mlx(layer, &x)?)?;
            check(compiled, &ours)?;
        }
        let expected = nn::gated(&by_mlx(a, &x)?, &by_mlx(c, &x)?, GatedActivation::Silu)?;
        check(&Linear::forward_gated(a, c, &x, GatedActivation::Silu)?, &expected)?;
        let loss = |x: &[Array]| {
            let gated = Linear::forward_gated(a, c, &x[0], GatedActivation::Silu)?;
            let [a, b] = Linear::forward_each([a, b], &x[0])?;
            Ok(vec![((gated + a)?.sum(.., false)? + b.sum(.., false)?)?])
        };
        let loss_by_mlx = |x: &[Array]| {
            let [a, b, c] = [by_mlx(a, &x[0])?, by_mlx(b, &x[0])?, by_mlx(c, &x[0])?];
            let gated = (nn::silu(&a)? * c)?;
            Ok(vec![((gated + a)?.sum(.., false)? + b.sum(.., false)?)?])
        };
        check(&grad_once(loss, &inputs, 0)?[0], &grad_once(loss_by_mlx, &inputs, 0)?[0])?;
        // Layers that no kernel takes together, and sizes that do not go together.
        let dense = Linear::new(128, 8, true)?;
        let [y, z] = Linear::forward_each([a, &dense], &x)?;
        check(&y, &a.forward(&x)?)?;
        check(&z, &dense.forward(&x)?)?;
        assert!(Linear::forward_gated(a, b, &x, GatedActivation::Silu).is_err());
        assert!(Linear::forward_each([a, b], &x.at((.., .., ..64))?).is_err());
        Ok(())
    })
}
