//! Adafactor: squared gradients kept as a row and a column (arXiv 1804.04235).

use super::adam::mean;
use super::{Rule, RuleState, Step, check};
use crate::array::Array;
use crate::error::Result;
use crate::ops;

/// Adam's divisor from factored means, with a learning rate relative to the parameter's size.
///
/// ```
/// use mlx_core::optim::{Adafactor, LearningRate, Optimizer};
///
/// # fn main() -> mlx_core::Result<()> {
/// let optimizer = Optimizer::new(Adafactor::default(), LearningRate::None)?; // its own rate
/// # let _ = optimizer;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adafactor {
    /// Added to squared gradients, and the least size of a parameter.
    pub eps: [f64; 2],
    /// Greatest root mean square of a step of rate one.
    pub clip_threshold: f64,
    /// Exponent by which the means forget less with every step.
    pub decay_rate: f64,
    /// Part of the running mean of steps that is kept; `None` keeps no mean.
    pub beta_1: Option<f64>,
    /// Part of the parameter that a step of rate one takes away.
    pub weight_decay: f64,
    /// Makes the learning rate relative to the parameter's root mean square.
    pub scale_parameter: bool,
    /// Takes the learning rate from the number of steps instead of the optimizer's.
    pub relative_step: bool,
    /// Lets that learning rate grow from nearly nothing.
    pub warmup_init: bool,
}

impl Default for Adafactor {
    fn default() -> Self {
        Adafactor {
            eps: [1e-30, 1e-3],
            clip_threshold: 1.0,
            decay_rate: -0.8,
            beta_1: None,
            weight_decay: 0.0,
            scale_parameter: true,
            relative_step: true,
            warmup_init: false,
        }
    }
}

impl Rule for Adafactor {
    fn check(&self) -> Result<()> {
        let clip = self.clip_threshold;
        check("adafactor", "clip_threshold", clip, clip > 0.0, "above 0")
    }

    fn init(&self, parameter: &Array) -> Result<RuleState> {
        let mut state = match parameter.shape() {
            [lead @ .., rows, columns] => {
                let zeros = |last: i32| ops::zeros(&[lead, &[last]].concat(), parameter.dtype());
                let mut state = RuleState::default();
                state.put("exp_avg_sq_row", zeros(*rows)?);
                state.put("exp_avg_sq_col", zeros(*columns)?);
                state
            }
            _ => RuleState::zeros(&["exp_avg_sq"], parameter)?,
        };
        if self.beta_1.is_some() {
            state.put("exp_avg", parameter.zeros_like()?);
        }
        Ok(state)
    }

    fn apply(&self, step: &Step<'_>, state: &mut RuleState) -> Result<Array> {
        let Step { gradient, parameter, .. } = *step;
        let parameter_rms = root_mean_square(parameter)?;
        let rate = self.rate(step, &parameter_rms)?;
        let kept = step.step.power(self.decay_rate)?.astype(parameter_rms.dtype())?;
        let squared = gradient.square()?.add(self.eps[0])?;
        let scale = inverse_root(&ops::subtract(1.0, kept)?, &squared, state)?;

        let update = (scale * gradient)?;
        let excess = root_mean_square(&update)?.divide(self.clip_threshold)?;
        let mut update = (&rate * (update / excess.maximum(1.0)?))?;
        if let Some(beta_1) = self.beta_1 {
            update = mean(state.take("exp_avg")?, beta_1, &update)?;
            state.put("exp_avg", update.clone());
        }
        if self.weight_decay != 0.0 {
            let decay = (parameter * rate.multiply(-self.weight_decay)?)?;
            return parameter.add(decay)? - update;
        }
        parameter - update
    }
}

impl Adafactor {
    fn rate(&self, step: &Step<'_>, parameter_rms: &Array) -> Result<Array> {
        let dtype = parameter_rms.dtype();
        let rate = if self.relative_step {
            let root = step.step.rsqrt()?;
            let rate = match self.warmup_init {
                true => step.step.multiply(1e-6)?.minimum(root)?,
                false => root.minimum(1e-2)?,
            };
            rate.astype(dtype)?
        } else {
            step.learning_rate(dtype)?
        };
        if self.scale_parameter { parameter_rms.maximum(self.eps[1])? * rate } else { Ok(rate) }
    }
}

fn root_mean_square(x: &Array) -> Result<Array> {
    x.square()?.mean(.., false)?.sqrt()
}

/// Takes squared gradients into the running means and returns one divided by the root of their
/// product: of a row's and a column's where there are such, as if these made up the matrix.
fn inverse_root(beta_2: &Array, squared: &Array, state: &mut RuleState) -> Result<Array> {
    let forgotten = ops::subtract(1.0, beta_2)?;
    let mean = |old: Array, value: &Array| (beta_2 * old)? + (&forgotten * value);
    if squared.ndim() < 2 {
        let all = mean(state.take("exp_avg_sq")?, squared)?;
        state.put("exp_avg_sq", all.clone());
        return all.rsqrt();
    }
    let row = mean(state.take("exp_avg_sq_row")?, &squared.mean(-1, false)?)?;
    let col = mean(state.take("exp_avg_sq_col")?, &squared.mean(-2, false)?)?;
    state.put("exp_avg_sq_row", row.clone());
    state.put("exp_avg_sq_col", col.clone());
    let row = (&row / row.mean(-1, true)?)?.rsqrt()?;
    row.expand_dims(&[-1])? * col.rsqrt()?.expand_dims(&[-2])?
}
