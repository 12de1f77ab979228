//! Safe arrays on MLX.
