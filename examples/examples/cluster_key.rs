//! Makes an API key of a cluster, as its owner: what a portal's button does.
//!
//! ```text
//! cargo run -q -p tendril-examples --example cluster_key -- --cluster $CLUSTER > key              # the first one
//! cargo run -q -p tendril-examples --example cluster_key -- --cluster $CLUSTER rotate > key       # the next one; both work
//! cargo run -q -p tendril-examples --example cluster_key -- --cluster $CLUSTER status             # is the next one in use?
//! cargo run -q -p tendril-examples --example cluster_key -- --cluster $CLUSTER promote            # then the old one ends
//! ```
//!
//! with `SUPABASE_URL`, `SUPABASE_ANON_KEY` and `SUPABASE_USER_TOKEN`, the JWT of the signed-in user. A key is shown once: the
//! database stores only its hash.

use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use tendril_realtime::{AccessToken, Rest};
use uuid::Uuid;

/// Makes and changes the API key of a cluster.
#[derive(Parser)]
struct Options {
    /// What to do.
    #[arg(value_enum, default_value_t = Step::Create)]
    step: Step,
    /// The cluster's id.
    #[arg(long)]
    cluster: Uuid,
    /// Base URL of the project.
    #[arg(long, env = "SUPABASE_URL")]
    url: String,
    /// Its publishable (or anon) key.
    #[arg(long, env = "SUPABASE_ANON_KEY")]
    key: String,
    /// The owner's JWT. Other users of the machine can read a flag: prefer the variable.
    #[arg(long, env = "SUPABASE_USER_TOKEN", hide_env_values = true)]
    token: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum Step {
    /// The first key of a cluster.
    Create,
    /// A next key beside the current one.
    Rotate,
    /// When each key was made and used.
    Status,
    /// The next key becomes the only one.
    Promote,
    /// Takes all keys away.
    Revoke,
}

impl Step {
    /// The database's function.
    fn function(self) -> &'static str {
        match self {
            Self::Create => "create_cluster_key",
            Self::Rotate => "rotate_cluster_key",
            Self::Status => "cluster_key_status",
            Self::Promote => "promote_cluster_key",
            Self::Revoke => "revoke_cluster_key",
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    let rest =
        Rest::builder(&options.url, &options.key).token_source(AccessToken::new(&options.token)?).build()?;
    let answer = rest.rpc(options.step.function(), &json!({"cluster_id": options.cluster}));
    match answer.value().await? {
        Value::String(key) => println!("{key}"),
        Value::Null => eprintln!("cluster_key: done"),
        status => println!("{status:#}"),
    }
    Ok(())
}
