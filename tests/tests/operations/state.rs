//! State in PostgreSQL: the backend that the agent generates, on the stack's own database.

use serde_json::json;
use tendril_tests::{World, terraform_that_begins_together};
use tokio_postgres::SimpleQueryMessage;

#[tokio::test]
async fn state_is_kept_in_postgresql_under_a_schema_of_its_own_and_its_lock_is_explained() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let _agent = world
        .agent(&cluster)
        .env("TENDRIL_STATE_BACKEND", "pg")
        .env("PG_CONN_STR", format!("{}?sslmode=disable", world.project.database_url))
        .env("TENDRIL_LOCK_TIMEOUT", "1s")
        .start();
    let snapshot = |action: &str| json!({"template": "count", "stack": "prod", "action": action, "variables": {"lines": 2}});
    let row = cluster.queue(snapshot("apply")).await.ended().await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
    let schema =
        "select schema_name from information_schema.schemata where schema_name like 'tendril\\_count%'";
    let schema: String = world.database.query_one(schema, &[]).await.expect("one schema").get(0);
    let state = format!("select data from {schema}.states where name = 'default'");
    let state: String = world.database.query_one(&state, &[]).await.expect("the state").get(0);
    assert!(state.contains("terraform_data"), "{state}");

    // Another session holds the lock, as another terraform would.
    let lock = format!("select pg_advisory_lock(id) from {schema}.states where name = 'default'");
    let other = world.project.database().await;
    let held = other.simple_query(&lock).await.expect("the lock");
    assert!(held.iter().any(|message| matches!(message, SimpleQueryMessage::Row(_))));
    let row = cluster.queue(snapshot("destroy")).await.ended().await;
    assert_eq!(row.error_code.as_deref(), Some("STATE_LOCKED"), "{row:?}");
    let message = row.error_message.expect("a message");
    assert!(message.contains("goes away with the process (or connection) that holds it"), "{message}");
    drop(other);
    let row = cluster.queue(snapshot("destroy")).await.ended().await;
    assert_eq!(row.status, "SUCCESS", "it is found again, and destroyed: {row:?}");
}

/// Each of them creates what all states of the database share. The inits of one agent take turns, so that each run has an agent of its own.
#[tokio::test]
async fn six_first_runs_in_one_moment_share_an_empty_state_database() {
    const RUNS: usize = 6;
    let world = World::start().await;
    let cluster = world.cluster().await;
    let terraform = terraform_that_begins_together(&world.path(""), RUNS);
    let agent = |n: usize| {
        world
            .agent(&cluster)
            .terraform(&terraform)
            .name(format!("agent-{n}"))
            .concurrency(1)
            .env("TENDRIL_STATE_BACKEND", "pg")
            .env("PG_CONN_STR", format!("{}?sslmode=disable", world.project.database_url))
            .start()
    };
    let _agents: Vec<_> = (0..RUNS).map(agent).collect();
    let config = |n| json!({"template": "count", "stack": format!("s{n}"), "variables": {"lines": 2}});
    let mut again = 0;
    for job in cluster.queue_all((0..RUNS).map(config)).await {
        let row = job.ended().await;
        assert_eq!(row.status, "SUCCESS", "{row:?}");
        again += job.log().await.text().matches("init is run again").count();
    }
    println!("{again} of {RUNS} inits were run again");
    let schemas =
        "select count(*) from information_schema.schemata where schema_name like 'tendril\\_count%'";
    let schemas: i64 = world.database.query_one(schemas, &[]).await.expect("a count").get(0);
    assert_eq!(usize::try_from(schemas).expect("a count"), RUNS, "each has its own");
}
