//! Rates of each weight's own: Adagrad, AdaDelta (arXiv 1212.5701) and RMSprop.

use super::adam::mean;
use super::{Rule, RuleState, Step, check};
use crate::array::Array;
use crate::error::Result;

/// Divides by the root of the sum of all squared gradients.
///
/// ```
/// use mlx_core::optim::{Adagrad, Optimizer};
///
/// # fn main() -> mlx_core::Result<()> {
/// let rule = Adagrad { eps: 1e-6, ..Adagrad::default() };
/// let mut optimizer = Optimizer::new(rule, 1e-3)?;
/// # use mlx_core::{nn::Parameters, ops, Dtype};
/// # let w: Parameters = [("w".to_owned(), ops::ones(&[2, 2], Dtype::Float32)?)].into_iter().collect();
/// # assert!(optimizer.apply_gradients(&w, &w)?["w"].at((0, 0))?.item::<f32>()? < 1.0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adagrad {
    /// Added to the divisor.
    pub eps: f64,
}

impl Default for Adagrad {
    fn default() -> Self {
        Adagrad { eps: 1e-8 }
    }
}

impl Rule for Adagrad {
    fn check(&self) -> Result<()> {
        check("adagrad", "eps", self.eps, self.eps > 0.0, "above 0")
    }

    fn init(&self, parameter: &Array) -> Result<RuleState> {
        RuleState::zeros(&["v"], parameter)
    }

    fn apply(&self, step: &Step<'_>, state: &mut RuleState) -> Result<Array> {
        let Step { gradient, parameter, .. } = *step;
        let rate = step.learning_rate(gradient.dtype())?;
        let v = (state.take("v")? + gradient.square()?)?;
        state.put("v", v.clone());
        parameter - ((rate * gradient)? / v.sqrt()?.add(self.eps)?)
    }
}

/// Divides by the root of the running mean of squared gradients.
///
/// ```
/// use mlx_core::optim::{Optimizer, RmsProp};
///
/// # fn main() -> mlx_core::Result<()> {
/// let rule = RmsProp { alpha: 0.9, ..RmsProp::default() };
/// let mut optimizer = Optimizer::new(rule, 1e-3)?;
/// # use mlx_core::{nn::Parameters, ops, Dtype};
/// # let w: Parameters = [("w".to_owned(), ops::ones(&[2, 2], Dtype::Float32)?)].into_iter().collect();
/// # assert!(optimizer.apply_gradients(&w, &w)?["w"].at((0, 0))?.item::<f32>()? < 1.0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RmsProp {
    /// Part of the running mean that is kept.
    pub alpha: f64,
    /// Added to the divisor.
    pub eps: f64,
}

impl Default for RmsProp {
    fn default() -> Self {
        RmsProp { alpha: 0.99, eps: 1e-8 }
    }
}

impl Rule for RmsProp {
    fn check(&self) -> Result<()> {
        check("rmsprop", "alpha", self.alpha, self.alpha >= 0.0, "at least 0")?;
        check("rmsprop", "eps", self.eps, self.eps > 0.0, "above 0")
    }

    fn init(&self, parameter: &Array) -> Result<RuleState> {
        RuleState::zeros(&["v"], parameter)
    }

    fn apply(&self, step: &Step<'_>, state: &mut RuleState) -> Result<Array> {
        let Step { gradient, parameter, .. } = *step;
        let rate = step.learning_rate(gradient.dtype())?;
        let v = mean(state.take("v")?, self.alpha, &gradient.square()?)?;
        state.put("v", v.clone());
        parameter - ((rate * gradient)? / v.sqrt()?.add(self.eps)?)
    }
}

/// Scales the gradient by running means of squared steps and squared gradients.
///
/// ```
/// use mlx_core::optim::{AdaDelta, Optimizer};
///
/// # fn main() -> mlx_core::Result<()> {
/// let rule = AdaDelta { rho: 0.8, ..AdaDelta::default() };
/// let mut optimizer = Optimizer::new(rule, 1e-3)?;
/// # use mlx_core::{nn::Parameters, ops, Dtype};
/// # let w: Parameters = [("w".to_owned(), ops::ones(&[2, 2], Dtype::Float32)?)].into_iter().collect();
/// # assert!(optimizer.apply_gradients(&w, &w)?["w"].at((0, 0))?.item::<f32>()? < 1.0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaDelta {
    /// Part of the running means that is kept.
    pub rho: f64,
    /// Added under both roots.
    pub eps: f64,
}

impl Default for AdaDelta {
    fn default() -> Self {
        AdaDelta { rho: 0.9, eps: 1e-6 }
    }
}

impl Rule for AdaDelta {
    fn check(&self) -> Result<()> {
        check("adadelta", "rho", self.rho, self.rho >= 0.0, "at least 0")?;
        check("adadelta", "eps", self.eps, self.eps > 0.0, "above 0")
    }

    fn init(&self, parameter: &Array) -> Result<RuleState> {
        RuleState::zeros(&["v", "u"], parameter)
    }

    fn apply(&self, step: &Step<'_>, state: &mut RuleState) -> Result<Array> {
        let Step { gradient, parameter, .. } = *step;
        let rate = step.learning_rate(gradient.dtype())?;
        let v = mean(state.take("v")?, self.rho, &gradient.square()?)?;
        let u = state.take("u")?;
        let ratio = (u.add(self.eps)?.sqrt()? / v.add(self.eps)?.sqrt()?)?;
        let delta = (ratio * gradient)?;
        let u = mean(u, self.rho, &delta.square()?)?;
        state.put("v", v);
        state.put("u", u);
        parameter - (rate * delta)
    }
}
