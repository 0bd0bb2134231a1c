//! An agent that was stopped past its lease: its job was handed on, and it may not write into it any more.

use rustix::process::Signal;
use serde_json::{Value, json};
use tendril_tests::{Story, World, crash::expire_lease, until};
use uuid::Uuid;

#[derive(serde::Deserialize)]
struct Id {}

#[tokio::test]
async fn an_agent_that_was_stopped_past_its_lease_writes_nothing_and_ends_politely() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let story = Story::with_gate(&world, "plan");
    let setup = world.agent(&cluster).narrator().name("agent A");
    let (old, executors) = (setup.start(), setup.executors());
    let deployment = cluster.queue(story.config()).await;
    deployment.says("at the gate").await;
    let stale: Uuid = deployment.row().await.claim_token.expect("a claim");

    old.signal(Signal::STOP);
    executors.signal(Signal::STOP);
    expire_lease(&world, &deployment).await;
    let new = world.agent(&cluster).narrator().name("agent B").start();
    deployment.becomes("is handed on", |row| row.attempt == 2).await;
    executors.signal(Signal::CONT);
    old.signal(Signal::CONT);
    old.says("the final status was refused").await;

    // It was one interrupt, to its own run and to no other.
    let interrupts = story.interrupts();
    assert_eq!(interrupts.len(), 1, "{interrupts:?}");
    assert!(interrupts[0].starts_with("plan in ") && interrupts[0].contains(".1/"), "{interrupts:?}");

    // Whatever it could have tried, the database refuses by the old claim.
    let agent = cluster.as_agent();
    for changes in [
        json!({"phase": "APPLY"}),
        json!({"plan_summary": {"add": 1}}),
        json!({"cost": {}, "cost_status": "OK"}),
        json!({"outputs": {"a": 1}}),
        json!({"log_count": 9}),
        json!({"status": "SUCCESS"}),
        json!({"status": "FAILED", "error_code": "INTERNAL"}),
        json!({"status": "CANCELLED"}),
    ] {
        let mut body = changes.clone();
        body["claim_token"] = json!(stale);
        let write = agent.rest().from("deployments").update(&body).eq("id", deployment.id).select("id");
        let refused = write.rows::<Id>().await.err().unwrap_or_else(|| panic!("{changes} was taken"));
        assert_eq!(refused.code(), "TD001", "{changes}: {refused}");
    }

    story.go_on();
    let row = deployment.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 2), "{row:?}");
    assert_eq!(row.claimed_by.as_deref(), Some("agent B"));
    // A's late lines are under its own attempt, and B's log has only lines of B.
    let late = until("A's last line arrives", async || {
        let chunks = deployment.log().await.0;
        let late =
            chunks.iter().any(|chunk| chunk.attempt == 1 && chunk.log_chunk.contains("lost its claim"));
        if late { Ok(chunks) } else { Err(format!("{chunks:?}")) }
    })
    .await;
    let own: String =
        late.iter().filter(|chunk| chunk.attempt == 2).map(|chunk| chunk.log_chunk.as_str()).collect();
    assert!(own.contains("agent B") && !own.contains("agent A") && !own.contains("Interrupt"), "{own}");
    let count = i64::try_from(late.iter().filter(|chunk| chunk.attempt == 2).count()).expect("a count");
    assert_eq!(row.log_count, count);
    drop(new);
}

/// Its job was ended while it was silent, and its user has read that nothing was changed: that stays true.
#[tokio::test]
async fn an_agent_that_was_given_up_before_its_apply_does_not_begin_it() {
    let world = World::start().await;
    for (cancelled, status, code) in [(true, "CANCELLED", "CANCELLED"), (false, "FAILED", "AGENT_LOST")] {
        let cluster = world.cluster().await;
        let story = Story { gate: Some(("plan", world.path(status))), ..Story::default() };
        let setup = world.agent(&cluster).narrator();
        let (agent, executors) = (setup.start(), setup.executors());
        let deployment = cluster.queue(story.config()).await;
        deployment.says("at the gate").await;
        agent.signal(Signal::STOP);
        executors.signal(Signal::STOP);
        if cancelled {
            let ask = "update public.deployments set cancel_requested_at = now() where id = $1";
            world.database.execute(ask, &[&deployment.id]).await.expect("a cancel");
        } else {
            // As if it were the second time.
            let second = format!(
                "alter table public.deployments disable trigger b_enforce_state;
                 update public.deployments set attempt = 2 where id = '{}';
                 alter table public.deployments enable trigger b_enforce_state",
                deployment.id
            );
            world.database.batch_execute(&second).await.expect("an attempt");
        }
        expire_lease(&world, &deployment).await;
        assert_eq!(deployment.ended().await.status, status);
        story.go_on();
        executors.signal(Signal::CONT);
        agent.signal(Signal::CONT);
        // It ends its run gracefully, or had ended it before it learned of it.
        agent.says("the final status").await;
        let row = deployment.row().await;
        assert_eq!(row.status, status, "{row:?}");
        assert_eq!(row.error_code.as_deref(), Some(code), "{row:?}");
        assert_eq!(row.phase.as_deref(), Some("PLAN"), "{row:?}");
        let reported = deployment.log().await.text();
        let applied = format!("line {}", story.planned + 1);
        assert!(!reported.contains(&applied), "it was applied: {reported}");
    }
}

/// The two heartbeats of a cluster differ only in what they answer about a claim.
#[tokio::test]
async fn a_heartbeat_says_whose_a_claim_is() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let deployment = cluster.queue(json!({"template": "story"})).await;
    let agent = cluster.as_agent();
    let token = Uuid::new_v4();
    let claim = json!({"status": "PROCESSING", "claim_token": token, "claimed_by": "A"});
    let claim = agent.rest().from("deployments").update(&claim).eq("id", deployment.id).select("id");
    assert_eq!(claim.rows::<Id>().await.expect("an answer").len(), 1);
    let heartbeat = async || -> Value {
        let arguments = json!({"version": "1", "claim_tokens": [token]});
        agent.rest().rpc("agent_heartbeat", &arguments).value().await.expect("an answer")
    };
    assert_eq!(heartbeat().await["claims"][0]["mine"], true);
    expire_lease(&world, &deployment).await;
    assert_eq!(heartbeat().await["claims"][0]["mine"], false);
}
