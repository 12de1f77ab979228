//! What there is to convert: tensors as mlx-lm names them, and which of them are layers.

use std::collections::{BTreeMap, BTreeSet};

use mlx_core::io::Checkpoint;
use mlx_core::{Dtype, QuantMode, Quantization, QuantizationConfig, Tensor, Weights, ops};

use crate::config::ModelConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::load::{Stored, in_model};
use crate::models::{self, Family, Protected};
use crate::rules::{self, Names};

/// The tensors of a model, none of them read.
pub(crate) struct Source {
    /// By the names, and in the shapes, that mlx-lm writes.
    pub(crate) tensors: BTreeMap<String, Tensor>,
    /// The layers whose weight can be packed, by their paths.
    pub(crate) layers: BTreeSet<String>,
    /// How layers are packed that are.
    pub(crate) packed: BTreeMap<String, Quantization>,
    /// What the family protects.
    pub(crate) protected: Protected,
    /// What floating tensors are to be, if not what they are.
    pub(crate) dtype: Option<Dtype>,
    /// Whether another program quantized them.
    pub(crate) is_foreign: bool,
    /// What the user should know.
    pub(crate) notes: Vec<String>,
}

impl Source {
    /// Takes the tensors of a checkpoint to be converted to `dtype`.
    ///
    /// # Errors
    /// When they do not fit the model, or it is of an unknown family and has no layers that are known by
    /// their names.
    pub(crate) fn new(
        checkpoint: &Checkpoint,
        config: &ModelConfig,
        dtype: Option<Dtype>,
    ) -> Result<Source> {
        let family = models::family(config);
        let of_family = |names: &Names| match &family {
            Ok(family) => (family.rules)(config, names),
            Err(_) => Vec::new(),
        };
        let stored = Stored::new(checkpoint, config, dtype, of_family)?;
        let shapes = stored.tensors.iter().map(|(name, t)| (name.clone(), t.shape().to_vec()));
        let rules = of_family(&shapes.collect());
        let quantization = stored.quantization.map(|config| in_model(&config, &rules));
        let mut source = Source {
            tensors: rules::apply(&rules, stored.tensors)?,
            layers: BTreeSet::new(),
            packed: BTreeMap::new(),
            protected: Protected::NOTHING,
            dtype: stored.dtype,
            is_foreign: stored.is_foreign,
            notes: stored.notes,
        };
        match family {
            Ok(family) => source.take_layers(family, config, quantization.as_ref())?,
            Err(unknown) => source.guess_layers(unknown, config, quantization.as_ref())?,
        }
        source.check_packed()?;
        Ok(source)
    }

    /// Builds the model of zeros that nobody computes, and sees which tensors became matrices: those are the
    /// linear layers, embeddings and stacks of mlx-lm, too.
    fn take_layers(
        &mut self,
        family: &Family,
        config: &ModelConfig,
        quantization: Option<&QuantizationConfig>,
    ) -> Result<()> {
        let layout = (family.layout)(config);
        let zeros = |(name, tensor): (&String, &Tensor)| {
            Ok((name.clone(), Tensor::from(ops::zeros(tensor.shape(), tensor.dtype())?)))
        };
        // Our layers do not know these.
        let known = self.tensors.iter().filter(|(name, _)| !name.ends_with(".global_scale"));
        let tensors: Vec<(String, Tensor)> = known.map(zeros).collect::<mlx_core::Result<_>>()?;
        let weights = Weights::from_tensors(rules::apply(&layout, tensors)?)
            .with_quantization(quantization.map(|config| in_model(config, &layout)));
        (family.build)(&weights, config)?;
        weights.finish()?;
        let matrices: BTreeMap<String, Option<Quantization>> = weights
            .matrices()
            .into_iter()
            .map(|matrix| (matrix.path, matrix.quantization))
            .collect();
        self.protected = family.protected;
        for path in self.weight_paths() {
            let becomes = rules::names(&layout, &format!("{path}.weight"));
            let paths = becomes.iter().filter_map(|name| name.strip_suffix(".weight"));
            let Some(found) = paths.into_iter().find_map(|path| matrices.get(path)) else {
                continue;
            };
            if rules::is_one_of(self.protected.dense, &path) {
                continue;
            }
            if let Some(quantization) = found {
                self.packed.insert(path.clone(), *quantization);
            }
            self.layers.insert(path);
        }
        Ok(())
    }

    /// Tells layers by the names that they have in most families; whatever chooses among experts stays as
    /// it is, since not every family has it as a layer.
    fn guess_layers(
        &mut self,
        unknown: Error,
        config: &ModelConfig,
        quantization: Option<&QuantizationConfig>,
    ) -> Result<()> {
        const LAYERS: [&str; 17] = [
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "qkv_proj",
            "out_proj",
            "gate_proj",
            "up_proj",
            "gate_up_proj",
            "down_proj",
            "w1",
            "w2",
            "w3",
            "fc1",
            "fc2",
            "embed_tokens",
            "lm_head",
        ];
        for path in self.weight_paths() {
            let is_known = path.rsplit('.').next().is_some_and(|name| LAYERS.contains(&name));
            let has_scales = self.tensors.contains_key(&format!("{path}.scales"));
            if !is_known && !has_scales {
                continue;
            }
            if has_scales {
                let declared = quantization.and_then(|config| config.of(&path));
                let declared = declared.filter(|_| !self.is_foreign);
                let Some(quantization) = self.infer(&path, declared) else {
                    let text = "packed in a format that its shapes do not tell";
                    return Err(Error::format(path, text));
                };
                self.packed.insert(path.clone(), quantization);
            }
            self.layers.insert(path);
        }
        if self.layers.is_empty() {
            return Err(unknown.with_hint("none of its layers is known by its name either"));
        }
        self.notes.push(format!(
            "model_type \"{}\" is unknown: {} layers are told by their names alone, and tensors keep \
             their names and shapes; look at the result before you rely on it",
            config.model_type,
            self.layers.len()
        ));
        Ok(())
    }

    /// Returns the declared format if shapes agree with it, else the only one that they can be of.
    fn infer(&self, path: &str, declared: Option<Quantization>) -> Option<Quantization> {
        let last = |part: &str| {
            let tensor = self.tensors.get(&format!("{path}.{part}"))?;
            tensor.shape().last().map(|&n| i64::from(n))
        };
        let (words, groups) = (last("weight")?, last("scales")?);
        let has_biases = self.tensors.contains_key(&format!("{path}.biases"));
        let fits = |q: &Quantization| {
            words * 32 == groups * i64::from(q.group_size) * i64::from(q.bits)
                && has_biases == (q.mode == QuantMode::Affine)
        };
        let modes = QuantMode::ALL.map(Quantization::of);
        declared.into_iter().chain(modes).find(fits)
    }

    fn weight_paths(&self) -> Vec<String> {
        let is_matrix = |tensor: &Tensor| tensor.shape().len() >= 2;
        let names = self.tensors.iter().filter(|(_, tensor)| is_matrix(tensor));
        names.filter_map(|(name, _)| Some(name.strip_suffix(".weight")?.to_owned())).collect()
    }

    /// Checks that parts of packed layers fit one another, so that nobody reads beyond one.
    fn check_packed(&self) -> Result<()> {
        for (path, quantization) in &self.packed {
            let shape = self.unpacked_shape(path, *quantization);
            let [words, scales] =
                ["weight", "scales"].map(|part| self.tensors.get(&format!("{path}.{part}")));
            let biases = self.tensors.get(&format!("{path}.biases"));
            let fits =
                shape.as_ref().zip(words).zip(scales).is_some_and(|((shape, words), scales)| {
                    let leading = shape.len() - 1;
                    let is_affine = quantization.mode == QuantMode::Affine;
                    words.dtype() == Dtype::Uint32
                        && scales.shape()[..]
                            == [&shape[..leading], &[shape[leading] / quantization.group_size]]
                                .concat()
                        && is_affine == scales.dtype().is_floating()
                        && is_affine == biases.is_some()
                        && biases.is_none_or(|b| {
                            (b.shape(), b.dtype()) == (scales.shape(), scales.dtype())
                        })
                });
            if !fits {
                let text = format!("its parts do not fit one another as {quantization}");
                return Err(Error::new(ErrorKind::Format, format!("{path}: {text}")));
            }
        }
        Ok(())
    }

    /// Returns the type of a layer's weights, of those that are packed, the one that they come back in.
    pub(crate) fn layer_dtype(&self, path: &str) -> Dtype {
        let dtype = |part: &str| self.tensors.get(&format!("{path}.{part}")).map(Tensor::dtype);
        let own = match self.packed.get(path) {
            None => dtype("weight"),
            Some(quantization) if quantization.mode == QuantMode::Affine => dtype("scales"),
            Some(_) => None,
        };
        own.unwrap_or(Dtype::Bfloat16)
    }

    /// Returns the shape of a packed layer's weight before it was packed.
    pub(super) fn unpacked_shape(
        &self,
        path: &str,
        quantization: Quantization,
    ) -> Option<Vec<i32>> {
        let words = self.tensors.get(&format!("{path}.weight"))?;
        let (last, leading) = words.shape().split_last()?;
        let bits = i64::from(*last) * 32;
        let columns = bits / i64::from(quantization.bits);
        let is_whole = columns * i64::from(quantization.bits) == bits
            && columns % i64::from(quantization.group_size) == 0;
        let columns = i32::try_from(columns).ok().filter(|_| is_whole)?;
        Some([leading, &[columns]].concat())
    }
}
