//! The op parity grid: every row of `fixtures/data/mlx-core/ops` through this crate.
//!
//! A row is read by [`call::Call`], run by [`table::run`] and compared here. A new op of the grid
//! needs one line in the table. What the crate does not offer stands in [`SKIP`], what it answers
//! otherwise on purpose in [`DIFFERENCE`]; an entry of either that no longer holds fails the test.

mod call;
mod conv;
mod numerics;
mod products;
mod table;

use std::collections::BTreeSet;

use fixtures::Tolerance;
use mlx_core::{Array, Complex32, Device, Dtype, Result, with_device};
use serde_json::Value;

use call::{Arrays, Call};

/// Family, op, a part of the row's JSON, and the reason.
type Entry = (&'static str, &'static str, &'static str, &'static str);

/// Rows that cannot be said in this crate.
const SKIP: &[Entry] = &[];

const LONG_KERNEL: &str = "MLX rounds a negative size up: a kernel longer than the input by less \
    than the stride passes, and reads out of bounds where it is not dilated";

/// Rows that fail here and not in Python.
const DIFFERENCE_FAILS: &[Entry] = &[
    (
        "shape",
        "full_like",
        r#""shape":[1,1,1,3]}]}"#,
        "Python gives the value's shape where the array broadcasts to it",
    ),
    (
        "gather",
        "slice_update",
        r#""shape":[0,4]}]}"#,
        "a start beyond the array is refused where the host has it at hand; MLX clips it",
    ),
    (
        "matmul",
        "segmented_mm",
        r#""shape":[0,0,4]}]}"#,
        "MLX does not compare inner sizes, and reads out of bounds where there are segments",
    ),
    (
        "quantized",
        "gather_qmm",
        r#""shape":[0,1,8]}]}"#,
        "nothing can be gathered from no matrices; MLX divides by their number where it tries",
    ),
    ("conv", "conv3d", r#""stride":2,"padding":0,"dilation":2}"#, LONG_KERNEL),
    ("conv", "conv3d", r#""stride":3,"padding":0,"dilation":2}"#, LONG_KERNEL),
];

/// Rows that fail in Python and give a value here.
const DIFFERENCE_GIVES: &[Entry] = &[
    (
        "shape",
        "as_strided",
        r#""slice":[[null,null,-1],[null,null,-1]]"#,
        "MLX refuses what flattens to a view; here it is laid out first",
    ),
    (
        "gather",
        "take",
        r#"{"int":-1}"#,
        "Python checks a number before it becomes an index; here it is an array, where -1 is the last",
    ),
    (
        "random",
        "random.bernoulli",
        r#"{"int":1}"#,
        "a weak number takes the dtype that is needed: 1 is the probability 1.0",
    ),
    ("matmul", "gather_mm", r#""a529""#, "MLX has no kernel for float16 on a CPU; ours has"),
    ("matmul", "gather_mm", r#""a532""#, "MLX has no kernel for bfloat16 on a CPU; ours has"),
];

fn is_listed(list: &[Entry], family: &str, row: &Value) -> Option<usize> {
    let text = row.to_string();
    list.iter().position(|(f, op, part, _)| *f == family && row["op"] == *op && text.contains(part))
}

/// Runs every row of a family and reports all that differ.
fn check_family(family: &str) {
    let checked = with_device(Device::Cpu, || {
        let rows = fixtures::json(&format!("mlx-core/ops/{family}.json"));
        let arrays = Arrays::load(family);
        let mut failures = Vec::new();
        let mut used = BTreeSet::new();
        for (i, row) in rows["rows"].as_array().unwrap().iter().enumerate() {
            let call = Call::new(row, &arrays);
            let outcome = table::run(&call).or_else(|| numerics::run(&call));
            if let Some(entry) = is_listed(SKIP, family, row) {
                used.insert(("SKIP", entry));
                if outcome.is_some() {
                    failures.push(format!("row {i} is in SKIP but runs: {row}"));
                }
                continue;
            }
            let Some(outcome) = outcome else {
                failures.push(format!("row {i}: the table has no such call: {row}"));
                continue;
            };
            let outcome = outcome.and_then(|outputs| {
                mlx_core::eval(&outputs)?;
                Ok(outputs)
            });
            let difference = check_row(family, row, &outcome, &arrays);
            if let Some(entry) = is_listed(DIFFERENCE_FAILS, family, row) {
                used.insert(("DIFFERENCE_FAILS", entry));
                if outcome.is_ok() || difference.is_ok() {
                    failures.push(format!("row {i} is in DIFFERENCE_FAILS but does not: {row}"));
                }
                continue;
            }
            if let Some(entry) = is_listed(DIFFERENCE_GIVES, family, row) {
                used.insert(("DIFFERENCE_GIVES", entry));
                if outcome.is_err() || difference.is_ok() {
                    failures.push(format!("row {i} is in DIFFERENCE_GIVES but does not: {row}"));
                }
                continue;
            }
            if let Err(difference) = difference {
                failures.push(format!("row {i}: {difference}: {row}"));
            }
        }
        for (name, list) in [
            ("SKIP", SKIP),
            ("DIFFERENCE_FAILS", DIFFERENCE_FAILS),
            ("DIFFERENCE_GIVES", DIFFERENCE_GIVES),
        ] {
            for (entry, what) in list.iter().enumerate() {
                if what.0 == family && !used.contains(&(name, entry)) {
                    failures.push(format!("{name} has a stale entry: {what:?}"));
                }
            }
        }
        assert!(failures.is_empty(), "{} of {family}:\n{}", failures.len(), failures.join("\n"));
        Ok(())
    });
    checked.unwrap();
}

fn check_row(
    family: &str,
    row: &Value,
    outcome: &Result<Vec<Array>>,
    arrays: &Arrays,
) -> Result<(), String> {
    match (outcome, row.get("error").is_some()) {
        (Err(_), true) => Ok(()),
        (Err(e), false) => Err(format!("failed: {e}")),
        (Ok(outputs), true) => Err(format!("gave {outputs:?}, expected an error")),
        (Ok(outputs), false) => {
            let expected = row["out"].as_array().unwrap();
            if outputs.len() != expected.len() {
                return Err(format!("{} outputs, expected {}", outputs.len(), expected.len()));
            }
            outputs.iter().zip(expected).enumerate().try_for_each(|(n, (actual, out))| {
                let expected = arrays.get(out["array"].as_str().unwrap());
                assert_eq!(expected.dtype().name(), out["dtype"], "the fixture is wrong");
                check_array(family, actual, &expected).map_err(|e| format!("output {n}: {e}"))
            })
        }
    }
}

fn check_array(family: &str, actual: &Array, expected: &Array) -> Result<(), String> {
    if (actual.dtype(), actual.shape()) != (expected.dtype(), expected.shape()) {
        return Err(format!("{actual:?}, expected {expected:?}"));
    }
    let text = |e: mlx_core::Error| e.to_string();
    let tolerance = Tolerance::op(family, expected.dtype().name());
    if expected.dtype() == Dtype::Complex64 {
        let parts = |array: &Array| {
            let numbers = array.to_vec::<Complex32>().map_err(text)?;
            Ok::<Vec<f32>, String>(numbers.iter().flat_map(|x| [x.re, x.im]).collect())
        };
        return tolerance.check(&parts(actual)?, &parts(expected)?);
    }
    if expected.dtype() == Dtype::Float64 {
        let numbers = |array: &Array| array.to_vec::<f64>().map_err(text);
        return tolerance.check_f64(&numbers(actual)?, &numbers(expected)?);
    }
    if expected.dtype().is_floating() {
        let numbers = |array: &Array| array.to_vec_as::<f32>().map_err(text);
        return tolerance.check(&numbers(actual)?, &numbers(expected)?);
    }
    let bytes = |array: &Array| array.with_bytes(<[u8]>::to_vec).map_err(text);
    if bytes(actual)? == bytes(expected)? {
        return Ok(());
    }
    Err(format!("{actual}, expected {expected}"))
}

macro_rules! families {
    ($($family:ident)*) => {
        $(#[test]
        fn $family() {
            check_family(stringify!($family));
        })*
    };
}

families! {
    arithmetic compare reduce shape gather sort matmul quantized fast random linalg fft conv types
    complex float64
}
