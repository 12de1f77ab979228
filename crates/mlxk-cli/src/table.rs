//! Tables that fit the terminal, and what stands in them.

use jiff::Timestamp;
use unicode_width::UnicodeWidthChar as _;
use unicode_width::UnicodeWidthStr as _;

use crate::output::printable;

/// The narrowest that a column is made.
const NARROWEST: usize = 8;

/// A column.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    title: &'static str,
    align_right: bool,
    /// Whether it gives way where the whole is too wide.
    shrinks: bool,
}

impl Column {
    pub(crate) fn left(title: &'static str) -> Self {
        Column { title, align_right: false, shrinks: false }
    }

    pub(crate) fn right(title: &'static str) -> Self {
        Column { title, align_right: true, shrinks: false }
    }

    /// Makes a column of text that is cut where the terminal is narrow.
    pub(crate) fn text(title: &'static str) -> Self {
        Column { title, align_right: false, shrinks: true }
    }
}

/// Returns the width of the terminal that stdout is; none where it is something else.
pub(crate) fn terminal_width() -> Option<usize> {
    let (width, _) = terminal_size::terminal_size_of(std::io::stdout())?;
    Some(width.0.into())
}

/// Lays out a table, in lines of at most `width` where that can be.
pub(crate) fn render(columns: &[Column], rows: &[Vec<String>], width: Option<usize>) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| printable(cell).replace(['\n', '\t'], " ")).collect())
        .collect();
    let mut widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(i, column)| {
            let cells = rows.iter().map(|row| row[i].width());
            cells.max().unwrap_or(0).max(column.title.width())
        })
        .collect();
    if let Some(width) = width {
        shrink(columns, &mut widths, width);
    }
    let line = |cells: Vec<&str>| {
        let cells = columns.iter().zip(&widths).zip(cells);
        let cells = cells.map(|((column, width), cell)| pad(cell, *width, column.align_right));
        cells.collect::<Vec<_>>().join(" | ").trim_end().to_owned() + "\n"
    };
    let mut text = line(columns.iter().map(|column| column.title).collect());
    text += &widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>().join("-+-");
    text.push('\n');
    for row in &rows {
        text += &line(row.iter().map(String::as_str).collect());
    }
    text
}

/// Takes from the widest column that gives way until all fit.
fn shrink(columns: &[Column], widths: &mut [usize], most: usize) {
    let separators = 3 * columns.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + separators > most {
        let shrinking = columns.iter().zip(widths.iter_mut());
        let widest = shrinking
            .filter(|(column, width)| column.shrinks && **width > NARROWEST)
            .max_by_key(|(_, width)| **width);
        match widest {
            Some((_, width)) => *width -= 1,
            None => return,
        }
    }
}

/// Fills a cell up with spaces, or cuts it and says so.
fn pad(cell: &str, width: usize, align_right: bool) -> String {
    let mut cell = cell.to_owned();
    if cell.width() > width {
        let mut kept = String::new();
        for c in cell.chars() {
            if kept.width() + c.width().unwrap_or(0) >= width {
                break;
            }
            kept.push(c);
        }
        cell = kept + "…";
    }
    let space = " ".repeat(width.saturating_sub(cell.width()));
    if align_right { space + &cell } else { cell + &space }
}

/// Says how long ago a time in UTC was: a date where that is longer than a month.
pub(crate) fn relative_time(time: &str, now: Timestamp) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    let Ok(time) = time.parse::<Timestamp>() else { return time.to_owned() };
    match now.duration_since(time).as_secs() {
        ..MINUTE => "just now".to_owned(),
        seconds @ ..HOUR => format!("{}m ago", seconds / MINUTE),
        seconds @ ..DAY => format!("{}h ago", seconds / HOUR),
        seconds if seconds < 30 * DAY => format!("{}d ago", seconds / DAY),
        _ => time.strftime("%Y-%m-%d").to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_relative_for_a_month() {
        let now: Timestamp = "2026-03-31T12:00:00Z".parse().expect("a time");
        for (time, expected) in [
            ("2026-03-31T12:00:01Z", "just now"),
            ("2026-03-31T11:59:01Z", "just now"),
            ("2026-03-31T11:59:00Z", "1m ago"),
            ("2026-03-31T10:00:01Z", "1h ago"),
            ("2026-03-30T12:00:00Z", "1d ago"),
            ("2026-03-01T12:00:01Z", "29d ago"),
            ("2026-03-01T12:00:00Z", "2026-03-01"),
            ("long ago", "long ago"),
        ] {
            assert_eq!(relative_time(time, now), expected, "{time}");
        }
    }

    fn columns() -> [Column; 3] {
        [Column::text("Name"), Column::right("Size"), Column::left("Type")]
    }

    fn rows() -> Vec<Vec<String>> {
        [["a-rather-long-name", "1.9 GB", "chat"], ["模型", "5 B", "base"]]
            .map(|row| row.map(str::to_owned).to_vec())
            .to_vec()
    }

    #[test]
    fn columns_are_aligned() {
        let expected = "\
Name               |   Size | Type
-------------------+--------+-----
a-rather-long-name | 1.9 GB | chat
模型               |    5 B | base
";
        assert_eq!(render(&columns(), &rows(), None), expected);
        assert_eq!(render(&columns(), &rows(), Some(34)), expected);
    }

    #[test]
    fn text_is_cut_to_fit() {
        let expected = "\
Name       |   Size | Type
-----------+--------+-----
a-rather-… | 1.9 GB | chat
模型       |    5 B | base
";
        assert_eq!(render(&columns(), &rows(), Some(26)), expected);
        // No narrower than can be read.
        let lines = render(&columns(), &rows(), Some(1));
        assert!(lines.starts_with("Name     |   Size | Type\n"), "{lines}");
    }

    #[test]
    fn cells_command_no_terminal() {
        let text = render(&[Column::text("A")], &[vec!["\x1b[2J\nx".to_owned()]], None);
        assert_eq!(text, "A\n------\n\u{fffd}[2J x\n");
    }
}
