//! An error of a `config_snapshot` names the field and how to fix it.

use serde_json::{Value, json};
use tendril_tests::{Cluster, World};

/// Queues it and answers code and message of its failure.
async fn refusal(cluster: &Cluster, config: Value) -> (String, String) {
    let deployment = cluster.queue(config).await;
    let row = deployment.ended().await;
    assert_eq!(row.status, "FAILED", "{row:?}");
    let log = deployment.log().await;
    log.assert_complete(&row);
    let message = row.error_message.expect("a message");
    let first = message.lines().next().expect("a sentence");
    assert!(log.text().contains(first), "it is in the log too: {}", log.text());
    (row.error_code.expect("a code"), message)
}

#[tokio::test]
async fn a_bad_config_snapshot_ends_failed_with_a_sentence_that_says_what_to_fix() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let _agent = world.agent(&cluster).start();

    for (config, code, parts) in [
        (
            json!({"template": "nowhere"}),
            "TEMPLATE_NOT_FOUND",
            &["no template \"nowhere\"", "it has count, picky"][..],
        ),
        (
            json!({"template": "../count"}),
            "CONFIG_INVALID",
            &["\"../count\" is not a template name", "no paths"],
        ),
        (json!({"template": "/etc"}), "CONFIG_INVALID", &["\"/etc\" is not a template name"]),
        (
            json!({"template": "count", "stack": "../../other", "variables": {"lines": 2}}),
            "CONFIG_INVALID",
            &["config_snapshot.stack \"../../other\" is not a stack name"],
        ),
        (
            json!({"template": "count", "variables": {"lines": "three"}}),
            "CONFIG_INVALID",
            &["variable \"lines\": must be an integer, and it is a string"],
        ),
        (
            json!({"template": "count", "variables": {"lines": 2, "lnies": 3}}),
            "CONFIG_INVALID",
            &["variable \"lnies\": is unknown; known are"],
        ),
        (json!({"template": "count"}), "CONFIG_INVALID", &["variable \"lines\": is missing"]),
        (json!({"template": "count", "stakc": "prod"}), "CONFIG_INVALID", &["unknown field \"stakc\""]),
        (json!({"template": "count", "action": "destroy"}), "CONFIG_INVALID", &["name the stack"]),
    ] {
        let (output, message) = refusal(&cluster, config.clone()).await;
        assert_eq!(output, code, "{config}: {message}");
        for part in parts {
            assert!(message.contains(part), "{config}: {message}");
        }
    }
}

#[tokio::test]
async fn what_no_agent_could_read_is_not_even_queued() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    for (config, constraint) in [
        (json!([]), "config_snapshot_is_an_object"),
        (json!({"variables": {}}), "config_snapshot_names_a_template_or_source"),
        (json!({"template": "count", "action": "explode"}), "config_snapshot_action_known"),
        (json!({"template": "count", "variables": 3}), "config_snapshot_variables_are_an_object"),
    ] {
        let row = json!({"cluster_id": cluster.id, "config_snapshot": config});
        let refused = cluster.as_user().rest().from("deployments").insert(&row).execute().await.unwrap_err();
        let api = refused.postgrest().expect("an answer");
        assert_eq!((api.status, api.code.as_str()), (400, "23514"), "{config}");
        assert!(api.message.contains(constraint), "{}", api.message);
    }
}
