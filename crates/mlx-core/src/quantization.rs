//! How weights are quantized.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fmt;

use crate::error::{Error, ErrorKind, Result};

/// A packed weight format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum QuantMode {
    /// `w ≈ q * scale + bias` per group; 2, 3, 4, 5, 6 or 8 bits, groups of 32, 64 or 128.
    #[default]
    Affine,
    /// OCP microscaling, 4-bit floats (E2M1), groups of 32 with a power-of-two scale.
    Mxfp4,
    /// 4-bit floats (E2M1), groups of 16 with an E4M3 scale.
    Nvfp4,
    /// OCP microscaling, 8-bit floats (E4M3), groups of 32 with a power-of-two scale.
    Mxfp8,
}

impl QuantMode {
    /// Every mode.
    pub const ALL: [QuantMode; 4] =
        [QuantMode::Affine, QuantMode::Mxfp4, QuantMode::Nvfp4, QuantMode::Mxfp8];

    /// Returns the name in a config, such as `mxfp4`.
    pub fn name(self) -> &'static str {
        match self {
            QuantMode::Affine => "affine",
            QuantMode::Mxfp4 => "mxfp4",
            QuantMode::Nvfp4 => "nvfp4",
            QuantMode::Mxfp8 => "mxfp8",
        }
    }

    /// Finds a mode by its name in a config.
    pub fn from_name(name: &str) -> Option<QuantMode> {
        QuantMode::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// Returns group size and bits where a config gives none.
    pub fn defaults(self) -> (i32, i32) {
        match self {
            QuantMode::Affine => (64, 4),
            QuantMode::Mxfp4 => (32, 4),
            QuantMode::Nvfp4 => (16, 4),
            QuantMode::Mxfp8 => (32, 8),
        }
    }

    pub(crate) fn c_name(self) -> &'static CStr {
        match self {
            QuantMode::Affine => c"affine",
            QuantMode::Mxfp4 => c"mxfp4",
            QuantMode::Nvfp4 => c"nvfp4",
            QuantMode::Mxfp8 => c"mxfp8",
        }
    }
}

impl fmt::Display for QuantMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The packed format of one weight.
///
/// ```
/// use mlx_core::{QuantMode, Quantization};
///
/// # fn main() -> mlx_core::Result<()> {
/// let affine = Quantization { bits: 8, ..Quantization::default() };
/// assert_eq!((affine.group_size, affine.mode), (64, QuantMode::Affine));
/// assert_eq!(Quantization::of(QuantMode::Mxfp4).group_size, 32);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quantization {
    /// Consecutive weights of a row that share a scale.
    pub group_size: i32,
    /// Bits of one weight.
    pub bits: i32,
    /// The format.
    pub mode: QuantMode,
}

impl Quantization {
    /// Returns a mode with its default group size and bits.
    pub fn of(mode: QuantMode) -> Quantization {
        let (group_size, bits) = mode.defaults();
        Quantization { group_size, bits, mode }
    }

    /// Tells whether group size and bits are the mode's own; only affine has others.
    pub(crate) fn is_default(self) -> bool {
        (self.group_size, self.bits) == self.mode.defaults()
    }

    /// Fails where MLX would divide by zero before it looks at the rest.
    pub(crate) fn check(self) -> Result<()> {
        if self.group_size > 0 && (1..=8).contains(&self.bits) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidArgument, format!("quantization: there is no {self}")))
    }
}

impl Default for Quantization {
    fn default() -> Self {
        Quantization::of(QuantMode::Affine)
    }
}

impl fmt::Display for Quantization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}-bit, groups of {}", self.mode, self.bits, self.group_size)
    }
}

/// Which layers of a checkpoint are quantized, and how.
///
/// ```
/// use mlx_core::{Quantization, QuantizationConfig};
///
/// # fn main() -> mlx_core::Result<()> {
/// let mut config = QuantizationConfig::default();
/// config.layers.insert("lm_head".to_owned(), None);
/// assert_eq!(config.of("lm_head"), None);
/// assert_eq!(config.of("layers.0"), Some(Quantization::default()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuantizationConfig {
    /// For layers without an entry of their own.
    pub default: Quantization,
    /// By module path; `None` leaves the layer dense.
    pub layers: HashMap<String, Option<Quantization>>,
}

impl QuantizationConfig {
    /// Returns the format of the layer at `path`.
    pub fn of(&self, path: &str) -> Option<Quantization> {
        self.layers.get(path).copied().unwrap_or(Some(self.default))
    }
}
