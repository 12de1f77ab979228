//! The live suites themselves, on caches made of the fixtures: that sound models pass, and that each
//! defect is found, by its name. Without it nobody would see that a suite looks at nothing any more.

#[path = "../../../../crates/mlxk-cli/tests/it/support/characters.rs"]
mod characters;
#[path = "../../../../crates/mlxk-cli/tests/it/hub/names.rs"]
mod names;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use self::names::blob_name;
use super::program::{Places, Profile};
use super::report::{Outcome, Report, Row};
use super::scratch::Scratch;
use super::{
    CLONE, E2E, INDEX, LIST, LiveSuite, Options, RUN, SHOW, STOP_TOKENS, Session, Takes, ensure_any,
};
use crate::shell;
use crate::test::suites::Skip;

/// The revision of all models here.
const COMMIT: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// How large a model may be here.
const BUDGET: u64 = 3_000_000;

const TEMPLATE: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
    {% if add_generation_prompt %}assistant: {% endif %}";

pub fn run() -> Result<()> {
    let scratch = Scratch::new()?;
    let sound = Hub::new(&scratch, "sound")?;
    sound.put("fixtures/demo", &demo()?)?;
    sound.put("fixtures/sharded", &tiny("llama-sharded")?)?;
    let narrow = without(tiny("mistral-bf16")?, "tokenizer_config.json");
    sound.put("fixtures/without-template", &narrow)?;
    let session = sound.session()?;
    for (suite, passed) in
        [(&LIST, 4), (&RUN, 3), (&CLONE, 1), (&STOP_TOKENS, 4), (&E2E, 1), (&SHOW, 3), (&INDEX, 3)]
    {
        shell::step(&format!("{}, sound models", suite.name));
        let report = session.run(suite)?;
        check_outcomes(&report, passed, &[])?;
        check_written(&report, &scratch)?;
        if suite.name == STOP_TOKENS.name {
            check_the_end_of_the_demo(&report)?;
        }
    }
    check_defects(&scratch)?;
    check_directories(&scratch)?;
    check_tampering(&session)?;
    check_emptiness(&scratch)
}

/// The trained model does end its answers, so the suite had something to look at.
fn check_the_end_of_the_demo(report: &Report) -> Result<()> {
    let row = find(report, "fixtures/demo")?;
    let tokens = row.stop_tokens.as_ref().context("no stop tokens are reported")?;
    let ends: Vec<_> = tokens.configured.iter().filter_map(|end| end.text.as_deref()).collect();
    ensure!(ends == ["<|endoftext|>", "<|im_end|>"], "{ends:?}");
    ensure!(row.performance.is_some() && row.notes.is_empty(), "{:?}", row.notes);
    Ok(())
}

/// Each of these has one thing wrong with it, which the suite for it finds.
fn check_defects(scratch: &Scratch) -> Result<()> {
    let spoilt = Hub::new(scratch, "spoilt")?;
    spoilt.put("spoilt/end-shows", &with_an_end_that_shows()?)?;
    spoilt.put("spoilt/no-weights", &without(demo()?, "model.safetensors"))?;
    spoilt.put("spoilt/index", &with_a_stale_index()?)?;
    let mut large = demo()?;
    large.push(("README.md".to_owned(), vec![b'\n'; 3_000_000]));
    spoilt.put("spoilt/large", &large)?;
    spoilt.put("spoilt/bits", &tiny("llama-tied")?)?;
    spoilt.flip_a_bit("spoilt/bits")?;
    let session = spoilt.session()?;

    shell::step("live-stop-tokens, spoilt models");
    let report = session.run(&STOP_TOKENS)?;
    check_outcomes(
        &report,
        3,
        &[
            ("spoilt/end-shows", (Outcome::Failed, "stop tokens: answers show <|im_end|>")),
            ("spoilt/no-weights", (Outcome::Skipped, "unhealthy: there is no weight file")),
            (
                "spoilt/large",
                (
                    Outcome::Skipped,
                    "its 4.4 MB are more than the budget of 3.0 MB, set by MLXK_TEST_BUDGET_GB",
                ),
            ),
        ],
    )?;
    let leaked = &find(&report, "spoilt/end-shows")?.stop_tokens;
    let leaked = leaked.as_ref().map(|tokens| tokens.leaked.join(" "));
    ensure!(leaked.as_deref() == Some("<|im_end|>"), "{leaked:?} is reported");

    shell::step("index-health and show-portfolio, spoilt models");
    let report = session.run(&INDEX)?;
    let index = (Outcome::Failed, "`mlxk health` says index_stale");
    check_outcomes(&report, 4, &[("spoilt/index", index)])?;
    let report = session.run(&SHOW)?;
    check_outcomes(&report, 4, &[("spoilt/bits", (Outcome::Failed, "verify: verify finds "))])
}

/// A directory of models in place of a cache, with the user's own cache out of sight.
fn check_directories(scratch: &Scratch) -> Result<()> {
    shell::step("a directory of models");
    let dir = scratch.make_dir("models")?;
    let model = dir.join("demo");
    fs::create_dir(&model)?;
    for (name, content) in demo()? {
        fs::write(model.join(name), content)?;
    }
    let options = Options { models: Some(dir), places: None, ..options(scratch.place("none")?)? };
    let session = Session::open(&options)?;
    // It is quantized, so it is unpacked on the way.
    for (suite, passed) in [(&LIST, 2), (&RUN, 1), (&CLONE, 1), (&E2E, 1), (&SHOW, 1)] {
        check_outcomes(&session.run(suite)?, passed, &[])?;
    }
    Ok(())
}

/// A suite that writes to the user's models is no good, whatever it found.
fn check_tampering(session: &Session) -> Result<()> {
    const TAMPERING: LiveSuite = LiveSuite {
        name: "tampering",
        takes: Takes::All,
        whole: None,
        parts: &[("tampering", |session, model, _| {
            Ok(fs::write(model.cache_dir(session.program.cache()).join("left"), "")?)
        })],
    };
    let told = (Outcome::Failed, "changed while the suite ran");
    check_outcomes(&session.run(&TAMPERING)?, 3, &[("(your files)", told)])
}

/// Where there is no model, nothing has passed.
fn check_emptiness(scratch: &Scratch) -> Result<()> {
    let session = Hub::new(scratch, "empty")?.session()?;
    for suite in [&LIST, &RUN, &SHOW] {
        let error = ensure_any(&session.run(suite)?).err();
        let error = error.with_context(|| format!("{} without a model passes", suite.name))?;
        let skip = error.downcast_ref::<Skip>().context("no model is a failure")?;
        ensure!(skip.0.contains("MLXK_TEST_MODELS") && skip.0.contains("empty"), "{}", skip.0);
    }
    Ok(())
}

/// Checks how many rows pass, and that the others are as expected.
fn check_outcomes(
    report: &Report,
    passed: usize,
    others: &[(&str, (Outcome, &str))],
) -> Result<()> {
    let found = report.with(Outcome::Passed).count();
    ensure!(found == passed, "{}: {found} rows pass, not {passed}", report.suite);
    ensure!(report.rows.len() == passed + others.len(), "{}: too many rows", report.suite);
    for (name, (outcome, reason)) in others {
        let row = find(report, name)?;
        ensure!(row.outcome == *outcome, "{}: {name} is {:?}", report.suite, row.outcome);
        let is_told = row.reasons.iter().any(|line| line.contains(reason));
        ensure!(is_told, "{}: {name}: {:?}, not {reason}", report.suite, row.reasons);
    }
    Ok(())
}

fn find<'a>(report: &'a Report, name: &str) -> Result<&'a Row> {
    let row = report.rows.iter().find(|row| row.name == name);
    row.with_context(|| format!("{}: no row {name}", report.suite))
}

fn check_written(report: &Report, scratch: &Scratch) -> Result<()> {
    let path = report.write(&scratch.place("reports")?)?;
    let written: Value = serde_json::from_slice(&fs::read(path)?)?;
    let rows = written["rows"].as_array().map_or(0, Vec::len);
    ensure!(rows == report.rows.len(), "{rows} rows are written, not {}", report.rows.len());
    Ok(())
}

fn options(cache: PathBuf) -> Result<Options> {
    Ok(Options {
        program: super::variable("MLXK_TEST_PROGRAM").map(PathBuf::from),
        profile: Profile::Dev,
        places: Some(Places { cache, workspaces: None }),
        models: None,
        budget_bytes: Some(BUDGET),
        reports: PathBuf::new(),
    })
}

/// A file of a model.
type File = (String, Vec<u8>);

/// A cache as a hub's client lays it out.
struct Hub {
    cache: PathBuf,
}

impl Hub {
    fn new(scratch: &Scratch, name: &str) -> Result<Hub> {
        Ok(Hub { cache: scratch.make_dir(&format!("caches/{name}"))? })
    }

    fn session(&self) -> Result<Session> {
        Session::open(&options(self.cache.clone())?)
    }

    fn model_dir(&self, id: &str) -> PathBuf {
        self.cache.join(format!("models--{}", id.replace('/', "--")))
    }

    fn put(&self, id: &str, files: &[File]) -> Result<()> {
        let dir = self.model_dir(id);
        for part in ["blobs", "refs", &format!("snapshots/{COMMIT}")] {
            fs::create_dir_all(dir.join(part))?;
        }
        for (name, content) in files {
            let blob = blob_name(name, content);
            fs::write(dir.join("blobs").join(&blob), content)?;
            let link = dir.join("snapshots").join(COMMIT).join(name);
            symlink(&format!("../../blobs/{blob}"), &link)?;
        }
        Ok(fs::write(dir.join("refs/main"), COMMIT)?)
    }

    /// Changes a weight of a model, which no header tells of.
    fn flip_a_bit(&self, id: &str) -> Result<()> {
        let path = self.model_dir(id).join("snapshots").join(COMMIT).join("model.safetensors");
        let mut content = fs::read(&path)?;
        *content.last_mut().context("there are weights")? ^= 1;
        Ok(fs::write(path, content)?)
    }
}

#[cfg(unix)]
fn symlink(original: &str, link: &Path) -> Result<()> {
    Ok(std::os::unix::fs::symlink(original, link)?)
}

#[cfg(not(unix))]
fn symlink(original: &str, link: &Path) -> Result<()> {
    let original = link.parent().context("a link is in a directory")?.join(original);
    fs::copy(original, link).map(|_| ()).context("no copy can be made")
}

/// The trained model of this repository.
fn demo() -> Result<Vec<File>> {
    files(&shell::root().join("fixtures/models/demo"))
}

/// A model with random weights, which says anything.
fn tiny(checkpoint: &str) -> Result<Vec<File>> {
    let checkpoints = shell::root().join("fixtures/data/mlx-lm/checkpoints");
    let mut files = files(&checkpoints.join(checkpoint))?;
    files.retain(|(name, _)| !name.starts_with("expected"));
    let text = |value: Value| value.to_string().into_bytes();
    files.push(("tokenizer.json".to_owned(), text(characters::tokenizer())));
    let settings = json!({"chat_template": TEMPLATE});
    files.push(("tokenizer_config.json".to_owned(), text(settings)));
    // One that is in no vocabulary, so never made.
    edited(files, "config.json", |config| config["eos_token_id"] = json!(1_000_000))
}

fn files(dir: &Path) -> Result<Vec<File>> {
    let names = shell::files_below(dir)?;
    let read = |name: PathBuf| Ok((name.display().to_string(), fs::read(dir.join(&name))?));
    names.into_iter().map(read).collect()
}

fn without(mut files: Vec<File>, name: &str) -> Vec<File> {
    files.retain(|(other, _)| other != name);
    files
}

fn edited(mut files: Vec<File>, name: &str, edit: impl FnOnce(&mut Value)) -> Result<Vec<File>> {
    let file = files.iter_mut().find(|(other, _)| other == name);
    let (_, content) = file.with_context(|| format!("no {name}"))?;
    let mut value = serde_json::from_slice(content)?;
    edit(&mut value);
    *content = value.to_string().into_bytes();
    Ok(files)
}

/// Takes the end of a turn for a word, as a converter does that forgets the token's flag.
fn with_an_end_that_shows() -> Result<Vec<File>> {
    let pad = json!(2041);
    let files = edited(demo()?, "config.json", |config| config["eos_token_id"] = pad.clone())?;
    let files =
        edited(files, "generation_config.json", |config| config["eos_token_id"] = pad.clone())?;
    let files = edited(files, "tokenizer_config.json", |config| {
        config["eos_token"] = json!("<|endoftext|>");
        config["added_tokens_decoder"]["2043"]["special"] = json!(false);
    })?;
    edited(files, "tokenizer.json", |tokenizer| {
        for token in tokenizer["added_tokens"].as_array_mut().into_iter().flatten() {
            if token["id"] == 2043 {
                token["special"] = json!(false);
            }
        }
    })
}

/// Puts a tensor into the file that it is not in.
fn with_a_stale_index() -> Result<Vec<File>> {
    edited(tiny("llama-sharded")?, "model.safetensors.index.json", |index| {
        let map = index["weight_map"].as_object_mut().into_iter().flatten();
        for (_, file) in map {
            *file = json!("model-00001-of-00002.safetensors");
        }
    })
}
