//! Templates that mean harm: each line is an attack, with the real terraform. Whatever one does, it harms its own run at most:
//! the agent stays the same process, and the next deployment succeeds.

use std::{fs, path::Path};

use serde_json::{Value, json};
use tendril_tests::{AgentSetup, World, until};

/// A template with one file.
struct Attack {
    name: &'static str,
    /// Its `main.tf`, or the script of its only provisioner.
    text: &'static str,
    variables: fn() -> Value,
    status: &'static str,
    /// What must be in the message or the log.
    says: &'static str,
    /// What must be in neither.
    hides: &'static str,
}

const NOTHING: fn() -> Value = || json!({});
const SECRET: fn() -> Value = || json!({"secret": "Tr0ub4dor&3-horse"});

/// A provisioner that runs a script; the secret is a sensitive variable.
fn script(name: &'static str, text: &'static str, status: &'static str, says: &'static str) -> Attack {
    Attack { name, text, variables: NOTHING, status, says, hides: "\u{0}" }
}

fn leak(name: &'static str, text: &'static str, hides: &'static str) -> Attack {
    Attack { name, text, variables: SECRET, status: "SUCCESS", says: "[hidden]", hides }
}

#[rustfmt::skip]
fn attacks() -> Vec<Attack> {
    vec![
        script("digs-deep", "python3 -c 'import os\nfor n in range(20000):\n  os.mkdir(\"d\"); os.chdir(\"d\")\nopen(\"data\",\"w\").write(\"x\"*1000000)'", "SUCCESS", "Apply complete"),
        script("makes-many-files", "python3 -c 'import os\nfor n in range(20000): open(str(n),\"w\").close()'", "SUCCESS", "Apply complete"),
        script("closes-its-folders", "mkdir -p a/b/c; touch a/b/c/d; chmod 000 a/b/c a/b a; chmod 500 .", "SUCCESS", "Apply complete"),
        script("links-out", "ln -s / root; ln -s .. up; ln -s loop loop; mkfifo pipe", "SUCCESS", "Apply complete"),
        script("writes-for-ever", "setsid sh -c 'while :; do echo still here; sleep 0.1; done' & sleep 1", "FAILED", "terraform apply took longer than its limit of 4 s"),
        script("hides-a-process", "env -i setsid sh -c 'cd /; exec sleep 7777' >/dev/null 2>&1 </dev/null & sleep 1", "SUCCESS", "Apply complete"),
        script("forks", "f() { sleep 5 & sleep 5 & }; for n in 1 2 3 4 5 6 7 8; do f; done; exit 0", "SUCCESS", "Apply complete"),
        script("floods", "head -c 50000 /dev/zero | tr '\\000' '\\n'", "SUCCESS", "Apply complete"),
        script("is-deaf", "trap '' INT TERM; setsid sleep 8888 >/dev/null 2>&1 </dev/null & exit 3", "FAILED", "exit status 3"),
        script("ends-with-the-reason", "for n in $(seq 2000); do echo \"TASK $n: ok\"; done; echo 'FATAL: quota exceeded' >&2; exit 1", "FAILED", "FATAL: quota exceeded"),
        script("kills-its-terraform", "kill -9 $PPID; sleep 1", "FAILED", "signal"),
        leak("prints-it", "echo $S", "Tr0ub4dor"),
        leak("traces-it", "set -x; : --password \"$S\"", "Tr0ub4dor"),
        leak("folds-it", "printf %s \"$S\" | fold -w 5; echo", "ub4do"),
        leak("encodes-it", "printf %s \"$S\" | base64; printf %s \"$S\" | od -An -tx1", "VHIwdWI0ZG9y"),
        leak("spaces-it", "printf %s \"$S\" | sed 's/./& /g'; echo", "T r 0 u"),
        Attack { name: "is-broken", text: "resource \"terraform_data\" \"a\" {\n  input = 1\n\nfoo {\n", variables: NOTHING, status: "FAILED", says: "main.tf line 4", hides: "\u{0}" },
        Attack { name: "is-deep", text: "variable \"v\" { type = any }\noutput \"v\" { value = \"x\" }\n", variables: || serde_json::from_str(&format!("{{\"v\":{}{}}}", "[".repeat(122), "]".repeat(122))).unwrap(), status: "FAILED", says: "levels deep", hides: "\u{0}" },
        Attack { name: "names-its-keys", text: "variable \"m\" {\n  type = map(string)\n  sensitive = true\n}\nresource \"terraform_data\" \"a\" {\n  provisioner \"local-exec\" { command = \"echo key is ${nonsensitive(keys(var.m)[0])}\" }\n}\n", variables: || json!({"m": {"tok_abcdef123456": "x"}}), status: "SUCCESS", says: "key is [hidden]", hides: "tok_abcdef123456" },
        Attack { name: "prints-a-number", text: "variable \"n\" {\n  type = number\n  sensitive = true\n}\nresource \"terraform_data\" \"a\" {\n  provisioner \"local-exec\" { command = \"echo pin is ${nonsensitive(var.n)}\" }\n}\n", variables: || serde_json::from_str("{\"n\":12345678.0}").unwrap(), status: "SUCCESS", says: "pin is [hidden]", hides: "pin is 1" },
    ]
}

impl Attack {
    fn write(&self, templates: &Path) {
        let dir = templates.join(self.name);
        fs::create_dir_all(&dir).expect("a folder");
        let main = if self.text.contains("variable") || self.text.contains("resource") {
            self.text.to_owned()
        } else {
            fs::write(dir.join("attack.sh"), self.text).expect("a script");
            "variable \"secret\" {\n  default   = \"none\"\n  sensitive = true\n}\n\
             resource \"terraform_data\" \"attack\" {\n  provisioner \"local-exec\" {\n    command = \"bash attack.sh\"\n    \
             environment = { S = nonsensitive(var.secret) }\n  }\n}\n"
                .to_owned()
        };
        fs::write(dir.join("main.tf"), main).expect("a template");
    }
}

/// Where the tests are root's, runs have users of their own.
fn agent(world: &World, cluster: &tendril_tests::Cluster, templates: &Path, dir: &Path) -> AgentSetup {
    let agent = world.agent(cluster).templates(templates).concurrency(4);
    if rustix::process::geteuid().is_root() { agent.with_users_of_runs(dir) } else { agent }
}

#[tokio::test]
async fn no_template_harms_more_than_its_own_run() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let templates = world.path("hostile");
    let attacks = attacks();
    for attack in &attacks {
        attack.write(&templates);
    }
    fs::create_dir_all(templates.join("innocent")).expect("a folder");
    fs::write(templates.join("innocent/main.tf"), "resource \"terraform_data\" \"a\" { input = 1 }\n")
        .expect("a template");
    let dir = world.open_scratch();
    let agent = agent(&world, &cluster, &templates, dir.path()).start();
    let mut queued = Vec::new();
    for attack in &attacks {
        // What never ends by itself has a limit.
        let apply = if attack.name == "writes-for-ever" { 4 } else { 300 };
        let config =
            json!({"template": attack.name, "variables": (attack.variables)(), "timeouts": {"apply": apply}});
        queued.push((attack, cluster.queue(config).await));
    }
    for (attack, deployment) in &queued {
        let row = deployment.ended().await;
        let text =
            format!("{}\n{}", deployment.log().await.text(), row.error_message.clone().unwrap_or_default());
        let end: String = text.chars().skip(text.chars().count().saturating_sub(1500)).collect();
        assert_eq!(row.status, attack.status, "{}: {:?} {end}", attack.name, row.error_message);
        assert!(text.contains(attack.says), "{}: {:?} {end}", attack.name, row.error_message);
        assert!(!text.contains(attack.hides), "{}: {end}", attack.name);
        // The cause, and not the preamble that announces it.
        assert!(!row.error_message.unwrap_or_default().contains("described below"), "{}", attack.name);
    }
    let innocent = cluster.queue(json!({"template": "innocent", "stack": "s"})).await.ended().await;
    assert_eq!(innocent.status, "SUCCESS", "{innocent:?}");
    // The same process from the first to the last, with no process left below it.
    assert!(Path::new(&format!("/proc/{}", agent.pid())).exists());
    until("nothing of an attack runs any more", async || {
        let all = std::process::Command::new("ps").args(["-eo", "args"]).output().expect("ps").stdout;
        let all = String::from_utf8_lossy(&all).into_owned();
        let left: Vec<&str> =
            all.lines().filter(|line| line.contains("sleep 7777") || line.contains("sleep 8888")).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}
