//! From nothing to ONLINE and back, with stand-ins for kubectl and helm, and the template `hello` instead of EKS: real Terraform,
//! a real agent, a real key that it exchanges. And the chart as the real Helm renders what would be installed.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

mod world;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use expectrl::Expect as _;
use rustix::process::Signal;
use serde_json::Value;

use self::world::{World, agent_program, exit_code, finish, path, repository, signal, text};

/// A machine with stand-ins.
struct Machine {
    world: World,
    dir: PathBuf,
}

fn on_path(name: &str) -> PathBuf {
    let dirs = path(&[]);
    env::split_paths(&dirs)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("no {name} on PATH"))
}

fn run(command: Command) -> Output {
    finish(command, b"")
}

impl Machine {
    fn new() -> Self {
        let world = World::signed_in();
        let dir = world.home.path().join("stand-in");
        fs::create_dir_all(dir.join("templates")).unwrap();
        copy(&repository("templates/hello"), &dir.join("templates/hello"));
        fs::write(dir.join("current-context"), "vineyard\n").unwrap();
        Self { world, dir }
    }

    fn grape(&self, arguments: &[&str]) -> Command {
        let mut command = self.world.grape(arguments);
        self.set(&mut command);
        command
    }

    fn set(&self, command: &mut Command) {
        let stand_ins = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand-ins");
        command
            .env("PATH", path(&[stand_ins]))
            .env("STAND_IN", &self.dir)
            .env("AGENT", agent_program())
            .env("TERRAFORM", on_path("terraform"))
            .env("TENDRIL_TEMPLATES_DIR", self.dir.join("templates"));
    }

    fn up(&self) -> Command {
        self.grape(&["up", "prod", "--template", "hello", "--yes", "--timeout", "60s"])
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.dir.join("calls")).unwrap_or_default()
    }

    fn must(&self, command: Command) -> String {
        let output = run(command);
        let log = fs::read_to_string(self.dir.join("agent.log")).unwrap_or_default();
        assert!(output.status.success(), "{}\n{}\n{log}", text(&output), self.calls());
        text(&output)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let id = fs::read_to_string(self.dir.join("agent.pid")).ok().and_then(|id| id.trim().parse().ok());
        if let Some(id) = id {
            signal(id, Signal::TERM);
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn up_brings_a_cluster_online_and_down_takes_it_away() {
    let machine = Machine::new();
    let out = machine.must(machine.up());
    for part in
        ["provision hello: done", "key (Secret): done", "agent ONLINE: done", "Cluster prod is ONLINE"]
    {
        assert!(out.contains(part), "no {part} in {out}");
    }
    let secret = fs::read_to_string(machine.dir.join("kubernetes/secrets/tendril-agent")).unwrap();
    assert!(!machine.calls().contains("tdl_"), "the key is in no argument");
    assert!(!fs::read_to_string(machine.dir.join("calls")).unwrap().contains("TENDRIL_AGENT_TOKEN"));

    // Again: nothing is done twice.
    let out = machine.must(machine.up());
    for part in ["provision hello: unchanged", "key (Secret): unchanged", "cluster prod: unchanged"] {
        assert!(out.contains(part), "no {part} in {out}");
    }
    assert_eq!(secret, fs::read_to_string(machine.dir.join("kubernetes/secrets/tendril-agent")).unwrap());
    let clusters = machine.world.json(&["clusters"]);
    assert_eq!(clusters.as_array().unwrap().len(), 1);
    let deployed = run(machine.grape(&["deploy", "hello", "--var", "name=grape"]));
    assert!(deployed.status.success(), "{}", text(&deployed));

    // For programs: an object a line.
    let output = run(machine.grape(&["up", "prod", "--template", "hello", "--yes", "-o", "json"]));
    let lines: Vec<Value> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output));
    assert_eq!((&lines[0]["step"], &lines[1]["state"]), (&"tools".into(), &"unchanged".into()));
    assert_eq!(lines.last().unwrap()["cluster"]["status"], "ONLINE");

    // Down prompts twice.
    assert_eq!(run(machine.grape(&["down", "prod"])).status.code(), Some(2));
    assert_eq!(run(machine.grape(&["down", "prod", "--yes"])).status.code(), Some(2));
    assert_eq!(run(machine.grape(&["down", "prod", "--yes", "--confirm", "other"])).status.code(), Some(130));
    let mut down = machine.grape(&["down", "prod"]);
    machine.set(&mut down);
    let mut down = expectrl::session::OsSession::spawn(down).unwrap();
    down.set_expect_timeout(Some(world::TIMEOUT));
    down.expect("Remove the agent of prod").unwrap();
    down.send("y").unwrap();
    down.expect("Write prod to go on").unwrap();
    down.send_line("prod").unwrap();
    down.expect("Cluster prod is gone").unwrap();
    assert_eq!(exit_code(down), 0);
    assert!(text(&machine.world.run(&["clusters"])).contains("REVOKED"));
    assert!(!machine.dir.join("kubernetes/secrets/tendril-agent").exists());
    assert_eq!(run(machine.grape(&["down", "prod", "--yes", "--confirm", "prod"])).status.code(), Some(5));
}

#[test]
fn up_that_is_killed_at_any_step_goes_on_where_it_stopped() {
    let machine = Machine::new();
    for place in [
        "terraform-init",
        "terraform-plan",
        "terraform-apply",
        "terraform-output",
        "namespace",
        "secret-before",
        "secret-after",
        "helm",
    ] {
        fs::write(machine.dir.join("die"), place).unwrap();
        let killed = run(machine.up());
        assert_eq!(killed.status.code(), None, "killed at {place}: {}\n{}", text(&killed), machine.calls());
    }
    let out = machine.must(machine.up());
    assert!(out.contains("Cluster prod is ONLINE"), "{out}");
    // The key that was made before the first kill was lost with it; another stands beside it until it is used, and then alone.
    let shown = machine.world.json(&["cluster", "show", "prod"]);
    assert_eq!(shown["keys"]["next"], Value::Null, "{shown}\n{out}");
    assert_eq!(machine.world.json(&["clusters"]).as_array().unwrap().len(), 1);
    let state =
        fs::read_to_string(machine.world.config().join("clusters/default/prod/hello/terraform.tfstate"))
            .unwrap();
    let state: Value = serde_json::from_str(&state).unwrap();
    assert_eq!(state["resources"].as_array().unwrap().len(), 2);
}

#[test]
fn what_is_missing_on_this_machine_is_said_with_the_next_step() {
    let machine = Machine::new();
    let fails = |command: Command, code: i32, sentence: &str| {
        let output = run(command);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        assert!(text(&output).contains(sentence), "no {sentence} in {}", text(&output));
    };
    // A PATH with nothing on it but what the stand-ins themselves need.
    let bare = machine.dir.join("bare");
    fs::create_dir_all(&bare).unwrap();
    let link = |name: &str| std::os::unix::fs::symlink(on_path(name), bare.join(name)).unwrap();
    let mut nothing = machine.up();
    nothing.env("PATH", &bare);
    fails(nothing, 8, "kubectl is not installed");
    link("bash");
    link("env");
    link("cat");
    link("mkdir");
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand-ins/kubectl"), bare.join("kubectl"))
        .unwrap();
    let mut no_helm = machine.up();
    no_helm.env("PATH", &bare);
    fails(no_helm, 8, "helm is not installed");

    fails(
        machine.grape(&["up", "prod", "--skip-provision", "--context", "nowhere"]),
        9,
        "no context `nowhere`",
    );
    fs::write(machine.dir.join("unreachable"), "").unwrap();
    fails(machine.grape(&["up", "other", "--skip-provision", "--context", "vineyard"]), 9, "does not answer");
    fs::remove_file(machine.dir.join("unreachable")).unwrap();
    fs::remove_file(machine.dir.join("current-context")).unwrap();
    fails(machine.grape(&["up", "third", "--skip-provision", "--yes"]), 9, "no current context");
    fs::write(machine.dir.join("current-context"), "vineyard\n").unwrap();
    // A context that was not named needs a confirmation.
    fails(machine.grape(&["up", "fourth", "--skip-provision"]), 2, "no terminal to ask on");
    fails(machine.grape(&["up", "prod", "--skip-provision", "--chart", "/nowhere"]), 5, "no Helm chart");
    fails(machine.grape(&["up", "fifth", "--template", "nope"]), 5, "no template `nope`");
    fails(
        machine.grape(&["up", "fifth", "--template", "hello", "--var", "nope=1"]),
        7,
        "none of the templates",
    );
    fails(
        machine.grape(&["up", "fifth", "--template", "hello", "--var", "lines=x"]),
        7,
        "must be an integer",
    );
    fails(machine.grape(&["up", "Prod_1", "--skip-provision"]), 2, "lower-case");
    fails(machine.grape(&["up", "prod"]), 2, "--region");

    // The templates of AWS: no CLI, and then no credentials.
    let aws = [
        "up",
        "cloud",
        "--region",
        "eu-central-1",
        "--var",
        "public_access_cidrs=[\"203.0.113.7/32\"]",
        "--templates-dir",
    ];
    let templates = repository("templates").display().to_string();
    let mut no_aws = machine.grape(&[&aws[..], &[&templates]].concat());
    let stand_ins = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand-ins");
    for name in ["python3", "touch", "rm"] {
        link(name);
    }
    no_aws.env("PATH", env::join_paths([stand_ins, bare.clone()]).unwrap());
    fails(no_aws, 8, "aws is not installed");
    fs::write(bare.join("aws"), "#!/usr/bin/env bash\necho 'Unable to locate credentials. You can configure credentials by running \"aws configure\".' >&2\nexit 253\n").unwrap();
    fs::set_permissions(bare.join("aws"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut no_credentials = machine.grape(&[&aws[..], &[&templates]].concat());
    no_credentials.env(
        "PATH",
        env::join_paths([Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand-ins"), bare]).unwrap(),
    );
    fails(no_credentials, 10, "Unable to locate credentials");
}

#[test]
fn an_agent_that_does_not_come_is_explained_by_its_pod() {
    let machine = Machine::new();
    fs::write(machine.dir.join("no-agent"), "").unwrap();
    let output = run(machine.grape(&["up", "prod", "--skip-provision", "--yes", "--timeout", "3s"]));
    assert_eq!(output.status.code(), Some(11), "{}", text(&output));
    for part in [
        "did not come online within",
        "ImagePullBackOff",
        "Failed to pull image",
        "waiting to start",
        "describe pod tendril-agent-0",
        "continues where it stopped",
    ] {
        assert!(text(&output).contains(part), "no {part} in {}", text(&output));
    }
}

#[test]
fn two_at_once_of_one_cluster_do_not_meet() {
    let machine = Machine::new();
    fs::write(machine.dir.join("no-agent"), "").unwrap();
    let mut first =
        machine.grape(&["up", "prod", "--skip-provision", "--yes", "--timeout", "60s"]).spawn().unwrap();
    World::wait_for("helm was called", || machine.calls().contains("helm upgrade"));
    let second = run(machine.grape(&["up", "prod", "--skip-provision", "--yes"]));
    assert!(
        second.status.code() == Some(6) && text(&second).contains("Another `grape up`"),
        "{}",
        text(&second)
    );
    signal(first.id(), Signal::INT);
    assert_eq!(first.wait().unwrap().code(), Some(130));
}

#[test]
fn the_real_helm_renders_what_would_be_installed() {
    let Some(helm) = env::split_paths(&path(&[])).map(|dir| dir.join("helm")).find(|path| path.is_file())
    else {
        println!("skipped: helm is not here (scripts/tool.sh helm)");
        return;
    };
    let machine = Machine::new();
    machine.must(machine.up());
    let calls = machine.calls();
    let call = calls.lines().find(|line| line.starts_with("helm upgrade")).unwrap();
    let arguments: Vec<&str> = call.split_whitespace().collect();
    assert_eq!(&arguments[1..4], ["upgrade", "--install", "tendril-agent"], "{call}");
    // The same release, chart and values; rendered instead of installed.
    let rest: Vec<&str> =
        arguments[4..].iter().copied().take_while(|argument| *argument != "--kube-context").collect();
    let mut template = Command::new(helm);
    template
        .args(["template", "tendril-agent"])
        .args(rest)
        .args(["--namespace", "tendril"])
        .current_dir(repository(""));
    let output = finish(template, b"");
    assert!(output.status.success(), "{}", text(&output));
    let rendered = String::from_utf8(output.stdout).unwrap();
    assert!(
        rendered.contains("kind: StatefulSet") && rendered.contains("secretName: tendril-agent"),
        "{rendered}"
    );
    assert!(!rendered.contains("kind: Secret"), "the Secret is grape's own");
}
