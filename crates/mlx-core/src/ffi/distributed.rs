//! Handles to groups of processes.

use std::ffi::CStr;
use std::ptr;

use mlx_sys as sys;

use super::{IntoC, Live, check};
use crate::error::Result;

/// A group of processes; never an empty handle, which mlx-c would follow.
pub(crate) struct RawGroup(sys::mlx_distributed_group, Live);

impl RawGroup {
    /// Not for two threads at once: MLX keeps its groups in a table without a lock.
    pub(crate) fn init(strict: bool, backend: &CStr) -> Result<RawGroup> {
        let mut group = RawGroup(sys::mlx_distributed_group { ctx: ptr::null_mut() }, Live::new());
        // SAFETY: `group` holds an empty handle to fill, the name outlives the call.
        let status =
            unsafe { sys::mlx_shim_distributed_init(&mut group.0, strict, backend.as_ptr()) };
        check(status, "distributed.init")?;
        Ok(group)
    }

    pub(crate) fn rank(&self) -> i32 {
        // SAFETY: the handle is live.
        unsafe { sys::mlx_distributed_group_rank(self.0) }
    }

    pub(crate) fn size(&self) -> i32 {
        // SAFETY: the handle is live.
        unsafe { sys::mlx_distributed_group_size(self.0) }
    }

    pub(crate) fn split(&self, color: i32, key: i32) -> Result<RawGroup> {
        let mut group = RawGroup(sys::mlx_distributed_group { ctx: ptr::null_mut() }, Live::new());
        // SAFETY: the handle is live, and `group` holds an empty one to fill.
        let status = unsafe { sys::mlx_distributed_group_split(&mut group.0, self.0, color, key) };
        check(status, "distributed.split")?;
        Ok(group)
    }
}

impl Drop for RawGroup {
    fn drop(&mut self) {
        // SAFETY: the handle is owned, and an empty one is allowed.
        unsafe { sys::mlx_distributed_group_free(self.0) };
    }
}

impl IntoC for &RawGroup {
    type C = sys::mlx_distributed_group;
    fn into_c(self) -> sys::mlx_distributed_group {
        self.0
    }
}

pub(crate) fn distributed_is_available(backend: &CStr) -> bool {
    // SAFETY: the name outlives the call.
    unsafe { sys::mlx_distributed_is_available(backend.as_ptr()) }
}
