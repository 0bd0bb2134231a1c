//! The view of a text in which secrets are looked for: without blanks, line ends, quotes and backslashes.
//!
//! A shell that quotes (`set -x`, `printf %q`, `declare -p`), a language that prints a literal, JSON inside JSON, `fold`, `od` and
//! a terminal that wraps all add characters of this class to a value, or take some away. Without them every such spelling is
//! the same text.

/// Whether a byte has no place in the view.
pub(super) const fn is_dropped(byte: u8) -> bool {
    byte <= b' ' || matches!(byte, 0x7F | b'\'' | b'"' | b'\\')
}

/// The view of a text.
pub(super) fn normalize(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|byte| !is_dropped(*byte)).collect()
}

/// The view of a text, and at which byte of the text each byte of the view is.
pub(super) fn normalize_with_places(text: &[u8]) -> (Vec<u8>, Vec<usize>) {
    text.iter()
        .copied()
        .enumerate()
        .filter(|(_, byte)| !is_dropped(*byte))
        .map(|(at, byte)| (byte, at))
        .unzip()
}
