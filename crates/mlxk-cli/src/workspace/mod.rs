//! Workspaces: flat directories with a model's files, which commands may make and change.
//!
//! A workspace is managed when it holds a sentinel ([`sentinel`]), which says where it came from
//! and, by a [`hash`] over its content, whether it was changed since.

pub(crate) mod hash;
pub(crate) mod sentinel;

pub(crate) use sentinel::is_managed;
