//! Which name means what, over caches made for the purpose.

use std::collections::BTreeSet;
use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::hub::directory_name;

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const B2: &str = "bbbb000000000000000000000000000000000000";

/// A cache and a workspace home in a directory of their own.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Place { dir: tempfile::tempdir().expect("a directory") };
        fs::create_dir_all(place.dir.path().join("hub")).expect("made");
        fs::create_dir_all(place.dir.path().join("home")).expect("made");
        place
    }

    fn model(&self, id: &str) -> PathBuf {
        self.snapshot(id, A);
        let dir = self.dir.path().join("hub").join(directory_name(id));
        self.reference(id, "main", A);
        dir
    }

    fn snapshot(&self, id: &str, commit: &str) {
        let dir = self.dir.path().join("hub").join(directory_name(id));
        fs::create_dir_all(dir.join("snapshots").join(commit)).expect("made");
    }

    fn reference(&self, id: &str, name: &str, commit: &str) {
        let path = self.dir.path().join("hub").join(directory_name(id)).join("refs").join(name);
        fs::create_dir_all(path.parent().expect("refs")).expect("made");
        fs::write(path, commit).expect("written");
    }

    fn workspace(&self, name: &str) -> PathBuf {
        let dir = self.dir.path().join("home").join(name);
        fs::create_dir_all(&dir).expect("made");
        fs::write(dir.join("config.json"), "{}").expect("written");
        dir
    }

    fn resolve(&self, spec: &str, purpose: Purpose) -> Result<Resolved, CommandError> {
        let cache = Cache::new(self.dir.path().join("hub"));
        Resolver::new(cache, Some(self.dir.path().join("home"))).resolve(Path::new(spec), purpose)
    }

    /// Says in few words what a name means.
    fn meaning(&self, spec: &str, purpose: Purpose) -> String {
        match self.resolve(spec, purpose) {
            Ok(Resolved::Demo) => DEMO.to_owned(),
            Ok(Resolved::Workspace(path)) => format!("workspace {}", file_name(&path)),
            Ok(Resolved::Cached(cached)) => {
                let commit = cached.snapshot.commit.get(..5).unwrap_or("none").to_owned();
                format!("{:?} {} {commit}", cached.spelling, cached.model.id())
            }
            Err(error) => format!("{} {}", error.kind.name(), error.matches.join(" ")),
        }
    }
}

#[test]
fn names_are_read_in_their_order() {
    use Purpose::{Delete, Download, Read};
    let place = Place::new();
    for id in
        ["mlx-community/Foo", "org/Foo-4bit", "org/Bar", "mlx-community/gpt2", "gpt2", "org/a--b"]
    {
        place.model(id);
    }
    place.workspace("ws");
    place.workspace("my-bar");
    place.workspace("Foo");
    let path = place.workspace("by-path").display().to_string();
    for (spec, purpose, expected) in [
        ("org/Bar", Read, "Exact org/Bar aaaaa"),
        // A workspace's exact name goes before a short one, but only to read.
        ("Foo", Read, "workspace Foo"),
        ("Foo", Delete, "Short mlx-community/Foo aaaaa"),
        ("Foo", Download, "Short mlx-community/Foo aaaaa"),
        ("mlx-community/Foo", Read, "Exact mlx-community/Foo aaaaa"),
        // An exact name goes before a short one.
        ("gpt2", Read, "Exact gpt2 aaaaa"),
        ("org/a--b", Read, "Exact org/a--b aaaaa"),
        // The same directory, under a name that is not its own.
        ("org--a/b", Read, "model_not_found "),
        ("foo-4B", Read, "Part org/Foo-4bit aaaaa"),
        ("foo-4B", Delete, "model_not_found org/Foo-4bit"),
        ("foo-4B", Download, "model_not_found org/Foo-4bit"),
        ("fo", Read, "ambiguous_match mlx-community/Foo org/Foo-4bit HOME/Foo"),
        ("fo", Delete, "ambiguous_match mlx-community/Foo org/Foo-4bit"),
        // Workspaces are among what a part could mean.
        ("BAR", Read, "ambiguous_match org/Bar HOME/my-bar"),
        ("my-b", Read, "workspace my-bar"),
        ("ws", Read, "workspace ws"),
        ("ws", Delete, "workspace_model "),
        ("ws", Download, "model_not_found "),
        ("demo", Read, "demo"),
        ("demo", Download, "demo"),
        ("demo", Delete, "model_not_found "),
        (&path, Read, "workspace by-path"),
        (&path, Download, "workspace by-path"),
        (&path, Delete, "workspace_model "),
        ("./no-such-directory", Read, "model_not_found "),
        ("..", Delete, "workspace_model "),
        ("nothing", Read, "model_not_found "),
        ("", Read, "CommandError "),
        (" ", Delete, "CommandError "),
        ("org/../org/Bar", Read, "model_not_found "),
        ("@", Read, "model_not_found "),
        // The directory that the tests run in has one of this name, and it is no model.
        ("src", Delete, "model_not_found "),
    ] {
        let home = place.dir.path().join("home").display().to_string();
        let meaning = place.meaning(spec, purpose).replace(&home, "HOME");
        assert_eq!(meaning, expected, "{spec} to {purpose:?}");
    }
}

#[test]
fn revisions_are_chosen_by_name_and_commit() {
    let place = Place::new();
    place.model("org/m");
    for commit in [B, B2] {
        place.snapshot("org/m", commit);
    }
    place.reference("org/m", "v1", B);
    place.reference("org/m", "pr/7", B2);
    place.reference("org/m", "gone", "cccc");
    place.model("org/m-long");
    for (spec, expected) in [
        ("org/m", "Exact org/m aaaaa"),
        ("org/m@main", "Exact org/m aaaaa"),
        ("org/m@v1", "Exact org/m bbbbb"),
        ("org/m@pr/7", "Exact org/m bbbb0"),
        ("org/m@aa", "Exact org/m aaaaa"),
        ("org/m@bbbbb", "Exact org/m bbbbb"),
        ("org/m@gone", "hash_not_found "),
        ("org/m@d", "hash_not_found "),
        ("org/m@", "hash_not_found "),
        // Of the two that have the part, one has the revision.
        ("M@v1", "Part org/m bbbbb"),
        ("M@aa", "ambiguous_match org/m org/m-long"),
        ("M@d", "model_not_found "),
    ] {
        assert_eq!(place.meaning(spec, Purpose::Read), expected, "{spec}");
    }
    let matches = [format!("org/m@{B2}"), format!("org/m@{B}")];
    let error = place.resolve("org/m@b", Purpose::Delete).expect_err("two commits");
    assert_eq!((error.kind, error.matches.as_slice()), (Kind::AmbiguousMatch, matches.as_slice()));
    let error = place.resolve("org/m@d", Purpose::Read).expect_err("no commit");
    assert_eq!(error.available_hashes, ["aaaaaaaa", "bbbb0000", "bbbbbbbb"]);
}

/// Not the directory changed last, and not another revision in the place of one that is not here.
#[test]
fn the_main_reference_decides() {
    let place = Place::new();
    place.model("org/m");
    std::thread::sleep(std::time::Duration::from_millis(20));
    place.snapshot("org/m", B);
    assert_eq!(place.meaning("org/m", Purpose::Read), "Exact org/m aaaaa");
    place.reference("org/m", "main", B2);
    let error = place.resolve("org/m", Purpose::Read).expect_err("not here");
    assert_eq!(error.kind, Kind::InvalidModel);
    assert!(error.to_string().contains(B2), "{error}");
    assert!(error.hints.iter().any(|hint| hint.contains("org/m@aaaaaaaa")), "{:?}", error.hints);
    fs::remove_dir_all(place.dir.path().join("hub/models--org--m/refs")).expect("removed");
    assert_eq!(place.meaning("org/m", Purpose::Read), "Exact org/m bbbbb");
}

#[test]
fn a_name_that_is_nearly_one_is_told() {
    let place = Place::new();
    place.model("mlx-community/Qwen3-0.6B-4bit");
    let error = place.resolve("qwen3-0.6b-4bti", Purpose::Read).expect_err("misspelled");
    assert!(error.hints[0].contains("`mlx-community/Qwen3-0.6B-4bit`"), "{:?}", error.hints);
}

fn names() -> impl Strategy<Value = BTreeSet<String>> {
    proptest::collection::btree_set("(org/)?[a-cA-CéÉ模0-9]([a-cA-C.éß模]|-{1,2}[a-c]){0,4}", 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Every name means itself; a part means the one that has it, or is refused with all that have.
    #[test]
    fn names_mean_themselves_and_parts_what_has_them(
        ids in names(),
        part in "[a-cA-CéÉ模./-]{1,3}",
    ) {
        let place = Place::new();
        let ids: BTreeSet<String> = ids.into_iter().filter(|id| canonical(id)).collect();
        ids.iter().for_each(|id| { place.model(id); });
        for id in &ids {
            for purpose in [Purpose::Read, Purpose::Delete, Purpose::Download] {
                let expected = format!("Exact {id} aaaaa");
                prop_assert_eq!(place.meaning(id, purpose), expected);
            }
        }
        prop_assume!(!ids.contains(&part) && !is_explicit_path(Path::new(&part)));
        prop_assume!(!Path::new(&part).exists());
        let has = |id: &&String| id.to_lowercase().contains(&part.to_lowercase());
        let having: Vec<&str> = ids.iter().filter(has).map(String::as_str).collect();
        let expected = match having.as_slice() {
            [] => "model_not_found ".to_owned(),
            [id] => format!("Part {id} aaaaa"),
            several => format!("ambiguous_match {}", several.join(" ")),
        };
        prop_assert_eq!(place.meaning(&part, Purpose::Read), expected);
        // Whatever it is a part of, nothing is deleted or fetched for it.
        for purpose in [Purpose::Delete, Purpose::Download] {
            prop_assert!(place.resolve(&part, purpose).is_err());
        }
    }

    /// No text leads out of the cache, or makes the program fail otherwise than with an error.
    #[test]
    fn any_text_is_a_name_or_an_error(spec in "\\PC{0,12}|[a-z./@\\-]{0,9}") {
        let place = Place::new();
        place.model("a/b");
        if let Ok(Resolved::Cached(cached)) = place.resolve(&spec, Purpose::Delete) {
            prop_assert_eq!(cached.model.dir(), place.dir.path().join("hub/models--a--b"));
        }
    }
}

/// Whether a directory's name gives this name back: one without owner has no `--`.
fn canonical(id: &str) -> bool {
    id.contains('/') || !id.contains("--")
}
