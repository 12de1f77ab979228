//! Tensors that do not fit together: an error each, never a panic, and no more memory than the
//! tensors at hand justify.

use mlx_lm::formats::{ForeignFormat, Layer, RepackOptions};
use mlx_lm::{ErrorKind, core::Dtype};
use proptest::prelude::*;
use serde_json::json;

use super::{ALL, Case, Held, NONE, cases};

/// Makes a layer, and says how large it is.
fn made(
    format: &ForeignFormat,
    layer: &str,
    tensors: &Held,
    options: RepackOptions,
) -> mlx_lm::Result<usize> {
    Ok(match format.recipe(layer, &tensors, options)?.repack()? {
        Layer::Dense(floats) => floats.bytes.len(),
        Layer::Packed(p) => {
            let floats = [Some(&p.scales), p.biases.as_ref()].into_iter().flatten();
            let order = p.input_order.as_ref().map_or(0, Vec::len);
            4 * (p.weight.len() + p.output_scale.len() + order)
                + floats.map(|floats| floats.bytes.len()).sum::<usize>()
        }
    })
}

/// Every tensor of every case is needed but an order of inputs that is none.
#[test]
fn missing_tensors_are_named() {
    for case in cases() {
        for name in case.tensors.0.keys() {
            let mut tensors = case.tensors.clone();
            tensors.0.remove(name);
            let result = made(&case.format, &case.layer, &tensors, ALL);
            let is_listed = case.format.name().ends_with("desc_act");
            if name.ends_with(".input_scale") || name.ends_with(".g_idx") && !is_listed {
                continue;
            }
            let error = result.expect_err(name);
            assert_eq!(error.kind(), ErrorKind::Format, "{error}");
            assert!(error.to_string().starts_with(&case.layer), "{}: {error}", case.name);
        }
    }
}

/// Another element type or a longer axis never passes unnoticed: it is an error, or the layer has
/// another shape, which is not the model's.
#[test]
fn other_shapes_and_dtypes_are_named() {
    for case in cases() {
        let case = &case;
        for (name, (dtype, shape, bytes)) in &case.tensors.0 {
            if name.ends_with(".input_scale") {
                continue;
            }
            let mut wrong = vec![("C64".to_owned(), shape.clone(), vec![0; bytes.len() * 8])];
            for axis in 0..shape.len() {
                let mut shape = shape.clone();
                let row = bytes.len() / shape[axis] as usize;
                shape[axis] += 1;
                wrong.push((dtype.clone(), shape, vec![0; bytes.len() + row]));
            }
            wrong.push((dtype.clone(), shape.clone(), bytes[1..].to_vec()));
            wrong.push((dtype.clone(), vec![-1; shape.len()], bytes.clone()));
            wrong.push((dtype.clone(), vec![i32::MAX; 9], bytes.clone()));
            for tensor in wrong {
                // Scales for the halves of rows are a format too, as is a wider packing.
                let is_wider = case.name.starts_with("ct_int") && name.ends_with("weight_packed");
                if is_wider || name.ends_with("weight_scale") && tensor.1.ends_with(&[2]) {
                    continue;
                }
                let text = format!("{} {name} {} {:?}", case.name, tensor.0, tensor.1);
                let mut tensors = case.tensors.clone();
                tensors.0.insert(name.clone(), tensor);
                let recipe = case.format.recipe(&case.layer, &&tensors, ALL);
                if recipe.as_ref().is_ok_and(|recipe| recipe.shape() != shape_of(case)) {
                    continue;
                }
                let error = recipe.expect_err(&text);
                assert!(error.to_string().starts_with(&case.layer), "{text}: {error}");
            }
        }
    }
}

fn shape_of(case: &Case) -> Vec<i32> {
    let recipe = case.format.recipe(&case.layer, &&case.tensors, ALL).expect("sound");
    recipe.shape().to_vec()
}

#[test]
fn values_out_of_range_are_refused() {
    let change = |case: &Case, end: &str, bytes: &dyn Fn(&mut Vec<u8>)| {
        let name = format!("{}{end}", case.layer);
        let mut tensors = case.tensors.clone();
        bytes(&mut tensors.0.get_mut(&name).expect("a tensor of the case").2);
        made(&case.format, &case.layer, &tensors, RepackOptions { dtype: Dtype::Float16, ..ALL })
    };
    let cases = cases();
    let case = |name: &str| cases.iter().find(|case| case.name == name).expect("a case");
    let nan = |bytes: &mut Vec<u8>| bytes[..2].copy_from_slice(&[0xff, 0x7f]);
    for (name, end) in [("awq", ".scales"), ("gptq", ".scales"), ("ct_int4_zeros", ".weight_scale")]
    {
        let error = change(case(name), end, &nan).expect_err("not a number");
        assert!(error.to_string().contains("NaN"), "{error}");
    }
    let group = |bytes: &mut Vec<u8>| bytes[..4].copy_from_slice(&[4, 0, 0, 0]);
    let error = change(case("gptq_desc_act"), ".g_idx", &group).expect_err("no such group");
    assert!(error.to_string().contains("groups below 4, one is 4"), "{error}");
    let negative = |bytes: &mut Vec<u8>| bytes[..4].fill(0xff);
    assert!(change(case("gptq"), ".g_idx", &negative).is_err());
    // 65504, times a zero.
    let large = |bytes: &mut Vec<u8>| {
        bytes.as_chunks_mut().0.iter_mut().for_each(|half| *half = [0xff, 0x7b]);
    };
    let error = change(case("awq"), ".scales", &large).expect_err("too large");
    assert!(error.to_string().contains("too large for float16"), "{error}");
    let zero = |bytes: &mut Vec<u8>| bytes.fill(0);
    assert!(change(case("modelopt_nvfp4"), ".weight_scale_2", &zero).is_err());
}

#[test]
fn dtypes_that_weights_cannot_have_are_refused() {
    let case = &cases()[0];
    let options = RepackOptions { dtype: Dtype::Int32, ..NONE };
    let error = made(&case.format, &case.layer, &case.tensors, options).expect_err("no float");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Any tensors under any settings: what is made is within a constant times what was given.
    #[test]
    fn any_tensors_under_any_settings(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), dtypes(), shapes()), 0..3,
        ),
        bits in 0..9i32,
        group_size in prop_oneof![Just(-1i64), 1..300i64, Just(i64::MAX)],
        block in prop_oneof![Just([1u64, 1]), Just([7, 32]), Just([u64::MAX, 1]), Just([128, 128])],
        can in any::<bool>(),
    ) {
        let cases = cases();
        let case = which.get(cases);
        let mut tensors = case.tensors.clone();
        let names: Vec<String> = tensors.0.keys().cloned().collect();
        for (name, value, dtype, shape) in edits {
            let (dtype, size) = dtype;
            let count: usize = shape.iter().map(|&dim: &i32| dim as usize).product();
            let bytes = vec![*value.get(&[0u8, 1, 0x40, 0x7f, 0xff]); count * size];
            tensors.0.insert(name.get(&names).clone(), (dtype.to_owned(), shape, bytes));
        }
        let given: usize = tensors.0.values().map(|(_, _, bytes)| bytes.len()).sum();
        let settings = [
            json!({ "quant_method": "awq", "group_size": group_size }),
            json!({ "quant_method": "gptq", "bits": bits, "group_size": group_size }),
            json!({ "quant_method": "fp8", "weight_block_size": block }),
            json!({ "quant_method": "modelopt", "quant_algo": "MIXED_PRECISION" }),
            json!({ "quant_method": "compressed-tensors", "format": "mixed-precision",
                "config_groups": { "a": { "weights": {
                    "num_bits": bits, "group_size": group_size, "block_structure": block } } } }),
            json!({ "quant_method": "mxfp4" }),
        ];
        let formats = settings.iter().filter_map(|settings| {
            ForeignFormat::detect(&json!({ "quantization_config": settings })).ok().flatten()
        });
        for format in formats.chain([case.format.clone()]) {
            let options = if can { ALL } else { NONE };
            if let Ok(size) = made(&format, &case.layer, &tensors, options) {
                prop_assert!(size <= 40 * given, "{size} bytes of {given}");
            }
        }
    }
}

fn dtypes() -> impl Strategy<Value = (&'static str, usize)> {
    prop::sample::select(vec![
        ("I32", 4),
        ("U8", 1),
        ("I8", 1),
        ("F16", 2),
        ("BF16", 2),
        ("F32", 4),
        ("I64", 8),
        ("F8_E4M3", 1),
        ("F8_E8M0", 1),
        ("F8_E5M2", 1),
        ("BOOL", 1),
        ("XYZ", 1),
    ])
}

fn shapes() -> impl Strategy<Value = Vec<i32>> {
    let dim = prop_oneof![0..5i32, prop::sample::select(vec![8, 16, 17, 32, 33, 64, 128])];
    prop::collection::vec(dim, 0..5).prop_filter("small", |shape| {
        shape.iter().map(|&dim| dim as i64).product::<i64>() < 1 << 14
    })
}
