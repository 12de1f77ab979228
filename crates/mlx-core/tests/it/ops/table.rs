//! The table: op name of the grid → call of this crate.

use mlx_core::fast::{self, AttentionMask, Offset, RopeOptions};
use mlx_core::ops::{self, Closeness, Meshgrid, PadMode, Scan, Side};
use mlx_core::{Array, Dtype, Result, random};

use super::call::{Arg, Call, ints, unknown};
use super::{conv, products};

/// Runs a row; `None` where the crate has no such call.
pub(super) fn run(c: &Call<'_>) -> Option<Result<Vec<Array>>> {
    // Each family answers for its own ops.
    [
        elementwise,
        binary,
        reduce,
        scan_and_sort,
        shape,
        create,
        gather,
        products::run,
        conv::run,
        fused,
        draw,
    ]
    .iter()
    .find_map(|family| family(c))
}

pub(super) fn one(result: Result<Array>) -> Option<Result<Vec<Array>>> {
    Some(result.map(|array| vec![array]))
}

macro_rules! methods {
    ($c:expr; $($name:ident)*) => {
        match $c.op {
            $(stringify!($name) => return one($c.array(0).$name()),)*
            _ => {}
        }
    };
}

macro_rules! functions {
    ($c:expr; $($name:ident)*) => {
        match $c.op {
            $(stringify!($name) => return one(ops::$name($c.arg(0), $c.arg(1))),)*
            _ => {}
        }
    };
}

fn elementwise(c: &Call<'_>) -> Option<Result<Vec<Array>>> {
    methods! { c;
        abs arccos arccosh arcsin arcsinh arctan arctanh ceil cos cosh degrees erf erfinv exp expm1
        floor log log10 log1p log2 negative radians reciprocal rsqrt sigmoid sign sin sinh sqrt
        square tan tanh logical_not isnan isinf isposinf isneginf isfinite bitwise_invert
        atleast_1d atleast_2d atleast_3d contiguous conjugate imag positive real stop_gradient trunc
    }
    let float = |name| c.kw(name).map(|value| value.as_f64().unwrap() as f32);
    one(match c.op {
        "round" => c.array(0).round(c.int("decimals", 0)),
        "clip" => {
            let x = c.array(0);
            x.clip(c.beside(1, &x).as_ref(), c.beside(2, &x).as_ref())
        }
        "nan_to_num" => {
            let nan = c.float("nan", 0.0) as f32;
            c.array(0).nan_to_num(nan, float("posinf"), float("neginf"))
        }
        "astype" => c.array(0).astype(c.dtype("dtype")?),
        "view" => c.array(0).view(c.dtype("dtype")?),
        _ => return None,
    })
}

fn binary(c: &Call<'_>) -> Option<Result<Vec<Array>>> {
    functions! { c;
        add subtract multiply divide floor_divide remainder power maximum minimum logaddexp arctan2
        equal not_equal less less_equal greater greater_equal logical_and logical_or logical_xor
        bitwise_and bitwise_or bitwise_xor left_shift right_shift
        inner outer kron
    }
    let default = Closeness::default();
    let closeness = Closeness {
        rtol: c.float("rtol", default.rtol),
        atol: c.float("atol", default.atol),
        equal_nan: c.flag("equal_nan", default.equal_nan),
    };
    one(match c.op {
        "divmod" => return Some(ops::divmod(c.arg(0), c.arg(1)).map(|(q, r)| vec![q, r])),
        "isclose" => c.array(0).isclose(&c.array(1), closeness),
        "allclose" => c.array(0).allclose(&c.array(1), closeness),
        "array_equal" => c.array(0).array_equal(&c.array(1), closeness.equal_nan),
        "where" => ops::where_(&c.array(0), c.arg(1), c.arg(2)),
        _ => return None,
    })
}

fn reduce(c: &Call<'_>) -> Option<Result<Vec<Array>>> {
    let (keepdims, ddof) = (c.flag("keepdims", false), c.int("ddof", 0));
    macro_rules! reductions {
        ($($name:ident($($arg:expr),*))*) => {
            match c.op {
                $(stringify!($name) => {
                    let x = c.array(0);
                    return one(c.with_axes(|axes| x.$name(axes, $($arg),*)));
                })*
                _ => {}
            }
        };
    }
    reductions! {
        sum(keepdims) prod(keepdims) mean(keepdims) min(keepdims) max(keepdims) all(keepdims)
        any(keepdims) count_nonzero(keepdims) logsumexp(keepdims) median(keepdims) var(keepdims, ddof) std(keepdims, ddof)
        softmax(c.flag("precise", false))
    }
    one(match c.op {
        "argmin" => c.array(0).argmin(c.axis(None), keepdims),
        "argmax" => c.array(0).argmax(c.axis(None), keepdims),
        _ => return None,
    })
}

fn scan_and_sort(c: &Call<'_>) -> Option<Result<Vec<Array>>> {
    let scan = Scan { reverse: c.flag("reverse", false), inclusive: c.flag("inclusive", true) };
    macro_rules! scans {
        ($($name:ident)*) => {
            match c.op {
                $(stringify!($name) => {
                    let x = c.array(0);
                    let x = x.astype(c.dtype("dtype").unwrap_or(x.dtype()));
                    return one(x.and_then(|x| x.$name(c.axis(None), scan)));
                })*
                _ => {}
            }
        };
    }
    scans! { cumsum cumprod cummax cummin logcumsumexp }
    let side = if c.text("side") == Some("right") { Side::Right } else { Side::Left };
    one(match c.op {
        "sort" => c.array(0).sort(c.axis(Some(-1))),
        "argsort" => c.array(0).argsort(c.axis(Some(-1))),
        "partition" => c.array(0).partition(c.int("kth", 0), c.axis(Some(-1))),
        "argpartition" => c.array(0).argpartition(c.int("kth", 0), c.axis(Some(-1))),
        "topk" => c.array(0).topk(c.int("k", 0), c.axis(Some(-1))),
        "searchsorted" => c.array(0).searchsorted(&c.array(1), side),
        _ => return None,
    })
}

fn shape(c: &Call<'_>) -> Option<Result<Vec<Array>>> {
    let (axis1, axis2) = (c.int("axis1", 0), c.int("axis2", 1));
    one(match c.op {
        "reshape" => c.array(0).reshape(c.ints("shape")),
        "flatten" => c.array(0).flatten(c.int("start_axis", 0), c.int("end_axis", -1)),
        "unflatten" => c.array(0).unflatten(c.int("axis", 0), c.ints("shape")),
        "squeeze" => c.with_axes(|axes| c.array(0).squeeze(axes)),
        "expand_dims" => c.with_axes(|axes| c.array(0).expand_dims(axes)),
        "transpose" if c.kw("axes").is_none() => c.array(0).t(),
        "transpose" => c.array(0).transpose(c.ints("axes")),
        "swapaxes" => c.array(0).swapaxes(axis1, axis2),
        "moveaxis" => c.array(0).moveaxis(c.int("source", 0), c.int("destination", 0)),
        "broadcast_to" => c.array(0).broadcast_to(c.ints("shape")),
        "broadcast_arrays" => return Some(ops::broadcast_arrays(&c.list())),
        "meshgrid" => {
            let matrix = c.text("indexing") == Some("ij");
            let options = Meshgrid { sparse: c.flag("sparse", false), matrix };
            return Some(ops::meshgrid(&c.list(), options));
        }
        "broadcast_shapes" => {
            let shapes = c.kw("shapes")?.as_array()?.iter().map(ints);
            ops::broadcast_shapes(shapes)
                .and_then(|shape| Array::from_slice(&shape, &[shape.len() as i32]))
        }
        "as_strided" => {
            let strides: Vec<i64> = c.ints("strides").into_iter().map(i64::from).collect();
            c.array(0).as_strided(&c.ints("shape"), &strides, c.int("offset", 0) as usize)
        }
        "diff" => c.array(0).diff(c.int("n", 1), c.int("axis", -1)),
        "concatenate" => ops::concatenate(&c.list(), c.axis(Some(0))),
        "stack" => ops::stack(&c.list(), c.int("axis", 0)),
        "split" => {
            let (x, axis, parts) = (c.array(0), c.int("axis", 0), c.kw("indices_or_sections")?);
            return Some(match parts.as_i64() {
                Some(n) => x.split(n as i32, axis),
                None => x.split_at(&c.ints("indices_or_sections"), axis),
            });
        }
        "unstack" => return Some(c.array(0).unstack(c.int("axis", 0))),
        "repeat" => c.array(0).repeat(c.int("repeats", 0), c.axis(None)),
        "tile" => c.array(0).tile(&c.ints("reps")),
        "pad" => pad(c),
        "roll" => {
            let (x, mut shifts) = (c.array(0), c.ints("shift"));
            let axes = c.ints("axis");
            match c.kw("axis") {
                None => x.roll(shifts[0], None),
                Some(axis) if axis.is_i64() => x.roll(shifts[0], axes[0]),
                Some(_) => {
                    if c.kw("shift")?.is_i64() {
                        shifts = vec![shifts[0]; axes.len()];
                    }
                    x.roll_axes(&shifts, &axes)
                }
            }
        }
        "flip" => c.with_axes(|axes| c.array(0).flip(axes)),
        "tril" => c.array(0).tril(c.int("k", 0)),
        "triu" => c.array(0).triu(c.int("k", 0)),
        "diag" => c.array(0).diag(c.int("k", 0)),
        "diagonal" => c.array(0).diagonal(c.int("offset", 0), axis1, axis2),
        "trace" => c.array(0).trace(c.int("offset", 0), axis1, axis2, c.dtype("dtype")),
        _ => return None,
    })
}

fn pad(c: &Call<'_>) -> Result<Array> {
    let (x, widths) = (c.array(0), c.kw("pad_width").unwrap());
    let pair = |value: &serde_json::Value| {
        let at = |i: usize| value[i].as_i64().unwrap() as i32;
        (at(0), at(1))
    };
    let widths = match widths.as_array() {
        None => vec![(c.int("pad_width", 0), c.int("pad_width", 0)); x.ndim()],
        Some(values) if values[0].is_array() => values.iter().map(pair).collect(),
        Some(_) => vec![pair(widths); x.ndim()],
    };
    let mode = match c.text("mode").unwrap_or("constant") {
        "constant" => return x.pad(&widths, &c.kw_operand("constant_values", 0.0)),
        "edge" => PadMode::Edge,
        "reflect" => PadMode::Reflect,
        "symmetric" => PadMode::Symmetric,
        mode => return Err(unknown(mode)),
    };
    x.pad_mode(&widths, mode)
}

fn create(c: &Call<'_>) -> Option<Result<Vec<Array>>> {
    let dtype = c.dtype("dtype").unwrap_or(Dtype::Float32);
    let number = |i: usize| match c.arg(i) {
        Arg::Scalar(mlx_core::Scalar::Float(x)) => (*x, Dtype::Float32),
        Arg::Scalar(mlx_core::Scalar::Int(x)) => (*x as f64, Dtype::Int32),
        arg => panic!("{}: {arg:?}", c.op),
    };
    let (n, k, shape) = (c.int("n", 0), c.int("k", 0), c.ints("shape"));
    one(match c.op {
        "arange" => {
            let [start, stop, step] = [number(0), number(1), number(2)];
            ops::arange(start.0, stop.0, step.0, c.dtype("dtype").unwrap_or(start.1))
        }
        "linspace" => {
            let (start, stop, num) = (number(0).0, number(1).0, c.int("num", 50));
            if c.has("endpoint") {
                ops::linspace_endpoint(start, stop, num, c.flag("endpoint", true), dtype)
            } else {
                ops::linspace(start, stop, num, dtype)
            }
        }
        "zeros_like" => match c.dtype("dtype") {
            None => c.array(0).zeros_like(),
            Some(dtype) => c.array(0).zeros_like_dtype(dtype),
        },
        "ones_like" => match c.dtype("dtype") {
            None => c.array(0).ones_like(),
            Some(dtype) => c.array(0).ones_like_dtype(dtype),
        },
        "full_like" => c.array(0).full_like(c.arg(1), c.dtype("dtype")),
        "bartlett" => ops::bartlett(c.int("M", 0)),
        "blackman" => ops::blackman(c.int("M", 0)),
        "hamming" => ops::hamming(c.int("M", 0)),
        "hanning" => ops::hanning(c.int("M", 0)),
        "zeros" => ops::zeros(&shape, dtype),
        "ones" => ops::ones(&shape, dtype),
        "full" => ops::full(&shape, &c.kw_operand("vals", 0.0), c.dtype("dtype")),
        "eye" => ops::eye(n, c.int("m", n), k, dtype),
        "identity" => ops::identity(n, dtype),
        "tri" => ops::tri(n, c.int("m", n), k, dtype),
        _ => return None,
    })
}

fn gather(c: &Call<'_>) -> Option<Result<Vec<Array>>> {
    one(match c.op {
        "take" => c.array(0).take(c.arg(1), c.axis(None)),
        "take_along_axis" => c.array(0).take_along_axis(&c.array(1), c.axis(None)),
        "put_along_axis" => c.array(0).put_along_axis(&c.array(1), c.arg(2), c.axis(None)),
        "getitem" => c.array(0).at(c.index()),
        "setitem" => c.array(0).put(c.index(), c.arg(1)),
        "at_add" => c.array(0).put_add(c.index(), c.arg(1)),
        "at_subtract" => c.array(0).put_subtract(c.index(), c.arg(1)),
        "at_multiply" => c.array(0).put_multiply(c.index(), c.arg(1)),
        "at_divide" => c.array(0).put_divide(c.index(), c.arg(1)),
        "at_maximum" => c.array(0).put_maximum(c.index(), c.arg(1)),
        "at_minimum" => c.array(0).put_minimum(c.index(), c.arg(1)),
        "slice" => c.array(0).slice_dynamic(&c.array(1), &c.ints("axes"), &c.ints("slice_size")),
        "slice_update" => {
            c.array(0).slice_update_dynamic(&c.array(1), &c.array(2), &c.ints("axes"))
        }
        _ => return None,
    })
}

fn fused(c: &Call<'_>) -> Option<Result<Vec<Array>>> {
    let eps = c.float("eps", 0.0) as f32;
    one(match c.op {
        "fast.rms_norm" => fast::rms_norm(&c.array(0), c.optional(1).as_ref(), eps),
        "fast.layer_norm" => {
            fast::layer_norm(&c.array(0), c.optional(1).as_ref(), c.optional(2).as_ref(), eps)
        }
        "fast.rope" => {
            let (freqs, offset) = (c.kw_array("freqs"), c.kw_array("offset"));
            let options = RopeOptions {
                dims: c.int("dims", 0),
                traditional: c.flag("traditional", false),
                base: c.kw("base").map(|base| base.as_f64().unwrap() as f32),
                scale: c.float("scale", 1.0) as f32,
                freqs: freqs.as_ref(),
            };
            let offset = match &offset {
                Some(offset) => Offset::Array(offset),
                None => Offset::Int(c.int("offset", 0)),
            };
            fast::rope(&c.array(0), options, offset)
        }
        "fast.scaled_dot_product_attention" => {
            let (mask, sinks) = (c.kw_array("mask"), c.kw_array("sinks"));
            let mask = match (&mask, c.text("mask")) {
                (Some(mask), _) => AttentionMask::Array(mask),
                (None, None) => AttentionMask::None,
                (None, Some("causal")) => AttentionMask::Causal,
                (None, Some(mode)) => return Some(Err(unknown(mode))),
            };
            let (q, k, v) = (c.array(0), c.array(1), c.array(2));
            let attend = match c.flag("force_fused", false) {
                true => fast::scaled_dot_product_attention_fused,
                false => fast::scaled_dot_product_attention,
            };
            attend(&q, &k, &v, c.float("scale", 1.0) as f32, mask, sinks.as_ref())
        }
        "fast.cross_entropy" => fast::cross_entropy(&c.array(0), &c.array(1)),
        _ => return None,
    })
}

fn draw(c: &Call<'_>) -> Option<Result<Vec<Array>>> {
    let name = c.op.strip_prefix("random.")?;
    let (key, shape) = (c.kw_array("key"), c.ints("shape"));
    let key = key.as_ref();
    let dtype = c.dtype("dtype").unwrap_or(Dtype::Float32);
    let (loc, scale) = (c.kw_operand("loc", 0.0), c.kw_operand("scale", 1.0));
    one(match name {
        "key" => random::key(c.kw("seed")?.as_u64()?),
        "split" => random::split(&c.array(0), c.int("num", 2)),
        "bits" => random::bits(&shape, 4, Some(&c.array(0))),
        "uniform" if c.n_args() == 0 => random::uniform(0.0, 1.0, &shape, dtype, key),
        "uniform" => random::uniform(c.arg(0), c.arg(1), &shape, dtype, key),
        "normal" => random::normal(&shape, dtype, &loc, &scale, key),
        "randint" => {
            let dtype = c.dtype("dtype").unwrap_or(Dtype::Int32);
            random::randint(c.arg(0), c.arg(1), &shape, dtype, key)
        }
        "bernoulli" if c.n_args() == 0 => random::bernoulli(0.5, &[], key),
        "bernoulli" if c.has("shape") => random::bernoulli(c.arg(0), &shape, key),
        "bernoulli" => random::bernoulli(c.arg(0), c.array(0).shape(), key),
        "gumbel" => random::gumbel(&shape, dtype, key),
        "laplace" => {
            let (loc, scale) = (c.float("loc", 0.0) as f32, c.float("scale", 1.0) as f32);
            random::laplace(&shape, dtype, loc, scale, key)
        }
        "truncated_normal" if c.has("shape") => {
            random::truncated_normal(c.arg(0), c.arg(1), &shape, dtype, key)
        }
        "truncated_normal" => {
            let shape = c.array(0);
            random::truncated_normal(c.arg(0), c.arg(1), shape.shape(), dtype, key)
        }
        "categorical" => {
            let (logits, axis) = (c.array(0), c.int("axis", -1));
            match (c.kw("num_samples"), c.kw("shape")) {
                (None, None) => random::categorical(&logits, axis, key),
                (Some(_), None) => {
                    random::categorical_num_samples(&logits, axis, c.int("num_samples", 1), key)
                }
                (None, Some(_)) => random::categorical_shape(&logits, axis, &shape, key),
                (Some(_), Some(_)) => return Some(Err(unknown("num_samples beside shape"))),
            }
        }
        "permutation" => match c.arg(0) {
            Arg::Scalar(mlx_core::Scalar::Int(n)) => random::permutation_arange(*n as i32, key),
            _ => random::permutation(&c.array(0), c.int("axis", 0), key),
        },
        _ => return None,
    })
}
