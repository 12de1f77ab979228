//! Settings that outlive a command line: a configuration file and environment variables.
//!
//! For each setting the first of these that has it decides: a flag, an environment variable, the
//! file, the default. [`Settings`] keeps where each value came from, for `mlxk config show
//! --origin`. Variables that are empty count as unset, as hub clients have it.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{CommandError, Kind};

/// The precedence, as the help shows it.
pub(crate) const HELP: &str = "\
Settings, and what decides each, the first that is set:
  threads         --threads, MLXK_THREADS, the file, one for each core
  strict_exit     --strict-exit, MLXK_STRICT_EXIT, the file, false
  hub_cache       HF_HUB_CACHE, HF_HOME/hub, the file, XDG_CACHE_HOME/huggingface/hub,
                  ~/.cache/huggingface/hub
  workspace_home  MLXK_WORKSPACE_HOME, the file, none
  cache_dir       MLXK_CACHE_DIR, the file, XDG_CACHE_HOME/mlxk, ~/.cache/mlxk
                  (on macOS ~/Library/Caches/mlxk); what lists found of sound models, to be
                  quick the next time, and which processes run
  no_cache        MLXK_NO_CACHE, the file, false; look at every model anew

The file is MLXK_CONFIG, or mlxk/config.toml in XDG_CONFIG_HOME or ~/.config:
  hub_cache = \"~/models/hub\"
  workspace_home = \"~/models/workspaces\"
  cache_dir = \"~/models/mlxk\"
  threads = 8
  strict_exit = true
  no_cache = true";

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Flag(&'static str),
    Environment(&'static str),
    File(PathBuf),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(name) => write!(f, "flag {name}"),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::File(path) => write!(f, "file {}", path.display()),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// A value and its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting<T> {
    pub(crate) value: T,
    pub(crate) origin: Origin,
}

/// All settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Where cached models are; it need not exist.
    pub(crate) hub_cache: Setting<PathBuf>,
    /// Where workspaces are found by name.
    pub(crate) workspace_home: Setting<Option<PathBuf>>,
    pub(crate) threads: Setting<Option<u16>>,
    pub(crate) strict_exit: Setting<bool>,
    /// Where this program keeps what it can find out again; it need not exist.
    pub(crate) cache_dir: Setting<PathBuf>,
    /// Whether nothing that was found out before is used.
    pub(crate) no_cache: Setting<bool>,
    /// The file that was looked for, and whether it is there.
    pub(crate) file: Option<PathBuf>,
    pub(crate) file_exists: bool,
}

/// What the file may have.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSettings {
    hub_cache: Option<PathBuf>,
    workspace_home: Option<PathBuf>,
    threads: Option<u16>,
    strict_exit: Option<bool>,
    cache_dir: Option<PathBuf>,
    no_cache: Option<bool>,
}

/// Looks up an environment variable.
type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

impl Settings {
    /// Reads the environment and the file.
    ///
    /// # Errors
    /// When the file is broken, or a variable has no value that it can have.
    pub(crate) fn load() -> Result<Settings, CommandError> {
        Settings::read(&|name| std::env::var_os(name))
    }

    /// Returns the settings of someone with this home and none of his own, for tests.
    #[cfg(test)]
    pub(crate) fn in_home(home: &Path) -> Settings {
        let read = Settings::read(&|name| (name == "HOME").then(|| home.into()));
        read.expect("nothing is set that could be wrong")
    }

    fn read(variable: Lookup<'_>) -> Result<Settings, CommandError> {
        let env = Environment { variable };
        let file = env.config_file();
        let (from_file, file_exists) = match &file {
            Some(path) => read_file(path, env.get("MLXK_CONFIG").is_some())?,
            None => (FileSettings::default(), false),
        };
        let of_file = || Origin::File(file.clone().unwrap_or_default());
        let in_file = |path: PathBuf| Setting { value: env.expand(path), origin: of_file() };
        let hub_cache = env.hub_cache().or_else(|| from_file.hub_cache.map(in_file));
        let hub_cache = hub_cache.or_else(|| env.default_hub_cache()).ok_or_else(no_home)?;
        let home =
            env.path("MLXK_WORKSPACE_HOME").or_else(|| from_file.workspace_home.map(in_file));
        let threads = match env.text("MLXK_THREADS")? {
            Some(text) => Some((parse_threads(&text)?, Origin::Environment("MLXK_THREADS"))),
            None => match from_file.threads {
                Some(n) if !THREADS.contains(&n) => {
                    let file = file.clone().unwrap_or_default();
                    return Err(out_of_range(&format!("{}: threads = {n}", file.display())));
                }
                n => n.map(|n| (n, of_file())),
            },
        };
        let strict_exit = env.flag("MLXK_STRICT_EXIT", from_file.strict_exit, of_file)?;
        let no_cache = env.flag("MLXK_NO_CACHE", from_file.no_cache, of_file)?;
        let cache_dir = env.path("MLXK_CACHE_DIR").or_else(|| from_file.cache_dir.map(in_file));
        let cache_dir = cache_dir.or_else(|| env.default_cache_dir()).ok_or_else(no_home)?;
        Ok(Settings {
            hub_cache,
            workspace_home: match home {
                Some(Setting { value, origin }) => Setting { value: Some(value), origin },
                None => Setting { value: None, origin: Origin::Default },
            },
            threads: match threads {
                Some((value, origin)) => Setting { value: Some(value), origin },
                None => Setting { value: None, origin: Origin::Default },
            },
            strict_exit,
            cache_dir,
            no_cache,
            file,
            file_exists,
        })
    }
}

/// How many threads there may be.
pub(crate) const THREADS: std::ops::RangeInclusive<u16> = 1..=1024;

struct Environment<'a> {
    variable: Lookup<'a>,
}

impl Environment<'_> {
    fn get(&self, name: &str) -> Option<OsString> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    fn text(&self, name: &str) -> Result<Option<String>, CommandError> {
        let text = self.get(name).map(OsString::into_string).transpose();
        text.map_err(|_| CommandError::usage(format!("{name} is not UTF-8 text")))
    }

    fn path(&self, name: &'static str) -> Option<Setting<PathBuf>> {
        let value = self.expand(self.get(name)?.into());
        Some(Setting { value, origin: Origin::Environment(name) })
    }

    /// Reads a setting that is on or off.
    fn flag(
        &self,
        name: &'static str,
        in_file: Option<bool>,
        file: impl Fn() -> Origin,
    ) -> Result<Setting<bool>, CommandError> {
        Ok(match (self.text(name)?, in_file) {
            (Some(text), _) => Setting { value: is_yes(&text), origin: Origin::Environment(name) },
            (None, Some(value)) => Setting { value, origin: file() },
            (None, None) => Setting { value: false, origin: Origin::Default },
        })
    }

    fn home(&self) -> Option<PathBuf> {
        self.get("HOME").map(PathBuf::from).or_else(std::env::home_dir)
    }

    /// Puts the home directory in place of `~` at the beginning.
    fn expand(&self, path: PathBuf) -> PathBuf {
        match (path.strip_prefix("~"), self.home()) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => path,
        }
    }

    fn config_file(&self) -> Option<PathBuf> {
        if let Some(path) = self.get("MLXK_CONFIG") {
            return Some(self.expand(path.into()));
        }
        let configs = self.get("XDG_CONFIG_HOME").map(PathBuf::from);
        Some(configs.or_else(|| Some(self.home()?.join(".config")))?.join("mlxk/config.toml"))
    }

    fn hub_cache(&self) -> Option<Setting<PathBuf>> {
        // The second is what old clients read.
        let cache = self.path("HF_HUB_CACHE").or_else(|| self.path("HUGGINGFACE_HUB_CACHE"));
        cache.or_else(|| {
            let home = self.path("HF_HOME")?;
            Some(Setting { value: home.value.join("hub"), ..home })
        })
    }

    fn default_hub_cache(&self) -> Option<Setting<PathBuf>> {
        if let Some(cache) = self.path("XDG_CACHE_HOME") {
            return Some(Setting { value: cache.value.join("huggingface/hub"), ..cache });
        }
        let value = self.home()?.join(".cache/huggingface/hub");
        Some(Setting { value, origin: Origin::Default })
    }

    fn default_cache_dir(&self) -> Option<Setting<PathBuf>> {
        if let Some(cache) = self.path("XDG_CACHE_HOME") {
            return Some(Setting { value: cache.value.join("mlxk"), ..cache });
        }
        let caches = if cfg!(target_os = "macos") { "Library/Caches/mlxk" } else { ".cache/mlxk" };
        Some(Setting { value: self.home()?.join(caches), origin: Origin::Default })
    }
}

fn read_file(path: &Path, is_asked_for: bool) -> Result<(FileSettings, bool), CommandError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_asked_for => {
            return Ok((FileSettings::default(), false));
        }
        Err(error) => {
            return Err(CommandError::file(path, &error).hint("MLXK_CONFIG names this file"));
        }
    };
    let settings = toml::from_str(&text).map_err(|error| {
        let text = format!("{}: {}", path.display(), error.to_string().trim_end());
        CommandError::new(Kind::Config, text).hint("`mlxk config --help` lists the settings")
    })?;
    Ok((settings, true))
}

fn parse_threads(text: &str) -> Result<u16, CommandError> {
    let threads = text.parse().ok().filter(|n| THREADS.contains(n));
    threads.ok_or_else(|| out_of_range(&format!("MLXK_THREADS={text}")))
}

fn out_of_range(what: &str) -> CommandError {
    let (least, most) = (THREADS.start(), THREADS.end());
    let text = format!("{what}: the number of threads is from {least} to {most}");
    CommandError::new(Kind::Config, text)
}

/// Whether a variable says yes, as mlx-knife's do; anything else is no.
pub(crate) fn is_yes(text: &str) -> bool {
    ["1", "true", "yes", "on"].contains(&text.trim().to_lowercase().as_str())
}

fn no_home() -> CommandError {
    CommandError::new(Kind::Config, "there is no home directory to look for models in")
        .hint("set HF_HOME to the directory that holds the cache")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, CommandError> {
        Settings::read(&|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.into())
        })
    }

    #[test]
    fn the_first_that_is_set_decides_on_the_cache() {
        let all = [
            ("HF_HUB_CACHE", "/a"),
            ("HUGGINGFACE_HUB_CACHE", "/b"),
            ("HF_HOME", "/c"),
            ("XDG_CACHE_HOME", "~/d"),
            ("HOME", "/h"),
        ];
        let expected = ["/a", "/b", "/c/hub", "/h/d/huggingface/hub", "/h/.cache/huggingface/hub"];
        for (i, cache) in expected.into_iter().enumerate() {
            let settings = read(&all[i..]).expect("sound");
            assert_eq!(settings.hub_cache.value, Path::new(cache));
            let origin = match i {
                4 => Origin::Default,
                _ => Origin::Environment(all[i].0),
            };
            assert_eq!(settings.hub_cache.origin, origin);
        }
        let cache_dir = read(&all).expect("sound").cache_dir;
        assert_eq!(cache_dir.value, Path::new("/h/d/mlxk"));
        assert_eq!(cache_dir.origin, Origin::Environment("XDG_CACHE_HOME"));
        // Empty is unset.
        let settings = read(&[("HF_HOME", ""), ("HOME", "/h")]).expect("sound");
        assert_eq!(settings.hub_cache.origin, Origin::Default);
    }

    #[test]
    fn the_file_is_behind_variables_and_before_defaults() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("config.toml");
        let text = "hub_cache = \"~/hub\"\nworkspace_home = \"/w\"\nthreads = 3\nstrict_exit = true\n\
                    cache_dir = \"~/c\"\nno_cache = true\n";
        std::fs::write(&file, text).expect("written");
        let path = file.to_str().expect("UTF-8");
        let base = [("MLXK_CONFIG", path), ("HOME", "/h")];
        let settings = read(&base).expect("sound");
        let origin = Origin::File(file.clone());
        let hub_cache = Setting { value: "/h/hub".into(), origin: origin.clone() };
        assert_eq!(settings.hub_cache, hub_cache);
        assert_eq!(settings.threads, Setting { value: Some(3), origin: origin.clone() });
        assert_eq!(settings.strict_exit, Setting { value: true, origin: origin.clone() });
        assert_eq!(settings.no_cache, Setting { value: true, origin: origin.clone() });
        let cache_dir = Setting { value: "/h/c".into(), origin: origin.clone() };
        assert_eq!(settings.cache_dir, cache_dir);
        let home = Setting { value: Some("/w".into()), origin };
        assert_eq!(settings.workspace_home, home);
        let variables = [("MLXK_THREADS", "5"), ("MLXK_STRICT_EXIT", "0"), ("HF_HOME", "/x")];
        let settings = read(&[base.as_slice(), &variables].concat()).expect("sound");
        assert_eq!(settings.threads.value, Some(5));
        assert!(!settings.strict_exit.value);
        assert_eq!(settings.hub_cache.value, Path::new("/x/hub"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("config.toml");
        let path = file.to_str().expect("UTF-8");
        let base = [("MLXK_CONFIG", path), ("HOME", "/h")];
        assert!(read(&base).expect_err("absent").to_string().contains("config.toml"));
        for (text, named) in [
            ("threads = 0", "from 1 to 1024"),
            ("threads = \"x\"", "threads"),
            ("thread = 1", "unknown field `thread`"),
            ("=", "line 1"),
        ] {
            std::fs::write(&file, text).expect("written");
            let error = read(&base).expect_err("broken").to_string();
            assert!(error.contains(named) && error.contains("config.toml"), "{error}");
        }
        let error = read(&[("MLXK_THREADS", "many"), ("HOME", "/h")]).expect_err("broken");
        assert!(error.to_string().contains("MLXK_THREADS=many"), "{error}");
    }
}
