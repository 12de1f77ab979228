//! Language models on MLX: from a model's files to generated text.
//!
//! What a model is made of lies in [`files`]; its [`tokenizer`] turns text into tokens, a
//! [`chat`] template turns a conversation into text, and a [`detokenizer`] turns generated tokens
//! back, as they come. Behind it [`thinking`] separates reasoning from the answer and [`stop`]
//! ends the text at a stop string. None of these touches a tensor.
//!
//! [`load()`] reads the [`config`], repacks what other programs quantized ([`formats`]), finds the family in [`models`] and gives it the weights; a
//! family is built of [`layers`] and remembers through a [`cache`]. [`generate`] runs it and
//! [`sample`] chooses tokens; [`perplexity`], [`divergence`] and [`mod@bench`] measure it. [`save`]
//! writes a model's files, whole or not at all. Nothing here prints, reads the environment, or
//! opens a socket.
#![forbid(unsafe_code)]

pub mod bench;
pub mod cache;
pub mod chat;
pub mod config;
pub mod convert;
pub mod detokenizer;
pub mod divergence;
pub mod error;
pub mod files;
pub mod formats;
pub mod generate;
pub mod layers;
pub mod load;
pub mod models;
pub mod perplexity;
pub mod quality;
mod rules;
pub mod sample;
pub mod save;
mod scan;
pub mod stop;
pub mod thinking;
pub mod tokenizer;

pub use convert::convert;
pub use error::{Error, ErrorKind, Result};
pub use load::load;
pub use mlx_core as core;
