//! Finds strings in a text that is still growing.

/// What [`scan`] found first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scan {
    /// The pattern with this index begins at this byte.
    Found { at: usize, pattern: usize },
    /// From this byte on the text is the beginning of a pattern, so more text decides.
    Partial { at: usize },
    /// No pattern has begun.
    Clear,
}

/// Looks for the earliest of `patterns` in `text`, the shortest where several begin. With `last`
/// no more text will come, so that beginnings do not count.
///
/// Positions are judged in order, which makes the outcome independent of how the text arrived: a
/// pattern counts as found only when none can still begin before it.
pub(crate) fn scan<S: AsRef<str>>(text: &str, patterns: &[S], last: bool) -> Scan {
    for (at, _) in text.char_indices() {
        let rest = &text[at..];
        let found = patterns
            .iter()
            .enumerate()
            .filter(|(_, pattern)| {
                !pattern.as_ref().is_empty() && rest.starts_with(pattern.as_ref())
            })
            .min_by_key(|(_, pattern)| pattern.as_ref().len());
        if let Some((pattern, _)) = found {
            return Scan::Found { at, pattern };
        }
        if !last && patterns.iter().any(|pattern| pattern.as_ref().starts_with(rest)) {
            return Scan::Partial { at };
        }
    }
    Scan::Clear
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_pattern_counts_and_then_the_shortest() {
        use Scan::{Clear, Found, Partial};
        for (text, patterns, last, expected) in [
            ("xaby", &["b", "ab"][..], false, Found { at: 1, pattern: 1 }),
            ("xab", &["ab", "a"], false, Found { at: 1, pattern: 1 }),
            ("xab", &["abc", "b"], false, Partial { at: 1 }),
            ("xab", &["abc", "b"], true, Found { at: 2, pattern: 1 }),
            ("xay", &["ab"], false, Clear),
            ("语", &["语言"], false, Partial { at: 0 }),
            ("", &["a"], false, Clear),
            ("a", &["", "a"], false, Found { at: 0, pattern: 1 }),
            ("a", &[], false, Clear),
        ] {
            assert_eq!(scan(text, patterns, last), expected, "{text} {patterns:?}");
        }
    }
}
