//! MLX's file of exported functions: little-endian, without lengths to skip by, so that it is read
//! from start to end.
//!
//! A header; then for each function its keywords, inputs, outputs, and the ops in the order they are
//! computed. Arrays are numbered by addresses that they once had. Nothing that the file says is
//! believed: counts are held against the bytes that are left, numbers against what was defined.

use std::collections::HashMap;
use std::fs;
use std::io::{BufReader, Read};
use std::path::Path;

use crate::array::Array;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::ffi::array_from_bytes;

/// What the file says about an array.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    pub(super) shape: Vec<i32>,
    pub(super) dtype: Dtype,
}

/// A setting of an op.
#[derive(Clone, Debug)]
pub(super) enum Field {
    Int(i32),
    Float(f64),
    Bool(bool),
    Ints(Vec<i32>),
    Dtype(Dtype),
}

pub(super) struct Op {
    pub(super) name: &'static str,
    pub(super) state: Vec<Field>,
    /// Positions among the values: inputs first, then what each step adds.
    pub(super) inputs: Vec<usize>,
    pub(super) outputs: Vec<Spec>,
}

pub(super) enum Step {
    Constant(Array),
    Op(Op),
}

pub(super) struct Function {
    /// The names of the last inputs, in order.
    pub(super) keywords: Vec<String>,
    pub(super) inputs: Vec<Spec>,
    pub(super) steps: Vec<Step>,
    pub(super) outputs: Vec<usize>,
}

pub(super) struct File {
    pub(super) version: String,
    pub(super) metadata: String,
    pub(super) shapeless: bool,
    pub(super) functions: Vec<Function>,
}

impl File {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let file = fs::File::open(path).map_err(|e| Error::io(path, e))?;
        let about = file.metadata().map_err(|e| Error::io(path, e))?;
        let mut reader = Reader { input: BufReader::new(file), left: about.len() };
        reader.file().map_err(|failure| match failure {
            Failure::Io(e) => Error::io(path, e),
            Failure::Format(text) => Error::format(path, text),
            Failure::Own(error) => error.context(path.display()),
        })
    }
}

enum Failure {
    Io(std::io::Error),
    Format(String),
    Own(Error),
}

impl From<&str> for Failure {
    fn from(text: &str) -> Self {
        Failure::Format(text.to_owned())
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Failure::Format(text)
    }
}

type Parsed<T> = Result<T, Failure>;

/// The settings of each op that [`super::replay`] knows, a letter each: i an integer, f and d floats
/// of 4 and 8 bytes, b a flag, v a list of integers, t a dtype.
const OPS: &[(&str, &str)] = &[
    ("Abs", ""),
    ("Add", ""),
    ("AddMM", "ff"),
    ("Arange", "ddd"),
    ("ArcCos", ""),
    ("ArcCosh", ""),
    ("ArcSin", ""),
    ("ArcSinh", ""),
    ("ArcTan", ""),
    ("ArcTan2", ""),
    ("ArcTanh", ""),
    ("ArgPartition", "ii"),
    ("ArgReduce", "ii"),
    ("ArgSort", "i"),
    ("AsType", "t"),
    ("BitwiseBinary", "i"),
    ("Broadcast", "v"),
    ("BroadcastAxes", "v"),
    ("Ceil", ""),
    ("Concatenate", "i"),
    ("Conjugate", ""),
    ("Copy", ""),
    ("Cos", ""),
    ("Cosh", ""),
    ("Depends", ""),
    ("Divide", ""),
    ("DivMod", ""),
    ("DynamicSlice", "vv"),
    ("DynamicSliceUpdate", "v"),
    ("Equal", "b"),
    ("Erf", ""),
    ("ErfInv", ""),
    ("Exp", ""),
    ("Expm1", ""),
    ("ExpandDims", "v"),
    ("Flatten", "ii"),
    ("Floor", ""),
    ("Full", ""),
    ("Gather", "vv"),
    ("GatherAxis", "i"),
    ("Greater", ""),
    ("GreaterEqual", ""),
    ("Imag", ""),
    ("LayerNorm", "f"),
    ("Less", ""),
    ("LessEqual", ""),
    ("Log", "i"),
    ("Log1p", ""),
    ("LogAddExp", ""),
    ("LogSumExp", ""),
    ("LogicalAnd", ""),
    ("LogicalNot", ""),
    ("LogicalOr", ""),
    ("Matmul", ""),
    ("Maximum", ""),
    ("Minimum", ""),
    ("Multiply", ""),
    ("Negative", ""),
    ("NotEqual", ""),
    ("NumberOfElements", "vbt"),
    ("Pad", "vvv"),
    ("Partition", "ii"),
    ("Power", ""),
    ("RMSNorm", "f"),
    ("RandomBits", "vi"),
    ("Real", ""),
    ("Reduce", "iv"),
    ("Remainder", ""),
    ("Reshape", "v"),
    ("Round", ""),
    ("Scan", "iibb"),
    ("Scatter", "iv"),
    ("ScatterAxis", "ii"),
    ("SearchSorted", "b"),
    ("Select", ""),
    ("Sigmoid", ""),
    ("Sign", ""),
    ("Sin", ""),
    ("Sinh", ""),
    ("Slice", "vvv"),
    ("SliceUpdate", "ivvv"),
    ("Softmax", "b"),
    ("Sort", "i"),
    ("Split", "vi"),
    ("Sqrt", "b"),
    ("Square", ""),
    ("Squeeze", "v"),
    ("StopGradient", ""),
    ("Subtract", ""),
    ("Tan", ""),
    ("Tanh", ""),
    ("Transpose", "v"),
    ("Unflatten", "iv"),
    ("View", "t"),
];

struct Reader<R> {
    input: R,
    left: u64,
}

impl<R: Read> Reader<R> {
    fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Parsed<()> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or("the file ends too early")?;
        self.input.read_exact(bytes).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => "the file ends too early".into(),
            _ => Failure::Io(e),
        })
    }

    fn bytes(&mut self, len: u64) -> Parsed<Vec<u8>> {
        if len > self.left {
            return Err(format!("{len} bytes where {} are left", self.left).into());
        }
        let mut bytes = vec![0; len as usize];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn int(&mut self) -> Parsed<i32> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    fn long(&mut self) -> Parsed<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn flag(&mut self) -> Parsed<bool> {
        match self.array::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(format!("{other} where 0 or 1 is due").into()),
        }
    }

    /// Reads a count of things that take at least `size` bytes each.
    fn count(&mut self, size: u64) -> Parsed<u64> {
        let count = self.long()?;
        if count > self.left / size {
            return Err(format!("a list of {count} where {} bytes are left", self.left).into());
        }
        Ok(count)
    }

    fn list<T>(&mut self, size: u64, item: impl Fn(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let count = self.count(size)?;
        (0..count).map(|_| item(self)).collect()
    }

    fn text(&mut self) -> Parsed<String> {
        let len = self.count(1)?;
        String::from_utf8(self.bytes(len)?).map_err(|_| "text that is not UTF-8".into())
    }

    fn dtype(&mut self) -> Parsed<Dtype> {
        let (value, [size]) = (self.int()?, self.array::<1>()?);
        let dtype = usize::try_from(value).ok().and_then(|i| Dtype::ALL.get(i).copied());
        dtype
            .filter(|dtype| dtype.size() == usize::from(size))
            .ok_or_else(|| format!("there is no dtype {value} of {size} bytes").into())
    }

    fn shape(&mut self) -> Parsed<Vec<i32>> {
        let shape = self.list(4, Self::int)?;
        if shape.iter().any(|&n| n < 0) {
            return Err(format!("a shape {shape:?}").into());
        }
        Ok(shape)
    }

    fn spec(&mut self) -> Parsed<Spec> {
        Ok(Spec { shape: self.shape()?, dtype: self.dtype()? })
    }

    fn file(&mut self) -> Parsed<File> {
        let version = self.text()?;
        let count = self.int()?;
        let shapeless = self.flag()?;
        let metadata = self.text()?;
        if count < 1 {
            return Err(format!("{count} functions").into());
        }
        let mut constants = HashMap::new();
        let mut functions = Vec::new();
        for _ in 0..count {
            functions.push(self.function(&mut constants)?);
        }
        Ok(File { version, metadata, shapeless, functions })
    }

    fn function(&mut self, constants: &mut HashMap<u64, Array>) -> Parsed<Function> {
        let keywords = self.list(8, Self::text)?;
        let ids = self.list(8, Self::long)?;
        let inputs = self.list(13, Self::spec)?;
        let output_ids = self.list(8, Self::long)?;
        if ids.len() != inputs.len() || keywords.len() > inputs.len() {
            let (n, m, k) = (ids.len(), inputs.len(), keywords.len());
            return Err(format!("{m} inputs with {n} numbers and {k} keywords").into());
        }
        if keywords.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(format!("keywords {keywords:?}").into());
        }
        let mut values = Values { places: HashMap::new(), len: 0 };
        for &id in &ids {
            values.define(id)?;
        }
        let mut steps = Vec::new();
        for _ in 0..self.count(9)? {
            let id = self.long()?;
            if self.flag()? {
                steps.push(Step::Op(self.op(id, &mut values)?));
            } else if self.flag()? {
                let constant = match constants.get(&id) {
                    Some(constant) => constant.clone(),
                    None => self.constant()?,
                };
                constants.insert(id, constant.clone());
                values.define(id)?;
                steps.push(Step::Constant(constant));
            } else {
                values.place(id)?;
            }
        }
        let outputs = output_ids.iter().map(|&id| values.place(id)).collect::<Parsed<_>>()?;
        Ok(Function { keywords, inputs, steps, outputs })
    }

    fn constant(&mut self) -> Parsed<Array> {
        let Spec { shape, dtype } = self.spec()?;
        let sizes = shape.iter().map(|&n| n as u64);
        let len = sizes.chain([dtype.size() as u64]).try_fold(1u64, u64::checked_mul);
        let len = len.ok_or_else(|| format!("a constant of shape {shape:?}"))?;
        let mut bytes = self.bytes(len)?;
        if dtype == Dtype::Bool {
            bytes.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
        }
        array_from_bytes(&bytes, &shape, dtype).map_err(Failure::Own)
    }

    fn op(&mut self, id: u64, values: &mut Values) -> Parsed<Op> {
        let inputs = self.list(8, Self::long)?;
        let inputs = inputs.iter().map(|&id| values.place(id)).collect::<Parsed<_>>()?;
        // The stream that it once ran on: its number, and the device's kind and number.
        for _ in 0..3 {
            self.int()?;
        }
        let name = self.text()?;
        let Some(&(name, layout)) = OPS.iter().find(|(known, _)| *known == name) else {
            return Err(format!("op {name:?} cannot be replayed").into());
        };
        let state = layout.bytes().map(|letter| self.field(letter)).collect::<Parsed<_>>()?;
        let outputs = match self.long()? {
            0 => {
                let spec = self.spec()?;
                values.define(id)?;
                vec![spec]
            }
            siblings => {
                let ids = self.list(8, Self::long)?;
                let shapes = self.list(8, Self::shape)?;
                let dtypes = self.list(5, Self::dtype)?;
                let n = ids.len();
                let counts = [shapes.len(), dtypes.len()];
                if counts != [n, n] || n as u64 != siblings.saturating_add(1) || !ids.contains(&id)
                {
                    return Err(format!("{name} with {siblings} + 1 outputs, {n} numbered").into());
                }
                for &id in &ids {
                    values.define(id)?;
                }
                let specs = shapes.into_iter().zip(dtypes);
                specs.map(|(shape, dtype)| Spec { shape, dtype }).collect()
            }
        };
        Ok(Op { name, state, inputs, outputs })
    }

    fn field(&mut self, letter: u8) -> Parsed<Field> {
        Ok(match letter {
            b'i' => Field::Int(self.int()?),
            b'f' => Field::Float(f32::from_le_bytes(self.array()?).into()),
            b'd' => Field::Float(f64::from_le_bytes(self.array()?)),
            b'b' => Field::Bool(self.flag()?),
            b't' => Field::Dtype(self.dtype()?),
            _ => Field::Ints(self.list(4, Self::int)?),
        })
    }
}

/// Where in a function's list of values each number of the file stands.
struct Values {
    places: HashMap<u64, usize>,
    len: usize,
}

impl Values {
    fn define(&mut self, id: u64) -> Parsed<()> {
        if self.places.insert(id, self.len).is_some() {
            return Err(format!("array {id} is defined twice").into());
        }
        self.len += 1;
        Ok(())
    }

    fn place(&self, id: u64) -> Parsed<usize> {
        self.places.get(&id).copied().ok_or_else(|| format!("array {id} is not defined").into())
    }
}
