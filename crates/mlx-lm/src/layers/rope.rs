//! Rotary position embeddings in the variants that configurations ask for.
//!
//! Formulas: linear and dynamic NTK scaling, Llama 3.1, YaRN (arXiv 2309.00071), LongRoPE
//! (arXiv 2402.13753), and Gemma 4's rotation of some pairs only. The wavelengths are computed with
//! arrays in float32, as mlx-lm does, so that both round alike.

use std::borrow::Cow;
use std::f32::consts::PI;

use mlx_core::{Array, Dtype, nn, ops};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result};

/// The settings of `rope_scaling`, or of transformers 5's `rope_parameters`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct RopeScaling(Map<String, Value>);

impl RopeScaling {
    fn kind(&self) -> &str {
        let name = |key: &str| self.0.get(key).and_then(Value::as_str);
        name("type").or_else(|| name("rope_type")).unwrap_or("default")
    }

    /// Returns the settings of layers of one type, where each type has its own.
    pub fn of(&self, layer_type: &str) -> Option<RopeScaling> {
        self.0.get(layer_type).and_then(Value::as_object).cloned().map(RopeScaling)
    }

    /// Returns the base, where `rope_parameters` holds it.
    pub fn rope_theta(&self) -> Option<f32> {
        self.get("rope_theta")
    }

    /// Sets a number that configurations keep elsewhere, where it is not here.
    pub fn or_insert(&mut self, key: &str, number: f32) {
        self.0.entry(key).or_insert_with(|| number.into());
    }

    /// Returns a number among the settings.
    pub fn get(&self, key: &str) -> Option<f32> {
        self.0.get(key).and_then(Value::as_f64).map(|x| x as f32)
    }

    /// Returns a number that there has to be.
    ///
    /// # Errors
    /// When it is not there.
    pub fn need(&self, key: &str) -> Result<f32> {
        self.get(key).ok_or_else(|| {
            let kind = self.kind();
            Error::format("rope_scaling", format!("\"{key}\" is missing, which \"{kind}\" needs"))
        })
    }
}

/// What a rotary embedding is made from.
#[derive(Clone, Debug)]
pub struct RopeArgs {
    /// Leading elements of each head that are rotated.
    pub dims: i32,
    /// Base of the frequencies.
    pub theta: f32,
    /// Pairs neighbours instead of halves.
    pub traditional: bool,
    /// The scaled variant, where there is one.
    pub scaling: Option<RopeScaling>,
    /// Tokens that the model was made for.
    pub max_position_embeddings: Option<usize>,
}

impl RopeArgs {
    /// Returns the rotation of so much of each head only.
    ///
    /// # Errors
    /// When the share is not one.
    pub fn partial(&self, share: f32) -> Result<RopeArgs> {
        if !(0.0..=1.0).contains(&share) {
            let text = format!("\"partial_rotary_factor\" is {share}");
            return Err(Error::format("config.json", text));
        }
        Ok(RopeArgs { dims: (self.dims as f32 * share) as i32, ..self.clone() })
    }
}

/// A rotary embedding.
#[derive(Clone, Debug)]
pub struct Rope {
    rope: nn::Rope,
    dynamic: Option<Dynamic>,
}

/// Dynamic NTK scaling: the base grows with the sequence.
#[derive(Clone, Debug)]
struct Dynamic {
    max_position_embeddings: i32,
    factor: f32,
}

impl Rope {
    /// Makes the variant that the settings name.
    ///
    /// # Errors
    /// When the variant is unknown or a setting of it is missing.
    pub fn new(args: &RopeArgs) -> Result<Rope> {
        let mut rope = nn::Rope::new(args.dims, args.theta);
        rope.traditional = args.traditional;
        let mut dynamic = None;
        let scaling = args.scaling.clone().unwrap_or_default();
        match scaling.kind() {
            "default" | "mrope" => {}
            "linear" => rope.scale = scaling.need("factor")?.recip(),
            "dynamic" => {
                let max = args.max_position_embeddings.and_then(|n| i32::try_from(n).ok());
                let max_position_embeddings = max.ok_or_else(|| {
                    Error::format("config.json", "\"max_position_embeddings\" is missing")
                })?;
                dynamic =
                    Some(Dynamic { max_position_embeddings, factor: scaling.need("factor")? });
            }
            "proportional" => rope.freqs = Some(proportional(args, &scaling)?),
            "llama3" => rope.freqs = Some(llama3(args, &scaling)?),
            "yarn" | "deepseek_yarn" | "telechat3-yarn" => {
                let (freqs, magnitude) = yarn(args, &scaling)?;
                (rope.freqs, rope.magnitude) = (Some(freqs), magnitude);
            }
            "longrope" | "su" => {
                let (freqs, magnitude) = longrope(args, &scaling)?;
                (rope.freqs, rope.magnitude) = (Some(freqs), magnitude);
            }
            kind => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("rope_scaling: \"{kind}\" is not supported"),
                ));
            }
        }
        Ok(Rope { rope, dynamic })
    }

    /// Returns the rotation for a sequence of so many tokens.
    pub fn at(&self, len: i32) -> Cow<'_, nn::Rope> {
        let Some(Dynamic { max_position_embeddings, factor }) = self.dynamic else {
            return Cow::Borrowed(&self.rope);
        };
        let len = len.max(max_position_embeddings) as f32;
        let dims = self.rope.dims as f32;
        let stretch = factor * len / max_position_embeddings as f32 - (factor - 1.0);
        let base = self.rope.base * stretch.powf(dims / (dims - 2.0));
        Cow::Owned(nn::Rope { base, ..self.rope.clone() })
    }
}

/// The wavelengths over 2π: `base ** (0, 2/dims, 4/dims, …)`.
fn wavelengths(args: &RopeArgs) -> Result<Array> {
    let exponents = ops::arange(0.0, f64::from(args.dims), 2.0, Dtype::Float32)?;
    Ok(ops::power(args.theta, (exponents / args.dims)?)?)
}

/// Of the pairs, which are those of the whole head, the first are rotated (Gemma 4).
fn proportional(args: &RopeArgs, scaling: &RopeScaling) -> Result<Array> {
    let share = scaling.get("partial_rotary_factor").unwrap_or(1.0);
    let n_rotated = (args.partial(share)?.dims + 1) / 2;
    let stretched = (wavelengths(args)? * scaling.get("factor").unwrap_or(1.0))?;
    let is_rotated = Array::range(stretched.dim(0)?)?.less(n_rotated)?;
    Ok(ops::where_(&is_rotated, &stretched, f32::INFINITY)?)
}

fn llama3(args: &RopeArgs, scaling: &RopeScaling) -> Result<Array> {
    let factor = scaling.need("factor")?;
    let low = scaling.get("low_freq_factor").unwrap_or(1.0);
    let high = scaling.get("high_freq_factor").unwrap_or(4.0);
    let context = scaling.get("original_max_position_embeddings").unwrap_or(8192.0);
    let (low_wavelen, high_wavelen) = (context / low, context / high);

    let freqs = wavelengths(args)?;
    let wavelens = (&freqs * (2.0 * PI))?;
    let is_low = wavelens.greater(low_wavelen)?;
    let stretched = ops::where_(&is_low, (&freqs * factor)?, &freqs)?;
    let is_medium = wavelens.greater(high_wavelen)?.logical_and(wavelens.less(low_wavelen)?)?;
    let smooth = ((ops::divide(context, &wavelens)? - low)? / (high - low))?;
    let divisor = (((1.0 - &smooth)? / factor)? + &smooth)?;
    Ok(ops::where_(&is_medium, (&stretched / divisor)?, &stretched)?)
}

fn yarn(args: &RopeArgs, scaling: &RopeScaling) -> Result<(Array, f32)> {
    let factor = scaling.need("factor")?;
    let context = scaling.get("original_max_position_embeddings").unwrap_or(4096.0);
    let dims = f64::from(args.dims);
    let correction_dim = |rotations: f32| {
        let turns = f64::from(context) / (f64::from(rotations) * 2.0 * std::f64::consts::PI);
        dims * turns.ln() / (2.0 * f64::from(args.theta).ln())
    };
    let (low, high) = (scaling.get("beta_fast"), scaling.get("beta_slow"));
    let (low, high) = (correction_dim(low.unwrap_or(32.0)), correction_dim(high.unwrap_or(1.0)));
    // OpenAI's code does not round, which gpt-oss's configurations say (mlx-lm rounds always).
    let is_rounded = scaling.0.get("truncate") != Some(&Value::Bool(false));
    let (low, high) = if is_rounded { (low.floor(), high.ceil()) } else { (low, high) };
    let (low, high) = (low.max(0.0), high.min(dims - 1.0));
    // Equal ends would divide by zero.
    let high = if low == high { high + 0.001 } else { high };
    let ramp = ops::arange(0.0, f64::from(args.dims / 2), 1.0, Dtype::Float32)?;
    let ramp = ((ramp - low as f32)? / (high - low) as f32)?;
    let ramp = ramp.clip(Some(&Array::from(0.0f32)), Some(&Array::from(1.0f32)))?;
    let mask = (1.0 - ramp)?;

    let plain = wavelengths(args)?;
    let stretched = (&plain * factor)?;
    let divisor = ((&stretched * &mask)? + (&plain * (1.0 - &mask)?))?;
    let freqs = ((&stretched * &plain)? / divisor)?;

    let magnitude = yarn_magnitude(factor, scaling.get("mscale").unwrap_or(1.0))
        / yarn_magnitude(factor, scaling.get("mscale_all_dim").unwrap_or(0.0));
    Ok((freqs, magnitude))
}

/// Returns the factor that keeps attention over `factor` times as many tokens sharp.
pub(super) fn yarn_magnitude(factor: f32, weight: f32) -> f32 {
    if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 }
}

fn longrope(args: &RopeArgs, scaling: &RopeScaling) -> Result<(Array, f32)> {
    let context = scaling.need("original_max_position_embeddings")?;
    let factors: Vec<f32> = match scaling.0.get("long_factor") {
        Some(Value::Array(factors)) => {
            factors.iter().filter_map(Value::as_f64).map(|x| x as f32).collect()
        }
        _ => vec![scaling.need("long_factor")?; args.dims as usize / 2],
    };
    if factors.len() != args.dims as usize / 2 {
        let (n, expected) = (factors.len(), args.dims / 2);
        return Err(Error::format(
            "rope_scaling",
            format!("\"long_factor\" has {n} numbers, expected {expected}"),
        ));
    }
    let factors = Array::from_slice(&factors, &[factors.len() as i32])?;
    let freqs = (factors * wavelengths(args)?)?;
    let factor = args.max_position_embeddings.unwrap_or(131_072) as f32 / context;
    let magnitude = scaling.get("long_mscale").unwrap_or_else(|| {
        if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / context.ln()).sqrt() }
    });
    Ok((freqs, magnitude))
}
