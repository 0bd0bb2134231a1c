//! The records of a spool's files.

use jiff::Timestamp;
use serde::Serialize;

use super::position::{self, Positions};
use crate::process::Stream;

pub(super) const STREAMS: [Stream; 3] = [Stream::Stdout, Stream::Stderr, Stream::Agent];

/// The letter of a stream at the beginning of a record.
pub(super) trait Mark: Sized {
    fn mark(self) -> u8;
    fn of_mark(mark: u8) -> Option<Self>;
}

impl Mark for Stream {
    fn mark(self) -> u8 {
        match self {
            Self::Stdout => b'o',
            Self::Stderr => b'e',
            Self::Agent => b'a',
        }
    }

    fn of_mark(mark: u8) -> Option<Self> {
        STREAMS.into_iter().find(|stream| stream.mark() == mark)
    }
}

/// Some lines of one stream: a row of `deployment_logs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Chunk {
    /// 1..N over all streams of the attempt.
    pub(crate) seq: u64,
    /// Whose lines.
    pub(crate) stream: Stream,
    /// The lines, each with its `\n`.
    #[serde(rename = "log_chunk")]
    pub(crate) text: String,
    /// When the first line was read.
    pub(crate) ts: Timestamp,
}

/// A line of the file.
pub(super) enum Record<'a> {
    Time(Timestamp),
    Line(Stream, &'a str),
    Cut(Stream),
    Covered(Positions),
}

impl<'a> Record<'a> {
    pub(super) fn parse(record: &'a [u8]) -> Option<Self> {
        let (mark, rest) = record.split_first()?;
        let text = std::str::from_utf8(rest).ok()?;
        match mark {
            b't' => Timestamp::from_millisecond(text.parse().ok()?).ok().map(Self::Time),
            b'c' => Stream::of_mark(*rest.first()?).map(Self::Cut),
            b'p' => position::parse(text).map(Self::Covered),
            mark => Some(Self::Line(Stream::of_mark(*mark)?, text)),
        }
    }
}

/// What becomes of whole records behind the last position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    Dropped,
    Kept,
}

/// Where a spool of a previous run ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct SpoolEnd {
    /// The size of its last segment.
    pub(super) bytes: u64,
    /// How many bytes of each stream have no cut.
    pub(super) open: [usize; 3],
    pub(super) positions: Positions,
}

/// The record of positions.
pub(super) fn record(positions: Positions) -> Vec<u8> {
    format!("p{}\n", position::format(positions)).into_bytes()
}
