//! `cargo +nightly fuzz run binary_frame`: any bytes on a connection with a joined channel.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tendril_realtime::fuzzing::binary_frame(bytes));
