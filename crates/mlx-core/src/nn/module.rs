//! The tree of parameters below a layer or a model.
//!
//! A [`Module`] hands its parameters to a visitor under the names that they have in checkpoints.
//! The [`module!`](crate::module) macro writes that from a list of fields; everything else, from
//! counting to freezing, quantizing and training, is written once, here, on top of it. A leaf is
//! a [`Param`], or a [`WeightMatrix`](super::WeightMatrix), which may be packed and then is several
//! arrays, or state that no gradient reaches.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::ops::{Deref, DerefMut};
use std::path::Path;

use super::WeightMatrix;
use crate::array::{Array, Operand};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::quantization::Quantization;
use crate::weights::{Mismatch, WeightsReport};

/// A parameter of a layer: an array, and whether it is trained.
///
/// It stands wherever an [`Array`] does.
///
/// ```
/// use mlx_core::nn::Param;
/// use mlx_core::{Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let mut scale = Param::from(ops::ones(&[4], Dtype::Float32)?);
/// scale.set_frozen(true);
/// assert!(scale.is_frozen() && scale.shape() == [4]); // an array that can be frozen
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Param {
    array: Array,
    is_frozen: bool,
}

impl Param {
    /// Tells whether gradients leave this parameter alone.
    pub fn is_frozen(&self) -> bool {
        self.is_frozen
    }

    /// Sets whether gradients leave this parameter alone.
    pub fn set_frozen(&mut self, is_frozen: bool) {
        self.is_frozen = is_frozen;
    }

    /// Puts an array in place of this one, unchecked.
    pub(super) fn replace(&mut self, array: Array) {
        self.array = array;
    }

    /// Puts another array in place of this one.
    ///
    /// # Errors
    /// When its shape is another.
    pub fn set(&mut self, array: Array) -> Result<()> {
        check_fits(&self.array, &array)?;
        self.array = array;
        Ok(())
    }
}

/// Fails where one array cannot take the place of another: packed weights do not become floats.
fn check_fits(old: &Array, new: &Array) -> Result<()> {
    if old.shape() == new.shape() && old.dtype().is_floating() == new.dtype().is_floating() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidArgument, format!("expected {old:?}, got {new:?}")))
}

impl From<Array> for Param {
    fn from(array: Array) -> Param {
        Param { array, is_frozen: false }
    }
}

impl Deref for Param {
    type Target = Array;
    fn deref(&self) -> &Array {
        &self.array
    }
}

impl AsRef<Array> for Param {
    fn as_ref(&self) -> &Array {
        &self.array
    }
}

impl fmt::Debug for Param {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frozen = if self.is_frozen { ", frozen" } else { "" };
        write!(f, "Param({:?}, {}{frozen})", self.shape(), self.dtype())
    }
}

impl<'a> Operand for &'a Param {
    type Held = &'a Array;
    fn known_dtype(&self) -> Option<Dtype> {
        Some(self.dtype())
    }
    fn hold(self, _: Option<Dtype>) -> Result<&'a Array> {
        Ok(&self.array)
    }
}

/// Whether a layer such as dropout does what it does in training only; true when made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Training(pub bool);

impl Default for Training {
    fn default() -> Self {
        Training(true)
    }
}

/// What a visitor of a [`Module`] is given.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Leaf<'a> {
    /// A parameter.
    Param(&'a Param),
    /// A weight matrix; its path ends in `weight`, and so do those of its parts beside it.
    Weight(&'a WeightMatrix),
    /// State that is saved but not trained, such as running statistics.
    Buffer(&'a Array),
    /// The layer's mode.
    Training(bool),
}

/// What a changing visitor of a [`Module`] is given.
#[derive(Debug)]
#[non_exhaustive]
pub enum LeafMut<'a> {
    /// A parameter.
    Param(&'a mut Param),
    /// A weight matrix; its path ends in `weight`.
    Weight(&'a mut WeightMatrix),
    /// State that is saved but not trained.
    Buffer(&'a mut Array),
    /// The layer's mode.
    Training(&'a mut bool),
}

/// A walk through a [`Module`] that reads.
pub struct Visitor<'a> {
    path: String,
    visit: &'a mut dyn FnMut(&str, Leaf<'_>),
}

/// A walk through a [`Module`] that changes it.
pub struct VisitorMut<'a> {
    path: String,
    visit: &'a mut dyn FnMut(&str, LeafMut<'_>) -> Result<()>,
}

/// Lengthens a path by a name; returns the length to cut it back to.
fn descend(path: &mut String, name: &dyn fmt::Display) -> usize {
    let len = path.len();
    if len > 0 {
        path.push('.');
    }
    // Writing to a string does not fail.
    let _ = write!(path, "{name}");
    len
}

impl Visitor<'_> {
    /// Visits what stands under `name` here.
    pub fn child(&mut self, name: impl fmt::Display, child: &(impl Module + ?Sized)) {
        let len = descend(&mut self.path, &name);
        child.visit(self);
        self.path.truncate(len);
    }

    /// Visits a leaf at this path.
    pub fn leaf(&mut self, leaf: Leaf<'_>) {
        (self.visit)(&self.path, leaf);
    }
}

impl VisitorMut<'_> {
    /// Visits what stands under `name` here.
    ///
    /// # Errors
    /// The visitor's, which ends the walk.
    pub fn child(
        &mut self,
        name: impl fmt::Display,
        child: &mut (impl Module + ?Sized),
    ) -> Result<()> {
        let len = descend(&mut self.path, &name);
        child.visit_mut(self)?;
        self.path.truncate(len);
        Ok(())
    }

    /// Visits a leaf at this path.
    ///
    /// # Errors
    /// The visitor's, which ends the walk.
    pub fn leaf(&mut self, leaf: LeafMut<'_>) -> Result<()> {
        (self.visit)(&self.path, leaf)
    }
}

/// Implements [`Module`](crate::nn::Module) from a list of fields, each a parameter, a layer, or
/// an `Option`, `Vec` or `Box` of one. A field's name is its name in checkpoints, unless another
/// stands before it.
///
/// ```
/// use mlx_core::nn::{Linear, Module};
///
/// struct Mlp {
///     up_proj: Linear,
///     down: Linear,
/// }
///
/// mlx_core::module! { Mlp { up_proj, "down_proj" => down } }
/// ```
#[macro_export]
macro_rules! module {
    ($($type:ident { $($fields:tt)* })*) => {
        $(impl $crate::nn::Module for $type {
            fn visit(&self, visitor: &mut $crate::nn::Visitor<'_>) {
                let _ = &visitor;
                $crate::module!(@visit self visitor $($fields)*);
            }

            fn visit_mut(
                &mut self,
                visitor: &mut $crate::nn::VisitorMut<'_>,
            ) -> $crate::Result<()> {
                let _ = &visitor;
                $crate::module!(@visit_mut self visitor $($fields)*);
                Ok(())
            }
        })*
    };
    (@visit $self:ident $visitor:ident) => {};
    (@visit $self:ident $visitor:ident $name:literal => $field:ident $(, $($rest:tt)*)?) => {
        $visitor.child($name, &$self.$field);
        $crate::module!(@visit $self $visitor $($($rest)*)?);
    };
    (@visit $self:ident $visitor:ident $field:ident $(, $($rest:tt)*)?) => {
        $visitor.child(stringify!($field), &$self.$field);
        $crate::module!(@visit $self $visitor $($($rest)*)?);
    };
    (@visit_mut $self:ident $visitor:ident) => {};
    (@visit_mut $self:ident $visitor:ident $name:literal => $field:ident $(, $($rest:tt)*)?) => {
        $visitor.child($name, &mut $self.$field)?;
        $crate::module!(@visit_mut $self $visitor $($($rest)*)?);
    };
    (@visit_mut $self:ident $visitor:ident $field:ident $(, $($rest:tt)*)?) => {
        $visitor.child(stringify!($field), &mut $self.$field)?;
        $crate::module!(@visit_mut $self $visitor $($($rest)*)?);
    };
}

/// Arrays by their path: parameters, gradients, or an optimizer's state.
///
/// It is a [`BTreeMap`], so that the order is the same for all.
///
/// ```
/// use mlx_core::nn::{Linear, Module};
///
/// # fn main() -> mlx_core::Result<()> {
/// let layer = Linear::new(4, 2, true)?;
/// let doubled = layer.parameters().map(|_path, array| array * 2.0)?;
/// assert!(doubled.keys().eq(["bias", "weight"]));
/// assert_eq!(doubled["weight"].shape(), [2, 4]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Parameters(pub BTreeMap<String, Array>);

impl Deref for Parameters {
    type Target = BTreeMap<String, Array>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Parameters {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl FromIterator<(String, Array)> for Parameters {
    fn from_iter<T: IntoIterator<Item = (String, Array)>>(arrays: T) -> Self {
        Parameters(arrays.into_iter().collect())
    }
}

impl IntoIterator for Parameters {
    type Item = (String, Array);
    type IntoIter = std::collections::btree_map::IntoIter<String, Array>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Parameters {
    type Item = (&'a String, &'a Array);
    type IntoIter = std::collections::btree_map::Iter<'a, String, Array>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl Parameters {
    /// Applies a function to each array. Python: `tree_map`.
    ///
    /// # Errors
    /// Those of `f`, with the path before the text.
    pub fn map(&self, mut f: impl FnMut(&str, &Array) -> Result<Array>) -> Result<Parameters> {
        let with_path = |(path, array): (&String, &Array)| {
            Ok((path.clone(), f(path, array).map_err(|e| e.context(path))?))
        };
        self.iter().map(with_path).collect()
    }
}

/// A layer or model whose parameters have names; [`module!`](crate::module) implements it.
///
/// ```
/// use mlx_core::nn::{Linear, Module};
/// use mlx_core::{Dtype, Quantization};
///
/// struct Mlp {
///     layers: Vec<Linear>,
/// }
/// mlx_core::module! { Mlp { layers } }
///
/// # fn main() -> mlx_core::Result<()> {
/// let mut mlp = Mlp { layers: vec![Linear::new(64, 32, true)?, Linear::new(32, 8, false)?] };
/// let names: Vec<String> = mlp.parameters().into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["layers.0.bias", "layers.0.weight", "layers.1.weight"]);
/// assert_eq!(mlp.n_parameters(), 64 * 32 + 32 + 32 * 8);
///
/// mlp.cast(Dtype::Bfloat16)?;
/// mlp.freeze(&|path| path.starts_with("layers.0"));
/// assert_eq!(mlp.trainable_parameters().len(), 1);
/// mlp.quantize(&|path, _| (path == "layers.0").then(Quantization::default))?;
/// assert!(mlp.get("layers.0.scales").is_some());
/// # Ok(())
/// # }
/// ```
pub trait Module {
    /// Hands every leaf to the visitor, in an order that does not change.
    fn visit(&self, visitor: &mut Visitor<'_>);

    /// Hands every leaf to the visitor to be changed, in the order of [`visit`](Self::visit).
    ///
    /// # Errors
    /// The visitor's, which ends the walk.
    fn visit_mut(&mut self, visitor: &mut VisitorMut<'_>) -> Result<()>;

    /// Calls `f` with each leaf and its path.
    fn for_each(&self, f: &mut dyn FnMut(&str, Leaf<'_>)) {
        self.visit(&mut Visitor { path: String::new(), visit: f });
    }

    /// Calls `f` with each leaf and its path, to change it.
    ///
    /// # Errors
    /// The first of `f`, with the path before its text.
    fn for_each_mut(&mut self, f: &mut dyn FnMut(&str, LeafMut<'_>) -> Result<()>) -> Result<()> {
        let mut with_path =
            |path: &str, leaf: LeafMut<'_>| f(path, leaf).map_err(|e| e.context(path));
        self.visit_mut(&mut VisitorMut { path: String::new(), visit: &mut with_path })
    }

    /// Calls `f` with each array and its path: parameters, parts of packed weights, buffers.
    fn for_each_array(&self, f: &mut dyn FnMut(&str, &Array)) {
        self.for_each(&mut |path, leaf| match leaf {
            Leaf::Param(param) => f(path, param),
            Leaf::Weight(WeightMatrix::Dense(param)) => f(path, param),
            Leaf::Weight(WeightMatrix::Packed(packed)) => {
                f(path, &packed.weight);
                f(&beside(path, "scales"), &packed.scales);
                if let Some(biases) = &packed.biases {
                    f(&beside(path, "biases"), biases);
                }
            }
            Leaf::Buffer(array) => f(path, array),
            Leaf::Training(_) => {}
        });
    }

    /// Calls `f` with each array and its path, to replace it.
    ///
    /// # Errors
    /// The first of `f`, with the path before its text.
    fn for_each_array_mut(
        &mut self,
        f: &mut dyn FnMut(&str, &mut Array) -> Result<()>,
    ) -> Result<()> {
        self.for_each_mut(&mut |path, leaf| match leaf {
            LeafMut::Param(param) | LeafMut::Weight(WeightMatrix::Dense(param)) => {
                f(path, &mut param.array)
            }
            LeafMut::Weight(WeightMatrix::Packed(packed)) => {
                f(path, &mut packed.weight)?;
                f(&beside(path, "scales"), &mut packed.scales)?;
                match &mut packed.biases {
                    Some(biases) => f(&beside(path, "biases"), biases),
                    None => Ok(()),
                }
            }
            LeafMut::Buffer(array) => f(path, array),
            LeafMut::Training(_) => Ok(()),
        })
    }

    /// Returns every array by its path: parameters, parts of packed weights, buffers.
    fn parameters(&self) -> Parameters {
        let mut parameters = Parameters::default();
        self.for_each_array(&mut |path, array| {
            parameters.insert(path.to_owned(), array.clone());
        });
        parameters
    }

    /// Returns the parameters that gradients change, by path.
    fn trainable_parameters(&self) -> Parameters {
        self.trainable_parameters_in_order().into_iter().collect()
    }

    /// Returns the parameters that gradients change, in the order of the walk.
    fn trainable_parameters_in_order(&self) -> Vec<(String, Array)> {
        let mut parameters = Vec::new();
        self.for_each(&mut |path, leaf| {
            if let Some(param) = trainable(leaf) {
                parameters.push((path.to_owned(), param.array.clone()));
            }
        });
        parameters
    }

    /// Returns the number of weights, those of packed matrices counted before packing.
    fn n_parameters(&self) -> usize {
        let mut n = 0;
        self.for_each(&mut |_, leaf| match leaf {
            Leaf::Param(param) => n += param.size(),
            Leaf::Weight(weight) => n += weight.n_parameters(),
            Leaf::Buffer(_) | Leaf::Training(_) => {}
        });
        n
    }

    /// Returns the size of all arrays in bytes.
    fn nbytes(&self) -> usize {
        let mut n = 0;
        self.for_each_array(&mut |_, array| n += array.nbytes());
        n
    }

    /// Returns the array at a path.
    fn get(&self, path: &str) -> Option<Array> {
        let mut found = None;
        self.for_each_array(&mut |at, array| {
            if at == path {
                found = Some(array.clone());
            }
        });
        found
    }

    /// Replaces the array at a path.
    ///
    /// # Errors
    /// When there is none, or it has another shape.
    fn set(&mut self, path: &str, array: Array) -> Result<()> {
        self.update(&Parameters(BTreeMap::from([(path.to_owned(), array)])))
    }

    /// Replaces the arrays at some paths.
    ///
    /// # Errors
    /// When a path is not here or a shape is another; nothing is then replaced.
    fn update(&mut self, arrays: &Parameters) -> Result<()> {
        let mut n_found = 0;
        let mut check = |path: &str, old: &mut Array| match arrays.get(path) {
            Some(new) => {
                n_found += 1;
                check_fits(old, new)
            }
            None => Ok(()),
        };
        self.for_each_array_mut(&mut check)?;
        if n_found < arrays.len() {
            let own = self.parameters();
            let unknown: Vec<&String> =
                arrays.keys().filter(|path| !own.contains_key(*path)).collect();
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("update: no parameter at {unknown:?}"),
            ));
        }
        self.for_each_array_mut(&mut |path, old| {
            if let Some(new) = arrays.get(path) {
                *old = new.clone();
            }
            Ok(())
        })
    }

    /// Converts every floating parameter and buffer; packed weights stay. Python: `set_dtype`.
    ///
    /// # Errors
    /// When `dtype` is not floating.
    fn cast(&mut self, dtype: Dtype) -> Result<()> {
        if !dtype.is_floating() {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("cast: {dtype} is not floating"),
            ));
        }
        self.for_each_array_mut(&mut |_, array| {
            if array.dtype().is_floating() {
                *array = array.astype(dtype)?;
            }
            Ok(())
        })
    }

    /// Freezes the parameters whose path `which` accepts.
    fn freeze(&mut self, which: &dyn Fn(&str) -> bool) {
        set_frozen(self, which, true);
    }

    /// Unfreezes the parameters whose path `which` accepts; packed weights stay frozen.
    fn unfreeze(&mut self, which: &dyn Fn(&str) -> bool) {
        set_frozen(self, which, false);
    }

    /// Sets whether layers such as dropout do what they do in training only. Python: `train`.
    fn train(&mut self, mode: bool) {
        let _ = self.for_each_mut(&mut |_, leaf| {
            if let LeafMut::Training(training) = leaf {
                *training = mode;
            }
            Ok(())
        });
    }

    /// Packs the weight matrices of the layers for which `which`, given the layer's path and its
    /// dense weight, names a format, and freezes their biases. Python: `nn.quantize`.
    ///
    /// # Errors
    /// When a weight does not divide by its group size.
    fn quantize(&mut self, which: &dyn Fn(&str, &Array) -> Option<Quantization>) -> Result<()> {
        let mut packed = Vec::new();
        self.for_each_mut(&mut |path, leaf| {
            let LeafMut::Weight(weight) = leaf else { return Ok(()) };
            let layer = path.strip_suffix(".weight").unwrap_or("");
            let quantization = match weight {
                WeightMatrix::Dense(param) => which(layer, param),
                WeightMatrix::Packed(_) => None,
            };
            if let Some(quantization) = quantization {
                weight.quantize(quantization)?;
                packed.push(beside(path, "bias"));
            }
            Ok(())
        })?;
        self.freeze(&|path| packed.iter().any(|bias| bias == path));
        Ok(())
    }

    /// Writes every array to a safetensors file, which is replaced whole or not at all.
    ///
    /// # Errors
    /// When an array cannot be computed or the file system fails.
    fn save_weights(&self, path: &Path) -> Result<()> {
        let parameters = self.parameters();
        let arrays = parameters.iter().map(|(name, array)| (name.as_str(), array));
        crate::save_safetensors(path, arrays, &[("format", "mlx")])
    }

    /// Reads every array from a safetensors file.
    ///
    /// # Errors
    /// When the file is not what the format demands, or tensors are missing, unexpected or of
    /// another shape: all are listed, and nothing is replaced.
    fn load_weights(&mut self, path: &Path) -> Result<()> {
        let loaded = Parameters(crate::load_safetensors(path)?);
        let report = difference(&self.parameters(), &loaded);
        if report.is_empty() { self.update(&loaded) } else { Err(Error::weights_report(report)) }
    }
}

/// Lists what keeps `found` from taking the place of `own`.
fn difference(own: &Parameters, found: &Parameters) -> WeightsReport {
    let missing = own.keys().filter(|name| !found.contains_key(*name)).cloned().collect();
    let unexpected = found.keys().filter(|name| !own.contains_key(*name)).cloned().collect();
    let mismatched = own.iter().filter_map(|(name, own)| {
        let found = found.get(name)?;
        let describe = |array: &Array| format!("{:?} of {}", array.shape(), array.dtype());
        check_fits(own, found).err().map(|_| Mismatch {
            name: name.clone(),
            expected: describe(own),
            found: describe(found),
        })
    });
    WeightsReport { missing, unexpected, mismatched: mismatched.collect() }
}

/// Names what stands beside the leaf at a path.
fn beside(path: &str, name: &str) -> String {
    match path.rsplit_once('.') {
        Some((layer, _)) => format!("{layer}.{name}"),
        None => name.to_owned(),
    }
}

fn trainable(leaf: Leaf<'_>) -> Option<&Param> {
    match leaf {
        Leaf::Param(param) | Leaf::Weight(WeightMatrix::Dense(param)) if !param.is_frozen => {
            Some(param)
        }
        _ => None,
    }
}

fn set_frozen<M: Module + ?Sized>(module: &mut M, which: &dyn Fn(&str) -> bool, is_frozen: bool) {
    // The visitor does not fail.
    let _ = module.for_each_mut(&mut |path, leaf| {
        if let LeafMut::Param(param) | LeafMut::Weight(WeightMatrix::Dense(param)) = leaf
            && which(path)
        {
            param.is_frozen = is_frozen;
        }
        Ok(())
    });
}

impl Module for Param {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.leaf(Leaf::Param(self));
    }
    fn visit_mut(&mut self, visitor: &mut VisitorMut<'_>) -> Result<()> {
        visitor.leaf(LeafMut::Param(self))
    }
}

impl Module for WeightMatrix {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.leaf(Leaf::Weight(self));
    }
    fn visit_mut(&mut self, visitor: &mut VisitorMut<'_>) -> Result<()> {
        visitor.leaf(LeafMut::Weight(self))
    }
}

impl Module for Training {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.leaf(Leaf::Training(self.0));
    }
    fn visit_mut(&mut self, visitor: &mut VisitorMut<'_>) -> Result<()> {
        visitor.leaf(LeafMut::Training(&mut self.0))
    }
}

impl<M: Module> Module for Option<M> {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        if let Some(module) = self {
            module.visit(visitor);
        }
    }
    fn visit_mut(&mut self, visitor: &mut VisitorMut<'_>) -> Result<()> {
        match self {
            Some(module) => module.visit_mut(visitor),
            None => Ok(()),
        }
    }
}

impl<M: Module> Module for Vec<M> {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        for (i, module) in self.iter().enumerate() {
            visitor.child(i, module);
        }
    }
    fn visit_mut(&mut self, visitor: &mut VisitorMut<'_>) -> Result<()> {
        let mut children = self.iter_mut().enumerate();
        children.try_for_each(|(i, module)| visitor.child(i, module))
    }
}

impl<M: Module + ?Sized> Module for Box<M> {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        (**self).visit(visitor);
    }
    fn visit_mut(&mut self, visitor: &mut VisitorMut<'_>) -> Result<()> {
        (**self).visit_mut(visitor)
    }
}

#[cfg(test)]
mod tests;
