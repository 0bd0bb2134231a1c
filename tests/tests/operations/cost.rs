//! Cost estimates, with programs that look like infracost 0.10 and 2.x (see `tests/fixtures`): the real ones need a key and a
//! price list.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tendril_tests::{AgentSetup, Cluster, Deployment, Row, World, fixtures, until};

use crate::probe::{free_address, get, metric};

/// Both lines.
const LINES: [&str; 2] = ["infracost-0.10", "infracost-2"];
const KEY: &str = "ico-the-key-of-the-price-list";

/// One agent with a stand-in, and what its jobs are given.
struct Bench {
    world: World,
    cluster: Cluster,
}

impl Bench {
    async fn new() -> Self {
        let world = World::start().await;
        let cluster = world.cluster().await;
        fs::create_dir(world.path("notes")).expect("a directory");
        let script = format!("env | sort >'{}'\n", world.path("notes/terraform.env").display());
        fs::write(world.path("script"), script).expect("a script");
        Self { world, cluster }
    }

    fn agent(&self, infracost: &str) -> AgentSetup {
        let program = fixtures(infracost).to_str().expect("a path").to_owned();
        let babbler = self.world.agent(&self.cluster).terraform(&fixtures("terraform-babbler"));
        babbler.env("TENDRIL_INFRACOST", program).env("TENDRIL_INFRACOST_KEY", KEY)
    }

    /// Queues a job that makes infracost do this.
    async fn queue(&self, deed: &str, more: Value) -> Deployment {
        let notes = self.world.path("notes");
        let variables = json!({"script": self.world.path("script"), "infracost": deed, "notes": notes});
        let mut config = json!({"template": "priced", "variables": variables});
        config.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        self.cluster.queue(config).await
    }

    fn note(&self, name: &str) -> PathBuf {
        self.world.path("notes").join(name)
    }

    fn noted(&self, name: &str) -> String {
        fs::read_to_string(self.note(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// A job to its end, which is a good one whatever infracost does.
    async fn succeeds(&self, deed: &str) -> (Row, Deployment) {
        let job = self.queue(deed, json!({})).await;
        let row = job.ended().await;
        assert_eq!(row.status, "SUCCESS", "{deed}: {row:?}");
        (row, job)
    }
}

fn status(row: &Row) -> &str {
    row.cost_status.as_deref().unwrap_or("none")
}

fn figures(row: &Row) -> &Value {
    row.cost.as_ref().expect("a cost")
}

fn reason(row: &Row) -> &str {
    figures(row)["reason"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn both_lines_estimate_and_say_so_in_row_and_log() {
    for (line, tool) in LINES.into_iter().zip(["infracost 0.10.45", "infracost 2.0.0"]) {
        let bench = Bench::new().await;
        let addr = free_address();
        let agent = bench.agent(line).env("TENDRIL_HEALTH_ADDR", addr.to_string()).start();
        let (row, job) = bench.succeeds("priced").await;
        assert_eq!((status(&row), &figures(&row)["monthly"]), ("OK", &json!("42.17")), "{row:?}");
        assert_eq!((&figures(&row)["tool"], &figures(&row)["currency"]), (&json!(tool), &json!("USD")));
        assert_eq!(figures(&row)["by_resource"][0]["name"], "aws_instance.web");
        let log = job.log().await;
        let annotation = "Estimated cost: 42.17 USD a month (3 of 3 resources priced, 1 free).";
        assert!(log.lines("agent").contains(&annotation.to_owned()), "{}", log.text());
        // Its warnings are in the log, and its key is not.
        assert!(
            log.text().contains("WARN a warning of [hidden]") && !log.text().contains(KEY),
            "{}",
            log.text()
        );
        assert!(!agent.output().contains(KEY), "{}", agent.output());
        until("the estimate is counted", async || {
            let counted = metric(addr, r#"tendril_agent_cost_estimates_total{result="OK"}"#);
            if counted > 0.5 { Ok(()) } else { Err(counted.to_string()) }
        })
        .await;
        assert!(metric(addr, "tendril_agent_cost_seconds_count") > 0.5);
        let shown: Value = serde_json::from_str(&get(addr, "/status").expect("an answer").1).expect("JSON");
        assert_eq!(shown["infracost"], tool, "{shown}");
    }
}

#[tokio::test]
async fn neither_program_sees_the_secrets_of_the_other() {
    for (line, own) in LINES.into_iter().zip(["INFRACOST_API_KEY", "INFRACOST_CLI_AUTHENTICATION_TOKEN"]) {
        let bench = Bench::new().await;
        let setup = bench
            .agent(line)
            .env("AWS_SECRET_ACCESS_KEY", "the-clouds-secret")
            .env("AWS_REGION", "eu-central-1");
        let setup = setup.env("INFRACOST_UNKNOWN", "not-known").env("HTTPS_PROXY", "http://127.0.0.1:9");
        let setup = setup.env("NO_PROXY", "127.0.0.1,localhost").env("VAULT_TOKEN", "the-vaults-secret");
        let token = setup.cli.agent_token.clone().expect("a token");
        let _agent = setup.start();
        bench.succeeds("priced").await;
        let (infracost, terraform) = (bench.noted("infracost.env"), bench.noted("terraform.env"));
        assert!(infracost.contains(&format!("{own}={KEY}\n")), "{infracost}");
        assert!(infracost.contains("HTTPS_PROXY=") && infracost.contains("INFRACOST_SKIP_UPDATE_CHECK=true"));
        for hidden in [
            token.as_str(),
            "the-clouds-secret",
            "AWS_",
            "TENDRIL_",
            "SUPABASE_",
            "VAULT_",
            "INFRACOST_UNKNOWN",
        ] {
            assert!(!infracost.contains(hidden), "infracost sees {hidden}:\n{infracost}");
        }
        assert!(terraform.contains("AWS_SECRET_ACCESS_KEY=the-clouds-secret"), "{terraform}");
        for hidden in [token.as_str(), KEY, "INFRACOST"] {
            assert!(!terraform.contains(hidden), "terraform sees {hidden}:\n{terraform}");
        }
    }
}

#[tokio::test]
async fn what_0_10_writes_is_private_lies_outside_the_module_and_goes_away() {
    let bench = Bench::new().await;
    let setup = bench.agent("infracost-0.10");
    let work = PathBuf::from(setup.cli.work_dir.clone().expect("a directory"));
    let _agent = setup.start();
    bench.succeeds("priced").await;
    assert_eq!(bench.noted("infracost.mode").trim(), "600");
    let cache = bench.noted("infracost.cache");
    assert!(cache.trim().ends_with("/run/.infracost"), "{cache}");
    assert!(!PathBuf::from(cache.trim()).exists());
    bench.succeeds("priced").await;
    // The second attempt found the prices of the first one.
    assert_eq!(bench.noted("pricing.gob"), "pricedpriced\n");
    assert!(work.join("infracost/pricing.gob").exists());
}

#[tokio::test]
async fn whatever_goes_wrong_is_a_status_with_its_reason_and_the_job_goes_on() {
    for line in LINES {
        let bench = Bench::new().await;
        let _agent = bench.agent(line).start();
        let mut table = vec![
            ("mixed", "PARTIAL", "does not know"),
            ("fails", "UNAVAILABLE", "the price list is not reachable"),
            ("crashes", "UNAVAILABLE", "killed by a signal"),
            ("babbles", "UNAVAILABLE", "what it wrote cannot be read"),
        ];
        if line == "infracost-0.10" {
            table.extend([
                ("errored", "PARTIAL", "Failed to lookup module"),
                ("by-use", "PARTIAL", "depends on its use"),
                ("quota", "UNAVAILABLE", "quota of this key is used up"),
            ]);
        }
        for (deed, expected, why) in table {
            let (row, job) = bench.succeeds(deed).await;
            assert_eq!(status(&row), expected, "{line} {deed}: {row:?}");
            assert!(reason(&row).contains(why), "{line} {deed}: {row:?}");
            let log = job.log().await.text();
            let line_of_cost = if expected == "PARTIAL" { "Estimated cost: " } else { "No cost estimate: " };
            assert!(log.contains(line_of_cost) && log.contains("Done in"), "{line} {deed}: {log}");
            if deed == "by-use" {
                assert_eq!(figures(&row)["monthly"], Value::Null, "null is not 0: {row:?}");
            }
        }
    }
}

#[tokio::test]
async fn an_infracost_that_hangs_is_ended_and_holds_no_job_up_for_longer_than_its_limit() {
    for line in LINES {
        let bench = Bench::new().await;
        let _agent = bench.agent(line).env("TENDRIL_COST_TIMEOUT", "2s").start();
        bench.cluster.online().await;
        let job = bench.queue("hangs", json!({})).await;
        let row = job.becomes("leaves the estimate", |row| row.cost_status.is_some()).await;
        assert_eq!((status(&row), reason(&row)), ("UNAVAILABLE", "infracost took longer than 2s"), "{row:?}");
        let process = PathBuf::from(format!("/proc/{}", bench.noted("infracost.pid").trim()));
        assert!(!process.exists(), "it has ended although it ignored interrupts");
        assert_eq!(job.ended().await.status, "SUCCESS");
        let lasted = "select extract(epoch from finished_at - started_at)::float8 from public.deployments where id = $1";
        let lasted: f64 = bench.world.database.query_one(lasted, &[&job.id]).await.expect("the row").get(0);
        assert!((1.0..20.0).contains(&lasted), "{lasted}");
    }
}

#[tokio::test]
async fn a_cancel_during_the_estimate_ends_the_job_promptly() {
    for line in LINES {
        let bench = Bench::new().await;
        let _agent = bench.agent(line).start();
        let job = bench.queue("waits", json!({})).await;
        job.becomes("is in phase COST", |row| row.phase.as_deref() == Some("COST")).await;
        until("infracost runs", async || {
            if bench.note("infracost.pid").exists() { Ok(()) } else { Err(format!("{:?}", job.row().await)) }
        })
        .await;
        let requested = Instant::now();
        let cancel = json!({"cancel_requested_at": "2026-01-01T00:00:00Z"});
        job.as_user
            .from("deployments")
            .update(&cancel)
            .eq("id", job.id)
            .execute()
            .await
            .expect("it is requested");
        let row = job.ended().await;
        let took = requested.elapsed();
        assert_eq!((row.status.as_str(), row.cost_status.as_deref()), ("CANCELLED", None), "{row:?}");
        assert_eq!(row.error_message.as_deref(), Some("Cancelled before init began."));
        assert!(took < Duration::from_secs(5), "{took:?}");
        let process = PathBuf::from(format!("/proc/{}", bench.noted("infracost.pid").trim()));
        assert!(!process.exists());
        assert!(!bench.note("terraform.env").exists(), "nothing was applied");
    }
}

#[tokio::test]
async fn who_approves_sees_the_cost_before_and_it_stays() {
    let bench = Bench::new().await;
    let _agent = bench.agent("infracost-0.10").start();
    let job = bench.queue("priced", json!({"stack": "s", "approval": true})).await;
    let row = job.becomes("rests in APPROVAL", |row| row.phase.as_deref() == Some("APPROVAL")).await;
    assert_eq!((status(&row), &figures(&row)["monthly"]), ("OK", &json!("42.17")), "{row:?}");
    let approve = "update public.deployments set approved_plan = plan_sha256 where id = $1";
    bench.world.database.execute(approve, &[&job.id]).await.expect("it is approved");
    let ended = job.ended().await;
    assert_eq!((ended.status.as_str(), &ended.cost), ("SUCCESS", &row.cost), "{ended:?}");

    let destroyed = bench.queue("priced", json!({"stack": "s", "action": "destroy"})).await.ended().await;
    assert_eq!(
        (destroyed.status.as_str(), destroyed.cost_status),
        ("SUCCESS", None),
        "what is destroyed costs nothing"
    );
    let planned = bench.queue("priced", json!({"stack": "s", "action": "plan"})).await.ended().await;
    assert_eq!((planned.status.as_str(), status(&planned)), ("SUCCESS", "OK"), "{planned:?}");
}

#[tokio::test]
async fn without_a_usable_infracost_jobs_run_and_their_rows_say_why() {
    let bench = Bench::new().await;
    let missing = bench.agent("infracost-0.10").env("TENDRIL_INFRACOST", "");
    let off = bench.agent("infracost-0.10").env("TENDRIL_INFRACOST", "off");
    let unknown = bench.agent("infracost-3");
    let no_key = bench.agent("infracost-2").env("TENDRIL_INFRACOST_KEY", "");
    for (setup, why, warned) in [
        (missing, "not installed", false),
        (off, "turned off", false),
        (unknown, "does not support infracost 3.1.0", true),
        (no_key, "has no key (INFRACOST_CLI_AUTHENTICATION_TOKEN)", true),
    ] {
        let mut agent = setup.start();
        let (row, _) = bench.succeeds("priced").await;
        assert_eq!(status(&row), "UNAVAILABLE", "{row:?}");
        assert!(reason(&row).contains(why), "{row:?}");
        assert_eq!(
            agent.output().matches("there will be no cost estimates").count(),
            usize::from(warned),
            "{why}"
        );
        agent.signal(rustix::process::Signal::TERM);
        agent.ended().await;
    }
    assert!(!bench.note("infracost.env").exists(), "none of them was started");
    let mut named = bench.agent("no-such-infracost").start();
    assert_eq!(named.ended().await.code(), Some(2));
    assert!(named.output().contains("is not an executable program"), "{}", named.output());
}

#[tokio::test]
async fn a_new_key_in_the_key_file_is_used_for_the_next_estimate() {
    let bench = Bench::new().await;
    let file = bench.world.path("key");
    fs::write(&file, "the-first-key\n").expect("a key");
    let setup = bench.agent("infracost-0.10").env("TENDRIL_INFRACOST_KEY", "");
    let _agent = setup.env("TENDRIL_INFRACOST_KEY_FILE", file.to_str().expect("a path")).start();
    for key in ["the-first-key", "the-second-key"] {
        fs::write(&file, key).expect("a key");
        let (_, job) = bench.succeeds("priced").await;
        assert!(bench.noted("infracost.env").contains(&format!("INFRACOST_API_KEY={key}\n")));
        let log = job.log().await.text();
        assert!(log.contains("WARN a warning of [hidden]") && !log.contains(key), "{log}");
    }
    fs::remove_file(&file).expect("it is there");
    let (row, _) = bench.succeeds("priced").await;
    assert!(status(&row) == "UNAVAILABLE" && reason(&row).contains("cannot be read"), "{row:?}");
}

#[tokio::test]
async fn an_infracost_that_was_replaced_by_the_other_line_gives_no_wrong_estimate() {
    let bench = Bench::new().await;
    let link = |to: &str| {
        let new = bench.world.path("new");
        std::os::unix::fs::symlink(fixtures(to), &new).expect("a link");
        fs::rename(new, bench.world.path("infracost")).expect("the link is replaced");
    };
    link("infracost-0.10");
    let program = bench.world.path("infracost").to_str().expect("a path").to_owned();
    let setup = bench.agent("infracost-0.10").env("TENDRIL_INFRACOST", program);
    let _agent = setup.start();
    assert_eq!(status(&bench.succeeds("priced").await.0), "OK");
    link("infracost-2");
    let (row, _) = bench.succeeds("priced").await;
    // It has the key of the other line, which is none for it, and so does not come to drop the flags.
    assert!(status(&row) == "UNAVAILABLE" && reason(&row).contains("failed to log in"), "{row:?}");
}
