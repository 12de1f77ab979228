//! The tests of this crate that go through its public interface, against reference outputs.

mod files;
mod streams;
mod templates;
mod tokenizers;
