//! Runs `mlxk` as its users do and looks at what comes out.

mod bad_input;
mod chat;
#[cfg(unix)]
mod compilers;
mod corpus;
#[cfg(unix)]
mod health;
mod measure;
mod reference;
mod run;
mod schema;
mod show;
mod support;
mod usage;
#[cfg(unix)]
mod workspaces;
