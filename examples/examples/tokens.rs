//! Tokens that are renewed: a source that reads a file, as an operator or a sidecar rewrites it.
//!
//! ```text
//! cargo run -p tendril-examples --example tokens -- token.jwt
//! ```
//!
//! with `SUPABASE_URL` and `SUPABASE_ANON_KEY`. Rewrite the file with a newer token, and the channel uses it.

use std::{env, path::PathBuf};

use futures_util::StreamExt as _;
use serde_json::value::RawValue;
use tendril_realtime::{AccessToken, ChangeEvent, Client, Error, PostgresChanges, TokenFuture, TokenSource};

struct FromFile(PathBuf);

impl TokenSource for FromFile {
    fn token(&self) -> TokenFuture<'_> {
        Box::pin(async move {
            let text = tokio::fs::read_to_string(&self.0).await.map_err(Error::token)?;
            AccessToken::new(text)
        })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = env::args().nth(1).ok_or("which file holds the token?")?;
    let client = Client::builder(env::var("SUPABASE_URL")?, env::var("SUPABASE_ANON_KEY")?)
        .token_source(FromFile(file.into()))
        .build()?;
    let request = PostgresChanges::on("public", "deployments");
    let mut rows =
        client.channel("deployments").postgres_changes::<Box<RawValue>>(request).subscribe().await?;
    while let Some(event) = rows.next().await {
        match event {
            // The server subscribes again with the new token: rows of that moment may be missing.
            Ok(ChangeEvent::Resync(reason)) => println!("read the table again: {reason:?}"),
            Ok(event) => println!("{event:?}"),
            Err(error) => eprintln!("{}: {error}", error.code()),
        }
    }
    Ok(())
}
