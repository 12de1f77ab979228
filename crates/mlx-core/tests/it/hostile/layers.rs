//! What no caller should pass to a layer, in a well-made one or in one whose fields were changed.

use std::rc::Rc;

use mlx_core::fast::AttentionMask;
use mlx_core::nn::{self, *};
use mlx_core::transforms::compile;
use mlx_core::{Array, Dtype, Result};

use super::{Case, FLOAT, HUGE, Outputs, f, i, of};

fn conv1(options: ConvOptions<1>) -> Result<Conv1d> {
    Conv1d::new(4, 4, [3], options)
}

fn conv2() -> Result<Conv2d> {
    Conv2d::new(2, 3, [3, 2], ConvOptions::default())
}

fn transposed() -> Result<ConvTranspose1d> {
    ConvTranspose1d::new(4, 4, [3], ConvTransposeOptions::default())
}

fn group() -> Result<GroupNorm> {
    GroupNorm::new(2, 4, GroupNormOptions::default())
}

fn batch() -> Result<BatchNorm> {
    BatchNorm::new(4, BatchNormOptions::default())
}

fn max_pool(kernel_size: i32, padding: i32) -> Result<MaxPool1d> {
    MaxPool1d::new([kernel_size], PoolOptions { padding: [padding], ..PoolOptions::default() })
}

fn avg_pool(stride: i32) -> Result<AvgPool2d> {
    AvgPool2d::new([2, 2], PoolOptions { stride: Some([stride; 2]), ..PoolOptions::default() })
}

fn upsample(scale: f64, mode: UpsampleMode) -> Result<Upsample> {
    Upsample::new(scale, UpsampleOptions { mode, ..UpsampleOptions::default() })
}

fn antialias(scale: f64) -> Result<Upsample> {
    let mode = UpsampleMode::Cubic;
    Upsample::new(scale, UpsampleOptions { mode, antialias: true, align_corners: false })
}

fn attention() -> Result<MultiHeadAttention> {
    MultiHeadAttention::new(4, 2, MultiHeadAttentionOptions::default())
}

fn attend(q: &[i32], k: &[i32], v: &[i32], mask: AttentionMask<'_>) -> Result<Array> {
    attention()?.forward(&f(q), &f(k), &f(v), mask)
}

/// Calls a layer after something was done to it.
fn changed<M>(
    layer: Result<M>,
    change: impl FnOnce(&mut M),
    call: impl FnOnce(&M) -> Result<Array>,
) -> Result<Array> {
    let mut layer = layer?;
    change(&mut layer);
    call(&layer)
}

fn scores(shape: &[i32], offset: i32) -> Result<Array> {
    Alibi.forward(&f(shape), offset, None)
}

fn lstm(x: &[i32], hidden: &[i32], cell: &[i32]) -> Result<Array> {
    let state = LstmState { hidden: f(hidden), cell: f(cell) };
    Ok(Lstm::new(3, 4, true)?.forward(&f(x), Some(&state))?.cell)
}

/// Puts what only stands for an array into a layer's state.
fn traced_state() -> Result<Array> {
    let layer = Rc::new(batch()?);
    let inner = layer.clone();
    let compiled = compile(move |x| Ok(vec![inner.forward(&x[0])?]), false)?;
    compiled.call(&[f(&[3, 4])])?;
    match &layer.running_mean {
        Some(mean) => mean.get() + 1.0,
        None => Ok(f(&[])),
    }
}

pub(super) static CASES: &[Case] = cases! {
    refused {
        Linear::new(3, 4, true)?.forward(&f(&[2, 4]));
        Linear::new(3, 4, true)?.forward(&f(&[]));
        Bilinear::new(3, 4, 2, true)?.forward(&f(&[2, 3]), &f(&[3, 4]));
        Bilinear::new(3, 4, 2, true)?.forward(&f(&[2, 4]), &f(&[2, 3]));
        Bilinear::new(3, 4, 2, true)?.forward(&f(&[]), &f(&[]));
        Embedding::new(3, 4)?.forward(&f(&[2]));
        conv1(ConvOptions::default())?.forward(&f(&[2, 2, 4]));
        conv1(ConvOptions::default())?.forward(&f(&[2, 9, 3]));
        conv1(ConvOptions::default())?.forward(&f(&[9, 4]));
        conv1(ConvOptions::default())?.forward(&f(&[]));
        conv1(ConvOptions::default())?.forward(&i(&[1, 2, 3]));
        conv1(ConvOptions { dilation: [HUGE], ..Default::default() })?.forward(&f(&[1, 9, 4]));
        conv2()?.forward(&f(&[1, 9, 2]));
        transposed()?.forward(&f(&[1, 9, 3]));
        transposed()?.forward(&f(&[9, 4]));
        changed(conv1(ConvOptions::default()), |m| m.groups = 0, |m| m.forward(&f(&[1, 9, 4])));
        changed(conv1(ConvOptions::default()), |m| m.groups = -1, |m| m.forward(&f(&[1, 9, 4])));
        changed(conv1(ConvOptions::default()), |m| m.stride = [0], |m| m.forward(&f(&[1, 9, 4])));
        changed(conv1(ConvOptions::default()), |m| m.dilation = [-1], |m| m.forward(&f(&[1, 9, 4])));
        changed(transposed(), |m| m.stride = [0], |m| m.forward(&f(&[1, 9, 4])));
        group()?.forward(&f(&[2, 3]));
        group()?.forward(&f(&[]));
        changed(group(), |m| m.num_groups = 0, |m| m.forward(&f(&[2, 4])));
        changed(group(), |m| m.num_groups = -2, |m| m.forward(&f(&[2, 4])));
        InstanceNorm::new(4, 1e-5, false)?.forward(&f(&[2, 4]));
        InstanceNorm::new(4, 1e-5, false)?.forward(&f(&[2, 3, 5]));
        batch()?.forward(&f(&[4]));
        batch()?.forward(&f(&[1, 4]));
        batch()?.forward(&f(&[0, 4]));
        batch()?.forward(&f(&[3, 1]));
        batch()?.forward(&f(&[2, 2, 2, 2, 4]));
        changed(Dropout::new(0.5), |m| m.p = 1.0, |m| m.forward(&f(&[2])));
        changed(Dropout::new(0.5), |m| m.p = f32::NAN, |m| m.forward(&f(&[2])));
        Dropout2d::new(0.5)?.forward(&f(&[2, 2]));
        Dropout3d::new(0.5)?.forward(&f(&[2, 2, 2]));
        scores(&[4], 0);
        scores(&[1, 0, 2, 2], 0);
        scores(&[1, 2, 2, 2], -1);
        scores(&[1, 2, 2, 2], HUGE);
        Alibi::create_alibi_slope(HUGE, FLOAT);
        attend(&[1, 3, 4], &[1, 3, 4], &[1, 2, 4], AttentionMask::None);
        attend(&[3, 4], &[3, 4], &[3, 4], AttentionMask::None);
        attend(&[1, 3, 5], &[1, 3, 4], &[1, 3, 4], AttentionMask::None);
        attend(&[1, 3, 4], &[1, 3, 4], &[1, 3, 4], AttentionMask::Array(&f(&[7, 7])));
        changed(attention(), |m| m.num_heads = 0, |m| {
            m.forward(&f(&[1, 2, 4]), &f(&[1, 2, 4]), &f(&[1, 2, 4]), AttentionMask::None)
        });
        changed(attention(), |m| m.num_heads = -1, |m| {
            m.forward(&f(&[1, 2, 4]), &f(&[1, 2, 4]), &f(&[1, 2, 4]), AttentionMask::None)
        });
        MultiHeadAttention::create_additive_causal_mask(HUGE, FLOAT);
        Rnn::new(3, 4, true)?.forward(&f(&[2, 0, 3]), None);
        Rnn::new(3, 4, true)?.forward(&f(&[3]), None);
        Rnn::new(3, 4, true)?.forward(&f(&[2, 5, 4]), None);
        Rnn::new(3, 4, true)?.forward(&f(&[2, 5, 3]), Some(&f(&[2, 3])));
        Gru::new(3, 4, true)?.forward(&f(&[]), None);
        Gru::new(3, 4, true)?.forward(&f(&[2, 5, 3]), Some(&f(&[3, 4])));
        changed(Gru::new(3, 4, true), |m| m.wx = f(&[7, 3]).into(), |m| m.forward(&f(&[5, 3]), None));
        lstm(&[2, 5, 3], &[2, 5], &[2, 4]);
        lstm(&[2, 5, 3], &[2, 4], &[3, 4]);
        lstm(&[2, 0, 3], &[2, 4], &[2, 4]);
        max_pool(3, 0)?.forward(&f(&[1, 2, 1]));
        max_pool(3, 0)?.forward(&f(&[1, 2]));
        max_pool(3, HUGE)?.forward(&f(&[1, 2, 1]));
        max_pool(HUGE, 0)?.forward(&f(&[1, 2, 1]));
        avg_pool(1)?.forward(&f(&[1, 2, 1]));
        avg_pool(1)?.forward(&f(&[1, 0, 2, 1]));
        changed(max_pool(3, 0), |m| m.kernel_size = [0], |m| m.forward(&f(&[1, 4, 1])));
        changed(max_pool(3, 0), |m| m.stride = [0], |m| m.forward(&f(&[1, 4, 1])));
        changed(max_pool(3, 0), |m| m.padding = [-1], |m| m.forward(&f(&[1, 4, 1])));
        upsample(2.0, UpsampleMode::Nearest)?.forward(&f(&[2, 4]));
        upsample(2.0, UpsampleMode::Nearest)?.forward(&f(&[1, 0, 4]));
        upsample(0.1, UpsampleMode::Nearest)?.forward(&f(&[1, 4, 4]));
        upsample(0.1, UpsampleMode::Linear)?.forward(&f(&[1, 4, 4]));
        upsample(1e300, UpsampleMode::Cubic)?.forward(&f(&[1, 4, 4]));
        upsample(1e9, UpsampleMode::Nearest)?.forward(&f(&[1, 4, 4]));
        upsample(1e6, UpsampleMode::Nearest)?.forward(&f(&[1, 4, 4, 4, 4]));
        Upsample::new([2.0, 2.0], UpsampleOptions::default())?.forward(&f(&[1, 4, 4]));
        antialias(1e-7)?.forward(&f(&[1, 1 << 24, 1]));
        PRelu::new(3, 0.1)?.forward(&f(&[2, 4]));
        Sequential::new().push(Linear::new(3, 4, true)?).forward(&f(&[2, 4]));
    }
    survived {
        Linear::new(3, 4, true)?.forward(&f(&[0, 3]));
        Bilinear::new(3, 4, 2, true)?.forward(&f(&[0, 3]), &f(&[0, 4]));
        Embedding::new(3, 4)?.forward(&of(&[0], Dtype::Int32));
        conv1(ConvOptions::default())?.forward(&f(&[0, 9, 4]));
        conv1(ConvOptions { padding: [3], ..Default::default() })?.forward(&f(&[1, 0, 4]));
        conv1(ConvOptions { stride: [HUGE], ..Default::default() })?.forward(&f(&[1, 9, 4]));
        conv1(ConvOptions { padding: [HUGE], ..Default::default() })?.forward(&f(&[1, 9, 4]));
        conv1(ConvOptions { groups: 4, ..Default::default() })?.forward(&f(&[0, 9, 4]));
        conv2()?.forward(&f(&[1, 0, 9, 2]));
        transposed()?.forward(&f(&[0, 9, 4]));
        transposed()?.forward(&f(&[1, 0, 4]));
        changed(transposed(), |m| m.padding = [HUGE], |m| m.forward(&f(&[1, 9, 4])));
        changed(transposed(), |m| m.output_padding = [-9], |m| m.forward(&f(&[1, 9, 4])));
        changed(conv1(ConvOptions::default()), |m| m.padding = [-1], |m| m.forward(&f(&[1, 9, 4])));
        changed(conv1(ConvOptions::default()), |m| m.padding = [-9], |m| m.forward(&f(&[1, 9, 4])));
        changed(conv1(ConvOptions::default()), |m| m.weight = f(&[0, 3, 4]).into(), |m| {
            m.forward(&f(&[1, 9, 4]))
        });
        changed(conv1(ConvOptions::default()), |m| m.weight = f(&[4, 0, 4]).into(), |m| {
            m.forward(&f(&[1, 9, 4]))
        });
        changed(conv1(ConvOptions::default()), |m| m.weight = f(&[]).into(), |m| {
            m.forward(&f(&[1, 9, 4]))
        });
        LayerNorm::new(4, LayerNormOptions::default())?.forward(&f(&[0, 4]));
        group()?.forward(&f(&[0, 4]));
        group()?.forward(&f(&[2, 0, 4]));
        group()?.forward(&f(&[4]));
        group()?.forward(&of(&[2, 4], Dtype::Int32));
        changed(group(), |m| m.pytorch_compatible = true, |m| m.forward(&f(&[0, 4])));
        changed(group(), |m| m.pytorch_compatible = true, |m| m.forward(&f(&[2, 0, 4])));
        InstanceNorm::new(4, 1e-5, true)?.forward(&f(&[2, 0, 4]));
        InstanceNorm::new(4, 1e-5, true)?.forward(&f(&[0, 2, 4]));
        batch()?.forward(&of(&[3, 4], Dtype::Int32));
        changed(batch(), |m| m.train(false), |m| m.forward(&f(&[0, 4])));
        changed(batch(), |m| m.running_mean = None, |m| m.forward(&f(&[3, 4])));
        changed(batch(), |m| m.running_mean = Some(f(&[3]).into()), |m| m.forward(&f(&[3, 4])));
        Dropout::new(0.5)?.forward(&f(&[0]));
        Dropout::new(0.5)?.forward(&f(&[]));
        Dropout::new(0.5)?.forward(&of(&[3], Dtype::Bool));
        Dropout2d::new(0.5)?.forward(&f(&[0, 2, 2, 3]));
        SinusoidalPositionalEncoding::new(4, SinusoidalOptions::default())?.forward(&f(&[]));
        SinusoidalPositionalEncoding::new(4, SinusoidalOptions::default())?.forward(&f(&[0]));
        scores(&[1, 2, 0, 3], 0);
        scores(&[1, 2, 3, 0], 5);
        scores(&[0, 2, 3, 4], 0);
        attend(&[0, 3, 4], &[0, 3, 4], &[0, 3, 4], AttentionMask::None);
        attend(&[1, 0, 4], &[1, 3, 4], &[1, 3, 4], AttentionMask::Causal);
        attend(&[1, 3, 4], &[1, 0, 4], &[1, 0, 4], AttentionMask::None);
        TransformerEncoder::new(0, 4, 2, TransformerLayerOptions::default())?
            .forward(&f(&[1, 2, 4]), AttentionMask::None);
        Rnn::new(3, 4, true)?.forward(&f(&[0, 5, 3]), None);
        Gru::new(3, 4, false)?.forward(&f(&[0, 5, 3]), Some(&f(&[0, 4])));
        lstm(&[0, 5, 3], &[0, 4], &[0, 4]);
        max_pool(3, 3)?.forward(&f(&[1, 2, 1]));
        max_pool(1, 0)?.forward(&f(&[0, 2, 1]));
        max_pool(1, 0)?.forward(&f(&[1, 2, 0]));
        max_pool(3, 3)?.forward(&f(&[1, 0, 1]));
        max_pool(3, 1)?.forward(&of(&[1, 4, 1], Dtype::Int32));
        max_pool(3, 1)?.forward(&of(&[1, 4, 1], Dtype::Bool));
        max_pool(3, 1)?.forward(&f(&[1, 1, 4]).swapaxes(1, 2)?);
        avg_pool(HUGE)?.forward(&f(&[1, 4, 4, 1]));
        avg_pool(1)?.forward(&f(&[0, 4, 4, 1]));
        upsample(3.0, UpsampleMode::Nearest)?.forward(&f(&[0, 2, 2]));
        upsample(1.5, UpsampleMode::Nearest)?.forward(&f(&[0, 2, 0]));
        upsample(1.5, UpsampleMode::Linear)?.forward(&f(&[0, 2, 0]));
        upsample(1.0, UpsampleMode::Cubic)?.forward(&f(&[1, 1, 1]));
        upsample(1.5, UpsampleMode::Cubic)?.forward(&of(&[1, 4, 1], Dtype::Bool));
        antialias(0.01)?.forward(&f(&[1, 200, 1]));
        PRelu::new(1, 0.1)?.forward(&f(&[0]));
        traced_state();
        nn::Identity.forward(&f(&[0]));
        Sequential::new().forward(&f(&[0]));
    }
};
