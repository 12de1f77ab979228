//! Modules: parameters with names, freezing, quantizing, saving.
//!
//! A model is a struct of layers. [`module!`](crate::module) lists the fields that hold parameters, and
//! with that the struct is a [`Module`](crate::nn::Module): its paths are Python's, so checkpoints fit.
//!
//! ```python
//! class Mlp(nn.Module):
//!     def __init__(self):
//!         super().__init__()
//!         self.layers = [nn.Linear(64, 32), nn.Linear(32, 2)]
//!         self.dropout = nn.Dropout(0.1)
//!
//!     def __call__(self, x):
//!         x = self.dropout(nn.silu(self.layers[0](x)))
//!         return self.layers[1](x)
//!
//! mx.random.seed(0)
//! mlp = Mlp()
//! sum(v.size for _, v in tree_flatten(mlp.parameters()))  # 2146
//! mlp.eval()
//! mlp(mx.ones((1, 64)))  # array([[0.457133, 0.271561]], dtype=float32)
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::nn::{Dropout, Linear, Module, silu};
//! use mlx_core::{Array, Dtype, Result, ops, random};
//!
//! struct Mlp {
//!     layers: Vec<Linear>,
//!     dropout: Dropout,
//! }
//!
//! mlx_core::module! { Mlp { layers, dropout } }
//!
//! impl Mlp {
//!     fn new() -> Result<Mlp> {
//!         let layers = vec![Linear::new(64, 32, true)?, Linear::new(32, 2, true)?];
//!         Ok(Mlp { layers, dropout: Dropout::new(0.1)? })
//!     }
//!
//!     fn forward(&self, x: &Array) -> Result<Array> {
//!         let x = self.dropout.forward(&silu(&self.layers[0].forward(x)?)?)?;
//!         self.layers[1].forward(&x)
//!     }
//! }
//!
//! random::seed(0)?;
//! let mut mlp = Mlp::new()?;
//! assert_eq!(mlp.n_parameters(), 2146);
//! mlp.train(false);
//! let y = mlp.forward(&ops::ones(&[1, 64], Dtype::Float32)?)?;
//! let python = Array::from_slice(&[0.457133f32, 0.271561], &[1, 2])?;
//! assert!(y.allclose(&python, Default::default())?.item::<bool>()?, "{y}");
//! # Ok(())
//! # }
//! ```
//!
//! A parameter of one's own is a [`Param`](crate::nn::Param), which is an array that can be frozen.
//! [`Parameters`](crate::nn::Parameters) are arrays by path, where Python has nested dictionaries: there
//! is no `tree_flatten` to call, and `tree_map` is [`map`](crate::nn::Parameters::map).
//!
//! ```python
//! class Scale(nn.Module):
//!     def __init__(self):
//!         super().__init__()
//!         self.scale = mx.ones(4)
//!         self.proj = nn.Linear(4, 4, bias=False)
//!
//! model = Scale()
//! model.proj.freeze()
//! [name for name, _ in tree_flatten(model.parameters())]  # ['scale', 'proj.weight']
//! [name for name, _ in tree_flatten(model.trainable_parameters())]  # ['scale']
//! model.set_dtype(mx.float16)
//! model.update({"scale": mx.zeros(4)})
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::nn::{Linear, Module, Param};
//! use mlx_core::{Dtype, ops};
//!
//! struct Scale {
//!     scale: Param,
//!     proj: Linear,
//! }
//! mlx_core::module! { Scale { scale, proj } }
//!
//! let ones = ops::ones(&[4], Dtype::Float32)?;
//! let mut model = Scale { scale: ones.into(), proj: Linear::new(4, 4, false)? };
//! model.freeze(&|path| path.starts_with("proj"));
//! assert!(model.parameters().keys().eq(["proj.weight", "scale"]));
//! assert!(model.trainable_parameters().keys().eq(["scale"]));
//! model.cast(Dtype::Float16)?;
//! model.set("scale", ops::zeros(&[4], Dtype::Float16)?)?;
//! # Ok(())
//! # }
//! ```
//!
//! [`quantize`](crate::nn::Module::quantize) packs the layers that a closure chooses. They keep their
//! type: [`Linear`](crate::nn::Linear) is Python's `Linear` and `QuantizedLinear`.
//!
//! ```python
//! model = nn.Linear(64, 8, bias=False)
//! packed = nn.Sequential(model)
//! nn.quantize(packed, group_size=64, bits=4)
//! packed.layers[0].weight.shape  # (8, 8)
//! packed.save_weights("weights.safetensors")
//! packed.load_weights("weights.safetensors")
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::nn::{Linear, Module};
//! use mlx_core::{Quantization, Weights, load_safetensors};
//!
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("weights.safetensors");
//! let mut model = Linear::new(64, 8, false)?;
//! model.quantize(&|_path, _weight| Some(Quantization::default()))?;
//! assert_eq!(model.get("weight").map(|weight| weight.shape().to_vec()), Some(vec![8, 8]));
//! model.save_weights(&path)?;
//! model.load_weights(&path)?; // all or nothing: missing and unexpected tensors are an error
//!
//! // To build a model of a checkpoint, without random weights first: layers by name and shape.
//! let weights = Weights::from_arrays(load_safetensors(&path)?);
//! let weights = weights.with_quantization(Some(Default::default()));
//! let _linear = weights.linear("", 64, 8, false)?;
//! weights.finish()?; // nothing missing, nothing left over
//! # Ok(())
//! # }
//! ```
//!
//! The table of all layers is in [`nn`](crate::nn). Python's layer classes around a function, such as
//! `nn.GELU()`, are [`Activation::new(nn::gelu)`](crate::nn::Activation).
