//! Layers of which each input uses some only: mixtures of experts.

use super::activation::{gated, gated_by_ops};
use super::{GatedActivation, Param, WeightMatrix, make};
use crate::array::Array;
use crate::device::Device;
use crate::error::Result;
use crate::kernels::{self, GatherInputs, GatherLinear, PackedLayer};
use crate::ops::{GatherMatmul, Packed, floor_divide, gather_mm};
use crate::stream;

/// Linear layers of one size, stacked, of which indices choose. mlx-lm: `SwitchLinear`.
///
/// ```
/// use mlx_core::nn::SwitchLinear;
/// use mlx_core::{Array, Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let experts = SwitchLinear::new(16, 8, 4, true)?;
/// let x = ops::ones(&[3, 1, 1, 16], Dtype::Float32)?; // three tokens
/// let chosen = Array::from_slice(&[0u32, 3, 1, 3, 2, 0], &[3, 2])?; // two experts each
/// assert_eq!(experts.forward(&x, &chosen, false)?.shape(), [3, 2, 1, 8]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SwitchLinear {
    /// `[N, D, E]` for `N` experts
    pub weight: WeightMatrix,
    /// `[N, D]`
    pub bias: Option<Param>,
}

crate::module! { SwitchLinear { weight, bias } }

impl SwitchLinear {
    /// Makes layers with weights spread evenly over `±1 / √input_dims`, in float32, out of this
    /// thread's key sequence, and biases of zero.
    ///
    /// # Errors
    /// When a size is not positive.
    pub fn new(
        input_dims: i32,
        output_dims: i32,
        num_experts: i32,
        bias: bool,
    ) -> Result<SwitchLinear> {
        let sizes = [
            ("input_dims", input_dims),
            ("output_dims", output_dims),
            ("num_experts", num_experts),
        ];
        make::check_positive("switch_linear", &sizes)?;
        let weight = make::uniform(input_dims.into(), &[num_experts, output_dims, input_dims])?;
        let bias = if bias { Some(make::full(0.0, &[num_experts, output_dims])?) } else { None };
        Ok(SwitchLinear { weight: WeightMatrix::Dense(weight), bias })
    }

    /// Applies the layers that `indices` choose.
    ///
    /// An index is not negative; one beyond the last expert, where the host does not know it yet,
    /// means the last. `sorted_indices` says that they ascend, which is faster on a GPU.
    ///
    /// # Shape
    /// `x: [A…, M, E]`, `indices` that broadcast with `A…` to `I…` → `[I…, M, D]`
    ///
    /// # Errors
    /// When the shapes do not fit, the indices are not integers, or the host has one at hand that is
    /// out of range.
    pub fn forward(&self, x: &Array, indices: &Array, sorted_indices: bool) -> Result<Array> {
        let bias = self.bias.as_deref();
        let y = match &self.weight {
            WeightMatrix::Packed(packed) => {
                let inputs = gather_inputs(x, indices, sorted_indices);
                if let Some([y]) = Packed::gather_each(inputs, [(packed, bias)])? {
                    return Ok(y);
                }
                packed.gather_matmul(x, None, Some(indices), inputs.options)?
            }
            WeightMatrix::Dense(weight) => {
                let is_alike = bias.is_none_or(|bias| bias.dtype() == weight.dtype());
                if is_alike && kernels::has_gather_linear(x, weight)? {
                    let rhs_indices = Some(indices);
                    let gather = GatherLinear { lhs_indices: None, rhs_indices, sorted_indices };
                    return kernels::gather_linear(x, weight, bias, gather);
                }
                gather_mm(x, &weight.swapaxes(-1, -2)?, None, Some(indices), sorted_indices)?
            }
        };
        match bias {
            Some(bias) => y + bias.take(indices, 0)?.expand_dims(-2),
            None => Ok(y),
        }
    }

    fn packed(&self) -> Option<PackedLayer<'_>> {
        match &self.weight {
            WeightMatrix::Packed(packed) => Some((packed, self.bias.as_deref())),
            WeightMatrix::Dense(_) => None,
        }
    }
}

fn gather_inputs<'a>(x: &'a Array, indices: &'a Array, sorted_indices: bool) -> GatherInputs<'a> {
    let options = GatherMatmul { transpose: true, sorted_indices };
    GatherInputs { x, of_rows: false, lhs_indices: None, rhs_indices: Some(indices), options }
}

/// What becomes of the results of gate and up, `[…, D]` each.
#[derive(Clone, Copy, Debug)]
pub enum SwitchActivation {
    /// One that kernels have.
    Gated(GatedActivation),
    /// Any other function of gate and up.
    Custom(fn(&Array, &Array) -> Result<Array>),
}

impl From<GatedActivation> for SwitchActivation {
    fn from(activation: GatedActivation) -> SwitchActivation {
        SwitchActivation::Gated(activation)
    }
}

/// Gated feed-forward layers, stacked, of which indices choose: `down(activation(gate(x), up(x)))`.
/// mlx-lm: `SwitchGLU`.
///
/// ```
/// use mlx_core::nn::SwitchGlu;
/// use mlx_core::{Array, Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let experts = SwitchGlu::new(16, 32, 4, false)?;
/// let x = ops::ones(&[1, 3, 16], Dtype::Float32)?;
/// let chosen = Array::from_slice(&[0u32, 3, 1, 3, 2, 0], &[1, 3, 2])?;
/// assert_eq!(experts.forward(&x, &chosen)?.shape(), [1, 3, 2, 16]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SwitchGlu {
    /// `[N, D, E]`
    pub gate_proj: SwitchLinear,
    /// `[N, D, E]`
    pub up_proj: SwitchLinear,
    /// `[N, E, D]`
    pub down_proj: SwitchLinear,
    /// Of gate and up.
    pub activation: SwitchActivation,
}

crate::module! { SwitchGlu { gate_proj, up_proj, down_proj } }

/// So many indices are worth sorting where the order of experts matters, as mlx-lm has it.
const SORTED: usize = 64;

impl SwitchGlu {
    /// Makes layers as [`SwitchLinear::new`] does, with [`GatedActivation::Silu`].
    ///
    /// # Errors
    /// When a size is not positive.
    pub fn new(
        input_dims: i32,
        hidden_dims: i32,
        num_experts: i32,
        bias: bool,
    ) -> Result<SwitchGlu> {
        Ok(SwitchGlu {
            gate_proj: SwitchLinear::new(input_dims, hidden_dims, num_experts, bias)?,
            up_proj: SwitchLinear::new(input_dims, hidden_dims, num_experts, bias)?,
            down_proj: SwitchLinear::new(hidden_dims, input_dims, num_experts, bias)?,
            activation: GatedActivation::Silu.into(),
        })
    }

    /// Applies the layers that `indices` choose, each of the last axis of `indices` to the same input;
    /// on a CPU packed ones as two nodes.
    ///
    /// # Shape
    /// `x: [A…, E]`, `indices: [A…, k] → [A…, k, E]`
    ///
    /// # Errors
    /// As [`SwitchLinear::forward`].
    pub fn forward(&self, x: &Array, indices: &Array) -> Result<Array> {
        // Kernels of ours bring together what goes to one expert by themselves.
        if indices.size() >= SORTED && stream::current_device()? != Device::Cpu {
            return self.forward_sorted(x, indices);
        }
        if let Some(y) = self.forward_rows(x, indices)? {
            return Ok(y);
        }
        let hidden = self.hidden(&x.expand_dims(&[-2, -3])?, indices, false)?;
        self.down_proj.forward(&hidden, indices, false)?.squeeze(-2)
    }

    /// Does as [`SwitchGlu::forward`] by two kernels with nothing between, or returns `None` where there
    /// are none.
    fn forward_rows(&self, x: &Array, indices: &Array) -> Result<Option<Array>> {
        let layers = [&self.gate_proj, &self.up_proj, &self.down_proj].map(SwitchLinear::packed);
        let ([Some(gate), Some(up), Some(down)], SwitchActivation::Gated(function)) =
            (layers, self.activation)
        else {
            return Ok(None);
        };
        let inputs = GatherInputs { of_rows: true, ..gather_inputs(x, indices, false) };
        let Some(hidden) = Packed::gather_gated(inputs, [gate, up], function, gated_by_ops)? else {
            return Ok(None);
        };
        let inputs = GatherInputs { x: &hidden, ..inputs };
        Ok(Packed::gather_each(inputs, [down])?.map(|[y]| y))
    }

    /// Does as [`SwitchGlu::forward`] with tokens in the order of their experts.
    fn forward_sorted(&self, x: &Array, indices: &Array) -> Result<Array> {
        in_order(x, indices, |x, indices| {
            self.down_proj.forward(&self.hidden(x, indices, true)?, indices, true)
        })
    }

    /// Returns `activation(gate(x), up(x))`.
    fn hidden(&self, x: &Array, indices: &Array, sorted_indices: bool) -> Result<Array> {
        let (gate, up) = (&self.gate_proj, &self.up_proj);
        let function = match self.activation {
            SwitchActivation::Gated(function) => function,
            SwitchActivation::Custom(function) => {
                let gate = gate.forward(x, indices, sorted_indices)?;
                return function(&gate, &up.forward(x, indices, sorted_indices)?);
            }
        };
        if let (Some(gate), Some(up)) = (gate.packed(), up.packed()) {
            let inputs = gather_inputs(x, indices, sorted_indices);
            let y = Packed::gather_gated(inputs, [gate, up], function, gated_by_ops)?;
            if let Some(y) = y {
                return Ok(y);
            }
        }
        let gate = gate.forward(x, indices, sorted_indices)?;
        gated(&gate, &up.forward(x, indices, sorted_indices)?, function)
    }
}

/// Calls `f` with tokens in the order of their experts, one for each index, and brings what it returns
/// back into theirs.
fn in_order(
    x: &Array,
    indices: &Array,
    f: impl FnOnce(&Array, &Array) -> Result<Array>,
) -> Result<Array> {
    let shape = [indices.shape(), &[x.dim(-1)?]].concat();
    let order = indices.flatten(0, -1)?.argsort(0)?;
    let tokens = floor_divide(&order, indices.dim(-1)?)?;
    let x = x.reshape([-1, 1, x.dim(-1)?])?.take(&tokens, 0)?;
    let y = f(&x, &indices.flatten(0, -1)?.take(&order, 0)?)?;
    y.take(&order.argsort(0)?, 0)?.reshape(shape)
}

/// Feed-forward layers without a gate, stacked, of which indices choose: `fc2(activation(fc1(x)))`.
/// mlx-lm: `SwitchMLP`.
///
/// ```
/// use mlx_core::nn::{self, SwitchMlp};
/// use mlx_core::{Array, Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let experts = SwitchMlp::new(16, 32, 4, nn::relu2, false)?;
/// let x = ops::ones(&[1, 3, 16], Dtype::Float32)?;
/// let chosen = Array::from_slice(&[0u32, 3, 1, 3, 2, 0], &[1, 3, 2])?;
/// assert_eq!(experts.forward(&x, &chosen)?.shape(), [1, 3, 2, 16]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SwitchMlp {
    /// `[N, D, E]`
    pub fc1: SwitchLinear,
    /// `[N, E, D]`
    pub fc2: SwitchLinear,
    /// What is between.
    pub activation: fn(&Array) -> Result<Array>,
}

crate::module! { SwitchMlp { fc1, fc2 } }

impl SwitchMlp {
    /// Makes layers as [`SwitchLinear::new`] does.
    ///
    /// # Errors
    /// When a size is not positive.
    pub fn new(
        input_dims: i32,
        hidden_dims: i32,
        num_experts: i32,
        activation: fn(&Array) -> Result<Array>,
        bias: bool,
    ) -> Result<SwitchMlp> {
        Ok(SwitchMlp {
            fc1: SwitchLinear::new(input_dims, hidden_dims, num_experts, bias)?,
            fc2: SwitchLinear::new(hidden_dims, input_dims, num_experts, bias)?,
            activation,
        })
    }

    /// Applies the layers that `indices` choose, each of the last axis of `indices` to the same input.
    ///
    /// # Shape
    /// `x: [A…, E]`, `indices: [A…, k] → [A…, k, E]`
    ///
    /// # Errors
    /// As [`SwitchLinear::forward`].
    pub fn forward(&self, x: &Array, indices: &Array) -> Result<Array> {
        if indices.size() >= SORTED && stream::current_device()? != Device::Cpu {
            return self.forward_sorted(x, indices);
        }
        self.layers(&x.expand_dims(&[-2, -3])?, indices, false)?.squeeze(-2)
    }

    /// Does as [`SwitchMlp::forward`] with tokens in the order of their experts.
    fn forward_sorted(&self, x: &Array, indices: &Array) -> Result<Array> {
        in_order(x, indices, |x, indices| self.layers(x, indices, true))
    }

    fn layers(&self, x: &Array, indices: &Array, sorted_indices: bool) -> Result<Array> {
        let hidden = (self.activation)(&self.fc1.forward(x, indices, sorted_indices)?)?;
        self.fc2.forward(&hidden, indices, sorted_indices)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Linear, Module};
    use super::*;
    use crate::ops::{Closeness, zeros};
    use crate::{Dtype, QuantMode, Quantization, random, with_device};

    fn check_close(a: &Array, b: &Array) -> Result<()> {
        assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()));
        let bounds = Closeness { rtol: 1e-4, atol: 1e-5, equal_nan: false };
        assert!(a.allclose(b, bounds)?.item::<bool>()?, "{a}\n{b}");
        Ok(())
    }

    /// One expert by itself.
    fn expert(layer: &SwitchLinear, i: i32) -> Result<Linear> {
        let weight = match &layer.weight {
            WeightMatrix::Dense(weight) => WeightMatrix::Dense(weight.at(i)?.into()),
            WeightMatrix::Packed(packed) => WeightMatrix::Packed(Packed {
                weight: packed.weight.at(i)?,
                scales: packed.scales.at(i)?,
                biases: packed.biases.as_ref().map(|biases| biases.at(i)).transpose()?,
                quantization: packed.quantization,
            }),
        };
        let bias = layer.bias.as_ref().map(|bias| bias.at(i)).transpose()?;
        Ok(Linear { weight, bias: bias.map(Param::from) })
    }

    /// Token by token, expert by expert.
    fn one_by_one(experts: &SwitchGlu, x: &Array, indices: &Array) -> Result<Array> {
        let shape = [indices.shape(), &[x.dim(-1)?]].concat();
        let k = indices.dim(-1)?;
        let x = x.reshape([-1, x.dim(-1)?])?;
        let mut rows = Vec::new();
        for (p, &i) in indices.astype(Dtype::Int32)?.to_vec::<i32>()?.iter().enumerate() {
            let x = x.at(p as i32 / k)?.expand_dims(0)?;
            let gate = expert(&experts.gate_proj, i)?.forward(&x)?;
            let up = expert(&experts.up_proj, i)?.forward(&x)?;
            let hidden = match experts.activation {
                SwitchActivation::Gated(function) => gated(&gate, &up, function)?,
                SwitchActivation::Custom(function) => function(&gate, &up)?,
            };
            rows.push(expert(&experts.down_proj, i)?.forward(&hidden)?);
        }
        crate::ops::concatenate(&rows, 0)?.reshape(shape)
    }

    fn experts(bias: bool) -> Result<SwitchGlu> {
        random::seed(4)?;
        let mut experts = SwitchGlu::new(64, 96, 5, bias)?;
        experts.for_each_array_mut(&mut |path, array| {
            if path.ends_with("bias") {
                *array = random::normal(array.shape(), Dtype::Float32, 0.0, 1.0, None)?;
            }
            Ok(())
        })?;
        Ok(experts)
    }

    #[test]
    fn each_token_goes_through_its_experts() -> Result<()> {
        with_device(Device::Cpu, || {
            let custom = SwitchActivation::Custom(|gate, up| gate.maximum(up));
            let affine = Quantization { group_size: 32, ..Quantization::default() };
            let quantizations = [None, Some(affine), Some(Quantization::of(QuantMode::Mxfp8))];
            for (bias, quantization) in
                [false, true].into_iter().flat_map(|bias| quantizations.map(|q| (bias, q)))
            {
                let mut experts = experts(bias)?;
                experts.quantize(&|_, _| quantization)?;
                for activation in
                    [GatedActivation::Silu.into(), GatedActivation::ClampedSwiglu.into(), custom]
                {
                    experts.activation = activation;
                    for leading in [&[1, 1][..], &[2, 40], &[3]] {
                        let x = random::normal(
                            &[leading, &[64]].concat(),
                            Dtype::Float32,
                            0.0,
                            2.0,
                            None,
                        )?;
                        let shape = [leading, &[3]].concat();
                        let indices = random::randint(0, 5, &shape, Dtype::Uint32, None)?;
                        let expected = one_by_one(&experts, &x, &indices)?;
                        check_close(&experts.forward(&x, &indices)?, &expected)?;
                        check_close(&experts.forward_sorted(&x, &indices)?, &expected)?;
                    }
                }
            }
            Ok(())
        })
    }

    #[test]
    fn layers_without_a_gate_agree_with_gated_ones() -> Result<()> {
        with_device(Device::Cpu, || {
            let affine = Quantization { group_size: 32, ..Quantization::default() };
            for quantization in [None, Some(affine)] {
                let mut gated = experts(true)?;
                // The gate itself is what `up` does not change.
                gated.activation = SwitchActivation::Custom(|gate, _up| crate::nn::relu2(gate));
                gated.quantize(&|_, _| quantization)?;
                let plain = SwitchMlp {
                    fc1: gated.gate_proj.clone(),
                    fc2: gated.down_proj.clone(),
                    activation: crate::nn::relu2,
                };
                let x = random::normal(&[2, 40, 64], Dtype::Float32, 0.0, 1.0, None)?;
                let indices = random::randint(0, 5, &[2, 40, 3], Dtype::Uint32, None)?;
                let expected = one_by_one(&gated, &x, &indices)?;
                check_close(&plain.forward(&x, &indices)?, &expected)?;
                check_close(&plain.forward_sorted(&x, &indices)?, &expected)?;
            }
            let names: Vec<String> = SwitchMlp::new(8, 4, 2, crate::nn::relu, true)?
                .parameters()
                .0
                .into_keys()
                .collect();
            assert_eq!(names, ["fc1.bias", "fc1.weight", "fc2.bias", "fc2.weight"]);
            Ok(())
        })
    }

    #[test]
    fn names_and_sizes_are_those_of_python() -> Result<()> {
        with_device(Device::Cpu, || {
            let mut experts = experts(true)?;
            let shapes: Vec<_> = experts
                .parameters()
                .iter()
                .map(|(name, array)| (name.clone(), array.shape().to_vec()))
                .collect();
            let expected = [
                ("down_proj.bias", vec![5, 64]),
                ("down_proj.weight", vec![5, 64, 96]),
                ("gate_proj.bias", vec![5, 96]),
                ("gate_proj.weight", vec![5, 96, 64]),
                ("up_proj.bias", vec![5, 96]),
                ("up_proj.weight", vec![5, 96, 64]),
            ];
            assert_eq!(shapes, expected.map(|(name, shape)| (name.to_owned(), shape)));
            let n = experts.n_parameters();
            experts
                .quantize(&|_, _| Some(Quantization { group_size: 32, ..Default::default() }))?;
            assert_eq!(experts.n_parameters(), n);
            assert_eq!(
                experts.get("down_proj.scales").map(|x| x.shape().to_vec()),
                Some(vec![5, 64, 3])
            );
            Ok(())
        })
    }

    #[test]
    fn experts_that_are_not_there_are_refused() -> Result<()> {
        with_device(Device::Cpu, || {
            let mut experts = experts(true)?;
            let x = zeros(&[1, 64], Dtype::Float32)?;
            for _ in 0..2 {
                for bad in [5, -1, i32::MIN] {
                    let chosen = Array::from_slice(&[0, bad], &[1, 2])?;
                    assert!(experts.forward(&x, &chosen).is_err(), "{bad}");
                }
                assert!(experts.forward(&x, &zeros(&[1, 2], Dtype::Float32)?).is_err());
                assert!(
                    experts.forward(&x.at((.., ..32))?, &zeros(&[1, 2], Dtype::Uint32)?).is_err()
                );
                let quantization = Quantization { group_size: 32, ..Default::default() };
                experts.quantize(&|_, _| Some(quantization))?;
            }
            assert!(SwitchLinear::new(4, 4, 0, false).is_err());
            Ok(())
        })
    }
}
