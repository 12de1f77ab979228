//! Saving: what is written, what is refused, and what remains when anything fails.

#![cfg(unix)]

mod faults;
mod kill;
mod model;
mod power;
mod refusals;
mod resume;
mod test_fs;
mod written;
