//! From the tensors of a checkpoint to those of a model: what each family's checkpoints have
//! otherwise, as a table.
//!
//! A family's rules run one after the other, each over all tensors, so that a rule sees the names
//! that those before it gave. They change names and shapes and read no data: loading makes a
//! tensor when a layer takes it, conversion one after the other. Parts of packed weights,
//! `.weight`, `.scales` and `.biases`, are rows of the same layers and go through the same rules.
//!
//! A pattern is a whole name, in which `*` stands for any text, `#` for a number, and `%` for the
//! number that tensors are stacked by or left out from. What they stood for takes their places in
//! the new name, in the same order.

use std::collections::BTreeMap;
use std::fmt;

use mlx_core::Tensor;

use crate::error::{Error, Result};

/// One step on the way.
#[derive(Clone, Debug)]
pub(crate) enum Rule {
    /// Leaves tensors out.
    Drop(&'static str),
    /// Leaves tensors out where the number that `%` stands for is this or more.
    DropFrom(&'static str, usize),
    /// Gives tensors other names.
    Rename(&'static str, &'static str),
    /// Stacks the tensors of one name but for the number that `%` stands for.
    Stack(&'static str, &'static str),
    /// Joins tensors along their first axis, in the order of their patterns.
    Join(&'static [&'static str], &'static str),
    /// Cuts a tensor in parts.
    Split(&'static str, Cut, &'static [&'static str]),
    /// Changes tensors, which keep their names.
    Change(&'static str, Change),
}

/// How a tensor becomes another.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// By a number added to each element.
    Plus(f32),
    /// By another order of axes.
    Transpose(&'static [i32]),
    /// Its first axis becomes two, of which this is the first.
    Unflatten(i32),
    /// Its first two axes become one.
    Flatten,
}

/// The tensors of a checkpoint by name and shape, from which a family sees whose layout it has.
#[derive(Debug, Default)]
pub(crate) struct Names(BTreeMap<String, Vec<i32>>);

impl Names {
    /// Tells whether there is a tensor of this pattern.
    pub(crate) fn has(&self, pattern: &'static str) -> bool {
        self.any(pattern, |_| true)
    }

    /// Tells whether there is a tensor of this pattern whose shape is such.
    pub(crate) fn any(&self, pattern: &'static str, is: impl Fn(&[i32]) -> bool) -> bool {
        let rule = Rule::Drop(pattern);
        self.0.iter().any(|(name, shape)| rule.found_in(name).is_some() && is(shape))
    }
}

impl FromIterator<(String, Vec<i32>)> for Names {
    fn from_iter<T: IntoIterator<Item = (String, Vec<i32>)>>(tensors: T) -> Self {
        Names(tensors.into_iter().collect())
    }
}

/// How a tensor is cut in as many parts as there are new names.
#[derive(Clone, Debug)]
pub(crate) enum Cut {
    /// In parts of one size, along an axis counted from the end.
    Even(usize),
    /// In parts of these sizes, along an axis counted from the front.
    Sizes(usize, Vec<i32>),
    /// Each part takes every so manieth element, along an axis counted from the end.
    Interleaved(usize),
}

/// Tells whether a name is of one of these patterns.
pub(crate) fn is_one_of(patterns: &[&'static str], name: &str) -> bool {
    patterns.iter().any(|pattern| Rule::Drop(pattern).found_in(name).is_some())
}

/// Applies rules to the tensors of a checkpoint.
///
/// # Errors
/// When a part of a stack is missing, a tensor is not of the shape that a rule needs, or two
/// tensors get one name.
pub(crate) fn apply(
    rules: &[Rule],
    tensors: impl IntoIterator<Item = (String, Tensor)>,
) -> Result<BTreeMap<String, Tensor>> {
    let mut all: BTreeMap<String, Tensor> = tensors.into_iter().collect();
    for rule in rules {
        let mut next = Named::default();
        let mut stacks: BTreeMap<String, BTreeMap<usize, (String, Tensor)>> = BTreeMap::new();
        for (name, tensor) in all {
            let Some(found) = rule.found_in(&name) else {
                next.insert(name, tensor)?;
                continue;
            };
            let failed = |e: mlx_core::Error| Error::format(&name, e.to_string());
            match rule {
                Rule::Drop(_) | Rule::DropFrom(..) => {}
                Rule::Rename(_, to) => next.insert(found.in_place_of(to), tensor)?,
                Rule::Stack(_, to) | Rule::Join(_, to) => {
                    let stack = stacks.entry(found.in_place_of(to)).or_default();
                    stack.insert(found.index, (name, tensor));
                }
                Rule::Split(_, cut, parts) => {
                    let tensors = cut.apply(&tensor, parts.len()).map_err(failed)?;
                    for (to, tensor) in parts.iter().zip(tensors) {
                        next.insert(found.in_place_of(to), tensor)?;
                    }
                }
                Rule::Change(_, change) => {
                    let tensor = change.apply(&tensor).map_err(failed)?;
                    next.insert(name, tensor)?;
                }
            }
        }
        for (to, parts) in stacks {
            let n = match rule {
                Rule::Join(patterns, _) => patterns.len(),
                _ => parts.keys().next_back().map_or(0, |last| last + 1),
            };
            if let Some(missing) = (0..n).find(|i| !parts.contains_key(i)) {
                let text = format!("of the {n} tensors for {to}, number {missing} is missing");
                return Err(Error::format("weights", text));
            }
            let tensors = parts.into_values().map(|(_, tensor)| tensor).collect();
            let whole = match rule {
                Rule::Join(..) => Tensor::concatenate(tensors, 0),
                _ => Tensor::stack(tensors),
            };
            let whole = whole.map_err(|e| Error::format(&to, e.to_string()))?;
            next.insert(to, whole)?;
        }
        all = next.0;
    }
    Ok(all)
}

/// Returns the names of what becomes of a tensor: none where the rules leave it out.
pub(crate) fn names(rules: &[Rule], name: &str) -> Vec<String> {
    way(rules, name).1
}

/// Returns the rules that a tensor, or one of its parts, goes through, and the names of what becomes
/// of it.
pub(crate) fn way<'r>(rules: &'r [Rule], name: &str) -> (Vec<&'r Rule>, Vec<String>) {
    let (mut way, mut names) = (Vec::new(), vec![name.to_owned()]);
    for rule in rules {
        let mut next = Vec::new();
        let mut is_used = false;
        for name in names {
            let Some(found) = rule.found_in(&name) else {
                next.push(name);
                continue;
            };
            is_used = true;
            match rule {
                Rule::Drop(_) | Rule::DropFrom(..) => {}
                Rule::Change(..) => next.push(name),
                Rule::Rename(_, to) | Rule::Stack(_, to) => next.push(found.in_place_of(to)),
                Rule::Join(_, to) => {
                    // Several parts of one tensor may meet again.
                    let to = found.in_place_of(to);
                    if !next.contains(&to) {
                        next.push(to);
                    }
                }
                Rule::Split(.., parts) => {
                    next.extend(parts.iter().map(|to| found.in_place_of(to)));
                }
            }
        }
        names = next;
        way.extend(is_used.then_some(rule));
    }
    (way, names)
}

#[derive(Default)]
struct Named(BTreeMap<String, Tensor>);

impl Named {
    fn insert(&mut self, name: String, tensor: Tensor) -> Result<()> {
        if self.0.contains_key(&name) {
            return Err(Error::format("weights", format!("two tensors are for {name}")));
        }
        self.0.insert(name, tensor);
        Ok(())
    }
}

impl Rule {
    fn found_in<'n>(&self, name: &'n str) -> Option<Found<'n>> {
        let find = |pattern: &str, index: usize| {
            let mut found = Found { texts: Vec::new(), index };
            let applies = found.matches(pattern, name)
                && !matches!(self, Rule::DropFrom(_, least) if found.index < *least);
            applies.then_some(found)
        };
        match self {
            Rule::Drop(pattern)
            | Rule::DropFrom(pattern, _)
            | Rule::Rename(pattern, _)
            | Rule::Stack(pattern, _)
            | Rule::Split(pattern, ..)
            | Rule::Change(pattern, _) => find(pattern, 0),
            Rule::Join(patterns, _) => {
                patterns.iter().enumerate().find_map(|(i, pattern)| find(pattern, i))
            }
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Drop(pattern) => write!(f, "leave out {pattern}"),
            Rule::DropFrom(pattern, least) => write!(f, "leave out {pattern} from {least} on"),
            Rule::Rename(pattern, to) => write!(f, "rename {pattern} to {to}"),
            Rule::Stack(pattern, to) => write!(f, "stack {pattern} as {to}"),
            Rule::Join(patterns, to) => write!(f, "join {} as {to}", patterns.join(", ")),
            Rule::Split(pattern, cut, parts) => {
                let cut = match cut {
                    Cut::Even(_) => "in parts of one size".to_owned(),
                    Cut::Sizes(_, sizes) => format!("in parts of {sizes:?}"),
                    Cut::Interleaved(_) => "in turns".to_owned(),
                };
                write!(f, "cut {pattern} {cut} as {}", parts.join(", "))
            }
            Rule::Change(pattern, change) => match change {
                Change::Plus(number) => write!(f, "add {number} to {pattern}"),
                Change::Transpose(axes) => write!(f, "bring axes of {pattern} in order {axes:?}"),
                Change::Unflatten(n) => write!(f, "cut the first axis of {pattern} in {n}"),
                Change::Flatten => write!(f, "join the first two axes of {pattern}"),
            },
        }
    }
}

impl Cut {
    fn apply(&self, tensor: &Tensor, n: usize) -> mlx_core::Result<Vec<Tensor>> {
        let count = n as i32;
        // A size that cannot be shared out is one that is too small for the last part.
        let shared_out = |from_end: usize| {
            let axis = tensor.shape().len().wrapping_sub(from_end);
            let size = tensor.shape().get(axis).copied().unwrap_or(0);
            (axis, (size + count - 1) / count)
        };
        match self {
            Cut::Even(from_end) => {
                let (axis, each) = shared_out(*from_end);
                (0..count).map(|i| tensor.slice(axis, i * each, each, 1)).collect()
            }
            Cut::Interleaved(from_end) => {
                let (axis, each) = shared_out(*from_end);
                (0..count).map(|i| tensor.slice(axis, i, each, count)).collect()
            }
            Cut::Sizes(axis, sizes) => {
                let mut start = 0i32;
                let parts = sizes.iter().map(|&size| {
                    start = start.saturating_add(size);
                    tensor.slice(*axis, start - size, size, 1)
                });
                let parts = parts.collect::<mlx_core::Result<Vec<_>>>()?;
                // What is left over would be lost.
                match tensor.shape().get(*axis) {
                    Some(&all) if all == start => Ok(parts),
                    _ => tensor.slice(*axis, start, i32::MAX, 1).map(|_| parts),
                }
            }
        }
    }
}

impl Change {
    fn apply(&self, tensor: &Tensor) -> mlx_core::Result<Tensor> {
        let shape = tensor.shape();
        match self {
            Change::Plus(number) => tensor.plus(*number),
            Change::Transpose(axes) => tensor.transpose(axes),
            Change::Unflatten(first) => {
                let rows = shape.first().copied().unwrap_or(0);
                let rest = shape.get(1..).unwrap_or_default();
                tensor.reshape(&[&[*first, rows / (*first).max(1)], rest].concat())
            }
            Change::Flatten => {
                let rows = shape.iter().take(2).try_fold(1i32, |n, &size| n.checked_mul(size));
                let rest = shape.get(2..).unwrap_or_default();
                tensor.reshape(&[&[rows.unwrap_or(-1)], rest].concat())
            }
        }
    }
}

/// What the signs of a pattern stand for; of several patterns, the index says which.
struct Found<'n> {
    texts: Vec<&'n str>,
    index: usize,
}

impl<'n> Found<'n> {
    fn matches(&mut self, pattern: &str, name: &'n str) -> bool {
        let Some(at) = pattern.find(['*', '#', '%']) else { return pattern == name };
        let (literal, rest) = pattern.split_at(at);
        let Some(name) = name.strip_prefix(literal) else { return false };
        let (sign, rest) = rest.split_at(1);
        let digits = name.bytes().take_while(u8::is_ascii_digit).count();
        match sign {
            "*" => {
                let n_texts = self.texts.len();
                // The longest first, so that a prefix takes all there is of it.
                for end in (0..=name.len()).rev().filter(|&end| name.is_char_boundary(end)) {
                    self.texts.truncate(n_texts);
                    self.texts.push(&name[..end]);
                    if self.matches(rest, &name[end..]) {
                        return true;
                    }
                }
                false
            }
            _ if digits == 0 => false,
            "#" => {
                self.texts.push(&name[..digits]);
                self.matches(rest, &name[digits..])
            }
            _ => match name[..digits].parse() {
                Ok(index) => {
                    self.index = index;
                    self.matches(rest, &name[digits..])
                }
                Err(_) => false,
            },
        }
    }

    fn in_place_of(&self, to: &str) -> String {
        let mut texts = self.texts.iter();
        let mut name = String::with_capacity(to.len() + 32);
        for c in to.chars() {
            match c {
                '*' | '#' => name.push_str(texts.next().copied().unwrap_or_default()),
                c => name.push(c),
            }
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use mlx_core::Array;

    use super::*;

    fn tensor(shape: &[i32], start: i32) -> Tensor {
        let n: i32 = shape.iter().product();
        let numbers: Vec<i32> = (start..start + n).collect();
        Array::from_slice(&numbers, shape).expect("numbers of a shape").into()
    }

    fn names(rules: &[Rule], names: &[&str]) -> Vec<String> {
        let tensors = names.iter().map(|name| ((*name).to_owned(), tensor(&[4, 2], 0)));
        apply(rules, tensors).expect("they apply").into_keys().collect()
    }

    fn values(tensor: Tensor) -> Vec<i32> {
        tensor.into_array().and_then(|array| array.to_vec()).expect("numbers")
    }

    #[test]
    fn patterns_are_whole_names() {
        let found = |pattern, name| {
            let rule = Rule::Drop(pattern);
            rule.found_in(name).map(|found| (found.texts.join("|"), found.index))
        };
        let some = |texts: &str, index| Some((texts.to_owned(), index));
        assert_eq!(found("a.b", "a.b"), some("", 0));
        assert_eq!(found("a.b", "a.b.c"), None);
        assert_eq!(found("a.*", "a.b.c"), some("b.c", 0));
        assert_eq!(found("*.b", "a.b"), some("a", 0));
        assert_eq!(found("*b*", "abcbd"), some("abc|d", 0));
        assert_eq!(found("*", ""), some("", 0));
        assert_eq!(found("l.#.w", "l.12.w"), some("12", 0));
        assert_eq!(found("l.#.w", "l.x.w"), None);
        assert_eq!(found("*.experts.%.w1.*", "m.3.experts.17.w1.weight"), some("m.3|weight", 17));
        assert_eq!(found("e.%", "e.99999999999999999999999"), None);
        assert_eq!(found("é*", "éß"), some("ß", 0));
    }

    #[test]
    fn rules_see_the_names_that_those_before_gave() {
        let rules = [
            Rule::Rename("model.language_model.*", "model.*"),
            Rule::Drop("*.inv_freq"),
            Rule::Drop("vision.*"),
            Rule::Rename("model.h.#.*", "model.layers.#.*"),
        ];
        let before =
            ["lm_head.weight", "model.language_model.h.3.w", "vision.a", "model.h.1.inv_freq"];
        assert_eq!(names(&rules, &before), ["lm_head.weight", "model.layers.3.w"]);
        for name in ["vision.a", "model.language_model.h.1.inv_freq"] {
            assert!(super::names(&rules, name).is_empty(), "{name}");
        }
        assert_eq!(super::names(&rules, before[1]), ["model.layers.3.w"]);
        let (steps, becomes) = way(&rules, before[1]);
        assert_eq!(becomes, ["model.layers.3.w"]);
        let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
        assert_eq!(steps[1], "rename model.h.#.* to model.layers.#.*");
        assert_eq!(steps.len(), 2);
        let split = [Rule::Split("*.ab.*", Cut::Even(2), &["*.a.*", "*.b.*"])];
        assert_eq!(super::names(&split, "x.ab.weight"), ["x.a.weight", "x.b.weight"]);
    }

    #[test]
    fn numbered_tensors_are_stacked_in_order() {
        let rules = [Rule::Stack("#.experts.%.w1.*", "#.switch.gate.*")];
        let tensors = (0..12).map(|i| (format!("5.experts.{i}.w1.weight"), tensor(&[2], 10 * i)));
        let mut stacked = apply(&rules, tensors).expect("they apply");
        let gate = stacked.remove("5.switch.gate.weight").expect("it is there");
        assert_eq!((gate.shape(), stacked.len()), (&[12, 2][..], 0));
        assert_eq!(values(gate)[18..], [90, 91, 100, 101, 110, 111]);

        let holes = [0, 2].map(|i| (format!("5.experts.{i}.w1.weight"), tensor(&[2], 0)));
        let error = apply(&rules, holes).expect_err("one is missing").to_string();
        assert!(error.contains("5.switch.gate.weight") && error.contains("number 1"), "{error}");
        let unlike = [0, 1].map(|i| (format!("5.experts.{i}.w1.weight"), tensor(&[2 + i], 0)));
        assert!(apply(&rules, unlike).is_err());
    }

    #[test]
    fn tensors_are_joined_in_the_order_of_patterns() {
        let rules = [Rule::Join(&["#.z.*", "#.a.*"], "#.za.*")];
        assert_eq!(super::names(&rules, "3.a.weight"), ["3.za.weight"]);
        let split = Rule::Split("#.az.*", Cut::Even(2), &["#.a.*", "#.z.*"]);
        assert_eq!(super::names(&[&[split][..], &rules].concat(), "3.az.b"), ["3.za.b"]);
        let named = |name: &str, rows, start| (name.to_owned(), tensor(&[rows, 2], start));
        let parts = [named("3.a.weight", 1, 0), named("3.z.weight", 2, 10), named("3.b", 1, 0)];
        let mut joined = apply(&rules, parts).expect("they apply");
        let za = joined.remove("3.za.weight").expect("it is there");
        assert_eq!((values(za), joined.len()), (vec![10, 11, 12, 13, 0, 1], 1));
        for (part, missing) in [("3.a.weight", "number 0"), ("3.z.weight", "number 1")] {
            let error = apply(&rules, [named(part, 1, 0)]).expect_err("one is missing").to_string();
            assert!(error.contains("3.za.weight") && error.contains(missing), "{error}");
        }
    }

    #[test]
    fn tensors_are_cut() {
        let cut = |cut: Cut, shape: &[i32]| {
            let rules = [Rule::Split("*.ab.w", cut, &["*.a.w", "*.b.w"])];
            let parts = apply(&rules, [("x.ab.w".to_owned(), tensor(shape, 0))])?;
            Ok::<_, Error>(parts.into_values().map(values).collect::<Vec<_>>())
        };
        let fine = |found: Result<Vec<Vec<i32>>>| found.expect("it can be cut");
        assert_eq!(fine(cut(Cut::Even(2), &[4, 1])), [[0, 1], [2, 3]]);
        assert_eq!(fine(cut(Cut::Even(1), &[2, 2])), [[0, 2], [1, 3]]);
        assert_eq!(fine(cut(Cut::Sizes(0, vec![1, 3]), &[4, 1])), [vec![0], vec![1, 2, 3]]);
        assert_eq!(fine(cut(Cut::Sizes(1, vec![1, 2]), &[2, 3])), [vec![0, 3], vec![1, 2, 4, 5]]);
        assert_eq!(fine(cut(Cut::Interleaved(2), &[4, 1])), [[0, 2], [1, 3]]);
        assert_eq!(fine(cut(Cut::Interleaved(1), &[2, 2])), [[0, 2], [1, 3]]);
        assert!(cut(Cut::Even(2), &[3, 1]).is_err());
        assert!(cut(Cut::Even(3), &[4, 1]).is_err());
        assert!(cut(Cut::Interleaved(2), &[3, 1]).is_err());
        assert!(cut(Cut::Sizes(1, vec![1, 1]), &[4, 1]).is_err());
        for sizes in [vec![1, 2], vec![2, 3], vec![-1, 5], vec![4, 0]] {
            assert!(cut(Cut::Sizes(0, sizes.clone()), &[4, 1]).is_err(), "{sizes:?}");
        }
    }

    #[test]
    fn tensors_are_changed_and_keep_their_names() {
        let change = |change: Change, shape: &[i32]| {
            let rules = [Rule::Change("*.w", change)];
            let changed = apply(&rules, [("a.w".to_owned(), tensor(shape, 0))])?;
            let (name, tensor) = changed.into_iter().next().expect("one");
            assert_eq!(name, "a.w");
            Ok::<_, Error>((tensor.shape().to_vec(), values(tensor)))
        };
        let fine = |found: Result<(Vec<i32>, Vec<i32>)>| found.expect("it can be changed");
        let transposed = fine(change(Change::Transpose(&[1, 0]), &[2, 2]));
        assert_eq!(transposed, (vec![2, 2], vec![0, 2, 1, 3]));
        assert_eq!(fine(change(Change::Unflatten(3), &[6, 1])).0, [3, 2, 1]);
        assert_eq!(fine(change(Change::Flatten, &[3, 2, 1])).0, [6, 1]);
        for (wrong, shape) in [
            (Change::Plus(1.0), &[2][..]),
            (Change::Transpose(&[1, 0]), &[2]),
            (Change::Unflatten(4), &[6, 1]),
            (Change::Unflatten(0), &[6, 1]),
            (Change::Unflatten(-2), &[6, 1]),
        ] {
            assert!(change(wrong.clone(), shape).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn names_tell_whose_layout_it_is() {
        let names: Names = [("l.0.conv.weight", vec![8, 1, 4]), ("l.1.w", vec![2])]
            .map(|(name, shape)| (name.to_owned(), shape))
            .into_iter()
            .collect();
        assert!(names.has("l.#.w") && !names.has("w"));
        assert!(names.any("*.conv.weight", |shape| shape.get(1) == Some(&1)));
        assert!(!names.any("*.w", |shape| shape.len() > 1));
    }

    #[test]
    fn no_tensor_takes_the_place_of_another() {
        let rules = [Rule::Rename("a.*", "*")];
        let tensors = ["a.x", "x"].map(|name| (name.to_owned(), tensor(&[1], 0)));
        assert!(apply(&rules, tensors).expect_err("two").to_string().contains("for x"));
    }
}
