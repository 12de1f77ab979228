//! Function transforms: derivatives, mapping, compiling, and what crosses C++ on the way.

mod failures;
