//! The header, read by its grammar and checked against the size of the file it heads.

use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::io::safetensors::byte_size;

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Magic, version and the longest length.
const PREFIX_SIZE: usize = 12;

/// The longest header text. NumPy stops at 10000 bytes, and writes 118 for any plain array.
const MAX_TEXT: usize = 1 << 16;

/// As many bytes of a file as [`Header::read`] may want to see.
pub(in crate::io) const MAX_PREFIX: usize = PREFIX_SIZE + MAX_TEXT;

/// The most axes of an array; NumPy has the same limit.
const MAX_RANK: usize = 64;

/// Data begin at a multiple of this.
const ALIGNMENT: usize = 64;

/// NumPy leaves room for as many digits, so that a file may grow along its first axis.
const GROWTH_DIGITS: usize = 21;

/// What a header says, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::io) struct Header {
    pub(in crate::io) dtype: Dtype,
    pub(in crate::io) big_endian: bool,
    pub(in crate::io) fortran_order: bool,
    pub(in crate::io) shape: Vec<i32>,
    /// Where the elements begin; they end with the file.
    pub(in crate::io) data_start: usize,
}

impl Header {
    /// Reads the header of a file of `size` bytes that begins with `bytes`, which are all of it or
    /// at least [`MAX_PREFIX`] of them. The file must hold exactly the elements.
    pub(in crate::io) fn read(bytes: &[u8], size: u64) -> Result<Header> {
        let (text, data_start) = split(bytes, size)?;
        let Fields { descr, fortran_order, shape } = Parser { rest: text }.fields()?;
        let (dtype, big_endian) = parse_descr(&descr)?;
        let data_size = byte_size(dtype, &shape)
            .ok_or_else(|| bad(format!("size of {dtype} {shape:?} overflows")))?;
        let expected = data_size.saturating_add(data_start as u64);
        if size < expected {
            return Err(bad(format!("truncated: expected {expected} bytes, file has {size}")));
        }
        if size > expected {
            let extra = size - expected;
            return Err(bad(format!(
                "{extra} bytes follow the array: expected {expected} bytes, file has {size}"
            )));
        }
        Ok(Header { dtype, big_endian, fortran_order, shape, data_start })
    }
}

/// Writes the header of an array in row-major order, byte for byte as NumPy does.
pub(in crate::io) fn header_bytes(dtype: Dtype, shape: &[i32]) -> Result<Vec<u8>> {
    let refused = |text| Error::new(ErrorKind::InvalidArgument, text);
    if byte_size(dtype, shape).is_none() {
        return Err(refused(format!("npy: {dtype} {shape:?} has no valid size")));
    }
    if shape.len() > MAX_RANK {
        return Err(refused(format!("npy: {} axes, more than {MAX_RANK}", shape.len())));
    }
    let dims: Vec<String> = shape.iter().map(i32::to_string).collect();
    let tuple = match &dims[..] {
        [dim] => format!("({dim},)"),
        dims => format!("({})", dims.join(", ")),
    };
    let descr = descr(dtype);
    let mut text =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {tuple}, }}").into_bytes();
    if let Some(first) = dims.first() {
        text.resize(text.len() + GROWTH_DIGITS.saturating_sub(first.len()), b' ');
    }
    let unpadded = MAGIC.len() + 4 + text.len() + 1;
    text.resize(text.len() + ALIGNMENT - unpadded % ALIGNMENT, b' ');
    text.push(b'\n');
    // 64 axes of ten digits each are far below the limit of version 1.
    let length = u16::try_from(text.len()).map_err(|_| refused("npy: header too long".into()))?;
    Ok([&MAGIC[..], &[1, 0], &length.to_le_bytes(), &text].concat())
}

fn descr(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::Bool => "|b1",
        Dtype::Uint8 => "|u1",
        Dtype::Uint16 => "<u2",
        Dtype::Uint32 => "<u4",
        Dtype::Uint64 => "<u8",
        Dtype::Int8 => "|i1",
        Dtype::Int16 => "<i2",
        Dtype::Int32 => "<i4",
        Dtype::Int64 => "<i8",
        Dtype::Float16 => "<f2",
        Dtype::Float32 => "<f4",
        Dtype::Float64 => "<f8",
        Dtype::Bfloat16 => "<V2",
        Dtype::Complex64 => "<c8",
    }
}

/// Returns the element type and whether its bytes are in the other order.
fn parse_descr(descr: &str) -> Result<(Dtype, bool)> {
    let (big_endian, code) = match descr.as_bytes() {
        [b'>', ..] => (true, &descr[1..]),
        [b'<' | b'|' | b'=', ..] => (false, &descr[1..]),
        _ => (false, descr),
    };
    let dtype = Dtype::ALL.into_iter().find(|&dtype| self::descr(dtype)[1..] == *code);
    if let Some(dtype) = dtype {
        return Ok((dtype, big_endian && dtype.size() > 1));
    }
    let shown: String = descr.chars().take(24).collect();
    let unsupported =
        |why: &str| Error::new(ErrorKind::Unsupported, format!("elements of type {shown:?} {why}"));
    Err(match code.chars().next() {
        Some('O') => unsupported("are pickles, which can run code and are never loaded"),
        Some('c') => unsupported("do not exist in MLX; save them as complex64"),
        Some('f') => unsupported("do not exist in MLX; save them as float64"),
        Some('S' | 'a' | 'U' | 'V' | 'M' | 'm') => unsupported("are no numbers of MLX"),
        _ => bad(format!("unknown type of elements {shown:?}")),
    })
}

fn bad(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::Format, text)
}

/// Finds the text of the header and where it ends.
fn split(bytes: &[u8], size: u64) -> Result<(&[u8], usize)> {
    let short =
        |least: usize| bad(format!("truncated: expected at least {least} bytes, file has {size}"));
    if !bytes.starts_with(&MAGIC[..bytes.len().min(MAGIC.len())]) {
        return Err(bad("not an npy file: it does not begin with \"\\x93NUMPY\""));
    }
    let Some(&[major, minor]) = bytes.get(6..8) else { return Err(short(8)) };
    let (length, text_start) = match (major, minor) {
        (1, 0) => {
            let length = bytes.get(8..10).and_then(|length| length.first_chunk());
            (length.map(|length| u32::from(u16::from_le_bytes(*length))), 10)
        }
        (2 | 3, 0) => {
            let length = bytes.get(8..12).and_then(|length| length.first_chunk());
            (length.map(|length| u32::from_le_bytes(*length)), PREFIX_SIZE)
        }
        _ => {
            let text = format!("npy version {major}.{minor} is unknown");
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
    };
    let length = length.ok_or_else(|| short(text_start))? as usize;
    if length > MAX_TEXT {
        return Err(bad(format!("header would have {length} bytes, more than {MAX_TEXT}")));
    }
    let end = text_start + length;
    let text = bytes.get(text_start..end).ok_or_else(|| short(end))?;
    Ok((text, end))
}

/// The three entries that every header has.
struct Fields {
    descr: String,
    fortran_order: bool,
    shape: Vec<i32>,
}

/// Reads a dict of the three known keys; anything else of Python's syntax is an error.
struct Parser<'a> {
    rest: &'a [u8],
}

impl Parser<'_> {
    fn fields(mut self) -> Result<Fields> {
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        self.expect(b'{')?;
        while !self.take(b'}') {
            let key = self.string()?;
            self.expect(b':')?;
            let repeated = match &*key {
                "descr" => descr.replace(self.descr()?).is_some(),
                "fortran_order" => fortran_order.replace(self.boolean()?).is_some(),
                "shape" => shape.replace(self.shape()?).is_some(),
                _ => return Err(bad(format!("header has the unknown key {:?}", shorten(&key)))),
            };
            if repeated {
                return Err(bad(format!("header has {key:?} twice")));
            }
            if !self.take(b',') {
                self.expect(b'}')?;
                break;
            }
        }
        self.blanks();
        if !self.rest.is_empty() {
            return Err(self.unexpected("nothing"));
        }
        let missing = |key| move || bad(format!("header has no {key:?}"));
        Ok(Fields {
            descr: descr.ok_or_else(missing("descr"))?,
            fortran_order: fortran_order.ok_or_else(missing("fortran_order"))?,
            shape: shape.ok_or_else(missing("shape"))?,
        })
    }

    fn descr(&mut self) -> Result<String> {
        self.blanks();
        if self.rest.starts_with(b"[") || self.rest.starts_with(b"(") {
            let text = "elements of several fields do not exist in MLX; save each as an array";
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        self.string()
    }

    fn boolean(&mut self) -> Result<bool> {
        self.blanks();
        for (word, value) in [(&b"True"[..], true), (b"False", false)] {
            if let Some(rest) = self.rest.strip_prefix(word) {
                self.rest = rest;
                return Ok(value);
            }
        }
        Err(self.unexpected("True or False"))
    }

    fn shape(&mut self) -> Result<Vec<i32>> {
        let mut shape = Vec::new();
        self.expect(b'(')?;
        while !self.take(b')') {
            if shape.len() == MAX_RANK {
                return Err(bad(format!("shape has more than {MAX_RANK} axes")));
            }
            shape.push(self.dim()?);
            if !self.take(b',') {
                self.expect(b')')?;
                if shape.len() == 1 {
                    return Err(bad("shape is a number, not a tuple"));
                }
                break;
            }
        }
        Ok(shape)
    }

    fn dim(&mut self) -> Result<i32> {
        self.blanks();
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (number, rest) = self.rest.split_at(digits);
        let dim = str::from_utf8(number).ok().and_then(|number| number.parse().ok());
        let is_plain = number.len() == 1 || !number.starts_with(b"0");
        let Some(dim) = dim.filter(|_| is_plain) else {
            return Err(self.unexpected("a dimension in 0..=2147483647"));
        };
        // Python 2 marked long integers.
        self.rest = rest.strip_prefix(b"L").unwrap_or(rest);
        Ok(dim)
    }

    fn string(&mut self) -> Result<String> {
        self.blanks();
        let quoted = self.rest.split_first().filter(|(quote, _)| matches!(quote, b'\'' | b'"'));
        let Some((quote, rest)) = quoted else { return Err(self.unexpected("a string")) };
        let end = rest.iter().position(|byte| byte == quote);
        let Some((inside, after)) = end.and_then(|end| Some((&rest[..end], rest.get(end + 1..)?)))
        else {
            return Err(self.unexpected("a string with an end"));
        };
        if !inside.iter().all(|byte| matches!(byte, b' '..=b'~') && *byte != b'\\') {
            return Err(self.unexpected("a string of plain ASCII"));
        }
        self.rest = after;
        Ok(String::from_utf8_lossy(inside).into_owned())
    }

    fn blanks(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    fn take(&mut self, sign: u8) -> bool {
        self.blanks();
        let after = self.rest.strip_prefix(&[sign]);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn expect(&mut self, sign: u8) -> Result<()> {
        if self.take(sign) {
            return Ok(());
        }
        Err(self.unexpected(&format!("'{}'", char::from(sign))))
    }

    fn unexpected(&self, wanted: &str) -> Error {
        let found = shorten(&String::from_utf8_lossy(&self.rest[..self.rest.len().min(64)]));
        bad(format!("header: expected {wanted}, found {found:?}"))
    }
}

/// Keeps an error text short.
fn shorten(text: &str) -> String {
    text.chars().take(24).collect()
}

#[cfg(test)]
mod tests;
