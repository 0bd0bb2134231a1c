//! Jobs in executors: processes that outlive their dispatcher, and whose death costs a run nothing.

use std::{fs, path::PathBuf, time::Duration};

use rustix::process::{Signal, kill_process};
use serde_json::json;
use tendril_tests::{Deployment, Program, Story, World, program, until};
use tokio::time::sleep;
use uuid::Uuid;

/// How often the dispatcher is killed in one apply, and how many seconds the apply takes.
fn kills() -> (u32, u64) {
    match std::env::var("TENDRIL_RACE").as_deref() {
        Err(_) => (12, 8),
        Ok("full") => (50, 60),
        Ok(other) => panic!("TENDRIL_RACE is \"{other}\": leave it out, or write \"full\""),
    }
}

pub(crate) fn kill(agent: Program) {
    agent.signal(Signal::KILL);
    drop(agent);
}

/// The run ended well, in its first attempt, with a whole log and without an interrupt.
pub(crate) async fn assert_untouched(deployment: &Deployment, story: &Story) {
    let row = deployment.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    assert!(story.interrupts().is_empty(), "{:?}", story.interrupts());
    let log = deployment.log().await;
    log.assert_complete(&row);
    assert_eq!(log.counted(), (1..=story.lines).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_dispatcher_that_is_killed_again_and_again_costs_an_apply_nothing() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let (kills, seconds) = kills();
    // A burst takes 50 ms. The gate holds an apply that is done before the last kill.
    let story = Story { lines: 100 + seconds * 20 * 60, burst: 60, ..Story::with_gate(&world, "apply") };
    let setup = world.agent(&cluster).narrator();
    let executors = setup.executors();
    let mut agent = setup.start();
    let deployment = cluster.queue(story.config()).await;
    deployment.becomes("is applied", |row| row.phase.as_deref() == Some("APPLY")).await;
    let executor = executors.are(1).await;
    let longest = Duration::from_secs(seconds) * 2 / kills;
    for n in 0..kills {
        // Some before it has found its executors, some after it has gone on, some in the middle of that.
        match n % 3 {
            0 => cluster.online().await,
            1 => drop(agent.says("is taken over").await),
            _ => {}
        }
        sleep(longest.mul_f64(f64::from(Uuid::new_v4().as_bytes()[0]) / 255.0)).await;
        kill(agent);
        assert_eq!(executors.running(), executor, "it lives");
        agent = setup.start();
    }
    story.go_on();
    assert_untouched(&deployment, &story).await;
    executors.are(0).await;
    // What was kept of it goes too, and the agent takes the next job.
    let next = cluster.queue(json!({"template": "story", "variables": {"planned": 1, "lines": 2, "burst": 1, "width": 20, "waits": "", "gate": ""}})).await;
    assert_eq!(next.ended().await.status, "SUCCESS");
    let work_dir = setup.cli.work_dir.clone().expect("a directory");
    until("nothing is left of executors", async || {
        let left = fs::read_dir(format!("{work_dir}/executors")).map(Iterator::count).unwrap_or_default();
        if left == 0 { Ok(()) } else { Err(left.to_string()) }
    })
    .await;
}

/// `TENDRIL_PREVIOUS_AGENT` names the program of the version before; without it, it is this one, with what it has written changed
/// as another version could have written it.
#[tokio::test]
async fn an_upgrade_in_mid_apply_leaves_executors_of_the_version_before_to_finish() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let story = Story::with_gate(&world, "apply");
    let setup = world.agent(&cluster).narrator().env("TENDRIL_LAUNCHER", "local");
    let executors = setup.executors();
    let (program, work_dir) = (world.path("tendril-agent"), setup.cli.work_dir.clone().expect("a directory"));
    let previous = std::env::var_os("TENDRIL_PREVIOUS_AGENT").map(PathBuf::from);
    let old = setup.start_copy_of(&previous.clone().unwrap_or_else(program::agent), &program);
    let deployment = cluster.queue(story.config()).await;
    deployment.says("at the gate").await;
    let executor = executors.are(1).await;
    kill(old);
    // The program's file is replaced.
    fs::remove_file(&program).expect("the old program goes");
    let entry = format!("{work_dir}/executors/{}.1", deployment.id);
    let rewritten = [("attempt.json", json!("0.0.1")), ("executor.lock", json!("0.0.1"))];
    for (file, version) in rewritten.iter().filter(|_| previous.is_none()) {
        let path = format!("{entry}/{file}");
        let mut text: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
        text["version"] = version.clone();
        text["of_another_version"] = json!({"n": 1});
        fs::write(&path, text.to_string()).expect("it is rewritten");
    }
    let new = setup.start();
    new.line("takes over the old version's executor", |line| {
        line.contains("is taken over") && (previous.is_some() || line.contains("0.0.1"))
    })
    .await;
    assert_eq!(executors.running(), executor, "it is left to finish");
    story.go_on();
    assert_untouched(&deployment, &story).await;
    executors.are(0).await;
}

#[tokio::test]
async fn an_executor_that_is_killed_costs_an_apply_nothing() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let story = Story::with_gate(&world, "apply");
    let setup = world.agent(&cluster).narrator();
    let executors = setup.executors();
    let _agent = setup.start();
    let deployment = cluster.queue(story.config()).await;
    deployment.says("at the gate").await;
    for _ in 0..3 {
        let [executor] = executors.are(1).await[..] else { panic!("one executor") };
        kill_process(executor, Signal::KILL).expect("it is killed");
        until("another one takes its place", async || match executors.running()[..] {
            [other] if other != executor => Ok(()),
            ref running => Err(format!("{running:?}")),
        })
        .await;
        deployment.says("The agent was restarted; Terraform went on meanwhile.").await;
    }
    story.go_on();
    assert_untouched(&deployment, &story).await;
    executors.are(0).await;
}

/// From the end of the plan on, an executor may die wherever it likes: the run ends as it would have ended.
#[tokio::test]
async fn an_executor_that_dies_at_any_place_of_an_apply_costs_it_nothing() {
    const PLACES: [(&str, u64); 17] = [
        ("approval.saved", 1),
        ("approval.shown", 1),
        ("apply.saved", 1),
        ("apply.flushed", 1),
        ("step.begins", 3),
        ("step.ended", 3),
        ("step.begins", 4),
        ("step.ended", 4),
        ("lock_owner.saved", 2),
        ("writer.line", 700),
        ("final_status.made", 1),
        ("final_status.saved", 1),
        ("final_status.uploaded", 1),
        ("final_status.counted", 1),
        ("final_status.stored", 1),
        ("workspace.removing", 1),
        ("final_status.removed", 1),
    ];
    tendril_tests::crash::prepare();
    let world = World::start().await;
    for (place, time) in PLACES {
        let cluster = world.cluster().await;
        let setup = world.agent(&cluster).narrator();
        let executors = setup.executors();
        let once = world.path(&format!("{place}.{time}"));
        let agent = setup.start_with_mortal_executors(place, time, &once);
        let story = Story { planned: 300, lines: 1200, burst: 60, ..Story::default() };
        let mut config = story.config();
        config["approval"] = place.starts_with("approval.").into();
        let deployment = cluster.queue(config).await;
        if place.starts_with("approval.") {
            let plan = deployment.plan().await;
            deployment.approve(&plan).await;
        }
        let row = deployment.ended().await;
        until(&format!("an executor dies at {place} {time}"), async || {
            if once.exists() { Ok(()) } else { Err(format!("{row:?}")) }
        })
        .await;
        assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{place} {time}: {row:?}");
        let log = deployment.log().await;
        log.assert_complete(&row);
        executors.are(0).await;
        drop(agent);
    }
}

#[tokio::test]
async fn an_apply_that_ends_while_nobody_is_there_ends_well() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let story = Story::with_gate(&world, "apply");
    let setup = world.agent(&cluster).narrator();
    let executors = setup.executors();
    let agent = setup.start();
    let deployment = cluster.queue(story.config()).await;
    deployment.says("at the gate").await;
    kill(agent);
    for executor in executors.are(1).await {
        kill_process(executor, Signal::KILL).expect("it is killed");
    }
    executors.are(0).await;
    story.go_on();
    let work_dir = setup.cli.work_dir.clone().expect("a directory");
    until("the exit code is on disk", async || {
        let file = format!("{work_dir}/{}.1/exit.json", deployment.id);
        if fs::exists(&file).unwrap_or_default() { Ok(()) } else { Err(file) }
    })
    .await;
    let _again = setup.start();
    assert_untouched(&deployment, &story).await;
}

#[tokio::test]
async fn detached_jobs_go_on_and_count_for_the_next_start() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let story = Story::with_gate(&world, "apply");
    let setup = world.agent(&cluster).narrator().concurrency(1).env("TENDRIL_ON_STOP", "detach");
    let executors = setup.executors();
    let mut agent = setup.start();
    let deployment = cluster.queue(story.config()).await;
    deployment.says("at the gate").await;
    let executor = executors.are(1).await;
    agent.signal(Signal::TERM);
    assert_eq!(agent.ended().await.code(), Some(0));
    assert_eq!(executors.running(), executor);

    let again = setup.start();
    let second = cluster.queue(json!({"template": "story", "stack": "another", "variables": {"planned": 1, "lines": 2, "burst": 1, "width": 20, "waits": "", "gate": ""}})).await;
    again.says("is taken over").await;
    cluster.online().await;
    story.go_on();
    assert_untouched(&deployment, &story).await;
    assert_eq!(second.ended().await.status, "SUCCESS");
    let query = "select (select finished_at from public.deployments where id = $1) <= (select claimed_at from public.deployments where id = $2)";
    let in_turn: bool =
        world.database.query_one(query, &[&deployment.id, &second.id]).await.expect("times").get(0);
    assert!(in_turn, "two ran at once");
}

/// Whatever else is in the directory of executors: a folder or a file of another kind in the place of one of theirs.
#[tokio::test]
async fn an_executor_is_taken_over_whatever_is_beside_it() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let story = Story::with_gate(&world, "apply");
    let setup = world.agent(&cluster).narrator().env("TENDRIL_ON_STOP", "detach");
    let executors = setup.executors();
    let mut agent = setup.start();
    let deployment = cluster.queue(story.config()).await;
    deployment.says("at the gate").await;
    executors.are(1).await;
    agent.signal(Signal::TERM);
    assert_eq!(agent.ended().await.code(), Some(0));

    let dir = PathBuf::from(setup.cli.work_dir.clone().expect("a work directory")).join("executors");
    let attempt = || dir.join(format!("{}.1", Uuid::new_v4()));
    fs::write(attempt(), "no folder").expect("a file");
    fs::create_dir(attempt()).expect("a folder");
    for (file, content) in [("attempt.json", "{"), ("attempt.json", "null"), ("executor.lock", "{")] {
        let (as_file, as_dir) = (attempt(), attempt());
        fs::create_dir(&as_file).expect("a folder");
        fs::write(as_file.join(file), content).expect("a file");
        fs::create_dir_all(as_dir.join(file)).expect("a folder");
        fs::create_dir_all(as_dir.join("attempt.json")).expect("a folder");
    }
    let again = setup.start();
    again.says("is taken over").await;
    story.go_on();
    assert_untouched(&deployment, &story).await;
    executors.are(0).await;
}

#[tokio::test]
async fn a_stop_drains_executors_and_a_second_one_interrupts_them() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let story = Story::with_gate(&world, "apply");
    let setup = world.agent(&cluster).narrator();
    let executors = setup.executors();
    let mut agent = setup.start();
    let deployment = cluster.queue(story.config()).await;
    deployment.says("at the gate").await;
    agent.signal(Signal::TERM);
    agent.says("asked to stop").await;
    executors.are(1).await;
    agent.signal(Signal::TERM);
    assert_eq!(agent.ended().await.code(), Some(0));
    assert!(executors.running().is_empty());
    let row = deployment.ended().await;
    assert_eq!(
        (row.status.as_str(), row.error_code.as_deref()),
        ("FAILED", Some("AGENT_STOPPED")),
        "{row:?}"
    );
    assert_eq!(story.interrupts().len(), 1, "{:?}", story.interrupts());
}

#[tokio::test]
async fn a_cancel_reaches_the_executor_at_once() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let story = Story::with_gate(&world, "plan");
    let setup = world.agent(&cluster).narrator().env("TENDRIL_HEARTBEAT", "20s");
    let executors = setup.executors();
    let _agent = setup.start();
    let deployment = cluster.queue(story.config()).await;
    deployment.says("at the gate").await;
    let cancel = "update public.deployments set cancel_requested_at = now() where id = $1";
    let asked = std::time::Instant::now();
    world.database.execute(cancel, &[&deployment.id]).await.expect("the cancel");
    let row = deployment.ended().await;
    assert_eq!(row.status, "CANCELLED", "{row:?}");
    assert!(asked.elapsed().as_secs() < 8, "it waited for a heartbeat: {:?}", asked.elapsed());
    executors.are(0).await;
}

/// With the real terraform, whose last message says how its apply ended.
#[tokio::test]
async fn an_apply_whose_parent_process_is_killed_goes_on_and_ends_well() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let setup = world.agent(&cluster);
    let executors = setup.executors();
    let _agent = setup.start();
    let gate = world.path("gate");
    let variables = json!({"lines": 20, "gate": gate});
    let deployment = cluster.queue(json!({"template": "count", "stack": "s", "variables": variables})).await;
    deployment.says("at the gate").await;
    let [keeper] = executors.keepers()[..] else { panic!("one keeper: {:?}", executors.keepers()) };
    kill_process(keeper, Signal::KILL).expect("it is killed");
    fs::write(gate, "").expect("the gate opens");
    let row = deployment.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    deployment.log().await.assert_complete(&row);
}
