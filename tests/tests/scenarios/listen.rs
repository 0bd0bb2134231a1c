//! The example `listen`, from outside: the black-box door of the library.

use rustix::process::Signal;
use serde_json::{Value, json};
use tendril_tests::{Cluster, Program, World, program};
use tokio::process::Command;

/// Starts `listen` on the cluster's deployments as their owner.
fn listen(world: &World, cluster: &Cluster, more: &[&str]) -> Program {
    let token = cluster.user_token();
    let mut command = Command::new(program::example("listen"));
    command.args(["--url", &world.project.url, "--key", &world.project.anon_key, "--token", &token]);
    command.args(["--table", "public.deployments"]).args(more);
    Program::start("listen", command)
}

/// Waits for a line of this type that fits, and answers the first one.
async fn line(listen: &Program, kind: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let read = |text: &str| serde_json::from_str::<Value>(text).ok();
    let wanted = |line: &Value| line["type"] == kind && fits(line);
    let found = listen.line(kind, |text| read(text).is_some_and(|line| wanted(&line))).await;
    read(&found).expect("a line")
}

async fn any(listen: &Program, kind: &str) -> Value {
    line(listen, kind, |_| true).await
}

fn idle() -> Value {
    json!({"template": "count", "variables": {"lines": 2}})
}

async fn cancel(cluster: &Cluster, id: uuid::Uuid) {
    let ask = json!({"cancel_requested_at": "2026-01-01T00:00:00Z"});
    let rest = cluster.as_user().rest().clone();
    rest.from("deployments").update(&ask).eq("id", id).execute().await.expect("it is cancelled");
}

#[tokio::test]
async fn listen_prints_inserts_updates_and_deletes_and_ends_with_sigint() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    for version in ["2.0.0", "1.0.0"] {
        let mut listen = listen(&world, &cluster, &["--vsn", version]);
        any(&listen, "ready").await;
        // One after the other: of a row that is gone the server shows no values.
        let deployment = cluster.queue(idle()).await;
        let insert = any(&listen, "insert").await;
        assert_eq!(
            (&insert["new"]["id"], &insert["new"]["status"]),
            (&json!(deployment.id), &json!("QUEUED"))
        );
        assert!(insert["new"].get("claim_token").is_none(), "no column that the role may not read: {insert}");
        cancel(&cluster, deployment.id).await;
        let update = any(&listen, "update").await;
        assert_eq!(
            (&update["new"]["status"], &update["old"]["id"]),
            (&json!("CANCELLED"), &json!(deployment.id))
        );
        let remove = "delete from public.deployments where id = $1";
        world.database.execute(remove, &[&deployment.id]).await.expect("it is removed");
        assert_eq!(any(&listen, "delete").await["old"], json!({"id": deployment.id}));

        listen.signal(Signal::INT);
        assert_eq!(listen.ended().await.code(), Some(0), "{}", listen.output());
        for text in listen.lines() {
            serde_json::from_str::<Value>(&text).unwrap_or_else(|_| panic!("one JSON object a line: {text}"));
        }
    }
}

#[tokio::test]
async fn listen_prints_only_what_was_asked_for_and_ends_after_its_count() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let wanted = uuid::Uuid::new_v4();
    let filter = format!("id=eq.{wanted}");
    let more = ["--event", "UPDATE", "--filter", &filter, "--select", "id,status", "--count", "1"];
    let mut listen = listen(&world, &cluster, &more);
    any(&listen, "ready").await;
    let other = cluster.queue(idle()).await;
    cancel(&cluster, other.id).await;
    let row = json!({"id": wanted, "cluster_id": cluster.id, "config_snapshot": idle()});
    cluster.as_user().rest().from("deployments").insert(&row).execute().await.expect("it is queued");
    cancel(&cluster, wanted).await;

    assert_eq!(listen.ended().await.code(), Some(0), "{}", listen.output());
    let changes: Vec<Value> = listen
        .lines()
        .iter()
        .map(|line| serde_json::from_str(line).expect("a line"))
        .filter(|line: &Value| !["status", "ready"].contains(&line["type"].as_str().unwrap_or_default()))
        .collect();
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_eq!(
        (&changes[0]["type"], &changes[0]["new"]),
        (&json!("update"), &json!({"id": wanted, "status": "CANCELLED"}))
    );
}

#[tokio::test]
async fn listen_says_where_rows_may_have_been_missed() {
    let world = World::start().await;
    let Some(stack) = world.project.stack("the socket is cut") else { return };
    let cluster = world.cluster().await;
    let listen = listen(&world, &cluster, &[]);
    any(&listen, "ready").await;
    stack.faults().cut_sockets(supabase_local::Cut::Abrupt);
    assert_eq!(any(&listen, "resync").await["reason"], "reconnected");
    let deployment = cluster.queue(idle()).await;
    line(&listen, "insert", |line| line["new"]["id"] == json!(deployment.id)).await;
}

#[tokio::test]
async fn listen_ends_with_1_where_trying_again_cannot_help() {
    let world = World::start().await;
    let mut command = Command::new(program::example("listen"));
    let bad_key = "not-a-key";
    command.args(["--url", &world.project.url, "--key", bad_key, "--table", "public.deployments"]);
    let mut listen = Program::start("listen", command);
    assert_eq!(listen.ended().await.code(), Some(1), "{}", listen.output());
    let error = any(&listen, "error").await;
    assert_eq!(error["retry"], false, "{error}");
    assert!(!error["message"].as_str().expect("a sentence").is_empty());
}

#[tokio::test]
async fn listen_takes_a_full_websocket_address() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let url = format!("{}/realtime/v1/websocket", world.project.url.replacen("http", "ws", 1));
    let token = cluster.user_token();
    let mut command = Command::new(program::example("listen"));
    command.args([
        "--url",
        &url,
        "--key",
        &world.project.anon_key,
        "--token",
        &token,
        "--table",
        "public.deployments",
    ]);
    let listen = Program::start("listen", command);
    any(&listen, "ready").await;
}
