//! `mlxk health` over the corpus of models, and beside mlx-knife.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::corpus::{Case, Model, cases};
use crate::support::{Ran, mlxk};

/// Set to a directory to write the corpus there, for mlx-knife to look at.
const WRITE: &str = "MLXK_TEST_WRITE_CORPUS";

/// Returns the program with this cache and these workspaces.
pub(crate) fn mlxk_with(hub: &Path, workspaces: Option<&Path>) -> Command {
    let mut command = mlxk();
    command.env("HF_HUB_CACHE", hub).env_remove("MLXK_WORKSPACE_HOME");
    command.env_remove("MLXK_CONFIG").env("XDG_CONFIG_HOME", hub.join("no-config"));
    if let Some(workspaces) = workspaces {
        command.env("MLXK_WORKSPACE_HOME", workspaces);
    }
    command
}

fn run(mut command: Command, args: &[&str]) -> Ran {
    command.args(args).output().expect("mlxk starts").into()
}

/// What is said of one model.
#[derive(Debug, PartialEq)]
struct Verdict {
    healthy: bool,
    codes: Vec<String>,
}

impl Verdict {
    fn of(entry: &Value) -> Verdict {
        let findings = entry["findings"].as_array().expect("a list");
        let mut codes: Vec<String> =
            findings.iter().map(|f| f["code"].as_str().expect("a code").into()).collect();
        codes.sort();
        codes.dedup();
        Verdict { healthy: entry["status"] == "healthy", codes }
    }
}

/// Returns the verdicts by the models' names.
fn verdicts(data: &Value) -> BTreeMap<String, Verdict> {
    let lists = ["healthy", "unhealthy"].map(|list| data[list].as_array().expect("a list"));
    let entries = lists.into_iter().flatten();
    let name = |entry: &Value| entry["name"].as_str().expect("a name").to_owned();
    entries.map(|entry| (name(entry), Verdict::of(entry))).collect()
}

/// The verdicts of all cases, in the cache and as workspaces, by place and name.
fn all_verdicts(root: &Path, cases: &[Case]) -> BTreeMap<String, Verdict> {
    let (hub, home) = (root.join("hub"), root.join("workspaces"));
    let empty = root.join("empty");
    for case in cases {
        if case.cache {
            case.model.write_cached(&hub, &format!("org/{}", case.name));
        }
        if case.workspace {
            case.model.write(&home.join(&case.name));
        }
    }
    let cached = verdicts(&run(mlxk_with(&hub, None), &["health", "--json"]).data());
    let mut all: BTreeMap<String, Verdict> =
        cached.into_iter().map(|(name, v)| (name.replace("org/", "cache/"), v)).collect();
    let listed = verdicts(&run(mlxk_with(&empty, Some(&home)), &["health", "--json"]).data());
    for case in cases.iter().filter(|case| case.workspace) {
        let path = home.join(&case.name);
        let path = path.to_str().expect("UTF-8");
        let verdict = match listed.get(path) {
            Some(verdict) => Verdict { healthy: verdict.healthy, codes: verdict.codes.clone() },
            // A directory without a configuration is no workspace of the home.
            None => {
                let data = run(mlxk_with(&empty, None), &["health", path, "--json"]).data();
                verdicts(&data).remove(path).expect("the one asked for")
            }
        };
        all.insert(format!("workspace/{}", case.name), verdict);
    }
    all
}

#[test]
fn every_model_of_the_corpus_has_its_findings_and_differs_from_mlx_knife_as_intended() {
    let cases = cases();
    if let Some(dir) = std::env::var_os(WRITE) {
        all_verdicts(Path::new(&dir), &cases);
        return;
    }
    let root = tempfile::tempdir().expect("a directory");
    let root = root.path().canonicalize().expect("a directory");
    let found = all_verdicts(&root, &cases);
    assert!(found.len() > 500, "{} models", found.len());
    let mut wrong = Vec::new();
    for (place, case) in cases
        .iter()
        .flat_map(|case| [("cache", case.cache, case), ("workspace", case.workspace, case)])
        .filter_map(|(place, there, case)| there.then_some((place, case)))
    {
        let verdict = &found[&format!("{place}/{}", case.name)];
        if verdict.codes != case.codes {
            wrong.push(format!("{place}/{}: {:?}, not {:?}", case.name, verdict.codes, case.codes));
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    compare_with_mlx_knife(&found);
}

/// Every difference has to be explained by a finding that docs/health.md lists as an improvement,
/// and every finding listed there has to explain one.
fn compare_with_mlx_knife(found: &BTreeMap<String, Verdict>) {
    let theirs: BTreeMap<String, (bool, String)> =
        serde_json::from_value(fixtures::json("mlxk-cli/health_verdicts.json")).expect("verdicts");
    let known: BTreeSet<&String> = theirs.keys().collect();
    assert_eq!(known, found.keys().collect(), "the fixture is of another corpus");
    let docs = include_str!("../../../../docs/health.md");
    let (_, section) = docs.split_once("## Other than mlx-knife").expect("a section");
    let listed = |title: &str| -> BTreeSet<&str> {
        let (_, rest) = section.split_once(title).expect("a list");
        let list = rest.lines().skip_while(|line| !line.starts_with("- "));
        let list = list.take_while(|line| !line.starts_with('#'));
        list.filter_map(|line| line.strip_prefix("- `")?.split_once('`').map(|(c, _)| c)).collect()
    };
    let (stricter, milder) = (listed("### Unhealthy here"), listed("### Healthy here"));
    let (mut used, mut unexplained) = (BTreeSet::new(), Vec::new());
    for (name, Verdict { healthy, codes }) in found {
        let (their_healthy, reason) = &theirs[name];
        if healthy == their_healthy {
            continue;
        }
        let list = if *healthy { &milder } else { &stricter };
        let mut codes: Vec<&str> = codes.iter().map(String::as_str).collect();
        if codes.is_empty() && *healthy {
            codes.push("no finding");
        }
        let explained: Vec<_> = codes.iter().filter_map(|code| list.get(code)).collect();
        if explained.is_empty() {
            unexplained.push(format!("{name}: healthy {healthy} by {codes:?}; theirs {reason}"));
        }
        used.extend(explained.into_iter().map(|code| (*healthy, *code)));
    }
    assert!(unexplained.is_empty(), "{}:\n{}", unexplained.len(), unexplained.join("\n"));
    let all = milder.iter().map(|code| (true, *code));
    let all: BTreeSet<_> = all.chain(stricter.iter().map(|code| (false, *code))).collect();
    assert_eq!(used, all, "listed and never seen, or the other way");
}

#[test]
fn people_read_findings_and_what_mends_them() {
    let root = tempfile::tempdir().expect("a directory");
    let hub = root.path().join("hub");
    let (sound, mut broken) = (Model::llama(1), Model::llama(2));
    sound.write_cached(&hub, "org/good");
    broken.remove("model.safetensors.index.json");
    broken.put("model-00001-of-00002.safetensors", "");
    broken.write_cached(&hub, "org/bad");
    let text = run(mlxk_with(&hub, None), &["health"]).ok();
    assert_eq!(
        text,
        "Summary: total 2, healthy 1, unhealthy 1\n\
         healthy   org/good — Model is healthy\n\
         unhealthy org/bad — model-00001-of-00002.safetensors: has no content\n  \
         error   weights_empty: model-00001-of-00002.safetensors: has no content\n          \
         repair: hf download org/bad\n"
    );
    let text = run(mlxk_with(&hub, None), &["health", "good"]).ok();
    assert_eq!(text, "healthy   org/good — Model is healthy\n");
}

#[test]
fn exit_codes_tell_more_when_asked_to() {
    let root = tempfile::tempdir().expect("a directory");
    let hub = root.path().join("hub");
    let mut broken = Model::llama(1);
    broken.remove("config.json");
    broken.write_cached(&hub, "org/bad");
    Model::llama(1).write_cached(&hub, "org/good");
    for (name, plain, strict) in [("org/bad", 0, 4), ("org/good", 0, 0), ("org/none", 0, 3)] {
        let code = |args: &[&str]| run(mlxk_with(&hub, None), args).code;
        assert_eq!(code(&["health", name]), Some(plain), "{name}");
        assert_eq!(code(&["health", name, "--strict-exit"]), Some(strict), "{name}");
    }
    let data = run(mlxk_with(&hub, None), &["health", "org/none", "--json"]).data();
    assert_eq!(data["summary"]["total"], 0);
}

#[test]
fn deep_reads_the_content() {
    let root = tempfile::tempdir().expect("a directory");
    let hub = root.path().join("hub");
    let mut model = Model::llama(1);
    let header =
        r#"{"__metadata__":{"format":"mlx"},"w":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    // NaN and an infinity.
    bytes.extend([0x00, 0x7e, 0x00, 0x7c]);
    model.put("model.safetensors", bytes);
    let snapshot = model.write_cached(&hub, "org/m");
    let readme = snapshot.join("config.json").canonicalize().expect("a blob");
    let mut config = std::fs::read(&readme).expect("a file");
    config.push(b'\n');
    std::fs::write(readme, config).expect("a file");
    let codes = |args: &[&str]| {
        let data = run(mlxk_with(&hub, None), args).data();
        verdicts(&data).remove("org/m").expect("the model")
    };
    assert_eq!(codes(&["health", "--json"]), Verdict { healthy: true, codes: vec![] });
    let expected = ["blob_mismatch", "tensor_infinite", "tensor_nan"].map(String::from);
    let expected = Verdict { healthy: false, codes: expected.to_vec() };
    assert_eq!(codes(&["health", "--deep", "--json"]), expected);
}
