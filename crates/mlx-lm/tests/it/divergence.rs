//! What fast arithmetic costs, on the trained model.

use mlx_lm::core::kernels::Arithmetic;
use mlx_lm::core::{Device, with_device};
use mlx_lm::divergence::{Run, divergence, greedy_agreement};
use mlx_lm::files::ModelFiles;
use mlx_lm::load::{LoadOptions, Model};
use mlx_lm::perplexity::perplexity;
use serde_json::Value;

fn demo() -> Model {
    let files = ModelFiles::embedded("demo", fixtures::demo::FILES);
    Model::load(&files, &LoadOptions::default()).expect("the demo model loads").0
}

/// Conversations with the answers that the model gives; together they are longer than its context.
fn conversations() -> Vec<[Vec<u32>; 2]> {
    let data = fixtures::json("mlx-lm/demo_greedy.json");
    let ids = |list: &Value| -> Vec<u32> {
        let list = list.as_array().expect("ids");
        list.iter().filter_map(Value::as_u64).map(|id| id as u32).collect()
    };
    let cases = data["cases"].as_array().expect("cases");
    cases.iter().map(|case| [ids(&case["prompt_ids"]), ids(&case["output_ids"])]).collect()
}

fn on_cpu(test: impl FnOnce()) {
    let test = || {
        test();
        Ok(())
    };
    with_device(Device::Cpu, test).expect("every machine has a CPU");
}

fn runs(model: &Model) -> [Run<'_>; 2] {
    [Arithmetic::Exact, Arithmetic::Fast].map(|arithmetic| Run { model, arithmetic })
}

#[test]
fn fast_arithmetic_costs_little() {
    on_cpu(|| {
        let model = demo();
        let [exact, fast] = runs(&model);
        let text: Vec<u32> = conversations().concat().concat();
        assert!(Some(text.len()) > model.config().context_length);

        let found = divergence(exact, fast, &text).expect("both run");
        assert_eq!(found.n, text.len() - 2, "two windows");
        assert!(0.0 < found.mean_kl && found.mean_kl <= 1e-3, "{found:?}");
        assert!(found.mean_kl < found.kl_99 && found.kl_99 <= 1e-2, "{found:?}");
        assert!(found.same_top >= 0.98, "{found:?}");
        let ratio = found.perplexity / found.reference_perplexity;
        assert!(ratio != 1.0 && (ratio - 1.0).abs() < 0.01, "{found:?}");
        // Without a scope of options, kernels are exact.
        let alone = perplexity(&model, &text).expect("it runs").perplexity;
        assert!((found.reference_perplexity / alone - 1.0).abs() < 1e-5, "{found:?}, {alone}");
    });
}

#[test]
fn a_run_is_where_it_is() {
    on_cpu(|| {
        let model = demo();
        let [exact, _] = runs(&model);
        let [prompt, answer] = conversations().swap_remove(0);
        let found = divergence(exact, exact, &[&prompt[..], &answer].concat()).expect("it runs");
        assert_eq!((found.mean_kl, found.kl_99, found.same_top), (0.0, 0.0, 1.0));
        assert_eq!(found.perplexity, found.reference_perplexity);
        assert!(divergence(exact, exact, &prompt[..1]).is_err());
        assert!(divergence(exact, exact, &[0, u32::MAX]).is_err());
    });
}

#[test]
fn most_answers_are_the_same() {
    on_cpu(|| {
        let model = demo();
        let [exact, fast] = runs(&model);
        let conversations = conversations();
        let prompts: Vec<&[u32]> = conversations.iter().map(|[prompt, _]| &prompt[..]).collect();
        let same = greedy_agreement(exact, fast, &prompts, 40).expect("both run");
        assert!(same >= 0.9, "{same}");
    });
}

/// Another model's distributions are far, and its answers are others.
#[test]
fn another_model_is_far() {
    on_cpu(|| {
        let model = demo();
        let other = Model::random(&model.config().raw, None, 1).expect("random weights");
        let [exact, _] = runs(&model);
        let run = Run { model: &other, arithmetic: Arithmetic::Exact };
        let [prompt, answer] = conversations().swap_remove(0);
        let found = divergence(exact, run, &[&prompt[..], &answer].concat()).expect("both run");
        assert!(found.mean_kl > 1.0 && found.same_top < 0.5, "{found:?}");
        assert!(found.perplexity > 10.0 * found.reference_perplexity, "{found:?}");
        let same = greedy_agreement(exact, run, &[&prompt], 20).expect("both run");
        assert!(same < 0.5, "{same}");
    });
}
