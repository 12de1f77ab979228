use super::*;
use crate::io::SafetensorsFile;

fn file_with(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

fn check_refused(bytes: Vec<u8>, kind: ErrorKind, fragment: &str) {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
    let error = SafetensorsFile::from_bytes("dir/x.safetensors", bytes);
    let error = error.err().unwrap_or_else(|| panic!("accepted, expected {fragment:?}: {shown}"));
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    assert!(text.starts_with("dir/x.safetensors: "), "{text}");
    assert!(text.contains(fragment), "expected {fragment:?} in {text:?}");
    assert!(!text.ends_with('.'), "{text}");
}

#[test]
fn refuses_files_without_a_header() {
    let length = |length: u64, rest: &[u8]| [&length.to_le_bytes()[..], rest].concat();
    let cases: [(Vec<u8>, &str); 17] = [
        (vec![], "truncated: expected at least 8 bytes, file has 0"),
        (vec![1, 0, 0], "truncated: expected at least 8 bytes, file has 3"),
        (length(2, b""), "truncated: expected at least 10 bytes, file has 8"),
        (length(300, b"{"), "truncated: expected at least 308 bytes, file has 9"),
        (length(100_000_000, b"{"), "truncated: expected at least 100000008 bytes"),
        (length(100_000_001, b"{"), "its header would have 100000001 bytes, more than 100000000"),
        (length(u64::MAX, b"{}"), "its header would have 18446744073709551615 bytes"),
        (vec![0; 500], "not a safetensors file: its header has 0 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid".to_vec(), "a git-lfs pointer"),
        (b"GGUF\x03\0\0\0".to_vec(), "a GGUF file"),
        (b"PK\x03\x04".to_vec(), "a zip archive"),
        (b"<!DOCTYPE html>".to_vec(), "a web page"),
        (length(2, b"[]"), "header begins with byte 0x5b, not with a brace"),
        (length(3, b" {}"), "header begins with byte 0x20"),
        (length(2, b"\0\0"), "header begins with byte 0x00"),
        (
            length(4, b"{\xff\xff}"),
            "header is not UTF-8: invalid utf-8 sequence of 1 bytes from index 1",
        ),
        (length(9, b"{\"a\": [\0}"), "header: "),
    ];
    for (bytes, fragment) in cases {
        check_refused(bytes, ErrorKind::Format, fragment);
    }
}

#[test]
fn refuses_headers_that_make_no_sense() {
    // Header, bytes of data, fragment of the text.
    let cases: [(&str, usize, &str); 45] = [
        // JSON
        ("{", 0, "header: EOF while parsing an object"),
        ("{}}", 0, "header: trailing characters"),
        ("{}\0\0", 0, "header: trailing characters"),
        (r#"{"a": 1}"#, 0, r#"header: "a": invalid type: integer `1`, expected struct"#),
        (r#"{"a": {"dtype": "U8", "shape": [1]}}"#, 1, r#""a": missing field `data_offsets`"#),
        (r#"{"a": {"dtype": "U8", "data_offsets": [0, 1]}}"#, 1, r#""a": missing field `shape`"#),
        (r#"{"a": {"shape": [1], "data_offsets": [0, 1]}}"#, 1, r#""a": missing field `dtype`"#),
        (
            r#"{"a": {"dtype": "U8", "dtype": "I8", "shape": [1], "data_offsets": [0, 1]}}"#,
            1,
            "duplicate field `dtype`",
        ),
        (r#"{"a": {"dtype": 3, "shape": [1], "data_offsets": [0, 1]}}"#, 1, "expected a string"),
        // Metadata
        (
            r#"{"__metadata__": []}"#,
            0,
            r#""__metadata__": invalid type: sequence, expected an object of strings"#,
        ),
        (r#"{"__metadata__": {"a": 1}}"#, 0, "invalid type: integer `1`, expected a string"),
        (r#"{"__metadata__": {"a": "1", "a": "2"}}"#, 0, r#""__metadata__": "a" is listed twice"#),
        (r#"{"__metadata__": {}, "__metadata__": {}}"#, 0, "__metadata__ is listed twice"),
        (r#"{"__metadata__": null, "__metadata__": {}}"#, 0, "__metadata__ is listed twice"),
        // Dtype
        (
            r#"{"a": {"dtype": "f32", "shape": [1], "data_offsets": [0, 4]}}"#,
            4,
            r#"tensor "a": unknown dtype "f32""#,
        ),
        (
            r#"{"a": {"dtype": "", "shape": [1], "data_offsets": [0, 4]}}"#,
            4,
            r#"tensor "a": unknown dtype """#,
        ),
        (
            r#"{"a": {"dtype": "F128", "shape": [1], "data_offsets": [0, 16]}}"#,
            16,
            r#"unknown dtype "F128""#,
        ),
        // Shape
        (r#"{"a": {"dtype": "U8", "shape": 1, "data_offsets": [0, 1]}}"#, 1, "expected a sequence"),
        (
            r#"{"a": {"dtype": "U8", "shape": [-1], "data_offsets": [0, 1]}}"#,
            1,
            r#""a": invalid type: integer `-1`, expected a dimension in 0..=2147483647"#,
        ),
        (
            r#"{"a": {"dtype": "U8", "shape": [1.5], "data_offsets": [0, 1]}}"#,
            1,
            "floating point `1.5`, expected a dimension",
        ),
        (
            r#"{"a": {"dtype": "U8", "shape": ["1"], "data_offsets": [0, 1]}}"#,
            1,
            "expected a dimension",
        ),
        (
            r#"{"a": {"dtype": "U8", "shape": [null], "data_offsets": [0, 1]}}"#,
            1,
            "expected a dimension",
        ),
        (
            r#"{"a": {"dtype": "U8", "shape": [2147483648], "data_offsets": [0, 1]}}"#,
            1,
            "integer `2147483648`, expected a dimension",
        ),
        (
            r#"{"a": {"dtype": "U8", "shape": [18446744073709551616], "data_offsets": [0, 1]}}"#,
            1,
            "expected a dimension",
        ),
        (
            r#"{"a": {"dtype": "U8", "shape": [2147483647, 2147483647, 4], "data_offsets": [0, 1]}}"#,
            1,
            r#"tensor "a": size of U8 [2147483647, 2147483647, 4] overflows"#,
        ),
        (
            r#"{"a": {"dtype": "F64", "shape": [2147483647, 2147483647], "data_offsets": [0, 1]}}"#,
            1,
            "overflows",
        ),
        (
            r#"{"a": {"dtype": "U8", "shape": [0, 2147483647, 2147483647, 4], "data_offsets": [0, 0]}}"#,
            0,
            "overflows",
        ),
        // Product that wraps 64 bits to 0
        (
            r#"{"a": {"dtype": "U8", "shape": [65536, 65536, 65536, 65536], "data_offsets": [0, 0]}}"#,
            0,
            "overflows",
        ),
        // Offsets
        (r#"{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0]}}"#, 1, "invalid length 1"),
        (
            r#"{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1, 2]}}"#,
            1,
            "trailing characters",
        ),
        (
            r#"{"a": {"dtype": "U8", "shape": [1], "data_offsets": [-1, 0]}}"#,
            1,
            "invalid value: integer `-1`, expected u64",
        ),
        (r#"{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0.0, 1.0]}}"#, 1, "expected u64"),
        (
            r#"{"a": {"dtype": "U8", "shape": [1], "data_offsets": [1, 0]}}"#,
            1,
            "data_offsets [1, 0] are out of order",
        ),
        (
            r#"{"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 20]}}"#,
            20,
            "data_offsets [0, 20] hold 20 bytes, F32 [2, 3] needs 24",
        ),
        (
            r#"{"a": {"dtype": "F32", "shape": [], "data_offsets": [0, 0]}}"#,
            0,
            "hold 0 bytes, F32 [] needs 4",
        ),
        (
            r#"{"a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 1]}}"#,
            1,
            "hold 1 bytes, U8 [0] needs 0",
        ),
        // Layout
        (
            r#"{"a": {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]}}"#,
            3,
            r#"tensor "a": bytes 0..1 before it belong to no tensor"#,
        ),
        (
            r#"{"b": {"dtype": "U8", "shape": [2], "data_offsets": [4, 6]}, "a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}"#,
            6,
            r#"tensor "b": bytes 2..4 before it"#,
        ),
        (
            r#"{"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}, "b": {"dtype": "U8", "shape": [4], "data_offsets": [2, 6]}}"#,
            6,
            r#"tensor "b": bytes 2..4 also belong to "a""#,
        ),
        (
            r#"{"a": {"dtype": "U8", "shape": [0], "data_offsets": [7, 7]}}"#,
            0,
            "bytes 0..7 before it",
        ),
        (
            r#"{"a": {"dtype": "U8", "shape": [0], "data_offsets": [18446744073709551615, 18446744073709551615]}}"#,
            0,
            "before it belong to no tensor",
        ),
        (
            r#"{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, "a": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}}"#,
            2,
            r#"tensor "a" is listed twice"#,
        ),
        (
            r#"{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, "\u0061": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}"#,
            1,
            r#"tensor "a" is listed twice"#,
        ),
        // File size: 62 bytes of header
        (
            r#"{"a": {"dtype": "I16", "shape": [4], "data_offsets": [0, 8]}} "#,
            7,
            "truncated: expected 78 bytes, file has 77",
        ),
        (
            r#"{"a": {"dtype": "I16", "shape": [4], "data_offsets": [0, 8]}} "#,
            9,
            "1 bytes follow the last tensor: expected 78 bytes, file has 79",
        ),
    ];
    for (header, data_size, fragment) in cases {
        check_refused(file_with(header, &vec![0; data_size]), ErrorKind::Format, fragment);
    }
}

#[test]
fn refuses_packed_dtypes_as_unsupported() {
    for dtype in PACKED_DTYPES {
        let header =
            format!(r#"{{"a": {{"dtype": "{dtype}", "shape": [8], "data_offsets": [0, 4]}}}}"#);
        let fragment = format!(r#"tensor "a": dtype {dtype} is smaller than a byte"#);
        check_refused(file_with(&header, &[0; 4]), ErrorKind::Unsupported, &fragment);
    }
}

#[test]
fn refuses_bools_that_are_none() {
    let header = r#"{"a": {"dtype": "BOOL", "shape": [3], "data_offsets": [0, 3]}}"#;
    SafetensorsFile::from_bytes("x", file_with(header, &[0, 1, 1])).unwrap();
    let fragment = r#"tensor "a": BOOL holds the byte 2, not 0 or 1"#;
    check_refused(file_with(header, &[0, 1, 2]), ErrorKind::Format, fragment);
}

#[test]
fn nesting_and_huge_headers_do_no_harm() {
    let deep = "[".repeat(100_000);
    let skipped = format!(r#"{{"a": {{"x": {deep}"#);
    check_refused(file_with(&skipped, b""), ErrorKind::Format, "EOF while parsing a list");
    let shape = format!(r#"{{"a": {{"shape": {deep}"#);
    check_refused(file_with(&shape, b""), ErrorKind::Format, "expected a dimension");
    let long = format!(r#"{{"a": {{"dtype": "U8", "shape": [{}0]"#, "1,".repeat(100_000));
    check_refused(file_with(&long, b""), ErrorKind::Format, "EOF while parsing");
}

#[test]
fn accepts_every_dtype() {
    for (stored, dtype) in STORED_DTYPES {
        let size = 3 * dtype.size();
        let header = format!(
            r#"{{"a": {{"dtype": "{stored}", "shape": [3, 1], "data_offsets": [0, {size}]}}}}"#
        );
        let file = SafetensorsFile::from_bytes("x", file_with(&header, &vec![1; size])).unwrap();
        let data_start = 8 + header.len();
        let range = data_start..data_start + size;
        let expected = TensorInfo { dtype, stored_dtype: stored, shape: vec![3, 1], range };
        assert_eq!(file.get("a"), Some(&expected));
    }
    for dtype in Dtype::ALL {
        assert_eq!(
            STORED_DTYPES.iter().find(|(name, _)| *name == stored_dtype(dtype)).unwrap().1,
            dtype
        );
    }
}

#[test]
fn accepts_what_writers_differ_in() {
    // No metadata, null metadata, trailing spaces, foreign keys, any order of JSON, odd names.
    let header = r#"{"__metadata__": null, "": {"dtype": "U8", "shape": [2], "data_offsets": [3, 5]},
        "é\n": {"dtype": "U8", "shape": [], "data_offsets": [0, 1], "extra": {"a": [1]}},
        "empty": {"dtype": "F64", "shape": [3, 0], "data_offsets": [3, 3]},
        "z": {"dtype": "U8", "shape": [1, 2, 1], "data_offsets": [1, 3]}}     "#;
    let file = SafetensorsFile::from_bytes("x", file_with(header, b"abcde")).unwrap();
    let names: Vec<&str> = file.tensors().map(|(name, _)| name).collect();
    assert_eq!(names, ["é\n", "z", "empty", ""]);
    let contents: Vec<&[u8]> = names.iter().map(|name| file.bytes(name).unwrap()).collect();
    assert_eq!(contents, [b"a" as &[u8], b"bc", b"", b"de"]);
    assert!(file.metadata().is_empty());
    assert!(file.get("absent").is_none() && file.bytes("absent").is_none());

    for (header, count) in [("{}", 0), (r#"{"__metadata__":{"a":"b"}}"#, 0), ("{ \n}\t ", 0)] {
        let file = SafetensorsFile::from_bytes("x", file_with(header, b"")).unwrap();
        assert_eq!((file.len(), file.is_empty()), (count, true));
    }
}

#[test]
fn limits_are_inclusive() {
    let header = r#"{"a": {"dtype": "U8", "shape": [0, 2147483647], "data_offsets": [0, 0]}}"#;
    let file = SafetensorsFile::from_bytes("x", file_with(header, b"")).unwrap();
    assert_eq!(file.get("a").unwrap().shape, [0, i32::MAX]);
    assert_eq!(byte_size(Dtype::Uint8, &[1 << 30, 1 << 30, 4]), Some(1 << 62));
    assert_eq!(byte_size(Dtype::Uint8, &[1 << 30, 1 << 30, 8]), None);
    assert_eq!(byte_size(Dtype::Uint8, &[-1]), None);
    assert_eq!(byte_size(Dtype::Complex64, &[]), Some(8));
}
