//! Jobs in executors: processes that outlive their dispatcher, and whose death costs a run nothing.

use std::fs;

use rustix::process::{Signal, kill_process};
use serde_json::json;
use tendril_tests::{Deployment, Program, Story, World, until};

/// How often the dispatcher is killed in one apply.
fn kills() -> usize {
    match std::env::var("TENDRIL_RACE").as_deref() {
        Err(_) => 12,
        Ok("full") => 50,
        Ok(other) => panic!("TENDRIL_RACE is \"{other}\": leave it out, or write \"full\""),
    }
}

fn kill(agent: Program) {
    agent.signal(Signal::KILL);
    drop(agent);
}

/// The run ended well, in its first attempt, with a whole log and without an interrupt.
async fn assert_untouched(deployment: &Deployment, story: &Story) {
    let row = deployment.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    assert!(story.interrupts().is_empty(), "{:?}", story.interrupts());
    let log = deployment.log().await;
    log.assert_complete(&row);
    assert_eq!(log.counted(), (1..=story.lines).collect::<Vec<_>>());
}

async fn shown(world: &World, job: &Deployment) -> String {
    job.becomes("shows its plan", |row| row.phase.as_deref() == Some("APPROVAL")).await;
    let query = "select plan_sha256 from public.deployments where id = $1";
    world.database.query_one(query, &[&job.id]).await.expect("the row").get(0)
}

async fn approve(job: &Deployment, plan: &str) {
    let approval = json!({"approved_plan": plan});
    let request = job.as_user.from("deployments").update(&approval).eq("id", job.id);
    request.execute().await.expect("it is approved");
}

#[tokio::test]
async fn a_dispatcher_that_is_killed_again_and_again_costs_an_apply_nothing() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let story = Story { lines: 6000, burst: 60, ..Story::with_gate(&world, "apply") };
    let setup = world.agent(&cluster).narrator().in_executors();
    let executors = setup.executors();
    let mut agent = setup.start();
    let deployment = cluster.queue(story.config()).await;
    deployment.becomes("is applied", |row| row.phase.as_deref() == Some("APPLY")).await;
    let executor = executors.are(1).await;
    for n in 0..kills() {
        // Some before it has found its executors, some after it has gone on.
        if n > 0 && n % 2 == 0 {
            agent.says("is taken over").await;
        }
        kill(agent);
        assert_eq!(executors.running(), executor, "it lives");
        agent = setup.start();
        if n % 3 == 0 {
            cluster.online().await;
        }
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

#[tokio::test]
async fn an_upgrade_in_mid_apply_leaves_executors_of_the_version_before_to_finish() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let story = Story::with_gate(&world, "apply");
    let setup = world.agent(&cluster).narrator().in_executors();
    let executors = setup.executors();
    let (program, work_dir) = (world.path("tendril-agent"), setup.cli.work_dir.clone().expect("a directory"));
    let old = setup.start_copy(&program);
    let deployment = cluster.queue(story.config()).await;
    deployment.says("at the gate").await;
    let executor = executors.are(1).await;
    kill(old);
    // The program's file is replaced, and what the version before wrote has fields and values that this one does not know.
    fs::remove_file(&program).expect("the old program goes");
    let entry = format!("{work_dir}/executors/{}.1", deployment.id);
    for (file, version) in [("attempt.json", json!("0.0.1")), ("executor.lock", json!("0.0.1"))] {
        let path = format!("{entry}/{file}");
        let mut text: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
        text["version"] = version;
        text["of_another_version"] = json!({"n": 1});
        fs::write(&path, text.to_string()).expect("it is rewritten");
    }
    let new = setup.start();
    new.line("takes over the old version's executor", |line| {
        line.contains("is taken over") && line.contains("0.0.1")
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
    let setup = world.agent(&cluster).narrator().in_executors();
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
            let plan = shown(&world, &deployment).await;
            approve(&deployment, &plan).await;
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
    let setup = world.agent(&cluster).narrator().in_executors();
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
    let setup =
        world.agent(&cluster).narrator().in_executors().concurrency(1).env("TENDRIL_ON_STOP", "detach");
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

#[tokio::test]
async fn a_stop_drains_executors_and_a_second_one_interrupts_them() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let story = Story::with_gate(&world, "apply");
    let setup = world.agent(&cluster).narrator().in_executors();
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
    let setup = world.agent(&cluster).narrator().in_executors().env("TENDRIL_HEARTBEAT", "20s");
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

#[tokio::test]
async fn a_plan_waits_without_a_process_and_its_approval_is_kept_through_a_restart() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let setup = world.agent(&cluster).in_executors();
    let executors = setup.executors();
    let agent = setup.start();
    let orders = ["a", "b"].map(
        |stack| json!({"template": "count", "stack": stack, "approval": true, "variables": {"lines": 2}}),
    );
    let jobs = cluster.queue_all(orders).await;
    let plans = [shown(&world, &jobs[0]).await, shown(&world, &jobs[1]).await];
    executors.are(0).await;
    approve(&jobs[0], &plans[0]).await;
    let row = jobs[0].ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    jobs[0].log().await.assert_complete(&row);
    kill(agent);
    approve(&jobs[1], &plans[1]).await;
    let _again = setup.start();
    let row = jobs[1].ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    let log = jobs[1].log().await;
    log.assert_complete(&row);
    assert!(!log.text().contains("restarted"), "nothing was lost: {}", log.text());
}

/// With the real terraform, whose last message says how its apply ended.
#[tokio::test]
async fn an_apply_whose_parent_process_is_killed_goes_on_and_ends_well() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let setup = world.agent(&cluster).in_executors();
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

/// Plans that wait are entries, and nothing else: no process, no thread, no request of their own.
#[tokio::test]
async fn two_thousand_plans_wait_and_cost_next_to_nothing() {
    const PLANS: usize = 2000;
    let world = World::start().await;
    let cluster = world.cluster().await;
    let setup = world.agent(&cluster).narrator().in_executors();
    let executors = setup.executors();
    let agent = setup.start();
    cluster.online().await;
    let idle = Usage::of(agent.pid());
    kill(agent);

    let config = json!({"template": "story", "approval": true, "variables": {}});
    let jobs = cluster.queue_all(std::iter::repeat_n(config, PLANS)).await;
    let rest = "update public.deployments set status = 'PROCESSING', phase = 'APPROVAL', attempt = 1, claim_token = gen_random_uuid(), claimed_by = 'scenario',
        claimed_at = now(), started_at = now(), plan_sha256 = repeat('a', 64) where cluster_id = $1";
    world
        .database
        .batch_execute("alter table public.deployments disable trigger user")
        .await
        .expect("no triggers");
    let moved = world.database.execute(rest, &[&cluster.id]).await.expect("they wait");
    world
        .database
        .batch_execute("alter table public.deployments enable trigger user")
        .await
        .expect("triggers again");
    assert_eq!(usize::try_from(moved).expect("a count"), jobs.len());
    let leases = "insert into tendril.leases (deployment_id, cluster_id) select id, cluster_id from public.deployments where cluster_id = $1 on conflict do nothing";
    world.database.execute(leases, &[&cluster.id]).await.expect("their leases");
    let work_dir = setup.cli.work_dir.clone().expect("a directory");
    let query = "select id, claim_token, state_key from public.deployments where cluster_id = $1";
    for row in world.database.query(query, &[&cluster.id]).await.expect("rows") {
        let (id, claim_token, state_key): (uuid::Uuid, uuid::Uuid, String) =
            (row.get(0), row.get(1), row.get(2));
        let dir = std::path::Path::new(&work_dir).join(format!("{id}.1"));
        fs::create_dir(&dir).expect("a directory");
        let claim = json!({"deployment_id": id, "attempt": 1, "claim_token": claim_token, "phase": "APPROVAL", "state_key": state_key, "waits": true});
        fs::write(dir.join("claim.json"), claim.to_string()).expect("a claim");
    }

    let agent = setup.start();
    cluster.online().await;
    // A job that comes now is run as ever.
    let next = cluster.queue(Story::default().config()).await;
    assert_eq!(next.ended().await.status, "SUCCESS");
    executors.are(0).await;
    let waiting = Usage::of(agent.pid());
    assert!(waiting.threads <= idle.threads + 4, "{idle:?} {waiting:?}");
    // Each is a row that the feed holds and an entry: a few kilobytes, in a build without optimisation. A process would take a thousand times that.
    assert!(waiting.kib <= idle.kib + 20 * PLANS as u64, "{idle:?} {waiting:?}");
    let open = "select count(*) from public.deployments where cluster_id = $1 and status = 'PROCESSING' and phase = 'APPROVAL'";
    let open: i64 = world.database.query_one(open, &[&cluster.id]).await.expect("a count").get(0);
    assert_eq!(usize::try_from(open).expect("a count"), PLANS, "each waits still");
}

/// What a process takes.
#[derive(Debug)]
struct Usage {
    kib: u64,
    threads: u64,
}

impl Usage {
    fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the field");
            line.trim().trim_end_matches(" kB").parse().expect("a number")
        };
        Self { kib: field("VmRSS:"), threads: field("Threads:") }
    }
}
