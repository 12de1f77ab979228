//! mxfp4 as gpt-oss stores its experts, stacked.
//!
//! ```text
//! NAME_blocks U8 [experts, out, in / 32, 16]    NAME_scales U8 [experts, out, in / 32]
//! ```

use super::Source;
use super::inventory::Parts;
use super::nibbles::{Nibbles, Scaling};
use super::tensor::Layer;
use crate::error::Result;

pub(super) const PARTS: Parts = Parts { marks: &["_blocks"], others: &["_scales"] };

pub(super) fn source<'a>(layer: &Layer<'_, 'a>) -> Result<(Vec<i32>, Source<'a>)> {
    let (blocks, scales) = (layer.need("_blocks")?, layer.need("_scales")?);
    blocks.expect_dtype(&["U8"])?;
    scales.expect_dtype(&["U8", "F8_E8M0"])?;
    let [leading @ .., groups, 16] = &blocks.shape[..] else {
        return Err(blocks.unexpected("blocks of 16 bytes"));
    };
    scales.expect_shape(&blocks.shape[..blocks.shape.len() - 1])?;
    let columns = groups.checked_mul(32);
    let Some((&rows, stack)) = leading.split_last().filter(|_| !blocks.bytes.is_empty()) else {
        return Err(blocks.unexpected("rows of blocks"));
    };
    let mut shape: Vec<i32> = stack.iter().map(|&dim| dim as i32).collect();
    shape.extend(blocks.shape_of(Some(rows), columns)?);
    let columns = columns.unwrap_or_default();
    let nibbles = Nibbles {
        // As many bytes are there, so the product is no larger.
        rows: leading.iter().product(),
        columns,
        scaling: Scaling::Mx,
        codes: blocks.bytes,
        scales: scales.bytes,
    };
    Ok((shape, Source::Nibbles(nibbles)))
}
