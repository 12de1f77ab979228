//! Attention with its projections, and the encoder and decoder of the first transformer.
//!
//! Follows arXiv 1706.03762, with the norm before each part instead of behind it unless
//! [`TransformerLayerOptions::norm_first`] is false.

use super::{
    Activation, Dropout, LayerNorm, LayerNormOptions, Linear, Module, attention, checkpoint, make,
};
use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::fast::AttentionMask;

/// Options of [`MultiHeadAttention`]; a size that is `None` has the default that it names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MultiHeadAttentionOptions {
    /// Size of the queries' input: `dims`.
    pub query_input_dims: Option<i32>,
    /// Size of the keys' input: `dims`.
    pub key_input_dims: Option<i32>,
    /// Size of the values' input: that of the keys.
    pub value_input_dims: Option<i32>,
    /// Size of the projected values: `dims`.
    pub value_dims: Option<i32>,
    /// Size of the output: `dims`.
    pub value_output_dims: Option<i32>,
    /// Adds biases to the projections.
    pub bias: bool,
}

/// Attention with several heads between projections of queries, keys, values and output.
///
/// ```
/// use mlx_core::fast::AttentionMask;
/// use mlx_core::nn::MultiHeadAttention;
/// use mlx_core::{Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let attention = MultiHeadAttention::new(32, 4, Default::default())?;
/// let x = ops::ones(&[1, 10, 32], Dtype::Float32)?;
/// let y = attention.forward(&x, &x, &x, AttentionMask::Causal)?;
/// assert_eq!(y.shape(), [1, 10, 32]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct MultiHeadAttention {
    /// `QE → E`
    pub query_proj: Linear,
    /// `KE → E`
    pub key_proj: Linear,
    /// `VE → H * DV`
    pub value_proj: Linear,
    /// `H * DV → E`
    pub out_proj: Linear,
    /// Heads.
    pub num_heads: i32,
}

/// Options of [`TransformerEncoderLayer`] and [`TransformerDecoderLayer`].
#[derive(Clone, Debug)]
pub struct TransformerLayerOptions {
    /// Size between the two linear layers; `None` is `4 * dims`.
    pub mlp_dims: Option<i32>,
    /// Probability of dropping an element behind attention and activation.
    pub dropout: f32,
    /// What stands between the two linear layers.
    pub activation: Activation,
    /// Puts norms before attention and linear layers; else behind the sums.
    pub norm_first: bool,
}

impl Default for TransformerLayerOptions {
    fn default() -> Self {
        let activation = Activation::default();
        TransformerLayerOptions { mlp_dims: None, dropout: 0.0, activation, norm_first: true }
    }
}

/// A layer of [`TransformerEncoder`].
#[derive(Clone, Debug)]
pub struct TransformerEncoderLayer {
    /// Of the sequence to itself.
    pub attention: MultiHeadAttention,
    /// Of the attention.
    pub ln1: LayerNorm,
    /// Of the linear layers.
    pub ln2: LayerNorm,
    /// `E → mlp_dims`
    pub linear1: Linear,
    /// `mlp_dims → E`
    pub linear2: Linear,
    /// Behind the attention.
    pub dropout1: Dropout,
    /// Behind the activation.
    pub dropout2: Dropout,
    /// Between the linear layers.
    pub activation: Activation,
    /// Whether norms stand before what they belong to.
    pub norm_first: bool,
}

/// Layers over one sequence, and a norm.
///
/// ```
/// use mlx_core::fast::AttentionMask;
/// use mlx_core::nn::TransformerEncoder;
/// use mlx_core::{Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let encoder = TransformerEncoder::new(2, 16, 4, Default::default())?;
/// let x = ops::ones(&[1, 5, 16], Dtype::Float32)?; // [B, L, E]
/// assert_eq!(encoder.forward(&x, AttentionMask::None)?.shape(), [1, 5, 16]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TransformerEncoder {
    /// In the order of application.
    pub layers: Vec<TransformerEncoderLayer>,
    /// Behind the layers.
    pub ln: LayerNorm,
    /// Computes layers again for the gradient instead of keeping what they computed; false when
    /// made.
    pub checkpoint: bool,
}

/// A layer of [`TransformerDecoder`].
#[derive(Clone, Debug)]
pub struct TransformerDecoderLayer {
    /// Of the sequence to itself.
    pub self_attention: MultiHeadAttention,
    /// Of the sequence to the encoder's output.
    pub cross_attention: MultiHeadAttention,
    /// Of the attention to itself.
    pub ln1: LayerNorm,
    /// Of the attention to the encoder's output.
    pub ln2: LayerNorm,
    /// Of the linear layers.
    pub ln3: LayerNorm,
    /// `E → mlp_dims`
    pub linear1: Linear,
    /// `mlp_dims → E`
    pub linear2: Linear,
    /// Behind the attention to itself.
    pub dropout1: Dropout,
    /// Behind the attention to the encoder's output.
    pub dropout2: Dropout,
    /// Behind the activation.
    pub dropout3: Dropout,
    /// Between the linear layers.
    pub activation: Activation,
    /// Whether norms stand before what they belong to.
    pub norm_first: bool,
}

/// Layers over one sequence that also see another, and a norm.
///
/// ```
/// use mlx_core::nn::TransformerDecoder;
/// use mlx_core::{Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let decoder = TransformerDecoder::new(2, 16, 4, Default::default())?;
/// let x = ops::ones(&[1, 5, 16], Dtype::Float32)?; // [B, L, E]
/// let memory = ops::ones(&[1, 7, 16], Dtype::Float32)?;
/// assert_eq!(decoder.forward(&x, &memory, Default::default())?.shape(), [1, 5, 16]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TransformerDecoder {
    /// In the order of application.
    pub layers: Vec<TransformerDecoderLayer>,
    /// Behind the layers.
    pub ln: LayerNorm,
    /// Computes layers again for the gradient instead of keeping what they computed; false when
    /// made.
    pub checkpoint: bool,
}

/// Options of [`Transformer`].
#[derive(Clone, Debug)]
pub struct TransformerOptions {
    /// Size of the elements of both sequences.
    pub dims: i32,
    /// Heads of each attention.
    pub num_heads: i32,
    /// Layers of the encoder.
    pub num_encoder_layers: i32,
    /// Layers of the decoder.
    pub num_decoder_layers: i32,
    /// Of every layer.
    pub layer: TransformerLayerOptions,
    /// Computes layers again for the gradient instead of keeping what they computed.
    pub checkpoint: bool,
}

impl Default for TransformerOptions {
    fn default() -> Self {
        TransformerOptions {
            dims: 512,
            num_heads: 8,
            num_encoder_layers: 6,
            num_decoder_layers: 6,
            layer: TransformerLayerOptions::default(),
            checkpoint: false,
        }
    }
}

/// An encoder of one sequence, and a decoder of another that sees the encoder's output.
///
/// ```
/// use mlx_core::nn::{Transformer, TransformerOptions};
/// use mlx_core::{Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let options = TransformerOptions { dims: 16, num_heads: 4, ..Default::default() };
/// let model = Transformer::new(options)?;
/// let (src, tgt) = (ops::ones(&[1, 7, 16], Dtype::Float32)?, ops::ones(&[1, 5, 16], Dtype::Float32)?);
/// assert_eq!(model.forward(&src, &tgt, Default::default())?.shape(), [1, 5, 16]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Transformer {
    /// Of the source.
    pub encoder: TransformerEncoder,
    /// Of the target.
    pub decoder: TransformerDecoder,
}

/// The masks of [`TransformerDecoder`].
#[derive(Clone, Copy, Debug, Default)]
pub struct DecoderMasks<'a> {
    /// Of the sequence to itself.
    pub x: AttentionMask<'a>,
    /// Of the sequence to the encoder's output.
    pub memory: AttentionMask<'a>,
}

/// The masks of [`Transformer`].
#[derive(Clone, Copy, Debug, Default)]
pub struct TransformerMasks<'a> {
    /// Of the source to itself.
    pub src: AttentionMask<'a>,
    /// Of the target to itself.
    pub tgt: AttentionMask<'a>,
    /// Of the target to the encoder's output.
    pub memory: AttentionMask<'a>,
}

crate::module! {
    MultiHeadAttention { query_proj, key_proj, value_proj, out_proj }
    TransformerEncoderLayer { attention, ln1, ln2, linear1, linear2, dropout1, dropout2 }
    TransformerEncoder { layers, ln }
    TransformerDecoderLayer {
        self_attention, cross_attention, ln1, ln2, ln3, linear1, linear2, dropout1, dropout2,
        dropout3
    }
    TransformerDecoder { layers, ln }
    Transformer { encoder, decoder }
}

impl MultiHeadAttention {
    /// Makes a layer with random projections.
    ///
    /// # Errors
    /// When a size is not positive or does not divide by the heads.
    pub fn new(
        dims: i32,
        num_heads: i32,
        options: MultiHeadAttentionOptions,
    ) -> Result<MultiHeadAttention> {
        const LAYER: &str = "multi_head_attention";
        let query_input_dims = options.query_input_dims.unwrap_or(dims);
        let key_input_dims = options.key_input_dims.unwrap_or(dims);
        let value_input_dims = options.value_input_dims.unwrap_or(key_input_dims);
        let value_dims = options.value_dims.unwrap_or(dims);
        let value_output_dims = options.value_output_dims.unwrap_or(dims);
        let heads = ("num_heads", num_heads);
        make::check_positive(LAYER, &[("dims", dims), ("value_dims", value_dims), heads])?;
        make::check_divides(LAYER, ("dims", dims), heads)?;
        make::check_divides(LAYER, ("value_dims", value_dims), heads)?;
        Ok(MultiHeadAttention {
            query_proj: Linear::new(query_input_dims, dims, options.bias)?,
            key_proj: Linear::new(key_input_dims, dims, options.bias)?,
            value_proj: Linear::new(value_input_dims, value_dims, options.bias)?,
            out_proj: Linear::new(value_dims, value_output_dims, options.bias)?,
            num_heads,
        })
    }

    /// Attends; the scores are scaled by one over the square root of a head's size.
    ///
    /// # Shape
    /// `queries: [B, L, QE]`, `keys: [B, S, KE]`, `values: [B, S, VE] → [B, L, E]`; a mask
    /// broadcasts to `[B, H, L, S]`
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(
        &self,
        queries: &Array,
        keys: &Array,
        values: &Array,
        mask: AttentionMask<'_>,
    ) -> Result<Array> {
        let heads = |x: Array| x.unflatten(-1, [self.num_heads, -1])?.transpose([0, 2, 1, 3]);
        let q = heads(self.query_proj.forward(queries)?)?;
        let k = heads(self.key_proj.forward(keys)?)?;
        let v = heads(self.value_proj.forward(values)?)?;
        let scale = f64::from(q.dim(-1)?).recip().sqrt() as f32;
        self.out_proj.forward(&attention(&q, &k, &v, scale, mask, None)?)
    }

    /// Returns a mask for `n` positions that is zero up to a query's own and the least number of
    /// the dtype behind it. [`AttentionMask::Causal`] does the same without a matrix.
    ///
    /// # Shape
    /// `[N, N]`
    ///
    /// # Errors
    /// When `n` is negative or the dtype has no such number.
    pub fn create_additive_causal_mask(n: i32, dtype: Dtype) -> Result<Array> {
        let least = match dtype {
            Dtype::Float16 => f64::from(half::f16::MIN),
            Dtype::Bfloat16 => f64::from(half::bf16::MIN),
            Dtype::Float32 => f64::from(f32::MIN),
            Dtype::Float64 => f64::MIN,
            _ => return Err(make::invalid("causal_mask", format!("{dtype} is not floating"))),
        };
        make::check_none_negative("causal_mask", "n", &[n])?;
        let positions = Array::range(n)?;
        let is_later = positions.expand_dims(1)?.less(positions.expand_dims(0))?;
        is_later.astype(dtype)?.multiply(least)
    }
}

/// What both kinds of layers have around their attention.
struct Feedforward {
    linear1: Linear,
    linear2: Linear,
}

impl Feedforward {
    fn new(dims: i32, mlp_dims: Option<i32>) -> Result<Feedforward> {
        let too_large = || make::invalid("transformer", format!("dims {dims} is too large"));
        let mlp_dims = match mlp_dims {
            Some(mlp_dims) => mlp_dims,
            None => dims.checked_mul(4).ok_or_else(too_large)?,
        };
        Ok(Feedforward {
            linear1: Linear::new(dims, mlp_dims, true)?,
            linear2: Linear::new(mlp_dims, dims, true)?,
        })
    }
}

/// A mask that goes to a checkpoint's function among its inputs.
#[derive(Clone, Copy)]
enum PassedMask {
    None,
    Causal,
    Input(usize),
}

impl PassedMask {
    fn new(mask: AttentionMask<'_>, inputs: &mut Vec<Array>) -> PassedMask {
        match mask {
            AttentionMask::None => PassedMask::None,
            AttentionMask::Causal => PassedMask::Causal,
            AttentionMask::Array(mask) => {
                inputs.push(mask.clone());
                PassedMask::Input(inputs.len() - 1)
            }
        }
    }

    fn of(self, inputs: &[Array]) -> AttentionMask<'_> {
        match self {
            PassedMask::None => AttentionMask::None,
            PassedMask::Causal => AttentionMask::Causal,
            PassedMask::Input(i) => inputs.get(i).map_or(AttentionMask::None, AttentionMask::Array),
        }
    }
}

fn input(inputs: &[Array], i: usize) -> Result<&Array> {
    inputs.get(i).ok_or_else(|| make::invalid("transformer", "an input is missing"))
}

/// Applies one layer as a checkpoint.
fn checkpointed<M: Module + Clone + 'static>(
    layer: &M,
    inputs: &[Array],
    f: impl Fn(&M, &[Array]) -> Result<Array> + 'static,
) -> Result<Array> {
    let outputs = checkpoint(layer, inputs, move |layer, inputs| Ok(vec![f(layer, inputs)?]))?;
    input(&outputs, 0).cloned()
}

fn check_num_layers(num_layers: i32) -> Result<()> {
    const MAX: i32 = 1 << 16;
    if (0..=MAX).contains(&num_layers) {
        return Ok(());
    }
    Err(make::invalid("transformer", format!("num_layers is {num_layers}, not in 0..={MAX}")))
}

fn layer_norm(dims: i32) -> Result<LayerNorm> {
    LayerNorm::new(dims, LayerNormOptions::default())
}

/// Adds what `part` makes of `x`, with the norm before the part or behind the sum.
fn residual(
    x: &Array,
    norm: &LayerNorm,
    norm_first: bool,
    part: impl Fn(&Array) -> Result<Array>,
) -> Result<Array> {
    if norm_first { x + part(&norm.forward(x)?) } else { norm.forward(&(x + part(x))?) }
}

impl TransformerEncoderLayer {
    /// Makes a layer with random weights.
    ///
    /// # Errors
    /// When a size is not positive, `dims` does not divide by the heads, or the dropout is not in
    /// `0..1`.
    pub fn new(
        dims: i32,
        num_heads: i32,
        options: TransformerLayerOptions,
    ) -> Result<TransformerEncoderLayer> {
        let TransformerLayerOptions { mlp_dims, dropout, activation, norm_first } = options;
        let attention = MultiHeadAttention::new(dims, num_heads, Default::default())?;
        let Feedforward { linear1, linear2 } = Feedforward::new(dims, mlp_dims)?;
        Ok(TransformerEncoderLayer {
            attention,
            ln1: layer_norm(dims)?,
            ln2: layer_norm(dims)?,
            linear1,
            linear2,
            dropout1: Dropout::new(dropout)?,
            dropout2: Dropout::new(dropout)?,
            activation,
            norm_first,
        })
    }

    /// Applies the layer.
    ///
    /// # Shape
    /// `x: [B, L, E] → [B, L, E]`
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, x: &Array, mask: AttentionMask<'_>) -> Result<Array> {
        let x = residual(x, &self.ln1, self.norm_first, |y| {
            self.dropout1.forward(&self.attention.forward(y, y, y, mask)?)
        })?;
        residual(&x, &self.ln2, self.norm_first, |y| {
            let y = self.activation.forward(&self.linear1.forward(y)?)?;
            self.linear2.forward(&self.dropout2.forward(&y)?)
        })
    }
}

impl TransformerEncoder {
    /// Makes an encoder with random weights.
    ///
    /// # Errors
    /// As [`TransformerEncoderLayer::new`], and when `num_layers` is negative or absurd.
    pub fn new(
        num_layers: i32,
        dims: i32,
        num_heads: i32,
        options: TransformerLayerOptions,
    ) -> Result<TransformerEncoder> {
        check_num_layers(num_layers)?;
        let layers =
            (0..num_layers).map(|_| TransformerEncoderLayer::new(dims, num_heads, options.clone()));
        let (layers, ln) = (layers.collect::<Result<_>>()?, layer_norm(dims)?);
        Ok(TransformerEncoder { layers, ln, checkpoint: false })
    }

    /// Applies the layers and the norm.
    ///
    /// # Shape
    /// `x: [B, L, E] → [B, L, E]`
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, x: &Array, mask: AttentionMask<'_>) -> Result<Array> {
        let x = self.layers.iter().try_fold(x.clone(), |x, layer| {
            if !self.checkpoint {
                return layer.forward(&x, mask);
            }
            let mut inputs = vec![x];
            let mask = PassedMask::new(mask, &mut inputs);
            checkpointed(layer, &inputs, move |layer, inputs| {
                layer.forward(input(inputs, 0)?, mask.of(inputs))
            })
        })?;
        self.ln.forward(&x)
    }
}

impl TransformerDecoderLayer {
    /// Makes a layer with random weights.
    ///
    /// # Errors
    /// As [`TransformerEncoderLayer::new`].
    pub fn new(
        dims: i32,
        num_heads: i32,
        options: TransformerLayerOptions,
    ) -> Result<TransformerDecoderLayer> {
        let TransformerLayerOptions { mlp_dims, dropout, activation, norm_first } = options;
        let self_attention = MultiHeadAttention::new(dims, num_heads, Default::default())?;
        let cross_attention = MultiHeadAttention::new(dims, num_heads, Default::default())?;
        let Feedforward { linear1, linear2 } = Feedforward::new(dims, mlp_dims)?;
        Ok(TransformerDecoderLayer {
            self_attention,
            cross_attention,
            ln1: layer_norm(dims)?,
            ln2: layer_norm(dims)?,
            ln3: layer_norm(dims)?,
            linear1,
            linear2,
            dropout1: Dropout::new(dropout)?,
            dropout2: Dropout::new(dropout)?,
            dropout3: Dropout::new(dropout)?,
            activation,
            norm_first,
        })
    }

    /// Applies the layer; `memory` is the encoder's output.
    ///
    /// # Shape
    /// `x: [B, L, E]`, `memory: [B, S, E] → [B, L, E]`
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, x: &Array, memory: &Array, masks: DecoderMasks<'_>) -> Result<Array> {
        let x = residual(x, &self.ln1, self.norm_first, |y| {
            self.dropout1.forward(&self.self_attention.forward(y, y, y, masks.x)?)
        })?;
        let x = residual(&x, &self.ln2, self.norm_first, |y| {
            let y = self.cross_attention.forward(y, memory, memory, masks.memory)?;
            self.dropout2.forward(&y)
        })?;
        residual(&x, &self.ln3, self.norm_first, |y| {
            let y = self.activation.forward(&self.linear1.forward(y)?)?;
            self.linear2.forward(&self.dropout3.forward(&y)?)
        })
    }
}

impl TransformerDecoder {
    /// Makes a decoder with random weights.
    ///
    /// # Errors
    /// As [`TransformerEncoderLayer::new`], and when `num_layers` is negative or absurd.
    pub fn new(
        num_layers: i32,
        dims: i32,
        num_heads: i32,
        options: TransformerLayerOptions,
    ) -> Result<TransformerDecoder> {
        check_num_layers(num_layers)?;
        let layers =
            (0..num_layers).map(|_| TransformerDecoderLayer::new(dims, num_heads, options.clone()));
        let (layers, ln) = (layers.collect::<Result<_>>()?, layer_norm(dims)?);
        Ok(TransformerDecoder { layers, ln, checkpoint: false })
    }

    /// Applies the layers and the norm; `memory` is the encoder's output.
    ///
    /// # Shape
    /// `x: [B, L, E]`, `memory: [B, S, E] → [B, L, E]`
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, x: &Array, memory: &Array, masks: DecoderMasks<'_>) -> Result<Array> {
        let x = self.layers.iter().try_fold(x.clone(), |x, layer| {
            if !self.checkpoint {
                return layer.forward(&x, memory, masks);
            }
            let mut inputs = vec![x, memory.clone()];
            let mask = PassedMask::new(masks.x, &mut inputs);
            let memory_mask = PassedMask::new(masks.memory, &mut inputs);
            checkpointed(layer, &inputs, move |layer, inputs| {
                let masks = DecoderMasks { x: mask.of(inputs), memory: memory_mask.of(inputs) };
                layer.forward(input(inputs, 0)?, input(inputs, 1)?, masks)
            })
        })?;
        self.ln.forward(&x)
    }
}

impl Transformer {
    /// Makes an encoder and a decoder with random weights. Other ones are put together by hand:
    /// the fields are public.
    ///
    /// # Errors
    /// As [`TransformerEncoder::new`].
    pub fn new(options: TransformerOptions) -> Result<Transformer> {
        let TransformerOptions { dims, num_heads, layer, checkpoint, .. } = options;
        let (n_encoder, n_decoder) = (options.num_encoder_layers, options.num_decoder_layers);
        let encoder = TransformerEncoder::new(n_encoder, dims, num_heads, layer.clone())?;
        let decoder = TransformerDecoder::new(n_decoder, dims, num_heads, layer)?;
        Ok(Transformer {
            encoder: TransformerEncoder { checkpoint, ..encoder },
            decoder: TransformerDecoder { checkpoint, ..decoder },
        })
    }

    /// Encodes the source and decodes the target.
    ///
    /// # Shape
    /// `src: [B, S, E]`, `tgt: [B, L, E] → [B, L, E]`
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, src: &Array, tgt: &Array, masks: TransformerMasks<'_>) -> Result<Array> {
        let memory = self.encoder.forward(src, masks.src)?;
        self.decoder.forward(tgt, &memory, DecoderMasks { x: masks.tgt, memory: masks.memory })
    }
}
