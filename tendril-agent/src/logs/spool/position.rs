//! How far the lines in a spool cover what programs wrote: written with the lines, so that a later process goes on exactly there.

use std::fmt;

use crate::process::Stream;

/// From where on a stream's journal is to be read again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// The place in the journal.
    pub(crate) offset: u64,
    /// How many lines from there on are in the spool.
    pub(crate) lines: u64,
    /// What is at that place.
    pub(crate) at: Place,
}

/// What is at a place of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Place {
    /// The beginning of a line.
    #[default]
    Line,
    /// The middle of a plain line that is longer than a fragment.
    LongLine,
    /// The rest of a line whose beginning is not in the journal.
    TornLine,
}

/// The positions of stdout and stderr; none, if it is not known which of the lines from there on are in the spool.
pub(crate) type Positions = Option<[Position; 2]>;

/// The index of a stream that programs write.
pub(crate) const fn index(stream: Stream) -> Option<usize> {
    match stream {
        Stream::Stdout => Some(0),
        Stream::Stderr => Some(1),
        Stream::Agent => None,
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.at {
            Place::Line => "",
            Place::LongLine => "+",
            Place::TornLine => "!",
        };
        write!(f, "{}:{}{mark}", self.offset, self.lines)
    }
}

/// As the record has it, behind its letter.
pub(super) fn format(positions: Positions) -> String {
    positions.map_or_else(|| "-".to_owned(), |[stdout, stderr]| format!("{stdout} {stderr}"))
}

/// Reads what [`format`] wrote; none, if it is something else.
pub(super) fn parse(text: &str) -> Option<Positions> {
    if text == "-" {
        return Some(None);
    }
    let (stdout, stderr) = text.split_once(' ')?;
    Some(Some([position(stdout)?, position(stderr)?]))
}

fn position(text: &str) -> Option<Position> {
    let (offset, lines) = text.split_once(':')?;
    let (lines, at) = match lines.as_bytes().last()? {
        b'+' => (&lines[..lines.len() - 1], Place::LongLine),
        b'!' => (&lines[..lines.len() - 1], Place::TornLine),
        _ => (lines, Place::Line),
    };
    Some(Position { offset: offset.parse().ok()?, lines: lines.parse().ok()?, at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_they_are_written() {
        let at = |offset, lines, at| Position { offset, lines, at };
        for positions in [
            None,
            Some([Position::default(); 2]),
            Some([at(7, 3, Place::LongLine), at(u64::MAX, 1, Place::TornLine)]),
        ] {
            assert_eq!(parse(&format(positions)), Some(positions));
        }
        for text in ["", "1:2", "1 2", "a:1 0:0", "1:+ 0:0", "1: 0:0"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
