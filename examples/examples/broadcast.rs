//! Messages from client to client: two clients in one room, one sends and the other receives.
//!
//! ```text
//! cargo run -p tendril-examples --example broadcast
//! ```
//!
//! with `SUPABASE_URL` and `SUPABASE_ANON_KEY` as `cargo run -p supabase-local` prints them.

use std::env::var;

use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tendril_realtime::{BroadcastEvent, Client};

#[derive(Debug, Serialize, Deserialize)]
struct Cursor {
    x: i32,
    y: i32,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = Client::builder(var("SUPABASE_URL")?, var("SUPABASE_ANON_KEY")?).build()?;
    let mut room = listener.channel("room");
    let mut cursors = room.on_broadcast("cursor");
    let _room = room.join().await?;

    let speaker = Client::builder(var("SUPABASE_URL")?, var("SUPABASE_ANON_KEY")?).build()?;
    // Acknowledged: `broadcast` returns when the server accepted the message.
    let room = speaker.channel("room").ack(true).join().await?;
    for step in 1..=3 {
        room.broadcast("cursor", &Cursor { x: step, y: step * step }).await?;
        match cursors.next().await {
            Some(Ok(BroadcastEvent::Message(message))) => println!("{:?}", message.read::<Cursor>()?),
            Some(Ok(other)) => println!("{other:?}"),
            Some(Err(error)) => return Err(error.into()),
            None => return Ok(()),
        }
    }
    // A single message needs no channel.
    speaker.broadcast_api().send("room", "cursor", &Cursor { x: 0, y: 0 }, false).await?;
    if let Some(Ok(BroadcastEvent::Message(message))) = cursors.next().await {
        println!("{:?}, over HTTP", message.read::<Cursor>()?);
    }
    Ok(())
}
