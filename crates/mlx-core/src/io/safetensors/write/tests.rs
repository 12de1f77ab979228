use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::io::SafetensorsFile;

fn layout(name: &str, dtype: Dtype, shape: &[i32]) -> TensorLayout {
    TensorLayout { name: name.into(), dtype, shape: shape.into() }
}

fn two() -> [TensorLayout; 2] {
    [layout("b", Dtype::Uint8, &[3]), layout("a", Dtype::Float32, &[2, 1])]
}

/// A directory with a file in it that a failing write must leave alone.
struct Old {
    dir: TempDir,
    path: PathBuf,
}

impl Old {
    fn new() -> Old {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        std::fs::write(&path, b"old").unwrap();
        Old { dir, path }
    }

    fn check_untouched(&self) {
        assert_eq!(std::fs::read(&self.path).unwrap(), b"old");
        assert_eq!(self.dir.path().read_dir().unwrap().count(), 1, "a temporary file is left");
    }
}

#[test]
fn writes_exactly_this() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    write_safetensors_streamed(
        &path,
        &two(),
        &[("k", "v"), ("format", "mlx")],
        |position, sink| match position {
            0 => sink.write(b"xyz"),
            _ => [b"12".as_slice(), b"", b"345678"].iter().try_for_each(|piece| sink.write(piece)),
        },
    )
    .unwrap();
    let header = br#"{"__metadata__":{"format":"mlx","k":"v"},"b":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[3,11]}}"#;
    let mut expected = (header.len().next_multiple_of(8) as u64).to_le_bytes().to_vec();
    expected.extend(header);
    expected.resize(expected.len().next_multiple_of(8), b' ');
    expected.extend(b"xyz12345678");
    assert_eq!(
        String::from_utf8_lossy(&std::fs::read(&path).unwrap()),
        String::from_utf8_lossy(&expected)
    );

    let file = SafetensorsFile::open(&path).unwrap();
    let b = file.tensor_bytes("b").unwrap();
    assert!(b.is_aligned(Dtype::Float64), "the data begins at a multiple of 8");
    assert!(!file.tensor_bytes("a").unwrap().is_aligned(Dtype::Float32));
}

#[test]
fn writes_a_file_of_nothing() {
    let old = Old::new();
    write_safetensors(&old.path, [] as [(&str, TensorData<'_>); 0], &[]).unwrap();
    assert_eq!(std::fs::read(&old.path).unwrap(), b"\x08\0\0\0\0\0\0\0{}      ");
}

#[test]
fn refuses_layouts() {
    let cases: [(&[TensorLayout], &str); 6] = [
        (&[layout("", Dtype::Bool, &[])], r#"a tensor cannot have the name """#),
        (&[layout("__metadata__", Dtype::Bool, &[])], r#"cannot have the name "__metadata__""#),
        (
            &[layout("a", Dtype::Bool, &[0]), layout("a", Dtype::Int8, &[0])],
            r#"tensor "a" is given twice"#,
        ),
        (&[layout("a", Dtype::Int8, &[2, -1])], r#"tensor "a": int8 [2, -1] has no valid size"#),
        (&[layout("a", Dtype::Int64, &[i32::MAX, i32::MAX])], "has no valid size"),
        (
            &[("a", 1 << 30), ("b", 1 << 30), ("c", 1 << 30), ("d", 1 << 30)]
                .map(|(name, dim)| layout(name, Dtype::Int8, &[dim, 1 << 30, 4])),
            r#"tensor "d": int8 [1073741824, 1073741824, 4] has no valid size"#,
        ),
    ];
    for (layout, fragment) in cases {
        let old = Old::new();
        let error = write_safetensors_streamed(&old.path, layout, &[], |_, _| Ok(())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(fragment), "{error}");
        assert!(error.to_string().contains("model.safetensors: "), "{error}");
        old.check_untouched();
    }
    let old = Old::new();
    let error =
        write_safetensors_streamed(&old.path, &[], &[("k", "1"), ("k", "2")], |_, _| Ok(()));
    assert!(error.unwrap_err().to_string().ends_with("a metadata key is given twice"));
    old.check_untouched();
}

#[test]
fn refuses_wrong_byte_counts() {
    for (bytes, fragment) in [
        (&b"1234567"[..], r#"tensor "a": 1 bytes too few for float32 [2, 1]"#),
        (b"", "8 bytes too few"),
        (b"123456789", "1 bytes too many for float32 [2, 1]"),
    ] {
        let old = Old::new();
        let data = |dtype, shape: &[i32], bytes: &'static [u8]| TensorData {
            dtype,
            shape: shape.into(),
            bytes: bytes.into(),
        };
        let tensors =
            [("b", data(Dtype::Uint8, &[3], b"xyz")), ("a", data(Dtype::Float32, &[2, 1], bytes))];
        let error = write_safetensors(&old.path, tensors, &[]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(fragment), "{error}");
        old.check_untouched();
    }
}

#[test]
fn a_failing_source_keeps_the_old_file() {
    let old = Old::new();
    let error =
        write_safetensors_streamed(&old.path, &two(), &[], |position, sink| match position {
            0 => sink.write(b"xyz"),
            _ => Err(Error::new(ErrorKind::Runtime, "evaluation failed")),
        });
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Runtime);
    old.check_untouched();
}

/// Takes `room` bytes, then says that the disk is full.
struct FullDisk<'a> {
    file: &'a mut dyn Write,
    room: usize,
}

impl Write for FullDisk<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.room == 0 && !bytes.is_empty() {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        let count = self.file.write(&bytes[..bytes.len().min(self.room)])?;
        self.room -= count;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

#[test]
fn a_full_disk_keeps_the_old_file() {
    let layout = two();
    let plan = SafetensorsPlan::new(&layout, &[]).unwrap();
    let size = LENGTH_SIZE + plan.header.len() + 11;
    assert_eq!(plan.file_size(), size as u64);
    for room in 0..=size {
        let old = Old::new();
        let result = atomic::write_file(&old.path, |file| {
            plan.write(&old.path, &mut FullDisk { file, room }, |position, sink| {
                sink.write(&vec![7; plan.sizes[position] as usize])
            })
        });
        if room == size {
            result.unwrap();
            assert_eq!(SafetensorsFile::open(&old.path).unwrap().len(), 2);
        } else {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io);
            assert!(error.to_string().contains("model.safetensors: "), "{error}");
            old.check_untouched();
        }
    }
}

#[test]
fn overwriting_a_mapped_file_leaves_the_mapping_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    let data = |bytes: &'static [u8]| TensorData {
        dtype: Dtype::Int8,
        shape: vec![4],
        bytes: bytes.into(),
    };
    write_safetensors(&path, [("a", data(b"old!"))], &[]).unwrap();
    let file = SafetensorsFile::open(&path).unwrap();
    if cfg!(unix) {
        let doubled = write_safetensors(&path, [("a", data(b"new!")), ("b", data(b"more"))], &[]);
        doubled.unwrap();
        assert_eq!(file.bytes("a").unwrap(), b"old!");
        assert_eq!(SafetensorsFile::open(&path).unwrap().bytes("a").unwrap(), b"new!");
    }
}
