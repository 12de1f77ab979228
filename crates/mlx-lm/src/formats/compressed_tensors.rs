//! compressed-tensors, as llm-compressor and vLLM write it: integers and floats of 1 to 8 bits.
//!
//! ```text
//! integers, packed     weight_packed I32 [out, in * bits / 32], weight_shape I64 [2]
//! integers of 8 bits   weight I8 [out, in]
//!   both               weight_scale [out, groups], [out, 1] or [1]
//!                      weight_zero_point I32 [out * bits / 32, groups], or I8 as weight_scale
//!                      weight_g_idx I32 [in]
//! nvfp4                weight_packed U8 [out, in / 2], weight_scale F8_E4M3 [out, in / 16]
//!                      weight_global_scale F32 [1], by which scales are divided
//! mxfp4                weight_packed U8 [out, in / 2], weight_scale U8 [out, in / 32]
//! fp8, mxfp8           weight F8_E4M3 [out, in], weight_scale for a tensor, rows, groups or blocks
//! ```
//!
//! Integers and their zeros are signed and stored with `2^(bits - 1)` added. Words are streams of
//! bits along the inputs, those of zeros along the outputs; releases before 0.18 packed 3, 5, 6
//! and 7 bits with as many codes as fit a word whole.

use super::bytes::Bytes;
use super::gptq::listed;
use super::integers::{Groups, Integers, Order, transposed, unpack_streams};
use super::inventory::Parts;
use super::nibbles::{Nibbles, Scaling};
use super::settings::{GroupSize, Settings};
use super::tensor::{Layer, Tensor};
use super::{Source, unsupported};
use crate::error::{Error, Result};

pub(super) const PARTS: Parts = Parts {
    marks: &[".weight_packed", ".weight_scale"],
    others: &[
        ".weight",
        ".weight_shape",
        ".weight_zero_point",
        ".weight_global_scale",
        ".weight_g_idx",
    ],
};

const FORMATS: [&str; 8] = [
    "pack-quantized",
    "int-quantized",
    "float-quantized",
    "naive-quantized",
    "nvfp4-pack-quantized",
    "mxfp4-pack-quantized",
    "mxfp8-quantized",
    "mixed-precision",
];

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Config {
    format: String,
    schemes: Vec<Scheme>,
}

/// How one group of layers is quantized; which layers those are is told by their tensors.
#[derive(Clone, Debug, PartialEq)]
struct Scheme {
    bits: usize,
    group_size: GroupSize,
    block: Option<(usize, usize)>,
    symmetric: bool,
    /// Whether inputs are grouped as `weight_g_idx` lists.
    listed: bool,
}

impl Config {
    /// Returns `None` where weights are not quantized.
    pub(super) fn read(settings: &Settings<'_>) -> Result<Option<Config>> {
        let sparsity = settings.object("sparsity_config")?;
        let sparsity = sparsity.map(|sparsity| sparsity.text("format")).transpose()?.flatten();
        if let Some(format) = sparsity.filter(|&format| format != "dense") {
            return Err(unsupported(format_args!("compressed-tensors sparsity \"{format}\"")));
        }
        // Rotations that the model computes as it runs.
        let transforms = settings.object("transform_config")?;
        let transforms = transforms.map(|t| t.object("config_groups")).transpose()?.flatten();
        if transforms.is_some_and(|groups| !groups.is_empty()) {
            return Err(unsupported("compressed-tensors with a transform_config"));
        }
        let format = settings.text("format")?.unwrap_or("mixed-precision");
        if format == "dense" || format == "fakequant" {
            return Ok(None);
        }
        check_format(format)?;
        let mut schemes = Vec::new();
        if let Some(groups) = settings.object("config_groups")? {
            for group in groups.objects()? {
                if let Some(format) = group.text("format")?.filter(|&format| format != "dense") {
                    check_format(format)?;
                }
                if let Some(weights) = group.object("weights")? {
                    schemes.push(Scheme::read(&weights)?);
                }
            }
        }
        let config = Config { format: format.to_owned(), schemes };
        Ok((!config.schemes.is_empty()).then_some(config))
    }

    pub(super) fn name(&self) -> String {
        let mut bits: Vec<String> =
            self.schemes.iter().map(|scheme| format!("{}-bit", scheme.bits)).collect();
        bits.dedup();
        format!("compressed-tensors {}, {}", self.format, bits.join(" and "))
    }
}

fn check_format(format: &str) -> Result<()> {
    if FORMATS.contains(&format) {
        return Ok(());
    }
    Err(unsupported(format_args!("compressed-tensors format \"{format}\"")))
}

impl Scheme {
    fn read(weights: &Settings<'_>) -> Result<Scheme> {
        let bits = weights.integer("num_bits")?.unwrap_or(8);
        let kind = weights.text("type")?.unwrap_or("int").to_ascii_lowercase();
        if !matches!((kind.as_str(), bits), ("int", 1..=8) | ("float", 4 | 8)) {
            return Err(unsupported(format_args!("compressed-tensors with {kind} of {bits} bits")));
        }
        let strategy = weights.text("strategy")?.unwrap_or("group");
        if !matches!(strategy, "tensor" | "channel" | "group" | "tensor_group" | "block") {
            return Err(unsupported(format_args!("compressed-tensors strategy \"{strategy}\"")));
        }
        let order = weights.get("actorder");
        let order = order.filter(|order| order.as_bool() != Some(false));
        Ok(Scheme {
            symmetric: weights.flag("symmetric")?.unwrap_or(true),
            // What is calibrated by `weight` or `static` is stored as ever.
            listed: order.is_some_and(|order| !matches!(order.as_str(), Some("weight" | "static"))),
            bits: bits as usize,
            group_size: weights.group_size(["group_size"; 2], GroupSize::Row)?,
            block: weights.block("block_structure")?,
        })
    }
}

pub(super) fn source<'a>(config: &Config, layer: &Layer<'_, 'a>) -> Result<(Vec<i32>, Source<'a>)> {
    if let Some(packed) = layer.find(".weight_packed")? {
        packed.expect_dtype(&["I32", "U8"])?;
        return match packed.dtype {
            "I32" => packed_integers(config, layer, &packed),
            _ => nibbles(layer, &packed),
        };
    }
    let weight = layer.need(".weight")?;
    weight.expect_dtype(&["I8", "F8_E4M3"])?;
    let (rows, columns) = weight.matrix()?;
    if weight.dtype == "I8" {
        return integers(config, layer, &weight, (rows, columns), (8, Order::Signed));
    }
    let scales = layer.need(".weight_scale")?;
    let blocks: Vec<_> = config.schemes.iter().map(|scheme| scheme.block).collect();
    Bytes::source(&weight, &scales, &blocks)
}

fn packed_integers<'a>(
    config: &Config,
    layer: &Layer<'_, 'a>,
    packed: &Tensor<'a>,
) -> Result<(Vec<i32>, Source<'a>)> {
    let (rows, words) = packed.matrix()?;
    let shape = layer.need(".weight_shape")?;
    let [stored_rows, columns] = shape.indices()?[..] else {
        return Err(shape.unexpected("two sizes"));
    };
    if stored_rows != rows || columns == 0 || i32::try_from(columns).is_err() {
        return Err(packed.unexpected(format_args!("a weight of [{stored_rows}, {columns}]")));
    }
    let found = config.schemes.iter().find_map(|scheme| {
        let bits = scheme.bits;
        // Sizes tell the two packings apart where MLX has the rows.
        if !columns.is_multiple_of(32) && 32 % bits != 0 {
            return None;
        }
        let (stream, whole) = ((columns * bits).div_ceil(32), columns.div_ceil(32 / bits));
        let order = match words {
            words if words == stream => Order::Rows,
            words if words == whole => Order::Whole,
            _ => return None,
        };
        Some((bits, order))
    });
    let Some(codes) = found else {
        let text = format_args!("integers for [{rows}, {columns}] of the width that is configured");
        return Err(packed.unexpected(text));
    };
    integers(config, layer, packed, (rows, columns), codes)
}

fn integers<'a>(
    config: &Config,
    layer: &Layer<'_, 'a>,
    weight: &Tensor<'a>,
    (rows, columns): (usize, usize),
    (bits, order): (usize, Order),
) -> Result<(Vec<i32>, Source<'a>)> {
    let scales = layer.need(".weight_scale")?;
    scales.expect_dtype(&["F16", "BF16", "F32"])?;
    let n_groups = match scales.shape[..] {
        [] | [1] | [1, 1] => 1,
        [n] if n == rows => 1,
        [n, groups] if n == rows && groups > 0 => groups,
        _ => return Err(scales.unexpected(format_args!("scales for [{rows}, {columns}]"))),
    };
    // Where layers differ, their tensors tell which scheme one has.
    let schemes = || config.schemes.iter().filter(|scheme| scheme.bits == bits);
    let sizes: Vec<GroupSize> = schemes().map(|scheme| scheme.group_size).collect();
    let has_zeros = schemes().all(|scheme| !scheme.symmetric);
    let is_listed = schemes().all(|scheme| scheme.listed);
    let groups = match layer.find_or_need(".weight_g_idx", is_listed)? {
        // Not filled in: not used.
        Some(g_idx) if g_idx.bytes.iter().any(|&byte| byte != 0xff) => {
            listed(&g_idx, columns, n_groups, &sizes)?
        }
        _ => Groups::Even(scales.groups_of(&sizes, columns, n_groups)?),
    };
    let mut extra_bytes = scales.bytes.len();
    let half = 1 << (bits - 1);
    let zeros = match layer.find_or_need(".weight_zero_point", has_zeros)? {
        None => vec![half],
        Some(zeros) => {
            extra_bytes += zeros.bytes.len();
            zero_points(&zeros, &scales, (rows, n_groups), bits)?
        }
    };
    let mut scales = scales.floats()?;
    if scales.len() == 1 {
        scales = vec![scales[0]; rows];
    }
    Ok((
        weight.shape_of(Some(rows), Some(columns))?,
        Source::Integers(Integers {
            rows,
            columns,
            bits,
            order,
            codes: weight.bytes,
            groups,
            scales,
            zeros,
            name: format!("{}.weight_scale", layer.path),
            extra_bytes,
        }),
    ))
}

/// Reads zeros as codes: `[rows, n_groups]`, or one.
fn zero_points(
    zeros: &Tensor<'_>,
    scales: &Tensor<'_>,
    (rows, n_groups): (usize, usize),
    bits: usize,
) -> Result<Vec<i16>> {
    zeros.expect_dtype(&["I32", "I8"])?;
    if zeros.dtype == "I8" {
        zeros.expect_shape(&scales.shape)?;
        let half = 1 << (bits - 1);
        return Ok(zeros.bytes.iter().map(|&zero| i16::from(zero as i8) + half).collect());
    }
    zeros.expect_shape(&[(rows * bits).div_ceil(32), n_groups])?;
    let codes =
        unpack_streams(zeros.bytes, (n_groups, rows), bits, |group, at| at * n_groups + group);
    Ok(transposed(&codes, n_groups, rows))
}

fn nibbles<'a>(layer: &Layer<'_, 'a>, packed: &Tensor<'a>) -> Result<(Vec<i32>, Source<'a>)> {
    let scales = layer.need(".weight_scale")?;
    let divisor = layer.find_or_need(".weight_global_scale", scales.dtype == "F8_E4M3")?;
    let divisor = divisor.map_or(Ok(1.0), |divisor| divisor.positive())?;
    e2m1_source(packed, &scales, divisor.recip())
}

/// Takes two-dimensional E2M1 weights, of which the scales' type tells the kind.
pub(super) fn e2m1_source<'a>(
    weight: &Tensor<'a>,
    scales: &Tensor<'a>,
    scale: f32,
) -> Result<(Vec<i32>, Source<'a>)> {
    scales.expect_dtype(&["F8_E4M3", "F8_E8M0", "U8"])?;
    let (scaling, group_size) = match scales.dtype {
        "F8_E4M3" => (Scaling::Nv(scale), 16),
        _ => (Scaling::Mx, 32),
    };
    let (rows, bytes) = weight.matrix()?;
    let shape = weight.shape_of(Some(rows), bytes.checked_mul(2))?;
    let columns = bytes * 2;
    if !columns.is_multiple_of(group_size) {
        return Err(weight.unexpected(format_args!("groups of {group_size}")));
    }
    scales.expect_shape(&[rows, columns / group_size])?;
    if scaling == Scaling::Mx && scale != 1.0 {
        return Err(Error::format("weight_global_scale", "scales are powers of two already"));
    }
    let nibbles = Nibbles { rows, columns, scaling, codes: weight.bytes, scales: scales.bytes };
    Ok((shape, Source::Nibbles(nibbles)))
}
