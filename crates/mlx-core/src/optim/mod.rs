//! Optimizers: from gradients to new parameters.
//!
//! An [`Optimizer`] is a [`Rule`] (what happens to one parameter), a learning rate, and state. All of
//! it is arrays by path, under the names that Python's `mlx.optimizers` has, so that state is saved
//! and resumed like weights. Nothing here computes: evaluate parameters and state after a step.

mod adafactor;
mod adam;
mod adaptive;
mod lion;
mod muon;
mod schedule;
mod sgd;

use std::path::Path;

pub use adafactor::Adafactor;
pub use adam::{Adam, AdamW, Adamax};
pub use adaptive::{AdaDelta, Adagrad, RmsProp};
pub use lion::Lion;
pub use muon::Muon;
pub use schedule::{
    LearningRate, Schedule, cosine_decay, exponential_decay, join_schedules, linear_schedule,
    step_decay,
};
pub use sgd::Sgd;

use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::nn::{Module, Parameters};

/// What an optimizer does to one parameter.
pub trait Rule {
    /// Checks the rule's numbers.
    ///
    /// # Errors
    /// When one is out of its range.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Makes the state of one parameter before the first step.
    ///
    /// # Errors
    /// When memory runs out.
    fn init(&self, parameter: &Array) -> Result<RuleState>;

    /// Returns the new parameter and leaves the new state.
    ///
    /// # Errors
    /// When gradient, parameter and state do not fit.
    fn apply(&self, step: &Step<'_>, state: &mut RuleState) -> Result<Array>;
}

impl Rule for Box<dyn Rule> {
    fn check(&self) -> Result<()> {
        (**self).check()
    }

    fn init(&self, parameter: &Array) -> Result<RuleState> {
        (**self).init(parameter)
    }

    fn apply(&self, step: &Step<'_>, state: &mut RuleState) -> Result<Array> {
        (**self).apply(step, state)
    }
}

/// What a rule keeps of one parameter: arrays by name, such as the moments `m` and `v`.
#[derive(Clone, Debug, Default)]
pub struct RuleState(Vec<(String, Array)>);

impl RuleState {
    /// Makes state that is zeros like the parameter, under each name.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn zeros(names: &[&str], parameter: &Array) -> Result<RuleState> {
        let zeros = |name: &&str| Ok(((*name).to_owned(), parameter.zeros_like()?));
        names.iter().map(zeros).collect::<Result<_>>().map(RuleState)
    }

    /// Takes an array out, so that its memory can be reused for the new one.
    ///
    /// # Errors
    /// When there is none of this name: state of another rule was loaded.
    pub fn take(&mut self, name: &str) -> Result<Array> {
        let position = self.0.iter().position(|(found, _)| found == name).ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, format!("optimizer: no \"{name}\" in the state"))
        })?;
        Ok(self.0.swap_remove(position).1)
    }

    /// Puts an array under a name.
    pub fn put(&mut self, name: &str, array: Array) {
        self.0.push((name.to_owned(), array));
    }
}

/// One step of one parameter.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Steps taken, this one included; 0-d `uint64`.
    pub step: &'a Array,
    /// The parameter before the step.
    pub parameter: &'a Array,
    /// Its gradient, of the same shape.
    pub gradient: &'a Array,
    learning_rate: Option<&'a Array>,
}

impl Step<'_> {
    /// Returns the learning rate in a dtype, as a rule the gradient's.
    ///
    /// # Errors
    /// When there is none.
    pub fn learning_rate(&self, dtype: Dtype) -> Result<Array> {
        match self.learning_rate {
            Some(learning_rate) => learning_rate.astype(dtype),
            None => Err(Error::new(ErrorKind::InvalidArgument, "optimizer: no learning rate")),
        }
    }
}

/// Changes parameters against their gradients, step by step.
///
/// ```
/// use mlx_core::nn::{self, Linear};
/// use mlx_core::optim::{AdamW, Optimizer, cosine_decay};
/// use mlx_core::{Dtype, eval, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let mut model = Linear::new(4, 1, true)?;
/// let rule = AdamW { weight_decay: 0.1, ..AdamW::default() };
/// let mut optimizer = Optimizer::new(rule, cosine_decay(1e-2, 100, 0.0)?)?;
/// let x = ops::ones(&[8, 4], Dtype::Float32)?;
/// for _ in 0..3 {
///     let (loss, gradients) =
///         nn::value_and_grad(&mut model, |model| model.forward(&x)?.square()?.mean(.., false))?;
///     optimizer.update(&mut model, &gradients)?;
///     eval(optimizer.state().values().chain([&loss]))?;
/// }
/// assert_eq!(optimizer.state()["step"].item::<u64>()?, 3);
/// assert!(optimizer.state().contains_key("weight.m"));
/// # Ok(())
/// # }
/// ```
pub struct Optimizer {
    rule: Box<dyn Rule>,
    schedule: Option<Schedule>,
    state: Parameters,
}

const STEP: &str = "step";
const LEARNING_RATE: &str = "learning_rate";

impl Optimizer {
    /// Makes an optimizer; the learning rate is a number, an array or a [`Schedule`].
    ///
    /// # Errors
    /// When a number of the rule is out of its range.
    pub fn new(rule: impl Rule + 'static, rate: impl Into<LearningRate>) -> Result<Optimizer> {
        rule.check()?;
        let step = Array::from(0u64);
        let (rate, schedule) = match rate.into() {
            LearningRate::None => (None, None),
            LearningRate::Constant(rate) => (Some(rate), None),
            LearningRate::Schedule(schedule) => (Some(schedule.at(&step)?), Some(schedule)),
        };
        let mut state = Parameters::default();
        state.insert(STEP.to_owned(), step);
        if let Some(rate) = rate {
            state.insert(LEARNING_RATE.to_owned(), rate);
        }
        Ok(Optimizer { rule: Box::new(rule), schedule, state })
    }

    /// Changes the trainable parameters of `model` that have a gradient.
    ///
    /// # Errors
    /// When a gradient belongs to no parameter or does not fit it; the model is then as it was.
    pub fn update<M: Module + ?Sized>(
        &mut self,
        model: &mut M,
        gradients: &Parameters,
    ) -> Result<()> {
        let parameters = self.apply_gradients(gradients, &model.parameters())?;
        model.update(&parameters)
    }

    /// Returns the new parameters for which there is a gradient.
    ///
    /// # Errors
    /// When a gradient belongs to no parameter or does not fit it.
    pub fn apply_gradients(
        &mut self,
        gradients: &Parameters,
        parameters: &Parameters,
    ) -> Result<Parameters> {
        for (path, gradient) in gradients {
            check_fits(path, gradient, parameters)?;
        }
        let step = self.state.remove(STEP).unwrap_or_else(|| Array::from(0u64));
        if let Some(schedule) = &self.schedule {
            self.state.insert(LEARNING_RATE.to_owned(), schedule.at(&step)?);
        }
        let step = step.add(1)?;
        self.state.insert(STEP.to_owned(), step.clone());
        let learning_rate = self.state.get(LEARNING_RATE).cloned();
        let mut updated = Parameters::default();
        for (path, gradient) in gradients {
            let Some(parameter) = parameters.get(path) else { continue };
            let mut own = self.take_state(path, parameter)?;
            let learning_rate = learning_rate.as_ref();
            let step = Step { step: &step, parameter, gradient, learning_rate };
            let new = self.rule.apply(&step, &mut own).map_err(|e| e.context(path))?;
            updated.insert(path.clone(), new);
            for (name, array) in own.0 {
                self.state.insert(format!("{path}.{name}"), array);
            }
        }
        Ok(updated)
    }

    /// Moves the state of a parameter out; makes it where there is none.
    fn take_state(&mut self, path: &str, parameter: &Array) -> Result<RuleState> {
        let fresh = self.rule.init(parameter)?;
        let mut own = RuleState::default();
        for (name, fresh) in fresh.0 {
            let found = self.state.remove(&format!("{path}.{name}"));
            own.put(&name, found.unwrap_or(fresh));
        }
        Ok(own)
    }

    /// Returns all state by path: `step`, `learning_rate`, and what the rule keeps of each
    /// parameter, such as `layers.0.weight.m`.
    pub fn state(&self) -> &Parameters {
        &self.state
    }

    /// Replaces all state, as [`Optimizer::state`] has it, to go on from there.
    ///
    /// # Errors
    /// When `step` is missing or is no 0-d integer.
    pub fn set_state(&mut self, state: Parameters) -> Result<()> {
        let is_step = |step: &Array| step.ndim() == 0 && step.dtype().is_integer();
        match state.get(STEP) {
            Some(step) if is_step(step) => {
                self.state = state;
                Ok(())
            }
            found => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("optimizer: \"step\" of the state is {found:?}"),
            )),
        }
    }

    /// Writes all state to a safetensors file, which is replaced whole or not at all.
    ///
    /// # Errors
    /// When an array cannot be computed or the file system fails.
    pub fn save_state(&self, path: impl AsRef<Path>) -> Result<()> {
        let arrays = self.state.iter().map(|(name, array)| (name.as_str(), array));
        crate::save_safetensors(path, arrays, &[("format", "mlx")])
    }

    /// Reads all state from a file that [`Optimizer::save_state`] wrote.
    ///
    /// # Errors
    /// When the file is not what the format demands, or holds no state.
    pub fn load_state(&mut self, path: impl AsRef<Path>) -> Result<()> {
        self.set_state(Parameters(crate::load_safetensors(path)?))
    }

    /// Returns the learning rate of the last step, 0-d.
    pub fn learning_rate(&self) -> Option<&Array> {
        self.state.get(LEARNING_RATE)
    }

    /// Sets the learning rate or the schedule from the next step on.
    ///
    /// # Errors
    /// When the schedule fails.
    pub fn set_learning_rate(&mut self, rate: impl Into<LearningRate>) -> Result<()> {
        self.schedule = None;
        match rate.into() {
            LearningRate::None => {
                self.state.remove(LEARNING_RATE);
            }
            LearningRate::Constant(rate) => {
                self.state.insert(LEARNING_RATE.to_owned(), rate);
            }
            LearningRate::Schedule(schedule) => self.schedule = Some(schedule),
        }
        Ok(())
    }
}

fn check_fits(path: &str, gradient: &Array, parameters: &Parameters) -> Result<()> {
    let message = match parameters.get(path) {
        Some(parameter) if parameter.shape() == gradient.shape() => return Ok(()),
        Some(parameter) => format!("gradient {gradient:?} of a parameter {parameter:?}"),
        None => "a gradient of no parameter".to_owned(),
    };
    Err(Error::new(ErrorKind::InvalidArgument, format!("optimizer: {path}: {message}")))
}

/// Tells from a path and a gradient whether an optimizer is responsible.
pub type Filter = dyn Fn(&str, &Array) -> bool;

/// Several optimizers, each for the parameters that its filter accepts first.
///
/// ```
/// use mlx_core::Array;
/// use mlx_core::nn::{self, Linear};
/// use mlx_core::optim::{Adam, Filter, MultiOptimizer, Muon, Optimizer};
///
/// # fn main() -> mlx_core::Result<()> {
/// // Matrices by one rule, all else by another.
/// let matrices: Box<Filter> = Box::new(|_path: &str, gradient: &Array| gradient.ndim() == 2);
/// let muon = Optimizer::new(Muon::default(), 0.02)?;
/// let adam = Optimizer::new(Adam::default(), 1e-3)?;
/// let mut optimizer = MultiOptimizer::new(vec![(matrices, muon)], adam);
///
/// let mut model = Linear::new(4, 2, true)?;
/// let x = mlx_core::ops::ones(&[3, 4], mlx_core::Dtype::Float32)?;
/// let (_loss, gradients) =
///     nn::value_and_grad(&mut model, |model| model.forward(&x)?.square()?.mean(.., false))?;
/// optimizer.update(&mut model, &gradients)?;
/// # Ok(())
/// # }
/// ```
pub struct MultiOptimizer {
    optimizers: Vec<(Box<Filter>, Optimizer)>,
    rest: Optimizer,
}

impl MultiOptimizer {
    /// Makes it from optimizers with their filters, asked in order, and one for all the rest.
    pub fn new(optimizers: Vec<(Box<Filter>, Optimizer)>, rest: Optimizer) -> MultiOptimizer {
        MultiOptimizer { optimizers, rest }
    }

    /// Changes the trainable parameters of `model` that have a gradient.
    ///
    /// # Errors
    /// As [`Optimizer::update`].
    pub fn update<M: Module + ?Sized>(
        &mut self,
        model: &mut M,
        gradients: &Parameters,
    ) -> Result<()> {
        let parameters = self.apply_gradients(gradients, &model.parameters())?;
        model.update(&parameters)
    }

    /// Returns the new parameters for which there is a gradient.
    ///
    /// # Errors
    /// As [`Optimizer::apply_gradients`].
    pub fn apply_gradients(
        &mut self,
        gradients: &Parameters,
        parameters: &Parameters,
    ) -> Result<Parameters> {
        let mut parts = vec![Parameters::default(); self.optimizers.len() + 1];
        for (path, gradient) in gradients {
            check_fits(path, gradient, parameters)?;
            let responsible =
                self.optimizers.iter().position(|(accepts, _)| accepts(path, gradient));
            let part = &mut parts[responsible.unwrap_or(self.optimizers.len())];
            part.insert(path.clone(), gradient.clone());
        }
        let mut updated = Parameters::default();
        for (optimizer, part) in self.each_mut().zip(parts) {
            updated.extend(optimizer.apply_gradients(&part, parameters)?);
        }
        Ok(updated)
    }

    fn each_mut(&mut self) -> impl Iterator<Item = &mut Optimizer> {
        self.optimizers.iter_mut().map(|(_, optimizer)| optimizer).chain([&mut self.rest])
    }

    /// Returns the state of all, that of optimizer `i` below `states.i`.
    pub fn state(&self) -> Parameters {
        let each = self.optimizers.iter().map(|(_, optimizer)| optimizer).chain([&self.rest]);
        let states = each.enumerate().flat_map(|(i, optimizer)| {
            let named = move |(name, array): (&String, &Array)| {
                (format!("states.{i}.{name}"), array.clone())
            };
            optimizer.state().iter().map(named)
        });
        states.collect()
    }

    /// Replaces the state of all, as [`MultiOptimizer::state`] has it.
    ///
    /// # Errors
    /// When there is not exactly a state for each.
    pub fn set_state(&mut self, state: Parameters) -> Result<()> {
        let n = self.optimizers.len() + 1;
        let mut parts = vec![Parameters::default(); n];
        for (name, array) in state {
            let own = name.strip_prefix("states.").and_then(|name| name.split_once('.'));
            let part =
                own.and_then(|(i, name)| Some((parts.get_mut(i.parse::<usize>().ok()?)?, name)));
            let Some((part, own)) = part else {
                let text = format!("optimizer: \"{name}\" is state of none of {n}");
                return Err(Error::new(ErrorKind::InvalidArgument, text));
            };
            part.insert(own.to_owned(), array);
        }
        self.each_mut().zip(parts).try_for_each(|(optimizer, part)| optimizer.set_state(part))
    }
}

/// Scales gradients down so that their joint norm is at most `max_norm`; returns them and the norm
/// before, 0-d.
///
/// # Errors
/// When `max_norm` is negative.
///
/// ```
/// use mlx_core::Array;
/// use mlx_core::nn::Parameters;
/// use mlx_core::optim::clip_grad_norm;
///
/// # fn main() -> mlx_core::Result<()> {
/// let gradient = Array::from_slice(&[3.0f32, 4.0], &[2])?;
/// let gradients: Parameters = [("w".to_owned(), gradient)].into_iter().collect();
/// let (clipped, norm) = clip_grad_norm(&gradients, 1.0)?;
/// assert_eq!(norm.item::<f32>()?, 5.0);
/// assert!((clipped["w"].at(0)?.item::<f32>()? - 0.6).abs() < 1e-4);
/// # Ok(())
/// # }
/// ```
pub fn clip_grad_norm(gradients: &Parameters, max_norm: f64) -> Result<(Parameters, Array)> {
    if max_norm.is_nan() || max_norm < 0.0 {
        let text = format!("clip_grad_norm: max_norm is {max_norm}");
        return Err(Error::new(ErrorKind::InvalidArgument, text));
    }
    let norm_squared = gradients
        .values()
        .try_fold(Array::from(0.0f32), |sum, gradient| sum + gradient.square()?.sum(.., false))?;
    let norm = norm_squared.sqrt()?;
    let factor = crate::ops::divide(max_norm, norm.add(1e-6)?)?.minimum(1.0)?;
    let clipped = gradients.map(|_, gradient| gradient * &factor)?;
    Ok((clipped, norm))
}

/// Fails where a rule's number is out of its range.
fn check(rule: &str, name: &str, number: f64, is_in_range: bool, range: &str) -> Result<()> {
    if is_in_range {
        return Ok(());
    }
    let text = format!("{rule}: {name} is {number}, which is not {range}");
    Err(Error::new(ErrorKind::InvalidArgument, text))
}

/// Checks the decay rates of running averages.
fn check_betas(rule: &str, betas: [f64; 2]) -> Result<()> {
    let range = "in 0..1";
    betas.iter().try_for_each(|&beta| check(rule, "beta", beta, (0.0..1.0).contains(&beta), range))
}
