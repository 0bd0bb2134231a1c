//! The time limit of a program that was reached, and its sentence.

use std::{fmt, time::Duration};

/// A limit that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    /// A step took too long: its name, and the limit.
    Step(&'static str, Duration),
    /// There was no output for so long.
    Silence(Duration),
}

impl fmt::Display for Expired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step(step, limit) => write!(
                f,
                "terraform {step} took longer than its limit of {} s (config_snapshot.timeouts.{step}, or --{step}-timeout of the agent)",
                limit.as_secs()
            ),
            Self::Silence(limit) => write!(
                f,
                "there was no output for {} s (config_snapshot.timeouts.silence, or --silence-timeout of the agent)",
                limit.as_secs()
            ),
        }
    }
}
