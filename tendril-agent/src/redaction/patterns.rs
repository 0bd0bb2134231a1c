//! Texts that must not be shown, and the search for all of them at once.
//!
//! A sorted list with a filter over the first bytes. An automaton would be faster by a little, but takes a hundred times the
//! room of what it looks for: a secret may be 240 KiB long, and a job may have thousands.

use std::{ops::Range, sync::Arc};

/// How many bytes the filter compares. No pattern is shorter.
pub(super) const HEAD: usize = 4;
/// So much of a longer pattern, from its beginning, is hidden without the rest.
pub(super) const PARTIAL: usize = 48;

/// A set of patterns; never changed.
#[derive(Default)]
pub(super) struct Patterns {
    /// Sorted, each once.
    texts: Vec<Arc<[u8]>>,
    /// Two bits for each pattern, by hashes of its first bytes: of other texts one in a thousand passes.
    heads: Vec<u64>,
}

/// How far a text agrees with the patterns, from its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Agreement {
    /// Length of the longest pattern that the text begins with; 0: none.
    pub(super) whole: usize,
    /// How many bytes of it are the beginning of some pattern.
    pub(super) common: usize,
}

/// What was found in a text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// What must be hidden, in order.
    pub(super) ranges: Vec<Range<usize>>,
    /// From here to its end the text is the beginning of a pattern that may go on in the next text.
    pub(super) open: Option<usize>,
}

impl Patterns {
    /// The set of these; what is shorter than the filter's bytes is left out.
    pub(super) fn new(texts: impl IntoIterator<Item = Arc<[u8]>>) -> Self {
        let mut texts: Vec<Arc<[u8]>> = texts.into_iter().filter(|text| text.len() >= HEAD).collect();
        texts.sort_unstable();
        texts.dedup();
        let bits = (texts.len() * 64).next_power_of_two().clamp(1 << 12, 1 << 22);
        let mut patterns = Self { heads: vec![0; bits / 64], texts };
        for at in 0..patterns.texts.len() {
            for bit in patterns.bits_of(&patterns.texts[at]) {
                patterns.heads[bit / 64] |= 1 << (bit % 64);
            }
        }
        patterns
    }

    pub(super) fn texts(&self) -> &[Arc<[u8]>] {
        &self.texts
    }

    pub(super) fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    fn bits_of(&self, text: &[u8]) -> [usize; 2] {
        let head = text.first_chunk::<HEAD>().map_or(0, |head| u32::from_le_bytes(*head));
        // The upper bits of a product depend on all bits of its factors.
        let hash = u64::from(head).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let last = self.heads.len() * 64 - 1;
        [(hash >> 42) as usize & last, (hash >> 20) as usize & last]
    }

    fn may_begin(&self, text: &[u8]) -> bool {
        self.bits_of(text).into_iter().all(|bit| self.heads[bit / 64] & (1 << (bit % 64)) != 0)
    }

    /// How far a text agrees with them, from its beginning.
    pub(super) fn agreement(&self, text: &[u8]) -> Agreement {
        let next = self.texts.partition_point(|pattern| **pattern <= *text);
        let of = |index: usize| self.texts.get(index).map_or(0, |pattern| agreeing(pattern, text));
        let common = next.checked_sub(1).map_or(0, of).max(of(next));
        let mut rest = &text[..common];
        let mut found = Agreement { whole: 0, common };
        // The longest pattern that the text begins with is the last one that sorts before it, or before what they share.
        while !rest.is_empty() {
            let Some(last) = self.texts.partition_point(|pattern| **pattern <= *rest).checked_sub(1) else {
                break;
            };
            let pattern = &self.texts[last];
            let shared = agreeing(pattern, rest);
            if shared == pattern.len() {
                found.whole = shared;
                break;
            }
            rest = &rest[..shared];
        }
        found
    }

    /// Which patterns begin with this text and are longer.
    pub(super) fn longer_than(&self, text: &[u8]) -> Range<usize> {
        let first = self.texts.partition_point(|pattern| **pattern <= *text);
        let count = self.texts[first..].partition_point(|pattern| pattern.starts_with(text));
        first..first + count
    }

    /// How far a text agrees with what these patterns, which begin alike, hold after so many bytes; and which of them go on
    /// after the whole text.
    pub(super) fn go_on(&self, these: Range<usize>, seen: usize, text: &[u8]) -> (usize, Range<usize>) {
        let patterns = &self.texts[these.clone()];
        let next = patterns.partition_point(|pattern| pattern[seen..] <= *text);
        let of = |at: usize| patterns.get(at).map_or(0, |pattern| agreeing(&pattern[seen..], text));
        let common = next.checked_sub(1).map_or(0, of).max(of(next));
        let count = patterns[next..].partition_point(|pattern| pattern[seen..].starts_with(text));
        (common, these.start + next..these.start + next + count)
    }

    /// Everything in a text that must be hidden.
    pub(super) fn search(&self, text: &[u8]) -> Found {
        let mut found = Found::default();
        if self.texts.is_empty() {
            return found;
        }
        let mut at = 0;
        while at + HEAD <= text.len() {
            if !self.may_begin(&text[at..]) {
                at += 1;
                continue;
            }
            let Agreement { whole, common, .. } = self.agreement(&text[at..]);
            // Also where a whole one ends with the text, as the first line of a secret of several lines does.
            let may_go_on = || common > whole || !self.longer_than(&text[at..]).is_empty();
            if at + common == text.len() && may_go_on() {
                found.open.get_or_insert(at);
            }
            let reach = if common >= PARTIAL { common } else { whole };
            if reach > 0 {
                found.ranges.push(at..at + reach);
            }
            at += reach.max(1);
        }
        if found.open.is_none() {
            // Too short for the filter.
            let is_open = |at: &usize| self.agreement(&text[*at..]).common == text.len() - at;
            found.open = (at.max(text.len().saturating_sub(HEAD - 1))..text.len()).find(is_open);
        }
        found
    }
}

/// How many bytes two texts share at their beginning.
fn agreeing(one: &[u8], other: &[u8]) -> usize {
    // By blocks first: secrets may be long.
    const BLOCK: usize = 64;
    let blocks = one.chunks_exact(BLOCK).zip(other.chunks_exact(BLOCK)).take_while(|(a, b)| a == b).count();
    let from = blocks * BLOCK;
    from + one[from..].iter().zip(&other[from..]).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn patterns(texts: &[&str]) -> Patterns {
        Patterns::new(texts.iter().map(|text| Arc::from(text.as_bytes())))
    }

    #[test]
    fn the_longest_pattern_at_the_leftmost_place_is_found() {
        let patterns = patterns(&["abcd", "abcdefgh", "cdef", "zzzz"]);
        assert_eq!(patterns.search(b"xabcdefghx").ranges.as_slice(), std::slice::from_ref(&(1..9)));
        assert_eq!(patterns.search(b"xabcdefgx").ranges.as_slice(), std::slice::from_ref(&(1..5)));
        assert_eq!(patterns.search(b"cdefzzzz").ranges, [0..4, 4..8]);
        assert_eq!(patterns.search(b"nothing").ranges, [] as [Range<usize>; 0]);
    }

    #[test]
    fn what_may_go_on_in_the_next_text_is_open() {
        let patterns = patterns(&["abcdefgh"]);
        for (text, open) in
            [("x", None), ("xa", Some(1)), ("xabc", Some(1)), ("xabcdefg", Some(1)), ("xabcdefgh", None)]
        {
            assert_eq!(patterns.search(text.as_bytes()).open, open, "{text}");
        }
    }

    #[test]
    fn a_whole_pattern_at_the_end_of_a_text_is_open_while_a_longer_one_begins_with_it() {
        let patterns = patterns(&["abcd", "abcdefgh"]);
        for (text, open) in [("xabcd", Some(1)), ("abcdabcd", Some(4)), ("xabcdefgh", None), ("xabcdx", None)]
        {
            assert_eq!(patterns.search(text.as_bytes()).open, open, "{text}");
        }
    }

    #[test]
    fn a_long_pattern_is_hidden_as_far_as_it_is_shown() {
        let long = "0123456789".repeat(30);
        let patterns = patterns(&[&long]);
        let text = format!("x{}!", &long[..200]);
        assert_eq!(patterns.search(text.as_bytes()).ranges.as_slice(), std::slice::from_ref(&(1..201)));
        assert_eq!(patterns.search(&text.as_bytes()[..30]).ranges, [] as [Range<usize>; 0]);
    }

    proptest! {
        #[test]
        fn the_search_finds_what_a_plain_one_finds(
            texts in proptest::collection::vec("[ab]{4,9}", 1..6), text in "[abc]{0,40}",
        ) {
            let patterns = patterns(&texts.iter().map(String::as_str).collect::<Vec<_>>());
            let (mut expected, mut at) = (Vec::new(), 0);
            while at < text.len() {
                let longest = texts.iter().filter(|one| text[at..].starts_with(one.as_str())).map(String::len).max();
                expected.extend(longest.map(|length| at..at + length));
                at += longest.unwrap_or(1);
            }
            prop_assert_eq!(patterns.search(text.as_bytes()).ranges, expected);
        }
    }
}
