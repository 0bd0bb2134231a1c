//! An embedded Supabase-compatible stack.
