//! GPTQ (arXiv 2210.17323) as AutoGPTQ and GPTQModel write it: 2, 3, 4 or 8 bits.
//!
//! ```text
//! qweight I32 [in * bits / 32, out]    scales F16 [groups, out]
//! qzeros  I32 [groups, out * bits / 32]    g_idx I32 [in]: the group of each input
//! ```
//!
//! Words are streams of bits along the inputs, those of `qzeros` along the outputs. Zeros are
//! stored less one, unless `checkpoint_format` is `gptq_v2`. With `desc_act` groups
//! were made of inputs that are alike in activation, so that `g_idx` is in no order.
//!
//! Bits are read off the shapes: with `dynamic` a layer may have its own, and its own groups.

use super::integers::{Groups, Integers, Order, transposed, unpack_streams};
use super::inventory::Parts;
use super::settings::{GroupSize, Settings};
use super::tensor::{Layer, Tensor};
use super::{Source, unsupported};
use crate::error::Result;

pub(super) const PARTS: Parts =
    Parts { marks: &[".qweight"], others: &[".qzeros", ".scales", ".g_idx"] };

const BITS: [usize; 4] = [2, 3, 4, 8];

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Config {
    bits: i32,
    group_size: GroupSize,
    /// Whether some layers are quantized otherwise than the rest.
    dynamic: bool,
    desc_act: bool,
    /// Whether zeros are stored less one.
    zeros_less_one: bool,
}

impl Config {
    pub(super) fn read(settings: &Settings<'_>) -> Result<Config> {
        let bits = settings.integer("bits")?.unwrap_or(4);
        if !BITS.iter().any(|&known| i64::from(bits) == known as i64) {
            return Err(unsupported(format_args!("GPTQ with {bits} bits")));
        }
        let format = settings.text("checkpoint_format")?.or(settings.text("format")?);
        let format = format.unwrap_or("gptq");
        let zeros_less_one = match format {
            "gptq" => true,
            "gptq_v2" => false,
            other => return Err(unsupported(format_args!("GPTQ checkpoint_format \"{other}\""))),
        };
        if settings.flag("is_marlin_format")? == Some(true) {
            return Err(unsupported("GPTQ in marlin's order (is_marlin_format)"));
        }
        let group_size =
            settings.group_size(["group_size", "groupsize"], GroupSize::Inputs(128))?;
        let desc_act = settings.flag("desc_act")?.unwrap_or(false);
        let dynamic = settings.object("dynamic")?.is_some_and(|layers| !layers.is_empty());
        Ok(Config { bits, group_size, dynamic, desc_act, zeros_less_one })
    }

    pub(super) fn name(&self) -> String {
        let order = if self.desc_act { ", desc_act" } else { "" };
        format!("GPTQ {}-bit, {}{order}", self.bits, self.group_size)
    }
}

pub(super) fn source<'a>(config: &Config, layer: &Layer<'_, 'a>) -> Result<(Vec<i32>, Source<'a>)> {
    let [qweight, qzeros, scales] =
        [layer.need(".qweight")?, layer.need(".qzeros")?, layer.need(".scales")?];
    qweight.expect_dtype(&["I32", "U32"])?;
    qzeros.expect_dtype(&["I32", "U32"])?;
    scales.expect_dtype(&["F16", "BF16", "F32"])?;
    let (words, rows) = qweight.matrix()?;
    let (n_groups, _) = scales.matrix()?;
    scales.expect_shape(&[n_groups, rows])?;
    let bits = bits_of(&qzeros, n_groups, rows)?;
    let columns = words.checked_mul(32).filter(|n| n.is_multiple_of(bits)).map(|n| n / bits);
    let shape = qweight.shape_of(Some(rows), columns)?;
    let columns = columns.unwrap_or_default();

    let mut sizes = vec![config.group_size];
    if config.dynamic && columns.is_multiple_of(n_groups) {
        sizes.push(GroupSize::Inputs(columns / n_groups));
    }
    let groups = match layer.find_or_need(".g_idx", config.desc_act)? {
        None => Groups::Even(scales.groups_of(&sizes, columns, n_groups)?),
        Some(g_idx) => listed(&g_idx, columns, n_groups, &sizes)?,
    };
    let zeros = zeros(config, &qzeros, (n_groups, rows), bits);
    let zeros = transposed(&zeros, n_groups, rows);
    Ok((
        shape,
        Source::Integers(Integers {
            rows,
            columns,
            bits,
            order: Order::Columns,
            codes: qweight.bytes,
            groups,
            scales: transposed(&scales.floats()?, n_groups, rows),
            zeros,
            name: format!("{}.scales", layer.path),
            extra_bytes: scales.bytes.len() + qzeros.bytes.len(),
        }),
    ))
}

/// Reads the zeros, `[n_groups, rows]`.
///
/// What is stored less one was subtracted from whole words where a word has whole codes, so that
/// a zero of 0 borrowed from its neighbour; it is added the same way.
fn zeros(
    config: &Config,
    qzeros: &Tensor<'_>,
    (n_groups, rows): (usize, usize),
    bits: usize,
) -> Vec<i16> {
    let words = rows * bits / 32;
    let code_mask = (1 << bits) - 1;
    let of_words = 32 % bits == 0;
    let added = if config.zeros_less_one && of_words { u32::MAX / code_mask } else { 0 };
    let shifted: Vec<u8> = qzeros
        .bytes
        .as_chunks()
        .0
        .iter()
        .map(|&word| u32::from_le_bytes(word))
        .flat_map(|word| word.wrapping_add(added).to_le_bytes())
        .collect();
    let mut zeros =
        unpack_streams(&shifted, (n_groups, rows), bits, |group, at| group * words + at);
    if config.zeros_less_one && !of_words {
        zeros.iter_mut().for_each(|zero| *zero = (*zero + 1) & code_mask as i16);
    }
    zeros
}

fn bits_of(qzeros: &Tensor<'_>, n_groups: usize, rows: usize) -> Result<usize> {
    let (groups, words) = qzeros.matrix()?;
    let found = BITS.into_iter().find(|bits| rows.checked_mul(*bits) == words.checked_mul(32));
    found.filter(|_| groups == n_groups).ok_or_else(|| {
        qzeros.unexpected(format_args!("zeros of 2, 3, 4 or 8 bits for [{n_groups}, {rows}]"))
    })
}

/// Reads which group each input belongs to; an order that is none is told apart.
pub(super) fn listed(
    g_idx: &Tensor<'_>,
    columns: usize,
    n_groups: usize,
    sizes: &[GroupSize],
) -> Result<Groups> {
    g_idx.expect_shape(&[columns])?;
    let groups = g_idx.indices()?;
    if let Some(group) = groups.iter().find(|&&group| group >= n_groups) {
        return Err(g_idx.unexpected(format_args!("groups below {n_groups}, one is {group}")));
    }
    if let Ok(even @ GroupSize::Inputs(size)) = g_idx.groups_of(sizes, columns, n_groups)
        && groups.iter().enumerate().all(|(column, &group)| group == column / size)
    {
        return Ok(Groups::Even(even));
    }
    Ok(Groups::Listed(groups.into_iter().map(|group| group as u32).collect()))
}
