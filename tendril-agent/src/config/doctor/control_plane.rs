//! The database: whether it is reached, which contract it holds, who else serves the cluster.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tendril_realtime::{Error, ErrorKind, Rest};

use super::finding::Finding;
use crate::{
    config::settings::Config,
    control_plane::{
        NO_REAPER, advice,
        auth::session::failure,
        contract::{Compatibility, FIRST},
    },
};

/// How long one question to the control plane may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn control_plane(rest: &Rest, config: &Config) -> Result<(), String> {
    let own = rest.from("clusters").select("id").eq("id", config.cluster_id).timeout(TIMEOUT);
    match own.rows::<Value>().await {
        Ok(rows) if !rows.is_empty() => {
            // A user's token sees the cluster too; claims are for agents alone.
            let claims = rest.from("deployments").select("claim_token").limit(1).timeout(TIMEOUT);
            claims.rows::<Value>().await.map(drop).map_err(|error| cause(&error))
        }
        // No row: the heartbeat says why, and changes nothing as it refuses.
        Ok(_) => {
            match rest.rpc("agent_heartbeat", &json!({"version": "doctor"})).timeout(TIMEOUT).execute().await
            {
                Err(error) => Err(cause(&error)),
                Ok(_) => Ok(()),
            }
        }
        Err(error) => Err(cause(&error)),
    }
}

/// The first contract is known by its last columns, any later one by its number.
pub(super) async fn schema(rest: &Rest) -> Finding {
    let check = "database schema";
    let needed = rest.from("deployments").select("plan_sha256,approved_plan").limit(1).timeout(TIMEOUT);
    let logs = rest.from("deployment_logs").select("seq").limit(1).timeout(TIMEOUT);
    for asked in [needed.rows::<Value>().await, logs.rows::<Value>().await] {
        if let Err(error) = asked {
            let problem =
                format!("the database is older than this agent ({error:#}): apply supabase/migrations to it");
            return Finding::new(check, Err(problem));
        }
    }
    let asked = rest.rpc("contract_version", &json!({})).timeout(TIMEOUT).idempotent(true);
    let database = match asked.value::<u32>().await {
        Ok(database) => database,
        Err(error) if error.postgrest().is_some_and(|api| api.code == "PGRST202") => FIRST,
        Err(error) => return Finding::new(check, Err(cause(&error))),
    };
    let compatibility = Compatibility::of(database);
    match compatibility {
        Compatibility::TooOld(_) => Finding::new(check, Err(compatibility.sentence().unwrap_or_default())),
        _ => Finding { check, problem: None, note: compatibility.sentence(), warning: None },
    }
}

/// Whether another live agent of the cluster keeps its states elsewhere. A database of the contract before knows no agents.
pub(super) async fn other_agents(rest: &Rest, config: &Config) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Agent {
        name: String,
        state_backend: Option<String>,
        backend_fingerprint: Option<String>,
        is_live: bool,
    }
    let backend = &config.state_backend;
    let own = backend.fingerprint(&config.state_dir, |name| std::env::var(name).ok()).map_err(|error| {
        format!("the state directory {} cannot be used ({error})", config.state_dir.display())
    })?;
    let request = rest
        .from("agents")
        .select("name,state_backend,backend_fingerprint,is_live")
        .eq("status", "ACTIVE")
        .neq("name", config.agent_name.as_str())
        .timeout(TIMEOUT);
    let Ok(agents) = request.rows::<Agent>().await else { return Ok(()) };
    let kind = backend.kind().name();
    for agent in agents.into_iter().filter(|agent| agent.is_live) {
        let Some(theirs) = agent.state_backend else { continue };
        if theirs != kind {
            return Err(format!(
                "agent {} of this cluster uses the state backend {theirs}, and this one {kind}: they would work on different states. Give all agents of a cluster the same state backend",
                agent.name
            ));
        }
        if agent.backend_fingerprint.as_deref() != Some(own.as_str()) {
            let what = if kind == "local" {
                format!(
                    "agents {} and {} of one cluster both use the state backend local, each with a directory of its own: each would make its own copy of the infrastructure",
                    config.agent_name, agent.name
                )
            } else {
                format!(
                    "agents {} and {} of one cluster use the state backend {kind} with different settings: they would work on different states",
                    config.agent_name, agent.name
                )
            };
            return Err(format!(
                "{what}. Give all agents of a cluster the same state backend with the same settings, or run one agent"
            ));
        }
    }
    Ok(())
}

/// Who notices the death of a cluster's only agent.
pub(super) async fn reaper(rest: &Rest) -> Option<Finding> {
    #[derive(Deserialize)]
    struct Status {
        scheduled: bool,
    }
    let asked = rest.rpc("reaper_status", &json!({})).timeout(TIMEOUT).idempotent(true);
    let status = asked.value::<Status>().await.ok()?;
    let warning = (!status.scheduled).then(|| NO_REAPER.to_owned());
    Some(Finding { check: "reaper", problem: None, note: None, warning })
}

/// What is behind an error of the control plane, and how to fix it.
fn cause(error: &Error) -> String {
    match error.kind() {
        ErrorKind::Connect { .. } | ErrorKind::Timeout { .. } | ErrorKind::ConnectionLost { .. } => format!(
            "it cannot be reached ({error:#}): check SUPABASE_URL, the name server, egress rules (NetworkPolicy, firewall) and HTTPS_PROXY"
        ),
        ErrorKind::Decode { .. } => not_supabase(error),
        ErrorKind::Postgrest(api) if api.status == 404 && api.code.is_empty() => not_supabase(error),
        ErrorKind::Postgrest(api) if matches!(api.code.as_str(), "PGRST205" | "PGRST202" | "42P01") => {
            format!(
                "the database lacks the agent's tables or functions ({error:#}): apply supabase/migrations to it, and check that SUPABASE_URL is the right project"
            )
        }
        ErrorKind::Token { .. } => format!("the machine token cannot be had ({error:#})"),
        _ => format!("{} ({error:#})", advice(error)),
    }
}

/// A failure to exchange the key says itself what to do.
pub(super) fn key_problem(error: &Error) -> String {
    failure(error).map_or_else(|| cause(error), ToString::to_string)
}

fn not_supabase(error: &Error) -> String {
    format!(
        "what answers there is no Supabase project ({error:#}): set SUPABASE_URL to the project's base URL, such as https://abcd.supabase.co, without a path"
    )
}
