//! Templates from Git that cannot be had: each cause is one sentence, and no token goes astray.

use std::{fmt::Write as _, fs};

use serde_json::{Value, json};
use tendril_tests::{GitServer, World, until};

use crate::source::{MANIFEST, Stage, TOKEN, noise, template};

/// The code and the sentence of a source that is refused.
async fn refused(stage: &Stage, source: Value) -> (String, String) {
    let row = stage.run(source).await;
    assert_eq!(row.status, "FAILED", "{row:?}");
    let printed = row.error_message.expect("a sentence");
    assert!(!printed.contains('\n') && !printed.contains(TOKEN), "{printed}");
    (row.error_code.expect("a code"), printed)
}

#[tokio::test]
async fn what_is_not_there_is_said_in_one_sentence_each() {
    let stage = Stage::set().await;
    stage.repository.write("empty/README.md", "nothing here");
    stage.repository.write("broken/main.tf", template("one"));
    stage.repository.write("broken/template.json", "{\"variables\": ");
    let commit = stage.repository.commit().await;
    stage.repository.run(&["tag", "both"]).await;
    stage.repository.run(&["push", "--quiet", "--tags", "origin"]).await;
    stage.repository.write("network/main.tf", template("two"));
    stage.repository.commit().await;
    stage.repository.run(&["push", "--quiet", "origin", "main:refs/heads/both"]).await;
    stage.server.repository("void").await;
    let _agent = stage.agent().start();
    let with = |field: &str, value: &str| {
        let mut source = stage.source(None);
        source[field] = json!(value);
        source
    };
    for (source, code, part) in [
        (
            with("git", &stage.server.url("nothing")),
            "SOURCE_INVALID",
            "nothing.git was not found, or the agent's token may not see it",
        ),
        (with("git", &stage.server.url("void")), "SOURCE_INVALID", "is empty: push the template into it"),
        (with("ref", "nope"), "SOURCE_INVALID", "has no branch or tag \"nope\""),
        (with("ref", &commit[..10]), "SOURCE_INVALID", "a commit is written in full, with 40 digits"),
        (with("ref", &"0".repeat(40)), "SOURCE_INVALID", "has no commit 0000"),
        (with("ref", "both"), "SOURCE_INVALID", "write refs/heads/both or refs/tags/both"),
        (with("path", "nowhere/at/all"), "SOURCE_INVALID", "has no folder \"nowhere/at/all\""),
        (with("path", "network/main.tf"), "SOURCE_INVALID", "is not a folder"),
        (with("path", "empty"), "SOURCE_INVALID", "the folder \"empty\" of"),
        (with("path", ""), "SOURCE_INVALID", "the root of"),
        (with("path", "broken"), "SOURCE_INVALID", "template.json of"),
        (
            with("git", "https://github.com/acme/infra"),
            "CONFIG_INVALID",
            "add it to --git-hosts / TENDRIL_GIT_HOSTS",
        ),
        (with("git", "ssh://git@github.com/acme/infra"), "CONFIG_INVALID", "has no SSH keys"),
    ] {
        let (found, printed) = refused(&stage, source).await;
        assert!(found == code && printed.contains(part), "{code} \"{part}\": {found} {printed}");
    }
    // Its own rules hold too.
    let config =
        json!({"source": stage.source(None), "variables": {"name": "much too long to be a name here"}});
    let row = stage.cluster.queue(config).await.ended().await;
    assert_eq!(row.error_code.as_deref(), Some("CONFIG_INVALID"), "{row:?}");
    assert!(row.error_message.expect("a message").contains("variable \"name\": "));
    assert!(row.template_commit.is_some(), "a job that failed has its commit too");
}

#[tokio::test]
async fn what_looks_like_an_option_a_file_or_a_program_is_refused_before_anything_runs() {
    let stage = Stage::set().await;
    stage.repository.commit().await;
    let _agent = stage.agent().start();
    let marker = stage.world.path("marker");
    let touch = format!("touch {}", marker.display());
    for (field, value) in [
        ("git", format!("--upload-pack={touch}")),
        ("git", format!("ext::sh -c '{touch}'")),
        ("git", format!("file://{}", stage.world.path("repositories/infra.git").display())),
        ("git", stage.world.path("repositories/infra.git").display().to_string()),
        ("git", format!("{}?--upload-pack={touch}", stage.server.url("infra"))),
        ("git", stage.server.url("infra").replace("http://", "http://user:password@")),
        ("ref", format!("--upload-pack={touch}")),
        ("ref", format!("main --upload-pack={touch}")),
        ("ref", "main:refs/heads/other".to_owned()),
        ("path", "../network".to_owned()),
        ("path", "/etc".to_owned()),
        ("path", "network\n--upload-pack=x".to_owned()),
    ] {
        let mut source = stage.source(None);
        source[field] = json!(value);
        let (code, printed) = refused(&stage, source).await;
        assert!(
            code == "CONFIG_INVALID" && printed.contains(&format!("config_snapshot.source.{field}")),
            "{value}: {printed}"
        );
    }
    // These could be names; they are requested as such, and are nothing else.
    for path in [
        format!("--upload-pack={touch}"),
        "-u".to_owned(),
        ":(top)network".to_owned(),
        "network;id".to_owned(),
    ] {
        let mut source = stage.source(None);
        source["path"] = json!(path);
        let (code, printed) = refused(&stage, source).await;
        assert!(code == "SOURCE_INVALID" && printed.contains("has no folder"), "{path}: {printed}");
    }
    assert!(!marker.exists());
    assert!(stage.server.seen().iter().all(|seen| !seen.path.contains("touch")));
}

#[tokio::test]
async fn a_wrong_token_and_none_are_told_apart_and_a_new_one_is_taken_without_a_restart() {
    let stage = Stage::set().await;
    let commit = stage.repository.commit().await;
    let file = stage.world.path("git-token");
    fs::write(&file, "another-token").expect("a token");
    let agent = stage.agent().start();
    let (_, printed) = refused(&stage, stage.source(None)).await;
    assert!(printed.contains("does not take the agent's token"), "{printed}");
    fs::write(&file, TOKEN).expect("a token");
    let row = stage.run(stage.source(None)).await;
    assert_eq!(row.template_commit, Some(commit), "{row:?}");
    drop(agent);
    let _without = stage.world.agent(&stage.cluster).env("TENDRIL_GIT_HOSTS", stage.server.host()).start();
    let (_, printed) = refused(&stage, stage.source(None)).await;
    assert!(printed.contains("requires a login") && printed.contains("TENDRIL_GIT_TOKEN_FILE"), "{printed}");
}

#[tokio::test]
async fn without_hosts_nothing_is_fetched_and_the_setting_is_named() {
    let stage = Stage::set().await;
    let _agent = stage.world.agent(&stage.cluster).start();
    let (code, printed) = refused(&stage, stage.source(None)).await;
    let part = format!("add {} to --git-hosts / TENDRIL_GIT_HOSTS", stage.server.host());
    assert!(code == "CONFIG_INVALID" && printed.contains(&part), "{printed}");
    assert!(stage.server.seen().is_empty());
}

#[tokio::test]
async fn a_redirect_to_another_host_is_refused_and_that_host_hears_nothing() {
    let stage = Stage::set().await;
    stage.repository.commit().await;
    let foreign = GitServer::start(&stage.world.path("foreign")).await;
    foreign.repository("infra").await;
    stage.server.redirect(&format!("http://{}", foreign.host()));
    let _agent = stage.agent().start();
    let (code, printed) = refused(&stage, stage.source(None)).await;
    assert!(code == "SOURCE_INVALID" && printed.contains("redirects to another address"), "{printed}");
    assert!(foreign.seen().is_empty());
}

#[tokio::test]
async fn a_server_that_is_gone_and_a_repository_that_is_too_large_are_said() {
    let stage = Stage::set().await;
    stage.repository.write("network/noise", noise(3_000_000));
    stage.repository.commit().await;
    let setup = stage.agent().env("TENDRIL_GIT_LIMIT", "1MiB");
    let _agent = setup.start();
    let (code, printed) = refused(&stage, stage.source(None)).await;
    assert!(
        code == "SOURCE_INVALID" && printed.contains("is too large, it takes more than 1 MiB"),
        "{printed}"
    );
    let Stage { world, cluster, server, repository } = stage;
    let url = server.url("infra");
    drop(server);
    let server = GitServer::start(&world.path("others")).await;
    let stage = Stage { world, cluster, server, repository };
    let (code, printed) = refused(&stage, json!({"git": url, "path": "network"})).await;
    assert!(
        code == "SOURCE_UNAVAILABLE"
            && printed.contains("cannot be reached")
            && printed.contains("queue the deployment again"),
        "{printed}"
    );
}

#[tokio::test]
async fn a_cancel_ends_a_fetch_that_hangs() {
    let stage = Stage::set().await;
    stage.repository.commit().await;
    stage.server.stall(true);
    let _agent = stage.agent().start();
    let job =
        stage.cluster.queue(json!({"source": stage.source(None), "variables": {"name": "world"}})).await;
    stage.server.stalled().await;
    assert_eq!(job.row().await.phase.as_deref(), Some("WORKSPACE"));
    let cancel = json!({"cancel_requested_at": "2026-01-01T00:00:00Z"});
    job.as_user
        .from("deployments")
        .update(&cancel)
        .eq("id", job.id)
        .execute()
        .await
        .expect("it is requested");
    let row = job.ended().await;
    assert_eq!(
        (row.status.as_str(), row.error_message.as_deref()),
        ("CANCELLED", Some("Cancelled before init began."))
    );
}

/// Everything that the server stores of this cluster's jobs.
async fn everything(world: &World) -> String {
    let mut all = String::new();
    for query in [
        "select to_jsonb(d)::text from public.deployments d",
        "select log_chunk from public.deployment_logs order by deployment_id, attempt, seq",
    ] {
        for row in world.database.query(query, &[]).await.expect("rows") {
            let _infallible = writeln!(all, "{}", row.get::<_, String>(0));
        }
    }
    all
}

#[tokio::test]
async fn the_token_is_in_no_log_no_row_no_file_and_not_in_terraforms_environment() {
    let stage = Stage::set().await;
    let spies = "
resource \"terraform_data\" \"spy\" {
  provisioner \"local-exec\" {
    command = \"env; echo it was $CANARY; git config --list || true; cat ../../../git/askpass || true\"
    environment = { CANARY = var.name }
  }
}
";
    stage.repository.write("network/main.tf", template("one") + spies);
    stage
        .repository
        .write("network/template.json", MANIFEST.replace("20", "200").replace(", \"sensitive\": true", ""));
    stage.repository.commit().await;
    let setup = stage.agent().env("TENDRIL_LOG", "debug");
    let agent = setup.start();
    // A user that guesses the token finds it hidden, too: the log would show it otherwise.
    let config = json!({"source": stage.source(None), "stack": "prod", "variables": {"name": TOKEN}});
    let job = stage.cluster.queue(config).await;
    let row = job.ended().await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
    let log = job.log().await.text();
    assert!(log.contains("TF_DATA_DIR=") && log.contains("it was [hidden]"), "{log}");
    let environment = |name: &str| log.lines().any(|line| line.contains(&format!("(local-exec): {name}")));
    assert!(environment("PATH=") && !environment("TENDRIL_") && !environment("GIT_"), "{log}");
    let all = everything(&stage.world).await.replace(&format!("\"name\": \"{TOKEN}\""), "");
    assert!(!all.contains(TOKEN), "{all}");
    assert!(!agent.output().contains(TOKEN), "{}", agent.output());
    let logins: Vec<_> = stage.server.seen().into_iter().filter_map(|seen| seen.login).collect();
    assert!(!logins.is_empty());
    for login in logins {
        let basic = login.trim_start_matches("Basic ").to_owned();
        assert!(!all.contains(&basic) && !agent.output().contains(&basic));
    }
    let work = setup.cli.work_dir.clone().expect("a work directory");
    // The variables of a job are in the attempt file of its executor, and go with it.
    until("what the executor was given is removed", async || {
        let left = fs::read_dir(format!("{work}/executors")).map(Iterator::count).unwrap_or_default();
        if left == 0 { Ok(()) } else { Err(left.to_string()) }
    })
    .await;
    for file in crate::source::files(std::path::Path::new(&work)) {
        let content = fs::read(&file).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&content).contains(TOKEN), "{}", file.display());
    }
}
