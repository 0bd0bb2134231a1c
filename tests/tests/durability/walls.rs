//! Templates that dig for what is not theirs, where the agent is root and runs have users of their own. Each line is an attack, with
//! the real terraform: whatever it tries, it is refused or harms its own run alone, and its row ends with the true result.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::process::{Signal, geteuid};
use serde_json::json;
use tempfile::TempDir;
use tendril_tests::{AgentSetup, Cluster, Deployment, Program, World, until};

/// A script that a provisioner runs, and what must come of it.
struct Attack {
    name: &'static str,
    script: &'static str,
    status: &'static str,
    /// What must be in the message or the log.
    says: &'static str,
}

const fn attack(name: &'static str, script: &'static str) -> Attack {
    Attack { name, script, status: "SUCCESS", says: "Apply complete" }
}

const fn fails(name: &'static str, script: &'static str, says: &'static str) -> Attack {
    Attack { name, script, status: "FAILED", says }
}

/// What every attack knows: where the agent keeps its things, which processes are the agent's, and words to say whether it got in.
/// A thing that it must not reach prints `BREACH`. A file of a process that has just ended can be opened and has nothing in it: what
/// counts is a byte.
const PRELUDE: &str = r#"
breach() { echo "BRE""ACH: $*"; }
reads() { for f in "$@"; do [ "$(head -c 1 "$f" 2>/dev/null | wc -c)" = 0 ] || breach "read $f"; done; }
writes() { for f in "$@"; do ( : >>"$f" ) 2>/dev/null && breach "wrote $f"; done; }
mine=$(cd ../..; pwd)
work=$(cd ../../..; pwd)
"#;

#[rustfmt::skip]
fn attacks() -> Vec<Attack> {
    vec![
        attack("reads-memory", "id -u | grep -qx 0 && breach root\nfor p in $AGENT $(pgrep -f 'execute --attempt') $(pgrep -f keep-exit); do reads /proc/$p/environ /proc/$p/mem /proc/$p/maps /proc/$p/fd/0; ls /proc/$p/cwd/ >/dev/null 2>&1 && breach cwd; ls /proc/$p/root/ >/dev/null 2>&1 && breach \"root of $p\"; done; true"),
        attack("reads-others-environment", "for p in /proc/[0-9]*; do [ -O $p ] || reads $p/environ; done; true"),
        attack("reads-the-work-directory", "ls $work >/dev/null 2>&1 && breach listed; ls $mine >/dev/null 2>&1 && breach own; reads $mine/claim.json $mine/user.json $mine/log/* $mine/exit.lock $work/executors/*/attempt.json $work/executors/*/token $OTHER/run/module/main.tf $OTHER/run/data/tfplan $OTHER/run/module/zz_tendril.auto.tfvars.json $TOKEN; true"),
        attack("writes-the-work-directory", "writes $work/x $mine/x $mine/exit.json $mine/result.json $mine/run/x $work/plugins/x $work/slots/1 $work/executors/x $STATES/x $OTHER/run/module/x $TOKEN /etc/passwd; mv ../module ../moved 2>/dev/null && breach moved; rmdir ../tmp 2>/dev/null && breach removed; true"),
        attack("reads-other-states", "ls $STATES >/dev/null 2>&1 && breach listed; reads $STATES/innocent.s/terraform.tfstate; true"),
        fails("signals-everybody", "for p in $AGENT $(pgrep -f 'execute --attempt') $(pgrep -f keep-exit); do kill -0 $p 2>/dev/null && breach \"signal $p\"; done; kill -9 -1; sleep 1", "signal"),
        attack("debugs", "command -v gdb >/dev/null && gdb -p $AGENT -batch 2>/dev/null | grep -q 'in ' && breach gdb; python3 - <<'P'\nimport ctypes,os\nlibc=ctypes.CDLL(None,use_errno=True)\nif libc.ptrace(16,int(os.environ['AGENT']),0,0)==0: print('BRE'+'ACH ptrace')\nP\ntrue"),
        attack("becomes-root", "cp /bin/sh ./s && chmod 4755 ./s && ./s -c 'id -u' | grep -qx 0 && breach setuid; su root -c id 2>/dev/null </dev/null && breach su; sudo -n id 2>/dev/null && breach sudo; mknod d b 1 1 2>/dev/null && breach device; mount -t tmpfs x /mnt 2>/dev/null && breach mount; chown root ./s 2>/dev/null && breach chown; python3 -c 'import os; os.setuid(0)' 2>/dev/null && breach setuid0; true"),
        attack("links-its-errored-state", "ln -s /etc/shadow errored.tfstate"),
        attack("hard-links", "ln /etc/shadow errored.tfstate 2>/dev/null; ln /etc/passwd ../data/p 2>/dev/null; ln $STATES/innocent.s/terraform.tfstate x 2>/dev/null && breach linked; true"),
        attack("makes-a-pipe-of-its-errored-state", "mkfifo errored.tfstate ../data/outputs.json ../home/terraform.rc 2>/dev/null; true"),
        fails("replaces-its-variables", "for f in zz_tendril.auto.tfvars.json zz_tendril_override.tf.json; do rm -f $f; ln -s /etc/shadow $f; done; ln -s /dev/zero .terraform.lock.hcl; true", "Applied. What failed came after it"),
        attack("links-where-the-agent-writes", "cd ../data; ln -s /etc/tendril-breach outputs.json; ln -s /etc/tendril-breach plan.json; ln -s /etc/tendril-breach outputs.json.new; cd ../home; ln -sf /etc/tendril-breach terraform.rc; true"),
        fails("makes-its-state-a-pipe", "rm -f $STATES/makes-its-state-a-pipe.s/terraform.tfstate; mkfifo $STATES/makes-its-state-a-pipe.s/terraform.tfstate; exit 1", "exit status 1"),
        attack("poisons-its-state-folder", "cd $STATES/poisons-its-state-folder.s && for f in held held.new errored-x.tfstate dead-x.1.json; do ln -s /etc/shadow $f; done; rm -f held.new; ln -s /etc/tendril-breach held.new; mkfifo errored-y.tfstate; truncate -s 1T errored-z.tfstate; true"),
        attack("poisons-the-providers", "find $work/plugins -writable 2>/dev/null | grep -q . && breach plugins; for l in $(find ../data/providers -type l 2>/dev/null); do writes $l/x; done; true"),
        attack("fills-shared-places", "for d in /tmp /var/tmp /dev/shm; do echo $SELF >$d/tendril-$SELF; ls $d | grep -v tendril-$SELF | grep -q tendril && breach \"others in $d\"; done; head -c 300000000 /dev/zero >/dev/shm/big 2>/dev/null && breach 'no limit of memory'; rm -f /dev/shm/big; true"),
        attack("leaves-setuid-files", "cp /bin/sh /tmp/left && chmod 6777 /tmp/left; mkdir -p a/b && chmod 000 a/b a; chmod 4777 . ; true"),
        attack("has-a-huge-environment", "v=$(head -c 120000 /dev/zero | tr '\\0' x); for n in 1 2 3 4 5 6 7 8; do export V$n=$v; done; env -i TF_DATA_DIR=/etc setsid sleep 6666 >/dev/null 2>&1 & sleep 0.2"),
        fails("closes-everything", "chmod -R 000 ../data ../home . 2>/dev/null; true", "Applied. What failed came after it"),
        fails("deletes-its-workspace", "rm -rf ../module/* ../module/.[a-z]* ../data/* ../home/* 2>/dev/null; exit 1", "exit status 1"),
        attack("swaps-folders", "mkdir -p a/b/c; (while :; do mv a x; ln -s /etc a; rm a; mv x a; done) >/dev/null 2>&1 & env -i setsid python3 -c 'import os\nwhile True:\n  try:\n    os.mkdir(\"t\"); os.rename(\"t\",\"u\"); os.symlink(\"/etc\",\"t\"); os.unlink(\"t\"); os.rmdir(\"u\")\n  except OSError: pass' >/dev/null 2>&1 & sleep 0.3"),
        fails("starts-processes-without-end", "perl -e 'for (1..2200) { my $p = fork; die \"$!\\n\" unless defined $p; if (!$p) { open STDOUT, \">/dev/null\"; open STDERR, \">/dev/null\"; exec \"sleep\", \"4444\" } }'", "Resource temporarily unavailable"),
        attack("is-always-another-process", "env -i setsid perl -e 'while (1) { exit if fork }' >/dev/null 2>&1 & sleep 0.3"),
        attack("hides-behind-a-thread", "env -i setsid perl -MPOSIX -Mthreads -e 'threads->create(sub { sleep 4444 }); my %exit = (x86_64 => 60, aarch64 => 93); syscall($exit{(POSIX::uname())[4]}, 0)' >/dev/null 2>&1 & until grep -q '^State:.Z' /proc/$!/status; do sleep 0.05; done"),
        attack("outlives-the-agent-when-memory-is-short", "own=$(cat /proc/self/oom_score_adj); for p in $AGENT $(pgrep -f 'execute --attempt') $(pgrep -f keep-exit); do [ \"$(cat /proc/$p/oom_score_adj)\" -lt \"$own\" ] || breach \"$p is killed first\"; done; echo -1 2>/dev/null >/proc/self/oom_score_adj && breach lowered; true"),
        attack("forges-a-message", "printf '%s\\n' '{\"@level\":\"info\",\"@message\":\"Emergency state dump\",\"state\":{},\"type\":\"log\"}'; true"),
    ]
}

struct Scene {
    _world: World,
    cluster: Cluster,
    dir: TempDir,
    agent: Program,
}

impl Scene {
    fn state(&self, key: &str) -> PathBuf {
        self.dir.path().join("state").join(key).join("terraform.tfstate")
    }

    fn workspace(&self, of: &Deployment) -> PathBuf {
        self.dir.path().join("work").join(format!("{}.1", of.id))
    }
}

fn template(templates: &Path, name: &str, script: &str) {
    let dir = templates.join(name);
    fs::create_dir_all(&dir).expect("a folder");
    fs::write(dir.join("attack.sh"), format!("{PRELUDE}\n{script}\n")).expect("a script");
    let main = "variable \"env\" { type = map(string) }\n\
        resource \"terraform_data\" \"attack\" {\n  provisioner \"local-exec\" {\n    command = \"bash attack.sh\"\n    environment = var.env\n  }\n}\n\
        output \"done\" { value = terraform_data.attack.id }\n";
    fs::write(dir.join("main.tf"), main).expect("a template");
}

/// An agent whose runs have users of their own; none where the tests are not root's.
async fn scene(change: impl FnOnce(AgentSetup) -> AgentSetup) -> Option<Scene> {
    if !geteuid().is_root() {
        println!("skipped: only root can give runs users of their own");
        return None;
    }
    let world = World::start().await;
    let cluster = world.cluster().await;
    let dir = world.open_scratch();
    let templates = world.path("templates");
    for attack in attacks() {
        template(&templates, attack.name, attack.script);
    }
    template(&templates, "innocent", "true");
    template(&templates, "waits", "until [ -e go ]; do sleep 0.1; done");
    let token = dir.path().join("token");
    fs::write(&token, cluster.machine_token()).expect("a token");
    fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("permissions");
    let setup = world
        .agent(&cluster)
        .token_file(&token)
        .templates(&templates)
        .concurrency(4)
        .with_users_of_runs(dir.path());
    let agent = change(setup).start();
    Some(Scene { _world: world, cluster, dir, agent })
}

#[tokio::test]
async fn what_a_template_does_stays_within_its_own_run() {
    let Some(scene) = scene(|setup| setup).await else { return };
    let queue = |name: &str, env: BTreeMap<&str, String>| {
        scene.cluster.queue(json!({"template": name, "stack": "s", "variables": {"env": env}}))
    };
    let none = BTreeMap::new;
    let innocent = queue("innocent", none()).await.ended().await;
    assert_eq!(innocent.status, "SUCCESS", "{innocent:?}");
    let state = fs::read(scene.state("innocent.s")).expect("the state of a run");
    // It is in the middle of its apply from the first attack to the last.
    let victim = queue("waits", none()).await;
    victim.says("terraform apply").await;
    let path = |path: PathBuf| path.display().to_string();
    let known = BTreeMap::from([
        ("AGENT", scene.agent.pid().to_string()),
        ("OTHER", path(scene.workspace(&victim))),
        ("TOKEN", path(scene.dir.path().join("token"))),
        ("STATES", path(scene.dir.path().join("state"))),
    ]);
    let attacks = attacks();
    let mut queued = Vec::new();
    for attack in &attacks {
        let mut env = known.clone();
        env.insert("SELF", attack.name.to_owned());
        queued.push((attack, queue(attack.name, env).await));
    }
    let mut wrong = Vec::new();
    for (attack, deployment) in &queued {
        let row = deployment.ended().await;
        let text =
            format!("{}\n{}", deployment.log().await.text(), row.error_message.clone().unwrap_or_default());
        let end: String = text.chars().skip(text.chars().count().saturating_sub(2500)).collect();
        let has_output = row.outputs.as_ref().is_some_and(|outputs| outputs["done"].is_string());
        let is_true = row.status == attack.status
            && text.contains(attack.says)
            && has_output == (attack.status == "SUCCESS");
        if text.contains("BREACH") || text.contains("root:") || !is_true {
            wrong.push(format!("{}: {row:?}\n{end}", attack.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    fs::write(scene.workspace(&victim).join("run/module/go"), "").expect("the victim's workspace is there");
    let victim = victim.ended().await;
    assert_eq!((victim.status.as_str(), victim.attempt), ("SUCCESS", 1), "{victim:?}");
    assert_eq!(fs::read(scene.state("innocent.s")).expect("the state"), state);
    assert!(!Path::new("/etc/tendril-breach").exists());
    assert!(Path::new(&format!("/proc/{}", scene.agent.pid())).exists());
    until("nothing of a run is left", async || {
        let base = scene.base();
        let left: Vec<String> = processes_of(base).chain(files_of(base)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    let again = queue("innocent", none()).await.ended().await;
    assert_eq!(again.status, "SUCCESS", "{again:?}");
}

impl Scene {
    /// The first ID of the runs: that of the group of the provider cache.
    fn base(&self) -> u32 {
        fs::metadata(self.dir.path().join("work/plugins")).expect("the provider cache").gid()
    }
}

fn is_of_a_run(uid: u32, base: u32) -> bool {
    (base + 1..base + 5000).contains(&uid)
}

fn processes_of(base: u32) -> impl Iterator<Item = String> {
    let entries = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    entries.filter_map(move |entry| {
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        let owner = fs::metadata(entry.path()).ok()?.uid();
        is_of_a_run(owner, base).then(|| fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default())
    })
}

fn files_of(base: u32) -> impl Iterator<Item = String> {
    ["/tmp", "/var/tmp", "/dev/shm"].into_iter().flat_map(move |place| {
        let entries = fs::read_dir(place).expect("a place").filter_map(Result::ok);
        entries
            .filter(move |entry| entry.metadata().is_ok_and(|meta| is_of_a_run(meta.uid(), base)))
            .map(|entry| entry.path().display().to_string())
    })
}

#[tokio::test]
async fn a_run_keeps_its_user_when_its_executor_is_killed_and_a_later_run_gets_another() {
    let Some(scene) = scene(|setup| setup).await else { return };
    let config = |name: &str| json!({"template": name, "stack": "s", "variables": {"env": {}}});
    let long = scene.cluster.queue(config("waits")).await;
    long.says("terraform apply").await;
    let module = scene.workspace(&long).join("run/module");
    let owner = || fs::metadata(&module).expect("its workspace").uid();
    let user = owner();
    assert_eq!(user, scene.base() + 1);
    let executors = tendril_tests::Executors::in_work_dir(&scene.dir.path().join("work"));
    executors.signal(Signal::KILL);
    let other = scene.cluster.queue(config("innocent")).await.ended().await;
    assert_eq!(other.status, "SUCCESS", "{other:?}");
    assert_eq!(owner(), user);
    fs::write(module.join("go"), "").expect("its workspace is there");
    let row = long.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    let slots = scene.dir.path().join("work/slots");
    assert!(slots.join("2").exists(), "the other run had another user");
}

/// Starts the agent without these capabilities, as most containers do.
fn without(capabilities: &[&str], dir: &Path) -> PathBuf {
    let script = dir.join("agent");
    let dropped: Vec<String> = capabilities.iter().map(|name| format!("-{name}")).collect();
    let text = format!(
        "#!/bin/sh\nexec setpriv --bounding-set {} -- '{}' \"$@\"\n",
        dropped.join(","),
        tendril_tests::program::agent().display()
    );
    fs::write(&script, text).expect("a script");
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("permissions");
    script
}

#[tokio::test]
async fn without_the_rights_to_mount_and_to_trace_a_run_has_a_user_all_the_same() {
    let Some(Scene { cluster, dir, agent, _world: world }) = scene(|setup| setup).await else { return };
    drop(agent);
    let program = without(&["sys_admin", "sys_ptrace"], dir.path());
    let templates = world.path("templates");
    template(
        &templates,
        "leaves",
        "echo x >/tmp/tendril-$SELF; env -i setsid sleep 5555 >/dev/null 2>&1 & sleep 0.2",
    );
    let setup = world.agent(&cluster).templates(&templates).with_users_of_runs(dir.path());
    let agent = setup.start_program(&program);
    agent.says("share /tmp, /var/tmp, /dev/shm with everybody").await;
    let left = dir.path().file_name().expect("a name").to_string_lossy().into_owned();
    let config =
        |name: &str| json!({"template": name, "stack": "s", "variables": {"env": {"SELF": left.clone()}}});
    let row = cluster.queue(config("leaves")).await.ended().await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
    assert!(!Path::new(&format!("/tmp/tendril-{left}")).exists());
    // An apply whose executor is killed is found by its user.
    let long = cluster.queue(config("waits")).await;
    long.says("terraform apply").await;
    setup.executors().signal(Signal::KILL);
    fs::write(dir.path().join("work").join(format!("{}.1/run/module/go", long.id)), "")
        .expect("its workspace");
    let row = long.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    let base = fs::metadata(dir.path().join("work/plugins")).expect("the provider cache").gid();
    until("nothing of a run is left", async || {
        let left: Vec<String> = processes_of(base).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

/// A folder that nobody but root can enter.
fn closed_dir(dir: &Path) {
    fs::create_dir(dir).expect("a folder");
    fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("permissions");
}

#[tokio::test]
async fn where_no_ids_are_configured_and_users_reach_nothing_runs_are_roots_and_the_agent_says_why() {
    if !geteuid().is_root() {
        println!("skipped: only root can give runs users of their own");
        return;
    }
    let world = World::start().await;
    let cluster = world.cluster().await;
    let (templates, closed) = (world.path("templates"), world.path("closed"));
    closed_dir(&closed);
    template(&templates, "says-its-user", "echo \"runs as $(id -u)\"");
    let mut setup = world.agent(&cluster).templates(&templates);
    setup.cli.slot_uid_base = None;
    setup.cli.work_dir = closed.join("work").to_str().map(str::to_owned);
    let agent = setup.start();
    let warning = agent.says("and so does every template").await;
    assert!(warning.contains("cannot reach") && warning.contains("chmod o+x"), "{warning}");
    let job =
        cluster.queue(json!({"template": "says-its-user", "stack": "s", "variables": {"env": {}}})).await;
    job.says("runs as 0").await;
    assert_eq!(job.ended().await.status, "SUCCESS");
}

#[tokio::test]
async fn users_that_are_configured_and_cannot_be_had_or_reach_nothing_are_refused_and_root_is_not_used_instead()
 {
    if !geteuid().is_root() {
        println!("skipped: only root can give runs users of their own");
        return;
    }
    let world = World::start().await;
    let (cluster, dir) = (world.cluster().await, world.open_scratch());
    let setup = world.agent(&cluster).with_users_of_runs(dir.path());
    let refusal = async |setup: &AgentSetup, program: &Path| {
        let mut agent = setup.start_program(program);
        assert_eq!(agent.ended().await.code(), Some(2), "{}", agent.output());
        agent.output()
    };
    let said = refusal(&setup, &without(&["setuid", "setgid"], dir.path())).await;
    assert!(said.contains("no run can have a user of its own"), "{said}");
    let (mut hidden, base) = (setup.clone(), setup.cli.slot_uid_base.as_deref().expect("a range"));
    hidden.cli.slot_uid_base = Some((base.parse::<u32>().expect("a number") + 5000).to_string());
    closed_dir(&dir.path().join("closed"));
    hidden.cli.work_dir = dir.path().join("closed/work").to_str().map(str::to_owned);
    let said = refusal(&hidden, &tendril_tests::program::agent()).await;
    assert!(said.contains("cannot reach") && said.contains("closed/work"), "{said}");
    let mut off = hidden;
    off.cli.slot_uid_base = Some("off".to_owned());
    off.start().says("the agent runs as root, and so does every template").await;
}
