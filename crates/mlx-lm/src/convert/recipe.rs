//! Recipes: more bits where they matter most, after llama.cpp's `Q4_K_M`.

use mlx_core::{QuantMode, Quantization};

use super::predicate::LayerInfo;
use crate::error::{Error, ErrorKind, Result};

/// A mix of bits over the layers of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Recipe {
    /// 2 bits, 6 where it matters.
    Mixed2_6,
    /// 3 bits, 4 where it matters.
    Mixed3_4,
    /// 3 bits, 6 where it matters.
    Mixed3_6,
    /// 4 bits, 6 where it matters.
    Mixed4_6,
}

impl Recipe {
    /// Every recipe.
    pub const ALL: [Recipe; 4] =
        [Recipe::Mixed2_6, Recipe::Mixed3_4, Recipe::Mixed3_6, Recipe::Mixed4_6];

    /// Returns its name, as mlx-lm has it: `mixed_2_6`.
    pub fn name(self) -> &'static str {
        match self {
            Recipe::Mixed2_6 => "mixed_2_6",
            Recipe::Mixed3_4 => "mixed_3_4",
            Recipe::Mixed3_6 => "mixed_3_6",
            Recipe::Mixed4_6 => "mixed_4_6",
        }
    }

    /// Finds a recipe by its name.
    pub fn from_name(name: &str) -> Option<Recipe> {
        Recipe::ALL.into_iter().find(|recipe| recipe.name() == name)
    }

    /// Returns its bits: those of most layers, and those of layers that matter.
    pub fn bits(self) -> [i32; 2] {
        match self {
            Recipe::Mixed2_6 => [2, 6],
            Recipe::Mixed3_4 => [3, 4],
            Recipe::Mixed3_6 => [3, 6],
            Recipe::Mixed4_6 => [4, 6],
        }
    }
}

/// A recipe for one model.
pub(super) struct RecipePlan {
    bits: [i32; 2],
    group_size: i32,
    /// The segment of a path that numbers layers.
    place: usize,
    n_layers: usize,
}

impl RecipePlan {
    /// Looks for the numbers of layers in the paths of a model's layers.
    ///
    /// # Errors
    /// When no layer is called `down_proj`, or none of those is numbered.
    pub(super) fn new<'p>(
        recipe: Recipe,
        group_size: i32,
        paths: impl Iterator<Item = &'p str> + Clone,
    ) -> Result<RecipePlan> {
        let refused = |what: &str| {
            let text = format!("{} needs {what}", recipe.name());
            Error::new(ErrorKind::Unsupported, text)
                .with_hint("leave the recipe out, or give bits for all layers")
        };
        let first = paths.clone().find(|path| path.contains("down_proj"));
        let first = first.ok_or_else(|| refused("layers called down_proj, and there are none"))?;
        let segments: Vec<&str> = first.split('.').collect();
        let Some(place) = segments.iter().position(|segment| number(segment).is_some()) else {
            return Err(refused(&format!("numbered layers, and {first} has no number")));
        };
        let numbers = paths.filter_map(|path| {
            let mut of_path = path.split('.');
            let is_beside =
                segments[..place].iter().all(|&segment| of_path.next() == Some(segment));
            number(of_path.next().filter(|_| is_beside)?)
        });
        let n_layers = numbers.max().map_or(0, |last| last.saturating_add(1));
        Ok(RecipePlan { bits: recipe.bits(), group_size, place, n_layers })
    }

    /// Returns what a layer is quantized in.
    pub(super) fn quantization(&self, layer: &LayerInfo<'_>) -> Quantization {
        let [low, high] = self.bits;
        let bits = if self.matters(layer.path) { high } else { low };
        Quantization { bits, group_size: self.group_size, mode: QuantMode::Affine }
    }

    /// Tells whether a layer gets more bits: values and down projections of the first and the last eighth
    /// of a model and of each third layer between, and the head.
    ///
    /// DIFFERENCE: a path without a number where others have theirs counts as layer 0; mlx-lm fails.
    fn matters(&self, path: &str) -> bool {
        let is = |names: &[&str]| names.iter().any(|name| path.contains(name));
        let layer = path.split('.').nth(self.place).and_then(number).unwrap_or(0);
        let (n, eighth) = (self.n_layers, self.n_layers / 8);
        let last = (7 * n as u128 / 8) as usize;
        let is_favoured = layer < eighth || layer >= last || (layer - eighth) % 3 == 2;
        is(&["v_proj", "v_a_proj", "v_b_proj", "down_proj"]) && is_favoured || is(&["lm_head"])
    }
}

fn number(segment: &str) -> Option<usize> {
    let is_number = !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit());
    segment.parse().ok().filter(|_| is_number)
}

#[cfg(test)]
mod tests {
    use mlx_core::Dtype;
    use proptest::prelude::*;

    use super::super::predicate::Decision;
    use super::*;

    fn bits(plan: &RecipePlan, path: &str) -> i32 {
        let layer = LayerInfo {
            path,
            shape: &[64, 64],
            dtype: Dtype::Bfloat16,
            default: Quantization::default(),
            family: Decision::Default,
        };
        plan.quantization(&layer).bits
    }

    proptest! {
        /// mlx-lm's formula, line by line, in integers with Python's remainder.
        #[test]
        fn bits_are_those_of_the_formula(
            n in 1..140i64,
            prefix in prop::sample::select(vec!["model.layers", "layers", "language_model.model.layers"]),
            part in prop::sample::select(vec![
                "self_attn.v_proj", "self_attn.q_proj", "mlp.down_proj", "mlp.switch_mlp.down_proj",
                "self_attn.kv_b_proj", "self_attn.v_a_proj", "linear_attn.v_b_proj", "mlp.up_proj",
            ]),
            recipe in prop::sample::select(Recipe::ALL.to_vec()),
        ) {
            let paths: Vec<String> = (0..n)
                .flat_map(|i| ["mlp.down_proj", part].map(|part| format!("{prefix}.{i}.{part}")))
                .collect();
            let plan = RecipePlan::new(recipe, 64, paths.iter().map(String::as_str)).expect("a plan");
            let [low, high] = recipe.bits();
            for index in 0..n {
                let use_more_bits = index < n / 8
                    || index >= 7 * n / 8
                    || (index - n / 8).rem_euclid(3) == 2;
                let counts = ["v_proj", "v_a_proj", "v_b_proj", "down_proj"].iter().any(|p| part.contains(p));
                let expected = if counts && use_more_bits { high } else { low };
                prop_assert_eq!(bits(&plan, &format!("{prefix}.{index}.{part}")), expected);
            }
            prop_assert_eq!(bits(&plan, "lm_head"), high);
            prop_assert_eq!(bits(&plan, "model.embed_tokens"), low);
        }
    }

    #[test]
    fn layers_without_down_proj_count() {
        let paths = ["model.layers.1.mlp.down_proj", "model.layers.15.mixer.in_proj", "other.99.x"];
        let plan = RecipePlan::new(Recipe::Mixed4_6, 64, paths.into_iter()).expect("a plan");
        assert_eq!((plan.place, plan.n_layers), (2, 16));
        // Where others have a number, this has none.
        assert_eq!(bits(&plan, "model.layers.x.v_proj"), 6);
    }

    #[test]
    fn models_of_another_shape_are_refused() {
        for (paths, text) in [
            (&["model.layers.0.feed_forward.w2"][..], "down_proj, and there are none"),
            (&["mlp.down_proj"], "mlp.down_proj has no number"),
        ] {
            let error = RecipePlan::new(Recipe::Mixed3_6, 64, paths.iter().copied());
            let error = error.err().expect("refused").to_string();
            assert!(error.contains(text) && error.contains("mixed_3_6"), "{error}");
        }
        assert_eq!(Recipe::from_name("mixed_5_7"), None);
        assert!(Recipe::ALL.iter().all(|r| Recipe::from_name(r.name()) == Some(*r)));
    }
}
