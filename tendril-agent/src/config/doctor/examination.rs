//! All checks, in the order in which one depends on another.

use secrecy::ExposeSecret;
use tendril_realtime::{Client, rest::RetryPolicy};

#[cfg(feature = "kubernetes")]
use super::kubernetes;
use super::{control_plane, finding::Finding, machine, realtime, terraform};
use crate::{
    config::settings::{Config, ConfigProblems},
    control_plane::{
        Health,
        auth::{Exchange, Session},
    },
};

/// What is wrong with a configuration that cannot even be read.
pub fn of_problems(problems: &ConfigProblems) -> Vec<Finding> {
    let wrong = |problem: &String| Finding::new("configuration", Err(problem.clone()));
    problems.sentences().iter().map(wrong).collect()
}

/// Runs all checks. Must be called inside a runtime.
pub async fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = try_all(config).await;
    for finding in &mut findings {
        finding.hide(&config.secrets);
    }
    findings
}

async fn try_all(config: &Config) -> Vec<Finding> {
    let mut findings = vec![
        Finding::new("configuration", Ok(())),
        Finding::new("templates", machine::templates(config)),
        Finding::new("disk", machine::disk(config)),
        Finding::new("health address", machine::health_address(config)),
        Finding::new("terraform", terraform::terraform(config)),
    ];
    if config.terraform_dir.path().is_some() {
        findings.push(terraform::terraform_versions(config).await);
    }
    findings.extend(terraform::registries(config));
    findings.extend([terraform::cost_estimates(config), terraform::state_backend(config).await]);
    if config.git.is_on() {
        findings.push(Finding::new("git", config.git.examine()));
    }
    #[cfg(feature = "kubernetes")]
    if let Some(settings) = &config.kubernetes {
        findings.extend(kubernetes::examine(settings).await);
    }
    let session = Session::new(
        config.credential.clone(),
        config.cluster_id,
        Exchange::new(config.supabase_url.as_str(), &config.supabase_key),
        config.secrets.clone(),
        Health::default(),
    );
    findings.push(machine::isolation(config, session.has_key()));
    #[cfg(feature = "kubernetes")]
    if config.kubernetes.is_some() && !session.has_key() {
        findings.push(kubernetes::machine_token());
    }
    if session.has_key() {
        let token = session.current().await.map(drop).map_err(|error| control_plane::key_problem(&error));
        findings.push(Finding::new("API key", token.clone()));
        if token.is_err() {
            return findings;
        }
    }
    let client = Client::builder(config.supabase_url.as_str(), config.supabase_key.expose_secret())
        .token_source(session)
        .rest_retries(RetryPolicy::NONE)
        .build();
    match client {
        Err(error) => findings.push(Finding::new("control plane", Err(error.to_string()))),
        Ok(client) => {
            let reached = control_plane::control_plane(client.rest(), config).await;
            let reachable = reached.is_ok();
            findings.push(Finding::new("control plane", reached));
            // What depends on it would only say the same again.
            if reachable {
                findings.push(control_plane::schema(client.rest()).await);
                findings.push(Finding::new(
                    "other agents",
                    control_plane::other_agents(client.rest(), config).await,
                ));
                findings.extend(control_plane::reaper(client.rest()).await);
                findings.push(realtime::realtime(&client, config).await);
            }
            client.shutdown().await;
        }
    }
    findings
}
