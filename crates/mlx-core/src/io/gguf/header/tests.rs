use super::*;

/// Puts a file together, number by number.
#[derive(Clone, Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn u32(self, value: u32) -> Self {
        self.raw(&value.to_le_bytes())
    }

    fn u64(self, value: u64) -> Self {
        self.raw(&value.to_le_bytes())
    }

    fn text(self, text: &str) -> Self {
        self.u64(text.len() as u64).raw(text.as_bytes())
    }

    /// A key of the metadata and a `u32`.
    fn number(self, key: &str, value: u32) -> Self {
        self.text(key).u32(4).u32(value)
    }

    fn tensor(self, name: &str, dims: &[u64], ty: u32, offset: u64) -> Self {
        let bytes = self.text(name).u32(dims.len() as u32);
        dims.iter().fold(bytes, |bytes, &dim| bytes.u64(dim)).u32(ty).u64(offset)
    }

    fn data(mut self, size: usize) -> Self {
        self.0.resize(self.0.len().next_multiple_of(32) + size, 0);
        self
    }
}

fn file(n_tensors: u64, n_values: u64) -> Bytes {
    Bytes::default().raw(b"GGUF").u32(3).u64(n_tensors).u64(n_values)
}

fn check(bytes: &Bytes) -> Result<Header> {
    Header::read(Path::new("x"), &bytes.0)
}

#[test]
fn sound_files_are_read() {
    let header = check(
        &file(3, 2)
            .number("general.alignment", 16)
            .number("n", 7)
            .tensor("a", &[32, 2], 2, 48)
            .tensor("b", &[], 0, 0)
            .tensor("empty", &[0, 4], 0, 1 << 40)
            .data(48 + 36),
    )
    .unwrap();
    assert_eq!((header.version, header.alignment), (3, 16));
    assert_eq!(header.metadata[1], ("n".into(), GgufValue::U32(7)));
    let [a, b, empty] = &header.tensors[..] else { panic!("three tensors") };
    assert_eq!(a.1.shape, [2, 32]);
    assert_eq!((a.1.range.len(), b.1.range.len(), empty.1.range.len()), (36, 4, 0));
    assert_eq!(b.1.range.start + 48, a.1.range.start);
    assert_eq!(empty.1.shape, [4, 0]);
    let two = Bytes::default().raw(b"GGUF").u32(2).u64(0).u64(0);
    assert_eq!(check(&two).unwrap().version, 2);
    // What lies behind the last tensor, or between two, is nobody's business.
    assert!(check(&file(1, 0).tensor("a", &[4], 0, 0).data(99)).is_ok());
}

#[test]
fn unsound_files_say_why() {
    let array = |ty: u32, count: u64| file(0, 1).text("k").u32(9).u32(ty).u64(count);
    let deep = (0..8).fold(array(9, 1), |bytes, _| bytes.u32(9).u64(1));
    let bits = |bytes: &[u8]| Bytes::default().raw(bytes);
    for (bytes, expected) in [
        (bits(b""), "truncated: the magic number takes 4 bytes from byte 0, file has 0"),
        (bits(b"GG"), "truncated: the magic number"),
        (bits(b"\x80\x02}q"), "not a GGUF file: it begins with \\x80\\x02}q"),
        (bits(b"GGUF").u32(1).u32(0), "GGUF version 1 is not read"),
        (bits(b"GGUF").u32(4).u64(0), "GGUF version 4 is not read, only 2 and 3"),
        (bits(b"GGUF").u32(3 << 24).u64(0), "a big-endian file (version 3) is not read"),
        (bits(b"GGUF").u32(3).u64(0), "truncated: the number of metadata values"),
        (file(u64::MAX, 0), "truncated: 18446744073709551615 tensors from byte 24, file has 24"),
        (file(0, 1 << 60), "truncated: 1152921504606846976 metadata values"),
        (file(0, 1).u64(u64::MAX).u64(0), "key 0: truncated: a string takes 18446744073709551615"),
        (file(0, 1).text("").u32(4).u32(1).u32(0), "key 0 has an empty name"),
        (file(0, 1).text(&"k".repeat(65_536)).u32(4).u32(1), "key 0 has a name of 65536 bytes"),
        (file(0, 1).u64(1).raw(b"\xff").u64(0), "key 0: string is not UTF-8"),
        (file(0, 1).text("k").u32(13).u32(1), "key \"k\": unknown type of value 13"),
        (file(0, 1).text("k").u32(7).raw(&[2]), "key \"k\": a bool is the byte 2, not 0 or 1"),
        (file(0, 1).text("k").u32(8).u64(5).u32(0), "key \"k\": truncated: a string takes 5 bytes"),
        (file(0, 2).number("k", 1).number("k", 1), "key \"k\" is listed twice"),
        (array(0, u64::MAX), "key \"k\": truncated: 18446744073709551615 values from byte 49"),
        (array(10, 1 << 61).u64(0), "key \"k\": truncated: 2305843009213693952 values"),
        (array(8, 3).text("a").text("b"), "key \"k\": truncated: 3 strings"),
        (array(8, 2).text("a").u64(9), "key \"k\": truncated: a string takes 9 bytes"),
        (array(9, 5).u64(0), "key \"k\": truncated: 5 arrays"),
        (array(7, 2).raw(&[0, 3]), "key \"k\": a bool is the byte 3"),
        (deep.u32(0).u64(0), "key \"k\": arrays lie more than 8 deep in one another"),
        (file(0, 1).number(ALIGNMENT_KEY, 0), "general.alignment is 0, not a power of two"),
        (file(0, 1).number(ALIGNMENT_KEY, 48), "general.alignment is 48, not a power of two"),
        (
            file(0, 1).text(ALIGNMENT_KEY).u32(8).text("32"),
            "general.alignment is 32, not a 32-bit unsigned integer",
        ),
        (
            file(1, 1).number(ALIGNMENT_KEY, 1 << 31).tensor("t", &[1], 0, 0).data(4),
            "tensor \"t\": truncated: expected 2147483652 bytes",
        ),
        (file(1, 0).tensor("", &[1], 0, 0).data(4), "tensor 0 has an empty name"),
        (file(1, 0).tensor("t", &[1; 5], 0, 0), "tensor \"t\": 5 dimensions, ggml has at most 4"),
        (
            file(1, 0).tensor("t", &[1 << 31], 0, 0),
            "tensor \"t\": dimension 2147483648 is more than 2147483647",
        ),
        (file(1, 0).tensor("t", &[1], 99, 0).data(4), "tensor \"t\": unknown type 99"),
        (
            file(1, 0).tensor("t", &[32], 31, 0).data(4),
            "tensor \"t\": type 31 (Q4_0_4_4) was removed from ggml",
        ),
        (
            file(1, 0).tensor("t", &[33], 2, 0).data(99),
            "tensor \"t\": Q4_0 [33] has no size: rows hold blocks of 32",
        ),
        (
            file(1, 0).tensor("t", &[i32::MAX as u64; 4], 0, 0).data(99),
            "has no size: rows hold blocks of 1, or it overflows",
        ),
        (file(1, 0).tensor("t", &[1], 0, 4).data(8), "offset 4 is not a multiple of 32"),
        (
            file(1, 0).tensor("t", &[1], 0, u64::MAX - 31).data(8),
            "tensor \"t\": offset 18446744073709551584 and 4 bytes overflow",
        ),
        (file(1, 0).tensor("t", &[2], 0, 0).data(7), "truncated: expected 72 bytes, file has 71"),
        (file(1, 0).tensor("t", &[1], 0, 32).data(32), "truncated: expected 100 bytes"),
        (
            file(2, 0).tensor("t", &[1], 0, 0).tensor("t", &[1], 0, 32).data(64),
            "tensor \"t\" is listed twice",
        ),
        (
            file(2, 0).tensor("t", &[9], 0, 0).tensor("u", &[1], 0, 32).data(64),
            "tensor \"u\": bytes 128..132 also belong to \"t\"",
        ),
        (
            file(2, 0).tensor("t", &[9], 0, 0).tensor("u", &[9], 0, 0).data(64),
            "bytes 96..132 also belong to",
        ),
    ] {
        let error = check(&bytes).expect_err(expected);
        let text = error.to_string();
        assert!(text.starts_with("x: ") && text.contains(expected), "{text}\nnot: {expected}");
        assert!(matches!(error.kind(), ErrorKind::Format | ErrorKind::Unsupported), "{text}");
    }
}
