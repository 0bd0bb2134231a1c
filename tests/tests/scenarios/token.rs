//! Machine tokens that are not good, or not good any more.

use std::time::Duration;

use serde_json::json;
use supabase_local::JwtSecret;
use tendril_tests::{AgentSetup, Cluster, World};
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3600);

/// Starts the agent, which must end; answers its exit code and what it said.
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
        let (code, said) = refused(setup.clone().token(&token)).await;
        assert_eq!(code, Some(2), "{part}: {said}");
        assert!(said.contains(part), "{part}: {said}");
        assert!(!said.contains(&token), "the token itself is not shown: {said}");
    }
    assert_eq!(cluster.status().await, "PENDING");
}

#[tokio::test]
async fn a_token_of_a_cluster_that_is_not_there_is_refused_at_the_start() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let token = world.project.jwt.machine_token(&Uuid::new_v4().to_string(), HOUR);
    let (code, said) = refused(world.agent(&cluster).token(token)).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("does not know this token's cluster"), "{said}");
}

#[tokio::test]
async fn a_token_that_another_project_signed_is_refused_at_the_start() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let stranger = JwtSecret::new("another secret with at least thirty-two characters");
    let token = stranger.machine_token(&cluster.id.to_string(), HOUR);
    let (code, said) = refused(world.agent(&cluster).token(token)).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("does not accept the machine token"), "{said}");
    assert_eq!(cluster.status().await, "PENDING");
}

#[tokio::test]
async fn a_users_token_is_refused_at_the_start() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let claims = json!({"role": "authenticated", "sub": cluster.user, "cluster_id": cluster.id, "exp": 4_000_000_000_u64});
    let (code, said) = refused(world.agent(&cluster).token(world.project.jwt.sign(&claims))).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("use a token with the role tendril_agent"), "{said}");
}

#[tokio::test]
async fn the_token_of_a_revoked_cluster_is_refused_at_the_start() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    revoke(&cluster).await;
    let (code, said) = refused(world.agent(&cluster)).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("this cluster was revoked"), "{said}");
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
    let said = agent.line("that its token has expired", |line| line.contains("expired")).await;
    assert!(said.contains("WARN") || said.contains("ERROR"), "{said}");

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
