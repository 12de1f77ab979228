//! Layouts and settings of published checkpoints that no fixture has: a fixture brought to them is the
//! same model.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use mlx_lm::core::io::{Checkpoint, TensorData, write_safetensors};
use mlx_lm::core::{Array, Dtype, Tensor, ops};
use mlx_lm::files::ModelFiles;
use mlx_lm::load::{LoadOptions, Model};
use serde_json::{Value, json};

type Tensors = BTreeMap<String, Array>;

fn logits(dir: &Path) -> mlx_lm::Result<Vec<f32>> {
    let (model, _) = Model::load(&ModelFiles::directory(dir)?, &LoadOptions::default())?;
    let tokens = Array::from_slice(&(1..30).collect::<Vec<u32>>(), &[1, 29])?;
    Ok(model.head(&model.forward(&tokens, &mut model.make_cache())?)?.to_vec_as::<f32>()?)
}

/// Checks that a float32 case in another layout, under another configuration, is the same model.
fn check_same(
    case: &str,
    change: impl FnOnce(&mut Tensors, &mut Value) -> mlx_lm::Result<()>,
) -> mlx_lm::Result<()> {
    let case = format!("mlx-lm/families/{case}");
    let source = fixtures::path(&case);
    let checkpoint = Checkpoint::open_dir(&source)?;
    let mut tensors = Tensors::new();
    for (name, ..) in checkpoint.tensors() {
        let tensor = Tensor::stored(&checkpoint, name).expect("a tensor");
        tensors.insert(name.to_owned(), tensor.into_array()?);
    }
    let mut config = fixtures::json(&format!("{case}/config.json"));
    change(&mut tensors, &mut config)?;

    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("config.json"), config.to_string()).expect("a file");
    let mut written = Vec::new();
    for (name, array) in tensors {
        let bytes = array.to_vec_as::<f32>()?.into_iter().flat_map(f32::to_le_bytes).collect();
        let (shape, bytes) = (array.shape().to_vec(), Cow::Owned(bytes));
        written.push((name, TensorData { dtype: Dtype::Float32, shape, bytes }));
    }
    write_safetensors(dir.path().join("model.safetensors"), written, &[])?;
    let (ours, expected) = (logits(dir.path())?, logits(&source)?);
    let difference = ours.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(ours.len() == expected.len() && difference < 1e-6, "{case}: {difference}");
    Ok(())
}

/// As transformers saves experts that it has dequantized.
#[test]
fn gpt_oss_with_experts_that_are_not_quantized() -> mlx_lm::Result<()> {
    check_same("gpt_oss-f32", |tensors, config| {
        config["rope_parameters"] = config["rope_scaling"].take();
        config["rope_parameters"]["rope_theta"] = config["rope_theta"].take();
        config["layer_types"] = Value::Null;
        for layer in 0..2 {
            let experts = format!("model.layers.{layer}.mlp.experts");
            let mut take = |name: &str| tensors.remove(&format!("{experts}.{name}")).expect(name);
            let in_turns = |gate: Array, up: Array| {
                let [n, size] = [gate.shape()[0], 2 * gate.shape()[1]];
                let rest = gate.shape()[2..].to_vec();
                ops::stack(&[gate, up], 2)?.reshape([&[n, size], &rest[..]].concat())
            };
            let gate_up = in_turns(take("gate_proj.weight"), take("up_proj.weight"))?;
            let bias = in_turns(take("gate_proj.bias"), take("up_proj.bias"))?;
            let (down, down_bias) = (take("down_proj.weight"), take("down_proj.bias"));
            tensors.extend([
                (format!("{experts}.gate_up_proj"), gate_up.swapaxes(1, 2)?),
                (format!("{experts}.gate_up_proj_bias"), bias),
                (format!("{experts}.down_proj"), down.swapaxes(1, 2)?),
                (format!("{experts}.down_proj_bias"), down_bias),
            ]);
        }
        Ok(())
    })
}

/// As transformers 5 names tensors and settings.
#[test]
fn gemma3_as_newer_transformers_has_it() -> mlx_lm::Result<()> {
    let settings = |text: &mut Value| {
        let of = |base: &str, scaling: &Value| {
            let mut parameters = scaling.clone();
            parameters["rope_theta"] = text[base].clone();
            parameters
        };
        let sliding = of("rope_local_base_freq", &json!({ "rope_type": "default" }));
        let full = of("rope_theta", &text["rope_scaling"]);
        text["rope_parameters"] = json!({ "sliding_attention": sliding, "full_attention": full });
        let object = text.as_object_mut().expect("settings");
        for key in ["rope_theta", "rope_local_base_freq", "rope_scaling", "sliding_window_pattern"]
        {
            object.remove(key);
        }
        let types = [0, 0, 1, 0].map(|kind| ["sliding_attention", "full_attention"][kind]);
        text["layer_types"] = json!(types);
    };
    check_same("gemma3_text-f32", |_, config| {
        settings(config);
        Ok(())
    })?;
    check_same("gemma3-f32", |tensors, config| {
        settings(&mut config["text_config"]);
        let object = config.as_object_mut().expect("settings");
        object.remove("vocab_size");
        let language_model = std::mem::take(tensors);
        tensors.extend(language_model.into_iter().map(|(name, tensor)| {
            (name.replace("language_model.model.", "model.language_model."), tensor)
        }));
        let other = tensors["model.language_model.norm.weight"].clone();
        tensors.insert("model.vision_tower.norm.weight".to_owned(), other.clone());
        tensors.insert("model.multi_modal_projector.norm.weight".to_owned(), other);
        Ok(())
    })
}

/// The variant without towers, whose configuration leaves out what is as in the smallest model.
#[test]
fn gemma4_with_defaults() -> mlx_lm::Result<()> {
    check_same("gemma4-f32", |tensors, config| {
        config["model_type"] = json!("gemma4_unified");
        let top = config.as_object_mut().expect("settings");
        for key in ["vocab_size", "tie_word_embeddings"] {
            top.remove(key);
        }
        let text = config["text_config"].as_object_mut().expect("settings");
        for key in ["rope_parameters", "final_logit_softcapping", "tie_word_embeddings"] {
            text.remove(key);
        }
        let norm = tensors["language_model.model.norm.weight"].clone();
        for name in ["vision_embedder.patch_dense.weight", "model.embed_audio.norm.weight"] {
            tensors.insert(name.to_owned(), norm.clone());
        }
        Ok(())
    })
}

#[test]
fn settings_that_cannot_be_kept_are_refused() {
    let cases = [
        ("gpt_oss-f32", "swiglu_limit", json!(6.0), "swiglu_limit"),
        ("gemma4_text-f32", "num_kv_shared_layers", json!(5), "layer 0 shares"),
        ("gemma4_text-f32", "num_kv_shared_layers", json!(4), "layer 1 shares"),
        ("gemma4_text-f32", "num_hidden_layers", json!(u32::MAX), "layers"),
        ("gemma4_text-f32", "hidden_size_per_layer_input", json!(1 << 22), "per_layer_input"),
        ("gemma4_text-f32", "hidden_size_per_layer_input", json!(-1), "per_layer_input"),
        ("gemma4_text-f32", "intermediate_size", json!(i32::MAX), "intermediate_size"),
        ("gemma4_text-f32", "global_head_dim", json!(i32::MAX), "head_dim"),
        ("gemma4_text-f32", "sliding_window", json!(0), "sliding_window"),
        ("gemma4_text-f32", "enable_moe_block", json!(true), "moe_intermediate_size"),
    ];
    for (case, key, setting, text) in cases {
        let mut config = fixtures::json(&format!("mlx-lm/families/{case}/config.json"));
        config[key] = setting;
        let error = Model::random(&config, None, 1).err().expect("refused");
        assert!(error.to_string().contains(text), "{error}");
    }
}
