//! A Supabase Realtime and PostgREST client.
