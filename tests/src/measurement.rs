//! The table that a bench prints, and the bounds of a release.
//!
//! Each row has a value, and may have an aim (what the product promises on an idle machine) and a bound (what `--check` enforces
//! also on a shared machine). Without `--check` a bench only prints.

use std::{fmt::Display, process::ExitCode};

/// What a measured value has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// The value is printed and has no bound.
    None,
    /// The value must not be larger.
    AtMost(f64),
    /// The value must not be smaller.
    AtLeast(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::None => true,
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
        }
    }
}

impl Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::AtMost(bound) => write!(f, "bound: <= {bound}"),
            Self::AtLeast(bound) => write!(f, "bound: >= {bound}"),
        }
    }
}

/// The rows of one bench.
#[derive(Debug, Default)]
pub struct Measurements {
    check: bool,
    missed: Vec<String>,
}

impl Measurements {
    /// Reads `--check` from the arguments of the process. `None` under `cargo test --benches`, where nothing is measured.
    pub fn from_args() -> Option<Self> {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let has = |name: &str| args.iter().any(|arg| arg == name);
        (!has("--test")).then(|| Self { check: has("--check"), missed: Vec::new() })
    }

    /// Prints one row. `unit` follows the value; `note` has the meaning of the number, or its aim.
    pub fn row(&mut self, what: &str, value: f64, decimals: usize, unit: &str, bound: Bound, note: &str) {
        let text = format!("{value:.decimals$} {unit}");
        let bound_text = bound.to_string();
        let separator = if note.is_empty() || bound_text.is_empty() { "" } else { "; " };
        println!("{what:<62} {:>14}   {note}{separator}{bound_text}", text.trim_end());
        if !bound.holds(value) {
            self.missed.push(format!("{}: {} ({bound_text})", what.trim(), text.trim_end()));
        }
    }

    /// Names the bounds that were missed. With `--check` they fail the bench.
    pub fn finish(self) -> ExitCode {
        if self.missed.is_empty() {
            return ExitCode::SUCCESS;
        }
        println!("bounds that were missed:");
        for missed in &self.missed {
            println!("  {missed}");
        }
        if self.check { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_bound_fails_only_a_bench_that_checks() {
        for (check, code) in [(true, ExitCode::FAILURE), (false, ExitCode::SUCCESS)] {
            let mut measurements = Measurements { check, missed: Vec::new() };
            measurements.row("latency", 31.0, 1, "ms", Bound::AtMost(30.0), "");
            measurements.row("rate", 2.0, 1, "/s", Bound::AtLeast(1.0), "");
            measurements.row("lines", 2.0, 0, "", Bound::None, "");
            assert_eq!(measurements.missed.len(), 1);
            assert_eq!(format!("{:?}", measurements.finish()), format!("{code:?}"));
        }
    }

    #[test]
    fn a_value_on_its_bound_is_within_it() {
        assert!(Bound::AtMost(1.0).holds(1.0));
        assert!(Bound::AtLeast(1.0).holds(1.0));
        assert!(!Bound::AtMost(1.0).holds(f64::NAN));
    }
}
