//! Shapes of one size and of every kind of block: what they take beside a dense model.

use serde_json::{Value, json};

/// The shapes with their names, of some hundred million active weights each, in 4 bits. The first is
/// the dense one.
pub fn all() -> [(&'static str, Value); 4] {
    let with = |mut shape: Value| {
        let common = json!({
            "num_hidden_layers": 8, "vocab_size": 32_000, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
            "max_position_embeddings": 32_768, "torch_dtype": "bfloat16",
            "quantization": {"group_size": 64, "bits": 4},
        });
        if let (Some(shape), Some(common)) = (shape.as_object_mut(), common.as_object()) {
            common.iter().for_each(|(key, value)| {
                shape.entry(key).or_insert(value.clone());
            });
        }
        shape
    };
    [
        ("dense", with(dense())),
        ("8 of 64 experts", with(experts())),
        ("MLA", with(latent())),
        ("gated delta", with(delta())),
    ]
}

fn dense() -> Value {
    json!({
        "model_type": "qwen3", "hidden_size": 2048, "intermediate_size": 6144,
        "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
        "tie_word_embeddings": true,
    })
}

fn experts() -> Value {
    json!({
        "model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144,
        "moe_intermediate_size": 768, "num_experts": 64, "num_experts_per_tok": 8,
        "decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": true,
        "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
        "tie_word_embeddings": true,
    })
}

fn latent() -> Value {
    json!({
        "model_type": "glm4_moe_lite", "hidden_size": 2048, "intermediate_size": 10_240,
        "moe_intermediate_size": 1536, "n_routed_experts": 32, "num_experts_per_tok": 4,
        "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
        "topk_method": "noaux_tc", "scoring_func": "sigmoid", "norm_topk_prob": true,
        "routed_scaling_factor": 1.8, "num_attention_heads": 20, "num_key_value_heads": 20,
        "q_lora_rank": 768, "kv_lora_rank": 512, "qk_nope_head_dim": 192, "qk_rope_head_dim": 64,
        "v_head_dim": 256, "attention_bias": false, "rope_scaling": null,
        "partial_rotary_factor": 1.0, "hidden_act": "silu", "num_nextn_predict_layers": 0,
        "tie_word_embeddings": false,
    })
}

fn delta() -> Value {
    json!({
        "model_type": "qwen3_next", "hidden_size": 2048, "intermediate_size": 5120,
        "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512, "num_experts": 64,
        "num_experts_per_tok": 10, "decoder_sparse_step": 1, "mlp_only_layers": [],
        "norm_topk_prob": true, "full_attention_interval": 4, "linear_num_key_heads": 16,
        "linear_num_value_heads": 32, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4, "num_attention_heads": 16, "num_key_value_heads": 2,
        "head_dim": 256, "partial_rotary_factor": 0.25, "attention_bias": false,
        "tie_word_embeddings": false,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn shapes_are_whole() {
        for (name, shape) in super::all() {
            assert_eq!(shape["quantization"]["bits"], 4, "{name}");
            assert!(shape["hidden_size"].is_u64() && shape["num_hidden_layers"] == 8, "{name}");
        }
    }
}
