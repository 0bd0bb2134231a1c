//! The world the scenarios play in.
