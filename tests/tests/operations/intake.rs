//! How jobs are found: by broadcasts, without row changes (`deployments` is not published here); and by the way that works.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use supabase_local::Cut;
use tendril_realtime::Client;
use tendril_tests::{Cluster, Deployment, Program, World, until};

use crate::probe::{free_address, get, metric};

/// A job arrives as an event, not by the next poll, which is a minute away.
const SOON: Duration = Duration::from_secs(6);
/// Jobs whose way from insert to claim is timed.
const TIMED: usize = 20;

/// A world whose row changes do not include deployments. None on an external project, whose publication is not ours.
async fn unpublished() -> Option<World> {
    let world = World::start().await;
    world.project.stack("the publication is changed")?;
    unpublish(&world).await;
    Some(world)
}

async fn unpublish(world: &World) {
    let unpublish = "alter publication supabase_realtime drop table public.deployments";
    world.database.batch_execute(unpublish).await.expect("it is taken out");
}

fn ticket(world: &World, number: usize) -> Value {
    json!({"template": "ticket", "variables": {"ledger": world.path("ledger"), "ticket": number.to_string()}})
}

fn status(addr: SocketAddr) -> Option<Value> {
    serde_json::from_str(&get(addr, "/status")?.1).ok()
}

/// Waits until an agent gets its jobs as events, in this way.
async fn told_by(addr: SocketAddr, way: &str) {
    until(&format!("the intake is live by {way}"), async || {
        let seen = status(addr).map(|status| status["intake"].clone()).unwrap_or_default();
        if seen["way"] == way && seen["live"] == true { Ok(()) } else { Err(seen.to_string()) }
    })
    .await;
}

async fn live(addr: SocketAddr) {
    told_by(addr, "broadcast").await;
}

/// An agent with the stand-in for terraform, once it is live.
async fn agent(world: &World, cluster: &Cluster) -> (Program, SocketAddr) {
    let addr = free_address();
    let agent = world.agent(cluster).by_broadcast().stand_in().concurrency(8);
    let agent = agent.env("TENDRIL_HEALTH_ADDR", addr.to_string()).start();
    live(addr).await;
    (agent, addr)
}

/// From insert to claim, by the database's clock.
async fn latency(world: &World, job: &Deployment) -> Duration {
    let query =
        "select extract(epoch from claimed_at - created_at)::float8 from public.deployments where id = $1";
    let row = world.database.query_one(query, &[&job.id]).await.expect("the row");
    Duration::from_secs_f64(row.get::<_, Option<f64>>(0).expect("it was claimed").max(0.0))
}

/// From insert to claim for some jobs, one after the other; in ascending order.
async fn timed(world: &World, cluster: &Cluster, way: &str) -> Vec<Duration> {
    let mut times = Vec::new();
    for number in 0..TIMED {
        let job = cluster.queue(ticket(world, number)).await;
        assert_eq!(job.ended().await.status, "SUCCESS");
        times.push(latency(world, &job).await);
    }
    times.sort();
    let (middle, last) = (times[TIMED / 2], times[TIMED - 1]);
    println!("insert -> claimed by {way}, {TIMED} jobs: p50 {middle:.1?}, slowest {last:.1?}");
    times
}

#[tokio::test]
async fn jobs_are_claimed_through_broadcasts_at_once() {
    let world = World::start().await;
    if world.project.stack("the publication is changed").is_none() {
        return;
    }
    let cluster = world.cluster().await;
    let by_changes = world.agent(&cluster).by_row_changes().stand_in().start();
    // The first job finds the agent connected or waits for it: it is not counted.
    assert_eq!(cluster.queue(ticket(&world, 0)).await.ended().await.status, "SUCCESS");
    timed(&world, &cluster, "row changes").await;
    drop(by_changes);

    unpublish(&world).await;
    let cluster = world.cluster().await;
    let (agent, addr) = agent(&world, &cluster).await;
    let times = timed(&world, &cluster, "broadcast").await;
    assert!(times[TIMED - 1] < SOON, "{times:?}");
    assert!(metric(addr, "tendril_agent_intake_live") > 0.5);

    // A statement that queues many jobs is one message.
    let messages =
        "select count(*) from realtime.messages where extension = 'broadcast' and payload ? 'jobs'";
    let jobs = cluster.queue_all((0..12).map(|number| ticket(&world, 100 + number))).await;
    for job in &jobs {
        assert_eq!(job.ended().await.status, "SUCCESS");
    }
    let count: i64 = world.database.query_one(messages, &[]).await.expect("the messages").get(0);
    assert_eq!(count, 1);
    let secrets = "select count(*) from realtime.messages where payload::text like '%ledger%'";
    let count: i64 = world.database.query_one(secrets, &[]).await.expect("the messages").get(0);
    assert_eq!(count, 0, "no message contains what a job runs");
    assert!(!agent.output().contains("WARN") && !agent.output().contains("ERROR"), "{}", agent.output());
}

#[tokio::test]
async fn a_cancel_and_an_approval_are_told_by_broadcasts() {
    let Some(world) = unpublished().await else { return };
    let cluster = world.cluster().await;
    let addr = free_address();
    // Its next heartbeat, which brings a cancel too, is further away than the limit of this test.
    let agent = world.agent(&cluster).by_broadcast().env("TENDRIL_HEARTBEAT", "20s");
    let _agent = agent.env("TENDRIL_HEALTH_ADDR", addr.to_string()).start();
    live(addr).await;
    let snapshot = |stack: &str| json!({"template": "count", "stack": stack, "approval": true, "variables": {"lines": 2}});
    let jobs = cluster.queue_all([snapshot("one"), snapshot("two")]).await;
    for job in &jobs {
        job.becomes("rests in APPROVAL", |row| row.phase.as_deref() == Some("APPROVAL")).await;
    }
    let ask = async |job: &Deployment, change: Value| {
        job.as_user
            .from("deployments")
            .update(&change)
            .eq("id", job.id)
            .execute()
            .await
            .expect("it is requested");
        Instant::now()
    };
    let plan = jobs[0].plan().await;
    let requested = ask(&jobs[0], json!({"approved_plan": plan})).await;
    jobs[0].becomes("goes on", |row| row.phase.as_deref() != Some("APPROVAL")).await;
    assert!(requested.elapsed() < SOON, "{:?}", requested.elapsed());
    assert_eq!(jobs[0].ended().await.status, "SUCCESS");
    let requested = ask(&jobs[1], json!({"cancel_requested_at": "2026-01-01T00:00:00Z"})).await;
    assert_eq!(jobs[1].ended().await.status, "CANCELLED");
    assert!(requested.elapsed() < SOON, "{:?}", requested.elapsed());
}

#[tokio::test]
async fn a_job_that_was_queued_while_the_socket_was_down_is_claimed_after_it_is_back() {
    let Some(world) = unpublished().await else { return };
    let faults = world.project.stack("the socket is cut").expect("the local stack").faults().clone();
    let cluster = world.cluster().await;
    let (_agent, addr) = agent(&world, &cluster).await;
    for (number, cut) in [Cut::Abrupt, Cut::Close(1012)].into_iter().enumerate() {
        faults.refuse_realtime(true);
        faults.cut_sockets(cut);
        let missed = cluster.queue(ticket(&world, number)).await;
        faults.refuse_realtime(false);
        assert_eq!(missed.ended().await.status, "SUCCESS");
        live(addr).await;
    }
    // A channel whose token ends is joined again, and lists again.
    faults.expire_tokens();
    let missed = cluster.queue(ticket(&world, 7)).await;
    assert_eq!(missed.ended().await.status, "SUCCESS");
}

#[tokio::test]
async fn the_channel_of_a_cluster_is_for_its_agent_alone_and_only_to_hear() {
    let world = World::start().await;
    let (cluster, other) = (world.cluster().await, world.cluster().await);
    let topic = format!("cluster:{}", cluster.id);
    let join = async |client: &Client| client.channel(&topic).private(true).ack(true).join().await;
    let anonymous = Client::builder(&world.project.url, &world.project.anon_key).build().expect("a client");
    for (who, client) in
        [("another agent", other.as_agent()), ("its own user", cluster.as_user()), ("anybody", anonymous)]
    {
        let refused = join(&client).await.expect_err(who);
        assert_eq!(refused.code(), "Unauthorized", "{who}: {refused}");
    }
    let channel = join(&cluster.as_agent()).await.expect("its agent is let in");
    let sent = channel.broadcast("deployment", &json!({"id": "x"})).await;
    assert_eq!(sent.expect_err("it may not send").code(), "Timeout");
}

#[tokio::test]
async fn where_the_database_tells_nothing_by_broadcast_the_agent_says_so_once_and_polls() {
    let Some(world) = unpublished().await else { return };
    let older = "drop trigger d_broadcast_queued on public.deployments;
        drop trigger d_broadcast_changed on public.deployments;
        drop function public.agent_wants_broadcasts();
        drop policy \"An agent receives broadcasts of its cluster\" on realtime.messages;
        alter function realtime.send(jsonb, text, text, boolean) rename to send_of_another_version;";
    world.database.batch_execute(older).await.expect("an older contract");
    let cluster = world.cluster().await;
    let addr = free_address();
    let agent =
        world.agent(&cluster).by_broadcast().stand_in().env("TENDRIL_HEALTH_ADDR", addr.to_string()).start();
    agent.says("apply the newest supabase/migrations").await;
    // The first is found by the list at the start, so the second cannot be.
    for number in 1..=2 {
        assert_eq!(cluster.queue(ticket(&world, number)).await.ended().await.status, "SUCCESS");
    }
    let intake = status(addr).expect("an answer")["intake"].clone();
    assert_eq!(intake, json!({"setting": "broadcast", "way": "broadcast", "live": false}));
    let printed =
        agent.lines().iter().filter(|line| line.contains("apply the newest supabase/migrations")).count();
    assert_eq!(printed, 1, "{}", agent.output());
}

/// The name of the policy that lets agents receive.
const POLICY: &str = "An agent receives broadcasts of its cluster";

/// An agent that finds its way by itself, with an idle heartbeat each 4 seconds.
fn by_itself(world: &World, cluster: &Cluster) -> (Program, SocketAddr) {
    let addr = free_address();
    let agent = world.agent(cluster).stand_in().env("TENDRIL_HEARTBEAT", "1s");
    (agent.env("TENDRIL_HEALTH_ADDR", addr.to_string()).start(), addr)
}

async fn execute(world: &World, sql: &str) {
    world.database.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// A job that is announced, and not found by a poll.
async fn claimed_soon(world: &World, cluster: &Cluster, number: usize) {
    let job = cluster.queue(ticket(world, number)).await;
    assert_eq!(job.ended().await.status, "SUCCESS");
    let waited = latency(world, &job).await;
    assert!(waited < SOON, "{waited:?}");
}

#[tokio::test]
async fn a_project_without_broadcasts_is_served_by_row_changes_until_it_has_them() {
    let world = World::start().await;
    if world.project.stack("realtime.messages is taken away").is_none() {
        return;
    }
    // As in a fresh project, before Realtime first connected to its database.
    let hide = format!(
        "drop policy \"{POLICY}\" on realtime.messages; alter table realtime.messages rename to messages_to_come"
    );
    execute(&world, &hide).await;
    let cluster = world.cluster().await;
    let (agent, addr) = by_itself(&world, &cluster);
    told_by(addr, "postgres_changes").await;
    claimed_soon(&world, &cluster, 1).await;
    assert!(agent.output().contains("jobs are found by row changes"), "{}", agent.output());

    execute(&world, "alter table realtime.messages_to_come rename to messages").await;
    told_by(addr, "broadcast").await;
    agent.says("jobs arrive by broadcast from now on").await;
    unpublish(&world).await;
    claimed_soon(&world, &cluster, 2).await;
    assert_eq!(status(addr).expect("an answer")["intake"]["setting"], "auto");
    // A restarted agent begins with what works.
    drop(agent);
    let (agent, addr) = by_itself(&world, &cluster);
    told_by(addr, "broadcast").await;
    claimed_soon(&world, &cluster, 3).await;
    assert!(!agent.output().contains("do not arrive by broadcast"), "{}", agent.output());
}

#[tokio::test]
async fn when_broadcasts_end_row_changes_are_followed_and_when_they_return_broadcasts() {
    let world = World::start().await;
    let Some(stack) = world.project.stack("the policies are changed") else { return };
    let cluster = world.cluster().await;
    let (agent, addr) = by_itself(&world, &cluster);
    told_by(addr, "broadcast").await;
    claimed_soon(&world, &cluster, 1).await;
    let end = format!(
        "drop policy \"{POLICY}\" on realtime.messages;
         alter function realtime.send(jsonb, text, text, boolean) rename to send_of_another_version"
    );
    execute(&world, &end).await;
    stack.faults().cut_sockets(Cut::Abrupt);
    told_by(addr, "postgres_changes").await;
    agent.says("jobs do not arrive by broadcast").await;
    claimed_soon(&world, &cluster, 2).await;
    execute(
        &world,
        "alter function realtime.send_of_another_version(jsonb, text, text, boolean) rename to send",
    )
    .await;
    // The next heartbeat installs the policy, and reports it.
    told_by(addr, "broadcast").await;
    unpublish(&world).await;
    claimed_soon(&world, &cluster, 3).await;
}

#[tokio::test]
async fn a_job_that_no_broadcast_announced_is_found_by_the_next_heartbeat_and_ends_the_trust_in_them() {
    let world = World::start().await;
    if world.project.stack("realtime.send is replaced").is_none() {
        return;
    }
    let cluster = world.cluster().await;
    let (agent, addr) = by_itself(&world, &cluster);
    told_by(addr, "broadcast").await;
    // As where its insert fails, which it swallows.
    let silent = "create or replace function realtime.send(payload jsonb, event text, topic text, private boolean default true)
        returns void language plpgsql as $$ begin return; end $$";
    execute(&world, silent).await;
    let job = cluster.queue(ticket(&world, 1)).await;
    agent.says("a job was not announced").await;
    assert_eq!(job.ended().await.status, "SUCCESS");
    let waited = latency(&world, &job).await;
    assert!(waited < Duration::from_secs(25), "the list of each minute would find it too: {waited:?}");
    told_by(addr, "postgres_changes").await;
    claimed_soon(&world, &cluster, 2).await;
}

#[tokio::test]
async fn where_neither_broadcasts_nor_row_changes_come_jobs_are_found_by_polling() {
    let Some(world) = unpublished().await else { return };
    let end = format!(
        "drop policy \"{POLICY}\" on realtime.messages;
         alter function realtime.send(jsonb, text, text, boolean) rename to send_of_another_version"
    );
    execute(&world, &end).await;
    let cluster = world.cluster().await;
    let (agent, addr) = by_itself(&world, &cluster);
    for number in 1..=2 {
        assert_eq!(cluster.queue(ticket(&world, number)).await.ended().await.status, "SUCCESS");
    }
    let intake = status(addr).expect("an answer")["intake"].clone();
    assert_eq!((&intake["live"], &intake["setting"]), (&json!(false), &json!("auto")), "{}", agent.output());
}
