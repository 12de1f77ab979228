//! Runs `mlxk` as its users do and looks at what comes out.

mod bad_input;
mod chat;
#[cfg(unix)]
mod compilers;
#[cfg(unix)]
mod config;
mod convert;
mod corpus;
mod documents;
#[cfg(unix)]
mod health;
#[cfg(unix)]
mod hub;
#[cfg(unix)]
mod kills;
#[cfg(unix)]
mod list;
mod measure;
#[cfg(unix)]
mod pages;
#[cfg(unix)]
mod ps;
mod reference;
#[cfg(unix)]
mod regex;
#[cfg(unix)]
mod remove;
mod run;
mod schema;
mod show;
#[cfg(unix)]
mod storage;
mod support;
#[cfg(unix)]
mod transcripts;
mod usage;
#[cfg(unix)]
mod verdicts;
#[cfg(unix)]
mod workspaces;
