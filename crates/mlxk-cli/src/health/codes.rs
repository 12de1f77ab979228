//! Every finding that `health` can make: a stable code, what it means, and what mends it.
//!
//! This table is the one source of [docs/health.md](../../../../docs/health.md). A code is never
//! renamed, because scripts compare it.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// The model cannot be loaded, or not all of it is there: it is unhealthy.
    Error,
    /// It loads, but something goes wrong with it, here or in another program.
    Warning,
    /// Worth knowing.
    Note,
}

impl Severity {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

/// What mends a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// `mlxk convert SRC DST` with this flag.
    Convert(&'static str),
    /// The files have to be fetched again.
    Download,
    /// Nothing that a program could do.
    ByHand,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Remedy::Convert(flag) => write!(f, "mlxk convert SRC DST {flag}"),
            Remedy::Download => f.write_str("downloading again"),
            Remedy::ByHand => f.write_str("hand"),
        }
    }
}

/// One kind of finding.
#[derive(Debug)]
pub(crate) struct Code {
    pub(crate) name: &'static str,
    pub(crate) severity: Severity,
    /// Its number in the catalogue of known defects of mlx-knife's convert design.
    pub(crate) defect: Option<&'static str>,
    pub(crate) meaning: &'static str,
    pub(crate) remedy: Remedy,
}

macro_rules! codes {
    ($($id:ident: $name:literal, $severity:ident, $defect:expr, $remedy:expr, $meaning:literal;)+) => {
        $(pub(crate) static $id: Code = Code {
            name: $name,
            severity: Severity::$severity,
            defect: $defect,
            meaning: $meaning,
            remedy: $remedy,
        };)+

        /// All of them, the worst first.
        pub(crate) static CODES: &[&Code] = &[$(&$id),+];
    };
}

const INDEX: Remedy = Remedy::Convert("--repair-index");
const WEIGHTS: Remedy = Remedy::Convert("--repair-weights");
const CONFIG: Remedy = Remedy::Convert("--repair-config");
const TOKENIZER: Remedy = Remedy::Convert("--repair-tokenizer");
const PREPROCESSOR: Remedy = Remedy::Convert("--add-preprocessor-config");

codes! {
    DIRECTORY_MISSING: "directory_missing", Error, None, Remedy::ByHand,
        "there is no such directory";
    FILE_UNREADABLE: "file_unreadable", Error, None, Remedy::ByHand,
        "a file is there and cannot be read, for want of a permission or because a disk fails";
    FILE_DANGLING: "file_dangling", Error, None, Remedy::Download,
        "a file of the model is a link to nowhere, as an interrupted download or a removed blob leaves it";
    SNAPSHOT_MISSING: "snapshot_missing", Error, None, Remedy::Download,
        "the cache knows the model and has no revision of it";
    LFS_POINTER: "lfs_pointer", Error, None, Remedy::Download,
        "a file is a git-lfs pointer: the repository was cloned with git, the file itself never came";
    PARTIAL_FILE: "partial_file", Error, None, Remedy::Download,
        "a file is there under the name of an unfinished download only";
    WORKSPACE_PARTIAL: "workspace_partial", Error, None, Remedy::ByHand,
        "the directory is one that an interrupted clone or convert was still building; it can be removed";
    CONFIG_MISSING: "config_missing", Error, None, Remedy::Download,
        "there is no config.json";
    CONFIG_INVALID: "config_invalid", Error, None, Remedy::Download,
        "config.json is not JSON, no object, or empty";
    MODEL_TYPE_MISSING: "model_type_missing", Error, Some("B1"), CONFIG,
        "config.json has no model_type, so that nothing tells which architecture it is; mended where `architectures` names one that runs here";
    CONFIG_UNSOUND: "config_unsound", Error, None, Remedy::ByHand,
        "config.json is JSON, and a setting that every model of a known type needs is missing or makes no sense";
    WEIGHTS_MISSING: "weights_missing", Error, None, Remedy::Download,
        "there is no weight file";
    DOWNLOAD_INCOMPLETE: "download_incomplete", Error, None, Remedy::Download,
        "weight files are announced, by an index or by traces of an unfinished download, and none is there";
    SHARD_MISSING: "shard_missing", Error, None, Remedy::Download,
        "some of the weight files that the index or the numbering in their names promises are absent, and with them tensors";
    SHARD_TOTALS: "shard_totals", Error, None, Remedy::ByHand,
        "the names of the weight files promise several totals, as when files of two versions lie in one directory";
    WEIGHTS_EMPTY: "weights_empty", Error, None, Remedy::Download,
        "a weight file has no content";
    WEIGHTS_TRUNCATED: "weights_truncated", Error, None, Remedy::Download,
        "a weight file ends before its last tensor does";
    WEIGHTS_CORRUPT: "weights_corrupt", Error, None, Remedy::Download,
        "the header of a weight file is no header, or does not fit the file: overlapping tensors, gaps, wrong sizes, another format";
    TENSOR_DUPLICATE: "tensor_duplicate", Error, None, Remedy::ByHand,
        "two weight files hold a tensor of the same name; one of them is left over and has to go";
    TENSOR_MISSING: "tensor_missing", Error, None, Remedy::Download,
        "the index names tensors that no file holds, though all files are there and nothing else differs";
    INDEX_INVALID: "index_invalid", Error, Some("A1"), INDEX,
        "the index of the weight files is not JSON or has no map of tensors";
    WEIGHTS_NPZ: "weights_npz", Error, Some("A3"), WEIGHTS,
        "the weights are in npz files, as early conversions of Whisper have them";
    GGUF_CORRUPT: "gguf_corrupt", Error, None, Remedy::Download,
        "a GGUF file does not begin as one, or its header does not fit the file";
    TOKENIZER_MISSING: "tokenizer_missing", Error, Some("B2"), Remedy::Download,
        "a language model has neither tokenizer.json nor another file that a tokenizer can be made from";
    TOKENIZER_INVALID: "tokenizer_invalid", Error, None, Remedy::Download,
        "a tokenizer file is damaged";
    TOKENIZER_CONFIG_INVALID: "tokenizer_config_invalid", Error, None, Remedy::Download,
        "tokenizer_config.json, special_tokens_map.json or added_tokens.json is not a JSON object";
    PROCESSOR_MISSING: "processor_missing", Error, None, Remedy::Download,
        "a vision model has neither preprocessor_config.json nor processor_config.json";
    PROCESSOR_INVALID: "processor_invalid", Error, None, Remedy::Download,
        "the (pre)processor configuration of a vision or audio model is not a JSON object";
    BLOB_MISMATCH: "blob_mismatch", Error, None, Remedy::Download,
        "the content of a cached file is not what its name, a hash, says (`--deep`)";
    TENSOR_NAN: "tensor_nan", Error, None, Remedy::Download,
        "a tensor holds NaN (`--deep`)";
    TENSOR_INFINITE: "tensor_infinite", Warning, None, Remedy::ByHand,
        "a tensor holds an infinity, as an overflow when casting to float16 makes it (`--deep`)";
    INDEX_STALE: "index_stale", Warning, Some("A1"), INDEX,
        "the index describes other files than those that are there, which are complete; what reads the headers loads them, what trusts the index does not";
    INDEX_MISSING: "index_missing", Warning, Some("A1"), INDEX,
        "the weights are in several files, all there, and no index lists them";
    DTYPE_UNSUPPORTED: "dtype_unsupported", Warning, None, Remedy::ByHand,
        "a weight file is sound and has an element type that MLX lacks";
    UNUSED_WEIGHTS_BROKEN: "unused_weights_broken", Warning, None, Remedy::ByHand,
        "a weight file that does not belong to the model is damaged";
    PARTIAL_LEFTOVER: "partial_leftover", Warning, None, Remedy::ByHand,
        "the trace of an unfinished download lies beside the finished file; it can be removed";
    BLOB_INCOMPLETE: "blob_incomplete", Warning, None, Remedy::Download,
        "the download of some file of this repository was broken off; nothing of the snapshot itself is missing";
    EOS_NULL: "eos_token_null", Warning, Some("A4"), CONFIG,
        "eos_token_id is null, so that programs which trust it never end an answer";
    VIDEO_PROCESSOR_NULL: "video_processor_null", Warning, Some("A5"), CONFIG,
        "video_processor is null, at which transformers' processors fail";
    MERGE_SIZE_MISSING: "spatial_merge_size_missing", Warning, None, CONFIG,
        "a mistral3 model of the first conversions lacks spatial_merge_size, which is 2";
    PREPROCESSOR_MISSING: "preprocessor_missing", Warning, Some("A6"), PREPROCESSOR,
        "a Whisper model has no preprocessor_config.json, which transformers' feature extractor wants";
    TOKENIZER_REGEX: "tokenizer_regex", Warning, Some("A2"), TOKENIZER,
        "tokenizer.json splits text by the rule of another model, as some releases of transformers wrote it for Mistral's; mended in memory here, not in other programs";
    TEMPLATE_BROKEN: "template_broken", Warning, Some("B3"), Remedy::ByHand,
        "the chat template does not compile, or fails on a chat of three messages";
    GENERATION_CONFIG_INVALID: "generation_config_invalid", Warning, None, Remedy::Download,
        "generation_config.json is not a JSON object and is ignored";
    SENTINEL_INVALID: "workspace_sentinel_invalid", Warning, None, Remedy::ByHand,
        "the file that makes the directory a managed workspace cannot be read; it counts as unmanaged";
    METADATA_MISSING: "metadata_missing", Note, Some("B4"), WEIGHTS,
        "a safetensors file does not say in its metadata which framework wrote it; transformers wants to know";
    INDEX_TOTAL: "index_total_size", Note, None, INDEX,
        "the total size that the index states is not the tensors'";
    TEMPLATE_MISSING: "template_missing", Note, Some("B3"), Remedy::ByHand,
        "the tokenizer has the tokens of a chat, and there is no chat template";
    WEIGHTS_PICKLE: "weights_pickle", Note, None, Remedy::ByHand,
        "the weights are in pickle files, which are never loaded, because they can run code; only that they are whole was checked";
    WEIGHTS_NESTED: "weights_nested", Note, None, Remedy::ByHand,
        "the weights lie in subdirectories only, as those of pipelines of several models";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_sorted_by_severity() {
        let mut names: Vec<&str> = CODES.iter().map(|code| code.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(CODES.is_sorted_by_key(|code| code.severity));
    }

    /// Set to write the table of the documentation anew.
    const REGENERATE: &str = "MLXK_REGENERATE";

    #[test]
    fn the_documentation_has_every_code() {
        let mut table =
            String::from("| code | severity | meaning | mended by |\n| --- | --- | --- | --- |\n");
        for Code { name, severity, defect, meaning, remedy } in CODES.iter().copied() {
            let severity = severity.name();
            let defect = defect.map_or(String::new(), |id| format!(" ({id})"));
            let remedy = match remedy {
                Remedy::Convert(_) => format!("`{remedy}`"),
                remedy => remedy.to_string(),
            };
            table += &format!("| `{name}` | {severity} | {meaning}{defect} | {remedy} |\n");
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/health.md");
        let docs = std::fs::read_to_string(path).unwrap();
        let (begin, end) = ("<!-- codes -->\n", "<!-- end of codes -->\n");
        let (before, rest) = docs.split_once(begin).unwrap();
        let (old, after) = rest.split_once(end).unwrap();
        if std::env::var_os(REGENERATE).is_some() {
            std::fs::write(path, format!("{before}{begin}{table}{end}{after}")).unwrap();
        } else {
            assert_eq!(old, table, "docs/health.md is not the table; set {REGENERATE}=1");
        }
    }

    #[test]
    fn the_catalogue_is_covered() {
        for id in ["A1", "A2", "A3", "A4", "A5", "A6", "B1", "B2", "B3", "B4"] {
            assert!(CODES.iter().any(|code| code.defect == Some(id)), "{id}");
        }
    }
}
