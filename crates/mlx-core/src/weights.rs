//! Weights: the tensors of a checkpoint on their way into layers.
//!
//! A [`Weights`] is a shared store and a path, so that a model names only the last part of a
//! tensor: `w.linear("q_proj", dims, dims, bias)`. Layers take what they need; the store checks
//! shapes, sees `.scales`, and remembers everything that was wrong. [`Weights::finish`] then
//! reports *all* of it: missing, unexpected and mismatched tensors. A model that did not take
//! every tensor exactly is an error, never random weights.

mod tensor;

pub use tensor::Tensor;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::io::Checkpoint;
use crate::nn::{Embedding, LayerNorm, Linear, MultiLinear, Param, RmsNorm, WeightMatrix};
use crate::nn::{SwitchActivation, SwitchGlu, SwitchLinear, SwitchMlp};
use crate::ops::{self, Packed};
use crate::quantization::{QuantMode, Quantization, QuantizationConfig};
use crate::random;

/// A tensor that has another shape than the layer needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Full name.
    pub name: String,
    /// What the layer needs, in words or as a shape.
    pub expected: String,
    /// What is there.
    pub found: String,
}

/// Everything that was wrong with a set of weights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WeightsReport {
    /// Tensors that a layer needs and that are not there.
    pub missing: Vec<String>,
    /// Tensors that no layer took.
    pub unexpected: Vec<String>,
    /// Tensors of another shape or dtype than the layer needs.
    pub mismatched: Vec<Mismatch>,
}

impl WeightsReport {
    pub(crate) fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.mismatched.is_empty()
    }
}

impl fmt::Display for WeightsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (self.missing.len(), "missing"),
            (self.unexpected.len(), "unexpected"),
            (self.mismatched.len(), "mismatched"),
        ];
        let counts: Vec<String> =
            counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        write!(f, "weights do not fit the model: {}", counts.join(", "))?;
        for name in &self.missing {
            write!(f, "\n  missing     {name}")?;
        }
        for name in &self.unexpected {
            write!(f, "\n  unexpected  {name}")?;
        }
        for Mismatch { name, expected, found } in &self.mismatched {
            write!(f, "\n  mismatched  {name}: expected {expected}, found {found}")?;
        }
        Ok(())
    }
}

enum Source {
    Tensors(BTreeMap<String, Tensor>),
    /// Makes whatever is asked for.
    Random {
        dtype: Dtype,
        key: Array,
    },
}

/// A weight matrix, or a stack of them, that a layer took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenMatrix {
    /// The path of the layer, whose tensors are `.weight` and, if it is packed, `.scales`.
    pub path: String,
    /// The shape before packing, `[…, D, E]`.
    pub shape: Vec<i32>,
    /// How it is packed, if it is.
    pub quantization: Option<Quantization>,
}

struct Store {
    source: RefCell<Source>,
    quantization: Option<QuantizationConfig>,
    cast: Option<Dtype>,
    report: RefCell<WeightsReport>,
    matrices: RefCell<Vec<TakenMatrix>>,
    n_parameters: Cell<u64>,
    n_bytes: Cell<u64>,
    /// Bytes of tensors that one token does not read.
    n_idle_bytes: Cell<u64>,
}

impl Store {
    fn count(&self, n_parameters: usize, arrays: &[&Array]) {
        let bytes: usize = arrays.iter().map(|array| array.nbytes()).sum();
        self.n_parameters.set(self.n_parameters.get() + n_parameters as u64);
        self.n_bytes.set(self.n_bytes.get() + bytes as u64);
    }
}

/// The tensors below one path of a checkpoint.
///
/// ```
/// use mlx_core::{Array, Weights};
///
/// # fn main() -> mlx_core::Result<()> {
/// let weight = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3])?;
/// let weights = Weights::from_arrays([("mlp.up_proj.weight".to_owned(), weight)]);
/// let up_proj = weights.at("mlp").linear("up_proj", 3, 2, false)?;
/// weights.finish()?;
/// let y = up_proj.forward(&Array::from_slice(&[1.0f32, 0.0, 1.0], &[1, 3])?)?;
/// assert_eq!(y.to_vec::<f32>()?, [4.0, 10.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Weights {
    store: Rc<Store>,
    path: String,
}

impl Weights {
    fn new(source: Source, quantization: Option<QuantizationConfig>) -> Weights {
        let store = Store {
            source: RefCell::new(source),
            quantization,
            cast: None,
            report: RefCell::default(),
            matrices: RefCell::default(),
            n_parameters: Cell::default(),
            n_bytes: Cell::default(),
            n_idle_bytes: Cell::default(),
        };
        Weights { store: Rc::new(store), path: String::new() }
    }

    /// Takes named arrays.
    pub fn from_arrays(arrays: impl IntoIterator<Item = (String, Array)>) -> Weights {
        Weights::from_tensors(arrays.into_iter().map(|(name, array)| (name, array.into())))
    }

    /// Takes named tensors, making none of them yet.
    pub fn from_tensors(tensors: impl IntoIterator<Item = (String, Tensor)>) -> Weights {
        Weights::new(Source::Tensors(tensors.into_iter().collect()), None)
    }

    /// Takes the tensors of a checkpoint, reading none of them yet. `rename` gives the name that
    /// the model uses, or `None` for a tensor that it does not want.
    pub fn from_checkpoint(
        checkpoint: &Checkpoint,
        mut rename: impl FnMut(&str) -> Option<String>,
    ) -> Weights {
        let tensors = checkpoint
            .tensors()
            .filter_map(|(name, ..)| Some((rename(name)?, Tensor::stored(checkpoint, name)?)));
        Weights::from_tensors(tensors)
    }

    /// Makes random weights of whatever shape a layer asks for, packed as `quantization` says: to
    /// measure a model's shape without its checkpoint.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn random(
        seed: u64,
        dtype: Dtype,
        quantization: Option<QuantizationConfig>,
    ) -> Result<Weights> {
        Ok(Weights::new(Source::Random { dtype, key: random::key(seed)? }, quantization))
    }

    /// Sets how layers that have `.scales` are packed.
    #[must_use]
    pub fn with_quantization(self, quantization: Option<QuantizationConfig>) -> Weights {
        self.change(|store| store.quantization = quantization)
    }

    /// Converts floating tensors as they are taken.
    #[must_use]
    pub fn with_dtype(self, dtype: Option<Dtype>) -> Weights {
        self.change(|store| store.cast = dtype)
    }

    fn change(mut self, f: impl FnOnce(&mut Store)) -> Weights {
        if let Some(store) = Rc::get_mut(&mut self.store) {
            f(store);
        }
        self
    }

    /// Returns the weights below `name`.
    pub fn at(&self, name: impl fmt::Display) -> Weights {
        Weights { store: Rc::clone(&self.store), path: self.full_name(name) }
    }

    /// Returns the path, such as `model.layers.3`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Tells whether there is a tensor of this name below the path.
    pub fn contains(&self, name: &str) -> bool {
        match &*self.store.source.borrow() {
            Source::Tensors(tensors) => tensors.contains_key(&self.full_name(name)),
            Source::Random { .. } => false,
        }
    }

    fn full_name(&self, name: impl fmt::Display) -> String {
        if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) }
    }

    /// Takes a tensor of a given shape.
    ///
    /// A missing or wrongly shaped one is remembered for [`Weights::finish`], and zeros stand in
    /// for it.
    ///
    /// # Errors
    /// When the tensor cannot be read.
    pub fn array(&self, name: &str, shape: &[i32]) -> Result<Array> {
        let array = self.uncounted_array(name, shape)?;
        self.store.count(array.size(), &[&array]);
        Ok(array)
    }

    /// Takes a parameter of a given shape, as [`Weights::array`] does.
    ///
    /// # Errors
    /// When the tensor cannot be read.
    pub fn param(&self, name: &str, shape: &[i32]) -> Result<Param> {
        self.array(name, shape).map(Param::from)
    }

    /// Takes a parameter that is float32 whatever the others are: a narrower type would lose what it
    /// is for, such as small differences between experts.
    ///
    /// # Errors
    /// When the tensor cannot be read.
    pub fn param_in_float32(&self, name: &str, shape: &[i32]) -> Result<Param> {
        let array = self.uncast_array(name, shape)?.astype(Dtype::Float32)?;
        self.store.count(array.size(), &[&array]);
        Ok(array.into())
    }

    fn uncounted_array(&self, name: &str, shape: &[i32]) -> Result<Array> {
        self.cast(self.uncast_array(name, shape)?)
    }

    fn uncast_array(&self, name: &str, shape: &[i32]) -> Result<Array> {
        if let Source::Random { dtype, key } = &mut *self.store.source.borrow_mut() {
            return random_array(shape, *dtype, key);
        }
        match self.take(name) {
            None => Ok(self.missing(name, shape)),
            Some(tensor) if tensor.shape() != shape => {
                self.mismatched(name, format!("{shape:?}"), &tensor);
                Ok(stand_in(shape))
            }
            Some(tensor) => tensor.into_array(),
        }
    }

    fn cast(&self, array: Array) -> Result<Array> {
        match self.store.cast {
            Some(dtype) if array.dtype().is_floating() => array.astype(dtype),
            _ => Ok(array),
        }
    }

    fn take(&self, name: &str) -> Option<Tensor> {
        match &mut *self.store.source.borrow_mut() {
            Source::Tensors(tensors) => tensors.remove(&self.full_name(name)),
            Source::Random { .. } => None,
        }
    }

    fn missing(&self, name: &str, shape: &[i32]) -> Array {
        self.store.report.borrow_mut().missing.push(self.full_name(name));
        stand_in(shape)
    }

    fn mismatched(&self, name: &str, expected: String, tensor: &Tensor) {
        let found = format!("{:?} of {}", tensor.shape(), tensor.dtype());
        let name = self.full_name(name);
        self.store.report.borrow_mut().mismatched.push(Mismatch { name, expected, found });
    }

    /// Takes a weight matrix, packed or not.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn matrix(&self, name: &str, input_dims: i32, output_dims: i32) -> Result<WeightMatrix> {
        self.stack(name, input_dims, &[output_dims])
    }

    /// Takes a weight of shape `[rows…, input_dims]`, packed or not.
    fn stack(&self, name: &str, input_dims: i32, rows: &[i32]) -> Result<WeightMatrix> {
        let at = self.at(name);
        if matches!(&*self.store.source.borrow(), Source::Random { .. }) {
            return at.random_matrix(input_dims, rows);
        }
        let packed = at.contains("scales");
        let shape = [rows, &[input_dims]].concat();
        let matrix = match &self.store.quantization {
            Some(config) if packed && config.of(&at.path).is_some() => at.packed(input_dims, rows),
            _ => Ok(WeightMatrix::Dense(at.param("weight", &shape)?)),
        }?;
        let quantization = match &matrix {
            WeightMatrix::Packed(packed) => Some(packed.quantization),
            WeightMatrix::Dense(_) => None,
        };
        let taken = TakenMatrix { path: at.path, shape, quantization };
        self.store.matrices.borrow_mut().push(taken);
        Ok(matrix)
    }

    /// Reads the format off the shapes, as mlx-lm does: a config's global numbers need not hold
    /// for every layer.
    fn packed(&self, input_dims: i32, rows: &[i32]) -> Result<WeightMatrix> {
        let dense = || WeightMatrix::Dense(stand_in(&[rows, &[input_dims]].concat()).into());
        let (Some(weight), Some(scales)) = (self.take("weight"), self.take("scales")) else {
            self.store.report.borrow_mut().missing.push(self.full_name("weight"));
            self.take("biases");
            return Ok(dense());
        };
        let last = |tensor: &Tensor| tensor.shape().last().copied().unwrap_or(0);
        let declared = self.store.quantization.as_ref().and_then(|config| config.of(&self.path));
        let Some(quantization) =
            infer(input_dims, last(&weight), last(&scales), scales.dtype(), declared)
        else {
            let expected = format!("a packed weight for {input_dims} inputs");
            self.mismatched("weight", expected, &weight);
            self.take("biases");
            return Ok(dense());
        };
        let Quantization { group_size, bits, mode } = quantization;
        let words = input_dims / 32 * bits + input_dims % 32 * bits / 32;
        let packed_shape = [rows, &[words]].concat();
        let scales_shape = [rows, &[input_dims / group_size]].concat();
        for (name, tensor, shape) in
            [("weight", &weight, &packed_shape), ("scales", &scales, &scales_shape)]
        {
            if tensor.shape() != shape {
                self.mismatched(name, format!("{shape:?} ({quantization})"), tensor);
                self.take("biases");
                return Ok(dense());
            }
        }
        if weight.dtype() != Dtype::Uint32 {
            self.mismatched("weight", "uint32".to_owned(), &weight);
            self.take("biases");
            return Ok(dense());
        }
        let biases = match mode {
            QuantMode::Affine => Some(self.uncounted_array("biases", &scales_shape)?),
            _ => None,
        };
        let scales = scales.into_array()?;
        let scales = if mode == QuantMode::Affine { self.cast(scales)? } else { scales };
        let weight = weight.into_array()?;
        Ok(self.counted(Packed { weight, scales, biases, quantization }))
    }

    fn counted(&self, packed: Packed) -> WeightMatrix {
        let Packed { weight, scales, biases, quantization } = &packed;
        let n_parameters = weight.size() * 32 / quantization.bits.max(1) as usize;
        let arrays: Vec<&Array> = [weight, scales].into_iter().chain(biases).collect();
        self.store.count(n_parameters, &arrays);
        WeightMatrix::Packed(packed)
    }

    fn random_matrix(&self, input_dims: i32, rows: &[i32]) -> Result<WeightMatrix> {
        let quantization = self.store.quantization.as_ref().and_then(|c| c.of(&self.path));
        let Some(Quantization { group_size, bits, mode }) =
            quantization.filter(|q| input_dims % q.group_size == 0)
        else {
            let shape = [rows, &[input_dims]].concat();
            return Ok(WeightMatrix::Dense(self.param("weight", &shape)?));
        };
        let Source::Random { dtype, key } = &mut *self.store.source.borrow_mut() else {
            return Err(Error::new(ErrorKind::Runtime, "weights: not random"));
        };
        let scales_shape = [rows, &[input_dims / group_size]].concat();
        let weight_shape = [rows, &[input_dims * bits / 32]].concat();
        let mut weight = random::bits(&weight_shape, 4, Some(&next_key(key)?))?;
        if mode == QuantMode::Mxfp8 {
            // Trained ones are no NaNs and hardly ever subnormal: two exponents are as good as all.
            let [others, exponents] = [0x8f8f_8f8f_u32, 0x3030_3030].map(Array::from);
            weight = ops::bitwise_or(&ops::bitwise_and(&weight, &others)?, &exponents)?;
        }
        let (scales, biases) = match mode {
            QuantMode::Affine => {
                let scale = 0.08 / (1 << bits) as f32;
                let scales = ops::full(&scales_shape, scale, *dtype)?;
                (scales, Some(ops::full(&scales_shape, -0.04, *dtype)?))
            }
            // An exponent around 2⁻⁶: bias 127 for the microscaling formats, 7 for E4M3.
            QuantMode::Nvfp4 => (ops::full(&scales_shape, 8, Dtype::Uint8)?, None),
            _ => (ops::full(&scales_shape, 121, Dtype::Uint8)?, None),
        };
        let quantization = Quantization { group_size, bits, mode };
        Ok(self.counted(Packed { weight, scales, biases, quantization }))
    }

    /// Takes a linear layer; argument order is that of Python's `nn.Linear`.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn linear(
        &self,
        name: &str,
        input_dims: i32,
        output_dims: i32,
        bias: bool,
    ) -> Result<Linear> {
        Ok(Linear {
            weight: self.matrix(name, input_dims, output_dims)?,
            bias: if bias { Some(self.at(name).param("bias", &[output_dims])?) } else { None },
        })
    }

    /// Takes stacked linear layers; argument order is that of mlx-lm's `SwitchLinear`.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    ///
    /// ```
    /// use mlx_core::{Dtype, Weights, ops};
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let weight = ops::ones(&[4, 2, 3], Dtype::Float32)?;
    /// let weights = Weights::from_arrays([("mlp.switch_mlp.up_proj.weight".to_owned(), weight)]);
    /// let experts = weights.at("mlp.switch_mlp").switch_linear("up_proj", 3, 2, 4, false)?;
    /// weights.finish()?;
    /// let (x, chosen) = (ops::ones(&[1, 1, 3], Dtype::Float32)?, ops::zeros(&[2], Dtype::Uint32)?);
    /// assert_eq!(experts.forward(&x, &chosen, false)?.to_vec::<f32>()?, [3.0; 4]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn switch_linear(
        &self,
        name: &str,
        input_dims: i32,
        output_dims: i32,
        num_experts: i32,
        bias: bool,
    ) -> Result<SwitchLinear> {
        let rows = [num_experts, output_dims];
        Ok(SwitchLinear {
            weight: self.stack(name, input_dims, &rows)?,
            bias: if bias { Some(self.at(name).param("bias", &rows)?) } else { None },
        })
    }

    /// Takes a linear layer for each head; argument order is that of mlx-lm's `MultiLinear`.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn multi_linear(
        &self,
        name: &str,
        input_dims: i32,
        output_dims: i32,
        num_heads: i32,
    ) -> Result<MultiLinear> {
        Ok(MultiLinear { weight: self.stack(name, input_dims, &[num_heads, output_dims])? })
    }

    /// Takes stacked gated layers, `gate_proj`, `up_proj` and `down_proj` below `name`; argument order is
    /// that of mlx-lm's `SwitchGLU`.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn switch_glu(
        &self,
        name: &str,
        input_dims: i32,
        hidden_dims: i32,
        num_experts: i32,
        activation: impl Into<SwitchActivation>,
        bias: bool,
    ) -> Result<SwitchGlu> {
        let at = self.at(name);
        Ok(SwitchGlu {
            gate_proj: at.switch_linear("gate_proj", input_dims, hidden_dims, num_experts, bias)?,
            up_proj: at.switch_linear("up_proj", input_dims, hidden_dims, num_experts, bias)?,
            down_proj: at.switch_linear("down_proj", hidden_dims, input_dims, num_experts, bias)?,
            activation: activation.into(),
        })
    }

    /// Takes stacked layers without a gate, `fc1` and `fc2` below `name`; argument order is that of
    /// [`SwitchMlp::new`].
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn switch_mlp(
        &self,
        name: &str,
        input_dims: i32,
        hidden_dims: i32,
        num_experts: i32,
        activation: fn(&Array) -> Result<Array>,
        bias: bool,
    ) -> Result<SwitchMlp> {
        let at = self.at(name);
        Ok(SwitchMlp {
            fc1: at.switch_linear("fc1", input_dims, hidden_dims, num_experts, bias)?,
            fc2: at.switch_linear("fc2", hidden_dims, input_dims, num_experts, bias)?,
            activation,
        })
    }

    /// Takes an embedding that is the head as well if `is_head`; if not, a token reads a row of it.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn embedding_or_head(
        &self,
        name: &str,
        num_embeddings: i32,
        dims: i32,
        is_head: bool,
    ) -> Result<Embedding> {
        let used = if is_head { num_embeddings } else { 1 };
        self.in_part([used, num_embeddings], || self.embedding(name, num_embeddings, dims))
    }

    /// Takes an embedding.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn embedding(&self, name: &str, num_embeddings: i32, dims: i32) -> Result<Embedding> {
        Ok(Embedding { weight: self.matrix(name, dims, num_embeddings)? })
    }

    /// Takes a root mean square norm.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn rms_norm(&self, name: &str, dims: i32, eps: f32) -> Result<RmsNorm> {
        Ok(RmsNorm { weight: self.at(name).param("weight", &[dims])?, eps })
    }

    /// Takes a layer norm with weight and, if there is one, bias.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn layer_norm(&self, name: &str, dims: i32, eps: f32, bias: bool) -> Result<LayerNorm> {
        let at = self.at(name);
        Ok(LayerNorm {
            weight: Some(at.param("weight", &[dims])?),
            bias: if bias { Some(at.param("bias", &[dims])?) } else { None },
            eps,
        })
    }

    /// Takes `n` numbered layers.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn layers<T, E>(
        &self,
        name: &str,
        n: usize,
        mut f: impl FnMut(&Weights, usize) -> std::result::Result<T, E>,
    ) -> std::result::Result<Vec<T>, E> {
        (0..n).map(|i| f(&self.at(format_args!("{name}.{i}")), i)).collect()
    }

    /// Returns the number of weights taken so far, counted before packing.
    pub fn n_parameters(&self) -> u64 {
        self.store.n_parameters.get()
    }

    /// Returns the size of the tensors taken so far in bytes.
    pub fn n_bytes(&self) -> u64 {
        self.store.n_bytes.get()
    }

    /// Takes tensors of which one token reads `used` of `of` equal parts: experts, of which it chooses
    /// some, or an embedding, of which it reads a row.
    ///
    /// # Errors
    /// Those of `take`.
    pub fn in_part<T, E>(
        &self,
        [used, of]: [i32; 2],
        take: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let before = self.n_bytes();
        let taken = take()?;
        let (used, of) = (used.clamp(0, of.max(0)) as u64, of.max(1) as u64);
        let bytes = u128::from(self.n_bytes() - before);
        let idle = bytes * u128::from(of.saturating_sub(used)) / u128::from(of);
        self.store.n_idle_bytes.set(self.store.n_idle_bytes.get() + idle as u64);
        Ok(taken)
    }

    /// Returns how many bytes of the tensors taken so far one token reads; see
    /// [`in_part`](Self::in_part).
    ///
    /// ```
    /// use mlx_core::{Dtype, Weights, ops};
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let table = ops::zeros(&[8, 4], Dtype::Float32)?;
    /// let weights = Weights::from_arrays([("embed.weight".to_owned(), table)]);
    /// weights.in_part([1, 8], || weights.embedding("embed", 8, 4))?;
    /// assert_eq!((weights.n_bytes(), weights.n_active_bytes()), (128, 16));
    /// # Ok(())
    /// # }
    /// ```
    pub fn n_active_bytes(&self) -> u64 {
        self.n_bytes().saturating_sub(self.store.n_idle_bytes.get())
    }

    /// Returns the matrices taken so far: what of a model can be packed.
    ///
    /// ```
    /// use mlx_core::{Dtype, Weights, ops};
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let zeros = |shape: &[i32]| ops::zeros(shape, Dtype::Float32);
    /// let weights = Weights::from_arrays([
    ///     ("up.weight".to_owned(), zeros(&[2, 3])?),
    ///     ("norm.weight".to_owned(), zeros(&[3])?),
    /// ]);
    /// (weights.linear("up", 3, 2, false)?, weights.rms_norm("norm", 3, 1e-6)?);
    /// let matrices = weights.matrices();
    /// assert_eq!((matrices[0].path.as_str(), matrices.len()), ("up", 1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn matrices(&self) -> Vec<TakenMatrix> {
        self.store.matrices.borrow().clone()
    }

    /// Ends the taking.
    ///
    /// # Errors
    /// When tensors were missing or wrongly shaped, or some were not taken: all are listed.
    pub fn finish(&self) -> Result<()> {
        let mut report = self.store.report.take();
        if let Source::Tensors(tensors) = &*self.store.source.borrow() {
            report.unexpected = tensors.keys().cloned().collect();
        }
        if report.is_empty() { Ok(()) } else { Err(Error::weights_report(report)) }
    }
}

/// Stands in for a tensor that is not there; never computed, because `finish` fails.
fn stand_in(shape: &[i32]) -> Array {
    ops::zeros(shape, Dtype::Float32).unwrap_or_else(|_| Array::from(0.0f32))
}

fn next_key(key: &mut Array) -> Result<Array> {
    let keys = random::split(key, 2)?;
    *key = keys.at(0)?;
    keys.at(1)
}

fn random_array(shape: &[i32], dtype: Dtype, key: &mut Array) -> Result<Array> {
    // A vector is a norm's weight or a bias; around one, a norm keeps activations in range.
    let loc = if shape.len() == 1 { 1.0 } else { 0.0 };
    random::normal(shape, dtype, loc, 0.02, Some(&next_key(key)?))
}

/// Finds group size, bits and mode from the sizes of a packed row.
fn infer(
    input_dims: i32,
    weight_last: i32,
    scales_last: i32,
    scales_dtype: Dtype,
    declared: Option<Quantization>,
) -> Option<Quantization> {
    if scales_last <= 0 || input_dims % scales_last != 0 {
        return None;
    }
    let packed_bits = i64::from(weight_last) * 32;
    if packed_bits % i64::from(input_dims) != 0 {
        return None;
    }
    let group_size = input_dims / scales_last;
    let bits = (packed_bits / i64::from(input_dims)) as i32;
    let mode = match (scales_dtype, bits, group_size) {
        (Dtype::Uint8, 4, 16) => QuantMode::Nvfp4,
        (Dtype::Uint8, 4, 32) => QuantMode::Mxfp4,
        (Dtype::Uint8, 8, 32) => QuantMode::Mxfp8,
        (Dtype::Uint8, ..) => return None,
        (_, 2 | 3 | 4 | 5 | 6 | 8, 32 | 64 | 128) => QuantMode::Affine,
        _ => return None,
    };
    // A config that names another format means another layout than the shapes suggest.
    let contradicts = declared.is_some_and(|d| d.mode != mode && d.mode != QuantMode::Affine);
    (!contradicts).then_some(Quantization { group_size, bits, mode })
}

#[cfg(test)]
mod tests;
