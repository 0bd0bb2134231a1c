//! The state is in its backend, or it is saved and reported: whatever fails, and whatever is stopped meanwhile.

use std::{fs, path::PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};
use tendril_tests::{AgentSetup, Cluster, Program, World, until};

/// An agent with its state in the stack's PostgreSQL.
struct Bench {
    world: World,
    cluster: Cluster,
    setup: AgentSetup,
}

impl Bench {
    async fn start() -> Self {
        Self::on(World::start().await).await
    }

    async fn on(world: World) -> Self {
        let cluster = world.cluster().await;
        let url = format!("{}?sslmode=disable", world.project.database_url);
        let setup = world.agent(&cluster).env("TENDRIL_STATE_BACKEND", "pg").env("PG_CONN_STR", url);
        Self { world, cluster, setup }
    }

    fn order(&self, gate: &str) -> Value {
        let gate = if gate.is_empty() { PathBuf::new() } else { self.world.path(gate) };
        json!({"template": "count", "stack": "prod", "variables": {"lines": 2, "gate": gate}})
    }

    /// The agent's directory of the state.
    fn state_dir(&self) -> PathBuf {
        PathBuf::from(self.setup.cli.state_dir.as_deref().expect("a directory")).join("count.prod")
    }

    async fn schema(&self) -> String {
        let query =
            "select schema_name from information_schema.schemata where schema_name like 'tendril\\_count%'";
        self.world.database.query_one(query, &[]).await.expect("one schema").get(0)
    }

    async fn stored(&self) -> Value {
        let query = format!("select data from {}.states where name = 'default'", self.schema().await);
        let state: String = self.world.database.query_one(&query, &[]).await.expect("the state").get(0);
        serde_json::from_str(&state).expect("a state")
    }

    async fn stop(&self, mut agent: Program) -> String {
        agent.signal(Signal::TERM);
        assert_eq!(agent.ended().await.code(), Some(0));
        agent.output()
    }
}

#[tokio::test]
async fn the_only_copy_of_a_state_outlives_a_full_state_directory_and_is_stored_by_the_next_life() {
    let bench = Bench::start().await;
    let agent = bench.setup.start();
    let job = bench.cluster.queue(bench.order("gate")).await;
    job.says("at the gate").await;
    // Neither the backend nor the agent's own volume takes anything.
    let schema = bench.schema().await;
    let refuse = format!(
        "create function {schema}.refuse() returns trigger language plpgsql as $$ begin raise 'no space'; end $$;
         create trigger refuse before insert or update on {schema}.states for each row execute function {schema}.refuse()"
    );
    bench.world.database.batch_execute(&refuse).await.expect("a backend that refuses");
    let states = bench.state_dir();
    fs::create_dir_all(states.parent().expect("a parent")).expect("the state directory");
    fs::write(&states, "").expect("a file where the state's folder would be");
    fs::write(bench.world.path("gate"), "").expect("the gate opens");
    let row = job.ended().await;
    assert_eq!(
        (row.status.as_str(), row.error_code.as_deref()),
        ("FAILED", Some("STATE_NOT_STORED")),
        "{row:?}"
    );
    let work = bench.setup.cli.work_dir.as_deref().expect("a directory");
    let place = format!("{work}/{}.1/run/module/errored.tfstate", job.id);
    let message = row.error_message.clone().expect("a message");
    assert!(message.contains(&place), "{message}");
    assert!(fs::read_to_string(&place).expect("the only copy").contains("terraform_data"));
    job.log().await.assert_complete(&row);
    bench.stop(agent).await;

    fs::remove_file(bench.state_dir()).expect("room is made");
    let allow = format!("drop trigger refuse on {schema}.states");
    bench.world.database.batch_execute(&allow).await.expect("a backend that takes it");
    let agent = bench.setup.start();
    agent.says("could not store is stored").await;
    assert_eq!(bench.stored().await["resources"][0]["name"], "count");
    until(
        "nothing is left",
        async || {
            if fs::exists(&place).unwrap_or(true) { Err(place.clone()) } else { Ok(()) }
        },
    )
    .await;
    assert_eq!(job.row().await.error_message, Some(message), "it is reported once");
    bench.stop(agent).await;
}

#[tokio::test]
async fn a_drain_waits_for_state_that_is_being_stored() {
    let bench = Bench::start().await;
    let agent = bench.setup.start();
    let row = bench.cluster.queue(bench.order("")).await.ended().await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
    bench.stop(agent).await;
    // What a previous run could not store, and a backend that takes its time.
    let mut newer = bench.stored().await;
    let serial = newer["serial"].as_u64().expect("a serial") + 1;
    newer["serial"] = json!(serial);
    // A state has a folder only while something of it must be saved.
    fs::create_dir_all(bench.state_dir()).expect("the state's folder");
    let saved = bench.state_dir().join("errored-earlier.1.tfstate");
    fs::write(&saved, newer.to_string()).expect("errored state");
    let slow = bench.world.project.database().await;
    let lock = format!("begin; select 1 from {}.states for update", bench.schema().await);
    slow.batch_execute(&lock).await.expect("a lock");
    let mut agent = bench.setup.start();
    until("the push waits for the backend", async || {
        let waits =
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%states%'";
        let waits: i64 = bench.world.database.query_one(waits, &[]).await.expect("activity").get(0);
        if waits > 0 { Ok(()) } else { Err("nobody waits".to_owned()) }
    })
    .await;
    agent.signal(Signal::TERM);
    agent.says("asked to stop").await;
    slow.batch_execute("commit").await.expect("the backend goes on");
    assert_eq!(agent.ended().await.code(), Some(0));
    assert!(agent.output().contains("could not store is stored"), "{}", agent.output());
    assert!(!saved.exists());
    assert!(bench.stored().await["serial"].as_u64() >= Some(serial));
}

#[tokio::test]
async fn a_state_that_only_one_agent_has_is_stored_before_any_agent_plans_again() {
    let bench = Bench::start().await;
    let url = format!("{}?sslmode=disable", bench.world.project.database_url);
    let first = bench.setup.clone().name("first").start();
    let job = bench.cluster.queue(bench.order("gate")).await;
    job.says("at the gate").await;
    let schema = bench.schema().await;
    let refuse = format!(
        "create function {schema}.refuse() returns trigger language plpgsql as $$ begin raise 'no space'; end $$;
         create trigger refuse before insert or update on {schema}.states for each row execute function {schema}.refuse()"
    );
    bench.world.database.batch_execute(&refuse).await.expect("a backend that refuses");
    fs::write(bench.world.path("gate"), "").expect("the gate opens");
    let row = job.ended().await;
    assert_eq!(
        (row.status.as_str(), row.error_code.as_deref()),
        ("FAILED", Some("STATE_NOT_STORED")),
        "{row:?}"
    );
    let held = "select state_held_by, state_held_reason from public.stacks where state_key = 'count.prod'";
    let stack = bench.world.database.query_one(held, &[]).await.expect("the stack");
    assert_eq!(stack.get::<_, Option<String>>(0).as_deref(), Some("first"));
    assert!(stack.get::<_, Option<String>>(1).expect("a reason").contains("could not write the state"));

    // Another replica, which has nothing of it, is notified of the retry too.
    let mut other = bench.world.agent(&bench.cluster).name("second");
    other.cli.state_dir = Some(bench.world.path("other-states").to_string_lossy().into_owned());
    other.cli.log_level = Some("debug".to_owned());
    let second = other.env("TENDRIL_STATE_BACKEND", "pg").env("PG_CONN_STR", url).start();
    second.says("the cluster is online").await;
    first.signal(Signal::STOP);
    let retry = bench.cluster.queue(bench.order("")).await;
    second.says("a claim was out of turn").await;
    assert_eq!(retry.row().await.status, "QUEUED");
    let allow = format!("drop trigger refuse on {schema}.states");
    bench.world.database.batch_execute(&allow).await.expect("a backend that takes it");
    first.signal(Signal::CONT);
    let row = retry.ended().await;
    assert_eq!((row.status.as_str(), row.claimed_by.as_deref()), ("SUCCESS", Some("first")), "{row:?}");
    assert_eq!(row.plan_summary.expect("a plan")["add"], 0, "nothing is created a second time");
    let stack = bench.world.database.query_one(held, &[]).await.expect("the stack");
    assert_eq!(stack.get::<_, Option<String>>(0), None, "the stack is released");

    first.signal(Signal::KILL);
    let next = bench.cluster.queue(bench.order("")).await.ended().await;
    assert_eq!((next.status.as_str(), next.claimed_by.as_deref()), ("SUCCESS", Some("second")), "{next:?}");
}

/// The scenario above under the rules of the contract before: the other replica makes what is there already.
#[tokio::test]
async fn under_the_contract_before_a_retry_on_another_replica_created_everything_a_second_time() {
    let bench = Bench::on(World::with_migrations(&tendril_tests::fixtures("contract-2")).await).await;
    let url = format!("{}?sslmode=disable", bench.world.project.database_url);
    let first = bench.setup.clone().name("first").start();
    let job = bench.cluster.queue(bench.order("gate")).await;
    job.says("at the gate").await;
    let schema = bench.schema().await;
    let refuse = format!(
        "create function {schema}.refuse() returns trigger language plpgsql as $$ begin raise 'no space'; end $$;
         create trigger refuse before insert or update on {schema}.states for each row execute function {schema}.refuse()"
    );
    bench.world.database.batch_execute(&refuse).await.expect("a backend that refuses");
    fs::write(bench.world.path("gate"), "").expect("the gate opens");
    assert_eq!(job.ended().await.status, "FAILED");
    first.signal(Signal::STOP);
    let allow = format!("drop trigger refuse on {schema}.states");
    bench.world.database.batch_execute(&allow).await.expect("a backend that takes it");
    let mut other = bench.world.agent(&bench.cluster).name("second");
    other.cli.state_dir = Some(bench.world.path("other-states").to_string_lossy().into_owned());
    let _second = other.env("TENDRIL_STATE_BACKEND", "pg").env("PG_CONN_STR", url).start();
    let row = bench.cluster.queue(bench.order("")).await.ended().await;
    assert_eq!((row.status.as_str(), row.claimed_by.as_deref()), ("SUCCESS", Some("second")), "{row:?}");
    assert_eq!(row.plan_summary.expect("a plan")["add"], 1, "the fault that contract 3 ends");
}

#[tokio::test]
async fn a_state_that_its_owner_discards_holds_nobody_up_and_is_not_stored_any_more() {
    let bench = Bench::start().await;
    let url = format!("{}?sslmode=disable", bench.world.project.database_url);
    let setup = bench.setup.clone().name("first");
    let first = setup.start();
    let job = bench.cluster.queue(bench.order("gate")).await;
    job.says("at the gate").await;
    let schema = bench.schema().await;
    let refuse = format!(
        "create function {schema}.refuse() returns trigger language plpgsql as $$ begin raise 'no space'; end $$;
         create trigger refuse before insert or update on {schema}.states for each row execute function {schema}.refuse()"
    );
    bench.world.database.batch_execute(&refuse).await.expect("a backend that refuses");
    fs::write(bench.world.path("gate"), "").expect("the gate opens");
    assert_eq!(job.ended().await.error_code.as_deref(), Some("STATE_NOT_STORED"));
    first.signal(Signal::KILL);
    let allow = format!("drop trigger refuse on {schema}.states");
    bench.world.database.batch_execute(&allow).await.expect("a backend that takes it");

    let owner = bench.cluster.as_user();
    let arguments = |confirm: &str| json!({"cluster_id": bench.cluster.id, "state_key": "count.prod", "confirm": confirm});
    let refused =
        owner.rest().rpc("discard_held_state", &arguments("yes")).value::<Value>().await.unwrap_err();
    assert_eq!(refused.code(), "TD010");
    let lost: Value = owner
        .rest()
        .rpc("discard_held_state", &arguments("count.prod"))
        .value()
        .await
        .expect("it is discarded");
    assert!(
        lost["lost"].as_str().expect("a sentence").contains("Agent first has held the only copy"),
        "{lost}"
    );

    let mut other = bench.world.agent(&bench.cluster).name("second");
    other.cli.state_dir = Some(bench.world.path("other-states").to_string_lossy().into_owned());
    let _second = other.env("TENDRIL_STATE_BACKEND", "pg").env("PG_CONN_STR", url).start();
    let row = bench.cluster.queue(bench.order("")).await.ended().await;
    assert_eq!((row.status.as_str(), row.claimed_by.as_deref()), ("SUCCESS", Some("second")), "{row:?}");
    let serial = bench.stored().await["serial"].clone();
    // The agent that has the discarded state comes back.
    let again = setup.start();
    again.says("it is set aside and not stored any more").await;
    assert_eq!(bench.stored().await["serial"], serial);
    bench.stop(again).await;
}

/// Its executor had no dispatcher when it ended, and the next one knows it as one that has ended.
#[tokio::test]
async fn a_state_that_an_executor_without_dispatcher_could_not_store_is_stored_by_the_next_start() {
    let bench = Bench::start().await;
    let mut agent = bench.setup.start();
    let job = bench.cluster.queue(bench.order("gate")).await;
    job.says("at the gate").await;
    let schema = bench.schema().await;
    let refuse = format!(
        "create function {schema}.refuse() returns trigger language plpgsql as $$ begin raise 'no space'; end $$;
         create trigger refuse before insert or update on {schema}.states for each row execute function {schema}.refuse()"
    );
    bench.world.database.batch_execute(&refuse).await.expect("a backend that refuses");
    agent.signal(Signal::KILL);
    agent.ended().await;
    fs::write(bench.world.path("gate"), "").expect("the gate opens");
    assert_eq!(job.ended().await.error_code.as_deref(), Some("STATE_NOT_STORED"));
    bench.setup.executors().are(0).await;
    let allow = format!("drop trigger refuse on {schema}.states");
    bench.world.database.batch_execute(&allow).await.expect("a backend that takes it");

    let again = bench.setup.start();
    again.says("is taken over").await;
    again.says("could not store is stored").await;
    assert_eq!(bench.stored().await["resources"][0]["name"], "count");
    bench.stop(again).await;
}

#[tokio::test]
async fn a_state_that_is_not_stored_is_stored_also_after_its_cluster_was_revoked() {
    let bench = Bench::start().await;
    let agent = bench.setup.start();
    let job = bench.cluster.queue(bench.order("gate")).await;
    job.says("at the gate").await;
    let schema = bench.schema().await;
    let refuse = format!(
        "create function {schema}.refuse() returns trigger language plpgsql as $$ begin raise 'no space'; end $$;
         create trigger refuse before insert or update on {schema}.states for each row execute function {schema}.refuse()"
    );
    bench.world.database.batch_execute(&refuse).await.expect("a backend that refuses");
    fs::write(bench.world.path("gate"), "").expect("the gate opens");
    assert_eq!(job.ended().await.error_code.as_deref(), Some("STATE_NOT_STORED"));
    bench.stop(agent).await;
    let revoke = "update public.clusters set revoked_at = now() where id = $1";
    bench.world.database.execute(revoke, &[&bench.cluster.id]).await.expect("it is revoked");
    let allow = format!("drop trigger refuse on {schema}.states");
    bench.world.database.batch_execute(&allow).await.expect("a backend that takes it");

    let agent = bench.setup.start();
    agent.says("could not store is stored").await;
    assert_eq!(bench.stored().await["resources"][0]["name"], "count");
    agent.says("this cluster was revoked").await;
    bench.stop(agent).await;
}
