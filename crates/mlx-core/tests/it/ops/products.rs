//! The table's rows of matrix products, dense and quantized.

use mlx_core::ops::{self, BlockMasks, GatherMatmul, GlobalScales, Packed, QqWeight};
use mlx_core::{Array, Dtype, Result};

use super::call::Call;
use super::table::one;

pub(super) fn run(c: &Call<'_>) -> Option<Result<Vec<Array>>> {
    let (lhs, rhs) = (c.kw_array("lhs_indices"), c.kw_array("rhs_indices"));
    let (lhs, rhs) = (lhs.as_ref(), rhs.as_ref());
    let sorted_indices = c.flag("sorted_indices", false);
    let transpose = c.flag("transpose", true);
    let packed = |first: usize| {
        Ok(Packed {
            weight: c.array(first),
            scales: c.array(first + 1),
            biases: c.optional(first + 2),
            quantization: c.quantization()?,
        })
    };
    one(match c.op {
        "matmul" => c.array(0).matmul(&c.array(1)),
        "addmm" => {
            let (alpha, beta) = (c.float("alpha", 1.0) as f32, c.float("beta", 1.0) as f32);
            ops::addmm(&c.array(0), &c.array(1), &c.array(2), alpha, beta)
        }
        "tensordot" => {
            let (a, b) = (c.array(0), c.array(1));
            match c.kw("axes").and_then(|axes| axes.as_array()) {
                Some(axes) => {
                    let list = |i: usize| {
                        let axes = axes[i].as_array().unwrap().iter();
                        axes.map(|axis| axis.as_i64().unwrap() as i32).collect::<Vec<_>>()
                    };
                    a.tensordot(&b, &list(0), &list(1))
                }
                None => a.tensordot_axis(&b, c.int("axes", 2)),
            }
        }
        "vecdot" => c.array(0).vecdot(&c.array(1), c.int("axis", -1)),
        "hadamard_transform" => {
            let scale = c.kw("scale").map(|scale| scale.as_f64().unwrap() as f32);
            c.array(0).hadamard_transform(scale)
        }
        "block_masked_mm" => {
            let masks = [c.kw_array("mask_out"), c.kw_array("mask_lhs"), c.kw_array("mask_rhs")];
            let [out, lhs, rhs] = masks.each_ref().map(Option::as_ref);
            let masks = BlockMasks { out, lhs, rhs };
            ops::block_masked_mm(&c.array(0), &c.array(1), c.int("block_size", 64), masks)
        }
        "segmented_mm" => ops::segmented_mm(&c.array(0), &c.array(1), &c.array(2)),
        "einsum" => ops::einsum(c.text("subscripts")?, &c.list()),
        "gather_mm" => ops::gather_mm(&c.array(0), &c.array(1), lhs, rhs, sorted_indices),
        "quantize" => {
            let packed = c.quantization().and_then(|q| match c.kw_array("global_scale") {
                None => ops::quantize(&c.array(0), q),
                Some(scale) => ops::quantize_with_global_scale(&c.array(0), &scale),
            });
            return Some(
                packed.map(|p| [p.weight, p.scales].into_iter().chain(p.biases).collect()),
            );
        }
        "dequantize" => packed(0).and_then(|packed| match c.kw_array("global_scale") {
            None => packed.dequantize(c.dtype("dtype")),
            Some(scale) => packed.dequantize_with_global_scale(&scale, c.dtype("dtype")),
        }),
        "qqmm" | "gather_qqmm" => qq(c, &packed),
        "quantized_matmul" => packed(1).and_then(|packed| packed.matmul(&c.array(0), transpose)),
        "gather_qmm" => packed(1).and_then(|packed| {
            let options = GatherMatmul { transpose, sorted_indices };
            packed.gather_matmul(&c.array(0), lhs, rhs, options)
        }),
        "to_fp8" => ops::to_fp8(&c.array(0)),
        "from_fp8" => ops::from_fp8(&c.array(0), c.dtype("dtype").unwrap_or(Dtype::Bfloat16)),
        _ => return None,
    })
}

/// Both operands quantized: with scales the weight is packed.
fn qq(c: &Call<'_>, packed: &dyn Fn(usize) -> Result<Packed>) -> Result<Array> {
    let (x, weight) = (c.array(0), c.array(1));
    let owned;
    let weight = if c.optional(2).is_some() {
        owned = packed(1)?;
        QqWeight::Packed(&owned)
    } else {
        QqWeight::Dense(&weight, c.quantization()?)
    };
    if c.op == "gather_qqmm" {
        let (lhs, rhs) = (c.kw_array("lhs_indices"), c.kw_array("rhs_indices"));
        return ops::gather_qqmm(&x, weight, lhs.as_ref(), rhs.as_ref(), false);
    }
    let scales = c.kw_array("global_scale_x").zip(c.kw_array("global_scale_w"));
    let scales = scales.as_ref().map(|(x, w)| GlobalScales { x, w });
    ops::qqmm(&x, weight, scales)
}
