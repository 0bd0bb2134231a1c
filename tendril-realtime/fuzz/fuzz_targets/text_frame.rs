//! `cargo +nightly fuzz run text_frame`: any text on a connection with a joined channel.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| tendril_realtime::fuzzing::text_frame(text));
