//! The table of families: what it says is so, and the documentation has it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use mlx_lm::cache::Cache;
use mlx_lm::files::ModelFiles;
use mlx_lm::load::{LoadOptions, Model};
use mlx_lm::models::FAMILIES;
use serde_json::Value;

const ROOTS: [&str; 2] = ["mlx-lm/checkpoints", "mlx-lm/families"];

/// The cases of each type, with their directories.
fn cases() -> BTreeMap<String, Vec<(String, Value)>> {
    let mut all: BTreeMap<String, Vec<(String, Value)>> = BTreeMap::new();
    for root in ROOTS {
        let index = fixtures::json(&format!("{root}/index.json"));
        for case in index["cases"].as_array().expect("cases") {
            let model_type = case["model_type"].as_str().expect("a type").to_owned();
            let dir = format!("{root}/{}", case["name"].as_str().expect("a name"));
            all.entry(model_type).or_default().push((dir, case.clone()));
        }
    }
    all
}

/// What a case shows.
fn shown(dir: &str, case: &Value) -> Vec<String> {
    let mut shown = Vec::new();
    match case["quantization"].as_object() {
        Some(quantization) => {
            let mode = quantization.get("mode").and_then(Value::as_str).unwrap_or("affine");
            let bits = quantization.get("bits").and_then(Value::as_i64).unwrap_or(4);
            shown.push(if mode == "affine" { format!("{bits}-bit") } else { mode.to_owned() });
        }
        None => shown.push(case["dtype"].as_str().expect("a dtype").to_owned()),
    }
    if case["layout"] == "published" {
        shown.push("published layout".to_owned());
        let config = fixtures::json(&format!("{dir}/config.json"));
        let method = &config["quantization_config"]["quant_method"];
        shown.extend(method.as_str().map(str::to_owned));
    }
    let expected = fixtures::json(&format!("{dir}/expected.json"));
    if expected.get("batch").is_some_and(|batch| !batch.is_null()) {
        shown.push("padded batches".to_owned());
    }
    shown
}

#[test]
fn every_family_is_compared_and_remembers_what_it_says() {
    let cases = cases();
    let mut table = String::from(
        "# Models\n\nThe families that `mlx-lm` loads, as `mlxk models` lists them. Of wrappers around several parts it \
         takes the language\nmodel. The last column is what the tests compare, whole prompts, chunks and single tokens \
         alike; this page is written\nby `crates/mlx-lm/tests/it/model_table.rs`.\n\n\
         | type | also | blocks | caches | compared with | compared in |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for entry in FAMILIES {
        let own: Vec<&(String, Value)> =
            entry.names().filter_map(|name| cases.get(name)).flatten().collect();
        assert!(!own.is_empty(), "{} has no case", entry.model_type);
        let mut kinds = BTreeSet::new();
        for (dir, _) in &own {
            let files = ModelFiles::directory(fixtures::path(dir)).expect("a case");
            let (model, _) = Model::load(&files, &LoadOptions::default()).expect("it loads");
            kinds.extend(model.make_cache().iter().map(|cache| match cache {
                Cache::Kv(cache) if cache.max_size().is_some() => "keys and values of a window",
                Cache::Kv(_) => "keys and values",
                Cache::Recurrent(_) => "states",
            }));
        }
        let kinds = kinds.into_iter().collect::<Vec<_>>().join("; ");
        assert_eq!(entry.caches, kinds, "{}", entry.model_type);
        let shown: BTreeSet<String> = own.iter().flat_map(|(dir, case)| shown(dir, case)).collect();
        let shown = shown.into_iter().collect::<Vec<_>>().join(", ");
        let also =
            entry.aliases.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let (name, blocks, caches) = (entry.model_type, entry.blocks, entry.caches);
        let with = entry.compared_with;
        let _ = writeln!(table, "| `{name}` | {also} | {blocks} | {caches} | {with} | {shown} |");
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/models.md");
    if std::env::var_os("MLXK_REGENERATE").is_some() {
        std::fs::write(path, &table).expect("the page");
    }
    let page = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(page, table, "docs/models.md is not the table; set MLXK_REGENERATE=1");
}
