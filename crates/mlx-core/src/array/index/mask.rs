//! Masks: boolean arrays as indices.
//!
//! To NumPy a mask is short for the positions at which it is true. Reading by one, and writing by
//! one beside other indices, needs those positions on the host. Writing by a mask alone does not:
//! [`crate::array::masked`] keeps it in the graph.

use super::{IndexItem, Slice};
use crate::array::Array;
use crate::error::{Error, ErrorKind, Result};

/// Computes a boolean array and returns the positions of its true elements, one array per axis.
pub(crate) fn positions(mask: &Array) -> Result<Vec<Array>> {
    let shape = mask.shape();
    let mut position = vec![0i32; shape.len()];
    let mut found: Vec<Vec<i32>> = vec![Vec::new(); shape.len()];
    mask.with_bytes(|bytes| {
        for &byte in bytes {
            if byte != 0 {
                found.iter_mut().zip(&position).for_each(|(found, &p)| found.push(p));
            }
            // Counts up like an odometer, the last axis fastest.
            for (p, &size) in position.iter_mut().zip(shape).rev() {
                *p += 1;
                if *p < size {
                    break;
                }
                *p = 0;
            }
        }
    })?;
    found.iter().map(|found| Array::from_slice(found, &[found.len() as i32])).collect()
}

/// Fails where a mask has not the shape of the axes from `axis` on that it stands for.
pub(in crate::array) fn check_shape(mask: &Array, shape: &[i32], axis: usize) -> Result<()> {
    let axes = shape.get(axis..axis + mask.ndim());
    if axes == Some(mask.shape()) {
        return Ok(());
    }
    let text = format!("index: mask of shape {:?} for axis {axis} of {shape:?}", mask.shape());
    Err(Error::new(ErrorKind::InvalidArgument, text))
}

/// Returns the mask of an index that chooses whole axes otherwise, with the first axis it stands
/// for.
pub(in crate::array) fn lone_mask(items: &[IndexItem], ndim: usize) -> Option<(Array, usize)> {
    const ALL: Slice = Slice { start: None, stop: None, step: 1 };
    let mut lone = None;
    let (mut n_slices, mut n_ellipses, mut before) = (0, 0, None);
    for item in items {
        match item {
            IndexItem::Array(mask) if super::is_mask(mask) && lone.is_none() => {
                lone = Some(mask.clone());
                before = Some((n_slices, n_ellipses));
            }
            IndexItem::Bool(truth) if lone.is_none() => {
                lone = Some(Array::from(*truth));
                before = Some((n_slices, n_ellipses));
            }
            IndexItem::Slice(slice) if *slice == ALL => n_slices += 1,
            IndexItem::Ellipsis if n_ellipses == 0 => n_ellipses += 1,
            _ => return None,
        }
    }
    let (mask, (slices_before, ellipses_before)) = (lone?, before?);
    let not_named = ndim.checked_sub(n_slices + mask.ndim())?;
    Some((mask, slices_before + ellipses_before * not_named))
}
