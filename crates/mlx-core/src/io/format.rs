//! Telling formats of array files apart.

use std::path::Path;

/// A format of files that hold arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileFormat {
    /// Arrays by name, with text metadata.
    Safetensors,
    /// One array of NumPy's.
    Npy,
    /// A zip archive of npy files.
    Npz,
    /// Arrays by name with typed metadata, as llama.cpp writes.
    Gguf,
}

impl FileFormat {
    /// Tells the format by how a file begins; only where that says nothing, by its extension.
    pub fn detect(path: &Path, bytes: &[u8]) -> Option<FileFormat> {
        const MAGICS: [(&[u8], FileFormat); 4] = [
            (b"\x93NUMPY", FileFormat::Npy),
            (b"PK\x03\x04", FileFormat::Npz),
            (b"PK\x05\x06", FileFormat::Npz),
            (b"GGUF", FileFormat::Gguf),
        ];
        if let Some((_, format)) = MAGICS.iter().find(|(magic, _)| bytes.starts_with(magic)) {
            return Some(*format);
        }
        // The length of the header, which is never so large that its last byte is not 0.
        if bytes.get(7..9) == Some(b"\0{") {
            return Some(FileFormat::Safetensors);
        }
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "safetensors" => Some(FileFormat::Safetensors),
            "npy" => Some(FileFormat::Npy),
            "npz" => Some(FileFormat::Npz),
            "gguf" => Some(FileFormat::Gguf),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_goes_before_the_name() {
        use FileFormat::{Gguf, Npy, Npz, Safetensors};
        let cases: [(&str, &[u8], Option<FileFormat>); 11] = [
            ("x.npz", b"\x93NUMPY\x01\0", Some(Npy)),
            ("x.npy", b"PK\x03\x04", Some(Npz)),
            ("x", b"PK\x05\x06", Some(Npz)),
            ("x.bin", b"GGUF\x03", Some(Gguf)),
            ("blob", b"\x02\0\0\0\0\0\0\0{}", Some(Safetensors)),
            ("x.safetensors", b"version https://git-lfs", Some(Safetensors)),
            ("X.NPY", b"", Some(Npy)),
            ("x.gguf", b"GG", Some(Gguf)),
            ("x.npz", b"P", Some(Npz)),
            ("x.bin", b"abcdefg\0[", None),
            ("x", b"", None),
        ];
        for (name, bytes, format) in cases {
            assert_eq!(FileFormat::detect(Path::new(name), bytes), format, "{name}");
        }
    }
}
