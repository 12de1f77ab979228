//! The array type: making it, reading it on the host, asking about it.

mod element;
mod file;
mod gguf;
pub(crate) mod index;
pub(crate) mod masked;
mod operators;
mod update;

use std::fmt;
use std::rc::Rc;

use mlx_sys as sys;
use smallvec::SmallVec;

pub use element::{Complex32, Element};
pub use file::{
    Loaded, load, load_npy, load_npz, load_safetensors, load_safetensors_with_metadata, save_npy,
    save_npz, save_npz_compressed, save_safetensors,
};
pub use gguf::{GgufArrays, GgufLoad, GgufSource, load_gguf, save_gguf};
pub use operators::{Operand, Scalar};
pub(crate) use operators::{clear_constants, with_pair};

use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{self, Live, array_op};
use crate::io::TensorBytes;

/// One number for each axis, without the heap for as many axes as there commonly are.
pub(crate) type Sizes = SmallVec<[i32; 8]>;

/// An n-dimensional array: a handle to a node of MLX's lazy graph.
///
/// Cloning copies the handle, not the data. Not `Send`: see the crate's introduction; to move
/// data between threads, read it with [`Array::to_vec`].
///
/// ```compile_fail,E0277
/// fn check_send<T: Send>() {}
/// check_send::<mlx_core::Array>();
/// ```
///
/// ```compile_fail,E0277
/// fn check_sync<T: Sync>() {}
/// check_sync::<mlx_core::Array>();
/// ```
pub struct Array(Handle, Live);

enum Handle {
    Node(sys::mlx_array),
    /// The result of a kernel that has no node of its own, or none yet.
    Recorded(Rc<ffi::Value>),
}

impl Clone for Array {
    fn clone(&self) -> Self {
        let handle = match &self.0 {
            Handle::Node(raw) => Handle::Node(ffi::array_clone(*raw)),
            Handle::Recorded(value) => Handle::Recorded(value.clone()),
        };
        Array(handle, Live::new())
    }
}

impl Drop for Array {
    fn drop(&mut self) {
        if let Handle::Node(raw) = self.0 {
            ffi::array_free(raw);
        }
    }
}

/// Returns the number of elements of a shape, or an error if it has negative sizes or overflows.
fn count(shape: &[i32]) -> Result<usize> {
    shape
        .iter()
        .try_fold(1usize, |n, &dim| n.checked_mul(usize::try_from(dim).ok()?))
        .ok_or_else(|| Error::new(ErrorKind::InvalidArgument, format!("bad shape {shape:?}")))
}

impl Array {
    pub(crate) fn from_raw(raw: sys::mlx_array) -> Self {
        Array(Handle::Node(raw), Live::new())
    }

    pub(crate) fn from_recorded(value: Rc<ffi::Value>) -> Self {
        Array(Handle::Recorded(value), Live::new())
    }

    pub(crate) fn recorded(&self) -> Option<&Rc<ffi::Value>> {
        match &self.0 {
            Handle::Node(_) => None,
            Handle::Recorded(value) => Some(value),
        }
    }

    /// Refuses a result that no machine can hold: MLX lets some sizes turn negative or overflow,
    /// and then allocates too little for them.
    pub(crate) fn checked(self, op: &str) -> Result<Array> {
        const MAX_BYTES: usize = 1 << 46;
        match count(self.shape()).map(|n| n.checked_mul(self.dtype().size())) {
            Ok(Some(0..=MAX_BYTES)) => Ok(self),
            _ => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("{op}: result of shape {:?}", self.shape()),
            )),
        }
    }

    pub(crate) fn raw(&self) -> sys::mlx_array {
        match &self.0 {
            Handle::Node(raw) => *raw,
            Handle::Recorded(value) => value.raw(),
        }
    }

    /// Makes an array from elements in row-major order.
    ///
    /// # Errors
    /// When `data` does not hold exactly the elements of `shape`.
    ///
    /// ```
    /// use mlx_core::Array;
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let x = Array::from_slice(&[1, 2, 3, 4, 5, 6], &[2, 3])?;
    /// assert_eq!(x.to_string(), "array([[1, 2, 3],\n       [4, 5, 6]], dtype=int32)");
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_slice<T: Element>(data: &[T], shape: &[i32]) -> Result<Array> {
        if count(shape)? != data.len() {
            let len = data.len();
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("array: {len} elements for shape {shape:?}"),
            ));
        }
        ffi::array_from_bytes(element::as_bytes(data), shape, T::DTYPE)
    }

    /// Makes an array from the bytes of its elements, little-endian in row-major order.
    ///
    /// # Errors
    /// When `bytes` does not hold exactly the elements of `shape`.
    ///
    /// ```
    /// use mlx_core::{Array, Dtype};
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let x = Array::from_bytes(&[0, 60, 0, 64], &[2], Dtype::Float16)?;
    /// assert_eq!(x.to_vec_as::<f32>()?, [1.0, 2.0]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_bytes(bytes: &[u8], shape: &[i32], dtype: Dtype) -> Result<Array> {
        if count(shape)?.checked_mul(dtype.size()) != Some(bytes.len()) {
            let len = bytes.len();
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("array: {len} bytes for shape {shape:?} of {dtype}"),
            ));
        }
        ffi::array_from_bytes(bytes, shape, dtype)
    }

    /// Makes an array over a tensor of a mapped file, without a copy where the device allows it.
    ///
    /// The first array over a tensor may reuse its memory for results; one made later is read from
    /// the file anew.
    ///
    /// # Errors
    /// When `bytes` does not hold exactly the elements of `shape`.
    pub fn from_tensor(bytes: &TensorBytes, shape: &[i32], dtype: Dtype) -> Result<Array> {
        let len = bytes.as_slice().len();
        if count(shape)?.checked_mul(dtype.size()) != Some(len) || len == 0 {
            return Array::from_bytes(bytes.as_slice(), shape, dtype);
        }
        match bytes.lend(dtype) {
            // SAFETY: the length was checked; the pointer is aligned, private to this process,
            // preceded by the file's header, lent to no other array, and lives as long as the
            // mapping that it comes with.
            Some(data) => unsafe { ffi::array_wrap(data, shape, dtype, Box::new(bytes.clone())) },
            None => Array::from_bytes(&bytes.stored()?, shape, dtype),
        }
    }

    /// Makes a 1-D array of `0..n` as `int32`.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn range(n: i32) -> Result<Array> {
        crate::ops::arange(0.0, f64::from(n), 1.0, Dtype::Int32)
    }

    /// Returns the size along each axis.
    pub fn shape(&self) -> &[i32] {
        ffi::array_shape(self)
    }

    /// Returns the number of axes.
    pub fn ndim(&self) -> usize {
        self.shape().len()
    }

    /// Returns the size along one axis; a negative one counts from the end.
    ///
    /// # Errors
    /// When there is no such axis.
    pub fn dim(&self, axis: i32) -> Result<i32> {
        let shape = self.shape();
        let position = if axis < 0 { axis + shape.len() as i32 } else { axis };
        usize::try_from(position).ok().and_then(|i| shape.get(i).copied()).ok_or_else(|| {
            Error::new(ErrorKind::OutOfRange, format!("dim: no axis {axis} in shape {shape:?}"))
        })
    }

    /// Fails where an axis (or, without one, the whole array) is empty: MLX's CPU backend divides by
    /// its size, which ends the process.
    pub(crate) fn check_not_empty(&self, op: &str, axis: Option<i32>) -> Result<()> {
        if axis.map_or(Ok(self.size() > 0), |axis| self.dim(axis).map(|size| size > 0))? {
            return Ok(());
        }
        let shape = self.shape();
        Err(Error::new(ErrorKind::InvalidArgument, format!("{op}: empty axis in shape {shape:?}")))
    }

    /// Returns the shape as `N` numbers: `let [b, l, d] = x.dims()?;`.
    ///
    /// # Errors
    /// When there are not exactly `N` axes.
    ///
    /// ```
    /// use mlx_core::Array;
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let [b, l] = Array::range(6)?.reshape([2, 3])?.dims()?;
    /// assert_eq!((b, l), (2, 3));
    /// # Ok(())
    /// # }
    /// ```
    pub fn dims<const N: usize>(&self) -> Result<[i32; N]> {
        self.shape().try_into().map_err(|_| {
            let shape = self.shape();
            Error::new(
                ErrorKind::InvalidArgument,
                format!("expected {N} axes, got shape {shape:?}"),
            )
        })
    }

    /// Returns the element type.
    pub fn dtype(&self) -> Dtype {
        ffi::array_dtype(self)
    }

    /// Returns the number of elements.
    pub fn size(&self) -> usize {
        self.shape().iter().map(|&dim| dim as usize).product()
    }

    /// Returns the number of bytes of the elements.
    pub fn nbytes(&self) -> usize {
        self.size() * self.dtype().size()
    }

    /// Returns a number that is the same for handles to the same node only.
    pub fn id(&self) -> usize {
        ffi::array_id(self)
    }

    /// Tells whether the data is there, so that a read does not wait.
    pub fn is_available(&self) -> bool {
        ffi::array_is_available(self)
    }

    /// Computes the array and waits for it.
    ///
    /// # Errors
    /// When an op on the way fails.
    pub fn eval(&self) -> Result<()> {
        crate::eval([self])
    }

    /// Computes the array and returns its element strides.
    ///
    /// # Errors
    /// When an op on the way fails.
    pub fn strides(&self) -> Result<Vec<i64>> {
        self.eval()?;
        Ok(ffi::array_strides(self).to_vec())
    }

    /// Computes the array and returns its only element.
    ///
    /// # Errors
    /// When there is not exactly one element, or it is not a `T`.
    pub fn item<T: Element>(&self) -> Result<T> {
        if self.size() != 1 {
            let shape = self.shape();
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("item: expected one element, got shape {shape:?}"),
            ));
        }
        self.check_element::<T>("item")?;
        self.with_bytes(T::read)
    }

    /// Computes the array and copies its elements out in row-major order.
    ///
    /// # Errors
    /// When the elements are not of type `T`; [`Array::to_vec_as`] converts.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        self.check_element::<T>("to_vec")?;
        self.with_bytes(element::from_bytes)
    }

    fn check_element<T: Element>(&self, op: &str) -> Result<()> {
        let (dtype, wanted) = (self.dtype(), T::DTYPE);
        if dtype == wanted {
            return Ok(());
        }
        let text = format!("{op}: array of {dtype} read as {wanted}");
        Err(Error::new(ErrorKind::InvalidArgument, text))
    }

    /// Computes the array, converts its elements to `T`, and copies them out in row-major order.
    ///
    /// # Errors
    /// When an op on the way fails.
    pub fn to_vec_as<T: Element>(&self) -> Result<Vec<T>> {
        self.astype(T::DTYPE)?.to_vec()
    }

    /// Computes the array and hands the bytes of its elements, in row-major order, to `f`.
    ///
    /// # Errors
    /// When an op on the way fails.
    ///
    /// ```
    /// use mlx_core::Array;
    ///
    /// # fn main() -> mlx_core::Result<()> {
    /// let n_set = Array::from_slice(&[1u8, 3], &[2])?.with_bytes(|bytes| bytes[1].count_ones())?;
    /// assert_eq!(n_set, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_bytes<R>(&self, f: impl FnOnce(&[u8]) -> R) -> Result<R> {
        self.eval()?;
        if let Some(bytes) = ffi::array_bytes(self) {
            return Ok(f(bytes));
        }
        let contiguous = array_op!(mlx_contiguous, self, false)?;
        contiguous.eval()?;
        match ffi::array_bytes(&contiguous) {
            Some(bytes) => Ok(f(bytes)),
            None => Err(Error::new(ErrorKind::Runtime, "array: evaluated but not readable")),
        }
    }
}

impl fmt::Display for Array {
    /// Computes the array and prints it as Python does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // MLX would compute it as well, but forget an error after telling it once.
        match self.eval().and_then(|()| ffi::array_to_string(self)) {
            // C++ has another spelling of these two.
            Ok(text) if self.dtype() == Dtype::Bool => {
                f.write_str(&text.replace("true", "True").replace("false", "False"))
            }
            Ok(text) => f.write_str(&text),
            Err(e) => write!(f, "<{e}>"),
        }
    }
}

impl fmt::Debug for Array {
    /// Prints shape and dtype; computes nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Array({:?}, {})", self.shape(), self.dtype())
    }
}

impl<T: Element> From<T> for Array {
    /// Makes a 0-d array with the dtype of `T`.
    fn from(value: T) -> Array {
        // A 0-d array needs one element, which is there: only an allocation can fail.
        Array::from_slice(&[value], &[]).unwrap_or_else(|_| {
            std::alloc::handle_alloc_error(std::alloc::Layout::new::<[usize; 2]>())
        })
    }
}

/// Axes of a reduction: `..` for all, one axis, or several.
///
/// ```
/// use mlx_core::Array;
///
/// # fn main() -> mlx_core::Result<()> {
/// let x = Array::range(8)?.reshape([2, 2, 2])?;
/// assert_eq!(x.sum(.., false)?.item::<i32>()?, 28);
/// assert_eq!(x.sum(-1, false)?.shape(), [2, 2]);
/// assert_eq!(x.sum(&[0, 1], true)?.shape(), [1, 1, 2]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Axes<'a> {
    /// Every axis.
    All,
    /// One axis; negative counts from the end.
    One(i32),
    /// Several axes.
    Some(&'a [i32]),
}

impl From<std::ops::RangeFull> for Axes<'_> {
    fn from(_: std::ops::RangeFull) -> Self {
        Axes::All
    }
}

impl From<i32> for Axes<'_> {
    fn from(axis: i32) -> Self {
        Axes::One(axis)
    }
}

impl<'a> From<&'a [i32]> for Axes<'a> {
    fn from(axes: &'a [i32]) -> Self {
        Axes::Some(axes)
    }
}

impl<'a, const N: usize> From<&'a [i32; N]> for Axes<'a> {
    fn from(axes: &'a [i32; N]) -> Self {
        Axes::Some(axes)
    }
}
