//! A dead agent is noticed by the heartbeat of another one: its job is queued again once, or ends as lost, by name.

use std::{fs, path::Path, time::Duration};

use rustix::process::Signal;
use serde_json::{Value, json};
use tendril_tests::{AgentSetup, Deployment, Program, Story, World, until, until_within};

/// Lets time pass for a job whose agent is dead: its last sign of life was so long ago.
async fn silent_for(world: &World, deployment: &Deployment, seconds: f64) {
    let shift = "update tendril.leases set last_heartbeat_at = now() - make_interval(secs => $2) where deployment_id = $1";
    let shifted = world.database.execute(shift, &[&deployment.id, &seconds]).await.expect("time passes");
    assert_eq!(shifted, 1, "it was running");
}

/// Kills an agent and its executors; the parent processes of applies live.
fn lose(agent: Program, setup: &AgentSetup) {
    // First: it would start another executor.
    agent.signal(Signal::KILL);
    drop(agent);
    setup.executors().signal(Signal::KILL);
}

#[tokio::test]
async fn before_apply_a_lost_job_is_queued_again_once_and_then_ends_as_lost() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let story = Story::with_gate(&world, "plan");
    let deployment = cluster.queue(story.config()).await;

    let a = world.agent(&cluster).narrator().name("agent A");
    let first = a.start();
    deployment.says("at the gate").await;
    lose(first, &a);
    // Silence that is shorter than the lease changes nothing, however many heartbeats others send.
    let b = world.agent(&cluster).narrator().name("agent B");
    let second = b.start();
    cluster.online().await;
    assert_eq!(deployment.row().await.attempt, 1);
    silent_for(&world, &deployment, 61.0).await;
    deployment.becomes("is claimed by the other", |row| row.attempt == 2).await;
    until("it came as far again", async || {
        let text = deployment.log().await;
        let again = text.0.iter().any(|chunk| chunk.attempt == 2 && chunk.log_chunk.contains("at the gate"));
        if again { Ok(()) } else { Err(text.text()) }
    })
    .await;

    lose(second, &b);
    let _third = world.agent(&cluster).narrator().name("agent C").start();
    silent_for(&world, &deployment, 61.0).await;
    let row = deployment.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("FAILED", 2), "{row:?}");
    assert_eq!(row.error_code.as_deref(), Some("AGENT_LOST"));
    let message = row.error_message.expect("a message");
    assert!(
        message.contains("agent B") && message.contains("phase PLAN") && message.contains("lock"),
        "{message}"
    );
}

#[tokio::test]
async fn after_apply_began_a_lost_job_is_unknown_then_lost_and_never_run_again() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let story = Story::with_gate(&world, "apply");
    let deployment = cluster.queue(story.config()).await;
    let setup = world.agent(&cluster).narrator().name("agent A");
    let first = setup.start();
    deployment.says("at the gate").await;
    lose(first, &setup);

    let _second = world.agent(&cluster).narrator().name("agent B").start();
    silent_for(&world, &deployment, 61.0).await;
    let row = deployment.becomes("is UNKNOWN", |row| row.phase.as_deref() == Some("UNKNOWN")).await;
    assert_eq!(row.status, "PROCESSING");
    silent_for(&world, &deployment, 601.0).await;
    let row = deployment.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("FAILED", 1), "{row:?}");
    assert_eq!(row.error_code.as_deref(), Some("AGENT_LOST"));
    let message = row.error_message.expect("a message");
    assert!(
        message.contains("agent A") && message.contains("phase APPLY") && message.contains("lock"),
        "{message}"
    );

    // The agent comes back: its lines arrive, and the true end replaces what was guessed.
    let _again = setup.start();
    story.go_on();
    let row = deployment.becomes("is ended by its own agent", |row| row.status == "SUCCESS").await;
    assert_eq!((row.attempt, row.error_code.as_deref()), (1, None), "{row:?}");
    assert!(story.interrupts().is_empty(), "{:?}", story.interrupts());
    let log = deployment.log().await;
    log.assert_complete(&row);
    assert_eq!(log.counted(), (1..=story.lines).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_agent_that_was_silent_during_apply_takes_its_phase_back() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let story = Story::with_gate(&world, "apply");
    let setup = world.agent(&cluster).narrator().env("TENDRIL_HEARTBEAT", "1s");
    let (agent, executors) = (setup.start(), setup.executors());
    let deployment = cluster.queue(story.config()).await;
    deployment.says("at the gate").await;
    agent.signal(Signal::STOP);
    executors.signal(Signal::STOP);
    // What was on its way when they were stopped may still arrive.
    let row = until("it is UNKNOWN", async || {
        silent_for(&world, &deployment, 61.0).await;
        world.database.execute("select public.reap_lost_agents()", &[]).await.expect("the reaper");
        let row = deployment.row().await;
        if row.phase.as_deref() == Some("UNKNOWN") { Ok(row) } else { Err(format!("{row:?}")) }
    })
    .await;
    assert!(row.error_message.is_some(), "{row:?}");
    executors.signal(Signal::CONT);
    agent.signal(Signal::CONT);
    let row = deployment.becomes("is in its phase again", |row| row.phase.as_deref() == Some("APPLY")).await;
    assert_eq!((row.status.as_str(), row.error_message), ("PROCESSING", None));
    story.go_on();
    assert_eq!(deployment.ended().await.status, "SUCCESS");
}

/// The reaper must neither fail nor take a job whose agent is just being heard.
#[tokio::test]
async fn a_heartbeat_that_arrives_while_the_reaper_looks_keeps_its_job() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let story = Story::with_gate(&world, "apply");
    let setup = world.agent(&cluster).narrator();
    let agent = setup.start();
    let deployment = cluster.queue(story.config()).await;
    deployment.says("at the gate").await;
    agent.signal(Signal::STOP);
    setup.executors().signal(Signal::STOP);
    let mut other = world.project.database().await;
    for _ in 0..20 {
        silent_for(&world, &deployment, 61.0).await;
        let heartbeat = other.transaction().await.expect("a transaction");
        let extend = "update tendril.leases set last_heartbeat_at = now() where deployment_id = $1";
        heartbeat.execute(extend, &[&deployment.id]).await.expect("the lease is extended");
        let (reaped, ()) =
            tokio::join!(world.database.execute("select public.reap_lost_agents()", &[]), async {
                heartbeat.commit().await.expect("the heartbeat ends");
            });
        reaped.expect("the reaper");
        assert_eq!(deployment.row().await.phase.as_deref(), Some("APPLY"));
    }
}

/// With the real terraform, which would die of a broken pipe at its next line, and take the state with it.
#[tokio::test]
async fn terraform_survives_the_kill_of_its_agent_and_stores_its_state() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let setup = world.agent(&cluster);
    let agent = setup.start();
    let gate = world.path("gate");
    let variables = json!({"lines": 2000, "gate": gate});
    let deployment = cluster.queue(json!({"template": "count", "stack": "s", "variables": variables})).await;
    deployment.says("at the gate").await;
    lose(agent, &setup);
    fs::write(gate, "").expect("the gate opens");

    let state_dir = setup.cli.state_dir.clone().expect("a directory");
    let state = Path::new(&state_dir).join("count.s/terraform.tfstate");
    until("terraform ends by itself", async || {
        let text = fs::read_to_string(&state).map_err(|error| error.to_string())?;
        let state: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let instance = &state["resources"][0]["instances"][0];
        if !instance["attributes"]["id"].is_string() {
            return Err(text);
        }
        assert_eq!(instance["status"], Value::Null, "it is not tainted: {text}");
        Ok(())
    })
    .await;
    until("its lock is gone", async || {
        let lock = state.with_file_name(".terraform.tfstate.lock.info");
        if lock.exists() { Err(format!("{}", lock.display())) } else { Ok(()) }
    })
    .await;

    let _again = setup.start();
    let row = deployment.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    deployment.log().await.assert_complete(&row);
    // Its work is known: there is nothing left to do.
    let again = cluster.queue(json!({"template": "count", "stack": "s", "variables": variables})).await;
    let row = again.ended().await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
    let nothing =
        json!({"add": 0, "change": 0, "remove": 0, "import": 0, "move": 0, "forget": 0, "drift": 0});
    assert_eq!(row.plan_summary, Some(nothing));
}

#[tokio::test]
async fn an_agent_that_is_killed_again_and_again_in_an_apply_costs_it_nothing() {
    const KILLS: u32 = 12;
    let world = World::start().await;
    let cluster = world.cluster().await;
    let story = Story { lines: 20_000, burst: 50, ..Story::with_gate(&world, "apply") };
    let setup = world.agent(&cluster).narrator();
    let deployment = cluster.queue(story.config()).await;
    let mut agent = setup.start();
    // The phase is written before Terraform is started: an agent that dies between the two has no apply to take over.
    deployment.says("at the gate").await;
    for kill in 0..KILLS {
        // A moment that is another one each time, and may be that of the restart itself.
        tokio::time::sleep(Duration::from_millis(u64::from(kill * 397 % 1300))).await;
        lose(agent, &setup);
        agent = setup.start();
    }
    story.go_on();
    let row = deployment.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    assert!(story.interrupts().is_empty(), "terraform noticed: {:?}", story.interrupts());
    let log = deployment.log().await;
    log.assert_complete(&row);
    assert_eq!(log.counted(), (1..=story.lines).collect::<Vec<_>>());
    until("the work directory is tidy", async || {
        let dir = setup.cli.work_dir.clone().expect("a directory");
        let left = fs::read_dir(dir).into_iter().flatten().flatten();
        let left: Vec<_> = left.filter(|entry| entry.file_name().to_string_lossy().contains('-')).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_cancel_reaches_an_apply_that_was_taken_over_and_interrupts_it_once() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let story = Story::with_gate(&world, "apply");
    let setup = world.agent(&cluster).narrator().env("TENDRIL_HEARTBEAT", "1s");
    let deployment = cluster.queue(story.config()).await;
    let first = setup.start();
    deployment.says("at the gate").await;
    lose(first, &setup);
    let _second = setup.start();
    deployment.says("Terraform went on meanwhile").await;
    let ask = "update public.deployments set cancel_requested_at = now() where id = $1";
    world.database.execute(ask, &[&deployment.id]).await.expect("the cancel is requested");
    let row = deployment.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("CANCELLED", 1), "{row:?}");
    assert_eq!(story.interrupts().len(), 1, "{:?}", story.interrupts());
    let log = deployment.log().await;
    log.assert_complete(&row);
    assert!(log.text().contains("Gracefully shutting down"), "{}", log.text());
}

/// This test and the next one let real time pass: the whole promise, with nothing compressed.
#[tokio::test]
async fn a_dead_agent_is_noticed_within_150_seconds() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let story = Story::with_gate(&world, "plan");
    let deployment = cluster.queue(story.config()).await;
    let a = world.agent(&cluster).narrator().name("agent A");
    let first = a.start();
    deployment.says("at the gate").await;
    let _second = world.agent(&cluster).narrator().name("agent B").start();
    lose(first, &a);
    // The lease is 60 s, and an idle agent sends a heartbeat each 60 s, more or less.
    until_within(150, "the other agent claims it", async || {
        let row = deployment.row().await;
        if row.attempt == 2 { Ok(()) } else { Err(format!("{row:?}")) }
    })
    .await;
}

/// As `pg_cron` would, each 15 seconds.
const REAPER: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_cluster_whose_only_agent_died_is_offline_within_150_seconds() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let setup = world.agent(&cluster);
    let agent = setup.start();
    cluster.online().await;
    agent.says("the cluster is online").await;
    let died = std::time::Instant::now();
    lose(agent, &setup);
    let reap = async {
        loop {
            world.database.execute("select public.reap_lost_agents()", &[]).await.expect("the reaper runs");
            tokio::time::sleep(REAPER).await;
        }
    };
    let offline =
        until_within(150, "the cluster is OFFLINE", async || match cluster.status().await.as_str() {
            "OFFLINE" => Ok(()),
            other => Err(other.to_owned()),
        });
    tokio::select! {
        () = reap => unreachable!("it has no end"),
        () = offline => {}
    }
    let took = died.elapsed();
    assert!(took > Duration::from_secs(60), "a missed beat or two is no death: {took:?}");
    println!("OFFLINE {took:?} after the kill");
}
