//! Layers, under the names and checkpoint keys of Python's `mlx.nn`.
//!
//! A layer is built by [`Weights`](crate::Weights), which knows the path, checks the shape and
//! sees whether the tensor is quantized, or by `new`, with random weights to be trained: after the
//! same [`seed`](crate::random::seed) the same numbers as in Python. `forward` takes `&self`. What
//! Python takes by keyword is a struct of options with Python's defaults. [`Module`] is the tree of
//! parameters: counting, freezing, saving, quantizing.
//!
//! | Python | here |
//! | --- | --- |
//! | `Module`, `Sequential`, `Identity` | [`Module`] and [`Layer`], [`Sequential`], [`Identity`] |
//! | `Linear`, `QuantizedLinear` | [`Linear`], dense or packed |
//! | `Embedding`, `QuantizedEmbedding` | [`Embedding`], dense or packed |
//! | mlx-lm's `SwitchLinear`, `SwitchGLU`, `SwitchMLP` | [`SwitchLinear`], [`SwitchGlu`], [`SwitchMlp`], dense or packed |
//! | mlx-lm's `ssm_update` | [`SsmScan`] |
//! | mlx-lm's `MultiLinear` | [`MultiLinear`], dense or packed |
//! | mlx-lm's `gated_delta_update` | [`GatedDelta`], with the norm and gate behind it |
//! | `Bilinear` | [`Bilinear`] |
//! | `Conv1d`, `Conv2d`, `Conv3d` | [`Conv1d`], [`Conv2d`], [`Conv3d`] |
//! | a depthwise `Conv1d` with what it remembers | [`CausalConv`] |
//! | `ConvTranspose1d`, `ConvTranspose2d`, `ConvTranspose3d` | [`ConvTranspose1d`], [`ConvTranspose2d`], [`ConvTranspose3d`] |
//! | `RMSNorm`, `LayerNorm` | [`RmsNorm`], [`LayerNorm`] |
//! | `GroupNorm`, `InstanceNorm`, `BatchNorm` | [`GroupNorm`], [`InstanceNorm`], [`BatchNorm`] |
//! | `Dropout`, `Dropout2d`, `Dropout3d` | [`Dropout`], [`Dropout2d`], [`Dropout3d`] |
//! | `RoPE`, `ALiBi` | [`Rope`], [`Alibi`] |
//! | `SinusoidalPositionalEncoding` | [`SinusoidalPositionalEncoding`] |
//! | `MultiHeadAttention` | [`MultiHeadAttention`]; [`attention`] is its middle |
//! | `TransformerEncoderLayer`, `TransformerEncoder` | [`TransformerEncoderLayer`], [`TransformerEncoder`] |
//! | `TransformerDecoderLayer`, `TransformerDecoder` | [`TransformerDecoderLayer`], [`TransformerDecoder`] |
//! | `Transformer` | [`Transformer`] |
//! | `RNN`, `GRU`, `LSTM` | [`Rnn`], [`Gru`], [`Lstm`] |
//! | `MaxPool1d`, `MaxPool2d`, `MaxPool3d` | [`MaxPool1d`], [`MaxPool2d`], [`MaxPool3d`] |
//! | `AvgPool1d`, `AvgPool2d`, `AvgPool3d` | [`AvgPool1d`], [`AvgPool2d`], [`AvgPool3d`] |
//! | `Upsample` | [`Upsample`] |
//! | `PReLU` | [`PRelu`] |
//! | `ReLU`, `GELU` and the like | [`Activation`] around a function |
//! | `nn.quantize`, `nn.value_and_grad` | [`Module::quantize`], [`value_and_grad`] |
//! | `nn.utils.checkpoint` | [`checkpoint`] |
//! | `nn.relu`, `nn.gelu` and the like | [`relu`], [`gelu`] and the like |
//! | `nn.losses`, `nn.init` | [`losses`], [`init`] |
//! | `mlx.utils.tree_flatten`, `tree_map` | [`Module::parameters`], [`Parameters::map`] |
//! | `QQLinear` | not here: [`qqmm`](crate::ops::qqmm) with packed weights is its product |
//! | `AllToShardedLinear` and its like, `fully_shard`, `average_gradients` | not here: [`distributed`](crate::distributed) has the collectives that they consist of |

mod activation;
mod attention;
mod bilinear;
mod buffer;
mod cached_attention;
mod causal_conv;
mod containers;
mod conv;
mod dropout;
mod embedding;
mod gated_delta;
pub mod init;
mod linear;
pub mod losses;
mod make;
mod module;
mod multi_linear;
mod norm;
mod pooling;
mod positional;
mod recurrent;
mod rope;
mod ssm;
mod switch;
mod train;
mod transformer;
mod upsample;

pub use crate::kernels::GatedActivation;
pub use activation::{HardTanhOptions, celu, elu, gated, gelu, gelu_approx, gelu_fast_approx, glu};
pub use activation::{hard_shrink, hard_tanh, hardswish, leaky_relu, log_sigmoid, log_softmax};
pub use activation::{mish, prelu, relu, relu2, relu6, selu, sigmoid, silu, softmax, softmin};
pub use activation::{softplus, softshrink, softsign, step, tanh};
pub use attention::attention;
pub use bilinear::Bilinear;
pub use buffer::Buffer;
pub use cached_attention::{CachedAttention, KvRows, KvStore};
pub use causal_conv::CausalConv;
pub use containers::{Activation, Identity, Layer, PRelu, Sequential};
pub use conv::{Conv, Conv1d, Conv2d, Conv3d, ConvOptions};
pub use conv::{
    ConvTranspose, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, ConvTransposeOptions,
};
pub use dropout::{Dropout, Dropout2d, Dropout3d};
pub use embedding::Embedding;
pub use gated_delta::{GatedDelta, GatedDeltaInputs};
pub use linear::{Linear, WeightMatrix};
pub use module::{Leaf, LeafMut, Module, Param, Parameters, Training, Visitor, VisitorMut};
pub use multi_linear::MultiLinear;
pub use norm::{BatchNorm, BatchNormOptions, GroupNorm, GroupNormOptions, InstanceNorm};
pub use norm::{LayerNorm, LayerNormOptions, RmsNorm};
pub use pooling::{AvgPool, AvgPool1d, AvgPool2d, AvgPool3d};
pub use pooling::{MaxPool, MaxPool1d, MaxPool2d, MaxPool3d, PoolOptions};
pub use positional::{Alibi, AlibiShape, SinusoidalOptions, SinusoidalPositionalEncoding};
pub use recurrent::{Gru, Lstm, LstmState, Rnn};
pub use rope::Rope;
pub(crate) use rope::rotate;
pub use ssm::SsmScan;
pub use switch::{SwitchActivation, SwitchGlu, SwitchLinear, SwitchMlp};
pub use train::{checkpoint, value_and_grad, value_and_grad_with};
pub use transformer::{DecoderMasks, MultiHeadAttention, MultiHeadAttentionOptions};
pub use transformer::{Transformer, TransformerMasks, TransformerOptions};
pub use transformer::{TransformerDecoder, TransformerDecoderLayer};
pub use transformer::{TransformerEncoder, TransformerEncoderLayer, TransformerLayerOptions};
pub use upsample::{ScaleFactor, Upsample, UpsampleMode, UpsampleOptions};
