//! Hides secrets in text, by value, in every form in which programs commonly print them.
//!
//! Every room that writes text for others uses it. It depends on no other room.
//!
//! ```text
//! redactor      the secrets of the agent, and of one job
//! lines         a stream, line by line, with secrets that are split over lines
//! forms         the forms in which a program may print a secret
//! patterns      the search for all of them at once
//! pattern_set   the patterns of some secrets, and a text without them
//! normalize     a text without blanks, quotes and line ends
//! ```

mod forms;
mod lines;
mod normalize;
mod pattern_set;
mod patterns;
mod redactor;

pub(crate) use self::{
    lines::{PROVISIONER, RedactLines},
    pattern_set::MASK,
    redactor::Redactor,
};
