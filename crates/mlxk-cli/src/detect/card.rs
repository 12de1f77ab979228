//! The front matter of a model card: `README.md` up to the second `---`.
//!
//! It is YAML that people write by hand, often broken. Only three entries are of use, so they are
//! looked for line by line, and what does not look like one is passed over.

use mlx_lm::files::ModelFiles;

/// What the front matter says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Card {
    /// `library_name`.
    pub(super) library: Option<String>,
    /// `pipeline_tag`.
    pub(super) task: Option<String>,
    tags: Vec<String>,
}

impl Card {
    /// Reads the card; an absent one says nothing.
    pub(super) fn read(files: &ModelFiles) -> Card {
        let bytes = files.read("README.md").ok().flatten();
        bytes.map_or_else(Card::default, |bytes| Card::parse(&String::from_utf8_lossy(&bytes)))
    }

    pub(super) fn has_tag(&self, tag: &str) -> bool {
        self.tags.iter().any(|other| other.eq_ignore_ascii_case(tag))
    }

    fn parse(text: &str) -> Card {
        let mut card = Card::default();
        let mut lines = text.trim_start_matches('\u{feff}').lines();
        if lines.next().map(str::trim_end) != Some("---") {
            return card;
        }
        let mut in_tags = false;
        for line in lines.take_while(|line| line.trim_end() != "---") {
            if let Some(item) = line.trim_start().strip_prefix("- ").filter(|_| in_tags) {
                card.tags.push(scalar(item));
                continue;
            }
            let Some((key, value)) = line.split_once(':') else { continue };
            in_tags = key == "tags";
            let value = value.trim();
            match key {
                "library_name" => card.library = Some(scalar(value)),
                "pipeline_tag" => card.task = Some(scalar(value)),
                "tags" => {
                    let list = value.trim_start_matches('[').trim_end_matches(']').split(',');
                    card.tags.extend(list.map(scalar).filter(|tag| !tag.is_empty()));
                }
                _ => {}
            }
        }
        card
    }
}

/// Returns a value without quotes and without a comment behind it.
fn scalar(text: &str) -> String {
    let text = text.split(" #").next().unwrap_or_default().trim();
    text.trim_matches(['"', '\'']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_however_they_are_written() {
        let text = "---\nlicense: mit\nlibrary_name: \"mlx\" # comment\ntags:\n- a\n  - 'mlx'\n\
                    pipeline_tag: text-generation\nlanguage:\n- en\n---\n\ntags: [b]\n";
        let card = Card::parse(text);
        assert_eq!(card.library.as_deref(), Some("mlx"));
        assert_eq!(card.task.as_deref(), Some("text-generation"));
        assert_eq!(card.tags, ["a", "mlx"]);
        assert_eq!(Card::parse("---\ntags: [a, \"MLX\"]\n---").tags, ["a", "MLX"]);
        assert!(Card::parse("---\ntags: mlx\n").has_tag("MLX"));
        for text in ["", "tags: [mlx]", "---\nmodel: x\n - mlx\n---", "---\n---\ntags: [mlx]"] {
            assert_eq!(Card::parse(text), Card::default(), "{text}");
        }
    }
}
