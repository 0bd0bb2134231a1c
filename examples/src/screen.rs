//! Lines on standard output: coloured on a terminal, plain elsewhere or where `NO_COLOR` is set.

use std::{
    env, fmt,
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use crate::{deployment::Deployment, log::Chunk};

/// Where the examples write.
#[derive(Debug)]
pub struct Screen {
    coloured: bool,
    /// What the clock in front of each line counts from.
    since: Instant,
    /// The last status that was shown.
    stage: String,
}

/// How a text is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    Plain,
    /// Less important.
    Dim,
    /// More important.
    Bold,
    /// It went well.
    Good,
    /// It went wrong.
    Bad,
    /// Attention.
    Odd,
    /// The agent's own annotations.
    Agent,
}

impl Tone {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Dim => "2",
            Self::Bold => "1",
            Self::Good => "1;32",
            Self::Bad => "1;31",
            Self::Odd => "33",
            Self::Agent => "36",
        }
    }
}

impl Default for Screen {
    fn default() -> Self {
        let wanted = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let coloured =
            wanted && io::stdout().is_terminal() && env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self { coloured, since: Instant::now(), stage: String::new() }
    }
}

impl Screen {
    /// Counts the time from now on.
    pub fn start_clock(&mut self) -> Instant {
        self.since = Instant::now();
        self.since
    }

    /// A text in its colour.
    pub fn paint(&self, tone: Tone, text: impl fmt::Display) -> String {
        match tone {
            Tone::Plain => text.to_string(),
            _ if !self.coloured => text.to_string(),
            tone => format!("\x1b[{}m{text}\x1b[0m", tone.code()),
        }
    }

    /// A line as it is.
    ///
    /// # Errors
    /// If the reader is gone.
    pub fn line(&self, text: impl fmt::Display) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}")?;
        out.flush()
    }

    /// A name and its value.
    ///
    /// # Errors
    /// As [`line`](Self::line).
    pub fn fact(&self, name: &str, value: impl fmt::Display) -> io::Result<()> {
        self.line(format_args!("  {} {value}", self.paint(Tone::Dim, format_args!("{name:<10}"))))
    }

    /// The lines of a chunk, each with the stream's name.
    ///
    /// # Errors
    /// As [`line`](Self::line).
    pub fn chunk(&self, chunk: &Chunk) -> io::Result<()> {
        let tone = match chunk.stream.as_str() {
            "stderr" => Tone::Odd,
            "agent" => Tone::Agent,
            _ => Tone::Plain,
        };
        chunk.lines().try_for_each(|line| self.entry(&chunk.stream, tone, &printable(line)))
    }

    /// The status of a deployment, where it is new. The log shows most phases too.
    ///
    /// # Errors
    /// As [`line`](Self::line).
    pub fn status(&mut self, row: &Deployment) -> io::Result<()> {
        let stage = match row.phase.as_deref() {
            Some(phase @ ("APPROVAL" | "UNKNOWN")) => format!("{}, phase {phase}", row.status),
            _ => row.status.clone(),
        };
        if self.stage == stage {
            return Ok(());
        }
        self.entry("status", Tone::Bold, &stage)?;
        self.stage = stage;
        Ok(())
    }

    /// How a deployment ended: its status, when, and why if it failed.
    pub fn end(&self, row: &Deployment) -> String {
        let tone = match row.status.as_str() {
            "SUCCESS" => Tone::Good,
            "CANCELLED" => Tone::Odd,
            _ => Tone::Bad,
        };
        let status = self.paint(tone, &row.status);
        let after = row.finished_at.map(|time| format!(" after {}", span(row.since_queued(time))));
        let code = row.error_code.iter().filter(|code| **code != row.status).map(|code| format!(", {code}"));
        let message = row.error_message.iter().flat_map(|message| message.lines());
        let reasons = message.map(|line| format!("\n{:13}{}", "", printable(line)));
        std::iter::once(status).chain(after).chain(code).chain(reasons).collect()
    }

    fn entry(&self, name: &str, tone: Tone, text: &str) -> io::Result<()> {
        let clock = format!("{:>6.1} s  {name:<6} │", self.since.elapsed().as_secs_f64());
        let line = format!("{} {}", self.paint(Tone::Dim, clock), self.paint(tone, text));
        self.line(line.trim_end())
    }
}

/// A line that cannot command the terminal.
pub fn printable(line: &str) -> String {
    let is_command = |character: char| character.is_control() && character != '\t';
    if !line.contains(is_command) {
        return line.to_owned();
    }
    line.chars().fold(String::with_capacity(line.len()), |mut text, character| {
        if is_command(character) {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
        text
    })
}

/// A time in the unit that suits it.
pub fn span(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_cannot_command_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\tc\r"), "a\\u{1b}[2Jb\tc\\r");
        assert_eq!(printable("grüße"), "grüße");
    }

    #[test]
    fn nothing_is_coloured_where_colours_are_not_wanted() {
        let screen = Screen { coloured: false, since: Instant::now(), stage: String::new() };
        assert_eq!(screen.paint(Tone::Bad, "FAILED"), "FAILED");
        let screen = Screen { coloured: true, ..screen };
        assert_eq!(screen.paint(Tone::Bad, "FAILED"), "\x1b[1;31mFAILED\x1b[0m");
    }

    #[test]
    fn a_short_time_is_in_milliseconds() {
        assert_eq!(span(Duration::from_micros(12_900)), "12 ms");
        assert_eq!(span(Duration::from_millis(4_560)), "4.6 s");
    }
}
