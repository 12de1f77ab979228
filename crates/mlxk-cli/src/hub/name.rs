//! Names of repositories and of the directories that hold them.
//!
//! `org/name` lies in `models--org--name`. The hub allows no `--` within a name, so the first one
//! separates the owner from the rest; a `--` behind it, which other programs may have put there, is
//! part of the name.

/// What a repository's directory is called: its id with each `/` as `--`.
pub(crate) fn directory_name(id: &str) -> String {
    format!("{PREFIX}{}", id.replace('/', "--"))
}

/// Returns the id of the repository in a directory of this name; `None` when it holds no model.
pub(crate) fn id_of_directory(name: &str) -> Option<String> {
    let rest = name.strip_prefix(PREFIX).filter(|rest| !rest.is_empty())?;
    Some(match rest.split_once("--") {
        Some((owner, name)) if !owner.is_empty() && !name.is_empty() => format!("{owner}/{name}"),
        _ => rest.to_owned(),
    })
}

/// Returns a name without the owner.
pub(crate) fn short_name(id: &str) -> &str {
    id.split_once('/').map_or(id, |(_, name)| name)
}

const PREFIX: &str = "models--";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn directories_are_decoded() {
        for (directory, id) in [
            ("models--org--name", Some("org/name")),
            ("models--gpt2", Some("gpt2")),
            ("models--org--name--with--more", Some("org/name--with--more")),
            ("models--a--b-", Some("a/b-")),
            ("models--é--模型", Some("é/模型")),
            ("models----x", Some("--x")),
            ("models--x--", Some("x--")),
            ("models--", None),
            ("datasets--org--name", None),
            ("version.txt", None),
            ("", None),
        ] {
            assert_eq!(id_of_directory(directory).as_deref(), id, "{directory}");
        }
    }

    proptest! {
        /// Names that the hub would take, and some that it would not, come back as they were.
        #[test]
        fn names_come_back(
            owner in "[A-Za-z0-9é模]([A-Za-z0-9é模._]|-[A-Za-z0-9]){0,8}",
            name in "[A-Za-z0-9é模]([A-Za-z0-9é模._]|-{1,3}[A-Za-z0-9]){0,12}",
        ) {
            let id = format!("{owner}/{name}");
            prop_assert_eq!(id_of_directory(&directory_name(&id)), Some(id.clone()));
            prop_assert_eq!(short_name(&id), name);
            prop_assert_eq!(id_of_directory(&directory_name(&owner)), Some(owner));
        }
    }
}
