//! Workspaces: flat directories with a model's files, which commands may make and change.
//!
//! A workspace is managed when it holds a sentinel ([`sentinel`]), which says where it came from
//! and, by a [`hash`] over its content, whether it was changed since. Every one is built beside
//! its place and renamed ([`build`]), so that an interrupted command leaves nothing that looks
//! like a workspace; the hub's cache is never written to and never a source of a conversion.

pub(crate) mod build;
pub(crate) mod copy;
pub(crate) mod hash;
pub(crate) mod paths;
pub(crate) mod patterns;
pub(crate) mod sentinel;

pub(crate) use sentinel::is_managed;

use std::path::{Component, Path, PathBuf};

/// Returns where a workspace of this name is to be: a bare name is one in the workspace home, where
/// there is one, anything else a path.
pub(crate) fn target_path(name: &Path, home: Option<&Path>) -> PathBuf {
    let mut parts = name.components();
    let is_bare = matches!(parts.next(), Some(Component::Normal(_))) && parts.next().is_none();
    match home {
        Some(home) if is_bare => home.join(name),
        _ => name.to_path_buf(),
    }
}
