//! From a model's files to a model.

mod foreign;
mod tensors;

pub use tensors::{StoredTensor, tensors};

use mlx_core::io::{Checkpoint, SafetensorsFile};
use mlx_core::{Dtype, QuantizationConfig, Tensor, Weights};
use serde_json::Value;

use crate::config::ModelConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::files::ModelFiles;
use crate::models::{self, Family, LanguageModel};
use crate::rules::{self, Names, Rule};
use crate::tokenizer::{Tokenizer, TokenizerOptions};

/// How to load.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Converts floating weights; `None` keeps what the checkpoint has.
    pub dtype: Option<Dtype>,
}

/// A model with its configuration.
pub struct Model {
    model: Box<dyn LanguageModel>,
    config: ModelConfig,
    n_parameters: u64,
    weight_bytes: u64,
    active_bytes: u64,
}

/// A model with its tokenizer.
pub struct Loaded {
    /// The model.
    pub model: Model,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// What the user should know: disagreements in the files that did not keep the model from
    /// loading, and what became of weights that another program quantized.
    pub notes: Vec<String>,
}

/// Loads a model and its tokenizer.
///
/// # Errors
/// When a file is missing or broken, the architecture is unknown, or the weights do not fit it.
pub fn load(files: &ModelFiles, options: &LoadOptions) -> Result<Loaded> {
    // Small files first: what can be wrong with them is told before gigabytes are mapped.
    let config = ModelConfig::load(files)?;
    models::family(&config)?;
    let eos_token_ids = config.eos_token_ids.iter().copied().collect();
    let tokenizer = Tokenizer::load_with(
        files,
        TokenizerOptions { eos_token_ids: Some(eos_token_ids), ..TokenizerOptions::default() },
    )?;
    let (model, mut notes) = Model::load_with(files, config, options)?;
    notes.extend_from_slice(tokenizer.notes());
    Ok(Loaded { model, tokenizer, notes })
}

impl Model {
    /// Loads a model without a tokenizer, and returns what the user should know.
    ///
    /// # Errors
    /// As [`load`].
    pub fn load(files: &ModelFiles, options: &LoadOptions) -> Result<(Model, Vec<String>)> {
        Model::load_with(files, ModelConfig::load(files)?, options)
    }

    fn load_with(
        files: &ModelFiles,
        config: ModelConfig,
        options: &LoadOptions,
    ) -> Result<(Model, Vec<String>)> {
        let family = models::family(&config)?;
        let checkpoint = open_checkpoint(files)?;
        let rules = |names: &Names| family_rules(family, names, &config);
        let Stored { tensors, quantization, dtype, notes, .. } =
            Stored::new(&checkpoint, &config, options.dtype, rules)?;
        let names = tensors.iter().map(|(name, t)| (name.clone(), t.shape().to_vec())).collect();
        let rules = rules(&names);
        let weights = Weights::from_tensors(rules::apply(&rules, tensors)?)
            .with_quantization(quantization.map(|q| in_model(&q, &rules)))
            .with_dtype(dtype);
        Ok((Model::build(weights, config)?, notes))
    }

    /// Makes a model of a given configuration with random weights, packed where the configuration
    /// says so: to measure a shape without its checkpoint.
    ///
    /// # Errors
    /// When the configuration is broken or the architecture unknown.
    pub fn random(config: &Value, dtype: Option<Dtype>, seed: u64) -> Result<Model> {
        let config = ModelConfig::from_json(config.clone())?;
        let dtype = dtype.or_else(|| config.dtype());
        let dtype = dtype.filter(|dtype| dtype.is_floating()).unwrap_or(Dtype::Bfloat16);
        let weights = Weights::random(seed, dtype, config.quantization.clone())?;
        Model::build(weights, config)
    }

    /// Makes a model of weights that are called as its layers have them.
    pub(crate) fn build(weights: Weights, config: ModelConfig) -> Result<Model> {
        let model = (models::family(&config)?.build)(&weights, &config)?;
        weights.finish()?;
        Ok(Model {
            model,
            config,
            n_parameters: weights.n_parameters(),
            weight_bytes: weights.n_bytes(),
            active_bytes: weights.n_active_bytes(),
        })
    }

    /// Returns the configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Returns the number of weights, counted before packing.
    pub fn n_parameters(&self) -> u64 {
        self.n_parameters
    }

    /// Returns the size of the weights in bytes.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// Returns how many of them are read to generate one token: of experts those that are chosen, and of
    /// an embedding that is not the head as well, a row.
    pub fn active_bytes(&self) -> u64 {
        self.active_bytes
    }
}

impl std::ops::Deref for Model {
    type Target = dyn LanguageModel;

    fn deref(&self) -> &Self::Target {
        self.model.as_ref()
    }
}

impl std::ops::DerefMut for Model {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.model.as_mut()
    }
}

/// The tensors of a checkpoint, those that another program quantized as MLX would have them.
pub(crate) struct Stored {
    pub(crate) tensors: Vec<(String, Tensor)>,
    /// How layers that have scales are packed.
    pub(crate) quantization: Option<QuantizationConfig>,
    /// What floating tensors are to be, if not what they are.
    pub(crate) dtype: Option<Dtype>,
    /// Whether another program quantized them.
    pub(crate) is_foreign: bool,
    /// What the user should know.
    pub(crate) notes: Vec<String>,
}

impl Stored {
    /// Takes the tensors of a checkpoint; `rules` are those by which some are left out.
    pub(crate) fn new(
        checkpoint: &Checkpoint,
        config: &ModelConfig,
        dtype: Option<Dtype>,
        rules: impl Fn(&Names) -> Vec<Rule>,
    ) -> Result<Stored> {
        let mut notes: Vec<String> = checkpoint.report().iter().map(ToString::to_string).collect();
        let rules = rules(&names_of(checkpoint));
        let drops = |name: &str| rules::names(&rules, name).is_empty();
        let foreign = match &config.foreign {
            Some(format) => foreign::tensors(checkpoint, config, format, dtype, drops)?,
            None => None,
        };
        let Some(foreign) = foreign else {
            let (tensors, quantization) = (stored(checkpoint), config.quantization.clone());
            return Ok(Stored { tensors, quantization, dtype, is_foreign: false, notes });
        };
        notes.extend(foreign.messages);
        Ok(Stored {
            tensors: foreign.tensors,
            // Every layer with scales is packed; how is read off its shapes.
            quantization: Some(QuantizationConfig::default()),
            dtype: Some(foreign.dtype),
            is_foreign: true,
            notes,
        })
    }
}

/// Returns the rules from tensors of these names to those of our layers.
pub(crate) fn family_rules(family: &Family, names: &Names, config: &ModelConfig) -> Vec<Rule> {
    [(family.rules)(config, names), (family.layout)(config)].concat()
}

fn names_of(checkpoint: &Checkpoint) -> Names {
    checkpoint.tensors().map(|(name, _, info)| (name.to_owned(), info.shape.clone())).collect()
}

/// Returns a quantization with its layers called as the model has them.
pub(crate) fn in_model(quantization: &QuantizationConfig, rules: &[Rule]) -> QuantizationConfig {
    let mut renamed = QuantizationConfig { default: quantization.default, layers: [].into() };
    for (path, format) in &quantization.layers {
        for name in rules::names(rules, &format!("{path}.weight")) {
            let path = name.strip_suffix(".weight").unwrap_or(&name);
            renamed.layers.insert(path.to_owned(), *format);
        }
    }
    renamed
}

fn stored(checkpoint: &Checkpoint) -> Vec<(String, Tensor)> {
    let names = checkpoint.tensors().map(|(name, ..)| name);
    names.filter_map(|name| Some((name.to_owned(), Tensor::stored(checkpoint, name)?))).collect()
}

pub(crate) fn open_checkpoint(files: &ModelFiles) -> Result<Checkpoint> {
    if let Some(root) = files.root() {
        return Ok(Checkpoint::open_dir(root)?);
    }
    let names = files.list().into_iter().filter(|name| name.ends_with(".safetensors"));
    let embedded = names.filter_map(|name| Some((files.embedded_bytes(&name)?, name)));
    let shards: Vec<SafetensorsFile> = embedded
        .map(|(bytes, name)| SafetensorsFile::from_static(name, bytes))
        .collect::<mlx_core::Result<_>>()?;
    if shards.is_empty() {
        return Err(Error::new(ErrorKind::NotFound, format!("{}: no weights", files.name())));
    }
    Ok(Checkpoint::from_files(shards)?)
}
