//! Scans: running reductions along an axis.

use crate::array::Array;
use crate::error::Result;
use crate::ffi::array_op;

/// How a scan runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    /// From the end to the start.
    pub reverse: bool,
    /// Whether an element counts towards its own result.
    pub inclusive: bool,
}

impl Default for Scan {
    fn default() -> Self {
        Scan { reverse: false, inclusive: true }
    }
}

/// Writes scans: `name(extra arguments), flattened function, axis function, "doc";`.
macro_rules! scans {
    ($($name:ident($($extra:expr),*), $all:ident, $axis:ident, $doc:literal;)*) => {
        impl Array {
            $(
                #[doc = $doc]
                ///
                /// Without an axis the array is flattened first.
                ///
                /// # Errors
                /// When there is no such axis or it is empty.
                pub fn $name(&self, axis: impl Into<Option<i32>>, scan: Scan) -> Result<Array> {
                    let Scan { reverse, inclusive } = scan;
                    let axis = axis.into();
                    self.check_not_empty(stringify!($name), axis)?;
                    if self.size() == 0 {
                        // MLX divides by the stride of the axis, which is zero then.
                        let one = super::zeros(&[1], self.dtype())?;
                        return super::zeros(self.shape(), one.$name(0, scan)?.dtype());
                    }
                    match axis {
                        None => array_op!($all, self, reverse, inclusive $(, $extra)*),
                        Some(axis) => {
                            array_op!($axis, self, axis, reverse, inclusive $(, $extra)*)
                        }
                    }
                }
            )*
        }
    };
}

const SAME_DTYPE: Option<crate::Dtype> = None;

scans! {
    cummax(), mlx_cummax, mlx_cummax_axis, "Returns the running greatest element.";
    cummin(), mlx_cummin, mlx_cummin_axis, "Returns the running least element.";
    cumprod(SAME_DTYPE), mlx_cumprod, mlx_cumprod_axis, "Returns the running product.";
    cumsum(SAME_DTYPE), mlx_cumsum, mlx_cumsum_axis, "Returns the running sum.";
    logcumsumexp(), mlx_logcumsumexp, mlx_logcumsumexp_axis,
        "Returns the running logarithm of the sum of exponentials.";
}
