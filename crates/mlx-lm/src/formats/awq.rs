//! AWQ as AutoAWQ writes it (arXiv 2306.00978): 4 bits, each group with a scale and a zero.
//!
//! ```text
//! qweight I32 [in, out / 8]    scales F16 [groups, out]    qzeros I32 [groups, out / 8]
//! ```
//!
//! A word holds eight outputs, from its lowest bits 0, 2, 4, 6, 1, 3, 5, 7. Without `qzeros` the
//! zero is 8.

use super::integers::{Groups, Integers, Order, awq_shift, transposed};
use super::inventory::Parts;
use super::settings::{GroupSize, Settings};
use super::tensor::{Layer, word};
use super::{Source, unsupported};
use crate::error::Result;

pub(super) const PARTS: Parts = Parts { marks: &[".qweight"], others: &[".qzeros", ".scales"] };

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Config {
    group_size: GroupSize,
    has_zeros: bool,
}

impl Config {
    pub(super) fn read(settings: &Settings<'_>) -> Result<Config> {
        let bits = settings.integer("bits")?.or(settings.integer("w_bit")?).unwrap_or(4);
        if bits != 4 {
            return Err(unsupported(format_args!("AWQ with {bits} bits")));
        }
        let version = settings.text("version")?.unwrap_or("gemm");
        if !version.eq_ignore_ascii_case("gemm") {
            return Err(unsupported(format_args!("AWQ version \"{version}\"")));
        }
        let group_size =
            settings.group_size(["group_size", "q_group_size"], GroupSize::Inputs(128))?;
        let has_zeros = settings.flag("zero_point")?.unwrap_or(false);
        Ok(Config { group_size, has_zeros })
    }

    pub(super) fn name(&self) -> String {
        format!("AWQ 4-bit, {}", self.group_size)
    }
}

pub(super) fn source<'a>(config: &Config, layer: &Layer<'_, 'a>) -> Result<(Vec<i32>, Source<'a>)> {
    let (qweight, scales) = (layer.need(".qweight")?, layer.need(".scales")?);
    qweight.expect_dtype(&["I32", "U32"])?;
    scales.expect_dtype(&["F16", "BF16", "F32"])?;
    let (columns, words) = qweight.matrix()?;
    let shape = qweight.shape_of(words.checked_mul(8), Some(columns))?;
    let rows = words * 8;
    let (n_groups, _) = scales.matrix()?;
    scales.expect_shape(&[n_groups, rows])?;
    let groups = scales.groups_of(&[config.group_size], columns, n_groups)?;

    let mut extra_bytes = scales.bytes.len();
    let zeros = match layer.find_or_need(".qzeros", config.has_zeros)? {
        None => vec![8],
        Some(qzeros) => {
            qzeros.expect_dtype(&["I32", "U32"])?;
            qzeros.expect_shape(&[n_groups, words])?;
            extra_bytes += qzeros.bytes.len();
            let zero = |row: usize, group: usize| {
                (word(qzeros.bytes, group * words + row / 8) >> awq_shift(row % 8) & 15) as i16
            };
            (0..rows).flat_map(|row| (0..n_groups).map(move |group| zero(row, group))).collect()
        }
    };
    Ok((
        shape,
        Source::Integers(Integers {
            rows,
            columns,
            bits: 4,
            order: Order::Awq,
            codes: qweight.bytes,
            groups: Groups::Even(groups),
            scales: transposed(&scales.floats()?, n_groups, rows),
            zeros,
            name: format!("{}.scales", layer.path),
            extra_bytes,
        }),
    ))
}
