//! Where a text may be cut.

/// The last position up to `limit` at which no character is cut apart.
pub(crate) fn char_floor(text: &str, limit: usize) -> usize {
    (0..=limit.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::char_floor;

    #[test]
    fn no_character_is_cut_apart() {
        assert_eq!([0, 1, 2, 3, 9].map(|limit| char_floor("aé€", limit)), [0, 1, 1, 3, 6]);
    }
}
