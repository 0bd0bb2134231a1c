//! The websocket server, held to recordings of the real one and tried with a real websocket client.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod agent;
mod client;
mod faults;
mod frame_faults;
mod freshness;
mod handshake;
mod http;
#[path = "../ledger/mod.rs"]
mod ledger;
mod likeness;
mod limits;
mod private;
mod recorded;
mod replay;
mod request_faults;
mod rows;
mod types;

use supabase_local::{RealtimeOptions, Stack};

/// A stack with the tables of the recordings and no others.
async fn stack() -> Stack {
    stack_with(RealtimeOptions::default()).await
}

async fn stack_with(options: RealtimeOptions) -> Stack {
    let builder = Stack::builder().without_migrations().sql(include_str!("schema.sql")).realtime(options);
    builder.start().await.expect("the stack starts")
}
