//! Redacts a stream line by line, and finds secrets that are split over several lines.
//!
//! A line whose end may be the beginning of a secret waits a moment for the next one. Terraform puts the same prefix before
//! each line of a provisioner, and lines of several provisioners mix: the prefix shows which lines belong together.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    normalize::normalize_with_places,
    pattern_set::{PatternSet, first_secret, masked, ranges_of},
    patterns::PARTIAL,
    redactor::Redactor,
};

/// How long a line waits for the next one.
const MAX_DELAY: Duration = Duration::from_millis(200);
/// A shorter beginning of a secret at the end of a line makes it wait only where the line is nothing else.
const DISTINCTIVE: usize = 4;
/// Most lines that wait, and most bytes.
const MOST_LINES: usize = 512;
const MOST_BYTES: usize = 512 * 1024;
/// How many provisioners are followed at the same time.
const MOST_TAILS: usize = 64;
/// What Terraform puts between the address of a provisioner and each of its lines.
pub(crate) const PROVISIONER: &str = "-exec): ";

/// The lines of one stream.
#[derive(Debug, Default)]
pub(crate) struct RedactLines {
    /// Lines that wait, oldest first.
    held: VecDeque<Held>,
    /// Number of the first of them.
    first: u64,
    /// Bytes of them.
    bytes: usize,
    /// When the first of them began to wait.
    since: Option<Instant>,
    /// How each provisioner's lines end so far; that of the last line is the last.
    tails: Vec<(String, Tail)>,
}

#[derive(Debug)]
struct Held {
    text: String,
    hidden: Vec<Range<usize>>,
    /// Which tail may reach into it; none, if it waits only for lines before it.
    waits_for: Option<String>,
}

/// What a secret may have begun with.
#[derive(Default)]
struct Tail {
    /// The end of what was read, normalized.
    text: Vec<u8>,
    /// Of which line each byte is, and at which place of it.
    places: Vec<(u64, usize)>,
    /// A long secret that was followed up to here: its set, the patterns there that it may be, how much of them was seen.
    run: Option<(Arc<PatternSet>, Range<usize>, usize)>,
}

impl std::fmt::Debug for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tail")
    }
}

impl RedactLines {
    /// Takes a line; gives out what is ready, in order.
    pub(crate) fn push(&mut self, redactor: &Redactor, line: &str, mut give: impl FnMut(&str)) {
        let sets = redactor.sets();
        if sets.iter().all(|set| set.is_empty()) {
            self.give_all(&mut give);
            give(line);
            return;
        }
        // Most lines are such.
        if self.is_idle() && first_secret(&sets, line).is_none() {
            self.first += 1;
            return give(line);
        }
        let number = self.first + self.held.len() as u64;
        let body_at = body_of(line);
        let key = &line[..body_at];
        let mut hidden = ranges_of(&sets, line);
        let mut tail = self
            .tails
            .iter()
            .position(|(known, _)| known == key)
            .map_or_else(Tail::default, |at| self.tails.remove(at).1);
        let (body, places) = normalize_with_places(&line.as_bytes()[body_at..]);
        if body.is_empty() {
            self.keep_tail(key, tail);
        } else {
            let places: Vec<(u64, usize)> = places.into_iter().map(|at| (number, body_at + at)).collect();
            let is_run = follow(&mut tail, &body, &places, &mut hidden);
            if !is_run {
                self.join(&sets, &mut tail, &body, &places, &mut hidden);
            }
            let waits = !is_run
                && tail.run.is_none()
                && (tail.text.len() >= DISTINCTIVE || tail.text.len() >= body.len());
            self.release(key, &tail, number, waits);
            let waits_for = (waits && !tail.text.is_empty()).then(|| key.to_owned());
            self.keep_tail(key, tail);
            return self.line(line, hidden, waits_for, &mut give);
        }
        self.line(line, hidden, None, &mut give);
    }

    /// Looks for secrets that began in earlier lines; leaves in the tail what may go on in the next one.
    fn join(
        &mut self,
        sets: &[Arc<PatternSet>],
        tail: &mut Tail,
        body: &[u8],
        places: &[(u64, usize)],
        hidden: &mut Vec<Range<usize>>,
    ) {
        let number = places.first().map_or(0, |(number, _)| *number);
        tail.text.extend_from_slice(body);
        tail.places.extend_from_slice(places);
        let mut open: Option<usize> = None;
        let mut run = None;
        for set in sets {
            let found = set.normalized.search(&tail.text);
            for range in found.ranges {
                for part in tail.places[range].chunk_by(|one, next| one.0 == next.0) {
                    let (line, stretch) = (part[0].0, part[0].1..part[part.len() - 1].1 + 1);
                    if line == number {
                        hidden.push(stretch);
                    } else if let Some(held) = self.held_line(line) {
                        held.hidden.push(stretch);
                    }
                }
            }
            if let Some(at) = found.open {
                open = Some(open.map_or(at, |known| known.min(at)));
                let seen = tail.text.len() - at;
                if seen >= PARTIAL {
                    run = Some((Arc::clone(set), set.normalized.longer_than(&tail.text[at..]), seen));
                }
            }
        }
        let done = open.unwrap_or(tail.text.len());
        tail.text.drain(..done);
        tail.places.drain(..done);
        if run.is_some() {
            (tail.text, tail.places) = (Vec::new(), Vec::new());
        }
        tail.run = run;
    }

    fn held_line(&mut self, number: u64) -> Option<&mut Held> {
        let place = number.checked_sub(self.first)?;
        self.held.get_mut(usize::try_from(place).ok()?)
    }

    /// Lines that waited for this tail wait no more, unless they are in it still.
    fn release(&mut self, key: &str, tail: &Tail, number: u64, waits: bool) {
        let oldest = tail.places.first().map_or(number, |(line, _)| *line);
        for (at, held) in (self.first..).zip(&mut self.held) {
            if held.waits_for.as_deref() == Some(key) && (!waits || at < oldest) {
                held.waits_for = None;
            }
        }
    }

    fn keep_tail(&mut self, key: &str, tail: Tail) {
        if tail.text.is_empty() && tail.run.is_none() {
            return;
        }
        if self.tails.len() == MOST_TAILS {
            self.tails.remove(0);
        }
        self.tails.push((key.to_owned(), tail));
    }

    fn line(
        &mut self,
        text: &str,
        hidden: Vec<Range<usize>>,
        waits_for: Option<String>,
        give: &mut impl FnMut(&str),
    ) {
        if self.held.is_empty() && waits_for.is_none() {
            self.first += 1;
            return give(&masked(text, hidden));
        }
        self.bytes += text.len();
        self.held.push_back(Held { text: text.to_owned(), hidden, waits_for });
        self.since.get_or_insert_with(Instant::now);
        while self.held.front().is_some_and(|front| front.waits_for.is_none())
            || self.held.len() > MOST_LINES
            // One line waits however long it is: the place where a very long one is cut may be inside a secret.
            || (self.held.len() > 1 && self.bytes > MOST_BYTES)
        {
            self.give_one(give);
        }
    }

    fn give_one(&mut self, give: &mut impl FnMut(&str)) {
        if let Some(held) = self.held.pop_front() {
            self.first += 1;
            self.bytes -= held.text.len();
            give(&masked(&held.text, held.hidden));
        }
        if self.held.is_empty() {
            self.since = None;
        }
    }

    /// Gives out everything; what comes next is still compared with it.
    pub(crate) fn give_all(&mut self, give: &mut impl FnMut(&str)) {
        while !self.held.is_empty() {
            self.give_one(give);
        }
    }

    /// When the lines that wait have waited long enough.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + MAX_DELAY)
    }

    /// The end of a program's output: nothing of it continues in what another one writes.
    pub(crate) fn end(&mut self, give: &mut impl FnMut(&str)) {
        self.give_all(give);
        self.tails.clear();
    }

    /// Whether lines can pass this by that are clean by themselves.
    pub(crate) fn is_idle(&self) -> bool {
        self.held.is_empty() && self.tails.is_empty()
    }
}

/// Continues a secret of several lines; returns whether the whole line belongs to it.
fn follow(tail: &mut Tail, body: &[u8], places: &[(u64, usize)], hidden: &mut Vec<Range<usize>>) -> bool {
    let Some((set, these, seen)) = tail.run.take() else { return false };
    let (common, left) = set.normalized.go_on(these, seen, body);
    hidden.extend(common.checked_sub(1).map(|last| places[0].1..places[last].1 + 1));
    if common < body.len() || left.is_empty() {
        return false;
    }
    tail.run = Some((set, left, seen + common));
    true
}

/// Where what a provisioner wrote begins in a line; 0, if it is none of a provisioner.
fn body_of(line: &str) -> usize {
    // An address is short, and a search in long lines would find what a program printed.
    let head = line.as_bytes().get(..line.len().min(1024)).unwrap_or_default();
    let end = head.windows(PROVISIONER.len()).position(|part| part == PROVISIONER.as_bytes());
    end.map_or(0, |at| at + PROVISIONER.len())
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
