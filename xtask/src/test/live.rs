//! Live suites: what `mlxk` says of the models that the user has, and what it does with them.
//!
//! A suite is a list of [`Part`]s, each a check of one model by the program alone, as a user runs it.
//! [`run`] asks `mlxk list --json` for the models, takes one after the other, since two might not fit
//! into memory, and leaves out what is not for the suite, each with a reason. The user's models are
//! only read, which a listing of all their files before and after proves; what a suite makes, it makes
//! in a [`Scratch`]. [`harness`] runs all of it on a cache that is made from the fixtures.
//!
//! Variables: `HF_HOME` and all else that says where models are, as for `mlxk`; and
//! - `MLXK_TEST_MODELS`: a directory of models, in place of the cache;
//! - `MLXK_TEST_BUDGET_GB`: how large a model may be that is loaded, in place of a part of the memory;
//! - `MLXK_TEST_PROGRAM`: the program to test, in place of one that is built for it.

mod answers;
mod clone;
pub mod harness;
mod index;
mod interrupt;
mod list;
mod portfolio;
mod program;
mod report;
mod scratch;
mod show;
mod stop_tokens;
mod view;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use super::suites::Skip;
use crate::shell;
use portfolio::{Budget, Model, Portfolio};
use program::{Places, Profile, Program};
use report::{Outcome, Report, Row, System};
use scratch::{Listing, Scratch};

pub struct LiveSuite {
    name: &'static str,
    takes: Takes,
    /// What is not about one model.
    whole: Option<fn(&Session) -> Result<()>>,
    parts: &'static [Part],
}

/// A check of one model, and what a failure of it is called.
type Part = (&'static str, fn(&Session, &Model, &mut Row) -> Result<()>);

/// Which models a suite takes.
#[derive(Clone, Copy, PartialEq)]
enum Takes {
    /// All, whether they can be run or not.
    All,
    /// Text models that can be run within the budget.
    Runnable,
    /// The smallest of these.
    Smallest,
}

pub const LIST: LiveSuite = LiveSuite {
    name: "live-list",
    takes: Takes::All,
    whole: Some(list::check_whole),
    parts: &[("files", list::check_model)],
};

pub const RUN: LiveSuite = LiveSuite {
    name: "live-run",
    takes: Takes::Runnable,
    whole: None,
    parts: &[
        ("json", answers::check_json),
        ("text", answers::check_text),
        ("chat", answers::check_chat),
    ],
};

pub const CLONE: LiveSuite = LiveSuite {
    name: "live-clone",
    takes: Takes::Smallest,
    whole: None,
    parts: &[("clone", clone::check_clone)],
};

pub const STOP_TOKENS: LiveSuite = LiveSuite {
    name: "live-stop-tokens",
    takes: Takes::Runnable,
    whole: Some(answers::check_errors),
    parts: &[
        ("streaming", answers::check_streaming),
        ("stop tokens", stop_tokens::check_shown),
        ("several ends", stop_tokens::check_first_end),
        ("interrupt", interrupt::check),
    ],
};

pub const E2E: LiveSuite = LiveSuite {
    name: "live-e2e",
    takes: Takes::Smallest,
    whole: None,
    parts: &[("clone, convert, health, run", clone::check_conversion)],
};

pub const SHOW: LiveSuite = LiveSuite {
    name: "show-portfolio",
    takes: Takes::All,
    whole: None,
    parts: &[
        ("show", show::check_show),
        ("health", show::check_health),
        ("du", show::check_du),
        ("verify", show::check_verify),
    ],
};

pub const INDEX: LiveSuite = LiveSuite {
    name: "index-health",
    takes: Takes::All,
    whole: None,
    parts: &[("index", index::check)],
};

/// How a suite is run, apart from what it checks.
struct Options {
    program: Option<PathBuf>,
    profile: Profile,
    /// Where models are; the user's settings say so where this does not.
    places: Option<Places>,
    /// A directory of models, in place of these.
    models: Option<PathBuf>,
    budget_bytes: Option<u64>,
    reports: PathBuf,
}

impl Options {
    fn from_environment() -> Result<Options> {
        let path = |name: &str| variable(name).map(PathBuf::from);
        Ok(Options {
            program: path("MLXK_TEST_PROGRAM"),
            profile: Profile::Release,
            places: None,
            models: path("MLXK_TEST_MODELS"),
            budget_bytes: variable("MLXK_TEST_BUDGET_GB").map(|text| bytes(&text)).transpose()?,
            reports: shell::target_dir()?.join("test-reports"),
        })
    }
}

/// Returns a variable that is set to something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn bytes(gigabytes: &str) -> Result<u64> {
    let number = gigabytes.trim().parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0);
    let number = number.with_context(|| format!("MLXK_TEST_BUDGET_GB={gigabytes}: no number"))?;
    Ok((number * 1e9) as u64)
}

/// Says what is missing before anything is built: nowhere is there a directory to look into.
pub fn unmet() -> Option<String> {
    let named = ["MLXK_TEST_MODELS", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME"];
    let more = ["XDG_CACHE_HOME", "MLXK_CONFIG", "MLXK_WORKSPACE_HOME"];
    let is_named = named.iter().chain(&more).any(|name| variable(name).is_some());
    let home = std::env::home_dir().unwrap_or_default();
    let usual = [".cache/huggingface/hub", ".config/mlxk/config.toml"];
    let is_there = is_named || usual.iter().any(|path| home.join(path).exists());
    (!is_there).then(|| format!("no model cache: {WAYS}"))
}

const WAYS: &str =
    "set HF_HOME or HF_HUB_CACHE to one, or MLXK_TEST_MODELS to a directory of models";

/// Runs a suite on the user's models.
pub fn run(suite: &LiveSuite) -> Result<()> {
    let options = Options::from_environment()?;
    let report = Session::open(&options)?.run(suite)?;
    println!("report: {}", report.write(&options.reports)?.display());
    let failed: Vec<&str> = report.with(Outcome::Failed).map(|row| row.name.as_str()).collect();
    ensure!(failed.is_empty(), "{} failed: {}", failed.len(), failed.join(", "));
    ensure_any(&report)
}

/// The row of what is not about one model.
const PROGRAM: &str = "(the program)";

/// A suite that looked at no model has not passed.
fn ensure_any(report: &Report) -> Result<()> {
    if report.with(Outcome::Passed).any(|row| row.name != PROGRAM) {
        return Ok(());
    }
    let cache = report.system.cache.display();
    let skipped = report.with(Outcome::Skipped).count();
    bail!(Skip(format!("no model for it among {skipped} in {cache}: {WAYS}")))
}

/// The program, the models, and a place to write to.
struct Session {
    program: Program,
    portfolio: Portfolio,
    budget: Budget,
    /// The directory whose models are taken in place of the cache's.
    models: Option<PathBuf>,
    /// What must not change.
    roots: Vec<PathBuf>,
    scratch: Scratch,
    version: String,
}

impl Session {
    fn open(options: &Options) -> Result<Session> {
        let scratch = Scratch::new()?;
        let home = scratch.make_dir("home")?;
        let program = Program::new(options.program.as_deref(), options.profile, home)?;
        let nowhere = scratch.make_dir("no-cache")?;
        let places = match (&options.models, &options.places) {
            (Some(_), _) => Places { cache: nowhere, workspaces: None },
            (None, Some(places)) => places.clone(),
            (None, None) => program.places_of_user()?,
        };
        let models = options.models.as_deref().map(std::path::absolute).transpose()?;
        let roots = [Some(&places.cache), places.workspaces.as_ref(), models.as_ref()];
        let roots = roots.into_iter().flatten().cloned().collect();
        let program = program.at(places);
        let portfolio = Portfolio::read(&list::data(&program, models.as_deref())?)?;
        let version = program.json(&["--version"])?;
        let version = version["cli_version"].as_str().context("no version")?.to_owned();
        let budget = Budget::new(portfolio.memory_bytes, options.budget_bytes);
        Ok(Session { program, portfolio, budget, models, roots, scratch, version })
    }

    fn run(&self, suite: &LiveSuite) -> Result<Report> {
        let before = Listing::of(&self.roots)?;
        let mut report = self.report(suite.name);
        let mut add = |row: Row| {
            println!("{}", row.line());
            report.rows.push(row);
        };
        if let Some(check) = suite.whole {
            add(check_row(PROGRAM, 0, |_| check(self).err().into_iter().collect()));
        }
        let mut is_taken = false;
        for model in &self.portfolio.models {
            let reason = match suite.takes {
                Takes::All => None,
                Takes::Smallest if is_taken => continue,
                Takes::Smallest | Takes::Runnable => model.left_out(&self.budget),
            };
            add(match reason {
                Some(reason) => skipped(model, reason),
                None => {
                    is_taken = true;
                    self.check(suite, model)
                }
            });
        }
        let same = Listing::of(&self.roots).and_then(|after| before.require_same(&after));
        if let Err(error) = same {
            add(check_row("(your files)", 0, |_| vec![error]));
        }
        Ok(report)
    }

    /// Checks all parts, as what is wrong with one says nothing of the others.
    fn check(&self, suite: &LiveSuite, model: &Model) -> Row {
        check_row(&model.name, model.size_bytes, |row| {
            let parts = suite.parts.iter();
            let failures = parts.filter_map(|(name, part)| {
                part(self, model, row).err().map(|error| error.context(*name))
            });
            failures.collect()
        })
    }

    fn report(&self, suite: &'static str) -> Report {
        let system = System {
            platform: std::env::consts::OS,
            architecture: std::env::consts::ARCH,
            memory_total_bytes: self.portfolio.memory_bytes,
            budget_bytes: self.budget.bytes,
            cache: self.models.clone().unwrap_or_else(|| self.program.cache().to_path_buf()),
        };
        Report::new(suite, self.version.clone(), system)
    }

    /// Returns the directory of a model's files.
    fn dir(&self, model: &Model) -> Result<PathBuf> {
        model.dir(self.program.cache())
    }

    fn models(&self) -> Option<&Path> {
        self.models.as_deref()
    }
}

fn check_row(
    name: &str,
    size_bytes: u64,
    check: impl FnOnce(&mut Row) -> Vec<anyhow::Error>,
) -> Row {
    let mut row = Row { name: name.to_owned(), size_bytes, ..Row::default() };
    let start = Instant::now();
    row.reasons = check(&mut row).iter().map(|error| format!("{error:#}")).collect();
    row.seconds = start.elapsed().as_secs_f64();
    row.outcome = if row.reasons.is_empty() { Outcome::Passed } else { Outcome::Failed };
    row
}

fn skipped(model: &Model, reason: String) -> Row {
    Row {
        name: model.name.clone(),
        size_bytes: model.size_bytes,
        outcome: Outcome::Skipped,
        reasons: vec![reason],
        ..Row::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_in_gigabytes() {
        assert_eq!(bytes(" 1.5 ").unwrap(), 1_500_000_000);
        for wrong in ["x", "-1", "inf", ""] {
            let error = bytes(wrong).unwrap_err().to_string();
            assert_eq!(error, format!("MLXK_TEST_BUDGET_GB={wrong}: no number"));
        }
    }

    #[test]
    fn all_that_fails_is_told() {
        let row = check_row("a", 1, |row| {
            row.notes.push("note".to_owned());
            vec![anyhow::anyhow!("inner").context("outer"), anyhow::anyhow!("second")]
        });
        assert_eq!(row.outcome, Outcome::Failed);
        assert_eq!(row.reasons, ["outer: inner", "second"]);
        assert_eq!(check_row("a", 1, |_| Vec::new()).outcome, Outcome::Passed);
    }
}
