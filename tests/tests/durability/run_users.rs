//! What an agent of root does beside Terraform where runs have users of their own: hooks, estimates, a state database, recovery.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::{Signal, geteuid};
use serde_json::json;
use tempfile::TempDir;
use tendril_tests::{AgentSetup, Cluster, Deployment, StateServer, World, fixtures, repository, until};

/// An agent of root, not started yet, and a directory that everybody may enter.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) cluster: Cluster,
    pub(crate) dir: TempDir,
    pub(crate) setup: AgentSetup,
}

impl Stage {
    /// None where the tests are not root's.
    pub(crate) async fn set() -> Option<Self> {
        if !geteuid().is_root() {
            println!("skipped: only root can give runs users of their own");
            return None;
        }
        let world = World::start().await;
        let cluster = world.cluster().await;
        let dir = world.open_scratch();
        let setup = world.agent(&cluster).templates(&world.path("templates")).with_users_of_runs(dir.path());
        Some(Self { world, cluster, dir, setup })
    }

    /// A template with this file, and a script for its provisioner.
    pub(crate) fn template(&self, name: &str, main: &str, script: &str) {
        let dir = self.world.path("templates").join(name);
        fs::create_dir_all(&dir).expect("a folder");
        fs::write(dir.join("main.tf"), main).expect("a template");
        fs::write(dir.join("script.sh"), script).expect("a script");
    }

    /// A program in the directory.
    pub(crate) fn program(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(&path, text).expect("a program");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("permissions");
        fs::set_permissions(path.parent().expect("a parent"), fs::Permissions::from_mode(0o755))
            .expect("permissions");
        path
    }

    pub(crate) async fn queue(&self, name: &str) -> Deployment {
        self.cluster.queue(json!({"template": name, "stack": "s"})).await
    }

    /// Whose the first run's programs are.
    pub(crate) fn first_user(&self) -> u32 {
        let base = self.setup.cli.slot_uid_base.as_deref().expect("a range");
        base.parse::<u32>().expect("a number") + 1
    }
}

/// Runs a script in its apply.
pub(crate) const RUNS_SCRIPT: &str =
    "resource \"terraform_data\" \"a\" {\n  provisioner \"local-exec\" { command = \"bash script.sh\" }\n}\n";

#[tokio::test]
async fn a_hook_is_the_users_of_its_run_and_neither_changes_the_plan_nor_meets_what_a_template_left() {
    let Some(stage) = Stage::set().await else { return };
    let common = r#"#!/bin/sh
echo "$TENDRIL_HOOK is $(id -u) with groups $(id -G)"
[ -z "$(ls -A "$HOME")" ] || echo "BREACH: home is not empty"
[ -r "$TENDRIL_MODULE_DIR/main.tf" ] || echo "BREACH: the module cannot be read"
for place in "$TENDRIL_MODULE_DIR/../.." "$TENDRIL_MODULE_DIR/../../.." /root; do
  ls "$place" >/dev/null 2>&1 && echo "BREACH: listed $place"
done
echo left >"$HOME/left"
env -i setsid sleep 3333 >/dev/null 2>&1 &
"#;
    for hook in ["pre-init", "pre-plan", "post-apply"] {
        stage.program(&format!("hooks/{hook}"), common);
    }
    let plan = r#"
grep -q '"resource_changes"' "$TENDRIL_PLAN_JSON" && echo "post-plan reads the plan"
( : >>"$TENDRIL_PLAN_JSON" ) 2>/dev/null && echo "BREACH: the plan can be changed"
rm -f "$TENDRIL_PLAN_JSON" 2>/dev/null && echo "BREACH: the plan can be removed"
if grep -q forbidden "$TENDRIL_PLAN_JSON"; then echo "nothing forbidden here"; exit 1; fi
"#;
    stage.program("hooks/post-plan", &format!("{common}{plan}"));
    stage.program(
        "hooks/on-failure",
        &format!("{common}echo \"on-failure of $TENDRIL_ERROR_CODE: $TENDRIL_ERROR_MESSAGE\"\n"),
    );
    let tries = "cd ..; for d in hook plan.json outputs.json; do ln -sT /etc/tendril-hook $d 2>/dev/null && echo BREACH; done; true";
    stage.template("tries", RUNS_SCRIPT, tries);
    stage.template("is-forbidden", &RUNS_SCRIPT.replace("\"a\"", "\"forbidden\""), "true");
    stage.template("fails", RUNS_SCRIPT, "exit 7");
    let hooks = stage.dir.path().join("hooks").display().to_string();
    let _agent = stage.setup.clone().env("TENDRIL_HOOK_DIR", hooks).concurrency(1).start();
    let uid = stage.first_user();
    let expected = [
        ("tries", "SUCCESS", None, vec!["pre-init", "pre-plan", "post-plan", "post-apply"]),
        (
            "is-forbidden",
            "FAILED",
            Some("POLICY_DENIED"),
            vec!["pre-init", "pre-plan", "post-plan", "on-failure"],
        ),
        ("fails", "FAILED", Some("TERRAFORM_FAILED"), vec!["pre-init", "post-plan", "on-failure"]),
    ];
    for (name, status, code, hooks) in expected {
        let job = stage.queue(name).await;
        let row = job.ended().await;
        let log = job.log().await.text();
        assert_eq!((row.status.as_str(), row.error_code.as_deref()), (status, code), "{row:?}\n{log}");
        assert!(!log.contains("BREACH") && log.contains("post-plan reads the plan"), "{log}");
        for hook in hooks {
            assert!(log.contains(&format!("{hook} is {uid} with groups {uid}\n")), "{hook}: {log}");
        }
        if let Some(code) = code {
            assert!(log.contains(&format!("on-failure of {code}: ")), "{log}");
        }
    }
    assert!(!Path::new("/etc/tendril-hook").exists());
    until("no process of a hook is left", async || {
        let all = Command::new("ps").args(["-eo", "uid,args"]).output().expect("ps").stdout;
        let all = String::from_utf8_lossy(&all).into_owned();
        let uid = uid.to_string();
        let left: Vec<&str> =
            all.lines().filter(|line| line.split_whitespace().next() == Some(&uid)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

#[tokio::test]
async fn costs_are_estimated_by_the_user_of_the_run() {
    let Some(stage) = Stage::set().await else { return };
    let notes = stage.dir.path().join("notes");
    fs::create_dir(&notes).expect("a folder");
    fs::set_permissions(&notes, fs::Permissions::from_mode(0o777)).expect("permissions");
    let estimate = repository("tendril-agent/tests/fixtures/infracost/0.10/priced.json");
    let variables = |line: &str| {
        let source = estimate.to_string_lossy().replace("0.10", line);
        // The stand-in gives what is in this file.
        let file = stage.dir.path().join(format!("estimate-{line}.json"));
        fs::copy(source, &file).expect("an estimate");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("permissions");
        json!({"infracost": file, "notes": notes})
    };
    stage.template(
        "priced",
        "variable \"infracost\" {}\nvariable \"notes\" {}\nresource \"terraform_data\" \"a\" {}\n",
        "",
    );
    for line in ["0.10", "2"] {
        for name in [format!("infracost-{line}"), "infracost-deeds".to_owned()] {
            let text = fs::read_to_string(fixtures(&name)).expect("a stand-in");
            stage.program(&name, &text);
        }
        let program = stage.dir.path().join(format!("infracost-{line}")).display().to_string();
        let setup = stage.setup.clone().env("TENDRIL_INFRACOST", program);
        let _agent = setup.env("TENDRIL_INFRACOST_KEY", "ico-of-the-agent").start();
        let config = json!({"template": "priced", "stack": line, "variables": variables(line)});
        // What the first estimate found is not what the second one uses.
        for _ in 0..2 {
            let job = stage.cluster.queue(config.clone()).await;
            let row = job.ended().await;
            assert_eq!((row.status.as_str(), row.cost_status.as_deref()), ("SUCCESS", Some("OK")), "{row:?}");
        }
        let note = notes.join("infracost.env");
        let owner = fs::metadata(&note).expect("a note of the stand-in").uid();
        assert_eq!(owner, stage.first_user());
        fs::remove_file(note).expect("it goes");
        assert!(!stage.dir.path().join("work/infracost").exists(), "nothing is shared");
    }
}

#[tokio::test]
async fn a_state_database_is_reached_by_the_user_of_the_run() {
    let Some(stage) = Stage::set().await else { return };
    stage.template("plain", RUNS_SCRIPT, "id -u");
    let url = format!("{}?sslmode=disable", stage.world.project.database_url);
    let setup = stage.setup.clone().env("TENDRIL_STATE_BACKEND", "pg").env("PG_CONN_STR", url);
    let executors = setup.executors();
    let _agent = setup.start();
    let job = stage.queue("plain").await;
    job.says(&stage.first_user().to_string()).await;
    assert_eq!(job.ended().await.status, "SUCCESS");
    let destroy = json!({"template": "plain", "stack": "s", "action": "destroy"});
    let row = stage.cluster.queue(destroy).await.ended().await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
    executors.are(0).await;
    assert!(!stage.dir.path().join("state/plain.s").exists(), "nothing is left beside the database");
}

#[tokio::test]
async fn a_state_that_its_server_refused_is_kept_from_all_runs_and_stored_for_the_user_of_the_next_one() {
    let Some(stage) = Stage::set().await else { return };
    let states = StateServer::start().await;
    let gate = stage.dir.path().join("gate");
    stage.template(
        "gated",
        RUNS_SCRIPT,
        &format!("echo at the gate\nuntil [ -e {} ]; do sleep 0.05; done", gate.display()),
    );
    let setup =
        stage.setup.clone().env("TENDRIL_STATE_BACKEND", "http").env("TENDRIL_STATE_CONFIG", states.config());
    let _agent = setup.start();
    let job = stage.queue("gated").await;
    job.says("at the gate").await;
    states.refuse(true);
    fs::write(&gate, "").expect("the gate opens");
    let row = job.ended().await;
    assert_eq!(
        (row.status.as_str(), row.error_code.as_deref()),
        ("FAILED", Some("STATE_NOT_STORED")),
        "{row:?}"
    );
    let kept = fs::read_dir(stage.dir.path().join("state/gated.s")).expect("the state's folder");
    let kept: Vec<PathBuf> = kept.map(|entry| entry.expect("an entry").path()).collect();
    let kept = kept.iter().find(|path| path.extension().is_some_and(|e| e == "tfstate")).expect("a state");
    let metadata = fs::metadata(kept).expect("the state");
    assert_eq!((metadata.uid(), metadata.mode() & 0o777), (0, 0o600), "{}", kept.display());

    // Nothing is planned before it is stored.
    let row = stage.queue("gated").await.ended().await;
    assert_eq!(row.status, "FAILED", "{row:?}");
    let message = row.error_message.clone().expect("a message");
    assert!(message.contains("Nothing was planned") && kept.exists(), "{row:?}");
    states.refuse(false);
    let row = stage.queue("gated").await.ended().await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
    assert_eq!(row.plan_summary.expect("a plan")["add"], 0, "nothing is created a second time");
    let stored = states.state("gated.s").expect("it is stored");
    assert_eq!(stored["resources"][0]["name"], "a");
    assert!(states.lock("gated.s").is_none(), "no lock is left");
    assert!(!kept.exists());
}

/// What root reads of a lost run is the run's.
#[tokio::test]
async fn a_lost_run_that_left_links_and_pipes_where_root_reads_is_finalized() {
    let Some(stage) = Stage::set().await else { return };
    let replaced = [
        ("endless", "rm zz_tendril.auto.tfvars.json; ln -s /dev/zero zz_tendril.auto.tfvars.json"),
        ("piped", "rm zz_tendril.auto.tfvars.json; mkfifo zz_tendril.auto.tfvars.json template.json a.tf"),
        (
            "sparse",
            "rm zz_tendril.auto.tfvars.json; truncate -s 2T zz_tendril.auto.tfvars.json errored.tfstate a.tf",
        ),
        (
            "linked",
            "ln -s /dev/zero template.json; ln -s /dev/zero a.tf.json; mkdir m; mkfifo m/b.tf; ln -s / m/root",
        ),
    ];
    for (name, script) in replaced {
        stage.template(name, RUNS_SCRIPT, &format!("{script}\necho left it\nsleep 5555\n"));
    }
    let setup = stage.setup.clone().concurrency(4);
    let executors = setup.executors();
    let agent = setup.start();
    let mut jobs = Vec::new();
    for (name, _) in replaced {
        let job = stage.queue(name).await;
        job.says("left it").await;
        jobs.push((name, job));
    }
    agent.signal(Signal::KILL);
    drop(agent);
    executors.signal(Signal::KILL);
    for keeper in executors.keepers() {
        rustix::process::kill_process(keeper, Signal::KILL).expect("it is killed");
    }
    let again = setup.start();
    for (name, job) in &jobs {
        let row = job.ended().await;
        assert_eq!(row.error_code.as_deref(), Some("AGENT_LOST"), "{name}: {row:?}");
    }
    let status = fs::read_to_string(format!("/proc/{}/status", again.pid())).expect("it lives");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(peak < 200 * 1024, "{peak} KiB");
}
