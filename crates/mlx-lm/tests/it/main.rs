//! The tests of this crate that go through its public interface, against reference outputs.

mod checkpoints;
mod convert;
mod demo;
mod divergence;
mod files;
mod formats;
mod hostile_configs;
mod layouts;
mod model_table;
mod quality;
mod sampling;
mod save;
mod streams;
mod templates;
mod tokenizer_models;
mod tokenizers;
