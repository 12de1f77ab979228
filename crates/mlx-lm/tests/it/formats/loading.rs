//! A whole model whose layers other programs quantized.

use std::path::Path;

use fixtures::Tolerance;
use mlx_lm::core::io::SafetensorsFile;
use mlx_lm::core::{Array, save_safetensors};
use mlx_lm::files::ModelFiles;
use mlx_lm::load::{LoadOptions, Model};
use serde_json::{Value, json};

const SOURCE: &str = "mlx-lm/checkpoints/llama-f32";

/// The codes of a layer, from -127 to 127, and the scale of each row.
struct Layer {
    rows: usize,
    columns: usize,
    codes: Vec<i8>,
    scales: Vec<f32>,
}

impl Layer {
    fn new(weight: &[f32], shape: &[i32]) -> Layer {
        let (rows, columns) = (shape[0] as usize, shape[1] as usize);
        let greatest = |row: &[f32]| row.iter().fold(1e-6f32, |max, w| max.max(w.abs()));
        let scales: Vec<f32> = weight.chunks(columns).map(|row| greatest(row) / 127.0).collect();
        let code = |(at, w): (usize, &f32)| (w / scales[at / columns]).round() as i8;
        let codes = weight.iter().enumerate().map(code).collect();
        Layer { rows, columns, codes, scales }
    }

    fn shape(&self, last: usize) -> [i32; 2] {
        [self.rows as i32, last as i32]
    }
}

type Tensors = Vec<(String, Array)>;

/// Writes the layer under the names of a format, or dense.
type Write = fn(&str, &Layer) -> mlx_lm::core::Result<Tensors>;

fn dense(path: &str, layer: &Layer) -> mlx_lm::core::Result<Tensors> {
    let weight = layer.codes.iter().enumerate();
    let weight: Vec<f32> =
        weight.map(|(at, &code)| f32::from(code) * layer.scales[at / layer.columns]).collect();
    let weight = Array::from_slice(&weight, &layer.shape(layer.columns))?;
    Ok(vec![(format!("{path}.weight"), weight)])
}

fn compressed_tensors(path: &str, layer: &Layer) -> mlx_lm::core::Result<Tensors> {
    Ok(vec![
        (format!("{path}.weight"), Array::from_slice(&layer.codes, &layer.shape(layer.columns))?),
        (format!("{path}.weight_scale"), Array::from_slice(&layer.scales, &layer.shape(1))?),
        (format!("{path}.input_scale"), Array::from(1.0f32)),
    ])
}

fn gptq(path: &str, layer: &Layer) -> mlx_lm::core::Result<Tensors> {
    let Layer { rows, columns, codes, scales } = layer;
    let byte = |row: usize, column: usize| (codes[row * columns + column] as u8) ^ 0x80;
    let word = |row: usize, at: usize| {
        i32::from_le_bytes(std::array::from_fn(|part| byte(row, 4 * at + part)))
    };
    let words = columns / 4;
    let qweight: Vec<i32> =
        (0..words).flat_map(|at| (0..*rows).map(move |row| word(row, at))).collect();
    // 128 less one.
    let qzeros = vec![0x7f7f_7f7f_i32; rows / 4];
    Ok(vec![
        (format!("{path}.qweight"), Array::from_slice(&qweight, &[words as i32, *rows as i32])?),
        (format!("{path}.qzeros"), Array::from_slice(&qzeros, &[1, *rows as i32 / 4])?),
        (format!("{path}.scales"), Array::from_slice(scales, &[1, *rows as i32])?),
    ])
}

/// Writes the model with every projection in a form.
fn write_model(dir: &Path, settings: Option<Value>, write: Write) -> mlx_lm::Result<()> {
    let source = fixtures::path(SOURCE);
    let mut config = fixtures::json(&format!("{SOURCE}/config.json"));
    if let Some(settings) = settings {
        config["quantization_config"] = settings;
    }
    std::fs::write(dir.join("config.json"), config.to_string()).expect("written");
    let file = SafetensorsFile::open(source.join("model.safetensors"))?;
    let mut tensors = Tensors::new();
    for (name, info) in file.tensors() {
        let bytes = file.bytes(name).expect("in the file");
        let array = Array::from_bytes(bytes, &info.shape, info.dtype)?;
        match name.strip_suffix(".weight").filter(|path| path.ends_with("_proj")) {
            Some(path) => {
                tensors.extend(write(path, &Layer::new(&array.to_vec::<f32>()?, &info.shape))?);
            }
            None => tensors.push((name.to_owned(), array)),
        }
    }
    let tensors = tensors.iter().map(|(name, array)| (name.as_str(), array));
    Ok(save_safetensors(dir.join("model.safetensors"), tensors, &[])?)
}

fn logits(model: &Model) -> mlx_lm::Result<Vec<f32>> {
    let tokens = Array::from_slice(&[1u32, 5, 9, 77], &[1, 4])?;
    let hidden = model.forward(&tokens, &mut model.make_cache())?;
    Ok(model.head(&hidden)?.to_vec_as::<f32>()?)
}

#[test]
fn models_run_as_their_dequantized_weights_do() -> mlx_lm::Result<()> {
    let weights = json!({ "num_bits": 8, "type": "int", "strategy": "channel" });
    let int8 = json!({ "quant_method": "compressed-tensors", "format": "int-quantized",
        "config_groups": { "group_0": { "targets": ["Linear"], "weights": weights } } });
    let gptq_8 = json!({ "quant_method": "gptq", "bits": 8, "group_size": -1 });
    let reference = tempfile::tempdir().expect("a directory");
    write_model(reference.path(), None, dense)?;
    let (model, notes) =
        Model::load(&ModelFiles::directory(reference.path())?, &LoadOptions::default())?;
    assert!(notes.is_empty(), "{notes:?}");
    let expected = logits(&model)?;
    let cases: [(Value, Write, &str); 2] = [
        (int8, compressed_tensors, "compressed-tensors int-quantized, 8-bit: "),
        (gptq_8, gptq, "GPTQ 8-bit, one group a row: "),
    ];
    for (settings, write, name) in cases {
        let dir = tempfile::tempdir().expect("a directory");
        write_model(dir.path(), Some(settings), write)?;
        let files = ModelFiles::directory(dir.path())?;
        let (packed, notes) = Model::load(&files, &LoadOptions::default())?;
        // Rows of 32 and of 64 inputs.
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes.iter().all(|note| note.starts_with(name)), "{notes:?}");
        assert!(packed.weight_bytes() < model.weight_bytes(), "{name}");
        assert_eq!(packed.n_parameters(), model.n_parameters(), "{name}");
        let tolerance = Tolerance { rtol: 1e-4, atol: 1e-4, of_max: 0.0 };
        tolerance.check(&logits(&packed)?, &expected).unwrap_or_else(|e| panic!("{name}{e}"));
    }
    Ok(())
}
