//! The model card, `README.md`: a front matter that hubs read, and text for people.

/// What the model card says beside the format.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelCard {
    /// The model that this one was made from, as hubs name it (`owner/name`); without it, what the
    /// source's own card says.
    pub base_model: Option<String>,
    /// The text below the front matter, Markdown; none by default.
    pub body: String,
}

pub(super) const CARD_NAME: &str = "README.md";

/// What of the source's front matter stays true of a converted model: whose it is, under what
/// terms, in what language, and what it learned from.
const KEPT: [&str; 5] = ["license", "license_name", "license_link", "language", "datasets"];

impl ModelCard {
    /// Writes the card; `source` is the card of the model that this one was made from.
    pub(super) fn render(&self, source: Option<&str>) -> String {
        let blocks = source.and_then(blocks).unwrap_or_default();
        let block = |key: &str| blocks.iter().find(|b| b.key == key).filter(|b| b.is_closed());
        let mut lines: Vec<String> = vec!["---".to_owned()];
        for kept in KEPT.iter().filter_map(|key| block(key)) {
            lines.extend(kept.lines.iter().map(|line| (*line).to_owned()));
        }
        match (&self.base_model, block("base_model")) {
            (Some(name), _) => lines.push(format!("base_model: {}", scalar(name))),
            (None, Some(block)) => lines.extend(block.lines.iter().map(|line| (*line).to_owned())),
            (None, None) => {}
        }
        lines.push("library_name: mlx".to_owned());
        lines.push("pipeline_tag: text-generation".to_owned());
        lines.push("tags:".to_owned());
        let tags = block("tags").and_then(Block::items).unwrap_or_default();
        let others = tags.into_iter().filter(|tag| *tag != "mlx");
        lines.extend(others.map(|tag| format!("- {tag}")));
        lines.extend(["- mlx".to_owned(), "---".to_owned()]);
        let mut text = lines.join("\n") + "\n";
        if !self.body.is_empty() {
            text += "\n";
            text += self.body.trim_end();
            text += "\n";
        }
        text
    }
}

/// One entry of a front matter, as it is written.
struct Block<'a> {
    key: &'a str,
    lines: Vec<&'a str>,
}

impl<'a> Block<'a> {
    /// Whether no bracket or quote waits for its end in a later entry.
    fn is_closed(&self) -> bool {
        let count = |c| self.lines.iter().flat_map(|line| line.chars()).filter(|&d| c == d).count();
        count('[') == count(']') && count('{') == count('}') && count('"').is_multiple_of(2)
    }

    /// Returns the items of a list of plain words, as they are written.
    fn items(&self) -> Option<Vec<&'a str>> {
        let (first, rest) = self.lines.split_first()?;
        let inline = first.split_once(':')?.1.trim();
        let items: Vec<&str> = match inline.strip_prefix('[') {
            Some(list) if rest.is_empty() => {
                list.strip_suffix(']')?.split(',').map(str::trim).collect()
            }
            None if inline.is_empty() => rest
                .iter()
                .map(|line| Some(line.trim().strip_prefix("- ")?.trim()))
                .collect::<Option<_>>()?,
            _ => return None,
        };
        items.iter().all(|item| is_plain(item)).then_some(items)
    }
}

/// Cuts a card's front matter into entries; `None` when it has none, or one that is not written
/// the usual way: then nothing of it is taken over.
///
/// This is no reader of YAML: entries are copied as they are, with their quotes and comments.
fn blocks(card: &str) -> Option<Vec<Block<'_>>> {
    let mut lines = card.trim_start_matches('\u{feff}').lines();
    if lines.next()?.trim_end() != "---" {
        return None;
    }
    let mut blocks: Vec<Block<'_>> = Vec::new();
    for line in lines {
        let line = line.trim_end();
        if line == "---" {
            return Some(blocks);
        }
        let key = line.split_once(':').map(|(key, _)| key).filter(|key| is_key(key));
        match (key, blocks.last_mut()) {
            _ if line.is_empty() || line.starts_with('#') => {}
            (Some(key), _) => blocks.push(Block { key, lines: vec![line] }),
            (None, Some(block)) if line.starts_with([' ', '-']) => block.lines.push(line),
            _ => return None,
        }
        // Anchors mean something elsewhere, and tags call for types.
        let begins_value = |c| line.contains(&format!(": {c}")) || line.contains(&format!("- {c}"));
        if line.contains('\t') || ['&', '*', '!'].into_iter().any(begins_value) {
            return None;
        }
    }
    None
}

fn is_key(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Whether a word needs no quotes in a list, or has them.
fn is_plain(item: &str) -> bool {
    let of_name = |c: char| c.is_alphanumeric() || "_-.+/: ".contains(c);
    let inner = ['"', '\''].iter().find_map(|&q| item.strip_prefix(q)?.strip_suffix(q));
    let inner = inner.unwrap_or(item);
    inner.starts_with(char::is_alphanumeric)
        && inner.chars().all(of_name)
        && !inner.contains(": ")
        && !inner.ends_with([':', ' '])
}

/// Writes a text as one value of YAML.
fn scalar(text: &str) -> String {
    match is_plain(text) && text.contains('/') {
        true => text.to_owned(),
        // A string of JSON is one of YAML.
        false => serde_json::Value::from(text).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str =
        "---\nlibrary_name: mlx\npipeline_tag: text-generation\ntags:\n- mlx\n---\n";

    #[test]
    fn says_the_format() {
        assert_eq!(ModelCard::default().render(None), PLAIN);
        let card = ModelCard { base_model: Some("a/b-1.5".into()), body: "# b\n\n".into() };
        let expected = PLAIN.replacen("---\n", "---\nbase_model: a/b-1.5\n", 1) + "\n# b\n";
        assert_eq!(card.render(None), expected);
        let odd = ModelCard { base_model: Some("x: \"y\"\n#".into()), ..ModelCard::default() };
        assert!(odd.render(None).contains("base_model: \"x: \\\"y\\\"\\n#\"\n"));
    }

    #[test]
    fn keeps_terms_and_language_of_the_source() {
        let source = "---\nlanguage:\n- en\n- \"no\"\nlicense: other # see below\nlicense_name: x\n\
            pipeline_tag: image-text-to-text\nwidget:\n  - text: hi\ntags: [chat, mlx, 'a b']\n\
            library_name: transformers\nbase_model:\n  - o/m\n---\n# Title\n";
        let expected = "---\nlicense: other # see below\nlicense_name: x\nlanguage:\n- en\n- \"no\"\n\
            base_model:\n  - o/m\nlibrary_name: mlx\npipeline_tag: text-generation\ntags:\n- chat\n\
            - 'a b'\n- mlx\n---\n";
        assert_eq!(ModelCard::default().render(Some(source)), expected);
        let card = ModelCard { base_model: Some("n/m".into()), ..ModelCard::default() };
        let expected = expected.replace("base_model:\n  - o/m\n", "base_model: n/m\n");
        assert_eq!(card.render(Some(source)), expected);
    }

    #[test]
    fn takes_nothing_from_what_it_does_not_understand() {
        for source in [
            "",
            "# Title",
            "---\nlicense: mit\n",
            "---\nlicense: mit\n]\n---\n",
            "---\nx: &a 1\nlicense: *a\n---\n",
            "---\nlicense: !!python/object x\n---\n",
            "---\n- license: mit\n---\n",
        ] {
            assert_eq!(ModelCard::default().render(Some(source)), PLAIN, "{source}");
        }
        for entry in ["tags: {a: b}", "language: [en,", "license: \"mit"] {
            let source = format!("---\n{entry}\n---\n");
            assert_eq!(ModelCard::default().render(Some(&source)), PLAIN, "{source}");
        }
    }
}
