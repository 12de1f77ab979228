//! NVIDIA's ModelOpt: nvfp4, fp8, mxfp8, or one for each layer.
//!
//! ```text
//! nvfp4    weight U8 [out, in / 2], weight_scale F8_E4M3 [out, in / 16], weight_scale_2 F32 []
//! fp8      weight F8_E4M3 [out, in], weight_scale F32: [], [out], or one for each 128×128
//! mxfp8    weight F8_E4M3 [out, in], weight_scale U8 [out, in / 32]
//! ```
//!
//! The settings are those of `config.json` or lie below `quantization` in `hf_quant_config.json`.

use super::bytes::Bytes;
use super::compressed_tensors::e2m1_source;
use super::inventory::Parts;
use super::settings::Settings;
use super::tensor::Layer;
use super::{Source, unsupported};
use crate::error::Result;

pub(super) const PARTS: Parts = Parts {
    marks: &[".weight_scale"],
    others: &[".weight", ".weight_scale_2", ".pre_quant_scale"],
};

const ALGORITHMS: [&str; 7] =
    ["FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO", "NVFP4", "MXFP4", "MXFP8", "MIXED_PRECISION"];

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Config {
    algorithm: String,
}

impl Config {
    pub(super) fn read(settings: &Settings<'_>) -> Result<Config> {
        let nested = settings.object("quantization")?;
        let settings = nested.as_ref().unwrap_or(settings);
        let algorithm = settings.text("quant_algo")?.unwrap_or("MIXED_PRECISION");
        check(algorithm)?;
        if let Some(layers) = settings.object("quantized_layers")? {
            for layer in layers.objects()? {
                layer.text("quant_algo")?.map_or(Ok(()), check)?;
            }
        }
        Ok(Config { algorithm: algorithm.to_owned() })
    }

    pub(super) fn name(&self) -> String {
        format!("ModelOpt {}", self.algorithm)
    }
}

fn check(algorithm: &str) -> Result<()> {
    if ALGORITHMS.contains(&algorithm) {
        return Ok(());
    }
    Err(unsupported(format_args!("ModelOpt's algorithm \"{algorithm}\"")))
}

pub(super) fn source<'a>(layer: &Layer<'_, 'a>) -> Result<(Vec<i32>, Source<'a>)> {
    if layer.find(".pre_quant_scale")?.is_some() {
        return Err(unsupported(format_args!("{}.pre_quant_scale", layer.path)));
    }
    let (weight, scales) = (layer.need(".weight")?, layer.need(".weight_scale")?);
    weight.expect_dtype(&["U8", "F8_E4M3"])?;
    if weight.dtype == "U8" {
        let scale = layer.find_or_need(".weight_scale_2", scales.dtype == "F8_E4M3")?;
        let scale = scale.map_or(Ok(1.0), |scale| scale.positive())?;
        return e2m1_source(&weight, &scales, scale);
    }
    Bytes::source(&weight, &scales, &[Some((128, 128))])
}
