//! Function transforms: derivatives, mapping, compiling, and what crosses C++ on the way.

mod compile;
mod custom;
mod export;
mod failures;
mod table;
