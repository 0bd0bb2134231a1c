//! Rows over PostgREST: read them, page by page, and see how an error looks.
//!
//! ```text
//! cargo run -p tendril-examples --example rest
//! ```
//!
//! with `SUPABASE_URL`, `SUPABASE_ANON_KEY` and `SUPABASE_USER_TOKEN` as `make demo ARGS=--keep` prints them.

use std::env::var;

use serde::Deserialize;
use tendril_realtime::{AccessToken, Rest, col, rest::Count};

#[derive(Deserialize)]
struct Deployment {
    id: String,
    status: String,
    attempt: i32,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // No websocket is needed for this.
    let rest = Rest::builder(var("SUPABASE_URL")?, var("SUPABASE_ANON_KEY")?)
        .token_source(AccessToken::new(var("SUPABASE_USER_TOKEN")?)?)
        .build()?;
    let newest: Vec<Deployment> = rest
        .from("deployments")
        .select("id,status,attempt")
        .order(col("created_at").desc())
        .limit(5)
        .rows()
        .await?;
    for row in &newest {
        println!("{} {} (attempt {})", row.id, row.status, row.attempt);
    }
    let failed = rest.from("deployments").select("id").eq("status", "FAILED").limit(1).count(Count::Exact);
    println!("{} failed", failed.execute().await?.count().unwrap_or_default());

    // Column rights are walls: what a user may not change is refused by the database.
    if let Some(row) = newest.first() {
        let forged = serde_json::json!({"status": "SUCCESS"});
        if let Err(error) = rest.from("deployments").update(&forged).eq("id", &row.id).execute().await {
            println!("as it should be: {error}");
        }
    }
    Ok(())
}
