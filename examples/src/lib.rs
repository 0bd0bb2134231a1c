//! What the examples share: a deployment as its owner sees it, its log in order, and lines on a terminal.

pub mod deployment;
pub mod follow;
pub mod log;
pub mod screen;
