//! Operations on arrays, under Python MLX's names.
//!
//! Each family is a file and mostly a table: a macro writes the method of [`Array`](crate::Array) or the free
//! function from one row of name, mlx-c function and documentation. Ops are methods where Python
//! has methods, else functions of this module. Where Python takes an array or a number, so does
//! the op here: see [`Operand`](crate::Operand).

mod arithmetic;
mod compare;
mod conv;
mod create;
mod gather;
mod matmul;
mod quantized;
mod reduce;
mod scan;
mod scatter;
mod shape;
mod sort;

pub use arithmetic::*;
pub use compare::*;
pub use conv::*;
pub use create::*;
pub use gather::*;
pub use matmul::*;
pub use quantized::*;
pub use scan::*;
pub(crate) use scatter::Reduce;
pub use shape::*;
pub use sort::*;

/// Writes methods of one array: `name, mlx_function, "doc";`.
macro_rules! unary_methods {
    ($($name:ident, $f:ident, $doc:literal;)*) => {
        impl $crate::Array {
            $(
                #[doc = $doc]
                ///
                /// # Errors
                /// When the dtype does not allow it.
                pub fn $name(&self) -> $crate::Result<$crate::Array> {
                    $crate::ffi::array_op!($f, self)
                }
            )*
        }
    };
}

/// Writes functions of two operands and, in brackets, methods of the same name.
macro_rules! binary_functions {
    // A kernel of ours that is asked first may stand behind the function of C.
    ($($name:ident, $f:ident $(or $kernel:path)?, $doc:literal;)*) => {
        $(
            #[doc = $doc]
            ///
            /// Shapes broadcast, dtypes promote; a number is weak.
            ///
            /// # Errors
            /// When the shapes do not broadcast or the dtype does not allow it.
            pub fn $name(
                a: impl $crate::Operand,
                b: impl $crate::Operand,
            ) -> $crate::Result<$crate::Array> {
                $crate::array::with_pair(a, b, |a, b| {
                    $(if let Some(y) = $kernel(a, b)? {
                        return Ok(y);
                    })?
                    $crate::ffi::array_op!($f, a, b)
                })
            }
        )*

        impl $crate::Array {
            $(
                #[doc = $doc]
                ///
                /// Shapes broadcast, dtypes promote; a number is weak.
                ///
                /// # Errors
                /// When the shapes do not broadcast or the dtype does not allow it.
                pub fn $name(&self, other: impl $crate::Operand) -> $crate::Result<$crate::Array> {
                    $name(self, other)
                }
            )*
        }
    };
}

use {binary_functions, unary_methods};

fn missing_output(op: &str) -> crate::Error {
    crate::Error::new(crate::ErrorKind::Runtime, format!("{op}: too few outputs"))
}
