//! Muon: momentum made orthogonal (github.com/KellerJordan/Muon).

use super::adam::mean;
use super::{Rule, RuleState, Step, check};
use crate::array::Array;
use crate::error::Result;
use crate::ops;

/// Steps along the running mean of the gradient, for matrices after a Newton-Schulz iteration that
/// brings all of its singular values near one.
///
/// ```
/// use mlx_core::optim::{Muon, Optimizer};
///
/// # fn main() -> mlx_core::Result<()> {
/// let rule = Muon { weight_decay: 0.1, ..Muon::default() };
/// let mut optimizer = Optimizer::new(rule, 1e-3)?;
/// # use mlx_core::{nn::Parameters, ops, Dtype};
/// # let w: Parameters = [("w".to_owned(), ops::ones(&[2, 2], Dtype::Float32)?)].into_iter().collect();
/// # assert!(optimizer.apply_gradients(&w, &w)?["w"].at((0, 0))?.item::<f32>()? < 1.0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Muon {
    /// Part of the running mean that is kept.
    pub momentum: f64,
    /// Factor of the parameter that is added to its gradient.
    pub weight_decay: f64,
    /// Looks one step ahead.
    pub nesterov: bool,
    /// Iterations.
    pub ns_steps: usize,
}

impl Default for Muon {
    fn default() -> Self {
        Muon { momentum: 0.95, weight_decay: 0.01, nesterov: true, ns_steps: 5 }
    }
}

impl Rule for Muon {
    fn check(&self) -> Result<()> {
        check("muon", "momentum", self.momentum, !self.momentum.is_nan(), "a number")
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
        let v = mean(state.take("v")?, self.momentum, &gradient)?;
        let update = if self.nesterov {
            gradient.multiply(1.0 - self.momentum)?.add(v.multiply(self.momentum)?)?
        } else {
            v.clone()
        };
        state.put("v", v);
        let rate = step.learning_rate(gradient.dtype())?;
        let &[.., rows, columns] = update.shape() else {
            return parameter - (rate * update);
        };
        let matrix = match update.shape() {
            [_, _] => self.orthogonal(&update)?,
            &[first, ..] => {
                self.orthogonal(&update.reshape([first, -1])?)?.reshape(update.shape())?
            }
            [] => update,
        };
        let rate = rate.multiply((f64::from(rows) / f64::from(columns)).max(1.0).sqrt())?;
        parameter - (rate * matrix)
    }
}

impl Muon {
    /// Brings the singular values of a matrix near one by a polynomial of fifth degree.
    fn orthogonal(&self, x: &Array) -> Result<Array> {
        let (a, b, c) = (3.4445, -4.7750, 2.0315);
        let [rows, columns] = x.dims()?;
        let is_tall = rows > columns;
        let x = if is_tall { x.t()? } else { x.clone() };
        let norm = x.square()?.sum(.., true)?.sqrt()?;
        let mut x = (x / norm.add(1e-7)?)?;
        for _ in 0..self.ns_steps {
            let gram = x.matmul(&x.t()?)?;
            let quintic = ops::addmm(&gram.multiply(b)?, &gram, &gram, c, 1.0)?;
            x = ops::addmm(&x.multiply(a)?, &quintic, &x, 1.0, 1.0)?;
        }
        if is_tall { x.t() } else { Ok(x) }
    }
}
