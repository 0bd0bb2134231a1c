//! A person's way through the system, on a terminal and in scripts, with a real agent on the local stack.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

mod world;

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use expectrl::{ControlCode, Expect as _};
use rustix::process::Signal;
use serde_json::{Value, json};

use self::world::{EMAIL, PASSWORD, World, exit_code, finish, repository, signal, text};

fn templates() -> String {
    repository("templates").display().to_string()
}

/// The id in a line such as `Deployment … is queued`.
fn id_in(text: &str) -> String {
    let word = text.split_whitespace().find(|word| word.len() == 36 && word.matches('-').count() == 4);
    word.unwrap_or_else(|| panic!("no id in {text}")).to_owned()
}

#[test]
fn from_login_to_a_plan_that_is_approved_and_applied() {
    let world = World::new();
    let mut login = world.terminal(&["login"]);
    login.expect("Email").unwrap();
    login.send_line(EMAIL).unwrap();
    login.expect("Password").unwrap();
    login.send_line(PASSWORD).unwrap();
    login.expect("Signed in to").unwrap();
    assert_eq!(exit_code(login), 0);
    assert_eq!(world.json(&["whoami"])["user"]["email"], EMAIL);

    let (cluster, key) = world.cluster("vineyard");
    assert!(key.starts_with("tdl_"), "{key}");
    let _agent = world.agent(cluster);

    let dir = templates();
    let deploy = [
        "deploy",
        "hello",
        "--var",
        "name=1.10",
        "--var",
        "lines=3",
        "--stack",
        "prod",
        "--approval",
        "--templates-dir",
        &dir,
    ];
    let mut deploy = world.terminal(&deploy);
    let queued = deploy.expect("is queued for cluster vineyard").unwrap();
    let id = id_in(&String::from_utf8_lossy(queued.before()));
    deploy.expect("waits for approval").unwrap();

    let plan = world.json(&["plan", &id]);
    assert_eq!(plan["deployment"]["plan_summary"]["add"], 2);
    let shown = world.run(&["plan", &id[..8]]);
    assert!(text(&shown).contains("2 to add, 0 to change, 0 to destroy"), "{}", text(&shown));

    let mut approve = world.terminal(&["approve", &id]);
    approve.expect("Apply this plan (2 to add, 0 to change, 0 to destroy)?").unwrap();
    approve.send("y").unwrap();
    approve.expect("Approved.").unwrap();
    assert_eq!(exit_code(approve), 0);

    deploy.expect("Hello, 1.10!").unwrap();
    deploy.expect("SUCCESS").unwrap();
    assert_eq!(exit_code(deploy), 0);

    let waited = world.run(&["wait", &id]);
    assert!(waited.status.success(), "{}", text(&waited));
    let stacks = world.json(&["stacks"]);
    assert_eq!(
        (&stacks[0]["stack"], &stacks[0]["last_status"]),
        (&json!("prod"), &json!("SUCCESS")),
        "{stacks}"
    );
    let (code, err) = world.fails(&["approve", &id, "--yes"]);
    assert_eq!(code, 6, "{err}");
    assert!(err.contains("has ended (SUCCESS)"), "{err}");

    let mut open = world.grape(&["open", &id[..8], "--print"]);
    let opened = open.env("GRAPE_PORTAL_URL", "https://portal.example.com/").output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&opened.stdout).trim(),
        format!("https://portal.example.com/deployment/?id={id}")
    );

    let listed = world.run(&["deployments"]);
    assert!(text(&listed).contains("hello") && text(&listed).contains("+2 ~0 -0"), "{}", text(&listed));
    assert!(!String::from_utf8_lossy(&listed.stdout).contains('\x1b'), "colours belong on a terminal");
}

#[test]
fn ctrl_c_leaves_a_run_alone_and_its_log_is_whole_afterwards() {
    let world = World::signed_in();
    let (cluster, _) = world.cluster("vineyard");
    let _agent = world.agent(cluster);
    let vars = world.home.path().join("vars.json");
    std::fs::write(&vars, json!({ "name": "ada", "lines": 60 }).to_string()).unwrap();
    let queued = world.json(&["deploy", "hello", "--detach", "--var-file", vars.to_str().unwrap()]);
    let id = queued["id"].as_str().unwrap().to_owned();

    let mut logs = world.terminal(&["logs", "-f", &id, "--timestamps"]);
    logs.expect("line 3 of 60").unwrap();
    logs.send(ControlCode::EndOfText).unwrap();
    logs.expect("continues.").unwrap();
    assert_eq!(exit_code(logs), 130);
    assert_eq!(world.json(&["plan", &id])["deployment"]["cancel_requested_at"], Value::Null);

    let waited = world.json(&["wait", &id, "--timeout", "2m"]);
    assert_eq!(waited["deployment"]["status"], "SUCCESS");
    // What programs read: an object a line, all of them, in order.
    let printed = world.run(&["logs", &id, "-o", "json"]);
    let lines: Vec<Value> =
        printed.stdout.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    let numbers: Vec<u32> = lines
        .iter()
        .filter_map(|line| line["line"].as_str()?.split_once("line ")?.1.split_once(" of 60")?.0.parse().ok())
        .collect();
    assert_eq!(numbers, (1..=60).collect::<Vec<_>>());
    let followed = world.run(&["logs", "-f", &id, "-o", "json"]);
    let end: Value =
        serde_json::from_str(followed.stdout.lines().map(Result::unwrap).last().unwrap().as_str()).unwrap();
    assert_eq!((&end["type"], &end["deployment"]["status"]), (&json!("end"), &json!("SUCCESS")));
}

#[test]
fn exit_codes_tell_how_a_deployment_ended() {
    let world = World::signed_in();
    let (cluster, _) = world.cluster("vineyard");
    let _agent = world.agent(cluster);

    let dir = templates();
    let failed = world.run(&["deploy", "hello", "--var", "name=x", "--var", "greeting=H3llo"]);
    assert_eq!(failed.status.code(), Some(20), "{}", text(&failed));
    assert!(text(&failed).contains("greeting"), "{}", text(&failed));

    let wait = [
        "deploy",
        "hello",
        "--var",
        "name=x",
        "--approval",
        "--until",
        "approval",
        "-o",
        "json",
        "--templates-dir",
        &dir,
    ];
    let waiting = world.run(&wait);
    assert_eq!(waiting.status.code(), Some(22), "{}", text(&waiting));
    let end: Value =
        serde_json::from_str(waiting.stdout.lines().map(Result::unwrap).last().unwrap().as_str()).unwrap();
    let id = end["deployment"]["id"].as_str().unwrap();
    assert_eq!(world.run(&["wait", id, "--until", "approval"]).status.code(), Some(22));
    assert_eq!(world.run(&["wait", id, "--timeout", "1s"]).status.code(), Some(23));
    let (code, _) = world.fails(&["approve", id, "--plan", &"0".repeat(64)]);
    assert_eq!(code, 6);
    let rejected = world.json(&["reject", id, "-m", "too large"]);
    assert_eq!(rejected["rejected"], true);
    assert_eq!(world.run(&["wait", id]).status.code(), Some(21));
    if rejected["comment_stored"] == true {
        assert_eq!(world.json(&["plan", id])["deployment"]["cancel_comment"], "too large");
    }
}

#[test]
fn a_watch_is_a_live_table_on_a_terminal_and_lines_in_a_pipe() {
    let world = World::signed_in();
    world.cluster("vineyard");
    let mut watch = world.terminal(&["watch"]);
    watch.expect("vineyard").unwrap();
    let mut lines = world.grape(&["watch", "-o", "json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut read = BufReader::new(lines.stdout.take().unwrap())
        .lines()
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    assert_eq!(read.next().unwrap()["cluster"]["name"], "vineyard");

    let id =
        world.json(&["deploy", "hello", "--detach", "--var", "name=x"])["id"].as_str().unwrap().to_owned();
    watch.expect(&id[..8]).unwrap();
    let event = read.find(|event| event["type"] == "deployment").unwrap();
    assert_eq!(event["deployment"]["id"], id.as_str());
    world.json(&["cancel", &id]);
    watch.send("q").unwrap();
    // A screen is drawn by its changes: a text is whole where nothing was before.
    let mut again = world.terminal(&["watch"]);
    again.expect("CANCELLED").unwrap();
    again.send(ControlCode::EndOfText).unwrap();
    assert_eq!(exit_code(again), 0);
    assert_eq!(exit_code(watch), 0);
    signal(lines.id(), Signal::INT);
    assert!(lines.wait().unwrap().success());
}

#[test]
fn what_an_agent_published_gives_variables_their_types_and_plans_their_rows() {
    let world = World::signed_in();
    let (cluster, _) = world.cluster("vineyard");
    if world.json(&["whoami"])["contract"].as_i64().unwrap() < 3 {
        return;
    }
    let agent = world.rest_as(&world.stack().mint_machine(&cluster.to_string()));
    let schema: Value =
        serde_json::from_slice(&std::fs::read(repository("templates/hello/template.json")).unwrap()).unwrap();
    let published = json!([{
        "name": "hello", "digest": "0".repeat(64), "title": schema["title"], "description": schema["description"], "variables": schema["variables"],
    }]);
    let call = |function: &str, arguments: Value| {
        let request = agent.rpc(function, &arguments);
        world.runtime.block_on(async move { request.value::<Value>().await.unwrap() })
    };
    call("agent_publish_templates", json!({ "templates": published }));
    assert_eq!(world.json(&["templates"])[0]["name"], "hello");
    assert!(text(&world.run(&["templates", "hello"])).contains("integer"));

    let queued = world.json(&["deploy", "hello", "--var", "name=1.10", "--var", "lines=12", "--detach"]);
    let id = queued["id"].as_str().unwrap();
    let row = world.json(&["plan", id]);
    assert_eq!(row["deployment"]["config_snapshot"]["variables"], json!({ "name": "1.10", "lines": 12 }));
    let (code, err) = world.fails(&["deploy", "hello", "--var", "lines=many", "--var", "nope=1"]);
    assert_eq!(code, 7, "{err}");
    for part in ["`lines` must be an integer", "`nope` is not a variable", "`name` must be given"] {
        assert!(err.contains(part), "{err}");
    }
    let (code, err) = world.fails(&["deploy", "helo"]);
    assert!(code == 5 && err.contains("There are: hello"), "{err}");

    // The plan, as an agent would store it.
    let token = "3f0c36e4-7d5e-4a51-9a3c-0a5ff4b6a001";
    let claim = json!({ "status": "PROCESSING", "claim_token": token, "claimed_by": "vine-1" });
    let request = agent.from("deployments").update(&claim).eq("id", id).select("id");
    world.runtime.block_on(async move { request.rows::<Value>().await.unwrap() });
    let change = json!([{
        "position": 1, "address": "terraform_data.greeting", "resource_type": "terraform_data", "action": "replace",
        "attributes": [
            { "path": "triggers_replace", "before": "old", "after": "new", "requires_replace": true },
            { "path": "secret", "sensitive": true },
        ],
    }]);
    call("agent_store_changes", json!({ "deployment_id": id, "claim_token": token, "changes": change }));
    let shown = text(&world.run(&["plan", id]));
    for part in [
        "-/+",
        "terraform_data.greeting",
        "triggers_replace = \"old\" → \"new\"  # forces replacement",
        "secret = (sensitive)",
    ] {
        assert!(shown.contains(part), "no {part} in\n{shown}");
    }
}

#[test]
fn keys_are_rotated_promoted_and_taken_away() {
    let world = World::signed_in();
    let (_, first) = world.cluster("vineyard");
    let next = world.json(&["cluster", "rotate", "vineyard"]);
    assert_ne!(next["key"].as_str().unwrap(), first);
    let (code, err) = world.fails(&["cluster", "promote", "vineyard"]);
    assert!(code == 6 && err.contains("--unused"), "{code} {err}");
    world.json(&["cluster", "promote", "vineyard", "--unused"]);
    let shown = world.json(&["cluster", "show", "vineyard"]);
    assert_eq!(shown["keys"]["next"], Value::Null);
    // There is no terminal for a prompt here.
    assert_eq!(world.fails(&["cluster", "revoke", "vineyard"]).0, 2);
    world.json(&["cluster", "revoke", "vineyard", "--forever", "--yes"]);
    assert!(text(&world.run(&["clusters"])).contains("REVOKED"));
    assert_eq!(world.fails(&["deploy", "hello", "--cluster", "vineyard"]).0, 6);
    // The key alone on stdout, so that it can be piped.
    let made = finish(world.grape(&["cluster", "create", "second"]), b"");
    let out = String::from_utf8(made.stdout).unwrap();
    assert!(out.starts_with("tdl_") && out.lines().count() == 1, "{out}");
}
