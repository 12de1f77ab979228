//! Replaying a function of a file with this crate's ops.
//!
//! Each op of the file is what one of MLX's functions once made; calling that function again makes
//! it again, on the current stream, after all the checks of the call.

use super::format::{Field, Function, Op, Spec, Step};
use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::ops::{self, Scan, Side};
use crate::{fast, random};

fn wrong(text: String) -> Error {
    Error::new(ErrorKind::Format, format!("import: {text}"))
}

/// Computes `function` with `inputs`, which match its description.
pub(super) fn run(function: &Function, inputs: Vec<Array>, shapeless: bool) -> Result<Vec<Array>> {
    let mut values = inputs;
    for step in &function.steps {
        match step {
            Step::Constant(constant) => values.push(constant.clone()),
            Step::Op(op) => {
                let call = Call { op, values: &values };
                let outputs = call.run().map_err(|e| e.context(format!("import: {}", op.name)))?;
                check(op, &outputs, shapeless)?;
                values.extend(outputs);
            }
        }
    }
    let outputs = function.outputs.iter().map(|&place| values.get(place).cloned());
    outputs.collect::<Option<_>>().ok_or_else(|| wrong("an output is missing".to_owned()))
}

fn check(op: &Op, outputs: &[Array], shapeless: bool) -> Result<()> {
    let same = |(x, spec): (&Array, &Spec)| {
        x.dtype() == spec.dtype
            && x.ndim() == spec.shape.len()
            && (shapeless || x.shape() == spec.shape)
    };
    if outputs.len() == op.outputs.len() && outputs.iter().zip(&op.outputs).all(same) {
        return Ok(());
    }
    Err(wrong(format!("{} makes {outputs:?} where the file has {:?}", op.name, op.outputs)))
}

/// An op and the values computed so far.
struct Call<'a> {
    op: &'a Op,
    values: &'a [Array],
}

impl<'a> Call<'a> {
    fn input(&self, i: usize) -> Result<&'a Array> {
        let place = self.op.inputs.get(i);
        place
            .and_then(|&place| self.values.get(place))
            .ok_or_else(|| wrong(format!("{} with {} inputs", self.op.name, self.op.inputs.len())))
    }

    fn inputs(&self) -> Vec<Array> {
        self.op.inputs.iter().filter_map(|&place| self.values.get(place).cloned()).collect()
    }

    fn int(&self, i: usize) -> i32 {
        if let Some(Field::Int(n)) = self.op.state.get(i) { *n } else { 0 }
    }

    fn float(&self, i: usize) -> f64 {
        if let Some(Field::Float(x)) = self.op.state.get(i) { *x } else { 0.0 }
    }

    fn flag(&self, i: usize) -> bool {
        matches!(self.op.state.get(i), Some(Field::Bool(true)))
    }

    fn ints(&self, i: usize) -> &'a [i32] {
        if let Some(Field::Ints(list)) = self.op.state.get(i) { list } else { &[] }
    }

    fn dtype(&self) -> Dtype {
        let dtypes = self.op.state.iter().rev();
        let mut dtypes = dtypes.filter_map(|field| match field {
            Field::Dtype(dtype) => Some(*dtype),
            _ => None,
        });
        dtypes.next().or(self.op.outputs.first().map(|out| out.dtype)).unwrap_or(Dtype::Float32)
    }

    fn unknown(&self, what: &str, value: i32) -> Error {
        wrong(format!("{} of {what} {value}", self.op.name))
    }

    fn run(&self) -> Result<Vec<Array>> {
        match self.op.name {
            "DivMod" => ops::divmod(self.input(0)?, self.input(1)?).map(|(a, b)| vec![a, b]),
            "Split" => self.input(0)?.split_at(self.ints(0), self.int(1)),
            "Depends" => (0..self.op.outputs.len()).map(|i| self.input(i).cloned()).collect(),
            _ => self.one().map(|x| vec![x]),
        }
    }

    fn one(&self) -> Result<Array> {
        match self.op.inputs.len() {
            0 => return self.without_inputs(),
            1 => {
                if let Some(result) = self.elementwise() {
                    return result;
                }
            }
            2 => {
                if let Some(result) = self.elementwise_pair() {
                    return result;
                }
            }
            _ => {}
        }
        self.reduction().or_else(|| self.shape()).or_else(|| self.indexing()).unwrap_or_else(|| {
            Err(wrong(format!("{} with {} inputs", self.op.name, self.op.inputs.len())))
        })
    }

    fn without_inputs(&self) -> Result<Array> {
        match self.op.name {
            "Arange" => ops::arange(self.float(0), self.float(1), self.float(2), self.dtype()),
            name => Err(wrong(format!("{name} without inputs"))),
        }
    }

    fn elementwise(&self) -> Option<Result<Array>> {
        let x = self.values.get(*self.op.inputs.first()?)?;
        Some(match self.op.name {
            "Abs" => x.abs(),
            "ArcCos" => x.arccos(),
            "ArcCosh" => x.arccosh(),
            "ArcSin" => x.arcsin(),
            "ArcSinh" => x.arcsinh(),
            "ArcTan" => x.arctan(),
            "ArcTanh" => x.arctanh(),
            "AsType" => x.astype(self.dtype()),
            "Ceil" => x.ceil(),
            "Conjugate" => x.conjugate(),
            "Copy" | "Full" => Ok(x.clone()),
            "Cos" => x.cos(),
            "Cosh" => x.cosh(),
            "Erf" => x.erf(),
            "ErfInv" => x.erfinv(),
            "Exp" => x.exp(),
            "Expm1" => x.expm1(),
            "Floor" => x.floor(),
            "Imag" => x.imag(),
            "Log" => match self.int(0) {
                0 => x.log2(),
                1 => x.log10(),
                2 => x.log(),
                base => Err(self.unknown("base", base)),
            },
            "Log1p" => x.log1p(),
            "LogicalNot" => x.logical_not(),
            "Negative" => x.negative(),
            "Real" => x.real(),
            "Round" => x.round(0),
            "Sigmoid" => x.sigmoid(),
            "Sign" => x.sign(),
            "Sin" => x.sin(),
            "Sinh" => x.sinh(),
            "Sqrt" if self.flag(0) => x.rsqrt(),
            "Sqrt" => x.sqrt(),
            "Square" => x.square(),
            "StopGradient" => x.stop_gradient(),
            "Tan" => x.tan(),
            "Tanh" => x.tanh(),
            "View" => x.view(self.dtype()),
            _ => return None,
        })
    }

    fn elementwise_pair(&self) -> Option<Result<Array>> {
        let (a, b) = (self.input(0).ok()?, self.input(1).ok()?);
        Some(match self.op.name {
            "Add" => ops::add(a, b),
            "ArcTan2" => ops::arctan2(a, b),
            "BitwiseBinary" => match self.int(0) {
                0 => ops::bitwise_and(a, b),
                1 => ops::bitwise_or(a, b),
                2 => ops::bitwise_xor(a, b),
                3 => ops::left_shift(a, b),
                4 => ops::right_shift(a, b),
                kind => Err(self.unknown("kind", kind)),
            },
            "Divide" if a.dtype().is_integer() => ops::floor_divide(a, b),
            "Divide" => ops::divide(a, b),
            "Equal" if self.flag(0) => equal_with_nan(a, b),
            "Equal" => ops::equal(a, b),
            "Greater" => ops::greater(a, b),
            "GreaterEqual" => ops::greater_equal(a, b),
            "Less" => ops::less(a, b),
            "LessEqual" => ops::less_equal(a, b),
            "LogAddExp" => ops::logaddexp(a, b),
            "LogicalAnd" => ops::logical_and(a, b),
            "LogicalOr" => ops::logical_or(a, b),
            "Matmul" => a.matmul(b),
            "Maximum" => ops::maximum(a, b),
            "Minimum" => ops::minimum(a, b),
            "Multiply" => ops::multiply(a, b),
            "NotEqual" => ops::not_equal(a, b),
            "Power" => ops::power(a, b),
            "Remainder" => ops::remainder(a, b),
            "Subtract" => ops::subtract(a, b),
            _ => return None,
        })
    }

    fn reduction(&self) -> Option<Result<Array>> {
        let x = self.input(0).ok()?;
        let scan = Scan { reverse: self.flag(2), inclusive: self.flag(3) };
        Some(match (self.op.name, self.int(0)) {
            ("ArgReduce", 0) => x.argmin(self.int(1), true),
            ("ArgReduce", 1) => x.argmax(self.int(1), true),
            ("Reduce", 0) => x.all(self.ints(1), true),
            ("Reduce", 1) => x.any(self.ints(1), true),
            ("Reduce", 2) => x.sum(self.ints(1), true),
            ("Reduce", 3) => x.prod(self.ints(1), true),
            ("Reduce", 4) => x.min(self.ints(1), true),
            ("Reduce", 5) => x.max(self.ints(1), true),
            ("Scan", 0) => x.cummax(self.int(1), scan),
            ("Scan", 1) => x.cummin(self.int(1), scan),
            ("Scan", 2) => x.cumsum(self.int(1), scan),
            ("Scan", 3) => x.cumprod(self.int(1), scan),
            ("Scan", 4) => x.logcumsumexp(self.int(1), scan),
            ("ArgReduce" | "Reduce" | "Scan", kind) => Err(self.unknown("kind", kind)),
            ("ArgPartition", kth) => x.argpartition(kth, self.int(1)),
            ("Partition", kth) => x.partition(kth, self.int(1)),
            ("ArgSort", axis) => x.argsort(axis),
            ("Sort", axis) => x.sort(axis),
            ("LogSumExp", _) => x.logsumexp(-1, true),
            ("Softmax", _) => x.softmax(-1, self.flag(0)),
            ("NumberOfElements", _) => self.number_of_elements(x),
            ("SearchSorted", _) => self.input(1).and_then(|values| {
                x.searchsorted(values, if self.flag(0) { Side::Right } else { Side::Left })
            }),
            _ => return None,
        })
    }

    fn number_of_elements(&self, x: &Array) -> Result<Array> {
        let sizes = self.ints(0).iter().map(|&axis| {
            let axis = axis + if axis < 0 { x.ndim() as i32 } else { 0 };
            let size = usize::try_from(axis).ok().and_then(|axis| x.shape().get(axis));
            size.copied().map(f64::from).ok_or_else(|| self.unknown("axis", axis))
        });
        let n: f64 = sizes.product::<Result<f64>>()?;
        Array::from_slice(&[if self.flag(1) { 1.0 / n } else { n }], &[])?.astype(self.dtype())
    }

    fn shape(&self) -> Option<Result<Array>> {
        let x = self.input(0).ok()?;
        Some(match self.op.name {
            "Broadcast" if self.op.inputs.len() > 1 => self.broadcast(x, &[]),
            "Broadcast" => x.broadcast_to(self.ints(0)),
            "BroadcastAxes" => self.broadcast(x, self.ints(0)),
            "Concatenate" => ops::concatenate(&self.inputs(), self.int(0)),
            "ExpandDims" => x.expand_dims(self.ints(0)),
            "Flatten" => x.flatten(self.int(0), self.int(1)),
            "Pad" => self.pad(x),
            "Reshape" => x.reshape(self.ints(0)),
            "Squeeze" => x.squeeze(self.ints(0)),
            "Transpose" => x.transpose(self.ints(0)),
            "Unflatten" => x.unflatten(self.int(0), self.ints(1)),
            _ => return None,
        })
    }

    /// Broadcasts `x` against the other inputs, but for axes that it keeps.
    fn broadcast(&self, x: &Array, keep: &[i32]) -> Result<Array> {
        let mut shape: Vec<i32> = Vec::new();
        for other in &self.inputs() {
            let missing = other.ndim().saturating_sub(shape.len());
            shape.splice(0..0, std::iter::repeat_n(1, missing));
            for (back, &n) in other.shape().iter().rev().enumerate() {
                let kept = keep.contains(&-(back as i32 + 1));
                let place = shape.len() - 1 - back;
                match shape.get_mut(place) {
                    Some(size) if !kept && *size == 1 => *size = n,
                    _ => {}
                }
            }
        }
        for &axis in keep {
            let of = |len: usize| usize::try_from(len as i64 + i64::from(axis)).ok();
            let size = of(x.ndim()).and_then(|place| x.shape().get(place).copied());
            match (of(shape.len()).and_then(|place| shape.get_mut(place)), size) {
                (Some(place), Some(size)) => *place = size,
                _ => return Err(self.unknown("axis", axis)),
            }
        }
        x.broadcast_to(shape)
    }

    fn pad(&self, x: &Array) -> Result<Array> {
        let mut widths = vec![(0, 0); x.ndim()];
        let (axes, low, high) = (self.ints(0), self.ints(1), self.ints(2));
        if axes.len() != low.len() || axes.len() != high.len() {
            return Err(wrong(format!("pad of axes {axes:?} by {low:?} and {high:?}")));
        }
        for (&axis, (&low, &high)) in axes.iter().zip(low.iter().zip(high)) {
            let place = usize::try_from(axis).ok().and_then(|axis| widths.get_mut(axis));
            *place.ok_or_else(|| self.unknown("axis", axis))? = (low, high);
        }
        x.pad(&widths, self.input(1)?)
    }

    fn indexing(&self) -> Option<Result<Array>> {
        Some(match self.op.name {
            "AddMM" => self
                .three(|a, b, c| ops::addmm(c, a, b, self.float(0) as f32, self.float(1) as f32)),
            "DynamicSlice" => {
                self.two(|x, start| x.slice_dynamic(start, self.ints(0), self.ints(1)))
            }
            "DynamicSliceUpdate" => {
                self.three(|x, values, start| x.slice_update_dynamic(values, start, self.ints(0)))
            }
            "Gather" => self.gather(),
            "GatherAxis" => self.two(|x, indices| x.take_along_axis(indices, self.int(0))),
            "LayerNorm" => {
                self.three(|x, w, b| fast::layer_norm(x, Some(w), Some(b), self.float(0) as f32))
            }
            "RMSNorm" => self.two(|x, w| fast::rms_norm(x, Some(w), self.float(0) as f32)),
            "RandomBits" => {
                self.input(0).and_then(|key| random::bits(self.ints(0), self.int(1), Some(key)))
            }
            "Scatter" => self.scatter(),
            "ScatterAxis" => self.three(|x, indices, values| match self.int(0) {
                0 => x.scatter_add_axis(indices, values, self.int(1)),
                1 => x.put_along_axis(indices, values, self.int(1)),
                kind => Err(self.unknown("kind", kind)),
            }),
            "Select" => self.three(|condition, a, b| ops::where_(condition, a, b)),
            "Slice" => self.input(0).and_then(|x| {
                let stop = stops(x, self.ints(1), self.ints(2));
                x.slice(self.ints(0), &stop, self.ints(2))
            }),
            "SliceUpdate" => self.two(|x, values| match self.int(0) {
                4 => {
                    let stop = stops(x, self.ints(2), self.ints(3));
                    x.slice_update(values, self.ints(1), &stop, self.ints(3))
                }
                kind => Err(self.unknown("kind", kind)),
            }),
            _ => return None,
        })
    }

    fn two(&self, f: impl Fn(&Array, &Array) -> Result<Array>) -> Result<Array> {
        f(self.input(0)?, self.input(1)?)
    }

    fn three(&self, f: impl Fn(&Array, &Array, &Array) -> Result<Array>) -> Result<Array> {
        f(self.input(0)?, self.input(1)?, self.input(2)?)
    }

    fn gather(&self) -> Result<Array> {
        let inputs = self.inputs();
        let (x, indices) = (self.input(0)?, inputs.get(1..).unwrap_or_default());
        x.gather(indices, self.ints(0), self.ints(1))
    }

    fn scatter(&self) -> Result<Array> {
        let inputs = self.inputs();
        let [x, indices @ .., updates] = inputs.as_slice() else {
            return Err(wrong(format!("Scatter with {} inputs", inputs.len())));
        };
        let axes = self.ints(1);
        match self.int(0) {
            0 => x.scatter_max(indices, updates, axes),
            1 => x.scatter_min(indices, updates, axes),
            2 => x.scatter_add(indices, updates, axes),
            3 => x.scatter_prod(indices, updates, axes),
            4 => x.scatter(indices, updates, axes),
            kind => Err(self.unknown("kind", kind)),
        }
    }
}

fn equal_with_nan(a: &Array, b: &Array) -> Result<Array> {
    ops::logical_or(&ops::equal(a, b)?, &ops::logical_and(&a.isnan()?, &b.isnan()?)?)
}

/// The file counts positions from the start; before it is -1, which a call takes for the last.
fn stops(x: &Array, stop: &[i32], strides: &[i32]) -> Vec<i32> {
    let axes = stop.iter().zip(strides).zip(x.shape());
    axes.map(
        |((&stop, &stride), &n)| if stride < 0 && stop < 0 { stop.saturating_sub(n) } else { stop },
    )
    .collect()
}
