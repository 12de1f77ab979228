//! Stochastic gradient descent with momentum.

use super::{Rule, RuleState, Step, check};
use crate::array::Array;
use crate::error::{Error, ErrorKind, Result};

/// Steps against the gradient, or against its running sum.
///
/// ```
/// use mlx_core::optim::{Optimizer, Sgd};
///
/// # fn main() -> mlx_core::Result<()> {
/// let rule = Sgd { momentum: 0.9, ..Sgd::default() };
/// let mut optimizer = Optimizer::new(rule, 1e-3)?;
/// # use mlx_core::{nn::Parameters, ops, Dtype};
/// # let w: Parameters = [("w".to_owned(), ops::ones(&[2, 2], Dtype::Float32)?)].into_iter().collect();
/// # assert!(optimizer.apply_gradients(&w, &w)?["w"].at((0, 0))?.item::<f32>()? < 1.0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sgd {
    /// Part of the running sum that is kept; 0 is none.
    pub momentum: f64,
    /// Factor of the parameter that is added to its gradient.
    pub weight_decay: f64,
    /// Part of the gradient that does not enter the running sum.
    pub dampening: f64,
    /// Looks one step ahead; needs momentum and no dampening.
    pub nesterov: bool,
}

impl Rule for Sgd {
    fn check(&self) -> Result<()> {
        check("sgd", "momentum", self.momentum, !self.momentum.is_nan(), "a number")?;
        if self.nesterov && (self.momentum <= 0.0 || self.dampening != 0.0) {
            let text = "sgd: nesterov needs momentum and no dampening";
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
        Ok(())
    }

    fn init(&self, parameter: &Array) -> Result<RuleState> {
        RuleState::zeros(&["v"], parameter)
    }

    fn apply(&self, step: &Step<'_>, state: &mut RuleState) -> Result<Array> {
        let Step { gradient, parameter, .. } = *step;
        let gradient = match self.weight_decay {
            0.0 => gradient.clone(),
            decay => gradient.add(parameter.multiply(decay)?)?,
        };
        let rate = step.learning_rate(gradient.dtype())?;
        if self.momentum <= 0.0 {
            return parameter - (rate * gradient);
        }
        let v = state.take("v")?.multiply(self.momentum)?;
        let v = match self.dampening {
            dampening if dampening > 0.0 => v.add(gradient.multiply(1.0 - dampening)?)?,
            _ => v.add(&gradient)?,
        };
        let update =
            if self.nesterov { gradient.add(v.multiply(self.momentum)?)? } else { v.clone() };
        state.put("v", v);
        parameter - (rate * update)
    }
}
