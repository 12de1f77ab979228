//! How tokens are chosen: flags, before the model's recommendation, before the defaults.

use mlx_lm::files::ModelFiles;
use mlx_lm::sample::Sampling;
use serde_json::Value;

use crate::error::CommandError;

/// Where the model recommends nothing, these are mlx-knife's.
const DEFAULT_TEMPERATURE: f32 = 0.7;
const DEFAULT_TOP_P: f32 = 0.9;
const DEFAULT_REPETITION_PENALTY: f32 = 1.1;

#[derive(clap::Args)]
pub(super) struct SamplingArgs {
    /// Spread of the choice of tokens; 0 takes the likeliest
    #[arg(long, value_name = "X", value_parser = at_least_zero)]
    temperature: Option<f32>,

    /// Choose among the likeliest tokens that together have this probability
    #[arg(long, value_name = "P", value_parser = probability)]
    top_p: Option<f32>,

    /// Choose among this many of the likeliest tokens; 0 is all
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,

    /// Choose among tokens at least this likely, relative to the likeliest
    #[arg(long, value_name = "P", value_parser = probability)]
    min_p: Option<f32>,

    /// Make tokens less likely that occurred lately; 1 is off
    #[arg(long, value_name = "X", value_parser = at_least_zero)]
    repetition_penalty: Option<f32>,

    /// Make the choice repeatable
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
}

impl SamplingArgs {
    pub(super) fn resolve(&self, files: &ModelFiles) -> Result<Sampling, CommandError> {
        let recommended = files.read_json("generation_config.json")?.unwrap_or(Value::Null);
        let mut sampling = recommendation(&recommended);
        let set = |value: &mut f32, flag: Option<f32>| *value = flag.unwrap_or(*value);
        set(&mut sampling.temperature, self.temperature);
        set(&mut sampling.top_p, self.top_p);
        set(&mut sampling.min_p, self.min_p);
        set(&mut sampling.repetition_penalty, self.repetition_penalty);
        sampling.top_k = self.top_k.unwrap_or(sampling.top_k);
        Ok(sampling)
    }
}

/// Reads generation_config.json. One that says anything about sampling is taken whole: what it
/// does not name is off, except for the temperature.
fn recommendation(config: &Value) -> Sampling {
    let number = |name: &str| config[name].as_f64().map(|value| value as f32);
    if config["do_sample"] == false {
        return Sampling::default();
    }
    const NAMES: [&str; 5] = ["temperature", "top_p", "top_k", "min_p", "repetition_penalty"];
    if NAMES.iter().all(|name| number(name).is_none()) {
        return Sampling {
            temperature: DEFAULT_TEMPERATURE,
            top_p: DEFAULT_TOP_P,
            repetition_penalty: DEFAULT_REPETITION_PENALTY,
            ..Sampling::default()
        };
    }
    Sampling {
        temperature: number("temperature").unwrap_or(DEFAULT_TEMPERATURE),
        top_p: number("top_p").unwrap_or(0.0),
        top_k: config["top_k"].as_u64().unwrap_or(0) as usize,
        min_p: number("min_p").unwrap_or(0.0),
        repetition_penalty: number("repetition_penalty").unwrap_or(0.0),
        ..Sampling::default()
    }
}

fn at_least_zero(text: &str) -> Result<f32, String> {
    let value: f32 = text.parse().map_err(|_| "not a number".to_owned())?;
    let valid = value.is_finite() && value >= 0.0;
    valid.then_some(value).ok_or_else(|| "not a number from 0 on".to_owned())
}

fn probability(text: &str) -> Result<f32, String> {
    let value: f32 = text.parse().map_err(|_| "not a number".to_owned())?;
    (0.0..=1.0).contains(&value).then_some(value).ok_or_else(|| "not in 0..=1".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn recommendations_are_taken_whole() {
        let off = Sampling::default();
        let defaults = Sampling {
            temperature: 0.7,
            top_p: 0.9,
            repetition_penalty: 1.1,
            ..Sampling::default()
        };
        let qwen = Sampling { temperature: 0.6, top_p: 0.95, top_k: 20, ..Sampling::default() };
        for (config, expected) in [
            (Value::Null, &defaults),
            (json!({"do_sample": true, "eos_token_id": 2}), &defaults),
            (json!({"do_sample": false, "temperature": 0.6}), &off),
            (json!({"do_sample": true, "temperature": 0.6, "top_p": 0.95, "top_k": 20}), &qwen),
            (json!({"top_p": 0.5}), &Sampling { temperature: 0.7, top_p: 0.5, ..off.clone() }),
        ] {
            assert_eq!(&recommendation(&config), expected, "{config}");
        }
    }

    #[test]
    fn numbers_are_checked() {
        assert_eq!(at_least_zero("0.5"), Ok(0.5));
        assert_eq!(probability("1"), Ok(1.0));
        for text in ["-0.1", "nan", "inf", "x", ""] {
            assert!(at_least_zero(text).is_err(), "{text}");
            assert!(probability(text).is_err(), "{text}");
        }
        assert!(probability("1.1").is_err());
    }
}
