//! The patterns of some secrets, and a text without what matches them.

use std::{borrow::Cow, ops::Range, sync::Arc};

use super::{
    normalize::{is_dropped, normalize, normalize_with_places},
    patterns::{HEAD, Patterns},
};

/// What is put in the place of a secret.
pub(crate) const MASK: &str = "[hidden]";
/// What is shorter without blanks and quotes is looked for as it is: other text with blanks in it could spell it.
const SHORTEST_NORMALIZED: usize = 6;

/// Patterns of some secrets; never changed.
#[derive(Default)]
pub(super) struct PatternSet {
    /// Looked for in the text without blanks and quotes.
    pub(super) normalized: Patterns,
    /// Looked for in the text as it is.
    pub(super) exact: Patterns,
}

impl PatternSet {
    /// These forms, and those of another set.
    pub(super) fn new(forms: &[String], other: &Self) -> Self {
        let mut normalized = other.normalized.texts().to_vec();
        let mut exact = other.exact.texts().to_vec();
        for form in forms {
            let short = normalize(form.as_bytes());
            if short.len() >= SHORTEST_NORMALIZED {
                normalized.push(short.into());
            } else if form.len() >= HEAD {
                exact.push(form.as_bytes().into());
            }
        }
        Self { normalized: Patterns::new(normalized), exact: Patterns::new(exact) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.normalized.is_empty() && self.exact.is_empty()
    }
}

/// What must be hidden of a text that is no part of a stream.
pub(super) fn ranges_of(sets: &[Arc<PatternSet>], text: &str) -> Vec<Range<usize>> {
    let (normalized, places) = normalize_with_places(text.as_bytes());
    let mut ranges = Vec::new();
    for set in sets {
        let found = set.normalized.search(&normalized).ranges;
        ranges.extend(found.into_iter().map(|range| places[range.start]..places[range.end - 1] + 1));
        ranges.extend(set.exact.search(text.as_bytes()).ranges);
    }
    ranges
}

/// Where the first thing begins that must be hidden, or that may be the beginning of a secret which goes on in the next text.
pub(super) fn first_secret(sets: &[Arc<PatternSet>], text: &str) -> Option<usize> {
    if sets.is_empty() {
        return None;
    }
    let normalized = normalize(text.as_bytes());
    let (mut first, mut exact) = (None::<usize>, None::<usize>);
    for set in sets {
        let found = set.normalized.search(&normalized);
        let begins = found.ranges.first().map(|range| range.start);
        first = [first, begins, found.open].into_iter().flatten().min();
        let begins = set.exact.search(text.as_bytes()).ranges.first().map(|range| range.start);
        exact = [exact, begins].into_iter().flatten().min();
    }
    let kept = || text.bytes().enumerate().filter(|(_, byte)| !is_dropped(*byte)).map(|(at, _)| at);
    let first = first.and_then(|place| kept().nth(place));
    first.into_iter().chain(exact).min()
}

/// A text with these ranges hidden, each stretch of each line by one mask.
pub(super) fn masked(text: &str, mut ranges: Vec<Range<usize>>) -> Cow<'_, str> {
    if ranges.is_empty() {
        return Cow::Borrowed(text);
    }
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    let (mut out, mut done) = (String::with_capacity(text.len()), 0);
    let mut ranges = ranges.into_iter().peekable();
    while let Some(mut range) = ranges.next() {
        while let Some(next) = ranges.next_if(|next| next.start < range.end) {
            range.end = range.end.max(next.end);
        }
        // A secret that is shown in part may end inside a character.
        let start = (0..=range.start).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0).max(done);
        let end = (range.end..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
        out.push_str(&text[done..start]);
        let lines = text[start..end].split('\n').map(|line| if line.trim().is_empty() { "" } else { MASK });
        out.push_str(&lines.collect::<Vec<_>>().join("\n"));
        done = end;
    }
    out.push_str(&text[done..]);
    Cow::Owned(out)
}
