//! Checkpoints that other programs quantized: AWQ, GPTQ, compressed-tensors, ModelOpt, fp8, mxfp4.
//!
//! [`ForeignFormat::detect`] reads `quantization_config`; [`ForeignFormat::inventory`] sorts the
//! tensors of a checkpoint into layers, tensors to keep, and what weights do not need, such as
//! scales of activations; [`ForeignFormat::recipe`] checks one layer's tensors and says what it
//! becomes, from sizes and scales alone; [`Recipe::repack`] then makes it. Everything here is host
//! code on bytes: loading calls it for mapped tensors, conversion for one layer after the other.
//!
//! Which layers are quantized is told by their tensors, not by the `targets`, `ignore`, `dynamic`
//! or `modules_to_not_convert` of a configuration, so none of those patterns is evaluated.
//!
//! # What becomes of a layer
//!
//! | in the checkpoint | here | without loss |
//! | --- | --- | --- |
//! | AWQ, GPTQ, compressed-tensors: integers of 1 to 8 bits | affine; 1 bit as 2, 7 as 8 | but for rounding scales and biases to `dtype` |
//! | the same, groups that MLX has not: 16, or rows not of 32 | dense | no |
//! | GPTQ with `desc_act` | affine with `input_order`, or dense | as above |
//! | E2M1 with power-of-two scales (mxfp4) | mxfp4 | yes |
//! | E2M1 with E4M3 scales and one for the tensor (nvfp4) | nvfp4 with `output_scale`, or dense | yes; scales that fit are folded |
//! | E4M3, all scales powers of two | mxfp8 | yes |
//! | E4M3, one scale for a tensor or row | mxfp8 with `output_scale`, or dense | yes |
//! | E4M3, blocks with other scales | dense | rounded to `dtype` |
//!
//! One scale for a row, a tensor or 256 inputs is repeated for each of MLX's groups. MLX computes
//! `q * scale + bias`, where the formats mean `(q - zero) * scale`: with a bias rounded to
//! `float16` a weight is off by at most `2⁻¹¹ * scale * zero`, to `bfloat16` by `2⁻⁸ * scale * zero`,
//! and by nothing where `zero` is a power of two, which it is in symmetric checkpoints. Scales of
//! another type than `dtype` are rounded to it too. With `Float32` neither is.
//!
//! To add a format, write its file (what its configuration says, which tensors a layer has) on
//! top of one of the cores: `integers`, `nibbles` for E2M1, `bytes` for E4M3.

mod awq;
mod bytes;
mod compressed_tensors;
mod fp8;
mod gptq;
mod integers;
mod inventory;
mod modelopt;
mod mxfp4;
mod nibbles;
mod report;
mod settings;
mod tensor;

use std::fmt;

use mlx_core::{Dtype, QuantMode, Quantization};
use serde_json::Value;

use self::settings::Settings;
use crate::error::{Error, ErrorKind, Result};

pub use inventory::Inventory;
pub use report::Report;
pub use tensor::{Floats, TensorView, Tensors};

/// The format of a checkpoint that another program quantized.
#[derive(Clone, Debug, PartialEq)]
pub struct ForeignFormat(Method);

#[derive(Clone, Debug, PartialEq)]
enum Method {
    Awq(awq::Config),
    Gptq(gptq::Config),
    CompressedTensors(compressed_tensors::Config),
    ModelOpt(modelopt::Config),
    Fp8(fp8::Config),
    Mxfp4,
}

/// What the caller's layers can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepackOptions {
    /// The dtype of affine scales and of dense weights: `Float16`, `Bfloat16` or `Float32`.
    pub dtype: Dtype,
    /// Whether a layer can multiply its output, see [`PackedLayer::output_scale`]; a format that
    /// needs that is dequantized otherwise.
    pub output_scale: bool,
    /// Whether a layer can reorder its input, see [`PackedLayer::input_order`]; a format that
    /// needs that is dequantized otherwise.
    pub input_order: bool,
}

/// What a layer becomes, before it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Packed as MLX has it.
    Packed {
        /// The format.
        quantization: Quantization,
        /// The length of [`PackedLayer::output_scale`]: 0, 1, or the number of rows.
        output_scale: usize,
        /// Whether there is a [`PackedLayer::input_order`].
        input_order: bool,
    },
    /// Dequantized.
    Dense {
        /// Why, as a clause about the layer: `its rows are no multiple of 32`.
        reason: &'static str,
    },
}

/// A checked layer of the checkpoint that can be made.
pub struct Recipe<'a> {
    shape: Vec<i32>,
    form: Form,
    dtype: Dtype,
    stored_bytes: u64,
    source: Source<'a>,
}

enum Source<'a> {
    Integers(integers::Integers<'a>),
    Nibbles(nibbles::Nibbles<'a>),
    Bytes(bytes::Bytes<'a>),
}

/// A layer as MLX has it.
#[derive(Clone, Debug, PartialEq)]
pub enum Layer {
    /// Still quantized.
    Packed(PackedLayer),
    /// Dequantized: numbers of [`Recipe::shape`].
    Dense(Floats),
}

/// A weight in MLX's packing.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedLayer {
    /// The format.
    pub quantization: Quantization,
    /// `[…, D, E * bits / 32]`, each row's elements from the lowest bit up.
    pub weight: Vec<u32>,
    /// `[…, D, E / group_size]`: of the options' dtype for affine, else `Uint8`.
    pub scales: Floats,
    /// As `scales`, for affine only.
    pub biases: Option<Floats>,
    /// What the layer's output is to be multiplied with, one number or one for each row; empty
    /// where it is 1.
    pub output_scale: Vec<f32>,
    /// Which input each column of the weight is for, where that is not its own position: the
    /// layer computes `x[…, input_order] × wᵀ`.
    pub input_order: Option<Vec<u32>>,
}

impl Layer {
    /// Small floats, whose bytes lie as MLX has them, with a byte of scale for each group.
    fn of_floats(
        quantization: Quantization,
        codes: &[u8],
        scales: Vec<u8>,
        output_scale: Vec<f32>,
    ) -> Layer {
        Layer::Packed(PackedLayer {
            quantization,
            weight: codes.as_chunks().0.iter().map(|four| u32::from_le_bytes(*four)).collect(),
            scales: Floats::small(scales),
            biases: None,
            output_scale,
            input_order: None,
        })
    }
}

impl ForeignFormat {
    /// Reads `quantization_config` out of a configuration, from its top level or `text_config`;
    /// `None` where there is none, or it is MLX's own.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for a method or variant that is not read, by name and with the
    /// way out; [`ErrorKind::Format`] for settings of the wrong type.
    pub fn detect(config: &Value) -> Result<Option<ForeignFormat>> {
        if config.get("quantization").is_some_and(|v| !v.is_null()) {
            return Ok(None);
        }
        let of =
            |config: &Value| config.get("quantization_config").filter(|v| !v.is_null()).cloned();
        let Some(value) = of(config).or_else(|| of(config.get("text_config")?)) else {
            return Ok(None);
        };
        let settings = Settings::new(&value)?;
        let Some(method) = method_name(&settings)? else { return Ok(None) };
        let method = match method.as_str() {
            "awq" => Method::Awq(awq::Config::read(&settings)?),
            "gptq" => Method::Gptq(gptq::Config::read(&settings)?),
            "compressed-tensors" | "compressed_tensors" => {
                match compressed_tensors::Config::read(&settings)? {
                    Some(config) => Method::CompressedTensors(config),
                    None => return Ok(None),
                }
            }
            "modelopt" | "modelopt_fp4" | "modelopt_mixed" | "modelopt_mxfp8" => {
                Method::ModelOpt(modelopt::Config::read(&settings)?)
            }
            "fp8" | "fbgemm_fp8" => Method::Fp8(fp8::Config::read(&settings)?),
            "mxfp4" => Method::Mxfp4,
            // MLX's own, under the key of the others.
            "mxfp8" => return Ok(None),
            other => return Err(unsupported(format_args!("method \"{other}\""))),
        };
        Ok(Some(ForeignFormat(method)))
    }

    /// Returns what a user calls the format, such as `AWQ 4-bit, groups of 128`.
    pub fn name(&self) -> String {
        match &self.0 {
            Method::Awq(config) => config.name(),
            Method::Gptq(config) => config.name(),
            Method::CompressedTensors(config) => config.name(),
            Method::ModelOpt(config) => config.name(),
            Method::Fp8(config) => config.name(),
            Method::Mxfp4 => "mxfp4".to_owned(),
        }
    }

    /// Sorts the tensors of a checkpoint.
    pub fn inventory<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Inventory {
        let parts = match &self.0 {
            Method::Awq(_) => &awq::PARTS,
            Method::Gptq(_) => &gptq::PARTS,
            Method::CompressedTensors(_) => &compressed_tensors::PARTS,
            Method::ModelOpt(_) => &modelopt::PARTS,
            Method::Fp8(_) => &fp8::PARTS,
            Method::Mxfp4 => &mxfp4::PARTS,
        };
        Inventory::new(parts, names)
    }

    /// Checks the tensors of one layer and decides what it becomes.
    ///
    /// # Errors
    /// [`ErrorKind::Format`] when a tensor is missing or has not the dtype, shape or size that the
    /// others demand; the text names it. [`ErrorKind::Unsupported`] for a variant that is not read.
    pub fn recipe<'a>(
        &self,
        layer: &str,
        tensors: &dyn Tensors<'a>,
        options: RepackOptions,
    ) -> Result<Recipe<'a>> {
        if !matches!(options.dtype, Dtype::Float16 | Dtype::Bfloat16 | Dtype::Float32) {
            let text = format!("weights cannot be dequantized to {}", options.dtype);
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
        let at = tensor::Layer { path: layer, tensors };
        let (shape, source) = match &self.0 {
            Method::Awq(config) => awq::source(config, &at)?,
            Method::Gptq(config) => gptq::source(config, &at)?,
            Method::CompressedTensors(config) => compressed_tensors::source(config, &at)?,
            Method::ModelOpt(_) => modelopt::source(&at)?,
            Method::Fp8(config) => fp8::source(config, &at)?,
            Method::Mxfp4 => mxfp4::source(&at)?,
        };
        let form = match &source {
            Source::Integers(source) => source.form(options),
            Source::Nibbles(source) => source.form(options),
            Source::Bytes(source) => source.form(options),
        };
        let stored_bytes = source.stored_bytes();
        Ok(Recipe { shape, form, dtype: options.dtype, stored_bytes, source })
    }
}

impl Source<'_> {
    fn stored_bytes(&self) -> u64 {
        match self {
            Source::Integers(source) => source.stored_bytes(),
            Source::Nibbles(source) => source.stored_bytes(),
            Source::Bytes(source) => source.stored_bytes(),
        }
    }
}

impl Recipe<'_> {
    /// Returns the shape of the weight before packing, `[…, D, E]`.
    pub fn shape(&self) -> &[i32] {
        &self.shape
    }

    /// Returns what the layer becomes.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Returns the size of the layer's weight and scales in the checkpoint.
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// Returns the size of the layer as it will be made.
    pub fn made_bytes(&self) -> u64 {
        let elements: u64 = self.shape.iter().map(|&dim| dim.unsigned_abs() as u64).product();
        match self.form {
            Form::Dense { .. } => elements * self.dtype.size() as u64,
            Form::Packed { quantization, output_scale, .. } => {
                let Quantization { group_size, bits, mode } = quantization;
                let of_group = match mode {
                    QuantMode::Affine => 2 * self.dtype.size() as u64,
                    _ => 1,
                };
                elements * bits.unsigned_abs() as u64 / 8
                    + elements / group_size.unsigned_abs() as u64 * of_group
                    + 4 * output_scale as u64
            }
        }
    }

    /// Makes the layer, on all threads.
    ///
    /// # Errors
    /// [`ErrorKind::Format`] when a scale or bias does not fit the dtype.
    pub fn repack(&self) -> Result<Layer> {
        match &self.source {
            Source::Integers(source) => source.repack(self.form, self.dtype),
            Source::Nibbles(source) => Ok(source.repack(self.form, self.dtype)),
            Source::Bytes(source) => Ok(source.repack(self.form, self.dtype)),
        }
    }
}

impl fmt::Debug for Recipe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipe({:?}, {:?})", self.shape, self.form)
    }
}

/// Finds the method, which ModelOpt's own file does not name; `None` for MLX's own settings.
fn method_name(settings: &Settings<'_>) -> Result<Option<String>> {
    if let Some(method) = settings.text("quant_method")? {
        return Ok(Some(method.to_ascii_lowercase()));
    }
    let producer = settings.object("producer")?;
    let by_modelopt = match producer {
        Some(producer) => producer.text("name")? == Some("modelopt"),
        None => settings.text("quant_algo")?.is_some(),
    };
    Ok(by_modelopt.then(|| "modelopt".to_owned()))
}

/// Makes the error for a variant that is not read.
fn unsupported(what: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Unsupported, format!("quantization_config: {what} cannot be loaded"))
        .with_hint("use the unquantized checkpoint, or one quantized by mlx-lm")
        .with_hint(
            "AWQ (gemm), GPTQ, compressed-tensors, ModelOpt, fp8 and mxfp4 checkpoints can be loaded",
        )
}
