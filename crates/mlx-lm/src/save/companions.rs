//! The files of a source that go along as they are: tokenizer, templates, generation settings,
//! code.

use crate::files::ModelFiles;

/// A file of the source that the result has too.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Companion {
    /// The name inside the model, with `/` between directories.
    pub(super) name: String,
    /// Whether a result without it is no result: text cannot become tokens.
    pub(super) is_essential: bool,
}

const TOKENIZER: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
];

/// SentencePiece models, under the names that are in use, and other formats of one file.
const TOKENIZER_MODELS: [&str; 4] =
    ["tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "tekken.json"];

/// Where templates beside the first one lie: as read here, and as transformers writes them.
const TEMPLATE_DIRS: [&str; 2] = ["chat_templates/", "additional_chat_templates/"];

/// Lists them in order of names.
pub(super) fn companions(source: &ModelFiles) -> Vec<Companion> {
    let companion = |name: String| {
        let is_essential = is_tokenizer(&name);
        let is_extra =
            name == "generation_config.json" || (name.ends_with(".py") && !name.contains('/'));
        (is_essential || is_extra).then_some(Companion { name, is_essential })
    };
    source.list().into_iter().filter_map(companion).collect()
}

fn is_tokenizer(name: &str) -> bool {
    let in_template_dir = |dir| {
        let file = name.strip_prefix(dir);
        file.is_some_and(|file| file.ends_with(".jinja") && !file.contains('/'))
    };
    TOKENIZER.contains(&name)
        || TOKENIZER_MODELS.contains(&name)
        || (name.ends_with(".tiktoken") && !name.contains('/'))
        || name == "tiktoken.model"
        || TEMPLATE_DIRS.iter().any(in_template_dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn take_what_text_needs_and_nothing_of_the_old_weights() {
        let names = [
            "README.md",
            "additional_chat_templates/rag.jinja",
            "chat_template.jinja",
            "chat_templates/tool_use.jinja",
            "config.json",
            "generation_config.json",
            "hf_quant_config.json",
            "model-00001-of-00002.safetensors",
            "model.safetensors.index.json",
            "modeling_x.py",
            "onnx/tokenizer.json",
            "original/code.py",
            "qwen.tiktoken",
            "tokenizer.json",
            "tokenizer.model",
            "training_args.bin",
        ];
        let files: Vec<(&'static str, &'static [u8])> = names.map(|n| (n, &b"x"[..])).to_vec();
        let files = ModelFiles::embedded("x", files.leak());
        let taken: Vec<_> =
            companions(&files).into_iter().map(|c| (c.name, c.is_essential)).collect();
        let expected = [
            ("additional_chat_templates/rag.jinja", true),
            ("chat_template.jinja", true),
            ("chat_templates/tool_use.jinja", true),
            ("generation_config.json", false),
            ("modeling_x.py", false),
            ("qwen.tiktoken", true),
            ("tokenizer.json", true),
            ("tokenizer.model", true),
        ];
        assert_eq!(taken, expected.map(|(name, essential)| (name.to_owned(), essential)));
    }
}
