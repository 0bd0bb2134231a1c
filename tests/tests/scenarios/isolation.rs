//! Clusters and users see nothing of each other.

use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tendril_realtime::{ChangeEvent, PostgresChanges, Rest};
use tendril_tests::{Cluster, World, within};
use uuid::Uuid;

#[derive(Debug, Deserialize)]
struct Key {
    id: Uuid,
}

/// A deployment that no agent touches.
fn idle() -> Value {
    json!({"template": "count", "variables": {"lines": 2}})
}

#[tokio::test]
async fn an_agent_sees_and_changes_nothing_of_another_cluster_by_rest() {
    let world = World::start().await;
    let (a, b) = (world.cluster().await, world.cluster().await);
    let (own, foreign) = (a.queue(idle()).await, b.queue(idle()).await);
    let agent = a.as_agent();
    let rest = agent.rest();

    let seen: Vec<Key> = rest.from("deployments").select("id").rows().await.expect("rows");
    assert_eq!(seen.iter().map(|row| row.id).collect::<Vec<_>>(), [own.id]);
    let seen: Vec<Key> = rest.from("clusters").select("id").rows().await.expect("rows");
    assert_eq!(seen.iter().map(|row| row.id).collect::<Vec<_>>(), [a.id]);

    let claim = json!({"status": "PROCESSING", "claim_token": Uuid::new_v4()});
    let claim = |id| rest.from("deployments").update(&claim).eq("id", id).eq("status", "QUEUED").select("id");
    let won: Vec<Key> = claim(foreign.id).rows().await.expect("an answer");
    assert_eq!(won.len(), 0, "no row is there to be claimed");
    let line =
        json!({"deployment_id": foreign.id, "attempt": 1, "seq": 1, "stream": "stdout", "log_chunk": "x\n"});
    let refused = rest.from("deployment_logs").insert(&line).execute().await.unwrap_err();
    assert_eq!(refused.code(), "42501", "{refused}");

    // The same requests are good on the own cluster: it was the cluster that refused them.
    let won: Vec<Key> = claim(own.id).rows().await.expect("an answer");
    assert_eq!(won.len(), 1);
    let line =
        json!({"deployment_id": own.id, "attempt": 1, "seq": 1, "stream": "stdout", "log_chunk": "x\n"});
    rest.from("deployment_logs").insert(&line).execute().await.expect("it is stored");
    assert_eq!(foreign.row().await.status, "QUEUED");
    assert_eq!(foreign.log().await.0, []);
}

#[tokio::test]
async fn an_agent_hears_nothing_of_another_cluster_by_realtime() {
    let world = World::start().await;
    let (a, b) = (world.cluster().await, world.cluster().await);
    let changes = PostgresChanges::on("public", "deployments");
    let agent = a.as_agent();
    let mut jobs =
        agent.channel("jobs").postgres_changes::<Key>(changes).subscribe().await.expect("rows flow");

    // Events come in the order of the writes: when the own row is there, the foreign ones are not to come any more.
    let foreign = b.queue(idle()).await;
    let cancel = json!({"cancel_requested_at": "2026-01-01T00:00:00Z"});
    b.as_user()
        .rest()
        .from("deployments")
        .update(&cancel)
        .eq("id", foreign.id)
        .execute()
        .await
        .expect("it is cancelled");
    let own = a.queue(idle()).await;
    match within("the own row arrives", jobs.next()).await.expect("the stream goes on").expect("an event") {
        ChangeEvent::Insert(row) => assert_eq!(row.id, own.id),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_agent_takes_no_job_of_another_cluster() {
    let world = World::start().await;
    let (a, b) = (world.cluster().await, world.cluster().await);
    let _agent = world.agent(&a).start();
    let foreign = b.queue(idle()).await;
    assert_eq!(a.queue(idle()).await.ended().await.status, "SUCCESS");
    assert_eq!(foreign.row().await.status, "QUEUED");
    assert_eq!(b.status().await, "PENDING");
}

#[tokio::test]
async fn a_user_sees_deployments_and_logs_of_own_clusters_only() {
    let world = World::start().await;
    let (a, b) = (world.cluster().await, world.cluster().await);
    let (_of_a, _of_b) = (world.agent(&a).start(), world.agent(&b).start());
    let (own, foreign) = (a.queue(idle()).await, b.queue(idle()).await);
    own.ended().await;
    foreign.ended().await;

    let deployments =
        async |rest: &Rest| rest.from("deployments").select("id").rows::<Key>().await.expect("rows").len();
    let chunks = async |rest: &Rest, id: Uuid| {
        let found = rest.from("deployment_logs").select("seq").eq("deployment_id", id);
        found.rows::<Value>().await.expect("rows").len()
    };
    let user = a.as_user();
    assert_eq!(deployments(user.rest()).await, 1);
    assert!(chunks(user.rest(), own.id).await > 0);
    assert_eq!(chunks(user.rest(), foreign.id).await, 0);

    // What is hidden is there all the same.
    let everything =
        Rest::builder(&world.project.url, &world.project.service_role_key).build().expect("a client");
    assert!(chunks(&everything, foreign.id).await > 0);
    let nobody = Rest::builder(&world.project.url, &world.project.anon_key).build().expect("a client");
    let refused = nobody.from("deployments").select("id").rows::<Key>().await.unwrap_err();
    assert_eq!(refused.code(), "42501", "{refused}");
}

#[tokio::test]
async fn a_user_hears_no_chunk_of_another_users_cluster() {
    let world = World::start().await;
    let (a, b) = (world.cluster().await, world.cluster().await);
    let (_of_a, _of_b) = (stand_in(&world, &a), stand_in(&world, &b));
    let changes = PostgresChanges::on("public", "deployment_logs");
    let user = a.as_user();
    let mut chunks =
        user.channel("logs").postgres_changes::<Value>(changes).subscribe().await.expect("rows flow");

    let ticket = json!({"template": "ticket", "variables": {"ledger": world.path("ledger"), "ticket": "1"}});
    b.queue(ticket.clone()).await.ended().await;
    let own = a.queue(ticket).await;
    match within("a chunk arrives", chunks.next()).await.expect("the stream goes on").expect("an event") {
        ChangeEvent::Insert(chunk) => assert_eq!(chunk["deployment_id"], json!(own.id)),
        other => panic!("{other:?}"),
    }
}

fn stand_in(world: &World, cluster: &Cluster) -> tendril_tests::Program {
    world.agent(cluster).stand_in().start()
}
