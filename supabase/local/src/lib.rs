//! An embedded Supabase-compatible stack.

pub mod jwt;
pub mod rest;
