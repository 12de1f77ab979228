//! What a kernel makes of a view is what it makes of a copy, bit by bit, whatever the strides are.

use proptest::prelude::*;

use super::{Arithmetic, GatedActivation, KernelOptions, with_options};
use crate::nn::{self, Linear, WeightMatrix};
use crate::quantization::{QuantMode, Quantization};
use crate::{Array, Device, Dtype, Result, Slice, random, with_device};

/// Axes of a view, `[B, L, D]`.
type Shape = [i32; 3];

/// How a view lies in another array.
#[derive(Clone, Copy, Debug)]
enum Layout {
    Swapped,
    Transposed,
    Backwards,
    EveryOther,
    Broadcast,
    Inside,
}

const LAYOUTS: [Layout; 6] = [
    Layout::Swapped,
    Layout::Transposed,
    Layout::Backwards,
    Layout::EveryOther,
    Layout::Broadcast,
    Layout::Inside,
];

fn view([b, l, d]: Shape, layout: Layout, dtype: Dtype, seed: u64) -> Result<Array> {
    let values = |shape: &[i32]| -> Result<Array> {
        random::normal(shape, Dtype::Float32, 0.1, 1.5, Some(&random::key(seed)?))?.astype(dtype)
    };
    match layout {
        Layout::Swapped => values(&[l, b, d])?.swapaxes(0, 1),
        Layout::Transposed => values(&[d, l, b])?.t(),
        Layout::Backwards => values(&[b, l, d])?.at((.., Slice::step(-1), Slice::step(-1))),
        Layout::EveryOther => values(&[b, 2 * l, 3 * d])?.at((.., Slice::step(2), Slice::step(3))),
        Layout::Broadcast => values(&[1, l, d])?.broadcast_to([b, l, d]),
        Layout::Inside => values(&[b + 1, l + 2, d + 3])?.at((1.., 2.., 3..)),
    }
}

/// The same numbers, row by row.
fn copy(x: &Array) -> Result<Array> {
    Array::from_slice(&x.astype(Dtype::Float32)?.to_vec::<f32>()?, x.shape())?.astype(x.dtype())
}

/// All that one pass makes of `x` and `y`, of the same shape.
fn results(x: &Array, y: &Array, layers: &[Linear; 3]) -> Result<Vec<Array>> {
    let [dense, packed, other] = layers;
    let d = x.dim(-1)?;
    let weight = (Array::range(d)? / d)?.astype(x.dtype())?;
    let rope = nn::Rope::new(d / 2, 10_000.0);
    let (sum, normed) = super::add_rms_norm(x, y, &weight, 1e-5)?;
    let mut all = vec![
        super::softmax(x, |x| x.softmax(-1, true))?,
        super::logsumexp(x, true, |x, keepdims| x.logsumexp(-1, keepdims))?,
        super::rms_norm(x, &weight, 1e-5)?,
        super::layer_norm(x, Some(&weight), Some(&weight), 1e-5)?,
        sum,
        normed,
        nn::gated(x, y, GatedActivation::Silu)?,
        nn::gated(x, y, GatedActivation::Gelu)?,
        super::linear(x, dense_weight(dense), None)?,
        rope.forward(&x.expand_dims(1)?, 3)?,
        super::argmax(x, true, |x, keepdims| x.argmax(None, keepdims))?.astype(Dtype::Float32)?,
    ];
    for arithmetic in [Arithmetic::Exact, Arithmetic::Fast] {
        let options = KernelOptions { arithmetic, ..super::options() };
        with_options(options, || -> Result<()> {
            all.push(packed.forward(x)?);
            all.extend(Linear::forward_each([packed, other], x)?);
            all.push(Linear::forward_gated(packed, other, x, GatedActivation::Silu)?);
            Ok(())
        })?;
    }
    Ok(all)
}

fn dense_weight(layer: &Linear) -> &Array {
    match &layer.weight {
        WeightMatrix::Dense(weight) => weight,
        WeightMatrix::Packed(packed) => &packed.weight,
    }
}

fn layers(d: i32, dtype: Dtype, quantization: Quantization) -> Result<[Linear; 3]> {
    let linear = |seed: u64| -> Result<Linear> {
        let key = random::key(seed)?;
        let weight =
            random::normal(&[7, d], Dtype::Float32, 0.0, 0.5, Some(&key))?.astype(dtype)?;
        Ok(Linear { weight: WeightMatrix::Dense(weight.into()), bias: None })
    };
    let mut layers = [linear(1)?, linear(2)?, linear(3)?];
    for layer in &mut layers[1..] {
        layer.weight.quantize(quantization)?;
    }
    Ok(layers)
}

fn check(shape: Shape, layouts: [Layout; 2], dtype: Dtype, mode: QuantMode) -> Result<()> {
    let x = view(shape, layouts[0], dtype, 1)?;
    let y = view(shape, layouts[1], dtype, 2)?;
    let layers = layers(shape[2], dtype, Quantization::of(mode))?;
    let of_views = results(&x, &y, &layers)?;
    let of_copies = results(&copy(&x)?, &copy(&y)?, &layers)?;
    for (i, (found, expected)) in of_views.iter().zip(&of_copies).enumerate() {
        assert_eq!((found.shape(), found.dtype()), (expected.shape(), expected.dtype()));
        let [found, expected] = [found, expected].map(|x| x.astype(Dtype::Float32));
        let (found, expected) = (found?.to_vec::<f32>()?, expected?.to_vec::<f32>()?);
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&found), bits(&expected), "{shape:?} {layouts:?} {dtype} {mode:?}: {i}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn views_are_read_as_copies_are(
        (b, l, groups) in (1..4i32, 1..30i32, 1..5i32),
        layouts in prop::sample::select(LAYOUTS.to_vec()).prop_flat_map(|a| {
            prop::sample::select(LAYOUTS.to_vec()).prop_map(move |b| [a, b])
        }),
        dtype in prop::sample::select(vec![Dtype::Float32, Dtype::Float16, Dtype::Bfloat16]),
        mode in prop::sample::select(QuantMode::ALL.to_vec()),
    ) {
        with_device(Device::Cpu, || check([b, l, 64 * groups], layouts, dtype, mode))
            .expect("it computes");
    }
}
