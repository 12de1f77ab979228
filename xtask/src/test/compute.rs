//! A package of the kernels' arithmetic alone.
//!
//! `kernels/compute` has nothing of MLX, which cannot be built for another CPU and not be interpreted,
//! so where one of these runs the tests, a package is made around the sources.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::shell;

/// Writes the package to a directory.
pub fn write_package(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir.join("src"))?;
    let manifest = fs::read_to_string(shell::root().join("Cargo.toml"))?;
    fs::write(dir.join("Cargo.toml"), package(&manifest)?)?;
    fs::write(dir.join("src/lib.rs"), library(&shell::root())?)?;
    fs::copy(shell::root().join("Cargo.lock"), dir.join("Cargo.lock"))?;
    Ok(())
}

/// The manifest, with the workspace's versions.
fn package(workspace: &str) -> Result<String> {
    let version = |name: &str| {
        let line = workspace.lines().find(|line| line.starts_with(&format!("{name} = ")));
        line.with_context(|| format!("the workspace has no version of {name}"))
    };
    Ok(format!(
        "[package]\nname = \"compute\"\nedition = \"2024\"\n\n\
         [dependencies]\n{}\n\n[dev-dependencies]\n{}\n\n\
         [profile.dev]\nopt-level = 2\ndebug = \"line-tables-only\"\n\n[workspace]\n",
        version("half")?,
        version("proptest")?
    ))
}

/// The arithmetic, where it finds itself by the path that it has in mlx-core.
fn library(root: &Path) -> Result<String> {
    let compute = root.join("crates/mlx-core/src/kernels/compute/mod.rs");
    let compute = compute.to_str().context("the workspace's path is not UTF-8")?;
    Ok(format!(
        "// What makes nodes of the kernels is missing here.\n\
         #![allow(dead_code, unused_imports)]\n\n\
         pub mod kernels {{\n    #[path = {compute:?}]\n    pub mod compute;\n}}\n\n\
         #[test]\nfn the_expected_instruction_set_is_chosen() {{\n    \
             let expected = std::env::var(\"EXPECTED_ISA\").unwrap();\n    \
             assert_eq!(kernels::compute::Isa::detect().name(), expected);\n}}\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_has_the_workspace_s_versions() {
        let manifest =
            package("[workspace.dependencies]\nhalf = \"2\"\nproptest = \"1\"\n").unwrap();
        assert!(manifest.contains("[dependencies]\nhalf = \"2\"\n"), "{manifest}");
        assert!(manifest.contains("[dev-dependencies]\nproptest = \"1\"\n"), "{manifest}");
        assert!(package("half = \"2\"\n").is_err());
    }

    #[test]
    fn the_library_is_the_sources_in_their_place() {
        let text = library(Path::new("/somewhere")).unwrap();
        let path = "#[path = \"/somewhere/crates/mlx-core/src/kernels/compute/mod.rs\"]";
        assert!(text.contains(path), "{text}");
    }
}
