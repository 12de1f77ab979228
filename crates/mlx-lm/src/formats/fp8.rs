//! 8-bit floats as DeepSeek, Qwen, Mistral and FBGEMM write them.
//!
//! ```text
//! weight F8_E4M3 [out, in]
//! weight_scale_inv or weight_scale: one, [out, 1], or one for each weight_block_size
//! ```
//!
//! Despite its name the scale is multiplied. It is a float or, as a byte, a power of two.

use super::bytes::Bytes;
use super::inventory::Parts;
use super::settings::Settings;
use super::tensor::Layer;
use super::{Source, unsupported};
use crate::error::Result;

pub(super) const PARTS: Parts =
    Parts { marks: &[".weight_scale_inv", ".weight_scale"], others: &[".weight"] };

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Config {
    block: Option<(usize, usize)>,
}

impl Config {
    pub(super) fn read(settings: &Settings<'_>) -> Result<Config> {
        let kind = settings.text("fmt")?.unwrap_or("e4m3");
        if !matches!(kind, "e4m3" | "float8_e4m3fn") {
            return Err(unsupported(format_args!("fp8 of kind \"{kind}\"")));
        }
        Ok(Config { block: settings.block("weight_block_size")? })
    }

    pub(super) fn name(&self) -> String {
        match self.block {
            Some((height, width)) => format!("fp8 in blocks of {height}×{width}"),
            None => "fp8".to_owned(),
        }
    }
}

pub(super) fn source<'a>(config: &Config, layer: &Layer<'_, 'a>) -> Result<(Vec<i32>, Source<'a>)> {
    let weight = layer.need(".weight")?;
    weight.expect_dtype(&["F8_E4M3"])?;
    let scales = match layer.find(".weight_scale_inv")? {
        Some(scales) => scales,
        None => layer.need(".weight_scale")?,
    };
    Bytes::source(&weight, &scales, &[config.block])
}
