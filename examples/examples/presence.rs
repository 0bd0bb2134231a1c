//! Who is there: two clients meet in a room, and one of them leaves.
//!
//! ```text
//! cargo run -p tendril-examples --example presence
//! ```
//!
//! with `SUPABASE_URL` and `SUPABASE_ANON_KEY` as `cargo run -p supabase-local` prints them.

use std::env::var;

use futures_util::StreamExt as _;
use serde_json::json;
use tendril_realtime::{Client, PresenceEvent};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let host = Client::builder(var("SUPABASE_URL")?, var("SUPABASE_ANON_KEY")?).build()?;
    let mut room = host.channel("lobby").presence_key("host");
    let mut people = room.on_presence();
    let room = room.join().await?;
    room.track(&json!({"mood": "curious"})).await?;

    let guest = Client::builder(var("SUPABASE_URL")?, var("SUPABASE_ANON_KEY")?).build()?;
    let mut visit = Some(guest.channel("lobby").presence_key("guest").join().await?);
    if let Some(visit) = &visit {
        visit.track(&json!({"mood": "late"})).await?;
    }
    while let Some(event) = people.next().await {
        match event? {
            PresenceEvent::Join { key, joined } => {
                println!("{key} came: {:?}", joined.last().map(|meta| &meta.state));
            }
            PresenceEvent::Leave { key, remaining, .. } if remaining.is_empty() => {
                println!("{key} went");
                if key == "guest" {
                    break;
                }
            }
            PresenceEvent::Sync => {
                println!("there now: {:?}", people.state().keys().collect::<Vec<_>>());
                // Dropping the last handle leaves the channel.
                if people.state().contains_key("guest") {
                    visit.take();
                }
            }
            _ => {}
        }
    }
    Ok(())
}
