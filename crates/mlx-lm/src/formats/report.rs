//! What to tell the user of a checkpoint that another program quantized.

use std::collections::BTreeMap;

use mlx_core::Dtype;

use super::{ForeignFormat, Form, Recipe};

/// What became of the layers of a checkpoint.
#[derive(Clone, Debug)]
pub struct Report {
    name: String,
    dtype: Dtype,
    /// Layers by the format that they run in.
    packed: BTreeMap<String, usize>,
    /// Layers by the reason for which they were dequantized.
    dense: BTreeMap<&'static str, Dense>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Dense {
    layers: usize,
    stored_bytes: u64,
    made_bytes: u64,
}

impl Report {
    /// Makes a report of no layers; `dtype` is that of dequantized ones.
    pub fn new(format: &ForeignFormat, dtype: Dtype) -> Report {
        Report { name: format.name(), dtype, packed: BTreeMap::new(), dense: BTreeMap::new() }
    }

    /// Adds a layer.
    pub fn add(&mut self, recipe: &Recipe<'_>) {
        match recipe.form() {
            Form::Packed { quantization, .. } => {
                *self.packed.entry(quantization.to_string()).or_default() += 1;
            }
            Form::Dense { reason } => {
                let dense = self.dense.entry(reason).or_default();
                dense.layers += 1;
                dense.stored_bytes += recipe.stored_bytes();
                dense.made_bytes += recipe.made_bytes();
            }
        }
    }

    /// Returns a sentence for each thing that layers became, such as `AWQ 4-bit, groups of 128:
    /// runs as affine 4-bit, groups of 128`.
    pub fn messages(&self) -> Vec<String> {
        let Report { name, dtype, packed, dense } = self;
        let alone = packed.len() + dense.len() == 1;
        let layers = |n: usize| match n {
            _ if alone => String::new(),
            1 => "1 layer ".to_owned(),
            n => format!("{n} layers "),
        };
        let packed = packed.iter().map(|(quantization, &n)| {
            let run = if alone || n == 1 { "runs" } else { "run" };
            format!("{name}: {}{run} as {quantization}", layers(n))
        });
        let dense = dense.iter().map(|(reason, of)| {
            let (made, stored) = (size(of.made_bytes), size(of.stored_bytes));
            format!(
                "{name}: {}dequantized to {dtype}, {made} instead of {stored}, because {reason}",
                layers(of.layers)
            )
        });
        packed.chain(dense).collect()
    }
}

/// Writes a size in the unit in which it has one to three digits before the point.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    let mut number = bytes as f64 / 1e3;
    let mut unit = 0;
    while number >= 999.95 && unit + 1 < UNITS.len() {
        number /= 1e3;
        unit += 1;
    }
    format!("{number:.1} {}", UNITS[unit])
}
