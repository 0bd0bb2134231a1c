//! A private channel, joined only by those whom a policy on `realtime.messages` lets in.
//!
//! ```sql
//! create policy "rooms are for users" on realtime.messages for select to authenticated
//!   using (realtime.topic() like 'team:%');
//! create policy "users may send" on realtime.messages for insert to authenticated
//!   with check (realtime.topic() like 'team:%');
//! ```
//!
//! ```text
//! cargo run -p tendril-examples --example private_channel
//! ```
//!
//! with `SUPABASE_URL`, `SUPABASE_ANON_KEY` and `SUPABASE_USER_TOKEN`. Without the policies it shows what a refusal looks like.

use std::env::var;

use tendril_realtime::{AccessToken, Client, Retry};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::builder(var("SUPABASE_URL")?, var("SUPABASE_ANON_KEY")?)
        .token_source(AccessToken::new(var("SUPABASE_USER_TOKEN")?)?)
        .build()?;
    match client.channel("team:blue").private(true).ack(true).join().await {
        Ok(room) => {
            // Without the right to send no acknowledgement ever comes: this would end in a timeout.
            room.broadcast("hello", &serde_json::json!({"from": "here"})).await?;
            println!("joined, and the server accepted a message");
        }
        Err(error) if error.retry() == Retry::Never => println!("{}: {error}", error.code()),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
