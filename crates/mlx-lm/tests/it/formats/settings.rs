//! What `quantization_config` may say.

use mlx_lm::ErrorKind;
use mlx_lm::formats::ForeignFormat;
use serde_json::{Value, json};

fn compressed(format: &str, weights: Value) -> Value {
    let groups = json!({ "group_0": { "targets": ["Linear"], "weights": weights } });
    json!({ "quant_method": "compressed-tensors", "format": format, "config_groups": groups })
}

#[test]
fn names_what_it_reads() {
    let int4 = json!({ "num_bits": 4, "type": "int", "strategy": "group", "group_size": 128 });
    let cases = [
        (json!({ "quant_method": "awq" }), "AWQ 4-bit, groups of 128"),
        (
            json!({ "quant_method": "AWQ", "w_bit": 4, "q_group_size": 64 }),
            "AWQ 4-bit, groups of 64",
        ),
        (
            json!({ "quant_method": "gptq", "bits": 8, "group_size": -1, "desc_act": true }),
            "GPTQ 8-bit, one group a row, desc_act",
        ),
        (
            json!({ "quant_method": "gptq", "bits": 3, "checkpoint_format": "gptq_v2" }),
            "GPTQ 3-bit, groups of 128",
        ),
        (compressed("pack-quantized", int4), "compressed-tensors pack-quantized, 4-bit"),
        (
            json!({ "quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"] }),
            "ModelOpt NVFP4",
        ),
        (
            json!({ "producer": { "name": "modelopt" }, "quantization": { "quant_algo": "FP8" } }),
            "ModelOpt FP8",
        ),
        (
            json!({ "quant_method": "fp8", "weight_block_size": [128, 128], "fmt": "e4m3" }),
            "fp8 in blocks of 128×128",
        ),
        (json!({ "quant_method": "fp8", "weight_block_size": null }), "fp8"),
        (json!({ "quant_method": "mxfp4" }), "mxfp4"),
    ];
    for (settings, name) in cases {
        for config in [
            json!({ "quantization_config": settings }),
            json!({ "text_config": { "quantization_config": settings } }),
        ] {
            let format = ForeignFormat::detect(&config).expect("sound");
            assert_eq!(format.map(|format| format.name()).as_deref(), Some(name), "{config}");
        }
    }
}

#[test]
fn leaves_mlx_alone() {
    let int4 = json!({ "num_bits": 4, "type": "int", "strategy": "group", "group_size": 128 });
    for config in [
        json!({}),
        json!({ "quantization_config": null }),
        json!({ "quantization_config": { "group_size": 64, "bits": 4 } }),
        json!({ "quantization_config": { "quant_method": "mxfp8" } }),
        // A conversion keeps where it came from.
        json!({ "quantization": { "bits": 4 }, "quantization_config": { "quant_method": "awq" } }),
        json!({ "quantization_config": compressed("dense", int4) }),
        json!({ "quantization_config": compressed("pack-quantized", Value::Null) }),
    ] {
        assert_eq!(ForeignFormat::detect(&config).expect("sound"), None, "{config}");
    }
}

#[test]
fn refuses_what_it_does_not_read() {
    let gptq = |extra: &str| {
        let text = format!("{{\"quant_method\": \"gptq\", \"bits\": 4, {extra}}}");
        serde_json::from_str::<Value>(&text).expect("JSON")
    };
    let int = |bits: i64| json!({ "num_bits": bits, "type": "int", "strategy": "channel" });
    let unsupported = [
        (json!({ "quant_method": "bitnet" }), "\"bitnet\""),
        (json!({ "quant_method": "hqq" }), "\"hqq\""),
        (json!({ "quant_method": "awq", "bits": 3 }), "AWQ with 3 bits"),
        (json!({ "quant_method": "awq", "version": "gemv_fast" }), "\"gemv_fast\""),
        (json!({ "quant_method": "gptq", "bits": 5 }), "GPTQ with 5 bits"),
        (gptq("\"checkpoint_format\": \"marlin\""), "\"marlin\""),
        (gptq("\"is_marlin_format\": true"), "is_marlin_format"),
        (compressed("marlin-24", int(4)), "\"marlin-24\""),
        (compressed("mxfp6-pack-quantized", int(4)), "\"mxfp6-pack-quantized\""),
        (compressed("pack-quantized", int(16)), "int of 16 bits"),
        (compressed("pack-quantized", int(0)), "int of 0 bits"),
        (
            compressed("pack-quantized", json!({ "num_bits": 6, "type": "float" })),
            "float of 6 bits",
        ),
        (
            compressed("pack-quantized", json!({ "num_bits": 4, "strategy": "attn_head" })),
            "\"attn_head\"",
        ),
        (
            json!({ "quant_method": "compressed-tensors",
                "sparsity_config": { "format": "sparse-24-bitmask" } }),
            "\"sparse-24-bitmask\"",
        ),
        (
            json!({ "quant_method": "compressed-tensors",
                "transform_config": { "config_groups": { "u": {} } } }),
            "transform_config",
        ),
        (json!({ "quant_method": "modelopt", "quant_algo": "W4A16_AWQ" }), "\"W4A16_AWQ\""),
        (
            json!({ "quant_method": "modelopt", "quant_algo": "MIXED_PRECISION",
                "quantized_layers": { "a": { "quant_algo": "INT8_SQ" } } }),
            "\"INT8_SQ\"",
        ),
        (json!({ "quant_method": "fp8", "fmt": "e5m2" }), "\"e5m2\""),
    ];
    for (settings, text) in unsupported {
        let error = ForeignFormat::detect(&json!({ "quantization_config": settings }));
        let error = error.expect_err("unsupported");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert!(!error.hints().is_empty(), "{error}");
    }
    let unsound = [
        (json!(4), "not an object"),
        (json!({ "quant_method": 4 }), "\"quant_method\""),
        (json!({ "quant_method": "awq", "bits": "4" }), "\"bits\""),
        (json!({ "quant_method": "awq", "group_size": 0 }), "\"group_size\""),
        (json!({ "quant_method": "awq", "group_size": -2 }), "\"group_size\""),
        (json!({ "quant_method": "gptq", "group_size": 1.5 }), "\"group_size\""),
        (json!({ "quant_method": "gptq", "bits": 99999999999i64 }), "\"bits\""),
        (json!({ "quant_method": "fp8", "weight_block_size": [0, 128] }), "\"weight_block_size\""),
        (json!({ "quant_method": "fp8", "weight_block_size": [128] }), "\"weight_block_size\""),
        (json!({ "quant_method": "compressed-tensors", "config_groups": [] }), "\"config_groups\""),
        (
            json!({ "quant_method": "compressed-tensors", "config_groups": { "W4A16": ["Linear"] } }),
            "\"W4A16\"",
        ),
    ];
    for (settings, text) in unsound {
        let error = ForeignFormat::detect(&json!({ "quantization_config": settings }));
        let error = error.expect_err("unsound");
        assert_eq!(error.kind(), ErrorKind::Format, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
}
