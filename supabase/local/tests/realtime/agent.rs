//! The project's own schema, as an agent and a user meet it over Realtime.

use serde_json::json;
use supabase_local::Stack;

use crate::client::{Client, admin};

const USER: &str = "11111111-1111-4111-8111-111111111111";
const OURS: &str = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa";
const THEIRS: &str = "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb";

#[tokio::test]
async fn an_agent_hears_of_its_own_clusters_jobs_and_of_granted_columns_only() {
    let stack = Stack::builder().start().await.unwrap();
    let database = admin(&stack).await;
    let setup = format!(
        "insert into auth.users (id) values ('{USER}'); \
         insert into public.clusters (id, user_id, name) values ('{OURS}', '{USER}', 'a'), ('{THEIRS}', '{USER}', 'b')"
    );
    database.batch_execute(&setup).await.unwrap();
    let mut agent = Client::connect(&stack).await;
    let bindings = json!([{"event": "*", "schema": "public", "table": "deployments"},
                          {"event": "*", "schema": "public", "table": "clusters"}]);
    agent.subscribe("jobs", bindings, &stack.mint_machine(OURS)).await;
    let queue = |cluster: &str| {
        format!(
            "insert into public.deployments (cluster_id, config_snapshot) values \
             ('{cluster}', '{{\"template\": \"hello\", \"stack\": \"s\", \"action\": \"apply\", \"variables\": {{}}}}')"
        )
    };
    database.batch_execute(&queue(THEIRS)).await.unwrap();
    database.batch_execute(&queue(OURS)).await.unwrap();
    let data = agent.receive_json().await[4]["data"].take();
    assert_eq!(data["record"]["cluster_id"], OURS);
    assert_eq!(data["record"]["status"], "QUEUED");
    database.batch_execute("update public.clusters set name = 'new'").await.unwrap();
    let data = agent.receive_json().await[4]["data"].take();
    assert_eq!((data["table"].as_str(), data["record"]["name"].as_str()), (Some("clusters"), Some("new")));
    assert!(data["record"].get("api_key_hash").is_none(), "{data}");
    assert!(data["columns"].as_array().unwrap().iter().all(|column| column["name"] != "api_key_hash"));
    stack.stop().await.unwrap();
}
