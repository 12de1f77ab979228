//! Finds or makes native MLX and links it.
//!
//! In this order: an explicit prefix (`MLX_SYS_PREFIX`), the fingerprinted build in the user's
//! cache, else a new build there. `MLX_SYS_INSTALLED` names an installed MLX (the `mlx` directory
//! of a Python wheel) that replaces MLX's own build; `MLX_SYS_BACKEND` chooses cpu, metal or cuda.

mod native;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use native::{Backend, Build, Error, Prefix};

fn main() -> ExitCode {
    for name in [
        "MLX_SYS_PREFIX",
        "MLX_SYS_CACHE",
        "MLX_SYS_INSTALLED",
        "MLX_SYS_BACKEND",
        "XDG_CACHE_HOME",
    ] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    for path in ["build", "native", "shim"] {
        println!("cargo:rerun-if-changed={path}");
    }
    // Documentation needs the bindings only.
    if env::var_os("DOCS_RS").is_some() {
        return ExitCode::SUCCESS;
    }
    match prefix().and_then(|prefix| link(&prefix)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            println!("cargo:warning={e}");
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

fn prefix() -> Result<Prefix, Error> {
    let var = |name: &str| env::var_os(name).filter(|v| !v.is_empty());
    if let Some(dir) = var("MLX_SYS_PREFIX") {
        let prefix = Prefix(PathBuf::from(dir));
        if !prefix.is_complete() {
            return Err(Error(format!(
                "MLX_SYS_PREFIX={} holds no {}; `cargo xtask native` prints a complete prefix",
                prefix.0.display(),
                Prefix::LINK
            )));
        }
        return Ok(prefix);
    }
    let target = env::var("TARGET").unwrap_or_default();
    let installed = var("MLX_SYS_INSTALLED").map(PathBuf::from);
    let backend = match env::var("MLX_SYS_BACKEND") {
        Ok(name) if !name.is_empty() => Backend::parse(&name)?,
        _ => Backend::choose(&target, installed.as_deref()),
    };
    let build = Build {
        crate_dir: PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()),
        target,
        backend,
        installed,
        cache: native::default_cache()?,
    };
    build.ensure(&mut |step| eprintln!("{step}"))
}

fn link(prefix: &Prefix) -> Result<(), Error> {
    let include = prefix.0.join("include");
    let path = prefix.0.join(Prefix::LINK);
    let text = fs::read_to_string(&path).map_err(|e| Error(format!("{}: {e}", path.display())))?;
    let is_static = text.lines().any(|line| line == "static mlx");

    let mut shim = cc::Build::new();
    shim.cpp(true).std("c++20").files([
        "shim/shim.cpp",
        "shim/runtime.cpp",
        "shim/distributed.cpp",
    ]);
    shim.include(&include).include("shim");
    shim.define("NDEBUG", None).opt_level(2).warnings(false);
    if is_static {
        shim.define("MLX_STATIC", None);
    }
    if text.lines().any(|line| line == "backend cpu") {
        shim.define("MLX_SHIM_CPU_ONLY", None);
    }
    shim.compile("mlx_shim");

    for line in text.lines() {
        let (kind, value) = line.split_once(' ').unwrap_or((line, ""));
        let value = value.replace("{prefix}", &prefix.0.display().to_string());
        match kind {
            "search" if is_static || Path::new(&value).starts_with(&prefix.0) => {
                println!("cargo:rustc-link-search=native={value}");
            }
            "search" => println!("cargo:rustc-link-search=native={}", mirror(&value)?),
            "static" => println!("cargo:rustc-link-lib=static={value}"),
            "dylib" => println!("cargo:rustc-link-lib=dylib={value}"),
            "framework" => println!("cargo:rustc-link-lib=framework={value}"),
            "backend" => println!("cargo:backend={value}"),
            _ => return Err(Error(format!("{}: unknown line `{line}`", path.display()))),
        }
    }
    println!("cargo:prefix={}", prefix.0.display());
    println!("cargo:include={}", include.display());
    println!("cargo:version={}", native::MLX_VERSION);
    Ok(())
}

/// Mirrors an installed MLX into OUT_DIR, whose search path `cargo run` and `cargo test` hand to
/// the dynamic linker. A wheel's libmlx looks for its own libraries beside the package
/// (`$ORIGIN/../../mlx_cpu.libs`, `…/nvidia/…`), so these are mirrored at the same distance.
fn mirror(lib: &str) -> Result<String, Error> {
    let lib = Path::new(lib);
    let site = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("installed");
    let to = site.join("mlx/lib");
    fs::create_dir_all(&to).map_err(|e| Error(format!("{}: {e}", to.display())))?;
    link_entries(lib, &to, |_| true)?;
    if let Some(package) = lib.parent() {
        // CUDA kernels are compiled at run time with headers beside the library.
        link_entries(package, &site.join("mlx"), |name| name == "include")?;
        if let Some(packages) = package.parent() {
            link_entries(packages, &site, |name| name.ends_with(".libs") || name == "nvidia")?;
        }
    }
    Ok(to.display().to_string())
}

fn link_entries(from: &Path, to: &Path, wanted: fn(&str) -> bool) -> Result<(), Error> {
    let at = |path: &Path, e: std::io::Error| Error(format!("{}: {e}", path.display()));
    for entry in fs::read_dir(from).map_err(|e| at(from, e))?.flatten() {
        let (source, link) = (entry.path(), to.join(entry.file_name()));
        if !wanted(&entry.file_name().to_string_lossy()) {
            continue;
        }
        // What an earlier build left may point to another installation.
        let _ = fs::remove_file(&link);
        #[cfg(unix)]
        std::os::unix::fs::symlink(&source, &link).map_err(|e| at(&link, e))?;
        #[cfg(not(unix))]
        if source.is_file() {
            fs::copy(&source, &link).map_err(|e| at(&link, e))?;
        }
    }
    Ok(())
}
