//! Collectives between processes: each computes its part, and these ops exchange the parts.
//!
//! A process joins a [`Group`] and learns its rank. Every process has to make the same collectives
//! in the same order; each is an op like any other, lazy until it is evaluated. They run on the
//! default stream of the thread that joined, and on no other thread, whatever the scope says: a
//! backend has one set of connections, and two ops on them at once would mix their data.
//!
//! How the processes find each other is the backend's. That of rings, the only one in a build for
//! the CPU, reads two environment variables: `MLX_HOSTFILE` names a JSON file with one list of
//! addresses for each rank (`[["10.0.0.1:5000"], ["10.0.0.2:5000"]]`), `MLX_RANK` is this
//! process's place in it. `mlx.launch` of Python's MLX sets them; this library reads neither.
//!
//! When a process of a ring dies, the collectives of its neighbours fail. MLX does not mend the
//! ring, so every later collective of the group is an error at once; end the process. Exit waits
//! five seconds for a collective under way, then leaves without it.

use std::ffi::CStr;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ThreadId};

use crate::array::Array;
use crate::device::Device;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{RawGroup, array_op, distributed_is_available};
use crate::stream::with_device;

/// What carries the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Backend {
    /// The first of the others that works here.
    #[default]
    Any,
    /// TCP connections to two neighbours. No [`sum_scatter`] and no [`Group::split`]; [`send`] and
    /// [`recv`] between neighbours only.
    Ring,
    /// An MPI library, loaded when there is one.
    Mpi,
    /// NVIDIA's library, in builds for CUDA.
    Nccl,
    /// RDMA over Thunderbolt, on macOS.
    Jaccl,
}

impl Backend {
    fn name(self) -> &'static CStr {
        match self {
            Backend::Any => c"any",
            Backend::Ring => c"ring",
            Backend::Mpi => c"mpi",
            Backend::Nccl => c"nccl",
            Backend::Jaccl => c"jaccl",
        }
    }
}

/// Tells whether this build has a backend; not whether there is anybody to talk to.
pub fn is_available(backend: Backend) -> bool {
    distributed_is_available(backend.name())
}

/// How to join a group.
#[derive(Clone, Copy, Debug, Default)]
pub struct InitOptions {
    /// Whether to fail where there is nobody to join; otherwise the group is this process alone.
    pub strict: bool,
    /// What to join by.
    pub backend: Backend,
}

/// Processes that compute together; this one has a rank in it.
///
/// ```
/// use mlx_core::Array;
/// use mlx_core::distributed::{self, Group, InitOptions};
///
/// # fn main() -> mlx_core::Result<()> {
/// // Alone: nothing in the environment says otherwise.
/// let group = Group::init(InitOptions::default())?;
/// assert_eq!((group.rank(), group.size()), (0, 1));
/// let x = distributed::all_sum(&Array::from(2.0f32), &group)?;
/// assert_eq!(x.item::<f32>()?, 2.0);
/// # Ok(())
/// # }
/// ```
pub struct Group(RawGroup);

/// The thread whose collectives use the connections, once there are any.
static OWNER: Mutex<Option<ThreadId>> = Mutex::new(None);

impl Group {
    /// Joins the group of all processes, or returns it when this process has joined before.
    ///
    /// Waits for the other processes: a ring's listens without end for the one before it and
    /// gives up on the one after it after half a minute.
    ///
    /// # Errors
    /// When the environment names a group that cannot be joined, when it names none and the options
    /// are strict, and when another thread of this process has joined.
    pub fn init(options: InitOptions) -> Result<Group> {
        let mut owner = OWNER.lock().unwrap_or_else(PoisonError::into_inner);
        let here = thread::current().id();
        if owner.is_some_and(|owner| owner != here) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "distributed.init: another thread of this process is in the group",
            ));
        }
        let group = RawGroup::init(options.strict, options.backend.name())?;
        if group.size() > 1 {
            *owner = Some(here);
        }
        Ok(Group(group))
    }

    /// Returns the place of this process in the group, from 0.
    pub fn rank(&self) -> i32 {
        self.0.rank()
    }

    /// Returns the number of processes in the group.
    pub fn size(&self) -> i32 {
        self.0.size()
    }

    /// Divides the group: processes with the same `color` form a new one, ordered by `key`, or as
    /// they were without one.
    ///
    /// # Errors
    /// Where the backend cannot divide: a ring, and a process alone.
    pub fn split(&self, color: i32, key: impl Into<Option<i32>>) -> Result<Group> {
        Ok(Group(self.0.split(color, key.into().unwrap_or(-1))?))
    }

    /// Fails unless `rank` is another process of the group.
    fn check_other(&self, op: &str, rank: i32) -> Result<()> {
        let (own, size) = (self.rank(), self.size());
        let message = match rank {
            _ if size == 1 => format!("{op}: this process is alone in its group"),
            _ if !(0..size).contains(&rank) => {
                return Err(Error::new(
                    ErrorKind::OutOfRange,
                    format!("{op}: no rank {rank} in a group of {size}"),
                ));
            }
            _ if rank == own => format!("{op}: rank {rank} is this process"),
            _ => return Ok(()),
        };
        Err(Error::new(ErrorKind::InvalidArgument, message))
    }
}

/// Calls `f` with the group, or with that of all processes, on the stream that talks to them.
fn with_group<'a>(
    group: impl Into<Option<&'a Group>>,
    f: impl FnOnce(&Group) -> Result<Array>,
) -> Result<Array> {
    let device = if is_available(Backend::Nccl) { Device::default_device() } else { Device::Cpu };
    match group.into() {
        Some(group) => with_device(device, || f(group)),
        None => {
            let group = Group::init(InitOptions::default())?;
            with_device(device, || f(&group))
        }
    }
}

macro_rules! reductions {
    ($($(#[$doc:meta])* $name:ident: $f:ident;)*) => {
        $(
            $(#[$doc])*
            ///
            /// Without a group it is that of all processes; alone, the result is `x`.
            ///
            /// # Shape
            /// `x: [...] → [...]`, the same in every process.
            ///
            /// # Errors
            /// When there is no group to join.
            pub fn $name<'a>(x: &Array, group: impl Into<Option<&'a Group>>) -> Result<Array> {
                with_group(group, |group| {
                    let group = &group.0;
                    array_op!($f, x, group)
                })
            }
        )*
    };
}

reductions! {
    /// Returns the sum of every process's `x`.
    all_sum: mlx_distributed_all_sum;
    /// Returns the elementwise maximum of every process's `x`.
    all_max: mlx_distributed_all_max;
    /// Returns the elementwise minimum of every process's `x`.
    all_min: mlx_distributed_all_min;
}

/// Joins every process's `x` along the first axis, in the order of ranks.
///
/// # Shape
/// `x: [n, ...] → [size · n, ...]`; a scalar from each gives `[size]`. Alone, the result is `x`.
///
/// # Errors
/// When there is no group to join, and when the result is too long for an axis.
pub fn all_gather<'a>(x: &Array, group: impl Into<Option<&'a Group>>) -> Result<Array> {
    with_group(group, |group| {
        let rows = x.shape().first().copied().unwrap_or(1);
        let size = group.size();
        if rows.checked_mul(size).is_none() {
            let shape = x.shape();
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("all_gather: {size} arrays of shape {shape:?} are too long"),
            ));
        }
        let group = &group.0;
        array_op!(mlx_distributed_all_gather, x, group)
    })
}

/// Returns this process's share of the sum of every process's `x`, divided along the first axis.
///
/// # Shape
/// `x: [size · n, ...] → [n, ...]`. Alone, the result is `x`.
///
/// # Errors
/// When the first axis cannot be divided; on evaluation with a ring, which does not have it.
pub fn sum_scatter<'a>(x: &Array, group: impl Into<Option<&'a Group>>) -> Result<Array> {
    with_group(group, |group| {
        let group = &group.0;
        array_op!(mlx_distributed_sum_scatter, x, group)
    })
}

/// Sends `x` to the process `dst` once the result, which is `x`, is evaluated.
///
/// # Errors
/// When there is no such process, or it is this one.
pub fn send<'a>(x: &Array, dst: i32, group: impl Into<Option<&'a Group>>) -> Result<Array> {
    with_group(group, |group| {
        group.check_other("send", dst)?;
        let group = &group.0;
        array_op!(mlx_distributed_send, x, dst, group)
    })
}

/// Receives what the process `src` sends, which has to be of this shape and type.
///
/// # Errors
/// When there is no such process, or it is this one; when the shape is not one.
pub fn recv<'a>(
    shape: &[i32],
    dtype: Dtype,
    src: i32,
    group: impl Into<Option<&'a Group>>,
) -> Result<Array> {
    with_group(group, |group| {
        group.check_other("recv", src)?;
        let group = &group.0;
        array_op!(mlx_distributed_recv, [shape], dtype, src, group)
    })
}

/// Receives what the process `src` sends, which has to be of the shape and type of `x`.
///
/// # Errors
/// When there is no such process, or it is this one.
pub fn recv_like<'a>(x: &Array, src: i32, group: impl Into<Option<&'a Group>>) -> Result<Array> {
    with_group(group, |group| {
        group.check_other("recv_like", src)?;
        let group = &group.0;
        array_op!(mlx_distributed_recv_like, x, src, group)
    })
}
