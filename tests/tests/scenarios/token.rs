//! Machine tokens that are not good, or not good any more.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use supabase_local::JwtSecret;
use tendril_tests::{AgentSetup, Cluster, World};
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3600);

/// Starts the agent, which must end; returns its exit code and its output.
async fn refused(setup: AgentSetup) -> (Option<i32>, String) {
    let mut agent = setup.start();
    let code = agent.ended().await.code();
    (code, agent.output())
}

#[tokio::test]
async fn a_token_that_is_no_token_is_refused_at_the_start() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let setup = world.agent(&cluster);
    let good = cluster.machine_token();
    let (head, _) = good.split_once('.').expect("a JWT");
    let claims = |claims| world.project.jwt.sign(&claims);
    for (token, part) in [
        ("quatsch".to_owned(), "the machine token is malformed"),
        (head.to_owned(), "the machine token is malformed"),
        (claims(json!({"role": "tendril_agent", "exp": 4_000_000_000_u64})), "has no \"cluster_id\" claim"),
        (
            claims(json!({"role": "tendril_agent", "cluster_id": "mine", "exp": 4_000_000_000_u64})),
            "\"cluster_id\" of the machine token is not a UUID",
        ),
        (
            claims(json!({"role": "service_role", "cluster_id": cluster.id, "exp": 4_000_000_000_u64})),
            "\"service_role\", which is no role for an agent",
        ),
        (
            claims(json!({"role": "tendril_agent", "cluster_id": cluster.id, "exp": 1_700_000_000})),
            "the machine token expired at 2023-11-14",
        ),
    ] {
        let (code, message) = refused(setup.clone().token(&token)).await;
        assert_eq!(code, Some(2), "{part}: {message}");
        assert!(message.contains(part), "{part}: {message}");
        assert!(!message.contains(&token), "the token itself is not shown: {message}");
    }
    assert_eq!(cluster.status().await, "PENDING");
}

/// Starts the agent, which logs this, continues, takes no job, and stops at once on SIGTERM.
async fn waits(setup: AgentSetup, cluster: &Cluster, part: &str) {
    let mut agent = setup.start();
    let message = agent.says(part).await;
    assert!(message.contains("tries again until it is accepted"), "{message}");
    assert_ne!(cluster.status().await, "ONLINE");
    agent.signal(Signal::TERM);
    assert_eq!(agent.ended().await.code(), Some(0), "{}", agent.output());
}

#[tokio::test]
async fn an_agent_with_a_token_that_is_not_accepted_waits_and_says_what_to_do() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let nobody = world.project.jwt.machine_token(&Uuid::new_v4().to_string(), HOUR);
    waits(world.agent(&cluster).token(nobody), &cluster, "does not know this token's cluster").await;
    let stranger = JwtSecret::new("another secret with at least thirty-two characters");
    let token = stranger.machine_token(&cluster.id.to_string(), HOUR);
    waits(world.agent(&cluster).token(token), &cluster, "does not accept the machine token").await;
    let claims = json!({"role": "authenticated", "sub": cluster.user, "cluster_id": cluster.id, "exp": 4_000_000_000_u64});
    let token = world.project.jwt.sign(&claims);
    waits(world.agent(&cluster).token(token), &cluster, "use a token with the role tendril_agent").await;
    assert_eq!(cluster.status().await, "PENDING");
    revoke(&cluster).await;
    waits(world.agent(&cluster), &cluster, "this cluster was revoked").await;
}

#[tokio::test]
async fn a_cluster_that_is_revoked_while_its_agent_runs_is_reported() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let agent = world.agent(&cluster).start();
    cluster.online().await;
    revoke(&cluster).await;
    agent.says("this cluster was revoked").await;
    assert_eq!(cluster.status().await, "OFFLINE");
}

#[tokio::test]
async fn a_token_that_expires_while_the_agent_runs_is_reported_and_a_new_file_mends_it() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let file = world.path("token");
    // Long enough for a slow machine to start, short enough to be waited for.
    std::fs::write(&file, cluster.machine_token_for(Duration::from_secs(10))).expect("the token file");
    let agent = world.agent(&cluster).stand_in().token_file(&file).start();
    cluster.online().await;
    let message = agent.line("that its token has expired", |line| line.contains("expired")).await;
    assert!(message.contains("WARN") || message.contains("ERROR"), "{message}");

    std::fs::write(&file, cluster.machine_token()).expect("the token file");
    let variables = json!({"ledger": world.path("ledger"), "ticket": "1"});
    let row = cluster.queue(json!({"template": "ticket", "variables": variables})).await.ended().await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
}

async fn revoke(cluster: &Cluster) {
    let revoked = json!({"revoked_at": "2026-01-01T00:00:00Z"});
    let rest = cluster.as_user().rest().clone();
    rest.from("clusters")
        .update(&revoked)
        .eq("id", cluster.id)
        .execute()
        .await
        .expect("the owner revokes it");
}
