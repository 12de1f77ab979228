use super::*;
use crate::dtype::Dtype;
use crate::io::NpzFile;

fn layout(names: &[&str]) -> Vec<TensorLayout> {
    let array =
        |name: &&str| TensorLayout { name: (*name).into(), dtype: Dtype::Uint8, shape: vec![100] };
    names.iter().map(array).collect()
}

fn write(path: &Path, names: &[&str], method: NpzMethod) -> Result<()> {
    write_npz_streamed(path, &layout(names), method, |position, sink| {
        sink.write(&[position as u8; 100])
    })
}

#[test]
fn any_name_is_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.npz");
    let long = "n".repeat(65_000);
    let mut names = vec!["a", "a.npy", "", "/", "../up", "c:\\x", "a/b/", "é", "\0", "\u{1f600}"];
    names.push(&long);
    for method in [NpzMethod::Stored, NpzMethod::Deflated] {
        write(&path, &names, method).unwrap();
        let file = NpzFile::open(&path).unwrap();
        assert_eq!(file.len(), names.len());
        for (position, name) in names.iter().enumerate() {
            let array = file.read(name).unwrap();
            assert_eq!(array.tensor_bytes().as_slice(), [position as u8; 100], "{name:?}");
        }
    }
    assert_eq!(dir.path().read_dir().unwrap().count(), 1);
}

#[test]
fn stored_arrays_lie_where_they_can_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.npz");
    write(&path, &["a", "bc", "def"], NpzMethod::Stored).unwrap();
    let file = NpzFile::open(&path).unwrap();
    for name in file.names() {
        let array = file.read(name).unwrap();
        let range = array.tensor_bytes().range();
        assert!(range.start.is_multiple_of(64), "{name} at {range:?}");
        assert_eq!(array.tensor_bytes().mapping().path(), path);
    }
}

#[test]
fn refuses_layouts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.npz");
    let long = "n".repeat(65_001);
    let cases: [(&[&str], &str); 2] = [
        (&["a", "a"], "array \"a\" is given twice"),
        (&["a", &long], "a name has 65001 bytes, more than 65000"),
    ];
    for (names, fragment) in cases {
        let error = write(&path, names, NpzMethod::Stored).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(fragment), "{error}");
        assert!(!path.exists());
    }
    let negative = TensorLayout { name: "a".into(), dtype: Dtype::Int8, shape: vec![-1] };
    let error = write_npz_streamed(&path, &[negative], NpzMethod::Stored, |_, _| Ok(()));
    assert!(error.unwrap_err().to_string().contains("array \"a\": npy: int8 [-1] has no valid"));
}

#[test]
fn a_failing_source_keeps_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.npz");
    std::fs::write(&path, b"old").unwrap();
    for method in [NpzMethod::Stored, NpzMethod::Deflated] {
        for count in [0, 1, 99, 101] {
            let result =
                write_npz_streamed(&path, &layout(&["a", "b"]), method, |position, sink| {
                    sink.write(&vec![7; if position == 0 { 100 } else { count }])
                });
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
            assert!(error.to_string().contains("tensor \"b\""), "{error}");
        }
        let failing = write_npz_streamed(&path, &layout(&["a"]), method, |_, _| {
            Err(Error::new(ErrorKind::Runtime, "evaluation failed"))
        });
        assert_eq!(failing.unwrap_err().kind(), ErrorKind::Runtime);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(dir.path().read_dir().unwrap().count(), 1, "a temporary file is left");
    }
}

/// A file on a disk that has room for so many bytes.
struct Limited {
    content: std::io::Cursor<Vec<u8>>,
    room: u64,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let room = self.room.saturating_sub(self.content.position());
        if room == 0 && !bytes.is_empty() {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.content.write(&bytes[..bytes.len().min(room as usize)])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Seek for Limited {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.content.seek(to)
    }
}

#[test]
fn a_full_disk_is_an_error_at_any_byte() {
    for method in [NpzMethod::Stored, NpzMethod::Deflated] {
        let whole = archive(u64::MAX, method).unwrap();
        for room in 0..whole {
            let error = archive(room, method).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io, "room for {room} of {whole}: {error}");
        }
        archive(whole, method).unwrap();
    }
}

/// Writes two arrays and returns the size of the archive.
fn archive(room: u64, method: NpzMethod) -> Result<u64> {
    let mut file = Limited { content: std::io::Cursor::default(), room };
    let layout = layout(&["a", "b"]);
    write_archive(&mut file, Path::new("x"), &layout, method, |_, sink| sink.write(&[7; 100]))?;
    Ok(file.content.into_inner().len() as u64)
}
