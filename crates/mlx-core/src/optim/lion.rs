//! Lion: steps of one size in the direction of a running mean's sign (arXiv 2302.06675).

use super::adam::mean;
use super::{Rule, RuleState, Step, check_betas};
use crate::array::Array;
use crate::error::Result;
use crate::ops;

/// Steps by the sign of the gradient's running mean.
///
/// ```
/// use mlx_core::optim::{Lion, Optimizer};
///
/// # fn main() -> mlx_core::Result<()> {
/// let rule = Lion { weight_decay: 0.1, ..Lion::default() };
/// let mut optimizer = Optimizer::new(rule, 1e-3)?;
/// # use mlx_core::{nn::Parameters, ops, Dtype};
/// # let w: Parameters = [("w".to_owned(), ops::ones(&[2, 2], Dtype::Float32)?)].into_iter().collect();
/// # assert!(optimizer.apply_gradients(&w, &w)?["w"].at((0, 0))?.item::<f32>()? < 1.0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lion {
    /// Parts of the running mean that are kept, in the step and in the state.
    pub betas: [f64; 2],
    /// Part of the parameter that a step of rate one takes away.
    pub weight_decay: f64,
}

impl Default for Lion {
    fn default() -> Self {
        Lion { betas: [0.9, 0.99], weight_decay: 0.0 }
    }
}

impl Rule for Lion {
    fn check(&self) -> Result<()> {
        check_betas("lion", self.betas)
    }

    fn init(&self, parameter: &Array) -> Result<RuleState> {
        RuleState::zeros(&["m"], parameter)
    }

    fn apply(&self, step: &Step<'_>, state: &mut RuleState) -> Result<Array> {
        let Step { gradient, parameter, .. } = *step;
        let rate = step.learning_rate(gradient.dtype())?;
        let m = state.take("m")?;
        let direction = mean(m.clone(), self.betas[0], gradient)?.sign()?;
        state.put("m", mean(m, self.betas[1], gradient)?);
        if self.weight_decay > 0.0 {
            let kept = ops::subtract(1.0, rate.multiply(self.weight_decay)?)?;
            return (kept * parameter)? - (rate * direction);
        }
        parameter - (rate * direction)
    }
}
