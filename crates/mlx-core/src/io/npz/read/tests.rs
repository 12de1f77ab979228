use std::io::Write;

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;
use crate::dtype::Dtype;
use crate::io::npy::header_bytes;

/// The npy file of an array of zeros.
fn npy(count: i32) -> Vec<u8> {
    let mut bytes = header_bytes(Dtype::Uint8, &[count]).unwrap();
    bytes.resize(bytes.len() + count as usize, 0);
    bytes
}

fn archive(method: CompressionMethod, entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        let options = SimpleFileOptions::default().compression_method(method);
        zip.start_file(*name, options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Puts `value` at `offset` behind the last occurrence of `signature`.
fn patch(bytes: &mut [u8], signature: &[u8; 4], offset: usize, value: &[u8]) {
    let at = bytes.windows(4).rposition(|window| window == signature).unwrap() + offset;
    bytes[at..at + value.len()].copy_from_slice(value);
}

const LOCAL: &[u8; 4] = b"PK\x03\x04";
const CENTRAL: &[u8; 4] = b"PK\x01\x02";

/// Opens the archive and reads its first array.
fn read(bytes: Vec<u8>) -> Result<NpyFile> {
    let file = NpzFile::from_bytes("dir/x.npz", bytes)?;
    let name = file.names().next().unwrap().to_owned();
    file.read(&name)
}

fn check_refused(bytes: Vec<u8>, kind: ErrorKind, fragment: &str) {
    let error = read(bytes).expect_err(fragment);
    assert_eq!(error.kind(), kind, "{error}");
    let text = error.to_string();
    assert!(text.starts_with("dir/x.npz: ") && text.contains(fragment), "{fragment:?} in {text:?}");
}

#[test]
fn reads_stored_in_place_and_deflated_in_memory() {
    let stored = archive(CompressionMethod::Stored, &[("a.npy", &npy(5))]);
    let file = read(stored).unwrap();
    assert_eq!((file.dtype(), file.shape()), (Dtype::Uint8, &[5][..]));
    assert!(file.tensor_bytes().range().start > 128, "in the archive");
    let deflated = archive(CompressionMethod::Deflated, &[("a.npy", &npy(1_000_000))]);
    assert!(deflated.len() < 2000);
    let file = read(deflated).unwrap();
    assert_eq!(file.tensor_bytes().as_slice(), vec![0; 1_000_000]);
    assert_eq!(file.tensor_bytes().range().start, 128, "in a buffer of its own");
}

#[test]
fn refuses_what_is_no_archive() {
    for (bytes, fragment) in [
        (&b""[..], "does not begin as a zip archive; it is too short"),
        (b"PK\x03", "does not begin as a zip archive; it is too short"),
        (b"\x93NUMPY\x01\0", "not an npz file: it does not begin as a zip archive"),
        (b"PK\x03\x04", "zip archive: "),
        (b"PK\x05\x06", "truncated: the archive goes beyond the file"),
    ] {
        check_refused(bytes.to_vec(), ErrorKind::Format, fragment);
    }
    let good = archive(CompressionMethod::Stored, &[("a.npy", &npy(5))]);
    for size in 0..good.len() {
        let error = read(good[..size].to_vec()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Format, "{size}: {error}");
    }
    let before = [b"#!/bin/sh\n", &good[..]].concat();
    check_refused(before, ErrorKind::Format, "does not begin as a zip archive");
}

#[test]
fn an_absent_array_is_not_found() {
    let good = archive(CompressionMethod::Stored, &[("a.npy", &npy(5))]);
    let file = NpzFile::from_bytes("x.npz", good).unwrap();
    let error = file.read("b").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.to_string(), "x.npz: array \"b\": not in the file");
}

#[test]
fn refuses_names_given_twice() {
    let both = archive(CompressionMethod::Stored, &[("a.npy", &npy(5)), ("a", &npy(5))]);
    check_refused(both, ErrorKind::Format, "two arrays have the name \"a\"");
    let mut same = archive(CompressionMethod::Stored, &[("a.npy", &npy(5)), ("b.npy", &npy(5))]);
    patch(&mut same, CENTRAL, 46, b"a");
    check_refused(same, ErrorKind::Format, "two arrays have the same name");
}

#[test]
fn refuses_shared_bytes() {
    let mut shared = archive(CompressionMethod::Stored, &[("a.npy", &npy(5)), ("b.npy", &npy(5))]);
    // The second entry begins where the first does.
    patch(&mut shared, CENTRAL, 42, &[0; 4]);
    check_refused(shared, ErrorKind::Format, "entries of the archive overlap");
}

#[test]
fn refuses_methods_and_encryption() {
    let mut bzip = archive(CompressionMethod::Stored, &[("a.npy", &npy(5))]);
    patch(&mut bzip, CENTRAL, 10, &12u16.to_le_bytes());
    check_refused(bzip, ErrorKind::Unsupported, "only stored and deflated are read");
    let mut encrypted = archive(CompressionMethod::Stored, &[("a.npy", &npy(5))]);
    patch(&mut encrypted, CENTRAL, 8, &[1, 0]);
    check_refused(encrypted, ErrorKind::Unsupported, "array \"a\": encrypted");
}

#[test]
fn refuses_sizes_that_disagree() {
    let good = |method| archive(method, &[("a.npy", &npy(1000))]);
    let size_at = |method, offset, size: u32| {
        let mut bytes = good(method);
        patch(&mut bytes, CENTRAL, offset, &size.to_le_bytes());
        bytes
    };
    use CompressionMethod::{Deflated, Stored};
    // Packed size at 20, size at 24.
    for (bytes, fragment) in [
        (size_at(Stored, 24, 1127), "stored in 1128 bytes, but declared to have 1127"),
        (size_at(Stored, 24, u32::MAX - 1), "but declared to have 4294967294"),
        (size_at(Stored, 20, 1127), "stored in 1127 bytes, but declared to have 1128"),
        (size_at(Stored, 20, 1 << 20), "overlap"),
        (size_at(Deflated, 24, 1127), "file is larger than its declared uncompressed size"),
        (size_at(Deflated, 24, 1129), "1 bytes follow the array"),
        (size_at(Deflated, 24, u32::MAX - 1), "cannot inflate to 4294967294"),
    ] {
        check_refused(bytes, ErrorKind::Format, fragment);
    }
    // The array's own header promises more than there is, and the directory agrees with it.
    let mut header = header_bytes(Dtype::Uint8, &[2000]).unwrap();
    header.resize(header.len() + 1000, 0);
    let mut more = archive(Deflated, &[("a.npy", &header)]);
    patch(&mut more, CENTRAL, 24, &2128u32.to_le_bytes());
    check_refused(more, ErrorKind::Format, "inflates to 1128 bytes, but declared to have 2128");
}

#[test]
fn refuses_other_bytes_than_were_written() {
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let mut flipped = archive(method, &[("a.npy", &npy(1000))]);
        patch(&mut flipped, CENTRAL, 16, &[0; 4]);
        check_refused(flipped, ErrorKind::Format, "invalid checksum");
    }
    let mut data = archive(CompressionMethod::Stored, &[("a.npy", &npy(1000))]);
    patch(&mut data, LOCAL, 500, &[1]);
    check_refused(data, ErrorKind::Format, "invalid checksum");
    let text = archive(CompressionMethod::Stored, &[("notes.txt", b"not an array")]);
    check_refused(text, ErrorKind::Format, "array \"notes.txt\": not an npy file");
}
