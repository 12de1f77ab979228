//! Products with packed weights that indices choose from a stack.

use super::super::routes::{self, Indices};
use super::{
    GatedFallback, PackedLayer, QuantizedMatmul, gate_by_ops, have_kernels, layers_of, result_dtype,
};
use crate::array::Array;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{self, HostInput};
use crate::kernels::{GatedActivation, options};
use crate::ops::{GatherMatmul, matrix_indices};

/// How a kernel chooses.
#[derive(Clone, Copy)]
pub(super) struct Gather {
    has_lhs_indices: bool,
    has_rhs_indices: bool,
    pub(super) transpose: bool,
    /// As [`GatherInputs::of_rows`].
    pub(super) of_rows: bool,
}

impl Gather {
    /// A number for the kernel's parameters, not 0.
    pub(super) fn number(self) -> u64 {
        let Gather { has_lhs_indices, has_rhs_indices, transpose, of_rows } = self;
        [has_lhs_indices, has_rhs_indices, transpose, of_rows]
            .into_iter()
            .fold(1, |n, x| 2 * n + u64::from(x))
    }

    /// Returns the indices among the inputs behind the weights.
    pub(super) fn indices<'a>(
        self,
        inputs: &'a [HostInput<'a>],
    ) -> std::result::Result<Indices<&'a HostInput<'a>>, String> {
        match (self.has_lhs_indices, self.has_rhs_indices, inputs) {
            (false, false, []) => Ok([None, None]),
            (true, false, [lhs]) => Ok([Some(lhs), None]),
            (false, true, [rhs]) => Ok([None, Some(rhs)]),
            (true, true, [lhs, rhs]) => Ok([Some(lhs), Some(rhs)]),
            _ => Err(format!("{} inputs behind the weights", inputs.len())),
        }
    }
}

/// What is multiplied with weights, and which of them.
#[derive(Clone, Copy)]
pub(crate) struct GatherInputs<'a> {
    /// `[A…, M, K]`, or rows
    pub(crate) x: &'a Array,
    /// Whether `x` is `[A…, K]`, to which axes of one are added up to those of the indices into the
    /// weights, and results have no axis `M`: no node stands between kernels then.
    pub(crate) of_rows: bool,
    pub(crate) lhs_indices: Option<&'a Array>,
    pub(crate) rhs_indices: Option<&'a Array>,
    pub(crate) options: GatherMatmul,
}

/// Returns [`Packed::gather_matmul`](crate::ops::Packed::gather_matmul) with each stack, plus the bias of
/// the weight in use, by one kernel of ours, or `function(gate) * up` of two of them, or `None` where there
/// is no kernel. A bias, `[E, N]`, goes with indices into the weights.
///
/// # Errors
/// When the current device is no CPU, shapes and dtypes do not fit, or the host has an index at hand that
/// is out of range.
pub(crate) fn gather_quantized_matmul(
    inputs: GatherInputs<'_>,
    stacks: &[PackedLayer<'_>],
    gate: Option<(GatedActivation, GatedFallback)>,
) -> Result<Option<Vec<Array>>> {
    let GatherInputs { x, of_rows, lhs_indices, rhs_indices, options: gather_options } = inputs;
    let Some(&(first, _)) = stacks.first() else { return Ok(Some(vec![])) };
    let transpose = gather_options.transpose;
    let is_plain = stacks.len() == 1 && gate.is_none() && stacks[0].1.is_none();
    let shape = match rhs_indices {
        Some(rhs_indices) if of_rows => routes::as_matrices(x.shape(), rhs_indices.ndim()),
        _ => x.shape().to_vec(),
    };
    let &[.., m, last] = &shape[..] else { return Ok(None) };
    if of_rows && rhs_indices.is_none() || !have_kernels(x, stacks) || !(transpose || is_plain) {
        return Ok(None);
    }
    let dtype = result_dtype(x, first);
    let x = &x.astype(dtype)?;
    let indices = [lhs_indices, rhs_indices];
    let mut places = routes::places("gather_matmul", &shape, first.weight.shape(), indices)?;
    if !of_rows {
        places.push(m);
    }
    let (mut arrays, mut shapes, mut has_bias) = (vec![x], Vec::new(), Vec::new());
    for &(w, bias) in stacks {
        let [n, words] = [w.weight.dim(-2)?, w.weight.dim(-1)?];
        let k = i64::from(words) * 32 / i64::from(w.quantization.bits);
        let (inner, outer) = if transpose { (k, n.into()) } else { (n.into(), k) };
        let batch = |w: &Array| w.shape().split_at(w.ndim() - 2).0.to_vec();
        if i64::from(last) != inner || batch(&w.weight) != batch(&first.weight) {
            let text =
                format!("gather_matmul: input {x:?}, weight {:?} as {}", w.weight, w.quantization);
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
        arrays.extend([&w.weight, &w.scales]);
        arrays.extend(&w.biases);
        if let Some(bias) = bias {
            // Another one would widen or broadcast the result.
            let fits = w.weight.ndim() == 3 && bias.shape() == [w.weight.dim(0)?, n];
            if !fits || bias.dtype() != dtype || rhs_indices.is_none() {
                return Ok(None);
            }
            arrays.push(bias);
        }
        has_bias.push(bias.is_some());
        let outer = i32::try_from(outer).unwrap_or(i32::MAX);
        shapes.push([&places[..], &[outer]].concat());
    }
    if gate.is_some() {
        if shapes.iter().any(|shape| shape != &shapes[0]) {
            let text = format!("gather_matmul: gated product of sizes {shapes:?}");
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
        shapes.truncate(1);
    }
    arrays.extend(lhs_indices);
    arrays.extend(rhs_indices);
    let gather = Gather {
        has_lhs_indices: lhs_indices.is_some(),
        has_rhs_indices: rhs_indices.is_some(),
        transpose,
        of_rows,
    };
    let kernel = QuantizedMatmul {
        quantization: first.quantization,
        has_bias: has_bias.clone(),
        gate: gate.map(|(function, _)| function),
        gather: Some(gather),
        options: options(),
    };
    let quantization = first.quantization;
    let fallback = move |inputs: &[Array]| {
        let Some((x, mut rest)) = inputs.split_first() else { return Ok(vec![]) };
        let stacks = layers_of(quantization, &has_bias, &mut rest);
        let lhs_indices = if gather.has_lhs_indices { rest.first() } else { None };
        let rhs_indices = if gather.has_rhs_indices { rest.last() } else { None };
        let x = &match rhs_indices {
            Some(rhs) if of_rows => x.reshape(routes::as_matrices(x.shape(), rhs.ndim()))?,
            _ => x.clone(),
        };
        let mut products = Vec::new();
        for (packed, bias) in stacks {
            let product = match (lhs_indices, rhs_indices) {
                (None, None) => packed.matmul_by_mlx(x, transpose)?,
                _ => packed.gather_matmul_by_mlx(x, lhs_indices, rhs_indices, gather_options)?,
            };
            let chosen = matrix_indices("gather_matmul", &packed.weight, rhs_indices)?;
            products.push(match (bias, chosen) {
                (Some(bias), Some(chosen)) => (product + bias.take(&chosen, 0)?.expand_dims(-2))?,
                _ => product,
            });
        }
        let outputs = gate_by_ops(gate, products)?;
        outputs.into_iter().map(|y| if of_rows { y.squeeze(-2) } else { Ok(y) }).collect()
    };
    let specs: Vec<_> = shapes.iter().map(|shape| (&shape[..], dtype)).collect();
    ffi::host_op(kernel, &arrays, &specs, Box::new(fallback)).map(Some)
}

#[cfg(test)]
mod tests;
