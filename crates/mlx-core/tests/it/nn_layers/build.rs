//! Layers out of the names and arguments of Python's constructors.

use mlx_core::fast::AttentionMask;
use mlx_core::nn::{
    self, Activation, Layer, LstmState, Module, Sequential, TransformerLayerOptions, Visitor,
    VisitorMut,
};
use mlx_core::{Array, Result};
use serde_json::Value;

/// An argument of a layer's forward pass.
#[derive(Clone)]
pub(super) enum Input {
    None,
    Causal,
    Array(Array),
}

impl Input {
    fn array(&self) -> &Array {
        self.optional().expect("an array")
    }

    fn optional(&self) -> Option<&Array> {
        match self {
            Input::Array(array) => Some(array),
            _ => None,
        }
    }

    fn mask(&self) -> AttentionMask<'_> {
        match self {
            Input::None => AttentionMask::None,
            Input::Causal => AttentionMask::Causal,
            Input::Array(mask) => AttentionMask::Array(mask),
        }
    }
}

/// A layer that is called as the fixture does.
pub(super) trait Case: Module {
    fn call(&self, inputs: &[Input]) -> Result<Vec<Array>>;
}

struct With<M, F> {
    module: M,
    call: F,
}

impl<M: Module, F> Module for With<M, F> {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        self.module.visit(visitor);
    }
    fn visit_mut(&mut self, visitor: &mut VisitorMut<'_>) -> Result<()> {
        self.module.visit_mut(visitor)
    }
}

impl<M: Module, F: Fn(&M, &[Input]) -> Result<Vec<Array>>> Case for With<M, F> {
    fn call(&self, inputs: &[Input]) -> Result<Vec<Array>> {
        (self.call)(&self.module, inputs)
    }
}

fn with<M: Module + 'static>(
    module: M,
    call: impl Fn(&M, &[Input]) -> Result<Array> + 'static,
) -> Box<dyn Case> {
    Box::new(With { module, call: move |m: &M, x: &[Input]| Ok(vec![call(m, x)?]) })
}

/// Keyword arguments with Python's defaults.
struct Args<'a>(&'a Value);

impl Args<'_> {
    fn int(&self, key: &str) -> i32 {
        self.optional_int(key).unwrap_or_else(|| panic!("no {key} in {}", self.0))
    }
    fn optional_int(&self, key: &str) -> Option<i32> {
        self.0[key].as_i64().map(|n| n as i32)
    }
    fn float(&self, key: &str, default: f64) -> f64 {
        self.0[key].as_f64().unwrap_or(default)
    }
    fn flag(&self, key: &str, default: bool) -> bool {
        self.0[key].as_bool().unwrap_or(default)
    }
    fn text(&self, key: &str) -> Option<&str> {
        self.0[key].as_str()
    }
    /// One number for each axis, or one for all.
    fn sizes<const N: usize>(&self, key: &str) -> Option<[i32; N]> {
        match &self.0[key] {
            Value::Null => None,
            Value::Array(list) => Some(std::array::from_fn(|i| list[i].as_i64().unwrap() as i32)),
            number => Some([number.as_i64().unwrap() as i32; N]),
        }
    }
    fn activation(&self, key: &str) -> Option<Activation> {
        Some(match self.text(key)? {
            "relu" => Activation::new(nn::relu),
            "gelu" => Activation::new(nn::gelu),
            "silu" => Activation::new(nn::silu),
            other => panic!("activation {other}"),
        })
    }
    fn conv<const N: usize>(&self) -> Result<nn::Conv<N>> {
        let default = nn::ConvOptions::<N>::default();
        let options = nn::ConvOptions {
            stride: self.sizes("stride").unwrap_or(default.stride),
            padding: self.sizes("padding").unwrap_or(default.padding),
            dilation: self.sizes("dilation").unwrap_or(default.dilation),
            groups: self.optional_int("groups").unwrap_or(default.groups),
            bias: self.flag("bias", default.bias),
        };
        let kernel_size = self.sizes("kernel_size").expect("a kernel");
        nn::Conv::new(self.int("in_channels"), self.int("out_channels"), kernel_size, options)
    }
    fn conv_transpose<const N: usize>(&self) -> Result<nn::ConvTranspose<N>> {
        let default = nn::ConvTransposeOptions::<N>::default();
        let options = nn::ConvTransposeOptions {
            stride: self.sizes("stride").unwrap_or(default.stride),
            padding: self.sizes("padding").unwrap_or(default.padding),
            dilation: self.sizes("dilation").unwrap_or(default.dilation),
            output_padding: self.sizes("output_padding").unwrap_or(default.output_padding),
            bias: self.flag("bias", default.bias),
        };
        let kernel_size = self.sizes("kernel_size").expect("a kernel");
        let (from, to) = (self.int("in_channels"), self.int("out_channels"));
        nn::ConvTranspose::new(from, to, kernel_size, options)
    }
    fn pool<const N: usize>(&self) -> ([i32; N], nn::PoolOptions<N>) {
        let padding = self.sizes("padding").unwrap_or([0; N]);
        let options = nn::PoolOptions { stride: self.sizes("stride"), padding };
        (self.sizes("kernel_size").expect("a kernel"), options)
    }
    fn attention(&self) -> Result<nn::MultiHeadAttention> {
        let options = nn::MultiHeadAttentionOptions {
            query_input_dims: self.optional_int("query_input_dims"),
            key_input_dims: self.optional_int("key_input_dims"),
            value_input_dims: self.optional_int("value_input_dims"),
            value_dims: self.optional_int("value_dims"),
            value_output_dims: self.optional_int("value_output_dims"),
            bias: self.flag("bias", false),
        };
        nn::MultiHeadAttention::new(self.int("dims"), self.int("num_heads"), options)
    }
    fn transformer_layer(&self) -> TransformerLayerOptions {
        let default = TransformerLayerOptions::default();
        TransformerLayerOptions {
            mlp_dims: self.optional_int("mlp_dims"),
            dropout: self.float("dropout", 0.0) as f32,
            activation: self.activation("activation").unwrap_or(default.activation),
            norm_first: self.flag("norm_first", true),
        }
    }
    fn upsample(&self) -> Result<nn::Upsample> {
        let factors: nn::ScaleFactor = match &self.0["scale_factor"] {
            Value::Array(list) => {
                list.iter().map(|f| f.as_f64().unwrap()).collect::<Vec<_>>().as_slice().into()
            }
            factor => factor.as_f64().unwrap().into(),
        };
        let mode = match self.text("mode") {
            None | Some("nearest") => nn::UpsampleMode::Nearest,
            Some("linear") => nn::UpsampleMode::Linear,
            Some("cubic") => nn::UpsampleMode::Cubic,
            Some(other) => panic!("mode {other}"),
        };
        let (align_corners, antialias) =
            (self.flag("align_corners", false), self.flag("antialias", false));
        nn::Upsample::new(factors, nn::UpsampleOptions { mode, align_corners, antialias })
    }
}

/// Makes a layer of one input.
fn build_layer(layer: &str, args: &Value) -> Result<Box<dyn Layer>> {
    let args = Args(args);
    let eps = args.float("eps", 1e-5) as f32;
    Ok(match layer {
        "Linear" => {
            let bias = args.flag("bias", true);
            Box::new(nn::Linear::new(args.int("input_dims"), args.int("output_dims"), bias)?)
        }
        "Identity" => Box::new(nn::Identity),
        "ReLU" => Box::new(Activation::new(nn::relu)),
        "Embedding" => Box::new(nn::Embedding::new(args.int("num_embeddings"), args.int("dims"))?),
        "Conv1d" => Box::new(args.conv::<1>()?),
        "Conv2d" => Box::new(args.conv::<2>()?),
        "Conv3d" => Box::new(args.conv::<3>()?),
        "ConvTranspose1d" => Box::new(args.conv_transpose::<1>()?),
        "ConvTranspose2d" => Box::new(args.conv_transpose::<2>()?),
        "ConvTranspose3d" => Box::new(args.conv_transpose::<3>()?),
        "LayerNorm" => {
            let (affine, bias) = (args.flag("affine", true), args.flag("bias", true));
            let options = nn::LayerNormOptions { eps, affine, bias };
            Box::new(nn::LayerNorm::new(args.int("dims"), options)?)
        }
        "RMSNorm" => Box::new(nn::RmsNorm::new(args.int("dims"), eps)?),
        "GroupNorm" => {
            let options = nn::GroupNormOptions {
                eps,
                affine: args.flag("affine", true),
                pytorch_compatible: args.flag("pytorch_compatible", false),
            };
            Box::new(nn::GroupNorm::new(args.int("num_groups"), args.int("dims"), options)?)
        }
        "InstanceNorm" => {
            Box::new(nn::InstanceNorm::new(args.int("dims"), eps, args.flag("affine", false))?)
        }
        "BatchNorm" => {
            let options = nn::BatchNormOptions {
                eps,
                momentum: args.float("momentum", 0.1) as f32,
                affine: args.flag("affine", true),
                track_running_stats: args.flag("track_running_stats", true),
            };
            Box::new(nn::BatchNorm::new(args.int("num_features"), options)?)
        }
        "Dropout" => Box::new(nn::Dropout::new(args.float("p", 0.5) as f32)?),
        "Dropout2d" => Box::new(nn::Dropout2d::new(args.float("p", 0.5) as f32)?),
        "Dropout3d" => Box::new(nn::Dropout3d::new(args.float("p", 0.5) as f32)?),
        "SinusoidalPositionalEncoding" => {
            let default = nn::SinusoidalOptions::default();
            let options = nn::SinusoidalOptions {
                min_freq: args.float("min_freq", default.min_freq),
                max_freq: args.float("max_freq", default.max_freq),
                scale: args.0["scale"].as_f64(),
                cos_first: args.flag("cos_first", false),
                full_turns: args.flag("full_turns", false),
            };
            Box::new(nn::SinusoidalPositionalEncoding::new(args.int("dims"), options)?)
        }
        "MaxPool1d" => {
            let (kernel_size, options) = args.pool();
            Box::new(nn::MaxPool1d::new(kernel_size, options)?)
        }
        "MaxPool2d" => {
            let (kernel_size, options) = args.pool();
            Box::new(nn::MaxPool2d::new(kernel_size, options)?)
        }
        "MaxPool3d" => {
            let (kernel_size, options) = args.pool();
            Box::new(nn::MaxPool3d::new(kernel_size, options)?)
        }
        "AvgPool1d" => {
            let (kernel_size, options) = args.pool();
            Box::new(nn::AvgPool1d::new(kernel_size, options)?)
        }
        "AvgPool2d" => {
            let (kernel_size, options) = args.pool();
            Box::new(nn::AvgPool2d::new(kernel_size, options)?)
        }
        "AvgPool3d" => {
            let (kernel_size, options) = args.pool();
            Box::new(nn::AvgPool3d::new(kernel_size, options)?)
        }
        "Upsample" => Box::new(args.upsample()?),
        "PReLU" => {
            let n = args.optional_int("num_parameters").unwrap_or(1);
            Box::new(nn::PRelu::new(n, args.float("init", 0.25) as f32)?)
        }
        "Sequential" => {
            let mut sequential = Sequential::new();
            for each in args.0["layers"].as_array().expect("a list of layers") {
                sequential = sequential.push(build_layer(each[0].as_str().unwrap(), &each[1])?);
            }
            Box::new(sequential)
        }
        other => panic!("layer {other}"),
    })
}

/// Makes a layer of any inputs; `options` are the keyword arguments of its forward pass.
pub(super) fn build(layer: &str, args: &Value, options: &Value) -> Result<Box<dyn Case>> {
    let keywords = Args(args);
    let offset = Args(options).optional_int("offset").unwrap_or(0);
    let sizes = || (keywords.int("input_size"), keywords.int("hidden_size"));
    let bias = keywords.flag("bias", true);
    Ok(match layer {
        "Bilinear" => {
            let (in1, in2) = (keywords.int("input1_dims"), keywords.int("input2_dims"));
            let layer = nn::Bilinear::new(in1, in2, keywords.int("output_dims"), bias)?;
            with(layer, |m, x| m.forward(x[0].array(), x[1].array()))
        }
        "RoPE" => {
            let mut rope =
                nn::Rope::new(keywords.int("dims"), keywords.float("base", 10000.0) as f32);
            rope.traditional = keywords.flag("traditional", false);
            rope.scale = keywords.float("scale", 1.0) as f32;
            with(rope, move |m, x| m.forward(x[0].array(), offset))
        }
        "ALiBi" => with(nn::Alibi, move |m, x| {
            m.forward(x[0].array(), offset, x.get(1).and_then(Input::optional))
        }),
        "MultiHeadAttention" => with(keywords.attention()?, |m, x| {
            m.forward(x[0].array(), x[1].array(), x[2].array(), x[3].mask())
        }),
        "TransformerEncoderLayer" => {
            let (dims, heads) = (keywords.int("dims"), keywords.int("num_heads"));
            let options = keywords.transformer_layer();
            let layer = nn::TransformerEncoderLayer::new(dims, heads, options)?;
            with(layer, |m, x| m.forward(x[0].array(), x[1].mask()))
        }
        "TransformerEncoder" => {
            let (dims, heads) = (keywords.int("dims"), keywords.int("num_heads"));
            let n = keywords.int("num_layers");
            let mut layer =
                nn::TransformerEncoder::new(n, dims, heads, keywords.transformer_layer())?;
            layer.checkpoint = keywords.flag("checkpoint", false);
            with(layer, |m, x| m.forward(x[0].array(), x[1].mask()))
        }
        "TransformerDecoderLayer" => {
            let (dims, heads) = (keywords.int("dims"), keywords.int("num_heads"));
            let options = keywords.transformer_layer();
            let layer = nn::TransformerDecoderLayer::new(dims, heads, options)?;
            with(layer, |m, x| {
                let masks = nn::DecoderMasks { x: x[2].mask(), memory: x[3].mask() };
                m.forward(x[0].array(), x[1].array(), masks)
            })
        }
        "TransformerDecoder" => {
            let (dims, heads) = (keywords.int("dims"), keywords.int("num_heads"));
            let n = keywords.int("num_layers");
            let mut layer =
                nn::TransformerDecoder::new(n, dims, heads, keywords.transformer_layer())?;
            layer.checkpoint = keywords.flag("checkpoint", false);
            with(layer, |m, x| {
                let masks = nn::DecoderMasks { x: x[2].mask(), memory: x[3].mask() };
                m.forward(x[0].array(), x[1].array(), masks)
            })
        }
        "Transformer" => {
            let layer = nn::Transformer::new(nn::TransformerOptions {
                dims: keywords.int("dims"),
                num_heads: keywords.int("num_heads"),
                num_encoder_layers: keywords.int("num_encoder_layers"),
                num_decoder_layers: keywords.int("num_decoder_layers"),
                layer: keywords.transformer_layer(),
                checkpoint: keywords.flag("checkpoint", false),
            })?;
            with(layer, |m, x| {
                let masks = nn::TransformerMasks {
                    src: x[2].mask(),
                    tgt: x[3].mask(),
                    memory: x[4].mask(),
                };
                m.forward(x[0].array(), x[1].array(), masks)
            })
        }
        "RNN" => {
            let mut layer = nn::Rnn::new(sizes().0, sizes().1, bias)?;
            if let Some(nonlinearity) = keywords.activation("nonlinearity") {
                layer.nonlinearity = nonlinearity;
            }
            with(layer, |m, x| m.forward(x[0].array(), x[1].optional()))
        }
        "GRU" => with(nn::Gru::new(sizes().0, sizes().1, bias)?, |m, x| {
            m.forward(x[0].array(), x[1].optional())
        }),
        "LSTM" => {
            let module = nn::Lstm::new(sizes().0, sizes().1, bias)?;
            let call = |m: &nn::Lstm, x: &[Input]| {
                let state = x[1].optional().cloned().zip(x[2].optional().cloned());
                let state = state.map(|(hidden, cell)| LstmState { hidden, cell });
                let LstmState { hidden, cell } = m.forward(x[0].array(), state.as_ref())?;
                Ok(vec![hidden, cell])
            };
            Box::new(With { module, call })
        }
        _ => with(build_layer(layer, args)?, |m, x| m.forward(x[0].array())),
    })
}
