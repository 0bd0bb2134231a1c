//! Colours, where they are wanted.

use std::{env, fmt::Display, io::IsTerminal};

use clap::ValueEnum;

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`.
    #[default]
    Auto,
    /// Also into a pipe.
    Always,
    /// Not at all.
    Never,
}

/// Whether text is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// They are.
    pub coloured: bool,
}

/// What a colour means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    Plain,
    /// Less important.
    Dim,
    /// More important.
    Bold,
    /// It went well, or is added.
    Good,
    /// It went wrong, or is removed.
    Bad,
    /// It changes, or needs attention.
    Attention,
    /// It continues.
    Active,
}

impl Tone {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Dim => "2",
            Self::Bold => "1",
            Self::Good => "32",
            Self::Bad => "31",
            Self::Attention => "33",
            Self::Active => "36",
        }
    }

    /// The tone of a deployment's or a cluster's status.
    pub fn of_status(status: &str) -> Self {
        match status {
            "SUCCESS" | "ONLINE" | "DONE" => Self::Good,
            "FAILED" | "OFFLINE" | "REVOKED" => Self::Bad,
            "PROCESSING" | "RUNNING" => Self::Active,
            "APPROVAL" | "CANCELLED" | "PENDING" | "UNKNOWN" => Self::Attention,
            _ => Self::Plain,
        }
    }

    /// The same for tables drawn by ratatui.
    pub fn ratatui(self) -> ratatui::style::Style {
        use ratatui::style::{Color, Modifier, Style};
        match self {
            Self::Plain => Style::new(),
            Self::Dim => Style::new().add_modifier(Modifier::DIM),
            Self::Bold => Style::new().add_modifier(Modifier::BOLD),
            Self::Good => Style::new().fg(Color::Green),
            Self::Bad => Style::new().fg(Color::Red),
            Self::Attention => Style::new().fg(Color::Yellow),
            Self::Active => Style::new().fg(Color::Cyan),
        }
    }

    /// The same for tables drawn by comfy-table.
    pub(super) fn comfy(self) -> Option<comfy_table::Color> {
        match self {
            Self::Good => Some(comfy_table::Color::Green),
            Self::Bad => Some(comfy_table::Color::Red),
            Self::Attention => Some(comfy_table::Color::Yellow),
            Self::Active => Some(comfy_table::Color::Cyan),
            Self::Plain | Self::Dim | Self::Bold => None,
        }
    }
}

impl Style {
    /// Decides for a stream, with the environment as it is.
    pub fn for_stream(choice: ColorChoice, stream: &impl IsTerminal) -> Self {
        let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self::decide(choice, no_color || dumb, stream.is_terminal())
    }

    fn decide(choice: ColorChoice, unwanted: bool, terminal: bool) -> Self {
        let coloured = match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && !unwanted,
        };
        Self { coloured }
    }

    /// A text in its colour.
    pub fn paint(self, tone: Tone, text: impl Display) -> String {
        if self.coloured && tone != Tone::Plain {
            format!("\x1b[{}m{text}\x1b[0m", tone.code())
        } else {
            text.to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_color_is_respected_unless_colours_are_asked_for() {
        let decide = |choice, unwanted, terminal| Style::decide(choice, unwanted, terminal).coloured;
        assert!(decide(ColorChoice::Auto, false, true));
        assert!(!decide(ColorChoice::Auto, true, true));
        assert!(!decide(ColorChoice::Auto, false, false));
        assert!(decide(ColorChoice::Always, true, false));
        assert!(!decide(ColorChoice::Never, false, true));
    }
}
