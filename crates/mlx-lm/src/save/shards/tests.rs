use mlx_core::Dtype;
use proptest::prelude::*;

use super::*;

fn tensor(name: impl Into<String>, n_bytes: i32) -> TensorLayout {
    TensorLayout { name: name.into(), dtype: Dtype::Uint8, shape: vec![n_bytes] }
}
