//! HTTP as the real servers take it: what they accept of a request line and this library would refuse.

mod listener;
mod request_line;

pub use listener::{Lenient, LenientStream};
