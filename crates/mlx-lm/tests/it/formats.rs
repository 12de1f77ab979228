//! Layers that other programs quantized, against the numbers that they mean.

mod hostile;
mod loading;
mod settings;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use fixtures::Tolerance;
use mlx_lm::core::io::SafetensorsFile;
use mlx_lm::core::ops::Packed;
use mlx_lm::core::{Array, Dtype};
use mlx_lm::formats::{
    Floats, ForeignFormat, Form, Layer, PackedLayer, RepackOptions, Report, TensorView, Tensors,
};
use serde_json::{Value, json};

const ALL: RepackOptions =
    RepackOptions { dtype: Dtype::Float32, output_scale: true, input_order: true };
const NONE: RepackOptions =
    RepackOptions { dtype: Dtype::Float32, output_scale: false, input_order: false };

/// The tensors of one layer, held in memory.
#[derive(Clone, Debug, Default)]
struct Held(BTreeMap<String, (String, Vec<i32>, Vec<u8>)>);

impl<'a> Tensors<'a> for &'a Held {
    fn get(&self, name: &str) -> Option<TensorView<'a>> {
        let (stored_dtype, shape, bytes) = self.0.get(name)?;
        Some(TensorView { stored_dtype, shape, bytes })
    }
}

struct Case {
    name: String,
    layer: String,
    format: ForeignFormat,
    tensors: Held,
    expected: Vec<f32>,
}

fn cases() -> &'static [Case] {
    static CASES: LazyLock<Vec<Case>> = LazyLock::new(read_cases);
    &CASES
}

fn read_cases() -> Vec<Case> {
    let lists =
        ["index.json", "others.json"].map(|list| fixtures::json(&format!("mlx-lm/formats/{list}")));
    let entries = lists.iter().flat_map(|list| list.as_array().expect("a list"));
    entries.map(case).collect()
}

fn case(entry: &Value) -> Case {
    let text = |key: &str| entry[key].as_str().expect("text").to_owned();
    let name = text("name");
    let path = fixtures::path(&format!("mlx-lm/formats/{name}.safetensors"));
    let file = SafetensorsFile::open(path).expect("a sound file");
    let mut tensors = Held::default();
    for (name, info) in file.tensors() {
        let bytes = file.bytes(name).expect("in the file").to_vec();
        tensors
            .0
            .insert(name.to_owned(), (info.stored_dtype.to_owned(), info.shape.clone(), bytes));
    }
    let (_, _, expected) = tensors.0.remove("expected").expect("expected numbers");
    let expected = numbers(&Floats { dtype: Dtype::Float32, bytes: expected });
    let config = json!({ "quantization_config": entry["quantization_config"] });
    let format = ForeignFormat::detect(&config).expect("sound settings").expect("a format");
    Case { name, layer: text("layer"), format, tensors, expected }
}

fn numbers(floats: &Floats) -> Vec<f32> {
    let shape = [(floats.bytes.len() / floats.dtype.size()) as i32];
    let array = Array::from_bytes(&floats.bytes, &shape, floats.dtype).expect("whole elements");
    array.to_vec_as::<f32>().expect("numbers")
}

/// Computes what a layer means, with MLX's own unpacking.
fn meaning(layer: &Layer, shape: &[i32]) -> mlx_lm::core::Result<Vec<f32>> {
    let PackedLayer { quantization, weight, scales, biases, output_scale, input_order } =
        match layer {
            Layer::Dense(floats) => return Ok(numbers(floats)),
            Layer::Packed(packed) => packed,
        };
    let (columns, leading) = shape.split_last().expect("a matrix");
    let sized = |last: i32| leading.iter().copied().chain([last]).collect::<Vec<i32>>();
    let groups = sized(columns / quantization.group_size);
    let array = |floats: &Floats| Array::from_bytes(&floats.bytes, &groups, floats.dtype);
    let packed = Packed {
        weight: Array::from_slice(weight, &sized(columns * quantization.bits / 32))?,
        scales: array(scales)?,
        biases: biases.as_ref().map(array).transpose()?,
        quantization: *quantization,
    };
    let values = packed.dequantize(Dtype::Float32)?.to_vec_as::<f32>()?;
    let columns = *columns as usize;
    let mut out = vec![0.0; values.len()];
    for (at, value) in values.into_iter().enumerate() {
        let (row, column) = (at / columns, at % columns);
        let column = input_order.as_ref().map_or(column, |order| order[column] as usize);
        let scale = match output_scale[..] {
            [] => 1.0,
            [scale] => scale,
            _ => output_scale[row],
        };
        out[row * columns + column] = value * scale;
    }
    Ok(out)
}

fn check_case(case: &Case, options: RepackOptions, tolerance: Tolerance) -> Result<Report, String> {
    let Case { layer, format, tensors, expected, .. } = case;
    let recipe = format.recipe(layer, &tensors, options).map_err(|e| e.to_string())?;
    let made = recipe.repack().map_err(|e| e.to_string())?;
    let size = match &made {
        Layer::Dense(floats) => floats.bytes.len(),
        Layer::Packed(p) => {
            let biases = p.biases.as_ref().map_or(0, |biases| biases.bytes.len());
            4 * (p.weight.len() + p.output_scale.len()) + p.scales.bytes.len() + biases
        }
    };
    assert_eq!(size as u64, recipe.made_bytes(), "{}", case.name);
    let actual = meaning(&made, recipe.shape()).map_err(|e| e.to_string())?;
    tolerance.check(&actual, expected)?;
    let mut report = Report::new(format, options.dtype);
    report.add(&recipe);
    Ok(report)
}

/// Whatever the layers of the caller can do, the numbers are the checkpoint's.
#[test]
fn mean_what_they_meant() {
    let cases = cases();
    assert!(cases.len() > 30, "only {} cases", cases.len());
    // MLX unpacks `q * scale + bias` with one rounding or two.
    let exact = Tolerance { rtol: 1e-6, atol: 0.0, of_max: 1e-6 };
    // Biases lose what `formats` says they do; 2⁻¹¹ or 2⁻⁸ of the largest bias.
    let float16 = Tolerance { rtol: 1e-3, atol: 0.0, of_max: 2e-3 };
    let bfloat16 = Tolerance { rtol: 8e-3, atol: 0.0, of_max: 1.6e-2 };
    let mut failures = Vec::new();
    for case in cases {
        for (dtype, tolerance) in
            [(Dtype::Float32, exact), (Dtype::Float16, float16), (Dtype::Bfloat16, bfloat16)]
        {
            for options in [ALL, NONE] {
                let options = RepackOptions { dtype, ..options };
                if let Err(e) = check_case(case, options, tolerance) {
                    failures.push(format!("{} as {options:?}: {e}", case.name));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What cases become where layers can do everything, and where they can do nothing more.
const BECOME: [(&str, &str, &[&str]); 16] = [
    ("affine 2-bit, groups of 32", "affine 2-bit, groups of 32", &["gptq_2bit", "ct_int2"]),
    (
        "affine 3-bit, groups of 32",
        "affine 3-bit, groups of 32",
        &["gptq_3bit", "ct_int3", "ct_int3_whole", "gptqmodel_3bit_32"],
    ),
    (
        "affine 4-bit, groups of 32",
        "affine 4-bit, groups of 32",
        &[
            "awq",
            "gptq_row",
            "ct_int4",
            "ct_int4_zeros",
            "ct_int4_row",
            "read_awq",
            "gptqmodel_4bit_32",
        ],
    ),
    ("affine 4-bit, groups of 64", "affine 4-bit, groups of 64", &["gptq"]),
    (
        "affine 4-bit, groups of 128",
        "affine 4-bit, groups of 128",
        &["awq_group_256", "awq_symmetric", "gptq_v2"],
    ),
    ("affine 6-bit, groups of 32", "affine 6-bit, groups of 32", &["ct_int6"]),
    (
        "affine 8-bit, groups of 32",
        "affine 8-bit, groups of 32",
        &["gptq_8bit", "ct_int7", "ct_int8_packed"],
    ),
    ("affine 8-bit, groups of 64", "affine 8-bit, groups of 64", &["ct_int8", "ct_int8_tensor"]),
    ("affine 8-bit, groups of 128", "affine 8-bit, groups of 128", &["gptqmodel_8bit_128"]),
    (
        "affine 4-bit, groups of 32, reordered",
        "its inputs are sorted by activation (desc_act)",
        &["gptq_desc_act", "gptq_desc_act_uneven", "ct_g_idx"],
    ),
    (
        "affine 4-bit, groups of 64, reordered",
        "its inputs are sorted by activation (desc_act)",
        &["gptqmodel_4bit_64_desc_act"],
    ),
    (
        "mxfp4 4-bit, groups of 32",
        "mxfp4 4-bit, groups of 32",
        &["gpt_oss_mxfp4", "ct_mxfp4", "read_gpt_oss"],
    ),
    (
        "nvfp4 4-bit, groups of 16, scaled by 1",
        "it has one more scale for the whole tensor",
        &["modelopt_nvfp4", "ct_nvfp4", "modelopt_by_itself"],
    ),
    (
        "mxfp8 8-bit, groups of 32",
        "mxfp8 8-bit, groups of 32",
        &["fp8_block_power", "fp8_block_byte", "modelopt_mxfp8", "ct_mxfp8"],
    ),
    (
        "mxfp8 8-bit, groups of 32, scaled by 1",
        "its scales are not all powers of two",
        &["fp8_tensor", "modelopt_fp8", "ct_fp8_tensor"],
    ),
    (
        "mxfp8 8-bit, groups of 32, scaled by 8",
        "its scales are not all powers of two",
        &["fp8_row", "ct_fp8_row"],
    ),
];

/// What cases become in any event.
const ALWAYS: [(&str, &[&str]); 4] = [
    ("its groups are of no size that MLX has", &["awq_group_16"]),
    ("its rows are no multiple of 32", &["ct_int4_odd"]),
    ("nvfp4 4-bit, groups of 16", &["modelopt_nvfp4_power"]),
    (
        "the scales of its blocks are not all powers of two",
        &["fp8_block", "ct_fp8_block", "read_fp8_block"],
    ),
];

#[test]
fn become_what_the_tables_say() {
    let always = ALWAYS.iter().map(|&(form, names)| (form, form, names));
    let rows = BECOME.into_iter().chain(always);
    let expected: BTreeMap<&str, [&str; 2]> = rows
        .flat_map(|(all, none, names)| names.iter().map(move |name| (*name, [all, none])))
        .collect();
    assert_eq!(expected.len(), cases().len());
    for case in cases() {
        let forms = [ALL, NONE].map(|options| {
            match case.format.recipe(&case.layer, &&case.tensors, options).expect("sound").form() {
                Form::Dense { reason } => reason.to_owned(),
                Form::Packed { quantization, output_scale, input_order } => {
                    let order = if input_order { ", reordered" } else { "" };
                    let scale = match output_scale {
                        0 => String::new(),
                        n => format!(", scaled by {n}"),
                    };
                    format!("{quantization}{order}{scale}")
                }
            }
        });
        assert_eq!(
            expected.get(case.name.as_str()).copied(),
            Some(forms.each_ref().map(String::as_str)),
            "{}",
            case.name
        );
    }
}

#[test]
fn tell_the_user() {
    let case = |name: &str| cases().iter().find(|case| case.name == name).expect("a case");
    let recipe = |name: &str| {
        let case = case(name);
        let options = RepackOptions { dtype: Dtype::Bfloat16, ..NONE };
        case.format.recipe(&case.layer, &&case.tensors, options).expect("sound")
    };
    let mut report = Report::new(&case("awq").format, Dtype::Bfloat16);
    assert!(report.messages().is_empty());
    for _ in 0..2 {
        report.add(&recipe("awq"));
    }
    assert_eq!(report.messages(), ["AWQ 4-bit, groups of 32: runs as affine 4-bit, groups of 32"]);
    report.add(&recipe("gptq"));
    for _ in 0..600 {
        report.add(&recipe("fp8_block"));
    }
    assert_eq!(
        report.messages(),
        [
            "AWQ 4-bit, groups of 32: 2 layers run as affine 4-bit, groups of 32",
            "AWQ 4-bit, groups of 32: 1 layer runs as affine 4-bit, groups of 64",
            "AWQ 4-bit, groups of 32: 600 layers dequantized to bfloat16, 2.3 MB instead of 1.2 MB, \
             because the scales of its blocks are not all powers of two",
        ]
    );
}

#[test]
fn tensors_are_sorted() {
    let names = [
        "lm_head.weight",
        "model.norm.weight",
        "a.qweight",
        "a.qzeros",
        "a.scales",
        "a.bias",
        "b.scales",
        "b.k_scale",
    ];
    let inventory = case_format("awq").inventory(names);
    assert_eq!(inventory.layers, ["a"]);
    // Nothing marks b as a layer.
    assert_eq!(inventory.kept, ["a.bias", "b.scales", "lm_head.weight", "model.norm.weight"]);
    assert_eq!(inventory.unused, ["b.k_scale"]);
    let names = ["e.up_blocks", "e.up_scales", "e.up_bias", "f_scales"];
    let inventory = case_format("gpt_oss_mxfp4").inventory(names);
    assert_eq!(
        (&inventory.layers[..], &inventory.kept[..]),
        (&["e.up".to_owned()][..], &["e.up_bias".to_owned(), "f_scales".to_owned()][..])
    );
}

fn case_format(name: &str) -> &'static ForeignFormat {
    &cases().iter().find(|case| case.name == name).expect("a case").format
}
