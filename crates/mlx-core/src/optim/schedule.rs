//! Learning rates that change with the step.

use std::f64::consts::PI;
use std::fmt;
use std::rc::Rc;

use crate::array::Array;
use crate::error::{Error, ErrorKind, Result};
use crate::ops;

/// A learning rate as a function of the number of steps taken, a 0-d `uint64`.
///
/// ```
/// use mlx_core::optim::{cosine_decay, join_schedules, linear_schedule};
///
/// # fn main() -> mlx_core::Result<()> {
/// let warmup = linear_schedule(0.0, 1e-3, 10)?;
/// let schedule = join_schedules(vec![warmup, cosine_decay(1e-3, 90, 0.0)?], &[10])?;
/// let rate = |step: u64| schedule.at(&step.into())?.item::<f32>();
/// assert_eq!((rate(0)?, rate(10)?), (0.0, 1e-3));
/// assert!(rate(55)? < 0.6e-3 && rate(100)? < 1e-9);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Schedule(Rc<ScheduleFn>);

type ScheduleFn = dyn Fn(&Array) -> Result<Array>;

impl Schedule {
    /// Makes a schedule from a function of the step.
    pub fn new(f: impl Fn(&Array) -> Result<Array> + 'static) -> Schedule {
        Schedule(Rc::new(f))
    }

    /// Returns the learning rate at a step, 0-d.
    ///
    /// # Errors
    /// Those of the function.
    pub fn at(&self, step: &Array) -> Result<Array> {
        (self.0)(step)
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Schedule")
    }
}

/// A learning rate for an optimizer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LearningRate {
    /// None, for a rule with a rate of its own.
    None,
    /// The same for every step, 0-d.
    Constant(Array),
    /// One that changes.
    Schedule(Schedule),
}

impl From<f32> for LearningRate {
    fn from(rate: f32) -> Self {
        LearningRate::Constant(Array::from(rate))
    }
}

impl From<Array> for LearningRate {
    fn from(rate: Array) -> Self {
        LearningRate::Constant(rate)
    }
}

impl From<Schedule> for LearningRate {
    fn from(schedule: Schedule) -> Self {
        LearningRate::Schedule(schedule)
    }
}

/// Multiplies by `decay_rate` in every step.
pub fn exponential_decay(init: f64, decay_rate: f64) -> Schedule {
    Schedule::new(move |step| ops::power(decay_rate, step)?.multiply(init))
}

/// Multiplies by `decay_rate` after every `step_size` steps.
///
/// # Errors
/// When `step_size` is 0.
pub fn step_decay(init: f64, decay_rate: f64, step_size: u32) -> Result<Schedule> {
    check("step_decay", step_size)?;
    Ok(Schedule::new(move |step| {
        let n = step.floor_divide(i64::from(step_size))?;
        ops::power(decay_rate, n)?.multiply(init)
    }))
}

/// Falls from `init` to `end` along half a cosine of `decay_steps` steps, and stays there.
///
/// # Errors
/// When `decay_steps` is 0.
pub fn cosine_decay(init: f64, decay_steps: u32, end: f64) -> Result<Schedule> {
    check("cosine_decay", decay_steps)?;
    Ok(Schedule::new(move |step| {
        let angle = step.minimum(i64::from(decay_steps))?.multiply(PI / f64::from(decay_steps))?;
        angle.cos()?.add(1.0)?.multiply(0.5)?.multiply(init - end)?.add(end)
    }))
}

/// Goes from `init` to `end` in equal steps, and stays there.
///
/// # Errors
/// When `steps` is 0.
pub fn linear_schedule(init: f64, end: f64, steps: u32) -> Result<Schedule> {
    check("linear_schedule", steps)?;
    let slope = (end - init) / f64::from(steps);
    Ok(Schedule::new(move |step| step.minimum(i64::from(steps))?.multiply(slope)?.add(init)))
}

/// Follows one schedule after the other; each begins with its own step 0 at its boundary.
///
/// # Errors
/// When there is not exactly one schedule more than boundaries.
pub fn join_schedules(schedules: Vec<Schedule>, boundaries: &[u32]) -> Result<Schedule> {
    let (n, n_boundaries) = (schedules.len(), boundaries.len());
    let mut schedules = schedules.into_iter();
    let (Some(first), true) = (schedules.next(), n == n_boundaries + 1) else {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("join_schedules: {n} schedules and {n_boundaries} boundaries"),
        ));
    };
    let rest: Vec<(i64, Schedule)> =
        boundaries.iter().copied().map(i64::from).zip(schedules).collect();
    Ok(Schedule::new(move |step| {
        rest.iter().try_fold(first.at(step)?, |rate, (boundary, schedule)| {
            let next = schedule.at(&step.subtract(*boundary)?)?;
            ops::where_(&step.less(*boundary)?, rate, next)
        })
    }))
}

fn check(name: &str, steps: u32) -> Result<()> {
    if steps > 0 {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidArgument, format!("{name}: over 0 steps")))
}
