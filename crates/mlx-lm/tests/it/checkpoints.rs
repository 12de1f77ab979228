//! Tiny checkpoints of every family and weight format against mlx-lm's logits and tokens.

use std::collections::BTreeMap;
use std::path::Path;

use fixtures::Tolerance;
use mlx_lm::cache::{Cache, Padding};
use mlx_lm::core::io::SafetensorsFile;
use mlx_lm::core::kernels::Arithmetic;
use mlx_lm::core::ops::{self, Packed};
use mlx_lm::core::{Array, Dtype, Quantization, load_safetensors, save_safetensors};
use mlx_lm::files::ModelFiles;
use mlx_lm::generate::{GenerateOptions, TokenSession};
use mlx_lm::load::{LoadOptions, Model};
use mlx_lm::perplexity::perplexity;
use serde_json::{Value, json};

const DIR: &str = "mlx-lm/checkpoints";
const FAMILIES: &str = "mlx-lm/families";
/// Tokens of a chunk of `chunked`.
const CHUNK: usize = 7;

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("a list").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

struct Expected {
    file: SafetensorsFile,
    name: String,
}

impl Expected {
    fn get(&self, what: &str) -> Option<Vec<f32>> {
        let bytes = self.file.bytes(&format!("{}.{what}", self.name))?;
        let floats = bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b));
        Some(floats.collect())
    }
}

/// Feeds tokens and returns the logits of the last.
fn last_logits(model: &Model, caches: &mut [Cache], tokens: &[u32]) -> mlx_lm::Result<Vec<f32>> {
    let tokens = Array::from_slice(tokens, &[1, tokens.len() as i32])?;
    let hidden = model.forward(&tokens, caches)?;
    let logits = model.head(&hidden.at((.., -1..))?)?;
    Ok(logits.to_vec_as::<f32>()?)
}

/// Whether each of `tokens` has the greatest logit behind those before it, within twice `rounding`.
fn are_greedy(
    model: &Model,
    prompt: &[u32],
    tokens: &[u32],
    rounding: f64,
) -> mlx_lm::Result<bool> {
    let mut caches = model.make_cache();
    let mut logits = last_logits(model, &mut caches, prompt)?;
    for &token in tokens {
        let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if f64::from(greatest - logits[token as usize]) > 2.0 * rounding {
            return Ok(false);
        }
        logits = last_logits(model, &mut caches, &[token])?;
    }
    Ok(true)
}

/// Root mean square of the differences.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let squares: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (squares / a.len() as f64).sqrt()
}

fn check_case(root: &str, case: &Value, distances: &mut Vec<[f64; 2]>) -> Result<(), String> {
    let name = case["name"].as_str().expect("a name");
    let dir = fixtures::path(root).join(name);
    let files = ModelFiles::directory(&dir).map_err(|e| e.to_string())?;
    let (model, _) = Model::load(&files, &LoadOptions::default()).map_err(|e| e.to_string())?;
    let expected = fixtures::json(&format!("{root}/{name}/expected.json"));
    let file = SafetensorsFile::open(dir.join("expected.safetensors")).expect("expected outputs");
    for prompt in ids_of(case) {
        let entry = &expected["prompts"][&prompt];
        let (input, greedy) = (ids(&entry["ids"]), ids(&entry["greedy"]));
        let table = Expected { file: file.clone(), name: prompt.clone() };
        let what = |e: String, what: &str| format!("{prompt} {what}: {e}");
        let run = |e: mlx_lm::Error| format!("{prompt}: {e}");

        // Of a narrow type the reference's own rounding is the bound, from its float32 logits.
        let rounding = entry["rounding"].as_f64();
        let tolerance = Tolerance::logits(rounding);
        let mut caches = model.make_cache();
        let prefill = last_logits(&model, &mut caches, &input).map_err(run)?;
        tolerance
            .check(&prefill, &table.get("prefill").expect("prefill"))
            .map_err(|e| what(e, "prefill"))?;
        let mut decode = Vec::new();
        for id in ids(&entry["decode_ids"]) {
            decode.extend(last_logits(&model, &mut caches, &[id]).map_err(run)?);
        }
        tolerance
            .check(&decode, &table.get("decode").expect("decode"))
            .map_err(|e| what(e, "decode"))?;
        if let Some(chunked) = table.get("chunked") {
            let mut caches = model.make_cache();
            let mut logits = Vec::new();
            for chunk in input.chunks(CHUNK) {
                logits = last_logits(&model, &mut caches, chunk).map_err(run)?;
            }
            tolerance.check(&logits, &chunked).map_err(|e| what(e, "chunked"))?;
        }
        if let Some(exact) = table.get("prefill_f32") {
            // Of one prompt chance decides, so the bound is wide; over all, ours are to be the nearer.
            let reference = distance(&table.get("prefill").expect("prefill"), &exact);
            let ours = distance(&prefill, &exact);
            if ours > 2.0 * reference + 1e-4 {
                let error = format!("{ours} from float32, the reference {reference}");
                return Err(what(error, "prefill"));
            }
            distances.push([ours, reference]);
        }

        // mlx-lm knows no context window; a prompt beyond it is refused here.
        let room = model.config().context_length.unwrap_or(usize::MAX);
        if input.len() + greedy.len() > room {
            continue;
        }
        for prefill_step in [2048, CHUNK] {
            let options = GenerateOptions {
                max_tokens: Some(greedy.len()),
                prefill_step,
                arithmetic: Arithmetic::Exact,
                ..GenerateOptions::default()
            };
            let mut session = TokenSession::new(&model);
            let stream = session.generate(&input, &options).map_err(run)?;
            let tokens: Vec<u32> = stream.collect::<mlx_lm::Result<_>>().map_err(run)?;
            // Dynamic scaling gives other angles to other chunks, by design.
            let is_dynamic = name == "llama-rope-dynamic" && prefill_step == CHUNK;
            // Where types are narrow, logits that are as near as their rounding may change places.
            let is_tie = || match rounding {
                Some(rounding) => are_greedy(&model, &input, &greedy, rounding).map_err(run),
                None => Ok(false),
            };
            if tokens != greedy && !is_dynamic && !is_tie()? {
                return Err(format!(
                    "{prompt} greedy in steps of {prefill_step}: {tokens:?}, expected {greedy:?}"
                ));
            }
        }

        if let Some(logprobs) = table.get("logprobs") {
            let ours = perplexity(&model, &input).map_err(run)?;
            assert_eq!(ours.token_logprobs[0], None);
            let ours: Vec<f32> = ours.token_logprobs.into_iter().flatten().collect();
            // Of gemma4_text, float32 itself knows no more: among 299 the farthest from what float64 gives
            // is 0.8e-4 for mlx-lm, 1.3e-4 for us and 1.9e-4 for transformers, each at another token.
            let atol = if name == "gemma4_text-f32" { 2e-4 } else { 1e-4 };
            let tolerance = Tolerance { rtol: 0.0, atol, of_max: 0.0 };
            tolerance.check(&ours, &logprobs).map_err(|e| what(e, "logprobs"))?;
        }
    }
    let batch = &expected["batch"];
    if batch.is_null() {
        return Ok(());
    }
    let prompts = expected["prompts"].as_object().expect("prompts");
    let rounding = prompts.values().filter_map(|prompt| prompt["rounding"].as_f64());
    let rounding =
        rounding.fold(None, |most: Option<f64>, r| Some(most.unwrap_or(0.0).max(2.0 * r)));
    check_batch(&model, batch, &Expected { file, name: "batch".to_owned() }, rounding)
}

/// Rows of several lengths together, padded in front, against what each gives alone; in chunks, too,
/// some of which are of padding only.
fn check_batch(
    model: &Model,
    batch: &Value,
    table: &Expected,
    rounding: Option<f64>,
) -> Result<(), String> {
    let run = |e: mlx_lm::Error| format!("batch: {e}");
    let rows = |key: &str| -> Vec<Vec<u32>> {
        batch[key].as_array().expect("rows").iter().map(ids).collect()
    };
    let (prompts, decoded) = (rows("ids"), rows("decode_ids"));
    let longest = prompts.iter().map(Vec::len).max().expect("rows");
    let padding: Vec<i32> = prompts.iter().map(|row| (longest - row.len()) as i32).collect();
    let padding = Padding::new(&padding).map_err(|e| e.to_string())?;
    let column = |i: usize, rows: &[Vec<u32>], n: usize| -> mlx_lm::Result<Array> {
        let rows: Vec<u32> = rows.iter().flat_map(|row| row[i..i + n].to_vec()).collect();
        Ok(Array::from_slice(&rows, &[prompts.len() as i32, n as i32])?)
    };
    let padded: Vec<Vec<u32>> = prompts
        .iter()
        .map(|row| std::iter::repeat_n(0, longest - row.len()).chain(row.iter().copied()).collect())
        .collect();
    let steps = decoded[0].len();
    for chunk in [longest, 4] {
        let mut caches = model.make_cache();
        caches.iter_mut().for_each(|cache| cache.pad(&padding));
        let mut logits = |tokens: Array| -> mlx_lm::Result<Vec<f32>> {
            let hidden = model.forward(&tokens, &mut caches)?;
            Ok(model.head(&hidden.at((.., -1..))?)?.to_vec_as::<f32>()?)
        };
        let mut prefill = Vec::new();
        for start in (0..longest).step_by(chunk) {
            let tokens = column(start, &padded, chunk.min(longest - start)).map_err(run)?;
            prefill = logits(tokens).map_err(run)?;
        }
        // Of each step all rows; the table has of each row all steps.
        let vocab = prefill.len() / prompts.len();
        let mut decode = vec![Vec::new(); prompts.len()];
        for step in 0..steps {
            let all = logits(column(step, &decoded, 1).map_err(run)?).map_err(run)?;
            decode.iter_mut().zip(all.chunks(vocab)).for_each(|(row, new)| row.extend(new));
        }
        let tolerance = Tolerance::logits(rounding);
        for (what, ours) in [("prefill", prefill), ("decode", decode.concat())] {
            tolerance
                .check(&ours, &table.get(what).expect("a table"))
                .map_err(|e| format!("batch in chunks of {chunk}, {what}: {e}"))?;
        }
    }
    Ok(())
}

fn ids_of(case: &Value) -> Vec<String> {
    let prompts = case["prompts"].as_array().expect("prompts");
    prompts.iter().map(|p| p.as_str().expect("a name").to_owned()).collect()
}

/// Checks the cases that `chosen` picks and returns how many there are, and for each prompt in a narrow
/// type how far ours and the reference's logits are from those in float32.
fn check_cases(root: &str, chosen: impl Fn(&Value) -> bool) -> (usize, Vec<[f64; 2]>) {
    let index = fixtures::json(&format!("{root}/index.json"));
    let cases = index["cases"].as_array().expect("cases");
    let cases: Vec<&Value> = cases.iter().filter(|case| chosen(case)).collect();
    let mut distances = Vec::new();
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let result = check_case(root, case, &mut distances);
            result.err().map(|e| format!("{}: {e}", case["name"]))
        })
        .collect();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
    (cases.len(), distances)
}

/// Checks that ours are the nearer over all.
fn check_nearer(distances: &[[f64; 2]]) {
    // Of two prompts chance decides.
    assert!(distances.len() >= 10, "only {} prompts", distances.len());
    let sum = |i: usize| distances.iter().map(|distance| distance[i]).sum::<f64>();
    let (ours, reference) = (sum(0), sum(1));
    assert!(ours < reference, "{ours} from float32, the reference {reference}");
}

#[test]
fn agree_with_the_reference() {
    let (n, distances) = check_cases(DIR, |_| true);
    assert!(n >= 40, "only {n} cases");
    check_nearer(&distances);
}

/// Also in the layout that the family's own checkpoints have.
#[test]
fn families_agree_with_the_reference() {
    let known: Vec<&str> = mlx_lm::models::model_types().collect();
    let is_known = |model_type: &str| known.contains(&model_type);
    let (n, mut distances) =
        check_cases(FAMILIES, |case| case["model_type"].as_str().is_some_and(is_known));
    assert!(n >= 15, "only {n} cases");
    // These are too few to judge by alone.
    distances.extend(check_cases(DIR, |case| case["dtype"] == "bfloat16").1);
    check_nearer(&distances);
}

/// What mlx-lm ignores and transformers does.
#[test]
fn phi3_has_a_window_where_it_says_so() -> mlx_lm::Result<()> {
    let source = fixtures::path(FAMILIES).join("phi3-f32");
    let dir = tempfile::tempdir().expect("a directory");
    for entry in source.read_dir().expect("a case") {
        let entry = entry.expect("a file");
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).expect("a copy");
    }
    let mut config = fixtures::json(&format!("{FAMILIES}/phi3-f32/config.json"));
    config["sliding_window"] = 8.into();
    std::fs::write(dir.path().join("config.json"), config.to_string()).expect("a file");
    let logits = |dir: &Path, n: u32| {
        let (model, _) = Model::load(&ModelFiles::directory(dir)?, &LoadOptions::default())?;
        last_logits(&model, &mut model.make_cache(), &(0..n).collect::<Vec<_>>())
    };
    for (n, is_same) in [(8, true), (30, false)] {
        let [with, without] = [logits(dir.path(), n)?, logits(&source, n)?];
        assert_eq!(distance(&with, &without) < 1e-4, is_same, "{n} tokens");
    }
    Ok(())
}

/// A checkpoint without packed weights, whose latents have the size of a group.
fn dense_latents() -> mlx_lm::Result<BTreeMap<String, Array>> {
    let dir = fixtures::path(FAMILIES).join("glm4_moe_lite-affine4");
    let mut arrays = load_safetensors(dir.join("model.safetensors"))?;
    let quantization = Quantization { group_size: 32, ..Quantization::default() };
    let layers: Vec<String> =
        arrays.keys().filter_map(|name| name.strip_suffix(".scales")).map(str::to_owned).collect();
    for layer in layers {
        let mut take = |part: &str| arrays.remove(&format!("{layer}.{part}"));
        let weight = take("weight").expect("a weight");
        let scales = take("scales").expect("scales");
        let packed = Packed { weight, scales, biases: take("biases"), quantization };
        arrays.insert(format!("{layer}.weight"), packed.dequantize(None)?);
    }
    for i in 0..2 {
        let layer = format!("model.layers.{i}.self_attn");
        let mut take = |name: &str| arrays.remove(&format!("{layer}.{name}.weight")).expect(name);
        let rows = [take("embed_q").swapaxes(-1, -2)?, take("unembed_out")];
        let kv_b_proj = ops::concatenate(&rows, 1)?.reshape([-1, 32])?;
        arrays.insert(format!("{layer}.kv_b_proj.weight"), kv_b_proj);
    }
    Ok(arrays)
}

/// Older checkpoints of MLX's, and those of others, have the rows of keys and values of all heads packed
/// together.
#[test]
fn packed_rows_of_latents_are_cut_without_loss() -> mlx_lm::Result<()> {
    let mut config = fixtures::json(&format!("{FAMILIES}/glm4_moe_lite-affine4/config.json"));
    let object = config.as_object_mut().expect("an object");
    object.remove("quantization");
    object.remove("quantization_config");
    let logits = |arrays: &BTreeMap<String, Array>, quantization: Option<(&str, Value)>| {
        let dir = tempfile::tempdir().expect("a directory");
        let mut config = config.clone();
        if let Some((key, settings)) = quantization {
            config[key] = settings;
        }
        std::fs::write(dir.path().join("config.json"), config.to_string()).expect("a file");
        let named = arrays.iter().map(|(name, array)| (name.as_str(), array));
        save_safetensors(dir.path().join("model.safetensors"), named, &[])?;
        let files = ModelFiles::directory(dir.path())?;
        let (model, _) = Model::load(&files, &LoadOptions::default())?;
        let mut caches = model.make_cache();
        let mut logits = last_logits(&model, &mut caches, &[5, 9, 1, 33, 60, 2])?;
        logits.extend(last_logits(&model, &mut caches, &[8])?);
        Ok::<_, mlx_lm::Error>(logits)
    };
    let names = [0, 1].map(|i| format!("model.layers.{i}.self_attn.kv_b_proj"));
    let affine = json!({"group_size": 32, "bits": 4});
    let weights = json!({"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": true});
    let foreign = json!({
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "config_groups": {"all": {"weights": weights}},
    });
    let all = dense_latents()?;
    let exact = logits(&all, None)?;
    for (packed_layers, is_foreign) in [(&names[..], false), (&names[1..], false), (&names, true)] {
        // The same numbers, packed and not.
        let (mut packed, mut dense) = (all.clone(), all.clone());
        for name in packed_layers {
            let weight = all[&format!("{name}.weight")].clone();
            let mut set = |part: &str, array| packed.insert(format!("{name}.{part}"), array);
            let numbers = if is_foreign {
                let scale = Array::from(0.02f32).broadcast_to([weight.dim(0)?, 1])?;
                let codes = (&weight / &scale)?
                    .round(0)?
                    .clip(Some(&Array::from(-127.0f32)), Some(&Array::from(127.0f32)))?;
                let numbers = (&codes * &scale)?;
                set("weight", codes.astype(Dtype::Int8)?);
                set("weight_scale", scale);
                numbers
            } else {
                let format = Quantization { group_size: 32, ..Quantization::default() };
                let rows = ops::quantize(&weight, format)?;
                let numbers = rows.dequantize(None)?;
                set("weight", rows.weight);
                set("scales", rows.scales);
                set("biases", rows.biases.expect("biases"));
                numbers
            };
            dense.insert(format!("{name}.weight"), numbers);
        }
        let settings = match is_foreign {
            true => ("quantization_config", foreign.clone()),
            false => ("quantization", affine.clone()),
        };
        let (ours, expected) = (logits(&packed, Some(settings))?, logits(&dense, None)?);
        assert!(distance(&ours, &expected) < 1e-4, "{packed_layers:?}");
        assert!(distance(&exact, &expected) > 1e-3, "{packed_layers:?}: nothing was packed");
    }
    Ok(())
}

#[test]
fn a_session_reuses_what_it_knows() -> mlx_lm::Result<()> {
    for name in ["qwen3-f32", "llama-sliding"] {
        let files = ModelFiles::directory(fixtures::path(DIR).join(name))?;
        let (model, _) = Model::load(&files, &LoadOptions::default())?;
        let options = GenerateOptions { max_tokens: Some(8), ..GenerateOptions::default() };
        let first: Vec<u32> = (1..30).collect();
        let mut session = TokenSession::new(&model);
        let answer: Vec<u32> =
            session.generate(&first, &options)?.collect::<mlx_lm::Result<_>>()?;

        // A second turn that goes on, one that turns off early, and the first again.
        let longer: Vec<u32> = first.iter().chain(&answer).copied().chain([40, 41]).collect();
        let other: Vec<u32> = first[..10].iter().copied().chain([50, 51, 52]).collect();
        for prompt in [&longer, &other, &first] {
            let again: Vec<u32> =
                session.generate(prompt, &options)?.collect::<mlx_lm::Result<_>>()?;
            let fresh: Vec<u32> = TokenSession::new(&model)
                .generate(prompt, &options)?
                .collect::<mlx_lm::Result<_>>()?;
            assert_eq!(again, fresh, "{name}");
        }
    }
    Ok(())
}

/// No layer makes a narrow type wide again.
#[test]
fn loading_casts_on_request() -> mlx_lm::Result<()> {
    let check = |case: &str, dtype: Dtype| -> mlx_lm::Result<()> {
        let files = ModelFiles::directory(fixtures::path(case))?;
        let (model, _) = Model::load(&files, &LoadOptions { dtype: Some(dtype) })?;
        let tokens = Array::from_slice(&[1u32, 2, 3], &[1, 3])?;
        let logits = model.head(&model.forward(&tokens, &mut model.make_cache())?)?;
        assert_eq!(logits.dtype(), dtype, "{case}");
        assert!(logits.to_vec_as::<f32>()?.iter().all(|x| x.is_finite()), "{case} in {dtype}");
        Ok(())
    };
    check(&format!("{DIR}/llama-bf16"), Dtype::Float32)?;
    let known: Vec<&str> = mlx_lm::models::model_types().collect();
    let index = fixtures::json(&format!("{FAMILIES}/index.json"));
    for case in index["cases"].as_array().expect("cases") {
        let name = case["name"].as_str().expect("a name");
        if name.ends_with("-f32") && known.iter().any(|known| case["model_type"] == **known) {
            let case = format!("{FAMILIES}/{name}");
            check(&case, Dtype::Bfloat16)?;
            check(&case, Dtype::Float16)?;
        }
    }
    Ok(())
}

/// Which expert a token goes to hangs on small differences between biases.
#[test]
fn biases_of_experts_stay_float32() -> mlx_lm::Result<()> {
    let files = ModelFiles::directory(fixtures::path(FAMILIES).join("deepseek_v3-f32"))?;
    let (model, _) = Model::load(&files, &LoadOptions { dtype: Some(Dtype::Bfloat16) })?;
    for (name, array) in model.parameters().iter() {
        let dtype = match name.ends_with(".e_score_correction_bias") {
            true => Dtype::Float32,
            false => Dtype::Bfloat16,
        };
        assert_eq!(array.dtype(), dtype, "{name}");
    }
    Ok(())
}

#[test]
fn prompts_that_cannot_run_are_refused() -> mlx_lm::Result<()> {
    let files = ModelFiles::directory(fixtures::path(DIR).join("llama-f32"))?;
    let (model, _) = Model::load(&files, &LoadOptions::default())?;
    let context = model.config().context_length.expect("a context length");
    let vocab_size = model.config().vocab_size as u32;
    let mut session = TokenSession::new(&model);
    let options = GenerateOptions::default();
    let cases =
        [(vec![], "empty"), (vec![vocab_size], "has only"), (vec![1; context], "context window")];
    for (prompt, text) in cases {
        let error = session.generate(&prompt, &options).err().expect("refused");
        assert!(error.to_string().contains(text), "{error}");
    }
    // One token of room gives one token.
    assert_eq!(session.generate(&vec![1; context - 1], &options)?.count(), 1);
    Ok(())
}

#[test]
fn random_weights_have_the_shape_of_the_config() -> mlx_lm::Result<()> {
    for name in ["qwen3-f32", "llama-affine4", "llama-mxfp4", "llama-nvfp4", "llama-mixed"] {
        let dir = fixtures::path(DIR).join(name);
        let (real, _) = Model::load(&ModelFiles::directory(&dir)?, &LoadOptions::default())?;
        let config = fixtures::json(&format!("{DIR}/{name}/config.json"));
        let random = Model::random(&config, None, 1)?;
        assert_eq!(random.n_parameters(), real.n_parameters(), "{name}");
        let tokens = Array::from_slice(&[1u32, 2, 3], &[1, 3])?;
        let hidden = random.forward(&tokens, &mut random.make_cache())?;
        let logits = random.head(&hidden)?.to_vec_as::<f32>()?;
        assert!(logits.iter().all(|x| x.is_finite()), "{name}");
    }
    Ok(())
}

/// Of experts, only those that are chosen are read for a token; of an embedding that is not the head as
/// well, a row.
#[test]
fn a_token_reads_a_part_of_the_weights() {
    let config = |experts: u32| {
        serde_json::json!({
            "model_type": "qwen3_moe", "hidden_size": 64, "num_hidden_layers": 2,
            "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1,
            "head_dim": 32, "vocab_size": 100, "rms_norm_eps": 1e-6, "rope_theta": 1e4,
            "max_position_embeddings": 64, "tie_word_embeddings": false, "num_experts": 8,
            "num_experts_per_tok": experts, "moe_intermediate_size": 32, "decoder_sparse_step": 1,
            "mlp_only_layers": [], "norm_topk_prob": true,
        })
    };
    let model =
        |experts| Model::random(&config(experts), Some(Dtype::Bfloat16), 0).expect("it is made");
    let (two, all) = (model(2), model(8));
    // Three matrices for each expert of each layer, two bytes for each weight.
    let idle_experts = 2 * 3 * 6 * 64 * 32 * 2;
    assert_eq!(all.active_bytes() - two.active_bytes(), idle_experts);
    assert_eq!(all.weight_bytes() - all.active_bytes(), 99 * 64 * 2, "rows of the embedding");
}
