//! Rules about the workspace as a whole: manifests, directories, documents.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::{LIBRARIES, Violation};
use crate::{fixtures, shell};

/// Which members a member may depend on. Tests of every member may use `fixtures`.
const ARROWS: &[(&str, &[&str])] = &[
    ("mlx-sys", &[]),
    ("mlx-core", &["mlx-sys"]),
    ("mlx-lm", &["mlx-core"]),
    ("mlx-vlm", &["mlx-core", "mlx-lm"]),
    ("mlx-audio", &["mlx-core", "mlx-lm"]),
    ("mlx-embed", &["mlx-core", "mlx-lm"]),
    ("mlxk-cli", &["mlx-core", "mlx-lm", "mlx-vlm", "mlx-audio", "mlx-embed", "fixtures"]),
    ("fixtures", &[]),
    ("xtask", &[]),
];

/// The most lines of ARCHITECTURE.md.
const ARCHITECTURE_LINES: usize = 300;

/// A dependency as a manifest names it.
pub(super) struct Dependency {
    pub name: String,
    pub is_dev: bool,
}

pub(super) fn check(root: &Path, files: &[String]) -> Result<Vec<Violation>> {
    let mut violations = Vec::new();
    let architecture = std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap_or_default();
    let metadata = shell::metadata()?;
    let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    let members: BTreeSet<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let manifest = relative(root, package["manifest_path"].as_str().unwrap_or_default());
        let dependencies = dependencies(package);
        violations.extend(check_arrows(&manifest, name, &dependencies, &members));
        violations.extend(check_justified(&manifest, &dependencies, &members, &architecture));
        violations.extend(check_test_targets(&manifest, name, &targets(package, "test")));
        if LIBRARIES.contains(&name) {
            let text = std::fs::read_to_string(root.join(&manifest))?;
            violations.extend(check_lints(&manifest, &text));
        }
    }
    if architecture.lines().count() >= ARCHITECTURE_LINES {
        let text = format!("{ARCHITECTURE_LINES} lines or more");
        violations.push(violation("ARCHITECTURE.md", 1, "length", text));
    }
    for path in
        files.iter().filter(|path| path.ends_with(".md") && !path.starts_with("fixtures/data/"))
    {
        let text = std::fs::read_to_string(root.join(path))?;
        violations.extend(check_links(path, &text, |target| root.join(target).exists()));
    }
    let generators: Vec<String> = fixtures::scripts(&root.join("fixtures"))?
        .iter()
        .map(|path| path.to_string_lossy().replace('\\', "/"))
        .collect();
    let table = std::fs::read_to_string(root.join("fixtures/gen/README.md")).unwrap_or_default();
    violations.extend(check_generators(files, &table, &generators));
    Ok(violations)
}

fn violation(path: &str, line: usize, rule: &'static str, text: impl Into<String>) -> Violation {
    Violation { path: path.to_owned(), line, rule, text: text.into() }
}

fn relative(root: &Path, path: &str) -> String {
    let path = Path::new(path);
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/")
}

fn dependencies(package: &Value) -> Vec<Dependency> {
    let list = package["dependencies"].as_array().map_or(&[][..], Vec::as_slice);
    list.iter()
        .filter_map(|d| {
            Some(Dependency { name: d["name"].as_str()?.to_owned(), is_dev: d["kind"] == "dev" })
        })
        .collect()
}

fn targets<'a>(package: &'a Value, kind: &str) -> Vec<&'a str> {
    let list = package["targets"].as_array().map_or(&[][..], Vec::as_slice);
    list.iter()
        .filter(|target| target["kind"][0] == kind)
        .filter_map(|target| target["name"].as_str())
        .collect()
}

pub(super) fn check_arrows(
    manifest: &str,
    name: &str,
    dependencies: &[Dependency],
    members: &BTreeSet<&str>,
) -> Vec<Violation> {
    let Some((_, allowed)) = ARROWS.iter().find(|(member, _)| *member == name) else {
        return vec![violation(
            manifest,
            1,
            "arrows",
            format!("`{name}` has no place in the layers"),
        )];
    };
    dependencies
        .iter()
        .filter(|d| members.contains(d.name.as_str()))
        .filter(|d| {
            let is_test_data = d.is_dev && d.name == "fixtures";
            !is_test_data && !allowed.contains(&d.name.as_str())
        })
        .map(|d| {
            violation(manifest, 1, "arrows", format!("`{name}` may not depend on `{}`", d.name))
        })
        .collect()
}

pub(super) fn check_justified(
    manifest: &str,
    dependencies: &[Dependency],
    members: &BTreeSet<&str>,
    architecture: &str,
) -> Vec<Violation> {
    let names: BTreeSet<&str> = dependencies.iter().map(|d| d.name.as_str()).collect();
    names
        .difference(members)
        .filter(|name| !architecture.contains(&format!("`{name}`")))
        .map(|name| {
            violation(
                manifest,
                1,
                "justified",
                format!("ARCHITECTURE.md says no word about `{name}`"),
            )
        })
        .collect()
}

/// One integration binary per crate, under the names that `cargo xtask test` asks for.
pub(super) fn check_test_targets(manifest: &str, name: &str, targets: &[&str]) -> Vec<Violation> {
    let expected = if name == "mlxk-cli" { "cli" } else { "it" };
    targets
        .iter()
        .filter(|target| **target != expected)
        .map(|target| {
            let text = format!(
                "the test target `{target}` would not run: the one that does is `{expected}`"
            );
            violation(manifest, 1, "tests", text)
        })
        .collect()
}

pub(super) fn check_lints(manifest: &str, text: &str) -> Option<Violation> {
    let inherits = text
        .lines()
        .collect::<Vec<_>>()
        .windows(2)
        .any(|pair| pair == ["[lints]", "workspace = true"]);
    (!inherits).then(|| violation(manifest, 1, "lints", "does not inherit the workspace's lints"))
}

/// What a document names in backticks or links to within the repository must be there.
pub(super) fn check_links(path: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<Violation> {
    const TOP: &[&str] = &["crates/", "fixtures/", "xtask/", "docs/", ".ci/", ".github/"];
    let is_pattern = |target: &str| target.contains(['<', '*', '…', '{', '|', ' ']);
    let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
    let mut violations = Vec::new();
    let mut in_code = false;
    for (i, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
            continue;
        }
        if in_code {
            continue;
        }
        let quoted =
            line.split('`').skip(1).step_by(2).filter(|t| TOP.iter().any(|top| t.starts_with(top)));
        let linked =
            line.match_indices("](").filter_map(|(at, _)| line[at + 2..].split([')', '#']).next());
        let linked = linked.filter(|t| !t.is_empty() && !t.contains("://")).map(|target| {
            if dir.is_empty() { target.to_owned() } else { format!("{dir}/{target}") }
        });
        for target in quoted.map(str::to_owned).chain(linked) {
            let is_built = target.starts_with("crates/mlx-sys/vendor");
            if !is_pattern(&target) && !is_built && !exists(&target) {
                violations.push(violation(path, i + 1, "links", format!("there is no {target}")));
            }
        }
    }
    violations
}

/// Every case below `fixtures/data/<crate>` and every model must have the script that wrote it:
/// the table of the generators' README names both in one row.
pub(super) fn check_generators(
    files: &[String],
    table: &str,
    generators: &[String],
) -> Vec<Violation> {
    let mut cases = BTreeSet::new();
    for file in files {
        let parts: Vec<&str> = file.split('/').collect();
        match parts[..] {
            ["fixtures", "data", member, case, ..] => cases.insert(format!("{member}/{case}")),
            ["fixtures", "models", model, ..] => cases.insert(model.to_owned()),
            _ => continue,
        };
    }
    let is_written = |case: &str| {
        table.lines().filter(|row| row.starts_with('|')).any(|row| {
            let mut columns = row.split('|').skip(1);
            let scripts = columns.next().unwrap_or_default();
            let writes = columns.next().unwrap_or_default();
            let is_named = writes.contains(case) || scripts.contains(&format!("`{case}/`"));
            is_named && generators.iter().any(|script| row_names(scripts, script))
        })
    };
    cases
        .iter()
        .filter(|case| !is_written(case))
        .map(|case| {
            let text = format!("the table names no generator of `{case}`");
            violation("fixtures/gen/README.md", 1, "generator", text)
        })
        .collect()
}

/// A row names a script, or the directory that the script is in.
fn row_names(column: &str, script: &str) -> bool {
    let dir = script.rsplit_once('/').map_or("", |(dir, _)| dir);
    column.contains(&format!("`{script}`")) || column.contains(&format!("`{dir}/`"))
}
