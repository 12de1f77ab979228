//! Products with packed weights.

use std::ffi::CStr;

use half::{bf16, f16};

use super::compute::activation::GatedActivation;
use super::compute::quantized::{
    E4m3, E8m0, Format, Input, Layer, Rows, Scale, gated_matmul, matmul,
};
use super::{
    Arithmetic, Float, KernelOptions, elements, elements_mut, isa_number, only, options, with_float,
};
use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{self, HostInput, HostKernel, HostOutput};
use crate::ops::{Packed, promote_types};
use crate::quantization::{QuantMode, Quantization};

/// Products of one input with one or several weights.
struct QuantizedMatmul {
    quantization: Quantization,
    /// For each weight, whether its product has a bias.
    has_bias: Vec<bool>,
    /// What becomes of two products; without it, each is an output.
    gate: Option<GatedActivation>,
    options: KernelOptions,
}

/// The format of a mode's weights, where there is a kernel for it.
fn format_of(quantization: Quantization) -> Option<Format> {
    let Quantization { group_size, bits, mode } = quantization;
    match mode {
        QuantMode::Affine => {
            let has_kernel = matches!(bits, 2..=6 | 8) && matches!(group_size, 32 | 64 | 128);
            has_kernel.then_some(Format::Affine(bits as u8))
        }
        QuantMode::Mxfp4 | QuantMode::Nvfp4 => Some(Format::Fp4),
        QuantMode::Mxfp8 => Some(Format::Fp8),
    }
}

impl HostKernel for QuantizedMatmul {
    const NAME: &'static CStr = c"quantized_matmul";

    fn params(&self) -> Vec<u64> {
        let Quantization { group_size, bits, mode } = self.quantization;
        let KernelOptions { arithmetic, isa } = self.options;
        let gate = self.gate.map_or(0, |gate| 1 + gate as u64);
        let numbers = [group_size as u64, bits as u64, mode as u64, arithmetic as u64, gate];
        let has_bias = self.has_bias.iter().map(|&has_bias| has_bias.into());
        numbers.into_iter().chain([isa_number(isa)]).chain(has_bias).collect()
    }

    fn run(&self, inputs: &[HostInput<'_>], outputs: &mut [HostOutput<'_>]) -> Result<(), String> {
        let [x, _, scales, ..] = inputs else { return Err(format!("{} inputs", inputs.len())) };
        with_float!(x.dtype, X => match (self.quantization.mode, scales.dtype) {
            (QuantMode::Affine, Dtype::Float32) => {
                self.products::<X, f32>(inputs, outputs, elements)
            }
            (QuantMode::Affine, Dtype::Float16) => {
                self.products::<X, f16>(inputs, outputs, elements)
            }
            (QuantMode::Affine, Dtype::Bfloat16) => {
                self.products::<X, bf16>(inputs, outputs, elements)
            }
            (QuantMode::Affine, dtype) => Err(format!("no kernel for scales of {dtype}")),
            (QuantMode::Nvfp4, _) => {
                self.products::<X, E4m3>(inputs, outputs, |bytes| Ok(E4m3::slice(bytes)))
            }
            _ => self.products::<X, E8m0>(inputs, outputs, |bytes| Ok(E8m0::slice(bytes))),
        })
    }
}

impl QuantizedMatmul {
    fn products<X: Float, S: Scale>(
        &self,
        inputs: &[HostInput<'_>],
        outputs: &mut [HostOutput<'_>],
        scales_of: fn(&[u8]) -> Result<&[S], String>,
    ) -> Result<(), String> {
        let Some((x, mut inputs)) = inputs.split_first() else { return Err("no inputs".into()) };
        let k = x.shape.last().map_or(0, |&k| k as usize);
        let group_size = self.quantization.group_size as usize;
        let format = format_of(self.quantization).ok_or("no kernel for this format")?;
        let mut layers = Vec::with_capacity(self.has_bias.len());
        for &has_bias in &self.has_bias {
            let mut next = || {
                let (input, rest) = inputs.split_first().ok_or("too few inputs")?;
                inputs = rest;
                Ok::<_, String>(input.bytes)
            };
            let (packed, scales) = (next()?, scales_of(next()?)?);
            let biases = match self.quantization.mode {
                QuantMode::Affine => scales_of(next()?)?,
                _ => &[],
            };
            let bias = if has_bias { Some(elements::<X>(next()?)?) } else { None };
            layers
                .push(Layer { w: Rows::new(format, group_size, k, packed, scales, biases)?, bias });
        }
        let x = elements::<X>(x.bytes)?;
        let KernelOptions { arithmetic, isa } = self.options;
        let x = match arithmetic {
            Arithmetic::Exact => Input::exact(x, k, format),
            Arithmetic::Fast => Input::fast(isa, x, k, group_size, format),
        };
        let mut outs = outputs
            .iter_mut()
            .map(|out| elements_mut::<X>(out.bytes))
            .collect::<Result<Vec<_>, _>>()?;
        match (self.gate, &layers[..], &mut outs[..]) {
            (None, layers, outs) => matmul(isa, &x, layers, outs),
            (Some(function), &[gate, up], [out]) => {
                gated_matmul(isa, &x, function, [gate, up], out);
            }
            _ => return Err(format!("{} weights, {} outputs", layers.len(), outs.len())),
        }
        Ok(())
    }
}

/// A packed weight and what is added to products with it, `[N]`.
pub(crate) type PackedLayer<'a> = (&'a Packed, Option<&'a Array>);

/// Returns `x × wᵀ + bias` of each layer by one kernel of ours, which reads the input once, or `None`
/// where there is none for these weights, or they are not all of one kind.
///
/// # Errors
/// When the current device is no CPU, or shapes and dtypes do not fit.
pub(crate) fn quantized_matmul(
    x: &Array,
    layers: &[PackedLayer<'_>],
) -> Result<Option<Vec<Array>>> {
    call(x, layers, None)
}

/// Returns `function(gate) * up` of the results of two layers, as [`quantized_matmul`].
///
/// # Errors
/// As there, or when the layers are of different sizes.
pub(crate) fn gated_quantized_matmul(
    x: &Array,
    [gate, up]: [PackedLayer<'_>; 2],
    function: GatedActivation,
    fallback: GatedFallback,
) -> Result<Option<Array>> {
    if gate.0.weight.shape() != up.0.weight.shape() {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("gated product: weights {:?} and {:?}", gate.0.weight, up.0.weight),
        ));
    }
    let outputs = call(x, &[gate, up], Some((function, fallback)))?;
    outputs.map(|outputs| only("quantized_matmul", outputs)).transpose()
}

/// [`nn::gated`](crate::nn::gated) by ops.
pub(crate) type GatedFallback = fn(&Array, &Array, GatedActivation) -> Result<Array>;

/// Tells whether there is a kernel for a weight.
fn has_kernel(w: &Packed) -> bool {
    let is_affine = w.quantization.mode == QuantMode::Affine;
    let scales_fit = match &w.biases {
        Some(biases) => {
            is_affine && is_float(w.scales.dtype()) && w.scales.dtype() == biases.dtype()
        }
        None => !is_affine,
    };
    scales_fit
        && w.weight.ndim() == 2
        && w.weight.dtype() == Dtype::Uint32
        && format_of(w.quantization).is_some()
}

fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::Float32 | Dtype::Float16 | Dtype::Bfloat16)
}

fn call(
    x: &Array,
    layers: &[PackedLayer<'_>],
    gate: Option<(GatedActivation, GatedFallback)>,
) -> Result<Option<Vec<Array>>> {
    let Some(&(first, _)) = layers.first() else { return Ok(Some(vec![])) };
    let is_of_kind = |w: &Packed| {
        w.quantization == first.quantization && w.scales.dtype() == first.scales.dtype()
    };
    let Some((&last, leading)) = x.shape().split_last() else { return Ok(None) };
    if !is_float(x.dtype()) || !layers.iter().all(|(w, _)| has_kernel(w) && is_of_kind(w)) {
        return Ok(None);
    }
    // As MLX: a result of the type that holds inputs and scales.
    let is_affine = first.quantization.mode == QuantMode::Affine;
    let dtype = if is_affine { promote_types(x.dtype(), first.scales.dtype()) } else { x.dtype() };
    let x = &x.astype(dtype)?;
    let mut inputs = vec![x];
    let (mut shapes, mut has_bias) = (Vec::new(), Vec::new());
    for &(w, bias) in layers {
        let [n, words] = w.weight.dims()?;
        let k = i64::from(words) * 32 / i64::from(w.quantization.bits);
        if i64::from(last) != k {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("quantized_matmul: input {x:?} and weight {:?} of rows of {k}", w.weight),
            ));
        }
        inputs.extend([&w.weight, &w.scales]);
        inputs.extend(&w.biases);
        if let Some(bias) = bias {
            // Another one would widen or broadcast the result.
            if bias.shape() != [n] || bias.dtype() != dtype {
                return Ok(None);
            }
            inputs.push(bias);
        }
        has_bias.push(bias.is_some());
        let mut shape = leading.to_vec();
        shape.push(n);
        shapes.push(shape);
    }
    let kernel = QuantizedMatmul {
        quantization: first.quantization,
        has_bias: has_bias.clone(),
        gate: gate.map(|(function, _)| function),
        options: options(),
    };
    let quantization = first.quantization;
    let fallback = move |inputs: &[Array]| {
        let mut rest = inputs.iter().skip(1).cloned();
        let mut products = Vec::new();
        for &has_bias in &has_bias {
            let (Some(weight), Some(scales)) = (rest.next(), rest.next()) else { break };
            let biases = if is_affine { rest.next() } else { None };
            let product = Packed { weight, scales, biases, quantization };
            let product = product.matmul_by_mlx(&inputs[0], true)?;
            let bias = if has_bias { rest.next() } else { None };
            products.push(match bias {
                Some(bias) => (product + bias)?,
                None => product,
            });
        }
        match (gate, &products[..]) {
            (Some((function, gated)), [gate, up]) => Ok(vec![gated(gate, up, function)?]),
            _ => Ok(products),
        }
    };
    if gate.is_some() {
        shapes.truncate(1);
    }
    let specs: Vec<_> = shapes.iter().map(|shape| (&shape[..], dtype)).collect();
    ffi::host_op(kernel, &inputs, &specs, Box::new(fallback)).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{self, Linear, WeightMatrix};
    use crate::ops::{Closeness, quantize};
    use crate::transforms::grad_once;
    use crate::{Device, random, with_device};

    fn all() -> Vec<Quantization> {
        let affine = [2, 3, 4, 5, 6, 8].into_iter().flat_map(|bits| {
            let of = move |group_size| Quantization { group_size, bits, mode: QuantMode::Affine };
            [32, 64, 128].map(of)
        });
        affine.chain(QuantMode::ALL[1..].iter().map(|&mode| Quantization::of(mode))).collect()
    }

    /// The largest difference over the largest product.
    fn error(a: &Array, b: &Array) -> Result<f32> {
        assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()));
        let (a, b) = (a.astype(Dtype::Float32)?, b.astype(Dtype::Float32)?);
        let difference = (&a - &b)?.abs()?.max(.., false)?.item::<f32>()?;
        Ok(difference / b.abs()?.max(.., false)?.item::<f32>()?)
    }

    fn check_format(quantization: Quantization, dtype: Dtype, bounds: [f32; 2]) -> Result<()> {
        let key = random::key(3)?;
        let k = 3 * quantization.group_size.max(32);
        let w = random::normal(&[10, k], Dtype::Float32, 0.0, 1.0, Some(&key))?.astype(dtype)?;
        let x = random::normal(&[2, 3, k], Dtype::Float32, 0.1, 1.0, Some(&key))?.astype(dtype)?;
        let packed = quantize(&w, quantization)?;
        // MLX sums in the input's type; what it sums in float32 is nearer to the truth.
        let as_float32 = |array: &Array| array.astype(Dtype::Float32);
        let wide = match &packed.biases {
            Some(biases) => Packed {
                scales: as_float32(&packed.scales)?,
                biases: Some(as_float32(biases)?),
                ..packed.clone()
            },
            None => packed.clone(),
        };
        let expected = wide.matmul_by_mlx(&as_float32(&x)?, true)?.astype(dtype)?;
        for (arithmetic, bound) in [Arithmetic::Exact, Arithmetic::Fast].into_iter().zip(bounds) {
            let options = KernelOptions { arithmetic, ..options() };
            let layers = [(&packed, None)];
            let ours = super::super::with_options(options, || quantized_matmul(&x, &layers))?;
            let error = error(&ours.expect("there is a kernel")[0], &expected)?;
            assert!(error <= bound, "{quantization} {dtype} {arithmetic:?}: {error}");
        }
        Ok(())
    }

    #[test]
    fn agrees_with_mlx() -> Result<()> {
        with_device(Device::Cpu, || {
            for quantization in all() {
                check_format(quantization, Dtype::Float32, [1e-6, 0.02])?;
                check_format(quantization, Dtype::Float16, [1e-3, 0.02])?;
                check_format(quantization, Dtype::Bfloat16, [8e-3, 0.03])?;
            }
            Ok(())
        })
    }

    #[test]
    fn runs_under_transforms_and_on_views() -> Result<()> {
        with_device(Device::Cpu, || {
            let packed = quantize(
                &random::normal(&[8, 64], Dtype::Float32, 0.0, 1.0, Some(&random::key(1)?))?,
                Quantization::of(QuantMode::Affine),
            )?;
            let x =
                random::normal(&[64, 5], Dtype::Float32, 0.0, 1.0, Some(&random::key(2)?))?.t()?;
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
            let by_mlx = |x: &[Array]| {
                Ok(vec![packed.matmul_by_mlx(&x[0], true)?.square()?.sum(.., false)?])
            };
            close(&grad_once(loss, &inputs, 0)?[0], &grad_once(by_mlx, &inputs, 0)?[0])
        })
    }

    fn layer(n: i32, has_bias: bool) -> Result<Linear> {
        let mut layer = Linear::new(128, n, has_bias)?;
        layer.weight.quantize(Quantization::of(QuantMode::Affine))?;
        Ok(layer)
    }

    #[test]
    fn layers_together_are_layers_one_by_one() -> Result<()> {
        with_device(Device::Cpu, || {
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
}
