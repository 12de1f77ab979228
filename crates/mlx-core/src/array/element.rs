//! Element types as Rust types.

use half::{bf16, f16};

use crate::dtype::Dtype;

/// A complex number of two `f32`.
///
/// ```
/// use mlx_core::{Array, Complex32, Dtype};
///
/// # fn main() -> mlx_core::Result<()> {
/// let z = Array::from(Complex32 { re: 3.0, im: 4.0 });
/// assert_eq!((z.dtype(), z.abs()?.item::<f32>()?), (Dtype::Complex64, 5.0));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
pub struct Complex32 {
    /// Real part.
    pub re: f32,
    /// Imaginary part.
    pub im: f32,
}

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that is the element of an array.
pub trait Element: Copy + sealed::Sealed + 'static {
    /// The array's element type.
    const DTYPE: Dtype;

    #[doc(hidden)]
    fn read(bytes: &[u8]) -> Self;
}

macro_rules! element {
    ($($t:ty => $dtype:ident),* $(,)?) => {
        $(impl sealed::Sealed for $t {}
        impl Element for $t {
            const DTYPE: Dtype = Dtype::$dtype;

            fn read(bytes: &[u8]) -> Self {
                bytes.try_into().map(<$t>::from_ne_bytes).unwrap_or_default()
            }
        })*
    };
}

element! {
    u8 => Uint8, u16 => Uint16, u32 => Uint32, u64 => Uint64,
    i8 => Int8, i16 => Int16, i32 => Int32, i64 => Int64,
    f16 => Float16, bf16 => Bfloat16, f32 => Float32, f64 => Float64,
}

impl sealed::Sealed for bool {}
impl Element for bool {
    const DTYPE: Dtype = Dtype::Bool;

    // A view of another dtype as bool holds any byte, which a Rust `bool` must not.
    fn read(bytes: &[u8]) -> Self {
        bytes.first().is_some_and(|&byte| byte != 0)
    }
}

impl sealed::Sealed for Complex32 {}
impl Element for Complex32 {
    const DTYPE: Dtype = Dtype::Complex64;

    fn read(bytes: &[u8]) -> Self {
        let (re, im) = bytes.split_at(bytes.len() / 2);
        Complex32 { re: f32::read(re), im: f32::read(im) }
    }
}

pub(super) fn from_bytes<T: Element>(bytes: &[u8]) -> Vec<T> {
    bytes.chunks_exact(T::DTYPE.size()).map(T::read).collect()
}

pub(super) fn as_bytes<T: Element>(elements: &[T]) -> &[u8] {
    crate::ffi::element_bytes(elements)
}
