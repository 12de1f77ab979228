//! Language models on MLX: from a model's files to generated text.
//!
//! What a model is made of lies in [`files`]; its [`tokenizer`] turns text into tokens, a
//! [`chat`] template turns a conversation into text, and a [`detokenizer`] turns generated tokens
//! back, as they come. Behind it [`thinking`] separates reasoning from the answer and [`stop`]
//! ends the text at a stop string. None of these touches a tensor, prints, or opens a socket.
#![forbid(unsafe_code)]

pub mod chat;
pub mod detokenizer;
pub mod error;
pub mod files;
mod scan;
pub mod stop;
pub mod thinking;
pub mod tokenizer;

pub use error::{Error, ErrorKind, Result};
