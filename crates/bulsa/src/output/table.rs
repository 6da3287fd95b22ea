//! Tables with aligned columns.

use super::Tone;

/// One cell.
#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell in a tone.
    #[must_use]
    pub fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.to_string(), tone: Tone::Plain }
    }
}

/// Rows under headings; an empty cell shows as `-`.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these headings.
    #[must_use]
    pub fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| Cell::toned(*heading, Tone::Strong)).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let filled = |cell: Cell| if cell.text.is_empty() { Cell::toned("-", Tone::Dim) } else { cell };
        self.rows.push(cells.into_iter().map(filled).collect());
    }

    /// Its lines, two spaces between columns and none at the end of a line.
    #[must_use]
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.text.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate() {
                text += &cell.tone.paint(&cell.text);
                if column + 1 < row.len() {
                    text += &" ".repeat(widths[column] - cell.text.chars().count() + 2);
                }
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_what_is_seen_and_lines_end_clean() {
        let mut table = Table::new(&["NAME", "STATE", "URL"]);
        table.row([Cell::from("web"), Cell::toned("healthy", Tone::Good), Cell::from("")]);
        table.row([Cell::from("웹서버"), Cell::toned("down", Tone::Bad), Cell::from(8080)]);
        let plain = anstream::adapter::strip_str(&table.render()).to_string();
        insta::assert_snapshot!(plain, @r"
        NAME  STATE    URL
        web   healthy  -
        웹서버   down     8080
        ");
        assert!(plain.lines().all(|line| !line.ends_with(' ')));
    }
}
