//! Whatever a program writes: the job's result is its own, every other line arrives, the agent stays small.

use std::{fs, path::Path};

use serde_json::{Value, json};
use supabase_local::{RequestFault, Target};
use tendril_tests::{AgentSetup, Deployment, Flood, Program, World, fixtures, until, until_within};

/// An agent whose terraform prints the output of a script. Its jobs are inside it: what is measured is one process.
fn babbling(setup: AgentSetup) -> AgentSetup {
    setup.terraform(&fixtures("terraform-babbler")).in_process()
}

/// A job with this output.
fn babble(world: &World, script: &str) -> Value {
    let path = world.path("script");
    fs::write(&path, script).expect("a script");
    json!({"template": "story", "variables": {"script": path}})
}

/// The agent's largest resident memory so far, in MiB.
fn most_memory(agent: &Program) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("its status (Linux)");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

async fn succeeded(deployment: &Deployment) {
    let row = deployment.ended().await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
}

#[tokio::test]
async fn bytes_that_are_no_text_become_text_and_hold_up_nothing() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let _agent = babbling(world.agent(&cluster)).start();
    let script = r"
        echo 'line 1'
        printf 'a \000 nul\n'
        printf 'not \377\376 utf-8\n'
        printf '  0%%\r 50%%\r100%% done\n'
        printf '\033[1;31mred\033[0m and \033]0;title\007plain\n'
        printf '\302'; sleep 0.1; printf '\251 split\n'
        echo 'line 2'
        printf 'no end'
    ";
    let deployment = cluster.queue(babble(&world, script)).await;
    succeeded(&deployment).await;
    let log = deployment.log().await;
    log.assert_complete(&deployment.row().await);
    let mut reported = log.lines("stdout");
    reported.retain(|line| !line.contains("initialized"));
    let expected = [
        "line 1",
        "a \u{FFFD} nul",
        "not \u{FFFD}\u{FFFD} utf-8",
        "100% done",
        "red and plain",
        "\u{a9} split",
        "line 2",
        "no end",
    ];
    assert_eq!(reported, expected);
}

#[tokio::test]
async fn lines_of_ten_megabytes_arrive_in_pieces_and_the_agent_stays_small() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let agent = babbling(world.agent(&cluster)).start();
    let script = "echo 'line 1'
        for n in 1 2 3; do head -c 10485760 /dev/zero | tr '\\000' x; echo; done
        echo 'line 2'";
    let deployment = cluster.queue(babble(&world, script)).await;
    succeeded(&deployment).await;
    let query = "select sum(octet_length(replace(replace(log_chunk, E'\\n', ''), 'x', 'x')))::bigint, max(octet_length(log_chunk))
        from public.deployment_logs where deployment_id = $1 and log_chunk like '%xxxx%'";
    let row = world.database.query_one(query, &[&deployment.id]).await.expect("a sum");
    let (bytes, longest): (i64, i32) = (row.get(0), row.get(1));
    assert!(bytes >= 3 * 10_485_760, "{bytes} bytes arrived");
    assert!(longest <= 65_536);
    assert!(most_memory(&agent) <= 128, "{} MiB", most_memory(&agent));
}

/// A million lines; `TENDRIL_FLOOD_LINES=10000000` for the ten seconds of a million each.
#[tokio::test]
async fn a_million_lines_at_full_speed_arrive_and_the_agent_stays_small() {
    let lines =
        std::env::var("TENDRIL_FLOOD_LINES").map_or(1_000_000, |lines| lines.parse().expect("a number"));
    let world = World::start().await;
    let cluster = world.cluster().await;
    let agent = Flood::agent(world.agent(&cluster)).in_process().start();
    let flood = Flood::new(&world, "flood", lines);
    flood.begin();
    let deployment = cluster.queue(flood.config()).await;
    let took = flood.took().await;
    // Ten million lines are a gigabyte: the database takes its time for them.
    let row = until_within(600, "the job ends", async || {
        let row = deployment.row().await;
        if row.has_ended() { Ok(row) } else { Err(format!("{row:?}")) }
    })
    .await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
    let numbered = deployment.numbered().await;
    let missing = numbered.assert_of(lines);
    println!("{lines} lines were printed in {took:?}; {missing} did not fit the spool: {numbered:?}");
    // A million fit. Of more, what is left out is left out at one place.
    assert!(numbered.markers <= u64::from(lines > 1_000_000), "{numbered:?}");
    assert!(most_memory(&agent) <= 128, "{} MiB", most_memory(&agent));
}

#[tokio::test]
async fn a_chunk_that_the_database_refuses_is_replaced_by_a_note_and_its_neighbours_arrive() {
    let world = World::start().await;
    if world.project.is_external() {
        println!("skipped: the database is made to refuse a row, which only a test's own may");
        return;
    }
    let refuse =
        "alter table public.deployment_logs add constraint no_poison check (log_chunk not like '%poison%')";
    world.database.batch_execute(refuse).await.expect("a constraint");
    let cluster = world.cluster().await;
    let _agent = babbling(world.agent(&cluster)).start();
    // Several chunks in one request, so that the bad one has to be found among them.
    let script = "seq -f 'line %.0f of the first part, to fill a chunk' 1 2000
        sleep 1.2; echo poison; sleep 1.2
        seq -f 'line %.0f of the second part, to fill a chunk' 2001 4000";
    let deployment = cluster.queue(babble(&world, script)).await;
    succeeded(&deployment).await;
    let log = deployment.log().await;
    log.assert_complete(&deployment.row().await);
    let reported = log.lines("stdout");
    assert_eq!(reported.iter().filter(|line| line.starts_with("line ")).count(), 4_000);
    let notes: Vec<_> = reported.iter().filter(|line| line.contains("lines are missing here")).collect();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("23514"), "{notes:?}");
}

#[tokio::test]
async fn a_request_that_is_too_large_is_halved_until_it_fits() {
    let world = World::start().await;
    let Some(stack) = world.project.stack("requests are refused as too large") else { return };
    let cluster = world.cluster().await;
    let setup = babbling(world.agent(&cluster));
    let _agent = setup.start();
    let logs = || Target::all().method("POST").path("/rest/v1/deployment_logs");
    let status = |code| RequestFault::Status { code, retry_after: None };
    // Everything waits on disk, so that it comes in one request.
    let outage = stack.faults().on_requests(status(503), logs());
    let deployment = cluster.queue(babble(&world, "seq -f 'line %.0f' 1 20000")).await;
    let result = Path::new(setup.cli.work_dir.as_deref().expect("a directory"))
        .join(format!("{}.1/result.json", deployment.id));
    until("the run is over", async || if result.exists() { Ok(()) } else { Err(String::new()) }).await;
    // What was in hand when the outage began is a small batch; the next one holds all the rest.
    outage.lift();
    let refused = stack.faults().on_requests(status(413), logs().after(1).times(3));
    succeeded(&deployment).await;
    assert_eq!(refused.struck(), 3);
    let log = deployment.log().await;
    log.assert_complete(&deployment.row().await);
    assert_eq!(log.counted(), (1..=20_000).collect::<Vec<u64>>());
}

/// With the real terraform: it passes U+0000 on in outputs and in diagnostics, and no text of PostgreSQL can hold it.
#[tokio::test]
async fn a_nul_in_outputs_and_diagnostics_holds_up_no_end() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let templates = world.path("nul");
    for (name, body) in [
        ("output", "output \"a\" {\n  value = \"before\\u0000after\"\n}\n"),
        (
            "diagnostic",
            "resource \"terraform_data\" \"a\" {\n  provisioner \"local-exec\" {\n    command = \"printf 'before\\\\000after'; exit 3\"\n  }\n}\n",
        ),
    ] {
        fs::create_dir_all(templates.join(name)).expect("a template");
        fs::write(templates.join(name).join("main.tf"), body).expect("a template");
    }
    let _agent = world.agent(&cluster).templates(&templates).start();
    let good = cluster.queue(json!({"template": "output"})).await;
    let bad = cluster.queue(json!({"template": "diagnostic"})).await;
    let row = good.ended().await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
    assert_eq!(row.outputs.expect("outputs")["a"], "before\u{FFFD}after");
    let row = bad.ended().await;
    assert_eq!(
        (row.status.as_str(), row.error_code.as_deref()),
        ("FAILED", Some("TERRAFORM_FAILED")),
        "{row:?}"
    );
    assert!(row.error_message.expect("a message").contains("before\u{FFFD}after"));
}
