//! Training: losses, optimizers, schedules, and a whole loop.
//!
//! Losses are functions of [`nn::losses`](crate::nn::losses). Python's default reduction is
//! another for each; here [`Reduction`](crate::nn::losses::Reduction) is an argument, or a field of
//! options whose default is Python's.
//!
//! ```python
//! logits, targets = mx.array([[2.0, 0.0], [0.0, 1.0]]), mx.array([0, 1])
//! nn.losses.cross_entropy(logits, targets, reduction="mean")  # array(0.220095, dtype=float32)
//! nn.losses.mse_loss(mx.array([1.0, 2.0]), mx.array([1.0, 4.0]))  # array(2, dtype=float32)
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::Array;
//! use mlx_core::nn::losses::{self, CrossEntropyOptions, Reduction};
//!
//! let logits = Array::from_slice(&[2.0f32, 0.0, 0.0, 1.0], &[2, 2])?;
//! let targets = Array::from_slice(&[0, 1], &[2])?;
//! let options = CrossEntropyOptions { reduction: Reduction::Mean, ..Default::default() };
//! let loss = losses::cross_entropy(&logits, &targets, options)?;
//! assert_eq!(loss.to_string(), "array(0.220095, dtype=float32)");
//!
//! let predicted = Array::from_slice(&[1.0f32, 2.0], &[2])?;
//! let wanted = Array::from_slice(&[1.0f32, 4.0], &[2])?;
//! assert_eq!(losses::mse_loss(&predicted, &wanted, Reduction::Mean)?.item::<f32>()?, 2.0);
//! # Ok(())
//! # }
//! ```
//!
//! An optimizer is a rule, a struct with Python's keywords and defaults, and a learning rate, a number
//! or a [`Schedule`](crate::optim::Schedule).
//!
//! ```python
//! warmup = optim.linear_schedule(0.0, 1e-2, steps=10)
//! schedule = optim.join_schedules([warmup, optim.cosine_decay(1e-2, 90)], [10])
//! schedule(mx.array(5))  # array(0.005, dtype=float32)
//! optimizer = optim.AdamW(learning_rate=schedule, weight_decay=0.1)
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::optim::{AdamW, Optimizer, cosine_decay, join_schedules, linear_schedule};
//!
//! let warmup = linear_schedule(0.0, 1e-2, 10)?;
//! let schedule = join_schedules(vec![warmup, cosine_decay(1e-2, 90, 0.0)?], &[10])?;
//! assert_eq!(schedule.at(&5u64.into())?.to_string(), "array(0.005, dtype=float32)");
//! let rule = AdamW { weight_decay: 0.1, ..AdamW::default() };
//! let optimizer = Optimizer::new(rule, schedule)?;
//! assert_eq!(optimizer.state()["learning_rate"].item::<f32>()?, 0.0);
//! # Ok(())
//! # }
//! ```
//!
//! The loop: [`nn::value_and_grad`](crate::nn::value_and_grad) differentiates a closure by what is
//! trainable, `update` makes the step, and `eval` computes both model and optimizer. After the same
//! seed it takes the same steps as Python.
//!
//! ```python
//! mx.random.seed(0)
//! model = nn.Linear(2, 1)
//! optimizer = optim.Adam(learning_rate=0.1)
//! x = mx.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
//! y = mx.array([[1.0], [2.0], [3.0]])
//!
//! def loss_fn(model, x, y):
//!     return nn.losses.mse_loss(model(x), y)
//!
//! step = nn.value_and_grad(model, loss_fn)
//! for _ in range(100):
//!     loss, gradients = step(model, x, y)
//!     gradients, norm = optim.clip_grad_norm(gradients, 1.0)
//!     optimizer.update(model, gradients)
//!     mx.eval(model.parameters(), optimizer.state, loss)
//! loss.item() < 1e-3  # True
//! ```
//!
//! ```
//! # fn main() -> mlx_core::Result<()> {
//! use mlx_core::nn::losses::{Reduction, mse_loss};
//! use mlx_core::nn::{self, Linear, Module};
//! use mlx_core::optim::{Adam, Optimizer, clip_grad_norm};
//! use mlx_core::{Array, eval, random};
//!
//! random::seed(0)?;
//! let mut model = Linear::new(2, 1, true)?;
//! let mut optimizer = Optimizer::new(Adam::default(), 0.1)?;
//! let x = Array::from_slice(&[0.0f32, 1.0, 1.0, 0.0, 1.0, 1.0], &[3, 2])?;
//! let y = Array::from_slice(&[1.0f32, 2.0, 3.0], &[3, 1])?;
//!
//! let mut last = f32::INFINITY;
//! for _ in 0..100 {
//!     let (loss, gradients) = nn::value_and_grad(&mut model, |model| {
//!         mse_loss(&model.forward(&x)?, &y, Reduction::Mean)
//!     })?;
//!     let (gradients, _norm) = clip_grad_norm(&gradients, 1.0)?;
//!     optimizer.update(&mut model, &gradients)?;
//!     eval(model.parameters().values().chain(optimizer.state().values()).chain([&loss]))?;
//!     last = loss.item()?;
//! }
//! assert!(last < 1e-3, "{last}");
//! # Ok(())
//! # }
//! ```
//!
//! [`save_state`](crate::optim::Optimizer::save_state) and `load_state` put an optimizer's state beside
//! the weights. `cargo run -p mlx-core --example mlp` is a network with two hidden layers.
