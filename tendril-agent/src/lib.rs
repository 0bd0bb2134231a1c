//! The agent as a library; `main.rs` is only the wiring of a process.
