//! Which tensors of a checkpoint belong together.

use std::collections::BTreeSet;

/// The names by which a format knows its tensors, each the end of a full name.
pub(super) struct Parts {
    /// Of these a quantized layer has at least one.
    pub(super) marks: &'static [&'static str],
    /// The other tensors of a quantized layer; elsewhere such a name is an ordinary tensor's.
    pub(super) others: &'static [&'static str],
}

/// What weights do not need: scales of activations and of cached keys and values, and statistics.
const UNUSED: [&str; 15] = [
    ".input_scale",
    ".input_scale_ub",
    ".input_zero_point",
    ".input_global_scale",
    ".input_amax",
    ".activation_scale",
    ".output_scale",
    ".k_scale",
    ".v_scale",
    ".q_scale",
    ".prob_scale",
    ".kv_scale",
    ".k_zero_point",
    ".v_zero_point",
    ".q_zero_point",
];

/// The tensors of a checkpoint, sorted; all lists are in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Paths of quantized layers, each without the names of its tensors.
    pub layers: Vec<String>,
    /// Tensors that are what they seem.
    pub kept: Vec<String>,
    /// Tensors of scales and statistics that computing with weights alone does not need.
    pub unused: Vec<String>,
}

impl Inventory {
    pub(super) fn new<'n>(parts: &Parts, names: impl IntoIterator<Item = &'n str>) -> Inventory {
        let names: BTreeSet<&str> = names.into_iter().collect();
        let layer_of =
            |name: &'n str, ends: &[&str]| ends.iter().find_map(|end| name.strip_suffix(end));
        let layers: BTreeSet<&str> =
            names.iter().filter_map(|name| layer_of(name, parts.marks)).collect();
        let mut inventory = Inventory::default();
        for name in names {
            let is_part = layer_of(name, parts.marks).is_some()
                || layer_of(name, parts.others).is_some_and(|path| layers.contains(path));
            if UNUSED.iter().any(|end| name.ends_with(end)) {
                inventory.unused.push(name.to_owned());
            } else if !is_part {
                inventory.kept.push(name.to_owned());
            }
        }
        inventory.layers = layers.into_iter().map(str::to_owned).collect();
        inventory
    }
}
