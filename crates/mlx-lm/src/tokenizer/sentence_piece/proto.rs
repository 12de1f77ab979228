//! The file `tokenizer.model`: a protocol buffer message, read without a generated schema.
//!
//! Only what tokenizing needs is kept; field numbers are those of `sentencepiece_model.proto`
//! (github.com/google/sentencepiece). Texts are lent from the file, so that what reading takes is
//! bounded by the file's size whatever lengths it claims.

/// What a SentencePiece model says of itself.
#[derive(Debug)]
pub(super) struct ModelProto<'a> {
    /// The vocabulary; a piece's position is its id.
    pub(super) pieces: Vec<Piece<'a>>,
    pub(super) trainer: TrainerSpec,
    pub(super) normalizer: NormalizerSpec<'a>,
}

/// One entry of the vocabulary.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Piece<'a> {
    pub(super) text: &'a str,
    pub(super) score: f32,
    pub(super) kind: PieceKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PieceKind {
    Normal,
    /// Stands for what has no piece.
    Unknown,
    /// Is never found in a text.
    Control,
    /// Is found in a text before anything else is.
    UserDefined,
    /// One byte of a character that has no piece.
    Byte,
}

#[derive(Debug)]
pub(super) struct TrainerSpec {
    pub(super) model_type: u64,
    pub(super) space_as_suffix: bool,
    pub(super) byte_fallback: bool,
    /// Negative where there is none, as of the two below.
    pub(super) bos_id: i64,
    pub(super) eos_id: i64,
    pub(super) pad_id: i64,
}

#[derive(Debug)]
pub(super) struct NormalizerSpec<'a> {
    pub(super) charsmap: &'a [u8],
    pub(super) add_dummy_prefix: bool,
    pub(super) remove_extra_whitespaces: bool,
    pub(super) escape_whitespaces: bool,
}

impl<'a> ModelProto<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let mut model = ModelProto {
            pieces: Vec::new(),
            trainer: TrainerSpec {
                model_type: 1,
                space_as_suffix: false,
                byte_fallback: false,
                bos_id: 1,
                eos_id: 2,
                pad_id: -1,
            },
            normalizer: NormalizerSpec {
                charsmap: &[],
                add_dummy_prefix: true,
                remove_extra_whitespaces: true,
                escape_whitespaces: true,
            },
        };
        for_each_field(bytes, |number, value| {
            match number {
                1 => model.pieces.push(Piece::parse(value.bytes()?)?),
                2 => model.trainer.parse(value.bytes()?)?,
                3 => model.normalizer.parse(value.bytes()?)?,
                _ => {}
            }
            Ok(())
        })?;
        match model.pieces.is_empty() {
            true => Err("no pieces".to_owned()),
            false => Ok(model),
        }
    }
}

impl<'a> Piece<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let mut piece = Piece { text: "", score: 0.0, kind: PieceKind::Normal };
        for_each_field(bytes, |number, value| {
            match number {
                1 => {
                    piece.text = std::str::from_utf8(value.bytes()?)
                        .map_err(|_| "a piece is not UTF-8".to_owned())?;
                }
                2 => piece.score = value.float()?,
                3 => {
                    piece.kind = match value.varint()? {
                        // Unused ones are left out by a setting at run time, which is not ours.
                        1 | 5 => PieceKind::Normal,
                        2 => PieceKind::Unknown,
                        3 => PieceKind::Control,
                        4 => PieceKind::UserDefined,
                        6 => PieceKind::Byte,
                        kind => return Err(format!("a piece of unknown type {kind}")),
                    };
                }
                _ => {}
            }
            Ok(())
        })?;
        if piece.text.is_empty() {
            return Err("a piece without text".to_owned());
        }
        if !piece.score.is_finite() {
            return Err(format!("piece {:?} has the score {}", piece.text, piece.score));
        }
        Ok(piece)
    }
}

impl TrainerSpec {
    fn parse(&mut self, bytes: &[u8]) -> Result<(), String> {
        for_each_field(bytes, |number, value| {
            match number {
                3 => self.model_type = value.varint()?,
                24 => self.space_as_suffix = value.varint()? != 0,
                35 => self.byte_fallback = value.varint()? != 0,
                // A negative int32 is written as the same 64-bit number.
                41 => self.bos_id = value.varint()? as i64,
                42 => self.eos_id = value.varint()? as i64,
                43 => self.pad_id = value.varint()? as i64,
                _ => {}
            }
            Ok(())
        })
    }
}

impl<'a> NormalizerSpec<'a> {
    fn parse(&mut self, bytes: &'a [u8]) -> Result<(), String> {
        for_each_field(bytes, |number, value| {
            match number {
                2 => self.charsmap = value.bytes()?,
                3 => self.add_dummy_prefix = value.varint()? != 0,
                4 => self.remove_extra_whitespaces = value.varint()? != 0,
                5 => self.escape_whitespaces = value.varint()? != 0,
                _ => {}
            }
            Ok(())
        })
    }
}

/// A field's value as it stands in the message.
#[derive(Clone, Copy)]
enum Value<'a> {
    Varint(u64),
    Fixed64,
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
}

impl<'a> Value<'a> {
    fn varint(self) -> Result<u64, String> {
        match self {
            Value::Varint(number) => Ok(number),
            _ => Err(wrong_type("a number")),
        }
    }

    fn float(self) -> Result<f32, String> {
        match self {
            Value::Fixed32(bytes) => Ok(f32::from_le_bytes(bytes)),
            _ => Err(wrong_type("a float")),
        }
    }

    fn bytes(self) -> Result<&'a [u8], String> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(wrong_type("bytes")),
        }
    }
}

fn wrong_type(expected: &str) -> String {
    format!("a field that should hold {expected} holds something else")
}

/// Calls `field` with the number and value of each field of a message.
fn for_each_field<'a>(
    message: &'a [u8],
    mut field: impl FnMut(u64, Value<'a>) -> Result<(), String>,
) -> Result<(), String> {
    let mut rest = message;
    while !rest.is_empty() {
        let tag = take_varint(&mut rest)?;
        let value = match tag & 7 {
            0 => Value::Varint(take_varint(&mut rest)?),
            1 => {
                take(&mut rest, 8)?;
                Value::Fixed64
            }
            2 => {
                let len = take_varint(&mut rest)?;
                Value::Bytes(take(&mut rest, len)?)
            }
            5 => {
                let mut bytes = [0; 4];
                bytes.copy_from_slice(take(&mut rest, 4)?);
                Value::Fixed32(bytes)
            }
            kind => return Err(format!("no protocol buffer: wire type {kind}")),
        };
        field(tag >> 3, value)?;
    }
    Ok(())
}

fn take<'a>(rest: &mut &'a [u8], len: u64) -> Result<&'a [u8], String> {
    let split = usize::try_from(len).ok().and_then(|len| rest.split_at_checked(len));
    let (taken, behind) =
        split.ok_or_else(|| format!("cut off: {len} bytes announced, {} there", rest.len()))?;
    *rest = behind;
    Ok(taken)
}

fn take_varint(rest: &mut &[u8]) -> Result<u64, String> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        number |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err("no protocol buffer: a number of more than 64 bits".to_owned())
}
