//! The table's rows of convolutions.

use mlx_core::ops::{self, Conv, ConvGeneral, ConvTranspose, ConvolveMode};
use mlx_core::{Array, Result};

use super::call::{Call, ints, unknown};
use super::table::one;

/// A keyword that is one number for all axes or one for each.
fn each<const N: usize>(c: &Call<'_>, name: &str, default: i32) -> [i32; N] {
    let given = if c.has(name) { c.ints(name) } else { vec![default] };
    match given[..] {
        [one] => [one; N],
        _ => given.try_into().unwrap(),
    }
}

fn options<const N: usize>(c: &Call<'_>) -> Conv<N> {
    Conv {
        stride: each(c, "stride", 1),
        padding: each(c, "padding", 0),
        dilation: each(c, "dilation", 1),
        groups: c.int("groups", 1),
    }
}

fn transposed<const N: usize>(c: &Call<'_>) -> ConvTranspose<N> {
    ConvTranspose {
        stride: each(c, "stride", 1),
        padding: each(c, "padding", 0),
        dilation: each(c, "dilation", 1),
        output_padding: each(c, "output_padding", 0),
        groups: c.int("groups", 1),
    }
}

pub(super) fn run(c: &Call<'_>) -> Option<Result<Vec<Array>>> {
    one(match c.op {
        "conv1d" => ops::conv1d(&c.array(0), &c.array(1), options(c)),
        "conv2d" => ops::conv2d(&c.array(0), &c.array(1), options(c)),
        "conv3d" => ops::conv3d(&c.array(0), &c.array(1), options(c)),
        "conv_transpose1d" => ops::conv_transpose1d(&c.array(0), &c.array(1), transposed(c)),
        "conv_transpose2d" => ops::conv_transpose2d(&c.array(0), &c.array(1), transposed(c)),
        "conv_transpose3d" => ops::conv_transpose3d(&c.array(0), &c.array(1), transposed(c)),
        "conv_general" => general(c),
        "convolve" => {
            let mode = match c.text("mode").unwrap_or("full") {
                "full" => ConvolveMode::Full,
                "same" => ConvolveMode::Same,
                "valid" => ConvolveMode::Valid,
                mode => return Some(Err(unknown(mode))),
            };
            ops::convolve(&c.array(0), &c.array(1), mode)
        }
        _ => return None,
    })
}

fn general(c: &Call<'_>) -> Result<Array> {
    let (padding_lo, padding_hi) = match c.kw("padding").and_then(|padding| padding.as_array()) {
        Some(both) if both[0].is_array() => (ints(&both[0]), ints(&both[1])),
        _ => (c.ints("padding"), c.ints("padding")),
    };
    let options = ConvGeneral {
        stride: &c.ints("stride"),
        padding_lo: &padding_lo,
        padding_hi: &padding_hi,
        kernel_dilation: &c.ints("kernel_dilation"),
        input_dilation: &c.ints("input_dilation"),
        groups: c.int("groups", 1),
        flip: c.flag("flip", false),
    };
    ops::conv_general(&c.array(0), &c.array(1), options)
}
