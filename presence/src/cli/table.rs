//! Tables of text, aligned by the widths that a terminal uses.

use std::borrow::Cow;

use unicode_width::UnicodeWidthStr;

/// Where a table is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Medium {
    /// A terminal, which may reorder text that is written from right to left.
    Terminal,
    /// A pipe or a file: names are written unchanged.
    Bytes,
}

/// A column with its title. Text is aligned to the left, and numbers to the right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Text(&'static str),
    Number(&'static str),
}

impl Column {
    const fn title(self) -> &'static str {
        match self {
            Self::Text(title) | Self::Number(title) => title,
        }
    }
}

/// A header and rows below it.
pub(super) fn table<const N: usize>(
    medium: Medium,
    columns: [Column; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let rows: Vec<[String; N]> = rows.into_iter().map(|row| row.map(|cell| visible(&cell).into_owned())).collect();
    let widths: [usize; N] = std::array::from_fn(|at| {
        rows.iter().map(|row| row[at].width()).chain([columns[at].title().width()]).max().unwrap_or(0)
    });
    let header = columns.map(|column| column.title().to_owned());
    let mut text = String::new();
    for row in std::iter::once(&header).chain(&rows) {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            let padding = " ".repeat(widths[at] - cell.width());
            match columns[at] {
                Column::Text(_) => line.extend([cell.as_str(), mark(medium, cell), &padding]),
                Column::Number(_) => line.extend([padding.as_str(), cell]),
            }
            line.push_str("  ");
        }
        text.push_str(line.trim_end_matches(' '));
        text.push('\n');
    }
    text
}

/// Replaces invisible characters that would move other text by `�`: those that end a line, and those that change the direction of text.
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    const MOVING: [char; 12] = [
        '\u{2028}', '\u{2029}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}', '\u{2066}', '\u{2067}',
        '\u{2068}', '\u{2069}', '\u{61c}',
    ];
    if text.contains(MOVING) { Cow::Owned(text.replace(MOVING, "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// A mark without width that keeps the order of the columns after right-to-left text. Only a terminal needs it.
fn mark(medium: Medium, cell: &str) -> &'static str {
    let right_to_left = |c| matches!(c, '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{fefc}' | '\u{10800}'..='\u{10fff}' | '\u{1e800}'..='\u{1efff}');
    if medium == Medium::Terminal && cell.contains(right_to_left) { "\u{200e}" } else { "" }
}

/// The text, cut to so many columns.
pub(super) fn shortened(text: &str, columns: usize) -> Cow<'_, str> {
    if text.width() <= columns {
        return Cow::Borrowed(text);
    }
    let mut short = String::new();
    for c in text.chars() {
        short.push(c);
        if short.width() >= columns {
            short.pop();
            break;
        }
    }
    short.push('…');
    Cow::Owned(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two(medium: Medium, names: &[&str]) -> Vec<String> {
        let rows = names.iter().enumerate().map(|(n, name)| [(*name).to_owned(), (n * 50).to_string()]);
        let text = table(medium, [Column::Text("NAME"), Column::Number("N")], rows);
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn columns_are_aligned_by_their_visible_width_and_lines_have_no_space_at_the_end() {
        let lines = two(Medium::Bytes, &["a", "名前", "👩‍👩‍👧", "e\u{301}", ""]);
        assert_eq!(lines, ["NAME    N", "a       0", "名前   50", "👩‍👩‍👧    100", "e\u{301}     150", "      200"]);
        let text = table(Medium::Bytes, [Column::Number("N"), Column::Text("NAME")], [["1".into(), "a".into()]]);
        assert_eq!(text, "N  NAME\n1  a\n");
    }

    #[test]
    fn invisible_characters_move_nothing() {
        let lines = two(Medium::Bytes, &["\u{202e}evil", "a\u{2028}b"]);
        assert_eq!(lines, ["NAME    N", "�evil   0", "a�b    50"]);
    }

    #[test]
    fn right_to_left_names_keep_the_order_of_columns_on_a_terminal_and_are_unchanged_elsewhere() {
        assert_eq!(two(Medium::Terminal, &["שלום"])[1], "שלום\u{200e}  0");
        assert_eq!(two(Medium::Bytes, &["שלום"])[1], "שלום  0");
    }

    #[test]
    fn a_long_text_is_shortened_by_columns() {
        assert_eq!(shortened("abcdef", 6), "abcdef");
        assert_eq!(shortened("abcdefg", 6), "abcde…");
        assert_eq!(shortened("名前名前", 6), "名前…");
    }
}
