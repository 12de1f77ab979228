//! Adam and its relatives (arXiv 1412.6980, 1711.05101).

use super::{Rule, RuleState, Step, check, check_betas};
use crate::array::Array;
use crate::error::Result;
use crate::ops;

/// Steps along the running mean of the gradient, divided by the root of that of its square.
///
/// ```
/// use mlx_core::optim::{Adam, Optimizer};
///
/// # fn main() -> mlx_core::Result<()> {
/// let rule = Adam { bias_correction: true, ..Adam::default() };
/// let mut optimizer = Optimizer::new(rule, 1e-3)?;
/// # use mlx_core::{nn::Parameters, ops, Dtype};
/// # let w: Parameters = [("w".to_owned(), ops::ones(&[2, 2], Dtype::Float32)?)].into_iter().collect();
/// # assert!(optimizer.apply_gradients(&w, &w)?["w"].at((0, 0))?.item::<f32>()? < 1.0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// Parts of the running means that are kept.
    pub betas: [f64; 2],
    /// Added to the divisor.
    pub eps: f64,
    /// Corrects the means for their start at zero; off by default, as in Python MLX.
    pub bias_correction: bool,
}

impl Default for Adam {
    fn default() -> Self {
        Adam { betas: [0.9, 0.999], eps: 1e-8, bias_correction: false }
    }
}

impl Rule for Adam {
    fn check(&self) -> Result<()> {
        check_betas("adam", self.betas)?;
        check("adam", "eps", self.eps, self.eps >= 0.0, "at least 0")
    }

    fn init(&self, parameter: &Array) -> Result<RuleState> {
        RuleState::zeros(&["m", "v"], parameter)
    }

    fn apply(&self, step: &Step<'_>, state: &mut RuleState) -> Result<Array> {
        let Step { gradient, parameter, .. } = *step;
        let dtype = gradient.dtype();
        let rate = step.learning_rate(dtype)?;
        let [b1, b2] = self.betas;
        let m = mean(state.take("m")?, b1, gradient)?;
        let v = mean(state.take("v")?, b2, &gradient.square()?)?;
        state.put("m", m.clone());
        state.put("v", v.clone());
        if !self.bias_correction {
            return parameter - ((rate * m)? / v.sqrt()?.add(self.eps)?);
        }
        let remainder = |beta: f64| ops::subtract(1.0, ops::power(beta, step.step)?);
        let c1 = (rate / remainder(b1)?)?.astype(dtype)?;
        let c2 = remainder(b2)?.rsqrt()?.astype(dtype)?;
        parameter - ((c1 * m)? / (v.sqrt()? * c2)?.add(self.eps)?)
    }
}

/// Returns the running mean after one more value.
pub(super) fn mean(old: Array, beta: f64, value: &Array) -> Result<Array> {
    old.multiply(beta)? + value.multiply(1.0 - beta)?
}

/// [`Adam`] with weight decay apart from the gradient.
///
/// ```
/// use mlx_core::optim::{AdamW, Optimizer};
///
/// # fn main() -> mlx_core::Result<()> {
/// let rule = AdamW { weight_decay: 0.1, ..AdamW::default() };
/// let mut optimizer = Optimizer::new(rule, 1e-3)?;
/// # use mlx_core::{nn::Parameters, ops, Dtype};
/// # let w: Parameters = [("w".to_owned(), ops::ones(&[2, 2], Dtype::Float32)?)].into_iter().collect();
/// # assert!(optimizer.apply_gradients(&w, &w)?["w"].at((0, 0))?.item::<f32>()? < 1.0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Parts of the running means that are kept.
    pub betas: [f64; 2],
    /// Added to the divisor.
    pub eps: f64,
    /// Part of the parameter that a step of rate one takes away.
    pub weight_decay: f64,
    /// Corrects the means for their start at zero; off by default, as in Python MLX.
    pub bias_correction: bool,
}

impl Default for AdamW {
    fn default() -> Self {
        let Adam { betas, eps, bias_correction } = Adam::default();
        AdamW { betas, eps, weight_decay: 0.01, bias_correction }
    }
}

impl AdamW {
    fn adam(&self) -> Adam {
        let AdamW { betas, eps, bias_correction, .. } = *self;
        Adam { betas, eps, bias_correction }
    }
}

impl Rule for AdamW {
    fn check(&self) -> Result<()> {
        self.adam().check()
    }

    fn init(&self, parameter: &Array) -> Result<RuleState> {
        self.adam().init(parameter)
    }

    fn apply(&self, step: &Step<'_>, state: &mut RuleState) -> Result<Array> {
        let Step { gradient, parameter, .. } = *step;
        let rate = step.learning_rate(gradient.dtype())?;
        let kept = ops::subtract(1.0, rate.multiply(self.weight_decay)?)?;
        self.adam().apply(&Step { parameter: &(parameter * kept)?, ..*step }, state)
    }
}

/// [`Adam`] divided by the running maximum of the gradient's magnitude.
///
/// ```
/// use mlx_core::optim::{Adamax, Optimizer};
///
/// # fn main() -> mlx_core::Result<()> {
/// let rule = Adamax { betas: [0.9, 0.99], ..Adamax::default() };
/// let mut optimizer = Optimizer::new(rule, 1e-3)?;
/// # use mlx_core::{nn::Parameters, ops, Dtype};
/// # let w: Parameters = [("w".to_owned(), ops::ones(&[2, 2], Dtype::Float32)?)].into_iter().collect();
/// # assert!(optimizer.apply_gradients(&w, &w)?["w"].at((0, 0))?.item::<f32>()? < 1.0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adamax {
    /// Parts of the running mean and maximum that are kept.
    pub betas: [f64; 2],
    /// Added to the divisor.
    pub eps: f64,
}

impl Default for Adamax {
    fn default() -> Self {
        Adamax { betas: [0.9, 0.999], eps: 1e-8 }
    }
}

impl Rule for Adamax {
    fn check(&self) -> Result<()> {
        check_betas("adamax", self.betas)?;
        check("adamax", "eps", self.eps, self.eps >= 0.0, "at least 0")
    }

    fn init(&self, parameter: &Array) -> Result<RuleState> {
        RuleState::zeros(&["m", "v"], parameter)
    }

    fn apply(&self, step: &Step<'_>, state: &mut RuleState) -> Result<Array> {
        let Step { gradient, parameter, .. } = *step;
        let rate = step.learning_rate(gradient.dtype())?;
        let [b1, b2] = self.betas;
        let m = mean(state.take("m")?, b1, gradient)?;
        let v = state.take("v")?.multiply(b2)?.maximum(gradient.abs()?)?;
        state.put("m", m.clone());
        state.put("v", v.clone());
        parameter - ((rate * m)? / v.add(self.eps)?)
    }
}
