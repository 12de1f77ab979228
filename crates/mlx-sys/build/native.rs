//! Native MLX: where its sources come from, how they are built, and where the result is kept.
//!
//! Shared by `build.rs` and `cargo xtask native`, so that either makes what the other finds. The
//! sources are exact, checksummed packages of the Rust registry, brought by cargo through the
//! locked manifests in `native/` and laid out in `vendor/`; CMake then builds with every
//! dependency redirected there and no way to the network. The result goes to a cache directory of
//! the user, under a name made of everything that determines it, and is reused from there.

use std::fmt::{self, Write as _};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Version of MLX that the sources must have.
pub const MLX_VERSION: &str = "0.32.2";
/// Version of mlx-c that the sources must have.
pub const MLX_C_VERSION: &str = "0.7.0";

/// Bumped when the build below changes in a way that the other inputs do not show.
const RECIPE: &str = "4";

/// A text for the user: what failed and the way out.
#[derive(Debug)]
pub struct Error(pub String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

type Result<T> = std::result::Result<T, Error>;

fn fail<T>(message: impl Into<String>) -> Result<T> {
    Err(Error(message.into()))
}

fn at<T>(path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|e| Error(format!("{}: {e}", path.display())))
}

/// The device code that the native library carries beside the CPU's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Cpu,
    Metal,
    Cuda,
}

impl Backend {
    pub fn name(self) -> &'static str {
        match self {
            Backend::Cpu => "cpu",
            Backend::Metal => "metal",
            Backend::Cuda => "cuda",
        }
    }

    pub fn parse(name: &str) -> Result<Backend> {
        match name {
            "cpu" => Ok(Backend::Cpu),
            "metal" => Ok(Backend::Metal),
            "cuda" => Ok(Backend::Cuda),
            _ => fail(format!("backend `{name}` is not one of cpu, metal, cuda")),
        }
    }

    /// What an installed MLX brings; else Metal on Apple silicon and the CPU elsewhere, because
    /// building for CUDA needs its toolkit.
    pub fn choose(target: &str, installed: Option<&Path>) -> Backend {
        let Some(installed) = installed else {
            return if target == "aarch64-apple-darwin" { Backend::Metal } else { Backend::Cpu };
        };
        let packages = installed.parent().and_then(|dir| fs::read_dir(dir).ok());
        let has_cuda = packages
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("mlx_cuda"));
        match installed.join("lib/mlx.metallib").exists() {
            true => Backend::Metal,
            false if has_cuda => Backend::Cuda,
            false => Backend::Cpu,
        }
    }
}

/// What to build and where.
pub struct Build {
    /// The directory of the crate mlx-sys.
    pub crate_dir: PathBuf,
    /// The Rust target triple.
    pub target: String,
    pub backend: Backend,
    /// An installed MLX (the `mlx` directory of a Python wheel) to build mlx-c against.
    pub installed: Option<PathBuf>,
    /// The directory that holds one prefix per fingerprint.
    pub cache: PathBuf,
}

/// A directory with `include/`, `lib/` and the file [`Prefix::LINK`].
#[derive(Clone, Debug)]
pub struct Prefix(pub PathBuf);

impl Prefix {
    /// Lines `backend NAME`, `search DIR`, `static NAME`, `dylib NAME`, `framework NAME`, in link order.
    pub const LINK: &'static str = "link.txt";

    pub fn is_complete(&self) -> bool {
        self.0.join(Prefix::LINK).is_file()
    }
}

/// Returns the cache directory: `MLX_SYS_CACHE`, else the user's cache directory.
pub fn default_cache() -> Result<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(dir) = var("MLX_SYS_CACHE") {
        return Ok(dir);
    }
    if let Some(dir) = var("XDG_CACHE_HOME").filter(|dir| dir.is_absolute()) {
        return Ok(dir.join("mlx-sys"));
    }
    match var("HOME") {
        Some(home) if cfg!(target_os = "macos") => Ok(home.join("Library/Caches/mlx-sys")),
        Some(home) => Ok(home.join(".cache/mlx-sys")),
        None => fail("no cache directory: set MLX_SYS_CACHE, XDG_CACHE_HOME or HOME"),
    }
}

impl Build {
    /// Names the prefix by everything that determines what is in it.
    pub fn prefix(&self) -> Result<Prefix> {
        let mut inputs = String::new();
        let mut add = |name: &str, value: &str| {
            let _ = writeln!(inputs, "{name}={value}");
        };
        add("recipe", RECIPE);
        add("target", &self.target);
        add("backend", self.backend.name());
        add("compiler", &first_line(compiler(), "--version")?);
        for package in PACKAGES {
            let lock = self.crate_dir.join("native").join(package).join("Cargo.lock");
            add(package, &at(&lock, fs::read_to_string(&lock))?);
        }
        for file in ["shim/caught.h", "shim/compat/format"] {
            let path = self.crate_dir.join(file);
            add(file, &at(&path, fs::read_to_string(&path))?);
        }
        if let Some(installed) = &self.installed {
            check_mlx_version(&installed.join("include/mlx/version.h"))?;
            let library = find_library(&installed.join("lib"), "mlx")?;
            let meta = at(&library, fs::metadata(&library))?;
            add("installed", &format!("{} {}", library.display(), meta.len()));
        }
        let name = format!(
            "mlx-{MLX_VERSION}-mlxc-{MLX_C_VERSION}-{}{}-{}-{:016x}",
            self.backend.name(),
            if self.installed.is_some() { "-installed" } else { "" },
            self.target,
            fnv1a(inputs.as_bytes()),
        );
        Ok(Prefix(self.cache.join(name)))
    }

    /// Returns the finished prefix, building it when it is not there yet.
    ///
    /// `log` is told each step; what the tools print goes to standard error.
    pub fn ensure(&self, log: &mut dyn FnMut(&str)) -> Result<Prefix> {
        let prefix = self.prefix()?;
        if prefix.is_complete() {
            return Ok(prefix);
        }
        if self.backend == Backend::Cuda && self.installed.is_none() {
            // It fetches cccl, nvtx, cudnn-frontend and cutlass, which no package here carries.
            return fail(
                "MLX for CUDA cannot be built from the bundled sources: install the wheel \
                 mlx-cuda-13 0.32.2 and set MLX_SYS_INSTALLED to its `mlx` directory",
            );
        }
        at(&self.cache, fs::create_dir_all(&self.cache))?;
        let lock_path = beside(&prefix.0, ".lock");
        let lock = at(&lock_path, File::create(&lock_path))?;
        if lock.try_lock().is_err() {
            log("another build of the same library is running, waiting for it");
            at(&lock_path, lock.lock())?;
        }
        if prefix.is_complete() {
            return Ok(prefix);
        }
        let vendor = self.lay_out(log)?;
        let work = beside(&prefix.0, ".build");
        let stage = work.join("stage");
        remove_dir(&stage)?;
        at(&work, fs::create_dir_all(&work))?;
        self.cmake(&vendor, &work, &stage, &prefix, log)?;
        self.finish(&vendor, &stage)?;
        remove_dir(&prefix.0)?;
        at(&prefix.0, fs::rename(&stage, &prefix.0))?;
        remove_dir(&work)?;
        Ok(prefix)
    }

    /// Brings the sources and lays them out in `vendor/`.
    pub fn lay_out(&self, log: &mut dyn FnMut(&str)) -> Result<PathBuf> {
        let vendor = self.crate_dir.join("vendor");
        let mut stamp = String::from(RECIPE);
        for package in PACKAGES {
            let lock = self.crate_dir.join("native").join(package).join("Cargo.lock");
            stamp += &at(&lock, fs::read_to_string(&lock))?;
        }
        let stamp = format!("{:016x}\n", fnv1a(stamp.as_bytes()));
        let stamp_path = vendor.join("STAMP");
        if fs::read_to_string(&stamp_path).is_ok_and(|found| found == stamp) {
            return Ok(vendor);
        }
        log("fetching the sources of MLX");
        let [mlx_package, mlx_c_package, archives] =
            [self.fetch(PACKAGES[0])?, self.fetch(PACKAGES[1])?, self.fetch(PACKAGES[2])?];
        log("laying out the sources of MLX");
        remove_dir(&vendor)?;
        copy_tree(&mlx_package.join("vendor/mlx"), &vendor.join("mlx"))?;
        copy_tree(&mlx_package.join("vendor/gguflib"), &vendor.join("gguflib"))?;
        copy_tree(&mlx_c_package.join("src/mlx-c"), &vendor.join("mlx-c"))?;
        let archives = archives.join("vendor");
        extract(&archives.join("fmt-12.1.0.tar.gz"), &vendor.join("fmt"))?;
        extract(&archives.join("json-v3.11.3.tar.xz"), &vendor.join("json"))?;
        extract(&archives.join("metal-cpp-26.zip"), &vendor.join("metal-cpp"))?;
        check_versions(&vendor)?;
        patch_mlx_c(&vendor.join("mlx-c/mlx/c"))?;
        patch_allocator(&vendor.join("mlx/mlx/backend/no_gpu/allocator.cpp"))?;
        patch_eval(&vendor.join("mlx/mlx/transforms.cpp"))?;
        at(&stamp_path, fs::write(&stamp_path, stamp))?;
        Ok(vendor)
    }

    /// Has cargo fetch one of [`PACKAGES`] and tells where it lies.
    fn fetch(&self, package: &str) -> Result<PathBuf> {
        let manifest = self.crate_dir.join("native").join(package).join("Cargo.toml");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(&cargo);
        command
            .args(["metadata", "--locked", "--format-version", "1", "--filter-platform"])
            .arg(&self.target)
            .arg("--manifest-path")
            .arg(&manifest)
            .stderr(Stdio::inherit());
        let output =
            command.output().map_err(|e| Error(format!("{}: {e}", Path::new(&cargo).display())))?;
        if !output.status.success() {
            return fail(format!(
                "cargo could not fetch the package {package}, which carries native sources: \
                 the first build needs the package registry, later ones do not"
            ));
        }
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)
            .map_err(|e| Error(format!("cargo metadata of {package}: {e}")))?;
        metadata["packages"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|p| p["name"] == package)
            .and_then(|p| p["manifest_path"].as_str())
            .and_then(|path| Path::new(path).parent())
            .map(Path::to_path_buf)
            .ok_or_else(|| Error(format!("cargo metadata does not name {package}")))
    }

    fn cmake(
        &self,
        vendor: &Path,
        work: &Path,
        stage: &Path,
        prefix: &Prefix,
        log: &mut dyn FnMut(&str),
    ) -> Result<()> {
        let on = |flag: bool| if flag { "ON" } else { "OFF" };
        let source = |name: &str, dir: &str| {
            format!("-DFETCHCONTENT_SOURCE_DIR_{name}={}", vendor.join(dir).display())
        };
        let shim = self.crate_dir.join("shim");
        let mut configure = Command::new("cmake");
        configure
            .arg("-S")
            .arg(vendor.join("mlx-c"))
            .arg("-B")
            .arg(work.join("cmake"))
            .arg(format!("-DCMAKE_INSTALL_PREFIX={}", stage.display()))
            .arg("-DCMAKE_INSTALL_LIBDIR=lib")
            .arg("-DCMAKE_BUILD_TYPE=Release")
            .arg("-DBUILD_SHARED_LIBS=OFF")
            .arg("-DMLX_C_BUILD_EXAMPLES=OFF")
            .arg("-DFETCHCONTENT_FULLY_DISCONNECTED=ON")
            .arg(source("MLX", "mlx"))
            .arg(source("JSON", "json"))
            .arg(source("FMT", "fmt"))
            .arg(source("GGUFLIB", "gguflib"))
            .arg(source("METAL_CPP", "metal-cpp"))
            .arg(format!("-DMLX_BUILD_METAL={}", on(self.backend == Backend::Metal)))
            .arg(format!("-DMLX_BUILD_CUDA={}", on(self.backend == Backend::Cuda)))
            .arg(format!(
                "-DCMAKE_CXX_FLAGS=-include {} -idirafter {} -idirafter {}",
                shim.join("caught.h").display(),
                shim.join("compat").display(),
                vendor.join("fmt/include").display(),
            ));
        if has_program("ninja") {
            configure.args(["-G", "Ninja"]);
        }
        if let Some(installed) = &self.installed {
            let package = installed_package(installed, work)?;
            configure
                .arg("-DMLX_C_USE_SYSTEM_MLX=ON")
                .arg(format!("-DMLX_DIR={}", package.display()));
        }
        if self.target == "aarch64-apple-darwin" {
            configure.arg("-DCMAKE_OSX_DEPLOYMENT_TARGET=14.0");
            // Where libmlx looks for its kernels when none lie beside the program. Compiled there
            // first, they reach the finished prefix through the staged one.
            configure.arg(format!("-DMLX_METAL_PATH={}", prefix.0.join("lib").display()));
        }
        log(&format!("configuring MLX {MLX_VERSION} for {}", self.backend.name()));
        run(&mut configure)?;
        let jobs = std::thread::available_parallelism().map_or(2, |n| n.get());
        log(&format!("building MLX {MLX_VERSION} with {jobs} jobs; this is done once"));
        let mut build = Command::new("cmake");
        build.arg("--build").arg(work.join("cmake"));
        build.args(["--target", "install", "--parallel", &jobs.to_string()]);
        run(&mut build)
    }

    /// Completes the staged prefix: private headers for the shim, archives that CMake does not
    /// install, and the link description.
    fn finish(&self, vendor: &Path, stage: &Path) -> Result<()> {
        let lib = stage.join("lib");
        copy_tree(&vendor.join("mlx-c/mlx/c"), &stage.join("include/mlx/c"))?;
        let mut link =
            format!("backend {}\nsearch {{prefix}}/lib\nstatic mlxc\n", self.backend.name());
        if let Some(installed) = &self.installed {
            copy_tree(&installed.join("include"), &stage.join("include"))?;
            let _ = writeln!(link, "search {}\ndylib mlx", installed.join("lib").display());
        } else {
            link += "static mlx\n";
            let built = stage.with_file_name("cmake");
            for name in ["gguflib", "jaccl"] {
                if let Some(archive) = find_file(&built, &format!("lib{name}.a")) {
                    let to = lib.join(format!("lib{name}.a"));
                    at(&to, fs::copy(&archive, &to))?;
                    let _ = writeln!(link, "static {name}");
                }
            }
            link += &self.system_libraries(&built)?;
        }
        link += if self.target.contains("apple") { "dylib c++\n" } else { "dylib stdc++\n" };
        let path = stage.join(Prefix::LINK);
        at(&path, fs::write(&path, link))
    }

    /// What a static libmlx needs of the system.
    fn system_libraries(&self, built: &Path) -> Result<String> {
        let mut link = String::new();
        if self.target.contains("apple") {
            link += "framework Accelerate\n";
            if self.backend == Backend::Metal {
                link += "framework Metal\nframework Foundation\nframework QuartzCore\n";
                link += "dylib objc\n";
                // `__builtin_available` in MLX needs the compiler's own run-time library.
                let dir = first_line("clang", "--print-runtime-dir")?;
                let _ = writeln!(link, "search {dir}\nstatic clang_rt.osx");
            }
            return Ok(link);
        }
        let cache = built.join("CMakeCache.txt");
        let cache = at(&cache, fs::read_to_string(&cache))?;
        for library in blas_libraries(&cache) {
            let path = Path::new(&library);
            if let Some(dir) = path.parent().filter(|dir| dir.is_absolute()) {
                let _ = writeln!(link, "search {}", dir.display());
            }
            let stem = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let stem = stem.strip_prefix("lib").unwrap_or(stem);
            let name = stem.split(".so").next().unwrap_or(stem).trim_end_matches(".a");
            let _ = writeln!(link, "dylib {name}");
        }
        if self.backend == Backend::Cuda {
            let root = std::env::var("CUDA_HOME").unwrap_or_else(|_| "/usr/local/cuda".into());
            let _ = writeln!(link, "search {root}/lib64\nsearch {root}/lib64/stubs");
            link +=
                "dylib cudart\ndylib cublasLt\ndylib cufft\ndylib nvrtc\ndylib cudnn\ndylib cuda\n";
        }
        link += "dylib dl\ndylib pthread\ndylib m\n";
        Ok(link)
    }
}

/// Describes an installed MLX to CMake. The description that a wheel brings asks for the CUDA
/// toolkit, which only a build of MLX itself needs.
fn installed_package(installed: &Path, work: &Path) -> Result<PathBuf> {
    let library = find_library(&installed.join("lib"), "mlx")?;
    let include = installed.join("include");
    let mut includes = include.display().to_string();
    if include.join("metal_cpp").is_dir() {
        let _ = write!(includes, ";{}", include.join("metal_cpp").display());
    }
    let dir = work.join("installed");
    at(&dir, fs::create_dir_all(&dir))?;
    let path = dir.join("MLXConfig.cmake");
    let text = format!(
        "add_library(mlx SHARED IMPORTED)\n\
         set_target_properties(mlx PROPERTIES IMPORTED_LOCATION \"{}\" \
         INTERFACE_INCLUDE_DIRECTORIES \"{includes}\")\n\
         target_compile_features(mlx INTERFACE cxx_std_20)\n\
         set(MLX_FOUND TRUE)\n",
        library.display()
    );
    at(&path, fs::write(&path, text))?;
    Ok(dir)
}

/// The registry packages that carry the sources: MLX with gguflib, mlx-c, and the archives.
const PACKAGES: [&str; 3] = ["mlxrs-sys", "mlx-sys", "safemlx-sys"];

fn check_versions(vendor: &Path) -> Result<()> {
    check_mlx_version(&vendor.join("mlx/mlx/version.h"))?;
    let lists = vendor.join("mlx-c/CMakeLists.txt");
    let text = at(&lists, fs::read_to_string(&lists))?;
    if !text.contains(&format!("set(MLX_C_VERSION {MLX_C_VERSION})")) {
        return fail(format!("{}: not mlx-c {MLX_C_VERSION}", lists.display()));
    }
    Ok(())
}

/// The shim knows how this version lays some of its state out.
fn check_mlx_version(header: &Path) -> Result<()> {
    let text = at(header, fs::read_to_string(header))?;
    let number = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(&format!("#define MLX_VERSION_{name} ")))
            .map(str::trim)
            .unwrap_or("?")
            .to_owned()
    };
    let found = format!("{}.{}.{}", number("MAJOR"), number("MINOR"), number("PATCH"));
    if found != MLX_VERSION {
        return fail(format!("{}: MLX {found}, expected {MLX_VERSION}", header.display()));
    }
    Ok(())
}

/// Two repairs: `mlx_error(e.what())`, which passes a text as a printf format, becomes our catch
/// function; and the one header that uses `std::format` includes it.
fn patch_mlx_c(dir: &Path) -> Result<()> {
    const FROM: &str = "mlx_error(e.what());";
    const TO: &str = "mlx_shim_caught(e);";
    let mut patched = 0;
    for entry in at(dir, fs::read_dir(dir))? {
        let path = at(dir, entry)?.path();
        if path.extension().is_some_and(|e| e == "cpp") {
            let text = at(&path, fs::read_to_string(&path))?;
            patched += text.matches(FROM).count();
            at(&path, fs::write(&path, text.replace(FROM, TO)))?;
        }
    }
    let header = dir.join("private/io.h");
    let text = at(&header, fs::read_to_string(&header))?;
    at(&header, fs::write(&header, text.replacen("#include", "#include <format>\n#include", 1)))?;
    match patched {
        652 => Ok(()),
        n => fail(format!("{}: patched {n} catch blocks, expected 652", dir.display())),
    }
}

/// MLX's CPU allocator hands a null pointer on when memory runs out, and the next op writes to it.
/// Now it throws, as its allocators for GPUs do.
fn patch_allocator(path: &Path) -> Result<()> {
    const FROM: &str = "if (ptr != nullptr) {\n    *static_cast<size_t*>(ptr) = size;\n  }";
    const TO: &str = "if (ptr == nullptr) {\n    throw std::bad_alloc();\n  }\n  \
                      *static_cast<size_t*>(ptr) = size;";
    replace_once(path, FROM, TO)
}

/// MLX's `eval` waits whenever more than ten tasks are under way, so that results it has memory for do
/// not pile up; and each task that ends then wakes it, which takes longer than a small task. Now tasks
/// of a CPU may queue up as long as their results are small.
fn patch_eval(path: &Path) -> Result<()> {
    const LIMIT: &str = "static constexpr int MAX_ACTIVE_TASKS = 10;\n";
    const LIMITS: &str = "static constexpr int MAX_ACTIVE_TASKS = 10;\n\
        static constexpr int MAX_SMALL_TASKS = 1000;\n\
        static constexpr size_t MAX_QUEUED_BYTES = 16 << 20;\n\n\
        // Tells whether eval has to wait; counts bytes since few tasks were under way.\n\
        static bool is_queue_full(const mlx::core::array& arr) {\n  \
          static thread_local size_t queued_bytes = 0;\n  \
          int n_tasks = mlx::core::scheduler::n_active_tasks();\n  \
          if (n_tasks <= MAX_ACTIVE_TASKS) {\n    \
            queued_bytes = 0;\n    \
            return false;\n  \
          }\n  \
          queued_bytes += arr.nbytes();\n  \
          for (auto& sibling : arr.siblings()) {\n    \
            queued_bytes += sibling.nbytes();\n  \
          }\n  \
          return queued_bytes > MAX_QUEUED_BYTES || n_tasks > MAX_SMALL_TASKS ||\n      \
            arr.primitive().device() == mlx::core::Device::gpu;\n\
        }\n";
    replace_once(path, LIMIT, LIMITS)?;
    replace_once(
        path,
        "if (scheduler::n_active_tasks() > MAX_ACTIVE_TASKS ||\n",
        "if (is_queue_full(arr) ||\n",
    )
}

fn replace_once(path: &Path, from: &str, to: &str) -> Result<()> {
    let text = at(path, fs::read_to_string(path))?;
    if text.matches(from).count() != 1 {
        return fail(format!("{}: not the source that the patch is for", path.display()));
    }
    at(path, fs::write(path, text.replace(from, to)))
}

/// Reads which BLAS and LAPACK CMake found, LAPACK first, each once.
fn blas_libraries(cmake_cache: &str) -> Vec<String> {
    let mut libraries: Vec<String> = Vec::new();
    for line in cmake_cache.lines() {
        let Some((name, value)) = line.split_once('=') else { continue };
        let name = name.split(':').next().unwrap_or_default();
        let is_library = (name.starts_with("LAPACK_") || name.starts_with("BLAS_"))
            && name.ends_with("_LIBRARY");
        if is_library && value.starts_with('/') && !libraries.iter().any(|l| l == value) {
            libraries.push(value.to_owned());
        }
    }
    libraries.sort_by_key(|library| !library.contains("lapack"));
    libraries
}

fn compiler() -> &'static str {
    if has_program("c++") { "c++" } else { "g++" }
}

/// Tells whether `name` is on the search path.
pub fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

fn first_line(program: &str, argument: &str) -> Result<String> {
    let output = Command::new(program)
        .arg(argument)
        .output()
        .map_err(|e| Error(format!("{program}: {e}; run `cargo xtask setup`")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn run(command: &mut Command) -> Result<()> {
    let program = Path::new(command.get_program()).display().to_string();
    // Standard output belongs to whoever called; cargo reads a build script's as instructions.
    let status = command
        .stdout(io::stderr())
        .status()
        .map_err(|e| Error(format!("{program}: {e}; run `cargo xtask setup`")))?;
    if status.success() { Ok(()) } else { fail(format!("{program} failed: {status}")) }
}

fn extract(archive: &Path, to: &Path) -> Result<()> {
    at(to, fs::create_dir_all(to))?;
    run(Command::new("cmake").current_dir(to).args(["-E", "tar", "xf"]).arg(archive))?;
    // An archive that holds one directory stands for that directory.
    let entries: Vec<_> = at(to, fs::read_dir(to))?.flatten().map(|e| e.path()).collect();
    if let [only] = &entries[..]
        && only.is_dir()
    {
        let aside = beside(to, ".extracted");
        remove_dir(&aside)?;
        at(only, fs::rename(only, &aside))?;
        remove_dir(to)?;
        at(&aside, fs::rename(&aside, to))?;
    }
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    at(to, fs::create_dir_all(to))?;
    for entry in at(from, fs::read_dir(from))? {
        let path = at(from, entry)?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_tree(&path, &target)?;
        } else {
            at(&path, fs::copy(&path, &target))?;
        }
    }
    Ok(())
}

fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => at(dir, Err(e)),
        _ => Ok(()),
    }
}

fn find_file(dir: &Path, name: &str) -> Option<PathBuf> {
    let mut pending = vec![dir.to_path_buf()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).ok()?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.file_name().is_some_and(|n| n == name) {
                return Some(path);
            }
        }
    }
    None
}

fn find_library(dir: &Path, name: &str) -> Result<PathBuf> {
    ["so", "dylib"]
        .iter()
        .map(|extension| dir.join(format!("lib{name}.{extension}")))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            Error(format!(
                "{}: no lib{name}; expected the `mlx` directory of a wheel",
                dir.display()
            ))
        })
}

/// `path` with `suffix` after its whole name, which may hold dots.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// FNV-1a: a stable name, not a protection; cargo checks the packages' hashes.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
