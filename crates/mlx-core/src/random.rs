//! Random numbers from explicit keys, or from this thread's key sequence.
//!
//! A key is an array of two `uint32`, and every draw is a pure function of one: the same key gives
//! the same numbers as Python MLX. Where no key is given, the next of this thread's sequence is
//! taken, which [`seed`] starts, and whose [`state`] can be saved and set again.
//!
//! ```
//! use mlx_core::{Dtype, random};
//!
//! # fn main() -> mlx_core::Result<()> {
//! random::seed(7)?;
//! let state = random::state()?;
//! let first = random::uniform(0.0, 1.0, &[3], Dtype::Float32, None)?;
//! random::set_state(&state)?;
//! let again = random::uniform(0.0, 1.0, &[3], Dtype::Float32, None)?;
//! assert_eq!(first.to_vec::<f32>()?, again.to_vec::<f32>()?);
//! # Ok(())
//! # }
//! ```

use std::cell::RefCell;

use crate::array::{Array, Operand};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{self, array_op, c_call, pair_op};
use crate::linalg;

/// Keys, one after the other, that one key determines.
///
/// ```
/// use mlx_core::random::KeySequence;
///
/// # fn main() -> mlx_core::Result<()> {
/// let mut keys = KeySequence::new(0)?;
/// let (a, b) = (keys.next_key()?, keys.next_key()?);
/// assert_ne!(a.to_vec::<u32>()?, b.to_vec::<u32>()?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct KeySequence {
    state: Array,
}

impl KeySequence {
    /// Starts the sequence of a seed.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn new(seed: u64) -> Result<KeySequence> {
        Ok(KeySequence { state: key(seed)? })
    }

    /// Goes on with a sequence where [`KeySequence::state`] was taken.
    ///
    /// # Errors
    /// When `state` is not a key.
    pub fn from_state(state: &Array) -> Result<KeySequence> {
        if state.dtype() != Dtype::Uint32 || state.shape() != [2] {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("random state: expected two of uint32, got {state:?}"),
            ));
        }
        Ok(KeySequence { state: state.clone() })
    }

    /// Returns the key that determines those to come.
    pub fn state(&self) -> &Array {
        &self.state
    }

    /// Takes the next key.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn next_key(&mut self) -> Result<Array> {
        let state = &self.state;
        let (state, key) = pair_op!(mlx_random_split, state)?;
        self.state = state;
        Ok(key)
    }
}

thread_local! {
    static DEFAULT: RefCell<Option<KeySequence>> = const { RefCell::new(None) };
}

/// Runs `f` on this thread's sequence, which an unforeseeable key starts where no [`seed`] did.
fn with_default<R>(f: impl FnOnce(&mut KeySequence) -> Result<R>) -> Result<R> {
    DEFAULT
        .try_with(|default| {
            let mut default = default.borrow_mut();
            match &mut *default {
                Some(keys) => f(keys),
                None => {
                    let state = ffi::random_next_key()?;
                    f(default.insert(KeySequence { state }))
                }
            }
        })
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Runtime, "random: this thread is ending")))
}

/// Starts this thread's key sequence anew.
///
/// # Errors
/// When memory runs out.
///
/// ```
/// use mlx_core::{Dtype, random};
///
/// # fn main() -> mlx_core::Result<()> {
/// random::seed(0)?;
/// let x = random::uniform(0, 1, &[2], Dtype::Float32, None)?;
/// assert_eq!(x.to_string(), "array([0.576551, 0.299172], dtype=float32)"); // as in Python
/// # Ok(())
/// # }
/// ```
pub fn seed(seed: u64) -> Result<()> {
    let keys = KeySequence::new(seed)?;
    with_default(|default| {
        *default = keys;
        Ok(())
    })
}

/// Returns the key that determines what this thread's sequence gives from here on; saved and set
/// again, it continues a run as if there had been no break.
///
/// # Errors
/// When memory runs out.
pub fn state() -> Result<Array> {
    with_default(|keys| Ok(keys.state.clone()))
}

/// Lets this thread's sequence go on where [`state`] was taken.
///
/// # Errors
/// When `state` is not a key.
pub fn set_state(state: &Array) -> Result<()> {
    let keys = KeySequence::from_state(state)?;
    with_default(|default| {
        *default = keys;
        Ok(())
    })
}

/// Makes a key.
///
/// # Shape
/// `[2]`, uint32
///
/// # Errors
/// When memory runs out.
pub fn key(seed: u64) -> Result<Array> {
    let mut raw = ffi::null_array();
    let status = c_call!(@args mlx_random_key; (&mut raw); seed,);
    ffi::finish_array(raw, status, "mlx_random_key")
}

/// Takes the next key of this thread's sequence.
///
/// # Errors
/// When memory runs out.
pub fn next_key() -> Result<Array> {
    with_default(KeySequence::next_key)
}

/// The key that was given, or the next one.
fn key_or_next(key: Option<&Array>) -> Result<Array> {
    key.map_or_else(next_key, |key| Ok(key.clone()))
}

/// Makes `num` keys from one.
///
/// # Shape
/// `[num, 2]`
///
/// # Errors
/// When `key` is not a key.
///
/// ```
/// use mlx_core::{Dtype, random};
///
/// # fn main() -> mlx_core::Result<()> {
/// let keys = random::split(&random::key(7)?, 3)?;
/// assert_eq!((keys.shape(), keys.dtype()), (&[3, 2][..], Dtype::Uint32));
/// # Ok(())
/// # }
/// ```
pub fn split(key: &Array, num: i32) -> Result<Array> {
    array_op!(mlx_random_split_num, key, num)
}

/// Returns random unsigned integers of `width` bytes.
///
/// # Errors
/// When the width is not 1, 2 or 4.
pub fn bits(shape: &[i32], width: i32, key: Option<&Array>) -> Result<Array> {
    let key = &key_or_next(key)?;
    array_op!(mlx_random_bits, [shape], width, key)
}

/// Returns numbers spread evenly over `low..high`.
///
/// # Errors
/// When the bounds do not broadcast to the shape or the dtype is not floating.
///
/// ```
/// use mlx_core::{Dtype, random};
///
/// # fn main() -> mlx_core::Result<()> {
/// let x = random::uniform(-1, 1, &[100], Dtype::Float32, None)?;
/// assert!(x.abs()?.max(.., false)?.item::<f32>()? <= 1.0);
/// # Ok(())
/// # }
/// ```
pub fn uniform(
    low: impl Operand,
    high: impl Operand,
    shape: &[i32],
    dtype: Dtype,
    key: Option<&Array>,
) -> Result<Array> {
    let key = &key_or_next(key)?;
    let (low, high) = (&low.into_array(None)?, &high.into_array(None)?);
    array_op!(mlx_random_uniform, low, high, [shape], dtype, key)
}

/// Returns normally distributed numbers with mean `loc` and standard deviation `scale`.
///
/// # Errors
/// When the dtype is not floating.
///
/// ```
/// use mlx_core::{Dtype, random};
///
/// # fn main() -> mlx_core::Result<()> {
/// let key = random::key(0)?;
/// let x = random::normal(&[1000], Dtype::Float32, 5.0, 2.0, Some(&key))?;
/// assert!((x.mean(.., false)?.item::<f32>()? - 5.0).abs() < 0.2);
/// # Ok(())
/// # }
/// ```
pub fn normal(
    shape: &[i32],
    dtype: Dtype,
    loc: impl Operand,
    scale: impl Operand,
    key: Option<&Array>,
) -> Result<Array> {
    let key = &key_or_next(key)?;
    let (loc, scale) = (&loc.into_array(Some(dtype))?, &scale.into_array(Some(dtype))?);
    array_op!(mlx_random_normal_broadcast, [shape], dtype, loc, scale, key)
}

/// Returns vectors of a multivariate normal distribution, as float32, from a singular value
/// decomposition of the covariance; bound to the CPU, as that is.
///
/// # Shape
/// `mean: […, N]`, `cov: […, N, N] → shape + [N]`, where the leading axes broadcast to `shape`.
///
/// # Errors
/// When the device is not the CPU or the shapes do not fit; when evaluated, also when `cov` has
/// NaN or infinity.
pub fn multivariate_normal(
    mean: &Array,
    cov: &Array,
    shape: &[i32],
    key: Option<&Array>,
) -> Result<Array> {
    let key = &key_or_next(key)?;
    let cov = &linalg::iterated("multivariate_normal", cov)?;
    let dtype = Dtype::Float32;
    array_op!(mlx_random_multivariate_normal, mean, cov, [shape], dtype, key)
}

/// Returns normally distributed numbers cut off outside `lower..upper`.
///
/// # Errors
/// When the bounds do not broadcast to the shape or the dtype is not floating.
pub fn truncated_normal(
    lower: impl Operand,
    upper: impl Operand,
    shape: &[i32],
    dtype: Dtype,
    key: Option<&Array>,
) -> Result<Array> {
    let key = &key_or_next(key)?;
    let (lower, upper) = (&lower.into_array(None)?, &upper.into_array(None)?);
    array_op!(mlx_random_truncated_normal, lower, upper, [shape], dtype, key)
}

/// Returns integers from `low` up to and without `high`.
///
/// # Errors
/// When the bounds do not broadcast to the shape or the dtype is not an integer.
///
/// ```
/// use mlx_core::{Dtype, random};
///
/// # fn main() -> mlx_core::Result<()> {
/// let dice = random::randint(1, 7, &[100], Dtype::Int32, None)?;
/// assert!(dice.to_vec::<i32>()?.iter().all(|pips| (1..=6).contains(pips)));
/// # Ok(())
/// # }
/// ```
pub fn randint(
    low: impl Operand,
    high: impl Operand,
    shape: &[i32],
    dtype: Dtype,
    key: Option<&Array>,
) -> Result<Array> {
    let key = &key_or_next(key)?;
    let (low, high) = (&low.into_array(None)?, &high.into_array(None)?);
    array_op!(mlx_random_randint, low, high, [shape], dtype, key)
}

/// Returns true with probability `p`.
///
/// # Errors
/// When `p` does not broadcast to the shape.
///
/// ```
/// use mlx_core::random;
///
/// # fn main() -> mlx_core::Result<()> {
/// let coins = random::bernoulli(0.5, &[1000], Some(&random::key(0)?))?;
/// let n_heads = coins.sum(.., false)?.item::<i32>()?;
/// assert!((400..600).contains(&n_heads));
/// # Ok(())
/// # }
/// ```
pub fn bernoulli(p: impl Operand, shape: &[i32], key: Option<&Array>) -> Result<Array> {
    let key = &key_or_next(key)?;
    let p = &p.into_array(Some(Dtype::Float32))?;
    array_op!(mlx_random_bernoulli, p, [shape], key)
}

/// Returns numbers of the standard Gumbel distribution.
///
/// # Errors
/// When the dtype is not floating.
pub fn gumbel(shape: &[i32], dtype: Dtype, key: Option<&Array>) -> Result<Array> {
    let key = &key_or_next(key)?;
    array_op!(mlx_random_gumbel, [shape], dtype, key)
}

/// Returns numbers of the Laplace distribution.
///
/// # Errors
/// When the dtype is not floating.
pub fn laplace(
    shape: &[i32],
    dtype: Dtype,
    loc: f32,
    scale: f32,
    key: Option<&Array>,
) -> Result<Array> {
    let key = &key_or_next(key)?;
    array_op!(mlx_random_laplace, [shape], dtype, loc, scale, key)
}

/// Draws positions along an axis with the probabilities that unnormalized `logits` give.
///
/// # Shape
/// `logits` without the axis, `uint32`.
///
/// # Errors
/// When there is no such axis.
///
/// ```
/// use mlx_core::{Array, random};
///
/// # fn main() -> mlx_core::Result<()> {
/// let logits = Array::from_slice(&[0.0f32, 100.0, 100.0, 0.0], &[2, 2])?;
/// assert_eq!(random::categorical(&logits, -1, None)?.to_vec::<u32>()?, [1, 0]);
/// # Ok(())
/// # }
/// ```
pub fn categorical(logits: &Array, axis: i32, key: Option<&Array>) -> Result<Array> {
    let key = &key_or_next(key)?;
    array_op!(mlx_random_categorical, logits, axis, key)
}

/// Draws as [`categorical`] does, `num_samples` times, along a new last axis.
///
/// # Shape
/// `[…, V]` → `[…, num_samples]` where `axis` is the last
///
/// # Errors
/// When there is no such axis or `num_samples` is negative.
pub fn categorical_num_samples(
    logits: &Array,
    axis: i32,
    num_samples: i32,
    key: Option<&Array>,
) -> Result<Array> {
    let key = &key_or_next(key)?;
    array_op!(mlx_random_categorical_num_samples, logits, axis, num_samples, key)
}

/// Draws as [`categorical`] does, to a shape that ends with that of `logits` without the axis.
///
/// # Shape
/// `logits: […, C]` → `shape`, uint32
///
/// # Errors
/// When there is no such axis or the shape does not fit.
pub fn categorical_shape(
    logits: &Array,
    axis: i32,
    shape: &[i32],
    key: Option<&Array>,
) -> Result<Array> {
    let key = &key_or_next(key)?;
    array_op!(mlx_random_categorical_shape, logits, axis, [shape], key)
}

/// Returns `0..n` in random order, as `uint32`.
///
/// # Shape
/// `[n]`
///
/// # Errors
/// When `n` is not positive.
pub fn permutation_arange(n: i32, key: Option<&Array>) -> Result<Array> {
    let key = &key_or_next(key)?;
    if n <= 0 {
        return Err(Error::new(ErrorKind::InvalidArgument, format!("permutation: of {n} numbers")));
    }
    array_op!(mlx_random_permutation_arange, n, key)
}

/// Shuffles slices along an axis.
///
/// # Shape
/// That of `x`
///
/// # Errors
/// When there is no such axis or it is empty.
///
/// ```
/// use mlx_core::{Array, random};
///
/// # fn main() -> mlx_core::Result<()> {
/// let shuffled = random::permutation(&Array::range(9)?, 0, None)?;
/// assert_eq!(shuffled.sort(0)?.to_vec::<i32>()?, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
/// # Ok(())
/// # }
/// ```
pub fn permutation(x: &Array, axis: i32, key: Option<&Array>) -> Result<Array> {
    let key = &key_or_next(key)?;
    x.check_not_empty("permutation", Some(axis))?;
    array_op!(mlx_random_permutation, x, axis, key)
}
