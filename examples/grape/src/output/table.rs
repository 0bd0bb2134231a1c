//! Tables as `kubectl` draws them: columns without lines, wide cells wrapped to the terminal.

use comfy_table::{Cell, ContentArrangement, Table as Grid, presets::NOTHING};

use super::style::{Style, Tone};
use tendril_examples::screen::printable;

/// A table that is being filled.
#[derive(Debug)]
pub struct Table {
    grid: Grid,
    style: Style,
}

/// A cell and its tone.
pub type Item = (Tone, String);

impl Table {
    /// A table with these columns.
    pub fn new(style: Style, columns: &[&str]) -> Self {
        let mut grid = Grid::new();
        grid.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(columns);
        if style.coloured {
            grid.enforce_styling();
        } else {
            grid.force_no_tty();
            // Into a pipe lines stay whole; on a terminal without colours they are wrapped.
            if let Ok((width, _)) = ratatui::crossterm::terminal::size()
                && std::io::IsTerminal::is_terminal(&std::io::stdout())
            {
                grid.set_width(width);
            } else {
                grid.set_content_arrangement(ContentArrangement::Disabled);
            }
        }
        Self { grid, style }
    }

    /// Adds a row. What cells hold comes from a database: it cannot command the terminal.
    pub fn row(&mut self, items: impl IntoIterator<Item = Item>) {
        let cell = |(tone, text): Item| {
            let cell = Cell::new(text.lines().map(printable).collect::<Vec<_>>().join("\n"));
            match tone.comfy() {
                Some(color) if self.style.coloured => cell.fg(color),
                _ => cell,
            }
        };
        self.grid.add_row(items.into_iter().map(cell));
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lines: Vec<_> = self.grid.lines().map(|line| line.trim_end().to_owned()).collect();
        // Cells have a space before them; columns begin at the margin.
        let lines = lines.iter().map(|line| line.strip_prefix(' ').unwrap_or(line));
        f.write_str(&lines.collect::<Vec<_>>().join("\n"))
    }
}

/// A cell as it is.
pub fn plain(text: impl std::fmt::Display) -> Item {
    (Tone::Plain, text.to_string())
}

/// A status in its colour.
pub fn status(text: &str) -> Item {
    (Tone::of_status(text), text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_cannot_command_the_terminal() {
        let mut table = Table::new(Style { coloured: false }, &["NAME", "STATUS"]);
        table.row([plain("a\x1b[2J"), status("ONLINE")]);
        let text = table.to_string();
        assert!(!text.contains('\x1b'), "{text:?}");
        assert_eq!(text.lines().next().map(str::trim_end), Some("NAME        STATUS"), "{text:?}");
    }
}
