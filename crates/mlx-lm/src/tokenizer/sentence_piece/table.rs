//! A set of texts, to find those that a text begins with.

/// Texts in order, each with its id.
#[derive(Debug, Default)]
pub(super) struct PrefixTable {
    entries: Vec<(Box<str>, u32)>,
}

impl PrefixTable {
    /// Makes a table of texts that differ from each other.
    pub(super) fn new<'a>(entries: impl Iterator<Item = (&'a str, u32)>) -> Self {
        let mut entries: Vec<_> = entries.map(|(text, id)| (Box::from(text), id)).collect();
        entries.sort_unstable();
        PrefixTable { entries }
    }

    /// Returns length and id of each entry that `text` begins with, the shortest first.
    pub(super) fn prefixes<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (usize, u32)> + 'a {
        // The entries from `start` to `end` begin as the text does.
        let (mut start, mut end) = (0, self.entries.len());
        text.bytes()
            .enumerate()
            .map_while(move |(at, byte)| {
                let byte_of = |entry: &(Box<str>, u32)| entry.0.as_bytes().get(at).copied();
                let range = &self.entries[start..end];
                end = start + range.partition_point(|entry| byte_of(entry) <= Some(byte));
                start += range.partition_point(|entry| byte_of(entry) < Some(byte));
                let (first, id) = self.entries[start..end].first()?;
                Some((first.len() == at + 1).then_some((at + 1, *id)))
            })
            .flatten()
    }

    /// Returns length and id of the longest entry that `text` begins with.
    pub(super) fn longest(&self, text: &str) -> Option<(usize, u32)> {
        self.prefixes(text).last()
    }
}
