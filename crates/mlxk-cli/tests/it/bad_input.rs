//! Models and files that are not what they should be.
//!
//! Each gives one message and its hints on stderr, or one envelope on stdout, and the exit code
//! of its kind.

use mlx_lm::core::io::{SafetensorsFile, TensorData, write_safetensors};
use serde_json::{Value, json};

use crate::support::{CONTEXT, Ran, TinyModel, mlxk, run};

struct Case {
    name: &'static str,
    spoil: fn(&TinyModel),
    code: i32,
    kind: &'static str,
    /// What the message and the hints have to say.
    says: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        name: "no config",
        spoil: |model| model.remove("config.json"),
        code: 4,
        kind: "invalid_model",
        says: &["config.json"],
    },
    Case {
        name: "config cut off",
        spoil: |model| model.write("config.json", "{\"model_type\": \"qwen3\","),
        code: 4,
        kind: "invalid_model",
        says: &["config.json", "line 1"],
    },
    Case {
        name: "config of the wrong type",
        spoil: |model| model.edit("config.json", |config| config["hidden_size"] = json!("many")),
        code: 4,
        kind: "invalid_model",
        says: &["config.json", "many"],
    },
    Case {
        name: "unknown model_type",
        spoil: |model| model.edit("config.json", |config| config["model_type"] = json!("novel")),
        code: 5,
        kind: "unsupported",
        says: &["novel", "supported are deepseek_v3, gemma3"],
    },
    Case {
        name: "code of its own",
        spoil: |model| {
            model.write("evil.py", "open('executed', 'w')");
            model.edit("config.json", |config| config["model_file"] = json!("evil.py"));
        },
        code: 5,
        kind: "unsupported",
        says: &["model_file", "evil.py", "never"],
    },
    Case {
        name: "code behind an unknown model_type",
        spoil: |model| {
            model.edit("config.json", |config| {
                config["model_type"] = json!("novel");
                config["auto_map"] = json!({"AutoModelForCausalLM": "evil.Model"});
            });
        },
        code: 5,
        kind: "unsupported",
        says: &["novel", "auto_map", "never executed"],
    },
    Case {
        name: "no weights",
        spoil: |model| model.remove("model.safetensors"),
        code: 4,
        kind: "invalid_model",
        says: &["model.safetensors"],
    },
    Case {
        name: "weights that are a pickle",
        spoil: |model| {
            model.remove("model.safetensors");
            model.remove("model.safetensors.index.json");
            model.write("pytorch_model.bin", b"\x80\x02");
        },
        code: 4,
        kind: "invalid_model",
        says: &["pytorch_model.bin", "pickle"],
    },
    Case {
        name: "truncated weights",
        spoil: |model| {
            let bytes = model.read("model.safetensors");
            model.write("model.safetensors", &bytes[..bytes.len() - 7]);
        },
        code: 4,
        kind: "invalid_model",
        says: &["model.safetensors", "truncated"],
    },
    Case {
        name: "empty weights",
        spoil: |model| model.write("model.safetensors", ""),
        code: 4,
        kind: "invalid_model",
        says: &["model.safetensors"],
    },
    Case {
        name: "garbage for weights",
        spoil: |model| model.write("model.safetensors", [0xa5; 4096]),
        code: 4,
        kind: "invalid_model",
        says: &["model.safetensors"],
    },
    Case {
        name: "missing, unexpected and wrongly shaped tensors",
        spoil: |model| {
            edit_tensors(model, |tensors| {
                tensors.retain(|(name, _)| {
                    name != "model.layers.0.mlp.up_proj.weight" && name != "model.norm.weight"
                });
                for (name, tensor) in tensors {
                    if name == "model.layers.1.self_attn.q_proj.weight" {
                        tensor.shape.reverse();
                    }
                    if name == "model.layers.1.mlp.up_proj.weight" {
                        *name = "model.layers.7.mlp.up_proj.weight".to_owned();
                    }
                }
            });
        },
        code: 4,
        kind: "invalid_model",
        says: &[
            "3 missing, 1 unexpected, 1 mismatched",
            "model.layers.0.mlp.up_proj.weight",
            "model.norm.weight",
            "model.layers.7.mlp.up_proj.weight",
            "model.layers.1.self_attn.q_proj.weight",
        ],
    },
    Case {
        name: "no tokenizer",
        spoil: |model| model.remove("tokenizer.json"),
        code: 4,
        kind: "invalid_model",
        says: &["tokenizer.json"],
    },
    Case {
        name: "broken tokenizer",
        spoil: |model| model.write("tokenizer.json", "{\"model\": {\"type\": \"BPE\"}}"),
        code: 4,
        kind: "invalid_model",
        says: &["tokenizer.json"],
    },
    Case {
        name: "tokenizer of a larger model",
        spoil: |model| {
            model.edit("tokenizer.json", |tokenizer| {
                tokenizer["model"]["vocab"]["h"] = 4000.into();
            });
        },
        code: 4,
        kind: "invalid_model",
        says: &["4000", "128 tokens"],
    },
    Case {
        name: "broken template",
        spoil: |model| set_template(model, "{% for %}"),
        code: 4,
        kind: "invalid_model",
        says: &["chat template", "--no-chat-template"],
    },
    Case {
        name: "template without end",
        spoil: |model| {
            set_template(
                model,
                "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
            );
        },
        code: 4,
        kind: "invalid_model",
        says: &["chat template", "too many steps"],
    },
    Case {
        name: "prompt longer than the context",
        spoil: |model| {
            model.edit("config.json", |config| config["max_position_embeddings"] = 10.into());
        },
        code: 6,
        kind: "context_length_exceeded",
        says: &["context window 10"],
    },
];

#[test]
fn spoilt_models_are_told_of() {
    for case in CASES {
        check_case(case, &TinyModel::new());
    }
    check_case(
        &Case {
            name: "absent shard",
            spoil: |model| model.remove("model-00002-of-00002.safetensors"),
            code: 4,
            kind: "invalid_model",
            says: &["model-00002-of-00002.safetensors"],
        },
        &TinyModel::of("llama-sharded", "sharded"),
    );
}

#[test]
fn names_are_no_formats() {
    check_case(
        &Case {
            name: "signs of a format",
            spoil: |model| {
                model.remove("model.safetensors.index.json");
                model.remove("model.safetensors");
                model.write("%s%n%s.safetensors", [7; 100]);
            },
            code: 4,
            kind: "invalid_model",
            says: &["%s%s%s/%s%n%s.safetensors"],
        },
        &TinyModel::of("qwen3-f32", "%s%s%s"),
    );
    // What is sound runs under such a name.
    let model = TinyModel::of("qwen3-f32", "%s%s%s{}\\n");
    run(["run", model.arg(), "hi", "--max-tokens", "2"]).ok();
}

#[test]
fn what_is_not_a_model_is_told_of() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).expect("a directory");
    let file = dir.path().join("file");
    std::fs::write(&file, "text").expect("a file");
    let absent = dir.path().join("absent");
    let cases = [
        (absent.as_path(), 3, "model_not_found", vec!["absent", "not found", "demo"]),
        ("org/name".as_ref(), 3, "model_not_found", vec!["org/name", "hub"]),
        (&empty, 4, "invalid_model", vec!["empty", "no files"]),
        (&file, 4, "invalid_model", vec!["not a directory", "config.json"]),
    ];
    for (path, code, kind, says) in cases {
        let path = path.to_str().expect("UTF-8");
        for command in [
            vec!["run", path, "hi"],
            vec!["show", path],
            vec!["bench", path],
            vec!["perplexity", path, "--file", file.to_str().expect("UTF-8")],
        ] {
            check_failure(&command, &command, code, kind, &says);
        }
    }
}

#[test]
fn missing_files_are_told_of() {
    let model = TinyModel::new();
    let absent = model.path().join("absent.txt");
    let absent = absent.to_str().expect("UTF-8");
    for command in
        [vec!["perplexity", model.arg(), "--file", absent], vec!["bench", "--synthetic", absent]]
    {
        check_failure(&command, &command, 3, "file_not_found", &["absent.txt"]);
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn a_stdout_that_takes_nothing_is_told_of() {
    let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else {
        eprintln!("skipped: there is no /dev/full");
        return;
    };
    let model = TinyModel::new();
    let ran: Ran =
        mlxk().args(["show", model.arg()]).stdout(full).output().expect("mlxk starts").into();
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.starts_with("error: cannot write to stdout"), "{}", ran.stderr);
}

fn check_case(case: &Case, model: &TinyModel) {
    (case.spoil)(model);
    let prompt = "hello ".repeat(4);
    check_failure(&["run", model.arg(), &prompt], case.name, case.code, case.kind, case.says);
    assert!(!model.path().join("executed").exists());
}

/// Runs a command that has to fail, with and without `--json`.
fn check_failure(args: &[&str], name: impl std::fmt::Debug, code: i32, kind: &str, says: &[&str]) {
    let ran = run(args.iter().copied().chain(["--strict-exit"]));
    assert_eq!(ran.code, Some(code), "{name:?}: {}", ran.stderr);
    assert_eq!(ran.stdout, "", "{name:?}");
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert!(lines[0].starts_with("error: "), "{name:?}: {}", ran.stderr);
    let rest = &lines[1..];
    let is_known = |line: &&str| line.starts_with("hint: ") || line.starts_with("  ");
    assert!(rest.iter().all(is_known), "{name:?}: {}", ran.stderr);
    for text in says {
        assert!(ran.stderr.contains(text), "{name:?}: {text:?} is not in {}", ran.stderr);
    }

    let ran = run(args.iter().copied().chain(["--json"]));
    // Codes that tell more are only for those who ask for them.
    let code = if code == 2 { 2 } else { 1 };
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(code), ""), "{name:?}");
    let envelope = ran.envelope();
    assert_eq!(envelope["command"], args[0]);
    assert_eq!(envelope["data"], Value::Null);
    assert_eq!(envelope["error"]["type"], kind, "{name:?}");
    assert_eq!(envelope["error"]["exit_code"], code);
    let message = envelope["error"]["message"].as_str().expect("text");
    assert_eq!(lines[0].strip_prefix("error: "), message.lines().next(), "{name:?}");
}

fn set_template(model: &TinyModel, template: &str) {
    model.edit("tokenizer_config.json", |config| config["chat_template"] = json!(template));
}

fn edit_tensors(model: &TinyModel, edit: impl FnOnce(&mut Vec<(String, TensorData<'static>)>)) {
    let path = model.path().join("model.safetensors");
    let file = SafetensorsFile::open(&path).expect("sound");
    let tensor = |(name, info): (&str, &mlx_lm::core::io::TensorInfo)| {
        let bytes = file.bytes(name).expect("there").to_vec().into();
        (name.to_owned(), TensorData { dtype: info.dtype, shape: info.shape.clone(), bytes })
    };
    let mut tensors: Vec<(String, TensorData<'static>)> = file.tensors().map(tensor).collect();
    edit(&mut tensors);
    model.remove("model.safetensors.index.json");
    write_safetensors(&path, tensors, &[("format", "mlx")]).expect("written");
}

#[test]
fn the_window_is_the_bound() {
    // One token below the bound is answered.
    let model = TinyModel::new();
    let prompt = "x".repeat(CONTEXT - 1);
    let args = ["run", model.arg(), "--no-chat-template", "--json", &prompt];
    let data = run(args).envelope();
    assert_eq!(data["data"]["usage"]["prompt_tokens"], CONTEXT - 1);
    let args = ["run", model.arg(), "--no-chat-template", "--strict-exit", &format!("{prompt}x")];
    assert_eq!(run(args).code, Some(6));
}
