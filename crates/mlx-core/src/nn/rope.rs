//! Rotary position embedding.

use crate::array::Array;
use crate::error::Result;
use crate::fast::{self, Offset, RopeOptions};
use crate::{Ellipsis, kernels};

/// Rotates queries and keys by their position (RoFormer, arXiv 2104.09864).
///
/// ```
/// use mlx_core::nn::Rope;
/// use mlx_core::{Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let x = ops::ones(&[1, 2, 3, 8], Dtype::Float32)?; // [B, H, L, D]
/// assert_eq!(Rope::new(8, 10000.0).forward(&x, 0)?.shape(), [1, 2, 3, 8]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Rope {
    /// Leading elements of each head that are rotated.
    pub dims: i32,
    /// Pairs neighbours instead of halves.
    pub traditional: bool,
    /// Base of the frequencies; not used beside `freqs`.
    pub base: f32,
    /// Factor on the positions.
    pub scale: f32,
    /// `[dims / 2]`: wavelengths of a scaled variant.
    pub freqs: Option<Array>,
    /// Factor on the rotated elements before the rotation; YaRN's `mscale`.
    pub magnitude: f32,
}

crate::module! { Rope {} }

impl Rope {
    /// Makes the plain form.
    pub fn new(dims: i32, base: f32) -> Rope {
        Rope { dims, traditional: false, base, scale: 1.0, freqs: None, magnitude: 1.0 }
    }

    /// Rotates, the first row being at position `offset`, which is a number or `[B]`.
    ///
    /// # Shape
    /// `x: [B, H, L, D] → [B, H, L, D]`
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward<'a>(&self, x: &Array, offset: impl Into<Offset<'a>>) -> Result<Array> {
        let options = RopeOptions {
            dims: self.dims,
            traditional: self.traditional,
            base: self.freqs.is_none().then_some(self.base),
            scale: self.scale,
            freqs: self.freqs.as_ref(),
        };
        let offset = offset.into();
        if kernels::has_rope(x, &options, &offset)? {
            return kernels::rope(x, options, offset, self.magnitude, rotate);
        }
        rotate(x, options, offset, self.magnitude)
    }
}

/// Rotates by MLX's op.
pub(crate) fn rotate(
    x: &Array,
    rope: RopeOptions<'_>,
    offset: Offset<'_>,
    magnitude: f32,
) -> Result<Array> {
    if magnitude == 1.0 {
        return fast::rope(x, rope, offset);
    }
    let dims = rope.dims;
    let scaled = if x.shape().last() == Some(&dims) {
        (x * magnitude)?
    } else {
        let rotated = (x.at((Ellipsis, ..dims))? * magnitude)?;
        crate::ops::concatenate([&rotated, &x.at((Ellipsis, dims..))?], -1)?
    };
    fast::rope(&scaled, rope, offset)
}
