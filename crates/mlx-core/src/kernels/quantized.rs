//! Products with packed weights, one by one or chosen from a stack, and their rows.

mod gather;
mod rows;

pub(crate) use gather::{GatherInputs, gather_quantized_matmul};
pub(crate) use rows::take_rows;

use std::ffi::CStr;

use half::{bf16, f16};

use super::compute::activation::GatedActivation;
use super::compute::quantized::{
    E4m3, E8m0, Format, Input, Layer, Rows, Scale, gated_matmul, gather_gated_matmul,
    gather_matmul, gather_sums, matmul,
};
use super::routes;
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
    /// Whether weights are stacks to choose from.
    gather: Option<gather::Gather>,
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
        let gather = self.gather.map_or(0, gather::Gather::number);
        let numbers =
            [group_size as u64, bits as u64, mode as u64, arithmetic as u64, gate, gather];
        let has_bias = self.has_bias.iter().map(|&has_bias| has_bias.into());
        numbers.into_iter().chain([isa_number(isa)]).chain(has_bias).collect()
    }

    /// But for experts, of which it reads some.
    fn reads_weights(&self) -> bool {
        self.gather.is_none()
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
        let Some((x, mut rest)) = inputs.split_first() else { return Err("no inputs".into()) };
        let stack = rest.first().map_or(&[][..], |weight| weight.shape);
        let k =
            stack.last().map_or(0, |&words| words as usize * 32 / self.quantization.bits as usize);
        let mut layers = Vec::with_capacity(self.has_bias.len());
        for &has_bias in &self.has_bias {
            layers.push(self.layer::<X, S>(&mut rest, has_bias, k, scales_of)?);
        }
        let places = outputs.first().map_or(&[][..], |out| out.shape);
        let mut outs = outputs
            .iter_mut()
            .map(|out| elements_mut::<X>(out.bytes))
            .collect::<Result<Vec<_>, _>>()?;
        let isa = self.options.isa;
        let Some(gather) = self.gather else {
            let x = self.input(elements::<X>(x.bytes)?, k)?;
            return match (self.gate, &layers[..], &mut outs[..]) {
                (None, layers, outs) => {
                    matmul(isa, &x, layers, outs);
                    Ok(())
                }
                (Some(function), &[gate, up], [out]) => {
                    gated_matmul(isa, &x, function, [gate, up], out);
                    Ok(())
                }
                _ => Err(format!("{} weights, {} outputs", layers.len(), outs.len())),
            };
        };
        let indices = gather.indices(rest)?;
        let routes = match (gather.of_rows, indices) {
            (true, [_, Some(rhs)]) => {
                let [x, out] = [x.shape, places].map(|s| routes::as_matrices(s, rhs.shape.len()));
                routes::routes(&x, stack, indices, &out)?
            }
            _ => routes::routes(x.shape, stack, indices, places)?,
        };
        let x = elements::<X>(x.bytes)?;
        match (self.gate, &layers[..], &mut outs[..]) {
            (None, [layer], [out]) if !gather.transpose => {
                gather_sums(isa, x, &layer.w, &routes, out);
            }
            (None, layers, outs) => {
                gather_matmul(isa, &self.input(x, k)?, layers, &routes, outs);
            }
            (Some(function), &[gate, up], [out]) => {
                gather_gated_matmul(isa, &self.input(x, k)?, function, [gate, up], &routes, out);
            }
            _ => return Err(format!("{} weights, {} outputs", layers.len(), outs.len())),
        }
        Ok(())
    }

    /// Takes the parts of a weight, and a bias, off the inputs.
    fn layer<'a, X: Float, S: Scale>(
        &self,
        inputs: &mut &'a [HostInput<'a>],
        has_bias: bool,
        k: usize,
        scales_of: fn(&[u8]) -> Result<&[S], String>,
    ) -> Result<Layer<'a, S, X>, String> {
        let mut next = || {
            let (input, rest) = inputs.split_first().ok_or("too few inputs")?;
            *inputs = rest;
            Ok::<_, String>(input.bytes)
        };
        let (packed, scales) = (next()?, scales_of(next()?)?);
        let biases = match self.quantization.mode {
            QuantMode::Affine => scales_of(next()?)?,
            _ => &[],
        };
        let bias = if has_bias { Some(elements::<X>(next()?)?) } else { None };
        let format = format_of(self.quantization).ok_or("no kernel for this format")?;
        let group_size = self.quantization.group_size as usize;
        Ok(Layer { w: Rows::new(format, group_size, k, packed, scales, biases)?, bias })
    }

    /// Takes rows of activations as products read them.
    fn input<X: Float>(&self, x: &[X], k: usize) -> Result<Input, String> {
        let KernelOptions { arithmetic, isa } = self.options;
        let group_size = self.quantization.group_size as usize;
        let format = format_of(self.quantization).ok_or("no kernel for this format")?;
        Ok(match (arithmetic, self.gather) {
            (Arithmetic::Exact, _) => Input::exact(x, k, format),
            (Arithmetic::Fast, None) => Input::fast(isa, x, k, group_size, format),
            (Arithmetic::Fast, Some(_)) => Input::fast_apart(isa, x, k, group_size, format),
        })
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

/// Tells whether there is a kernel for a weight's format.
fn has_kernel(w: &Packed) -> bool {
    let is_affine = w.quantization.mode == QuantMode::Affine;
    let scales_fit = match &w.biases {
        Some(biases) => {
            is_affine && is_float(w.scales.dtype()) && w.scales.dtype() == biases.dtype()
        }
        None => !is_affine,
    };
    scales_fit && w.weight.dtype() == Dtype::Uint32 && format_of(w.quantization).is_some()
}

fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::Float32 | Dtype::Float16 | Dtype::Bfloat16)
}

/// Tells whether there is a kernel for the product with these weights together.
fn have_kernels(x: &Array, layers: &[PackedLayer<'_>]) -> bool {
    let Some(&(first, _)) = layers.first() else { return true };
    let is_of_kind = |w: &Packed| {
        w.quantization == first.quantization && w.scales.dtype() == first.scales.dtype()
    };
    is_float(x.dtype()) && layers.iter().all(|(w, _)| has_kernel(w) && is_of_kind(w))
}

/// As MLX: the type that holds inputs and scales.
fn result_dtype(x: &Array, w: &Packed) -> Dtype {
    match w.quantization.mode {
        QuantMode::Affine => promote_types(x.dtype(), w.scales.dtype()),
        _ => x.dtype(),
    }
}

/// Returns the weights that a fallback is given, each with its bias, and leaves what is behind them.
fn layers_of(
    quantization: Quantization,
    has_bias: &[bool],
    inputs: &mut &[Array],
) -> Vec<(Packed, Option<Array>)> {
    let mut next = || {
        let (input, rest) = inputs.split_first()?;
        *inputs = rest;
        Some(input.clone())
    };
    let mut layers = Vec::new();
    for &has_bias in has_bias {
        let (Some(weight), Some(scales)) = (next(), next()) else { break };
        let biases = if quantization.mode == QuantMode::Affine { next() } else { None };
        let bias = if has_bias { next() } else { None };
        layers.push((Packed { weight, scales, biases, quantization }, bias));
    }
    layers
}

fn gate_by_ops(
    gate: Option<(GatedActivation, GatedFallback)>,
    products: Vec<Array>,
) -> Result<Vec<Array>> {
    match (gate, &products[..]) {
        (Some((function, gated)), [gate, up]) => Ok(vec![gated(gate, up, function)?]),
        _ => Ok(products),
    }
}

fn call(
    x: &Array,
    layers: &[PackedLayer<'_>],
    gate: Option<(GatedActivation, GatedFallback)>,
) -> Result<Option<Vec<Array>>> {
    let Some(&(first, _)) = layers.first() else { return Ok(Some(vec![])) };
    let Some((&last, leading)) = x.shape().split_last() else { return Ok(None) };
    if !have_kernels(x, layers) || layers.iter().any(|(w, _)| w.weight.ndim() != 2) {
        return Ok(None);
    }
    let dtype = result_dtype(x, first);
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
        gather: None,
        options: options(),
    };
    let quantization = first.quantization;
    let fallback = move |inputs: &[Array]| {
        let Some((x, mut rest)) = inputs.split_first() else { return Ok(vec![]) };
        let mut products = Vec::new();
        for (packed, bias) in layers_of(quantization, &has_bias, &mut rest) {
            let product = packed.matmul_by_mlx(x, true)?;
            products.push(match bias {
                Some(bias) => (product + bias)?,
                None => product,
            });
        }
        gate_by_ops(gate, products)
    };
    if gate.is_some() {
        shapes.truncate(1);
    }
    let specs: Vec<_> = shapes.iter().map(|shape| (&shape[..], dtype)).collect();
    ffi::host_op(kernel, &inputs, &specs, Box::new(fallback)).map(Some)
}

#[cfg(test)]
mod tests;
