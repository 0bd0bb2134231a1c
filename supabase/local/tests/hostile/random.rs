//! Randomness that comes again: a seed decides.

/// xorshift64*.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(0x9E37_79B9_7F4A_7C15 ^ (seed + 1))
    }

    /// Whether something happens that happens once in so many times.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % limit
    }

    pub(crate) fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    /// Mostly one of the first few, which are as they should be.
    pub(crate) fn mostly<'a>(&mut self, choices: &[&'a str], good: usize) -> &'a str {
        if self.once_in(5) { self.one_of(choices) } else { self.one_of(&choices[..good]) }
    }

    /// A text of pieces that mean something somewhere, and of some that mean nothing.
    pub(crate) fn text(&mut self, pieces: &[&str]) -> String {
        (0..self.below(6)).map(|_| self.one_of(pieces)).collect()
    }
}
