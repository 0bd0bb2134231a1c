//! The README's second code sample, verbatim: the rows of a query as they are, and every change of them.
//!
//! ```text
//! cargo run -p tendril-examples --example watch
//! ```
//!
//! with `SUPABASE_URL`, `SUPABASE_ANON_KEY` and `SUPABASE_USER_TOKEN` as `make demo ARGS=--keep` prints them.

use std::env::var;

use serde::Deserialize;
use tendril_realtime::{
    AccessToken, Client, StreamExt as _,
    watch::{Query, WatchEvent},
};

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
    let running = Query::table("deployments").select("id,status").in_list("status", ["QUEUED", "PROCESSING"]);
    let mut events = client.watch::<Deployment>(running)?;
    while let Some(event) = events.next().await {
        match event? {
            WatchEvent::InitApply(row) | WatchEvent::Apply(row) => {
                println!("{} is {}", row.id, row.status);
            }
            WatchEvent::Delete(row) => println!("{} has ended", row.id),
            WatchEvent::Interrupted(error) => eprintln!("{error:#}; it is tried again"),
            _ => {}
        }
    }
    Ok(())
}
