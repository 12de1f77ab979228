use super::*;
use crate::nn::GatedActivation;

fn ones(shape: &[i32], dtype: Dtype) -> Array {
    ops::ones(shape, dtype).expect("ones")
}

fn weights(tensors: &[(&str, &[i32], Dtype)]) -> Weights {
    Weights::from_arrays(
        tensors.iter().map(|(name, shape, dtype)| ((*name).to_owned(), ones(shape, *dtype))),
    )
}

fn report(weights: &Weights) -> WeightsReport {
    let error = weights.finish().expect_err("something is wrong");
    assert_eq!(error.kind(), ErrorKind::Weights);
    error.weights().expect("a report").clone()
}

#[test]
fn everything_wrong_is_reported_at_once() -> Result<()> {
    let w = weights(&[
        ("a.weight", &[2, 3], Dtype::Float32),
        ("b.weight", &[9, 9], Dtype::Float32),
        ("stray", &[1], Dtype::Float32),
    ]);
    w.linear("a", 3, 2, true)?;
    w.linear("b", 3, 2, false)?;
    w.at("deep").rms_norm("c", 4, 1e-5)?;
    let report = report(&w);
    assert_eq!(report.missing, ["a.bias", "deep.c.weight"]);
    assert_eq!(report.unexpected, ["stray"]);
    let [mismatch] = &report.mismatched[..] else { panic!("{report}") };
    assert_eq!(mismatch.name, "b.weight");
    assert_eq!(mismatch.expected, "[2, 3]");
    let text = report.to_string();
    assert!(text.starts_with("weights do not fit the model: 2 missing, 1 unexpected"), "{text}");
    Ok(())
}

#[test]
fn what_fits_is_taken_once() -> Result<()> {
    let w = weights(&[("a.weight", &[2, 3], Dtype::Float32)]);
    assert!(w.at("a").contains("weight"));
    w.linear("a", 3, 2, false)?;
    w.finish()?;
    assert_eq!((w.n_parameters(), w.n_bytes()), (6, 24));
    w.linear("a", 3, 2, false)?;
    assert_eq!(report(&w).missing, ["a.weight"]);
    Ok(())
}

#[test]
fn formats_are_read_off_the_shapes() {
    use QuantMode::{Affine, Mxfp4, Mxfp8, Nvfp4};
    let u8 = Dtype::Uint8;
    let f16 = Dtype::Float16;
    // inputs, packed words, scales, dtype of scales
    let cases = [
        ((128, 16, 2, f16), Some((64, 4, Affine))),
        ((128, 12, 4, f16), Some((32, 3, Affine))),
        ((128, 20, 1, f16), Some((128, 5, Affine))),
        ((128, 32, 2, f16), Some((64, 8, Affine))),
        ((128, 16, 4, u8), Some((32, 4, Mxfp4))),
        ((128, 16, 8, u8), Some((16, 4, Nvfp4))),
        ((128, 32, 4, u8), Some((32, 8, Mxfp8))),
        ((128, 32, 8, u8), None),
        ((128, 28, 2, f16), None),
        ((128, 16, 8, f16), None),
        ((128, 16, 3, f16), None),
        ((128, 16, 0, f16), None),
    ];
    for ((inputs, words, scales, dtype), expected) in cases {
        let found = infer(inputs, words, scales, dtype, None);
        let expected =
            expected.map(|(group_size, bits, mode)| Quantization { group_size, bits, mode });
        assert_eq!(found, expected, "{inputs} {words} {scales} {dtype}");
    }
    let declared = Some(Quantization::of(Nvfp4));
    assert_eq!(infer(128, 16, 4, u8, declared), None, "another format than declared");
}

fn packed(weight: &[i32], scales: &[i32]) -> Weights {
    weights(&[
        ("a.weight", weight, Dtype::Uint32),
        ("a.scales", scales, Dtype::Float32),
        ("a.biases", scales, Dtype::Float32),
    ])
    .with_quantization(Some(QuantizationConfig::default()))
}

#[test]
fn packed_layers_are_checked_like_dense_ones() -> Result<()> {
    let w = packed(&[4, 16], &[4, 2]);
    let linear = w.linear("a", 128, 4, false)?;
    w.finish()?;
    assert_eq!(w.n_parameters(), 512);
    assert_eq!(linear.forward(&ones(&[1, 128], Dtype::Float32))?.shape(), [1, 4]);

    let w = packed(&[3, 16], &[4, 2]);
    w.linear("a", 128, 4, false)?;
    assert_eq!(report(&w).mismatched[0].name, "a.weight");

    let w = packed(&[4, 16], &[5, 2]);
    w.linear("a", 128, 4, false)?;
    assert_eq!(report(&w).mismatched[0].name, "a.scales");

    let w =
        weights(&[("a.weight", &[4, 16], Dtype::Uint32), ("a.scales", &[4, 2], Dtype::Float32)])
            .with_quantization(Some(QuantizationConfig::default()));
    w.linear("a", 128, 4, false)?;
    assert_eq!(report(&w).missing, ["a.biases"]);
    Ok(())
}

#[test]
fn a_layer_that_the_config_leaves_dense_is_dense() -> Result<()> {
    let mut config = QuantizationConfig::default();
    config.layers.insert("a".to_owned(), None);
    let w = weights(&[("a.weight", &[4, 128], Dtype::Float32)]).with_quantization(Some(config));
    assert!(matches!(w.matrix("a", 128, 4)?, WeightMatrix::Dense(_)));
    w.finish()
}

#[test]
fn casting_leaves_integers_alone() -> Result<()> {
    let w = packed(&[4, 16], &[4, 2]).with_dtype(Some(Dtype::Bfloat16));
    let WeightMatrix::Packed(packed) = w.matrix("a", 128, 4)? else { panic!("dense") };
    assert_eq!(packed.weight.dtype(), Dtype::Uint32);
    assert_eq!(packed.scales.dtype(), Dtype::Bfloat16);
    assert_eq!(packed.biases.map(|b| b.dtype()), Some(Dtype::Bfloat16));
    Ok(())
}

#[test]
fn some_parameters_are_float32_whatever_the_others_are() -> Result<()> {
    let of_type = |dtype| {
        let w = weights(&[("a.bias", &[4], dtype)]).with_dtype(Some(Dtype::Float16));
        let bias = w.at("a").param_in_float32("bias", &[4])?;
        w.finish()?;
        assert_eq!(w.n_bytes(), 16);
        Ok::<_, Error>(bias.dtype())
    };
    assert_eq!(of_type(Dtype::Float32)?, Dtype::Float32);
    assert_eq!(of_type(Dtype::Bfloat16)?, Dtype::Float32);
    let exact = Array::from(0.1f32).reshape([1])?;
    let w = Weights::from_arrays([("bias".to_owned(), exact.clone())]);
    let w = w.with_dtype(Some(Dtype::Bfloat16));
    assert_eq!(w.param_in_float32("bias", &[1])?.to_vec::<f32>()?, [0.1]);
    let random = Weights::random(1, Dtype::Bfloat16, None)?;
    assert_eq!(random.param_in_float32("bias", &[4])?.dtype(), Dtype::Float32);
    assert!(w.param_in_float32("bias", &[1]).is_ok() && w.finish().is_err(), "it is missing");
    Ok(())
}

#[test]
fn stacked_layers_are_checked_like_others() -> Result<()> {
    let stack = |weight: &[i32], scales: &[i32]| {
        let w = weights(&[
            ("a.up_proj.weight", weight, Dtype::Uint32),
            ("a.up_proj.scales", scales, Dtype::Float32),
            ("a.up_proj.biases", scales, Dtype::Float32),
            ("a.up_proj.bias", &[5, 4], Dtype::Float32),
        ]);
        w.with_quantization(Some(QuantizationConfig::default()))
    };
    let w = stack(&[5, 4, 16], &[5, 4, 2]);
    let layer = w.at("a").switch_linear("up_proj", 128, 4, 5, true)?;
    w.finish()?;
    assert!(matches!(layer.weight, WeightMatrix::Packed(_)));
    assert_eq!(w.n_parameters(), 5 * 4 * 128 + 5 * 4);

    for (weight, scales, wrong) in
        [([4, 4, 16], [5, 4, 2], "a.up_proj.weight"), ([5, 4, 16], [5, 3, 2], "a.up_proj.scales")]
    {
        let w = stack(&weight, &scales);
        w.at("a").switch_linear("up_proj", 128, 4, 5, true)?;
        assert_eq!(report(&w).mismatched[0].name, wrong);
    }

    let w = Weights::random(1, Dtype::Bfloat16, Some(QuantizationConfig::default()))?;
    let experts = w.switch_glu("experts", 64, 32, 3, GatedActivation::Silu, false)?;
    assert!(matches!(experts.up_proj.weight, WeightMatrix::Packed(_)));
    assert!(matches!(experts.down_proj.weight, WeightMatrix::Dense(_)));
    w.finish()
}
