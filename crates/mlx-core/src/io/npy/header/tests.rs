use super::*;

const GOOD: &str = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";

/// An npy file of version 1 with this text and so many bytes of data.
fn file(text: &str, data: usize) -> Vec<u8> {
    let length = (text.len() as u16).to_le_bytes();
    [MAGIC, &[1, 0][..], &length, text.as_bytes(), &vec![0; data]].concat()
}

fn read(bytes: &[u8]) -> Result<Header> {
    Header::read(bytes, bytes.len() as u64)
}

fn check_refused(bytes: &[u8], kind: ErrorKind, fragment: &str) {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
    let error = read(bytes).err().unwrap_or_else(|| panic!("accepted {shown}"));
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(fragment), "expected {fragment:?} in {error}");
    assert!(error.to_string().len() < 200, "{error}");
}

#[test]
fn reads_every_spelling_of_a_header() {
    let cases: [(&str, &[i32], bool); 8] = [
        (GOOD, &[2, 3], false),
        ("{'shape': (2, 3), 'fortran_order': True, 'descr': '<f4'}", &[2, 3], true),
        ("{\"descr\":\"<f4\",\"fortran_order\":False,\"shape\":(6,)}\n", &[6], false),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, )}    \n", &[2, 3], false),
        ("  { 'descr' : '<f4' , 'fortran_order' : False , 'shape' : ( 6 , ) , } ", &[6], false),
        ("{'descr': 'f4', 'fortran_order': False, 'shape': (2L, 3L), }", &[2, 3], false),
        ("{'descr': '|f4', 'fortran_order': False, 'shape': (6, 1), }", &[6, 1], false),
        ("{'descr': '=f4', 'fortran_order': False, 'shape': (1, 1, 6), }", &[1, 1, 6], false),
    ];
    for (text, shape, fortran_order) in cases {
        let header = read(&file(text, 24)).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(
            header,
            Header {
                dtype: Dtype::Float32,
                big_endian: false,
                fortran_order,
                shape: shape.to_vec(),
                data_start: 10 + text.len(),
            }
        );
    }
    let scalar = "{'descr': '>i2', 'fortran_order': False, 'shape': ()}";
    let header = read(&file(scalar, 2)).unwrap();
    assert_eq!((header.big_endian, header.shape), (true, vec![]));
    let byte = "{'descr': '>i1', 'fortran_order': False, 'shape': ()}";
    assert!(!read(&file(byte, 1)).unwrap().big_endian, "a byte has no order");
}

#[test]
fn refuses_headers_that_make_no_sense() {
    let with = |descr: &str, shape: &str| {
        format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}")
    };
    let cases: Vec<(String, usize, &str)> = vec![
        ("".into(), 0, "expected '{', found \"\""),
        ("{}".into(), 0, "header has no \"descr\""),
        ("{'descr': '<f4', 'shape': ()}".into(), 4, "header has no \"fortran_order\""),
        ("{'descr': '<f4', 'fortran_order': False}".into(), 4, "header has no \"shape\""),
        (GOOD.replace(", }", ", 'shape': ()}"), 24, "header has \"shape\" twice"),
        (GOOD.replace(", }", ", 'more': 1}"), 24, "header has the unknown key \"more\""),
        (GOOD.replace(", }", ", "), 24, "expected a string, found"),
        (GOOD.replace(", }", ""), 24, "expected '}', found"),
        (GOOD.replace(", }", "}}"), 24, "expected nothing, found \"}\""),
        (GOOD.replace(", }", "} # comment"), 24, "expected nothing"),
        (GOOD.replace("False", "0"), 24, "expected True or False"),
        (GOOD.replace("'shape'", "shape"), 24, "expected a string, found"),
        (GOOD.replace("'shape'", "'shape"), 24, "expected a string with an end"),
        (GOOD.replace("'shape'", "'sha\\x70e'"), 24, "a string of plain ASCII"),
        (GOOD.replace("'shape'", "'sh\u{e4}pe'"), 24, "a string of plain ASCII"),
        (GOOD.replace("', 'fortran", "\", 'fortran"), 24, "expected '}'"),
        (with("'<f4", "()"), 4, "expected '}'"),
        (with("'x4'", "()"), 4, "unknown type of elements \"x4\""),
        (with("''", "()"), 4, "unknown type of elements \"\""),
        (with("'<f4'", "(6)"), 24, "shape is a number, not a tuple"),
        (with("'<f4'", "6"), 24, "expected '('"),
        (with("'<f4'", "[2, 3]"), 24, "expected '('"),
        (with("'<f4'", "(2 3)"), 24, "expected ')'"),
        (with("'<f4'", "(,)"), 24, "expected a dimension"),
        (with("'<f4'", "(-1,)"), 24, "expected a dimension in 0..=2147483647, found \"-1,)"),
        (with("'<f4'", "(06,)"), 24, "expected a dimension"),
        (with("'<f4'", "(6.0,)"), 24, "expected ')', found \".0"),
        (with("'<f4'", "(0x6,)"), 24, "expected ')', found \"x6"),
        (with("'<f4'", "(2147483648,)"), 24, "expected a dimension"),
        (with("'<f4'", "(18446744073709551617,)"), 4, "expected a dimension"),
        (with("'<f4'", "(2, 3"), 24, "expected a dimension"),
        (with("'<f4'", &format!("({})", "1, ".repeat(65))), 4, "more than 64 axes"),
        (with("'<i8'", "(2147483647, 2147483647)"), 8, "size of int64"),
        (with("'<i8'", "(65536, 65536, 65536, 65536)"), 0, "overflows"),
        (with("'<i8'", "(0, 2147483647, 2147483647, 4)"), 0, "overflows"),
        (GOOD.into(), 23, "truncated: expected 93 bytes, file has 92"),
        (GOOD.into(), 25, "1 bytes follow the array: expected 93 bytes, file has 94"),
        (with("'<f4'", "(0,)"), 1, "1 bytes follow the array"),
        (with("'<f8'", "(1048576, 1048576, 1024)"), 8, "truncated: expected 9007199254741"),
    ];
    for (text, data, fragment) in cases {
        check_refused(&file(&text, data), ErrorKind::Format, fragment);
    }
}

#[test]
fn refuses_elements_that_mlx_has_not() {
    let cases = [
        ("'|O'", "are pickles, which can run code and are never loaded"),
        ("'O'", "are pickles"),
        ("'<c16'", "\"<c16\" do not exist in MLX; save them as complex64"),
        ("'<f16'", "do not exist in MLX; save them as float64"),
        ("'|S3'", "are no numbers of MLX"),
        ("'<U2'", "are no numbers of MLX"),
        ("'|V3'", "are no numbers of MLX"),
        ("'<M8[s]'", "are no numbers of MLX"),
        ("[('a', '<f4'), ('b', '|O')]", "elements of several fields"),
        ("('<f4', (2, 2))", "elements of several fields"),
    ];
    for (descr, fragment) in cases {
        let text = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': (0,), }}");
        check_refused(&file(&text, 0), ErrorKind::Unsupported, fragment);
    }
}

#[test]
fn refuses_what_is_no_npy_file() {
    let starts: [(&[u8], &str); 9] = [
        (b"", "truncated: expected at least 8 bytes, file has 0"),
        (b"\x93NUM", "truncated: expected at least 8 bytes, file has 4"),
        (b"\x93NUMPY\x01", "truncated: expected at least 8 bytes, file has 7"),
        (b"\x93NUMPY\x01\0\x10", "truncated: expected at least 10 bytes, file has 9"),
        (b"\x93NUMPY\x02\0\x10\0\0", "truncated: expected at least 12 bytes, file has 11"),
        (b"\x93NUMPY\x01\0\x10\0{", "truncated: expected at least 26 bytes, file has 11"),
        (b"\x93NUMPY\x02\0\x01\0\x01\0{", "header would have 65537 bytes, more than 65536"),
        (b"\x93NUMPY\x03\0\xff\xff\xff\xff{", "header would have 4294967295 bytes"),
        (b"\x94NUMPY\x01\0\x10\0{", "not an npy file"),
    ];
    for (bytes, fragment) in starts {
        check_refused(bytes, ErrorKind::Format, fragment);
    }
    for version in [[0u8, 0], [1, 1], [4, 0], [255, 255]] {
        let bytes = [MAGIC, &version[..], &[0; 100]].concat();
        check_refused(&bytes, ErrorKind::Unsupported, "is unknown");
    }
    let good = file(GOOD, 24);
    for size in 0..good.len() {
        check_refused(&good[..size], ErrorKind::Format, "truncated: expected ");
    }
}

#[test]
fn reads_from_the_beginning_alone() {
    let good = file(GOOD, 24);
    let header = Header::read(&good[..good.len() - 24], good.len() as u64).unwrap();
    assert_eq!(header.shape, [2, 3]);
}

#[test]
fn writes_what_it_reads() {
    for dtype in Dtype::ALL {
        for shape in [&[][..], &[5], &[2, 3], &[0, 7], &[1; 64], &[i32::MAX, 1]] {
            let header = header_bytes(dtype, shape).unwrap();
            assert!(header.len().is_multiple_of(64), "{shape:?}");
            let size = header.len() as u64 + byte_size(dtype, shape).unwrap();
            let read = Header::read(&header, size).unwrap();
            assert_eq!((read.dtype, &read.shape[..], read.big_endian), (dtype, shape, false));
            assert_eq!(read.data_start, header.len());
        }
    }
    for shape in [&[-1][..], &[i32::MAX, i32::MAX], &[1; 65]] {
        let error = header_bytes(Dtype::Int64, shape).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
}
