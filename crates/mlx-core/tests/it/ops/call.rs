//! One row of the grid: its arguments and keywords as this crate's types.

use std::collections::BTreeMap;

use mlx_core::io::SafetensorsFile;
use mlx_core::{
    Array, Axes, Dtype, Ellipsis, Error, ErrorKind, IndexItem, NewAxis, Operand, QuantMode,
    Quantization, Result, Scalar, Slice,
};
use serde_json::Value;

/// The arrays of a family.
pub(super) struct Arrays(BTreeMap<String, Array>);

impl Arrays {
    pub(super) fn load(family: &str) -> Arrays {
        let path = fixtures::path(&format!("mlx-core/ops/{family}.safetensors"));
        let file = SafetensorsFile::open(path).unwrap();
        let arrays = file.tensors().map(|(name, info)| {
            let bytes = file.bytes(name).unwrap();
            (name.to_owned(), Array::from_bytes(bytes, &info.shape, info.dtype).unwrap())
        });
        Arrays(arrays.collect())
    }

    pub(super) fn get(&self, key: &str) -> Array {
        self.0[key].clone()
    }

    fn read(&self, spec: &Value) -> Array {
        if let Some(key) = spec.get("array") {
            return self.get(key.as_str().unwrap());
        }
        let base = self.get(spec["base"].as_str().unwrap());
        if let Some(axes) = spec.get("transpose") {
            return base.transpose(ints(axes)).unwrap();
        }
        if let Some(shape) = spec.get("broadcast") {
            return base.broadcast_to(ints(shape)).unwrap();
        }
        let slices = spec["slice"].as_array().unwrap();
        base.at(slices.iter().map(|s| slice(s).into()).collect::<Vec<IndexItem>>()).unwrap()
    }
}

fn int(value: &Value) -> i32 {
    value.as_i64().unwrap_or_else(|| panic!("not an integer: {value}")) as i32
}

pub(super) fn ints(value: &Value) -> Vec<i32> {
    match value {
        Value::Array(values) => values.iter().map(int).collect(),
        _ => vec![int(value)],
    }
}

fn slice(value: &Value) -> Slice {
    let at = |i: usize| value.get(i).filter(|v| !v.is_null()).map(int);
    Slice { start: at(0), stop: at(1), step: at(2).unwrap_or(1) }
}

/// One argument.
#[derive(Debug)]
pub(super) enum Arg {
    Array(Array),
    Scalar(Scalar),
    Missing,
    List(Vec<Arg>),
}

impl Arg {
    fn read(value: &Value, arrays: &Arrays) -> Arg {
        if let Value::Array(values) = value {
            return Arg::List(values.iter().map(|v| Arg::read(v, arrays)).collect());
        }
        if value.is_null() {
            return Arg::Missing;
        }
        if let Some(float) = value.get("float") {
            let float = float.as_f64().unwrap_or_else(|| match float.as_str() {
                Some("inf") => f64::INFINITY,
                Some("-inf") => f64::NEG_INFINITY,
                _ => f64::NAN,
            });
            return Arg::Scalar(Scalar::Float(float));
        }
        if let Some(int) = value.get("int") {
            return Arg::Scalar(Scalar::Int(int.as_i64().unwrap()));
        }
        if let Some(truth) = value.get("bool") {
            return Arg::Scalar(Scalar::Bool(truth.as_bool().unwrap()));
        }
        Arg::Array(arrays.read(value))
    }
}

impl Operand for &Arg {
    type Held = Array;
    fn known_dtype(&self) -> Option<Dtype> {
        match self {
            Arg::Array(array) => array.known_dtype(),
            _ => None,
        }
    }

    fn hold(self, beside: Option<Dtype>) -> Result<Array> {
        match self {
            Arg::Array(array) => Ok(array.clone()),
            Arg::Scalar(scalar) => scalar.into_array(beside),
            _ => panic!("not an operand: {self:?}"),
        }
    }
}

/// A row: what to call with what.
pub(super) struct Call<'a> {
    pub(super) op: &'a str,
    args: Vec<Arg>,
    kw: &'a Value,
    arrays: &'a Arrays,
}

impl<'a> Call<'a> {
    pub(super) fn new(row: &'a Value, arrays: &'a Arrays) -> Call<'a> {
        Call {
            op: row["op"].as_str().unwrap(),
            args: row["args"].as_array().unwrap().iter().map(|v| Arg::read(v, arrays)).collect(),
            kw: &row["kw"],
            arrays,
        }
    }

    pub(super) fn n_args(&self) -> usize {
        self.args.len()
    }

    /// Argument `i`, array or number.
    pub(super) fn arg(&self, i: usize) -> &Arg {
        &self.args[i]
    }

    /// Argument `i` as an array; a number gets the dtype that it has alone.
    pub(super) fn array(&self, i: usize) -> Array {
        self.optional(i).unwrap_or_else(|| panic!("{}: argument {i} is missing", self.op))
    }

    /// Argument `i`, if it is there.
    pub(super) fn optional(&self, i: usize) -> Option<Array> {
        match self.args.get(i) {
            None | Some(Arg::Missing) => None,
            Some(arg) => Some(arg.into_array(None).unwrap()),
        }
    }

    /// Argument `i`, if it is there, a number beside argument `of`.
    pub(super) fn beside(&self, i: usize, of: &Array) -> Option<Array> {
        match &self.args[i] {
            Arg::Missing => None,
            // A float beside integers keeps its own dtype and promotes.
            arg => Some(arg.into_array(Some(of.dtype())).unwrap()),
        }
    }

    /// The list that argument 0 is.
    pub(super) fn list(&self) -> Vec<Array> {
        let Arg::List(args) = &self.args[0] else { panic!("{}: not a list", self.op) };
        args.iter().map(|arg| arg.into_array(None).unwrap()).collect()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.kw.get(name).is_some()
    }

    /// A keyword that is given and not null.
    pub(super) fn kw(&self, name: &str) -> Option<&'a Value> {
        self.kw.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn kw_array(&self, name: &str) -> Option<Array> {
        self.kw(name).filter(|value| value.is_object()).map(|value| self.arrays.read(value))
    }

    pub(super) fn kw_operand(&self, name: &str, default: f64) -> Arg {
        match (self.kw_array(name), self.kw(name)) {
            (Some(array), _) => Arg::Array(array),
            (_, Some(Value::Bool(truth))) => Arg::Scalar(Scalar::Bool(*truth)),
            (_, Some(value)) if value.is_i64() => Arg::Scalar(Scalar::Int(int(value).into())),
            (_, Some(value)) => Arg::Scalar(Scalar::Float(value.as_f64().unwrap())),
            (_, None) => Arg::Scalar(Scalar::Float(default)),
        }
    }

    pub(super) fn int(&self, name: &str, default: i32) -> i32 {
        self.kw(name).map_or(default, int)
    }

    pub(super) fn ints(&self, name: &str) -> Vec<i32> {
        self.kw(name).map(ints).unwrap_or_default()
    }

    pub(super) fn float(&self, name: &str, default: f64) -> f64 {
        self.kw(name).map_or(default, |value| value.as_f64().unwrap())
    }

    pub(super) fn flag(&self, name: &str, default: bool) -> bool {
        self.kw(name).map_or(default, |value| value.as_bool().unwrap())
    }

    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.kw(name).and_then(Value::as_str)
    }

    pub(super) fn dtype(&self, name: &str) -> Option<Dtype> {
        self.text(name).map(|name| Dtype::from_name(name).unwrap())
    }

    /// The keyword `axis` of ops over one axis: null is `None`, absent is `default`.
    pub(super) fn axis(&self, default: Option<i32>) -> Option<i32> {
        if self.has("axis") { self.kw("axis").map(int) } else { default }
    }

    /// The keyword `axis` of ops over any number of axes.
    pub(super) fn with_axes<T>(&self, f: impl FnOnce(Axes<'_>) -> T) -> T {
        match self.kw("axis") {
            None => f(Axes::All),
            Some(Value::Array(axes)) => f(Axes::Some(&axes.iter().map(int).collect::<Vec<_>>())),
            Some(axis) => f(Axes::One(int(axis))),
        }
    }

    pub(super) fn quantization(&self) -> Result<Quantization> {
        let name = self.text("mode").unwrap_or("affine");
        let mode = QuantMode::from_name(name).ok_or_else(|| unknown(name))?;
        let (group_size, bits) = mode.defaults();
        Ok(Quantization {
            group_size: self.int("group_size", group_size),
            bits: self.int("bits", bits),
            mode,
        })
    }

    pub(super) fn index(&self) -> Vec<IndexItem> {
        let items = self.kw("index").unwrap().as_array().unwrap().iter();
        items
            .map(|item| match item {
                Value::Number(_) => int(item).into(),
                Value::Array(_) => slice(item).into(),
                Value::String(name) if name == "newaxis" => NewAxis.into(),
                Value::String(_) => Ellipsis.into(),
                _ => self.arrays.read(item).into(),
            })
            .collect()
    }
}

/// A name that this crate's types cannot say.
pub(super) fn unknown(name: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("no such name: {name}"))
}
