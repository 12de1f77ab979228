//! Conversion against mlx-lm's: `fixtures/gen/mlx-lm/convert.py` says what is in the files and where
//! mlx-lm is wrong.

mod behaviour;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use mlx_core::io::{Checkpoint, TensorData, write_safetensors};
use mlx_core::{Dtype, QuantMode};
use mlx_lm::convert::{ConvertArgs, Converted, Recipe, convert};
use mlx_lm::files::ModelFiles;
use mlx_lm::load::{LoadOptions, Model};
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
struct Case {
    config: Value,
    source: Vec<(String, String, Vec<i32>)>,
    tensors: Vec<(String, String, Vec<i32>, String)>,
    runs: BTreeMap<String, Run>,
}

#[derive(Deserialize)]
struct Run {
    options: Options,
    after: Option<String>,
    tensors: Vec<usize>,
    quantization: Option<Map<String, Value>>,
    config: Option<Value>,
    total_size: u64,
    total_parameters: u64,
}

#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Options {
    quantize: bool,
    dequantize: bool,
    q_bits: i32,
    q_group_size: i32,
    q_mode: Option<String>,
    quant_predicate: Option<String>,
    dtype: Option<String>,
}

impl Options {
    fn args(&self, source: &Path, destination: &Path) -> ConvertArgs<'static> {
        let mode = self.q_mode.as_deref().unwrap_or("affine");
        ConvertArgs {
            source: source.to_owned(),
            destination: destination.to_owned(),
            quantize: self.quantize,
            dequantize: self.dequantize,
            q_bits: self.q_bits,
            q_group_size: self.q_group_size,
            q_mode: QuantMode::from_name(mode).expect("a mode"),
            recipe: self
                .quant_predicate
                .as_deref()
                .map(|name| Recipe::from_name(name).expect("a recipe")),
            dtype: self.dtype.as_deref().map(|name| Dtype::from_name(name).expect("a type")),
            ..ConvertArgs::default()
        }
    }
}

/// SplitMix64 of a sum.
fn mixed(seed: u64, place: u64, x: u64) -> u64 {
    let x = seed.wrapping_add((place + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(x);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// The numbers of a tensor of the sources, as the generator's `numbers` says.
fn numbers(name: &str, dtype: Dtype, n: usize) -> Vec<u8> {
    let hash = |seed: u64, byte: u8| (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325, hash);
    let number = |i: usize| {
        let x = mixed(seed, i as u64, 0);
        let unit = (x >> 40) as f32 / 8_388_608.0 - 1.0;
        unit * 0.5f32.powi((x & 3) as i32)
    };
    let wide: Vec<u8> = (0..n).flat_map(|i| number(i).to_le_bytes()).collect();
    mlx_core::kernels::convert_floats(&wide, [Dtype::Float32, dtype]).expect("floats")
}

/// The generator's `digest`.
fn digest(bytes: &[u8]) -> String {
    let words = bytes
        .chunks(4)
        .map(|word| word.iter().rev().fold(0u64, |word, &byte| word << 8 | u64::from(byte)));
    let sum = words
        .enumerate()
        .fold(0u64, |sum, (i, word)| sum.wrapping_add(mixed(bytes.len() as u64, i as u64, word)));
    format!("{sum:016x}")
}

fn write_source(case: &Case, directory: &Path) {
    std::fs::create_dir(directory).expect("a directory");
    let tensors = case.source.iter().map(|(name, dtype, shape)| {
        let dtype = Dtype::from_name(dtype).expect("a type");
        let n = shape.iter().map(|&n| n as usize).product();
        let bytes = numbers(name, dtype, n).into();
        (name.clone(), TensorData { dtype, shape: shape.clone(), bytes })
    });
    let file = directory.join("model.safetensors");
    write_safetensors(file, tensors, &[("format", "pt")]).expect("a file");
    std::fs::write(directory.join("config.json"), case.config.to_string()).expect("a file");
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
}

/// Group size, bits and mode of each layer that is packed, by what a reader takes of a configuration.
fn formats(quantization: &Map<String, Value>, packed: &BTreeSet<&str>) -> BTreeMap<String, Value> {
    let of = |path: &str| match quantization.get(path) {
        Some(Value::Object(entry)) => {
            let mode = entry.get("mode").cloned().unwrap_or_else(|| "affine".into());
            serde_json::json!([entry["group_size"], entry["bits"], mode])
        }
        _ => serde_json::json!([
            quantization["group_size"],
            quantization["bits"],
            quantization["mode"]
        ]),
    };
    packed.iter().map(|path| ((*path).to_owned(), of(path))).collect()
}

/// Returns in what a run differs from mlx-lm's.
fn differences(case: &Case, run: &Run, directory: &Path, converted: &Converted) -> Vec<String> {
    let mut differences = Vec::new();
    let mut differ = |what: String| differences.push(what);
    let checkpoint = Checkpoint::open_dir(directory).expect("a checkpoint");
    let expected: BTreeMap<&str, _> = run
        .tensors
        .iter()
        .map(|&i| {
            let (name, dtype, shape, hash) = &case.tensors[i];
            (name.as_str(), (dtype.clone(), shape.clone(), hash.clone()))
        })
        .collect();
    let found: BTreeMap<&str, _> = checkpoint
        .tensors()
        .map(|(name, file, info)| {
            let hash = digest(file.bytes(name).expect("bytes"));
            (name, (info.dtype.name().to_owned(), info.shape.clone(), hash))
        })
        .collect();
    for (name, expected) in &expected {
        match found.get(name) {
            None => differ(format!("{name} is missing")),
            Some(found) if found != expected => differ(format!("{name}: {found:?}, {expected:?}")),
            Some(_) => {}
        }
    }
    let more = found.keys().filter(|name| !expected.contains_key(*name));
    more.for_each(|name| differ(format!("{name} is too much")));

    let config = json(&directory.join("config.json"));
    if config.get("quantization") != config.get("quantization_config") {
        differ("quantization has another mirror".to_owned());
    }
    let packed: BTreeSet<&str> =
        found.keys().filter_map(|name| name.strip_suffix(".scales")).collect();
    match (config.get("quantization").and_then(Value::as_object), &run.quantization) {
        (Some(ours), Some(theirs)) => {
            let (ours, theirs) = (formats(ours, &packed), formats(theirs, &packed));
            if ours != theirs {
                differ(format!("formats {ours:?}, {theirs:?}"));
            }
            if let Some(entry) = config["quantization"]
                .as_object()
                .into_iter()
                .flat_map(Map::values)
                .find(|entry| entry.as_object().is_some_and(|entry| entry.len() < 3))
            {
                differ(format!("an entry is not complete: {entry}"));
            }
        }
        (None, None) => {}
        // Where no layer can be packed, mlx-lm writes settings of none.
        (None, Some(_)) if packed.is_empty() => {}
        (ours, theirs) => differ(format!("quantization {ours:?}, {theirs:?}")),
    }
    if let Some(expected) = &run.config
        && *expected != config
    {
        differ(format!("config {config}, {expected}"));
    }
    let index = json(&directory.join("model.safetensors.index.json"));
    let total = &index["metadata"]["total_size"];
    if *total != run.total_size || converted.n_bytes != run.total_size {
        differ(format!("{total} bytes, {}", run.total_size));
    }
    // DIFFERENCE: mlx-lm leaves out parameters of modules that have modules, such as `A_log`.
    let n_parameters = index["metadata"]["total_parameters"].as_u64().expect("a number");
    if n_parameters < run.total_parameters || n_parameters != converted.n_parameters {
        differ(format!("{n_parameters} parameters, {}", run.total_parameters));
    }
    let mapped: Vec<&String> = index["weight_map"].as_object().expect("a map").keys().collect();
    if !mapped.iter().map(|name| name.as_str()).eq(found.keys().copied()) {
        differ("the index has other names".to_owned());
    }
    differences
}

/// Set to a directory for `fixtures/gen/mlx-lm/family/converted.py` to look into.
const WRITE: &str = "MLX_LM_TEST_WRITE_CONVERTED";

fn write_converted(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in from.read_dir().expect("a model") {
        let entry = entry.expect("a file");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
    }
}

fn check_case(path: &Path) -> Vec<String> {
    let case: Case = serde_json::from_value(json(path)).expect("a case");
    let root = tempfile::tempdir().expect("a directory");
    write_source(&case, &root.path().join("source"));
    let mut differences = Vec::new();
    // Those that others go on from come first in their order by chance; make it sure.
    let (first, then): (Vec<_>, Vec<_>) =
        case.runs.iter().partition(|(_, run)| run.after.is_none());
    for (name, run) in first.into_iter().chain(then) {
        let source = root.path().join(run.after.as_deref().unwrap_or("source"));
        let destination = root.path().join(name);
        let found = match convert(run.options.args(&source, &destination)) {
            Ok(converted) => {
                let mut found = self::differences(&case, run, &destination, &converted);
                let files = ModelFiles::directory(&destination).expect("a model");
                let loaded = Model::load(&files, &LoadOptions::default());
                found.extend(loaded.err().map(|error| format!("it does not load: {error}")));
                found
            }
            Err(error) => vec![error.to_string()],
        };
        let case = path.file_stem().unwrap_or_default().to_string_lossy();
        if let Some(directory) = std::env::var_os(WRITE) {
            write_converted(&destination, &Path::new(&directory).join(format!("{case}--{name}")));
        }
        differences.extend(found.into_iter().map(|text| format!("{case} {name}: {text}")));
    }
    differences
}

#[test]
fn mlx_lm_and_transformers_load_what_we_write() {
    let loaded = json(&fixtures::path("mlx-lm/converted.json"));
    let loaded = loaded.as_object().expect("a map");
    let fails: Vec<_> = loaded
        .iter()
        .flat_map(|(run, results)| {
            results.as_object().expect("a map").iter().map(move |r| (run, r))
        })
        .filter(|(_, (_, result))| *result != "loads")
        .collect();
    assert!(fails.is_empty(), "{fails:?}");

    // What a new case adds must have been shown to the others, too: see fixtures/gen/README.md.
    let mut expected = BTreeSet::new();
    for path in fixtures::path("mlx-lm/convert").read_dir().expect("a directory") {
        let path = path.expect("an entry").path();
        let case: Case = serde_json::from_value(json(&path)).expect("a case");
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        expected.extend(case.runs.keys().map(|run| format!("{stem}--{run}")));
    }
    let by = |who: &str| -> BTreeSet<String> {
        loaded.iter().filter(|(_, r)| r.get(who).is_some()).map(|(run, _)| run.clone()).collect()
    };
    assert_eq!(by("mlx-lm").symmetric_difference(&expected).collect::<Vec<_>>(), [""; 0]);
    assert!(by("transformers").len() >= 15);
}

#[test]
fn every_family_is_converted_as_by_mlx_lm() {
    let mut cases: Vec<PathBuf> = fixtures::path("mlx-lm/convert")
        .read_dir()
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    cases.sort();
    assert!(cases.len() >= 35, "{} cases", cases.len());
    let differences: Vec<String> = cases.iter().flat_map(|case| check_case(case)).collect();
    let n = differences.len();
    assert!(n == 0, "{n} differences:\n{}", differences[..n.min(60)].join("\n"));
}
