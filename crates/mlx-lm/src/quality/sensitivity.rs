//! How much each layer of a model suffers from few bits, and which bits to give it for that.
//!
//! One layer after the other is packed in few bits and unpacked, and the model predicts a text with it
//! in the layer's place; the Kullback–Leibler divergence from the model's own predictions is what
//! these bits cost there. What others cost follows from how far their weights are off, as the
//! divergence grows with the square of a small change. Costs of layers are taken to add up; so the
//! cheapest bits of a given size are found by giving, again and again, more bits to the layer that
//! gains most for them.
//!
//! After "dynamic" quantization of mlx-lm, which estimates costs from gradients, and HAWQ
//! (Dong et al., 2019, arXiv:1905.03696), whose costs are second derivatives times squared errors.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use mlx_core::kernels::{Arithmetic, PackedBytes, ScaleSearch, pack_rows, unpack_rows};
use mlx_core::{Array, Dtype, QuantMode, Quantization, Tensor, Weights};

use super::layers::squares;
use super::source;
use crate::config::ModelConfig;
use crate::convert::layer::{Layer, steps};
use crate::convert::plan::{Action, Plan, n_bytes};
use crate::convert::source::Source;
use crate::convert::{Decision, LayerInfo, QuantPredicate, check_quantization, declared_dtype};
use crate::divergence::{Reference, Run};
use crate::error::{Error, ErrorKind, Result};
use crate::files::ModelFiles;
use crate::load::Model;
use crate::models;
use crate::rules;

/// The bits that a layer may get.
const BITS: [i32; 6] = [2, 3, 4, 5, 6, 8];

/// The bits in which a layer's cost is measured.
const PROBE: i32 = 3;

/// About as many bytes of weights are packed at a time.
const CHUNK: usize = 16 << 20;

/// What [`Sensitivities::measure`] needs.
pub struct SensitivityArgs<'a> {
    /// The model, whose layers are dense.
    pub files: &'a ModelFiles,
    /// The tokens that it predicts; two or more.
    pub token_ids: &'a [u32],
    /// How many weights share a scale.
    pub group_size: i32,
    /// How scales are found.
    pub scale_search: ScaleSearch,
    /// The type of what is not quantized, as [`ConvertArgs::dtype`](crate::convert::ConvertArgs::dtype).
    pub dtype: Option<Dtype>,
    /// Is called with how many layers are measured, and how many there are; [`ControlFlow::Break`]
    /// ends it.
    pub progress: &'a mut dyn FnMut(usize, usize) -> ControlFlow<()>,
}

/// What bits cost in each layer of a model.
#[derive(Clone, Debug)]
pub struct Sensitivities {
    /// The layers that can be packed.
    pub layers: Vec<LayerSensitivity>,
    /// How many weights share a scale.
    pub group_size: i32,
    /// Weights of the whole model, counted before packing.
    pub n_parameters: u64,
    /// Bits of all that is in none of the layers.
    pub n_other_bits: u64,
}

/// What bits cost in one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerSensitivity {
    /// The layer, as mlx-lm names it.
    pub path: String,
    /// How many weights it has.
    pub n_weights: u64,
    /// Bits that scales and biases add to each of them.
    pub overhead: f64,
    /// The divergence that each number of bits costs, in nats, by the bits.
    pub costs: BTreeMap<i32, f64>,
}

impl Sensitivities {
    /// Measures a model.
    ///
    /// # Errors
    /// When it cannot be loaded, has no dense layer, the text is too short, or the caller ends it.
    pub fn measure(args: SensitivityArgs<'_>) -> Result<Sensitivities> {
        let SensitivityArgs {
            files, token_ids, group_size, scale_search: search, progress, ..
        } = args;
        check_quantization(Quantization { group_size, bits: PROBE, mode: QuantMode::Affine })?;
        let config = ModelConfig::load(files)?;
        let dtype = args.dtype.or_else(|| declared_dtype(&config.raw));
        let mut originals = source(files, &config, dtype)?;
        let dtype = originals.dtype;
        let paths = candidates(&originals, group_size);
        if paths.is_empty() {
            let text =
                "none of the layers is dense and of whole groups, so none can get other bits";
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
        let (n_parameters, n_other_bits) = count(&originals, &paths)?;
        let model = build(files, &config, dtype, None)?;
        let reference = Reference::new(exact(&model), token_ids)?;
        drop(model);
        let mut layers = Vec::with_capacity(paths.len());
        for (i, path) in paths.iter().enumerate() {
            if progress(i, paths.len()).is_break() {
                return Err(Error::new(ErrorKind::Cancelled, "ended while layers were measured"));
            }
            let weight = originals.tensors.get(&format!("{path}.weight"));
            let shape = weight.map(|weight| weight.shape().to_vec()).unwrap_or_default();
            let own = dtype.unwrap_or_else(|| originals.layer_dtype(path));
            let layer = originals.take_layer(path)?;
            let packing = LayerPacking { layer: &layer, dtype: own, group_size, search };
            let errors = packing.errors()?;
            let probe = Array::from_bytes(&packing.packed_and_unpacked(PROBE)?, &shape, own)?;
            drop(layer);
            let model = build(files, &config, dtype, Some((path, probe)))?;
            let kl = reference.divergence(exact(&model))?.mean_kl;
            let of_probe = errors.get(&PROBE).copied().unwrap_or(0.0);
            let cost = |error: f64| if of_probe > 0.0 { kl * error / of_probe } else { 0.0 };
            layers.push(LayerSensitivity {
                path: path.clone(),
                n_weights: shape.iter().map(|&n| u64::from(n.unsigned_abs())).product(),
                overhead: 16.0 * own.size() as f64 / f64::from(group_size),
                costs: errors.into_iter().map(|(bits, error)| (bits, cost(error))).collect(),
            });
        }
        Ok(Sensitivities { layers, group_size, n_parameters, n_other_bits })
    }

    /// Shares out bits so that the whole model has `target` bits per weight at most, scales included,
    /// and the sum of costs is as small as can be found.
    ///
    /// # Errors
    /// When even the fewest bits are more.
    pub fn assign(&self, target: f64) -> Result<Assignment> {
        let mut ladders: Vec<Ladder> = self.layers.iter().map(Ladder::new).collect();
        let n_least: f64 =
            ladders.iter().map(Ladder::n_bits).sum::<f64>() + self.n_other_bits as f64;
        let mut left = target * self.n_parameters as f64 - n_least;
        if left < 0.0 || !left.is_finite() {
            let least = n_least / self.n_parameters.max(1) as f64;
            let text =
                format!("{target} bits per weight: {least:.3} are the fewest for this model");
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
        while let Some(best) = ladders
            .iter_mut()
            .filter(|ladder| ladder.next().is_some_and(|step| step.n_bits <= left))
            .max_by(|a, b| a.gain().total_cmp(&b.gain()).then_with(|| b.path.cmp(a.path)))
        {
            left -= best.next().map_or(0.0, |step| step.n_bits);
            best.at += 1;
        }
        let group_size = self.group_size;
        let format = |bits| Quantization { group_size, bits, mode: QuantMode::Affine };
        let layers = ladders.iter().map(|l| (l.path.to_owned(), format(l.rungs[l.at].0)));
        let expected_kl = ladders.iter().map(|ladder| ladder.rungs[ladder.at].1).sum();
        Ok(Assignment { layers: layers.collect(), expected_kl })
    }
}

fn exact(model: &Model) -> Run<'_> {
    Run { model, arithmetic: Arithmetic::Exact }
}

/// The bits that each layer gets.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    /// By the layers' paths.
    pub layers: BTreeMap<String, Quantization>,
    /// The sum of what they cost, in nats.
    pub expected_kl: f64,
}

impl QuantPredicate for Assignment {
    fn decide(&mut self, layer: &LayerInfo<'_>) -> Result<Decision> {
        Ok(match self.layers.get(layer.path) {
            Some(&quantization) => Decision::Packed(quantization),
            None => layer.family,
        })
    }
}

/// The numbers of bits that pay for a layer, each with its cost: those on the lower convex hull, on
/// which every further bit gains less.
struct Ladder<'a> {
    path: &'a str,
    n_weights: f64,
    overhead: f64,
    rungs: Vec<(i32, f64)>,
    at: usize,
}

/// A step up a ladder.
struct Step {
    n_bits: f64,
    gain: f64,
}

impl Ladder<'_> {
    fn new(layer: &LayerSensitivity) -> Ladder<'_> {
        let mut rungs: Vec<(i32, f64)> = Vec::new();
        for (&bits, &cost) in &layer.costs {
            while let [.., a, b] = &rungs[..] {
                let slope = |a: (i32, f64), b: (i32, f64)| (b.1 - a.1) / f64::from(b.0 - a.0);
                if slope(*a, *b) <= slope(*b, (bits, cost)) {
                    break;
                }
                rungs.pop();
            }
            rungs.push((bits, cost));
        }
        Ladder {
            path: &layer.path,
            n_weights: layer.n_weights as f64,
            overhead: layer.overhead,
            rungs,
            at: 0,
        }
    }

    /// Returns the bits that the layer takes, scales and biases included.
    fn n_bits(&self) -> f64 {
        let bits = self.rungs.get(self.at).map_or(0, |rung| rung.0);
        self.n_weights * (f64::from(bits) + self.overhead)
    }

    fn next(&self) -> Option<Step> {
        let (from, to) = (self.rungs.get(self.at)?, self.rungs.get(self.at + 1)?);
        let n_bits = self.n_weights * f64::from(to.0 - from.0);
        Some(Step { n_bits, gain: (from.1 - to.1) / n_bits })
    }

    fn gain(&self) -> f64 {
        self.next().map_or(f64::NEG_INFINITY, |step| step.gain)
    }
}

/// Returns the layers that may get other bits: those that are dense now and in whole groups, but for
/// those that their family protects.
fn candidates(source: &Source, group_size: i32) -> Vec<String> {
    let fits = |path: &&String| {
        let weight = source.tensors.get(&format!("{path}.weight"));
        let columns = weight.and_then(|weight| weight.shape().last().copied()).unwrap_or(0);
        let is_float = weight.is_some_and(|weight| weight.dtype().is_floating());
        is_float
            && columns > 0
            && columns % group_size.max(1) == 0
            && !source.packed.contains_key(*path)
            && !rules::is_one_of(source.protected.routers, path)
    };
    source.layers.iter().filter(fits).cloned().collect()
}

/// Returns the weights of a model, and the bits of all that is in none of the layers `paths`.
fn count(source: &Source, paths: &[String]) -> Result<(u64, u64)> {
    let plan = Plan::new(source, Action::Keep, ScaleSearch::MinMax)?;
    let is_candidate = |name: &str| {
        let path = name.strip_suffix(".weight");
        path.is_some_and(|path| paths.iter().any(|candidate| candidate == path))
    };
    let others = plan.outputs.iter().filter(|(tensor, _)| !is_candidate(&tensor.name));
    Ok((plan.n_parameters, others.map(|(tensor, _)| 8 * n_bytes(tensor)).sum()))
}

/// Builds the model, with one layer's weight replaced.
fn build(
    files: &ModelFiles,
    config: &ModelConfig,
    dtype: Option<Dtype>,
    replaced: Option<(&str, Array)>,
) -> Result<Model> {
    let mut source = source(files, config, dtype)?;
    if let Some((path, weight)) = replaced {
        source.tensors.insert(format!("{path}.weight"), Tensor::from(weight));
    }
    let layout = (models::family(config)?.layout)(config);
    let quantization = config.quantization.as_ref();
    let weights = Weights::from_tensors(rules::apply(&layout, source.tensors)?)
        .with_quantization(quantization.map(|config| crate::load::in_model(config, &layout)))
        .with_dtype(source.dtype);
    Model::build(weights, config.clone())
}

/// A layer that is packed to see what comes of it.
struct LayerPacking<'a> {
    layer: &'a Layer,
    dtype: Dtype,
    group_size: i32,
    search: ScaleSearch,
}

impl LayerPacking<'_> {
    /// Returns the square of the relative error that each number of bits makes.
    fn errors(&self) -> Result<BTreeMap<i32, f64>> {
        let mut errors = BTreeMap::new();
        for bits in BITS {
            let (mut difference, mut norm) = (0.0, 0.0);
            for rows in self.steps() {
                let original = self.layer.floats(rows, Dtype::Float32)?;
                let unpacked = self.round_trip(&original, bits, [Dtype::Float32; 2])?;
                let (d, n) = squares(&original, &unpacked);
                difference += d;
                norm += n;
            }
            errors.insert(bits, if norm > 0.0 { difference / norm } else { 0.0 });
        }
        Ok(errors)
    }

    /// Returns all weights as they come back from so many bits.
    fn packed_and_unpacked(&self, bits: i32) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        for rows in self.steps() {
            let original = self.layer.floats(rows, self.dtype)?;
            all.extend(self.round_trip(&original, bits, [self.dtype; 2])?);
        }
        Ok(all)
    }

    fn round_trip(&self, rows: &[u8], bits: i32, types: [Dtype; 2]) -> Result<Vec<u8>> {
        let quantization =
            Quantization { group_size: self.group_size, bits, mode: QuantMode::Affine };
        let columns = self.layer.n_columns();
        let packed: PackedBytes = pack_rows(rows, columns, types, quantization, self.search)?;
        Ok(unpack_rows(&packed, columns, types[1], quantization)?)
    }

    fn steps(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        steps(self.layer.n_rows(), 4 * self.layer.n_columns(), CHUNK)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A model of layers, each with its weights and the cost of two bits; more bits cost a quarter each.
    fn model(layers: &[(u64, f64)]) -> Sensitivities {
        let costs = |cost: f64| BITS.map(|bits| (bits, cost * 0.25f64.powi(bits - 2))).into();
        let layers: Vec<LayerSensitivity> = layers
            .iter()
            .enumerate()
            .map(|(i, &(n_weights, cost))| LayerSensitivity {
                path: format!("layers.{i:02}"),
                n_weights,
                overhead: 0.5,
                costs: costs(cost),
            })
            .collect();
        let n_parameters = layers.iter().map(|layer| layer.n_weights).sum();
        Sensitivities { layers, group_size: 64, n_parameters, n_other_bits: 0 }
    }

    fn bits(assignment: &Assignment) -> Vec<i32> {
        assignment.layers.values().map(|quantization| quantization.bits).collect()
    }

    #[test]
    fn layers_that_suffer_get_more_bits() {
        let found = model(&[(100, 1.0), (100, 1e-3), (100, 1.0)]).assign(4.5).expect("enough");
        assert_eq!(bits(&found), [5, 2, 5]);
        // Alike layers get alike bits.
        let found = model(&[(100, 1.0); 3]).assign(4.5).expect("enough");
        assert_eq!(bits(&found), [4, 4, 4]);
        // No more than there are, no fewer.
        assert_eq!(bits(&model(&[(100, 1.0); 2]).assign(99.0).expect("enough")), [8, 8]);
        let error = model(&[(100, 1.0); 2]).assign(2.4).expect_err("too few").to_string();
        assert!(error.contains("2.500 are the fewest"), "{error}");
    }

    #[test]
    fn bits_that_do_not_pay_are_left_out() {
        let mut model = model(&[(100, 1.0)]);
        // Three bits are hardly better than two, four much.
        model.layers[0].costs = [(2, 1.0), (3, 0.99), (4, 0.1)].into();
        let ladder = Ladder::new(&model.layers[0]);
        assert_eq!(ladder.rungs, [(2, 1.0), (4, 0.1)]);
    }

    proptest! {
        /// The budget is kept, and nothing cheaper of the same size is found by taking a bit here for
        /// one there.
        #[test]
        fn budgets_are_kept_and_exchanges_gain_nothing(
            layers in prop::collection::vec((prop::sample::select(vec![64u64, 128]), 1e-6..1.0f64), 2..12),
            target in 2.5..9.0f64,
        ) {
            let model = model(&layers);
            let found = model.assign(target).expect("enough");
            let n_bits: f64 = model
                .layers
                .iter()
                .zip(bits(&found))
                .map(|(layer, bits)| layer.n_weights as f64 * (f64::from(bits) + 0.5))
                .sum();
            prop_assert!(n_bits <= target * model.n_parameters as f64 + 1e-6);
            let cost = |i: usize, bits: i32| model.layers[i].costs[&bits];
            let found: Vec<(String, i32)> =
                found.layers.iter().map(|(path, q)| (path.clone(), q.bits)).collect();
            let index = |path: &str| model.layers.iter().position(|l| l.path == path).expect("there");
            for (a, of_a) in &found {
                for (b, of_b) in &found {
                    let (i, j) = (index(a), index(b));
                    let up = BITS.iter().copied().find(|bits| bits > of_a);
                    let down = BITS.iter().copied().rev().find(|bits| bits < of_b);
                    let (Some(up), Some(down)) = (up, down) else { continue };
                    let same_size = model.layers[i].n_weights * (up - of_a) as u64
                        == model.layers[j].n_weights * (of_b - down) as u64;
                    if i != j && same_size {
                        let before = cost(i, *of_a) + cost(j, *of_b);
                        prop_assert!(cost(i, up) + cost(j, down) >= before * (1.0 - 1e-9));
                    }
                }
            }
        }
    }
}
