//! How far the weights of one model are from those of another, layer by layer.

use mlx_core::{Dtype, Quantization};

use super::source;
use crate::config::ModelConfig;
use crate::convert::layer::{Layer, steps};
use crate::error::Result;
use crate::files::ModelFiles;

/// About as many bytes of one model's weights are in memory at a time.
const CHUNK: usize = 16 << 20;

/// How far a layer's weights are from the reference's.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerError {
    /// The layer, as mlx-lm names it.
    pub path: String,
    /// How it is packed, if it is.
    pub quantization: Option<Quantization>,
    /// How many weights it has.
    pub n_weights: u64,
    /// The norm of the difference as a part of the norm of the reference's weights.
    pub relative_error: f64,
}

/// Returns the layers that differ, the farthest first, and what cannot be compared.
pub(super) fn errors(
    reference: &ModelFiles,
    other: &ModelFiles,
) -> Result<(Vec<LayerError>, Vec<String>)> {
    let open = |files: &ModelFiles| source(files, &ModelConfig::load(files)?, None);
    let (mut reference, mut other) = (open(reference)?, open(other)?);
    let paths: Vec<String> = reference.layers.intersection(&other.layers).cloned().collect();
    let n_alone = reference.layers.symmetric_difference(&other.layers).count();
    let mut notes = Vec::new();
    if n_alone > 0 {
        notes.push(format!("{n_alone} layers are in one of the models only"));
    }
    let mut errors = Vec::new();
    for path in paths {
        let layers = [reference.take_layer(&path)?, other.take_layer(&path)?];
        let [a, b] = &layers;
        if (a.n_rows(), a.n_columns()) != (b.n_rows(), b.n_columns()) {
            notes.push(format!("{path} is of another shape in the other model"));
            continue;
        }
        let relative_error = relative_error(&layers)?;
        if relative_error > 0.0 {
            let n_weights = a.n_rows() as u64 * a.n_columns() as u64;
            errors.push(LayerError {
                quantization: b.quantization(),
                path,
                n_weights,
                relative_error,
            });
        }
    }
    errors.sort_by(|a, b| b.relative_error.total_cmp(&a.relative_error));
    Ok((errors, notes))
}

fn relative_error([a, b]: &[Layer; 2]) -> Result<f64> {
    let (mut difference, mut norm) = (0.0, 0.0);
    for rows in steps(a.n_rows(), 4 * a.n_columns(), CHUNK) {
        let [a, b] = [a, b].map(|layer| layer.floats(rows.clone(), Dtype::Float32));
        let (d, n) = squares(&a?, &b?);
        difference += d;
        norm += n;
    }
    Ok(match norm > 0.0 {
        true => (difference / norm).sqrt(),
        // Nothing can be told in parts of zero.
        false => difference.sqrt(),
    })
}

/// Returns the sums of the squares of the differences and of the first numbers.
pub(super) fn squares(a: &[u8], b: &[u8]) -> (f64, f64) {
    let floats = |bytes: &[u8]| -> f32 { bytes.try_into().map_or(0.0, f32::from_le_bytes) };
    let (mut difference, mut norm) = (0.0, 0.0);
    // Short sums in float32, so that the loop is one of vectors and long sums lose nothing.
    for (a, b) in a.chunks(1024).zip(b.chunks(1024)) {
        let (mut d, mut n) = (0.0f32, 0.0f32);
        for (a, b) in a.chunks_exact(4).zip(b.chunks_exact(4)) {
            let (a, b) = (floats(a), floats(b));
            d += (a - b) * (a - b);
            n += a * a;
        }
        difference += f64::from(d);
        norm += f64::from(n);
    }
    (difference, norm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_are_summed() {
        let bytes =
            |numbers: &[f32]| -> Vec<u8> { numbers.iter().flat_map(|x| x.to_le_bytes()).collect() };
        let (a, b) = (bytes(&[1.0, 2.0, -3.0]), bytes(&[1.0, 2.5, -5.0]));
        assert_eq!(squares(&a, &b), (4.25, 14.0));
        // Sums of many are as exact as those of few.
        let (a, b) = (bytes(&[1.0; 100_000]), bytes(&[1.5; 100_000]));
        assert_eq!(squares(&a, &b), (25_000.0, 100_000.0));
    }
}
