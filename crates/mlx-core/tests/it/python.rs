//! What Python's `mlx.core` has, and where it is here.
//!
//! [`names::NAMES`] has every public name of the pinned Python package. A path in it has to exist in
//! the crate's source, a reason stays a reason only while nothing of the name exists, and a name
//! that Python does not have fails.

mod names;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mlx_core::{Dtype, DtypeCategory, ops};
use serde_json::Value;

use names::NAMES;

/// Where a name of Python is.
#[derive(Clone, Copy)]
enum Is {
    /// At this path of the crate.
    Here(&'static str),
    /// Nowhere, for this reason.
    Not(&'static str),
}

/// The crate's source: texts by path below `src`.
struct Source(Vec<(String, String)>);

impl Source {
    fn read() -> Source {
        let mut source = Source(Vec::new());
        source.add(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "");
        source
    }

    fn add(&mut self, directory: &Path, below: &str) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{below}{}", path.file_name().unwrap().to_str().unwrap());
            if path.is_dir() {
                self.add(&path, &format!("{name}/"));
            } else {
                self.0.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }

    /// Tells whether a path such as `Array::abs`, `ops::conv1d` or `Device` is defined, by what its
    /// last part looks like where it is: an item, a row of a macro's table, a variant, a module.
    fn has(&self, path: &str) -> bool {
        let (parent, name) = path.rsplit_once("::").unwrap_or(("", path));
        let files: &[&str] = match parent {
            "Array" => &["array/", "ops/"],
            _ if parent.starts_with(char::is_lowercase) => &[parent],
            _ => &[""],
        };
        let mut texts = self.0.iter().filter(|(file, _)| files.iter().any(|f| file.starts_with(f)));
        texts.any(|(_, text)| {
            let mut in_table = false;
            text.lines().any(|line| {
                let at_start = !line.starts_with(' ') && !line.starts_with("macro_rules!");
                in_table = (in_table && line != "}") || (at_start && line.ends_with("! {"));
                defines_item(line, name) || (in_table && has_cell(line, name))
            })
        })
    }
}

/// Tells whether a line defines a public item or a variant.
fn defines_item(line: &str, name: &str) -> bool {
    let line = line.trim_start();
    let kinds = ["fn ", "struct ", "enum ", "trait ", "mod ", "const "];
    let rest = kinds.iter().find_map(|kind| {
        let line = line.strip_prefix("pub ")?;
        line.strip_prefix("const ").unwrap_or(line).strip_prefix(kind)?.strip_prefix(name)
    });
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    line.strip_suffix(',') == Some(name) || rest.is_some_and(|rest| !rest.starts_with(is_word))
}

/// Tells whether one of the first cells of a table's row is this name; arguments may follow it.
fn has_cell(line: &str, name: &str) -> bool {
    let cells = line.split(',').take(2).map(|cell| cell.split(['(', ':']).next().unwrap_or(cell));
    cells.map(str::trim).any(|cell| cell == name)
}

#[test]
fn every_name_of_python_is_here_or_explained() {
    let python = fixtures::json("mlx-core/python.json");
    assert_eq!(python["version"], mlx_core::MLX_VERSION);
    let source = Source::read();
    let table: BTreeMap<(&str, &str), Is> = NAMES
        .iter()
        .flat_map(|(module, names)| names.iter().map(|(name, is)| ((*module, *name), *is)))
        .collect();
    let listed: usize = NAMES.iter().map(|(_, names)| names.len()).sum();
    assert_eq!(table.len(), listed, "a name is listed twice");
    let mut failures = Vec::new();
    let mut seen = 0;
    for (module, names) in python["names"].as_object().unwrap() {
        for name in names.as_array().unwrap() {
            let name = name.as_str().unwrap();
            let Some(is) = table.get(&(module.as_str(), name)) else {
                failures.push(format!("{module}.{name}: add it to NAMES"));
                continue;
            };
            seen += 1;
            match is {
                Is::Here(path) if !source.has(path) => {
                    failures.push(format!("{module}.{name}: there is no {path}"));
                }
                Is::Not(reason) if source.has(&format!("ops::{name}")) => {
                    failures.push(format!("{module}.{name}: ops has it, in spite of: {reason}"));
                }
                _ => {}
            }
        }
    }
    if seen < table.len() {
        failures.push(format!("{} names are none of Python's", table.len() - seen));
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// The guide's table has the names that are another here, or that nothing says.
#[test]
fn the_guide_lists_every_name_that_differs() {
    let source = Source::read();
    let guide = source.0.iter().find(|(path, _)| path == "guide/names.rs");
    let guide = guide.map_or("", |(_, text)| text);
    let rows: Vec<(&str, &str)> =
        guide.lines().filter_map(|line| line.strip_prefix("//! | ")?.split_once(" | ")).collect();
    let plain = |name: &str| name.replace('_', "").to_lowercase();
    let mut missing = Vec::new();
    for (module, names) in NAMES {
        for (name, is) in *names {
            let qualified = match *module {
                "" | "metal" => (*name).to_owned(),
                module => format!("{module}.{name}"),
            };
            let here = match is {
                Is::Here(path) => path.rsplit("::").next().unwrap_or(path),
                Is::Not(_) => "",
            };
            let is_listed = || {
                let quoted = format!("`{qualified}`");
                rows.iter().any(|(python, row)| python.contains(&quoted) && row.contains(here))
            };
            if plain(name) != plain(here) && !is_listed() {
                missing.push(format!("`{qualified}` | `{here}`"));
            }
        }
    }
    assert!(missing.is_empty(), "src/guide/names.rs lacks:\n{}", missing.join("\n"));
}

#[test]
fn paths_are_found_where_they_are() {
    let source = Source::read();
    for path in [
        "Array::abs",
        "Array::sum",
        "Array::reshape",
        "Array::add",
        "ops::conv1d",
        "ops::hanning",
        "ops::where_",
        "random::split",
        "memory::peak",
        "Dtype::Float16",
        "Dtype::finfo",
        "Device",
        "fast",
    ] {
        assert!(source.has(path), "{path}");
    }
    for path in
        ["Array::ab", "Array::conv1d_", "ops::split_key", "fast::abs", "Dtype::Float8", "Devic"]
    {
        assert!(!source.has(path), "{path}");
    }
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

#[test]
fn dtypes_are_what_python_says() {
    const CATEGORIES: [(&str, DtypeCategory); 8] = [
        ("generic", DtypeCategory::Generic),
        ("number", DtypeCategory::Number),
        ("integer", DtypeCategory::Integer),
        ("signedinteger", DtypeCategory::Signedinteger),
        ("unsignedinteger", DtypeCategory::Unsignedinteger),
        ("inexact", DtypeCategory::Inexact),
        ("floating", DtypeCategory::Floating),
        ("complexfloating", DtypeCategory::Complexfloating),
    ];
    let python = fixtures::json("mlx-core/python.json");
    let dtypes = python["dtypes"].as_object().unwrap();
    assert_eq!(dtypes.len(), Dtype::ALL.len());
    for dtype in Dtype::ALL {
        let about = &dtypes[dtype.name()];
        let categories = CATEGORIES.iter().filter(|(_, category)| dtype.is_subtype(*category));
        let categories: Vec<&str> = categories.map(|(name, _)| *name).collect();
        assert_eq!(categories, texts(&about["categories"]), "{dtype}");
        for other in Dtype::ALL {
            let casts = texts(&about["can_cast"]).contains(&other.name());
            assert_eq!(dtype.can_cast(other), casts, "{dtype} to {other}");
            let promoted = ops::result_type([dtype, other, dtype]).unwrap();
            assert_eq!(promoted.name(), about["result_type"][other.name()], "{dtype} and {other}");
        }
        let finfo = dtype.finfo().map(|info| {
            let bits = f64::from(info.bits);
            [bits, info.min, info.max, info.eps, info.smallest_normal]
        });
        let expected = about.get("finfo").map(|info| {
            ["bits", "min", "max", "eps", "smallest_normal"].map(|key| info[key].as_f64().unwrap())
        });
        // The reader of JSON may be off by the last digit.
        let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-15 * b.abs();
        let same = match (finfo, expected) {
            (Some(finfo), Some(expected)) => finfo.iter().zip(&expected).all(near),
            (finfo, expected) => finfo == expected,
        };
        assert!(same, "{dtype}: {finfo:?}, expected {expected:?}");
        let iinfo = dtype.iinfo().map(|info| (info.min.to_string(), info.max.to_string()));
        let expected = about.get("iinfo").map(|info| {
            let text = |key: &str| info[key].as_str().unwrap().to_owned();
            (text("min"), text("max"))
        });
        assert_eq!(iinfo, expected, "{dtype}");
    }
    assert_eq!(ops::result_type([]), None);
}
