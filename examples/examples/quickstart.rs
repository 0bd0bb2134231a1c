//! The README's first code sample, verbatim.
//!
//! ```text
//! cargo run -p tendril-examples --example quickstart
//! ```
//!
//! with `SUPABASE_URL`, `SUPABASE_ANON_KEY` and `SUPABASE_USER_TOKEN` as `make demo ARGS=--keep` prints them.

use std::env::var;

use serde::Deserialize;
use tendril_realtime::{AccessToken, ChangeEvent, Client, PostgresChanges, StreamExt as _};

#[derive(Deserialize)]
struct Deployment {
    id: String,
    status: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::builder(var("SUPABASE_URL")?, var("SUPABASE_ANON_KEY")?)
        .token_source(AccessToken::new(var("SUPABASE_USER_TOKEN")?)?)
        .build()?;
    let changes = PostgresChanges::on("public", "deployments");
    let mut events =
        client.channel("deployments").postgres_changes::<Deployment>(changes).subscribe().await?;
    println!("rows flow");
    while let Some(event) = events.next().await {
        // An error is the end; what passes is an event.
        match event? {
            ChangeEvent::Insert(row) | ChangeEvent::Update { new: row, .. } => {
                println!("{} is {}", row.id, row.status);
            }
            ChangeEvent::Delete { old } => println!("{} is gone", old.json()),
            ChangeEvent::Resync(_) | ChangeEvent::Lagged(_) => {
                println!("may have missed rows: read the table");
            }
            ChangeEvent::Interrupted(error) => eprintln!("{error:#}; it is tried again"),
            _ => {}
        }
    }
    Ok(())
}
