//! The plan as rows: a person approves what they see, and sees it being applied.

use rustix::process::Signal;
use serde_json::{Value, json};
use tendril_tests::{AgentSetup, Deployment, World, fixtures, until};
use tokio_postgres::Row;

/// The rows of a deployment, as its user reads them.
async fn changes(job: &Deployment) -> Vec<Value> {
    let request = job
        .as_user
        .from("deployment_changes")
        .select("position,address,resource_type,provider,action,drift,attributes,status,started_at,seconds")
        .eq("deployment_id", job.id)
        .order("position");
    request.rows().await.expect("the changes")
}

async fn stack(world: &World) -> Row {
    let query = "select resources, backend, last_status, state_key from public.stacks";
    world.database.query_one(query, &[]).await.expect("one stack")
}

#[tokio::test]
async fn a_plan_is_shown_resource_by_resource_before_it_is_approved_and_followed_while_it_is_applied() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let _agent = world.agent(&cluster).start();
    let gate = world.path("gate");
    let variables = json!({"lines": 2, "gate": gate, "password": "hunter2-hunter2"});
    let job = cluster
        .queue(json!({"template": "count", "stack": "prod", "approval": true, "variables": variables}))
        .await;
    let row = job.becomes("waits for approval", |row| row.phase.as_deref() == Some("APPROVAL")).await;
    let summary = row.plan_summary.expect("a plan");
    assert_eq!(
        summary,
        json!({"add": 1, "change": 0, "remove": 0, "import": 0, "move": 0, "forget": 0, "drift": 0})
    );
    let shown = changes(&job).await;
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert_eq!(shown[0]["address"], "terraform_data.count");
    assert_eq!((&shown[0]["action"], &shown[0]["status"]), (&json!("create"), &json!("PLANNED")));
    let attributes = shown[0]["attributes"].as_array().expect("attributes");
    assert!(attributes.contains(&json!({"path": "input", "before": null, "after": 2})), "{attributes:?}");
    assert!(attributes.iter().any(|one| one["path"] == "id" && one["unknown"] == true), "{attributes:?}");

    let approve = "update public.deployments set approved_plan = plan_sha256 where id = $1";
    world.database.execute(approve, &[&job.id]).await.expect("it is approved");
    job.says("at the gate").await;
    until("the change is shown as running", async || {
        let shown = changes(&job).await;
        if shown[0]["status"] == "RUNNING" { Ok(()) } else { Err(format!("{shown:?}")) }
    })
    .await;
    std::fs::write(gate, "").expect("the gate opens");
    assert_eq!(job.ended().await.status, "SUCCESS");
    until("the change is shown as done", async || {
        let shown = changes(&job).await;
        let is_done = shown[0]["status"] == "DONE" && shown[0]["seconds"].is_number();
        if is_done { Ok(()) } else { Err(format!("{shown:?}")) }
    })
    .await;
    until("the stack says what it holds", async || {
        let stack = stack(&world).await;
        match stack.get::<_, Option<i32>>(0) {
            Some(1) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(stack(&world).await.get::<_, Option<String>>(1).as_deref(), Some("local"));
    let applied = "select applied from public.deployments where id = $1";
    assert!(world.database.query_one(applied, &[&job.id]).await.expect("the row").get::<_, bool>(0));

    let again = cluster
        .queue(json!({"template": "count", "stack": "prod", "action": "destroy", "variables": {"lines": 2}}))
        .await;
    assert_eq!(again.ended().await.status, "SUCCESS");
    assert_eq!(changes(&again).await[0]["action"], "delete");
    until("nothing is left of it", async || match stack(&world).await.get::<_, Option<i32>>(0) {
        Some(0) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

/// The agent is killed while a change is applied; the next one takes over, and shows the change as done.
async fn is_shown_as_done_after_a_kill(
    world: &World,
    setup: AgentSetup,
    queue: impl AsyncFnOnce(Value) -> Deployment,
) {
    let agent = setup.start();
    let gate = world.path("gate");
    let job = queue(json!({"template": "count", "variables": {"lines": 2, "gate": gate}})).await;
    let is = async |status: &str| {
        until(status, async || {
            let shown = changes(&job).await;
            if shown.len() == 1 && shown[0]["status"] == status {
                Ok(shown)
            } else {
                Err(format!("{shown:?}"))
            }
        })
        .await
    };
    is("RUNNING").await;
    agent.signal(Signal::KILL);
    drop(agent);
    let _agent = setup.start();
    std::fs::write(gate, "").expect("the gate opens");
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    assert!(is("DONE").await[0]["seconds"].is_number());
}

#[tokio::test]
async fn a_change_that_ends_after_its_agent_was_killed_is_shown_as_done() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let setup = world.agent(&cluster).in_process();
    is_shown_as_done_after_a_kill(&world, setup, async |job| cluster.queue(job).await).await;
}

#[tokio::test]
async fn a_change_that_ends_after_its_dispatcher_was_killed_is_shown_as_done() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let setup = world.agent(&cluster);
    is_shown_as_done_after_a_kill(&world, setup, async |job| cluster.queue(job).await).await;
}

#[tokio::test]
async fn the_templates_that_an_agent_carries_are_listed_for_its_user() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let _agent = world.agent(&cluster).start();
    let listed = async || {
        let request = cluster
            .as_user()
            .rest()
            .from("cluster_templates")
            .select("name,title,digest,variables")
            .order("name")
            .rows::<Value>()
            .await;
        request.expect("the catalogue")
    };
    let rows = until("the catalogue is there", async || {
        let rows = listed().await;
        if rows.is_empty() { Err("nothing is listed".to_owned()) } else { Ok(rows) }
    })
    .await;
    let count = rows.iter().find(|row| row["name"] == "count").expect("the template count");
    assert_eq!(count["title"], "Count");
    assert_eq!(count["variables"]["required"], json!(["lines"]));
    assert_eq!(count["digest"].as_str().map(str::len), Some(64));
    // Forms follow the order in which the template describes its variables.
    let catalogue =
        cluster.as_user().rest().from("cluster_templates").select("variables").eq("name", "count");
    let answer = catalogue.execute().await.expect("the catalogue");
    let text = String::from_utf8_lossy(answer.body()).into_owned();
    let file = std::fs::read_to_string(fixtures("templates/count/template.json")).expect("a template");
    let order = |text: &str| {
        let mut names = ["gate", "lines", "password"].map(|name| (text.find(&format!("\"{name}\":")), name));
        names.sort_unstable();
        names.map(|(place, name)| place.map(|_| name))
    };
    assert_eq!(order(&file), [Some("lines"), Some("gate"), Some("password")]);
    assert_eq!(order(&text), order(&file), "{text}");
}
