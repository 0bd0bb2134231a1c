//! From QUEUED to the end, with the real Terraform.

use futures_util::StreamExt as _;
use serde_json::json;
use tendril_realtime::{ChangeEvent, PostgresChanges, PostgresEvent, col};
use tendril_tests::{Chunk, World, repository, within};

#[tokio::test]
async fn a_deployment_succeeds_and_every_line_is_there_in_order() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let _agent = world.agent(&cluster).start();

    let deployment = cluster.queue(json!({"template": "count", "variables": {"lines": 3000}})).await;
    let row = deployment.ended().await;
    assert_eq!((row.status.as_str(), row.error_message.as_deref()), ("SUCCESS", None), "{row:?}");
    assert_eq!((row.attempt, row.claimed_by.as_deref()), (1, Some("scenario")));

    let log = deployment.log().await;
    log.assert_complete(&row);
    assert_eq!(log.counted(), (1..=3000).collect::<Vec<u64>>());
    for step in ["terraform init", "terraform plan", "terraform apply", "Done in"] {
        assert!(log.lines("agent").iter().any(|line| line.contains(step)), "{step}: {}", log.text());
    }
}

#[tokio::test]
async fn outputs_are_stored_but_not_the_sensitive_ones() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let _agent = world.agent(&cluster).start();

    let variables = json!({"lines": 2, "password": "correct-horse-battery"});
    let deployment = cluster.queue(json!({"template": "count", "variables": variables})).await;
    let row = deployment.ended().await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
    assert_eq!(row.outputs, json!({"counted": 2}).as_object().cloned());
    assert_eq!(row.plan_summary.as_ref().expect("a summary")["add"], 1);

    let text = deployment.log().await.text();
    assert!(text.contains("the password is "), "{text}");
    assert!(!text.contains("correct-horse-battery"), "{text}");
    assert!(!text.contains("sensitive-2"), "{text}");
}

#[tokio::test]
async fn the_users_browser_sees_the_chunks_of_hello_arrive() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let _agent = world.agent(&cluster).templates(&repository("templates")).start();
    // Nothing is queued before the rows flow, so that the stream must hold the whole log.
    let user = cluster.as_user();
    let changes = PostgresChanges::on("public", "deployment_logs").event(PostgresEvent::Insert);
    let mut inserts = user
        .channel("logs")
        .postgres_changes::<serde_json::Value>(changes)
        .subscribe()
        .await
        .expect("rows flow");

    let deployment =
        cluster.queue(json!({"template": "hello", "variables": {"name": "tests", "lines": 6}})).await;
    let row = deployment.ended().await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
    assert_eq!(row.outputs, json!({"message": "Hello, tests!"}).as_object().cloned());
    let log = deployment.log().await;
    log.assert_complete(&row);
    assert_eq!(log.counted().len(), 0, "hello writes `line 1 of 6`");

    let mut seen: Vec<Chunk> = Vec::new();
    while seen.len() < log.0.len() {
        match within("a chunk arrives", inserts.next()).await.expect("the stream goes on").expect("an event")
        {
            ChangeEvent::Insert(chunk) => {
                assert_eq!(chunk["deployment_id"], json!(deployment.id));
                seen.push(serde_json::from_value(chunk.into_inner()).expect("a chunk"));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, log.0);
}

#[tokio::test]
async fn a_plan_changes_nothing_and_a_destroy_removes_what_an_apply_made() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let _agent = world.agent(&cluster).start();
    let run = async |action: &str| {
        let config = json!({"template": "count", "stack": "s", "action": action, "variables": {"lines": 2}});
        let row = cluster.queue(config).await.ended().await;
        assert_eq!(row.status, "SUCCESS", "{row:?}");
        row
    };

    let planned = run("plan").await;
    assert_eq!((planned.outputs, planned.plan_summary.unwrap()["add"].clone()), (None, json!(1)));
    assert_eq!(run("apply").await.plan_summary.unwrap()["add"], 1);
    assert_eq!(run("apply").await.plan_summary.unwrap()["add"], 0, "the state of the stack is stored");
    assert_eq!(run("destroy").await.plan_summary.unwrap()["remove"], 1);
}

#[tokio::test]
async fn a_template_that_fails_in_the_plan_ends_failed_with_terraforms_own_diagnostic() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let _agent = world.agent(&cluster).start();

    let deployment = cluster.queue(json!({"template": "picky", "variables": {"fruit": "stone"}})).await;
    let row = deployment.ended().await;
    assert_eq!((row.status.as_str(), row.error_code.as_deref()), ("FAILED", Some("TERRAFORM_FAILED")));
    assert_eq!(row.phase.as_deref(), Some("PLAN"));
    let message = row.error_message.clone().expect("a message");
    assert!(message.contains("Invalid value for variable"), "{message}");
    assert!(message.contains("The fruit must be an apple or a pear."), "{message}");
    deployment.log().await.assert_complete(&row);
}

#[tokio::test]
async fn a_template_that_fails_in_the_apply_ends_failed_with_terraforms_own_diagnostic() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let _agent = world.agent(&cluster).start();

    let variables = json!({"fruit": "pear", "exit_code": 3});
    let deployment = cluster.queue(json!({"template": "picky", "variables": variables})).await;
    let row = deployment.ended().await;
    assert_eq!((row.status.as_str(), row.error_code.as_deref()), ("FAILED", Some("TERRAFORM_FAILED")));
    assert_eq!(row.phase.as_deref(), Some("APPLY"));
    let message = row.error_message.clone().expect("a message");
    assert!(message.contains("local-exec provisioner error"), "{message}");
    assert!(message.contains("exit status 3"), "{message}");
    let log = deployment.log().await;
    log.assert_complete(&row);
    assert!(log.text().contains("the knife is blunt"), "{}", log.text());
}

#[tokio::test]
async fn a_cancel_in_mid_run_ends_the_deployment_cancelled() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let _agent = world.agent(&cluster).start();

    let variables = json!({"lines": 4, "gate": world.path("gate")});
    let deployment = cluster.queue(json!({"template": "count", "variables": variables})).await;
    deployment.says("at the gate").await;
    let ask = json!({"cancel_requested_at": "2026-01-01T00:00:00Z"});
    deployment
        .as_user
        .from("deployments")
        .update(&ask)
        .eq("id", deployment.id)
        .execute()
        .await
        .expect("the cancel");

    let row = deployment.ended().await;
    assert_eq!((row.status.as_str(), row.error_code.as_deref()), ("CANCELLED", Some("CANCELLED")), "{row:?}");
    let log = deployment.log().await;
    log.assert_complete(&row);
    assert!(log.counted().into_iter().all(|line| line <= 2), "the gate never opened: {}", log.text());
}

#[tokio::test]
async fn an_agent_that_starts_late_finds_what_was_queued_before() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let deployments = cluster
        .queue_all((0..3).map(|n| json!({"template": "ticket", "variables": ticket(&world, n)})))
        .await;
    let _agent = world.agent(&cluster).stand_in().start();
    for deployment in deployments {
        assert_eq!(deployment.ended().await.status, "SUCCESS");
    }
}

fn ticket(world: &World, number: usize) -> serde_json::Value {
    json!({"ledger": world.path("ledger"), "ticket": number.to_string()})
}

#[tokio::test]
async fn a_filter_of_the_user_sees_only_the_chunks_of_one_deployment() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let _agent = world.agent(&cluster).stand_in().start();
    let config = |n| json!({"template": "ticket", "variables": ticket(&world, n)});
    let (first, user) = (cluster.queue(config(1)).await, cluster.as_user());
    first.ended().await;

    // The row is inserted by hand with an id that is known beforehand, as a portal does that must not miss a line.
    let id = uuid::Uuid::new_v4();
    let filter = col("deployment_id").eq(id);
    let changes = PostgresChanges::on("public", "deployment_logs").filter(filter);
    let mut chunks =
        user.channel("logs").postgres_changes::<Chunk>(changes).subscribe().await.expect("rows flow");
    let other = cluster.queue(config(2)).await;
    other.ended().await;
    let row = json!({"id": id, "cluster_id": cluster.id, "config_snapshot": config(3)});
    user.rest().from("deployments").insert(&row).execute().await.expect("it is queued");

    match within("a chunk arrives", chunks.next()).await.expect("the stream goes on").expect("an event") {
        ChangeEvent::Insert(chunk) => assert_eq!((chunk.attempt, chunk.seq), (1, 1)),
        other => panic!("{other:?}"),
    }
}
