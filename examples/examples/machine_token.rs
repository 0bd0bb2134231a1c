//! Signs a machine token for the agent of a cluster, with a project's shared JWT secret.
//!
//! ```text
//! SUPABASE_JWT_SECRET=… cargo run -q -p tendril-examples --example machine_token -- --cluster $CLUSTER --days 30 > token
//! ```
//!
//! Whoever has that secret can sign any role, so this is for the machine of the project's operator, never for the agent's.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use supabase_local::JwtSecret;
use uuid::Uuid;

/// Prints a machine token for the agent of a cluster.
#[derive(Parser)]
struct Options {
    /// The cluster's id.
    #[arg(long)]
    cluster: Uuid,
    /// How long the token is good. Until then only `clusters.revoked_at` shuts the agent out.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=366))]
    days: u32,
    /// The project's shared JWT secret. Other users of the machine can read a flag: prefer the variable.
    #[arg(long, env = "SUPABASE_JWT_SECRET", hide_env_values = true)]
    secret: String,
}

fn main() -> ExitCode {
    let options = Options::parse();
    // Supabase's own are 40 characters and more; a short one is most likely something else, such as a key's id.
    if options.secret.trim().len() < 32 {
        eprintln!("machine_token: that is no JWT secret: it has fewer than 32 characters");
        return ExitCode::FAILURE;
    }
    let valid = Duration::from_secs(u64::from(options.days) * 24 * 3600);
    println!("{}", JwtSecret::new(options.secret.trim()).machine_token(&options.cluster.to_string(), valid));
    ExitCode::SUCCESS
}
