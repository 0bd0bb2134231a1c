//! State in PostgreSQL: the backend that the agent generates, on the stack's own database.

use serde_json::json;
use tendril_tests::World;
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
