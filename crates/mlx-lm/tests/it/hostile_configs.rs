//! Configurations that no model has: an error or a model, never a panic, whatever the family.

use std::path::Path;

use mlx_lm::core::Array;
use mlx_lm::files::ModelFiles;
use mlx_lm::load::{LoadOptions, Model};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

/// The cases in float32, one of each family at least, with their configurations.
fn cases() -> Vec<(String, Value)> {
    let mut cases = Vec::new();
    for root in ["mlx-lm/checkpoints", "mlx-lm/families"] {
        let index = fixtures::json(&format!("{root}/index.json"));
        for case in index["cases"].as_array().expect("cases") {
            let name = case["name"].as_str().expect("a name");
            if name.ends_with("-f32") || name.ends_with("-latent") || name == "gpt_oss-mxfp4" {
                let dir = format!("{root}/{name}");
                let config = fixtures::json(&format!("{dir}/config.json"));
                cases.push((dir, config));
            }
        }
    }
    cases
}

/// The places of all values below one, as pointers.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    let below: Vec<(String, &Value)> = match value {
        Value::Object(object) => object.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(list) => {
            list.iter().enumerate().map(|(i, value)| (i.to_string(), value)).collect()
        }
        _ => Vec::new(),
    };
    for (key, value) in below {
        let place = format!("{at}/{key}");
        places(value, &place, all);
        all.push(place);
    }
}

fn values() -> impl Strategy<Value = Value> {
    select(vec![
        json!(0),
        json!(1),
        json!(2),
        json!(3),
        json!(7),
        json!(-1),
        json!(65_536),
        json!(16_777_216),
        json!(i32::MAX),
        json!(u32::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(0.0),
        json!(-0.5),
        json!(0.3),
        json!(1e-30),
        json!(1e30),
        json!({"__float__": "NaN"}),
        json!({"__float__": "Infinity"}),
        json!(null),
        json!(true),
        json!(false),
        json!(""),
        json!("full_attention"),
        json!("sliding_attention"),
        json!("linear_attention"),
        json!("yarn"),
        json!("longrope"),
        json!("dynamic"),
        json!("M*E-"),
        json!([]),
        json!([0]),
        json!([1, 2, 3]),
        json!(["full_attention"]),
        json!({}),
        json!({"rope_type": "proportional", "partial_rotary_factor": 3.0, "rope_theta": 0.0}),
    ])
}

/// Loads the weights of a case under another configuration, and runs what comes of it.
fn run(dir: &str, config: &Value, keep: &Path) -> mlx_lm::Result<()> {
    let text = serde_json::to_vec(config).expect("JSON");
    std::fs::write(keep.join("config.json"), text).expect("a file");
    let weights = keep.join("model.safetensors");
    let _ = std::fs::remove_file(&weights);
    std::fs::copy(fixtures::path(&format!("{dir}/model.safetensors")), &weights).expect("a copy");
    let (model, _) = Model::load(&ModelFiles::directory(keep)?, &LoadOptions::default())?;
    let mut caches = model.make_cache();
    for tokens in [&[1u32, 2, 3][..], &[4]] {
        let tokens = Array::from_slice(tokens, &[1, tokens.len() as i32])?;
        let hidden = model.forward(&tokens, &mut caches)?;
        model.head(&hidden)?.to_vec_as::<f32>()?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn no_configuration_makes_loading_panic(
        case in any::<Index>(),
        changes in prop::collection::vec((any::<Index>(), values()), 1..4),
    ) {
        let cases = cases();
        let (dir, mut config) = case.get(&cases).clone();
        for (place, value) in changes {
            let mut all = Vec::new();
            places(&config, "", &mut all);
            // Without its type it is no model.
            all.retain(|place| place != "/model_type");
            if let Some(found) = config.pointer_mut(&all[place.index(all.len())]) {
                *found = value;
            }
        }
        let keep = tempfile::tempdir().expect("a directory");
        // Either is right, as long as it comes.
        let _ = run(&dir, &config, keep.path());
    }
}
