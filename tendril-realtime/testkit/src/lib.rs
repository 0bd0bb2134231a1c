//! A scripted Supabase Realtime server for tests: in this process, on a free port of the loopback interface, in milliseconds,
//! without PostgreSQL.
//!
//! It speaks both versions of the protocol: joins, row changes with filters, broadcasts, presence, tokens, heartbeats, and the
//! HTTP broadcast interface. A [fault plan](Faults) makes it misbehave as real servers and networks do: refuse, hang,
//! answer late, end channels, cut connections, restart. A [journal](Journal) holds what clients did, with times.
//!
//! ```
//! use tendril_realtime::{Client, ChangeEvent, PostgresChanges, StreamExt as _};
//! use tendril_realtime_testkit::FakeServer;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! #[derive(Debug, serde::Deserialize)]
//! struct Todo { id: i64 }
//!
//! let server = FakeServer::start().await?;
//! let client = Client::builder(server.url(), "anon-key").build()?;
//! let mut todos = client.channel("todos").postgres_changes::<Todo>(PostgresChanges::on("public", "todos")).subscribe().await?;
//!
//! server.insert("public", "todos", serde_json::json!({"id": 1}));
//! assert!(matches!(todos.next().await, Some(Ok(ChangeEvent::Insert(todo))) if todo.id == 1));
//!
//! // The connection breaks: the client reconnects and reports that rows may have been missed.
//! server.cut_connections();
//! loop {
//!     match todos.next().await {
//!         Some(Ok(ChangeEvent::Resync(_))) => break,
//!         Some(Ok(_)) => {}
//!         other => panic!("{other:?}"),
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! What it is not: it evaluates no policies, verifies no token, and stores no rows. Tests of those belong to a real project.

mod channel;
mod connection;
mod fault;
mod filter;
mod frame;
mod http;
mod journal;
mod server;
mod shared;

pub use self::{
    fault::{Answer, Fault, Faults, Point},
    http::{HttpAnswer, HttpRequest},
    journal::{Entry, Event, Journal, NotInTime},
    server::FakeServer,
};
