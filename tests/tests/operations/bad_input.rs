//! What a user does wrong is refused at once, each mistake with its own message that explains what to do; nothing changes.

use serde_json::{Value, json};
use tendril_realtime::Error;
use tendril_tests::{Cluster, Deployment, World};

/// Code, sentence and remedy of a refusal.
fn parts(error: &Error) -> (String, String, String) {
    let api = error.postgrest().unwrap_or_else(|| panic!("{error}"));
    (api.code.clone(), api.message.clone(), api.hint.clone().unwrap_or_default())
}

async fn queued(cluster: &Cluster, config: Value) -> Error {
    let row = json!({"cluster_id": cluster.id, "config_snapshot": config});
    let insert = cluster.as_user().rest().from("deployments").insert(&row).execute().await;
    insert.expect_err("it is refused")
}

async fn changed(job: &Deployment, change: Value) -> Error {
    job.as_user
        .from("deployments")
        .update(&change)
        .eq("id", job.id)
        .execute()
        .await
        .expect_err("it is refused")
}

#[tokio::test]
async fn each_wrong_limit_of_time_and_each_unknown_key_is_refused_with_its_own_sentence() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let order = |key: &str, value: Value| json!({"template": "count", key: value});
    for (config, sentence, remedy) in [
        (
            order("timeouts", json!([60])),
            "config_snapshot.timeouts must be an object, and it is [60]",
            "seconds",
        ),
        (
            order("timeouts", json!({"deploy": 60})),
            "config_snapshot.timeouts has no \"deploy\"",
            "queue, init, plan, apply and silence",
        ),
        (
            order("timeouts", json!({"plan": "10m"})),
            "config_snapshot.timeouts.plan must be a whole number of seconds from 1 to 604800, and it is \"10m\"",
            "A week",
        ),
        (order("timeouts", json!({"queue": 0})), "config_snapshot.timeouts.queue must be", "A week"),
        (order("timeouts", json!({"apply": 1.5})), "and it is 1.5", "A week"),
        (
            order("timeouts", json!({"silence": null})),
            "config_snapshot.timeouts.silence must be",
            "Leave it out",
        ),
        (
            order("approval_expires", json!(604_801)),
            "config_snapshot.approval_expires must be a whole number of seconds from 1 to 604800, and it is 604801",
            "may wait for ever",
        ),
        (order("approval_expires", json!("soon")), "and it is \"soon\"", "may wait for ever"),
    ] {
        let (code, message, hint) = parts(&queued(&cluster, config.clone()).await);
        assert_eq!(code, "23514", "{config}: {message}");
        assert!(message.contains(sentence) && hint.contains(remedy), "{config}: {message} ({hint})");
    }
    let left: i64 = world
        .database
        .query_one("select count(*) from public.deployments where cluster_id = $1", &[&cluster.id])
        .await
        .expect("a count")
        .get(0);
    assert_eq!(left, 0, "nothing was queued");

    // What only an agent can judge is in the row.
    let _agent = world.agent(&cluster).stand_in().start();
    let row = cluster.queue(json!({"template": "ticket", "prioirty": 1})).await.ended().await;
    assert_eq!(
        (row.status.as_str(), row.error_code.as_deref()),
        ("FAILED", Some("CONFIG_INVALID")),
        "{row:?}"
    );
    assert!(row.error_message.expect("a sentence").contains("has the unknown field \"prioirty\""));
}

#[tokio::test]
async fn an_approval_of_another_plan_and_one_that_comes_too_late_are_refused_with_their_own_sentences() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let _agent = world.agent(&cluster).start();
    let order = json!({"template": "count", "stack": "a", "approval": true, "approval_expires": 600, "variables": {"lines": 2}});
    let job = cluster.queue(order).await;
    let plan = job.plan().await;

    let (code, message, hint) = parts(&changed(&job, json!({"approved_plan": "0".repeat(64)})).await);
    assert_eq!(code, "TD005");
    assert!(
        message.contains("that is not a plan") && hint.contains("approve the plan_sha256 that it shows"),
        "{message} ({hint})"
    );
    let (code, message, hint) = parts(&changed(&job, json!({"approval_comment": "fine"})).await);
    assert_eq!(code, "TD005");
    assert!(
        message.contains("goes with its approval") && hint.contains("in the same update"),
        "{message} ({hint})"
    );
    let (code, message, _) = parts(&changed(&job, json!({"cancel_comment": "no"})).await);
    assert_eq!(code, "TD002");
    assert!(message.contains("goes with its cancel"), "{message}");
    // An agent approves nothing, and another cluster's user reaches no row.
    let refused = cluster
        .as_agent()
        .rest()
        .from("deployments")
        .update(&json!({"approved_plan": plan}))
        .eq("id", job.id)
        .execute()
        .await;
    assert_eq!(refused.expect_err("an agent").code(), "42501");
    let stranger = world.cluster().await.as_user();
    let reached: Vec<Value> = stranger
        .rest()
        .from("deployments")
        .update(&json!({"approved_plan": plan}))
        .eq("id", job.id)
        .select("id")
        .rows()
        .await
        .expect("an answer");
    assert_eq!(reached, [] as [Value; 0]);
    // After a cancel there is nothing to approve.
    let cancel = json!({"cancel_requested_at": "2026-01-01T00:00:00Z", "cancel_comment": "too dear"});
    job.as_user.from("deployments").update(&cancel).eq("id", job.id).execute().await.expect("it is rejected");
    let (code, message, hint) = parts(&changed(&job, json!({"approved_plan": plan})).await);
    assert_eq!(code, "TD005", "{message}");
    assert!(
        hint.contains("Queue a new deployment") || hint.contains("Read the row again"),
        "{message} ({hint})"
    );
    assert_eq!(job.ended().await.status, "CANCELLED");
}

#[tokio::test]
async fn a_held_state_is_discarded_by_its_owner_alone_and_only_if_it_is_named_again() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    cluster.queue(json!({"template": "count", "stack": "prod", "variables": {"lines": 2}})).await;
    let discard = async |user: &Cluster, key: &str, confirm: Value| {
        let arguments = json!({"cluster_id": cluster.id, "state_key": key, "confirm": confirm});
        let rest = user.as_user().rest().clone();
        parts(&rest.rpc("discard_held_state", &arguments).value::<Value>().await.expect_err("it is refused"))
    };
    let (code, message, _) = discard(&cluster, "count.prod", json!("count.prod")).await;
    assert_eq!(code, "TD010", "nothing is held: {message}");
    let hold = json!({"state_key": "count.prod", "agent": "first", "reason": "no space", "since": null});
    cluster.as_agent().rest().rpc("agent_hold_state", &hold).execute().await.expect("it is held");

    let stranger = world.cluster().await;
    let (code, message, hint) = discard(&stranger, "count.prod", json!("count.prod")).await;
    assert_eq!(code, "TD008", "{message}");
    assert!(message.contains("there is no cluster") && hint.contains("as its owner"), "{message} ({hint})");
    let (code, message, _) = discard(&cluster, "count.other", json!("count.other")).await;
    assert_eq!(code, "TD008", "{message}");
    for confirm in [Value::Null, json!("yes")] {
        let (code, message, hint) = discard(&cluster, "count.prod", confirm).await;
        assert_eq!(code, "TD010", "{message}");
        assert!(hint.contains("First try to store it"), "{message} ({hint})");
    }
    let refused = cluster
        .as_agent()
        .rest()
        .rpc(
            "discard_held_state",
            &json!({"cluster_id": cluster.id, "state_key": "count.prod", "confirm": "count.prod"}),
        )
        .execute()
        .await;
    assert_eq!(refused.expect_err("no agent discards").code(), "42501");
    let holder = "select state_held_by from public.stacks where state_key = 'count.prod' and cluster_id = $1";
    let holder: Option<String> =
        world.database.query_one(holder, &[&cluster.id]).await.expect("the stack").get(0);
    assert_eq!(holder.as_deref(), Some("first"), "it is held still");
}
