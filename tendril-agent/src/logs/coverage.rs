//! Which part of a stream's journal is covered by the lines that are stored.
//!
//! A position is given as a place in the journal and the number of lines that are stored from there on. The place is some way
//! behind what was read: a later process that reads from there knows what the lines before mean for those that follow (a secret
//! over several lines, a long message, an error of several lines), and passes the lines that are stored.

use crate::logs::spool::position::{Place, Position};

/// How much is read again at most, if no line is that long; at least half of it, if there is so much.
const READ_AGAIN: u64 = if cfg!(test) { 2 * 1024 } else { 4 * 1024 * 1024 };

/// One stream.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    /// What was taken ends here in the journal.
    taken: u64,
    /// What an earlier process took in ends here.
    rest_end: u64,
    /// Lines that were made of what was taken, since this process began.
    made: u64,
    /// Those of them that were given to be stored, or passed.
    given: u64,
    /// Lines that come next and that an earlier process has stored.
    known: u64,
    /// From where on it would be read again.
    from: Mark,
    /// The place that replaces it, once there is enough behind it.
    next: Option<Mark>,
    /// What a program wrote has ended; what comes is of another one.
    is_over: bool,
}

/// A place to read again from.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    offset: u64,
    /// Lines that were made of what lies before it.
    made: u64,
    at: Place,
}

impl Coverage {
    /// Of a stream that is read from this position on; an earlier process took in what lies before `rest_end`.
    pub(super) fn from(position: Position, rest_end: u64) -> Self {
        let Position { offset, lines, at } = position;
        Self {
            taken: offset,
            rest_end,
            known: if rest_end > offset { lines } else { 0 },
            from: Mark { offset, made: 0, at },
            ..Self::default()
        }
    }

    /// What is at the place where it is read from.
    pub(super) const fn begins_at(&self) -> Place {
        self.from.at
    }

    /// These bytes come, which end there in the journal. `is_open`: a line has begun before them.
    pub(super) fn begin(&mut self, size: usize, end: Option<u64>, is_open: bool) {
        let Some(end) = end else { return };
        let start = end.saturating_sub(size as u64);
        if std::mem::take(&mut self.is_over) {
            (self.known, self.taken, self.next) = (0, start, None);
            self.from = Mark { offset: start, made: self.made, at: Place::Line };
        }
        if start >= self.rest_end {
            // All lines that are stored are of what was before, or still wait.
            self.known = self.known.min(self.made - self.given + u64::from(is_open));
        }
    }

    /// A line is made.
    pub(super) const fn made(&mut self) {
        self.made += 1;
    }

    /// A line is ready; returns whether it is to be stored.
    pub(super) const fn give(&mut self) -> bool {
        self.given += 1;
        let is_known = self.known > 0;
        if is_known {
            self.known -= 1;
        }
        !is_known
    }

    /// The bytes up to this place in the journal were taken, except for `open` bytes of a line that has not ended. `at`: what
    /// is at their beginning; none, if nobody can begin there.
    pub(super) fn took(&mut self, end: Option<u64>, open: usize, at: Option<Place>) {
        let Some(end) = end else {
            // What is in no journal cannot be read again.
            let at = if open == 0 && at == Some(Place::Line) { Place::Line } else { Place::TornLine };
            self.from = Mark { offset: self.taken, made: self.made, at };
            self.next = None;
            return;
        };
        self.taken = end;
        let offset = end.saturating_sub(open as u64);
        let last = self.next.unwrap_or(self.from);
        let Some(at) = at.filter(|_| offset >= last.offset + READ_AGAIN / 2) else { return };
        let mark = Mark { offset, made: self.made, at };
        match self.next {
            // Lines before it that wait would be lost.
            Some(next) if next.made > self.given + self.known => {}
            Some(next) => (self.from, self.next) = (next, Some(mark)),
            None => self.next = Some(mark),
        }
    }

    /// The program that wrote it has ended.
    pub(super) const fn end(&mut self) {
        self.is_over = true;
    }

    /// Nothing will follow, and everything that was taken is stored.
    pub(super) const fn close(&mut self) {
        if self.taken < self.rest_end {
            // The rest of an earlier process was not wanted: it is still there.
            return;
        }
        self.known = 0;
        self.from = Mark { offset: self.taken, made: self.made, at: Place::Line };
    }

    /// How far the lines that were given cover the stream.
    pub(super) const fn position(&self) -> Position {
        let Mark { offset, made, at } = self.from;
        Position { offset, lines: (self.given + self.known).saturating_sub(made), at }
    }
}
