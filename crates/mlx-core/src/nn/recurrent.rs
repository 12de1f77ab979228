//! Recurrent layers.
//!
//! The input's part of every step is one product over the whole sequence; the steps add that of
//! the state, which is `None` at the start and then counts as zero.

use super::{Activation, Param, make};
use crate::array::Array;
use crate::error::{Error, ErrorKind, Result};
use crate::ops::{self, addmm};

/// An Elman layer: `h ← tanh(Wxh × x + Whh × h + b)`.
///
/// ```
/// use mlx_core::nn::Rnn;
/// use mlx_core::{Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let x = ops::ones(&[2, 5, 4], Dtype::Float32)?; // [B, L, E]
/// assert_eq!(Rnn::new(4, 8, true)?.forward(&x, None)?.shape(), [2, 5, 8]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Rnn {
    /// `[H, D]`; its key is `Wxh`
    pub wxh: Param,
    /// `[H, H]`; its key is `Whh`
    pub whh: Param,
    /// `[H]`
    pub bias: Option<Param>,
    /// In place of the hyperbolic tangent.
    pub nonlinearity: Activation,
}

/// A gated recurrent unit (arXiv 1406.1078), with the reset gate on the state's product.
///
/// ```
/// use mlx_core::nn::Gru;
/// use mlx_core::{Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let x = ops::ones(&[2, 5, 4], Dtype::Float32)?; // [B, L, E]
/// assert_eq!(Gru::new(4, 8, true)?.forward(&x, None)?.shape(), [2, 5, 8]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Gru {
    /// `[3 * H, D]`: reset gate, update gate, new state; its key is `Wx`
    pub wx: Param,
    /// `[3 * H, H]`; its key is `Wh`
    pub wh: Param,
    /// `[3 * H]`
    pub b: Option<Param>,
    /// `[H]`: bias of the state's part of the new state
    pub bhn: Option<Param>,
}

/// A long short-term memory (Neural Computation 9, 1997).
///
/// ```
/// use mlx_core::nn::Lstm;
/// use mlx_core::{Dtype, ops};
///
/// # fn main() -> mlx_core::Result<()> {
/// let x = ops::ones(&[2, 5, 4], Dtype::Float32)?; // [B, L, E]
/// let states = Lstm::new(4, 8, true)?.forward(&x, None)?;
/// assert_eq!((states.hidden.shape(), states.cell.shape()), (&[2, 5, 8][..], &[2, 5, 8][..]));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Lstm {
    /// `[4 * H, D]`: input gate, forget gate, new cell, output gate; its key is `Wx`
    pub wx: Param,
    /// `[4 * H, H]`; its key is `Wh`
    pub wh: Param,
    /// `[4 * H]`
    pub bias: Option<Param>,
}

crate::module! {
    Rnn { "Wxh" => wxh, "Whh" => whh, bias }
    Gru { "Wx" => wx, "Wh" => wh, b, bhn }
    Lstm { "Wx" => wx, "Wh" => wh, bias }
}

/// What an [`Lstm`] carries from step to step, or has carried at every step.
#[derive(Clone, Debug)]
pub struct LstmState {
    /// `[…, H]`
    pub hidden: Array,
    /// `[…, H]`
    pub cell: Array,
}

impl Rnn {
    /// Makes a layer with parameters spread evenly over `±1 / √hidden_size`, in float32, out of
    /// this thread's key sequence.
    ///
    /// # Errors
    /// When a size is not positive.
    pub fn new(input_size: i32, hidden_size: i32, bias: bool) -> Result<Rnn> {
        let param = parameters("rnn", input_size, hidden_size, 1)?;
        Ok(Rnn {
            wxh: param(&[hidden_size, input_size])?,
            whh: param(&[hidden_size, hidden_size])?,
            bias: if bias { Some(param(&[hidden_size])?) } else { None },
            nonlinearity: Activation::new(Array::tanh),
        })
    }

    /// Returns the state after each step.
    ///
    /// # Shape
    /// `x: [N, L, D]` or `[L, D]`, `hidden: [N, H]` or `[H]` → `[N, L, H]` or `[L, H]`
    ///
    /// # Errors
    /// When the shapes do not fit or the sequence is empty.
    pub fn forward(&self, x: &Array, hidden: Option<&Array>) -> Result<Array> {
        let steps = steps("rnn", &project(x, &self.wxh, self.bias.as_ref())?)?;
        let whh = self.whh.t()?;
        let mut hidden = hidden.cloned();
        let mut all = Vec::with_capacity(steps.len());
        for x in steps {
            let sum = match &hidden {
                Some(hidden) => addmm(&x, hidden, &whh, 1.0, 1.0)?,
                None => x,
            };
            let next = self.nonlinearity.forward(&sum)?;
            all.push(next.clone());
            hidden = Some(next);
        }
        ops::stack(&all, -2)
    }
}

impl Gru {
    /// Makes a layer with parameters spread evenly over `±1 / √hidden_size`, in float32, out of
    /// this thread's key sequence.
    ///
    /// # Errors
    /// When a size is not positive.
    pub fn new(input_size: i32, hidden_size: i32, bias: bool) -> Result<Gru> {
        let param = parameters("gru", input_size, hidden_size, 3)?;
        Ok(Gru {
            wx: param(&[3 * hidden_size, input_size])?,
            wh: param(&[3 * hidden_size, hidden_size])?,
            b: if bias { Some(param(&[3 * hidden_size])?) } else { None },
            bhn: if bias { Some(param(&[hidden_size])?) } else { None },
        })
    }

    /// Returns the state after each step.
    ///
    /// # Shape
    /// `x: [N, L, D]` or `[L, D]`, `hidden: [N, H]` or `[H]` → `[N, L, H]` or `[L, H]`
    ///
    /// # Errors
    /// When the shapes do not fit or the sequence is empty.
    pub fn forward(&self, x: &Array, hidden: Option<&Array>) -> Result<Array> {
        let steps = steps("gru", &project(x, &self.wx, self.b.as_ref())?)?;
        let wh = self.wh.t()?;
        let mut hidden = hidden.cloned();
        let mut all = Vec::with_capacity(steps.len());
        for x in steps {
            let next = self.step(&x, hidden.as_ref(), &wh)?;
            all.push(next.clone());
            hidden = Some(next);
        }
        ops::stack(&all, -2)
    }

    fn step(&self, x: &Array, hidden: Option<&Array>, wh: &Array) -> Result<Array> {
        let [mut r, mut z, mut n] = parts(x)?;
        let mut carried = self.bhn.as_deref().cloned();
        if let Some(hidden) = hidden {
            let [h_r, h_z, h_n] = parts(&hidden.matmul(wh)?)?;
            (r, z) = ((r + h_r)?, (z + h_z)?);
            carried = Some(match &self.bhn {
                Some(bhn) => (h_n + &**bhn)?,
                None => h_n,
            });
        }
        let (r, z) = (r.sigmoid()?, z.sigmoid()?);
        if let Some(carried) = carried {
            n = (n + (r * carried))?;
        }
        let new = ops::subtract(1, &z)? * n.tanh();
        match hidden {
            Some(hidden) => new? + (z * hidden),
            None => new,
        }
    }
}

impl Lstm {
    /// Makes a layer with parameters spread evenly over `±1 / √hidden_size`, in float32, out of
    /// this thread's key sequence.
    ///
    /// # Errors
    /// When a size is not positive.
    pub fn new(input_size: i32, hidden_size: i32, bias: bool) -> Result<Lstm> {
        let param = parameters("lstm", input_size, hidden_size, 4)?;
        Ok(Lstm {
            wx: param(&[4 * hidden_size, input_size])?,
            wh: param(&[4 * hidden_size, hidden_size])?,
            bias: if bias { Some(param(&[4 * hidden_size])?) } else { None },
        })
    }

    /// Returns hidden state and cell after each step.
    ///
    /// # Shape
    /// `x: [N, L, D]` or `[L, D]`, state `[N, H]` or `[H]` → state `[N, L, H]` or `[L, H]`
    ///
    /// # Errors
    /// When the shapes do not fit or the sequence is empty.
    pub fn forward(&self, x: &Array, state: Option<&LstmState>) -> Result<LstmState> {
        let steps = steps("lstm", &project(x, &self.wx, self.bias.as_ref())?)?;
        let wh = self.wh.t()?;
        let mut state = state.cloned();
        let (mut all_hidden, mut all_cells) = (Vec::new(), Vec::new());
        for x in steps {
            let gates = match &state {
                Some(state) => addmm(&x, &state.hidden, &wh, 1.0, 1.0)?,
                None => x,
            };
            let [i, f, g, o] = parts(&gates)?;
            let new = i.sigmoid()? * g.tanh();
            let cell = match &state {
                Some(state) => (f.sigmoid()? * &state.cell)? + new,
                None => new,
            }?;
            let hidden = (o.sigmoid()? * cell.tanh())?;
            all_hidden.push(hidden.clone());
            all_cells.push(cell.clone());
            state = Some(LstmState { hidden, cell });
        }
        Ok(LstmState { hidden: ops::stack(&all_hidden, -2)?, cell: ops::stack(&all_cells, -2)? })
    }
}

/// Checks sizes, `n_parts` of which stand in one matrix; returns what makes a parameter.
fn parameters(
    layer: &str,
    input_size: i32,
    hidden_size: i32,
    n_parts: i32,
) -> Result<impl Fn(&[i32]) -> Result<Param>> {
    make::check_positive(layer, &[("input_size", input_size), ("hidden_size", hidden_size)])?;
    if hidden_size.checked_mul(n_parts).is_none() {
        return Err(make::invalid(layer, format!("hidden_size {hidden_size} is too large")));
    }
    Ok(move |shape: &[i32]| make::uniform(hidden_size.into(), shape))
}

fn project(x: &Array, w: &Array, bias: Option<&Param>) -> Result<Array> {
    match bias {
        Some(bias) => addmm(bias, x, &w.t()?, 1.0, 1.0),
        None => x.matmul(&w.t()?),
    }
}

fn steps(layer: &str, x: &Array) -> Result<Vec<Array>> {
    match x.shape() {
        [.., 0, _] | [] | [_] => {
            Err(make::invalid(layer, format!("no sequence in shape {:?}", x.shape())))
        }
        _ => x.unstack(-2),
    }
}

/// Splits the last axis into `N` equal parts.
fn parts<const N: usize>(x: &Array) -> Result<[Array; N]> {
    let missing = |_| Error::new(ErrorKind::Runtime, "split: too few outputs");
    x.split(N as i32, -1)?.try_into().map_err(missing)
}
