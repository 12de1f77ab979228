//! Fits a function with a small network and AdamW.
//!
//! ```text
//! cargo run -p mlx-core --example mlp
//! ```

use std::io::Write as _;

use mlx_core::nn::{self, Linear, Module};
use mlx_core::optim::{AdamW, Optimizer, cosine_decay};
use mlx_core::{Array, Dtype, Result, eval, random};

struct Mlp {
    layers: Vec<Linear>,
}

mlx_core::module! { Mlp { layers } }

impl Mlp {
    fn new(dims: &[i32]) -> Result<Mlp> {
        let layers = dims.windows(2).map(|pair| Linear::new(pair[0], pair[1], true));
        Ok(Mlp { layers: layers.collect::<Result<_>>()? })
    }

    fn forward(&self, x: &Array) -> Result<Array> {
        let (last, hidden) = self.layers.split_last().expect("a layer");
        let x = hidden.iter().try_fold(x.clone(), |x, layer| layer.forward(&x)?.tanh())?;
        last.forward(&x)
    }
}

/// What the network is to learn, on -2.2..2.2.
fn target(x: &Array) -> Result<Array> {
    (x * 3.0)?.sin()? * x
}

fn main() -> Result<()> {
    const STEPS: u32 = 600;
    random::seed(0)?;
    let mut model = Mlp::new(&[1, 64, 64, 1])?;
    let rule = AdamW { weight_decay: 1e-4, ..AdamW::default() };
    let mut optimizer = Optimizer::new(rule, cosine_decay(1e-2, STEPS, 0.0)?)?;
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{} parameters", model.n_parameters());

    for step in 1..=STEPS {
        let x = random::uniform(-2.2, 2.2, &[128, 1], Dtype::Float32, None)?;
        let noise = random::normal(&[128, 1], Dtype::Float32, 0.0, 0.05, None)?;
        let y = (target(&x)? + noise)?;
        let (loss, gradients) = nn::value_and_grad(&mut model, |model| {
            (model.forward(&x)? - &y)?.square()?.mean(.., false)
        })?;
        optimizer.update(&mut model, &gradients)?;
        let parameters = model.parameters();
        eval(parameters.values().chain(optimizer.state().values()).chain([&loss]))?;
        if step == 1 || step % 100 == 0 {
            let _ = writeln!(out, "step {step:3}  loss {:.4}", loss.item::<f32>()?);
        }
    }

    let x = mlx_core::ops::linspace(-2.0, 2.0, 9, Dtype::Float32)?.reshape([9, 1])?;
    let (fitted, exact) = (model.forward(&x)?, target(&x)?);
    let _ = writeln!(out, "    x   fitted    exact");
    for ((x, fitted), exact) in
        x.to_vec::<f32>()?.iter().zip(fitted.to_vec::<f32>()?).zip(exact.to_vec::<f32>()?)
    {
        let _ = writeln!(out, "{x:5.1}  {fitted:7.3}  {exact:7.3}");
    }
    let error = (fitted - exact)?.abs()?.max(.., false)?.item::<f32>()?;
    let _ = writeln!(out, "largest error {error:.3}");
    Ok(())
}
