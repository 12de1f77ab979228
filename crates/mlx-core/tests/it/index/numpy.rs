//! NumPy.
