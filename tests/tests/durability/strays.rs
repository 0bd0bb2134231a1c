//! Processes that a run leaves behind and that hide, of an executor that is killed: they end with the run all the same.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use rustix::process::{Signal, kill_process};
use tendril_tests::{Deployment, Story, World, fixtures, program, until};

use crate::executors::{assert_untouched, kill};

/// A terraform whose plan and apply leave processes behind: in sessions of their own, behind two forks, with an empty environment,
/// under another name; and one that starts the next one and ends, without a pause. Each sleeps for a number of seconds that tells it from all others.
struct Strays {
    program: PathBuf,
    seconds: u64,
}

impl Strays {
    fn of(world: &World) -> Self {
        let (program, seconds) =
            (world.path("terraform-with-strays"), 1_000_000_000 + u64::from(std::process::id()) * 10);
        let text = format!(
            r#"#!/bin/bash
case $1 in plan | apply)
  env -i /usr/bin/setsid /bin/bash -c 'cd /; exec -a "[kworker/0:1]" /bin/sleep {seconds}' </dev/null >/dev/null 2>&1 &
  (env -i /usr/bin/setsid /bin/sh -c '/bin/sleep {seconds} & /bin/sleep {seconds} &' </dev/null >/dev/null 2>&1 &)
  env -i /usr/bin/setsid python3 -c $'import os\nwhile True:\n  if os.fork(): os._exit(0)' {seconds} </dev/null >/dev/null 2>&1 &
  ;;
esac
exec '{narrator}' "$@"
"#,
            narrator = fixtures("terraform-narrator").display(),
        );
        fs::write(&program, text).expect("a script");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a program");
        Self { program, seconds }
    }

    /// The command lines of those that run.
    fn running(&self) -> Vec<String> {
        let entries = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
        let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
        let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
        lines.filter(|line| line.trim_end().ends_with(&self.seconds.to_string())).collect()
    }

    async fn are_there(&self) {
        until("processes hide", async || match self.running() {
            running if running.len() >= 3 => Ok(()),
            running => Err(format!("{running:?}")),
        })
        .await;
    }

    async fn are_gone(&self, when: &str) {
        // One look can miss a process that is always another one.
        let running = || (0..10).map(|_| self.running()).find(|running| !running.is_empty());
        until(&format!("nothing is left {when}"), async || match running() {
            None => Ok(()),
            Some(running) => Err(format!("{running:?}")),
        })
        .await;
    }
}

/// The agent's program, and a script that starts it where no control group can be made: there processes are found by their
/// descent alone. Only root can make such a place; others have none anyway.
fn agents(world: &World) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let groups: Vec<_> = mounts
        .lines()
        .filter(|line| line.split(' ').nth(2) == Some("cgroup2"))
        .filter_map(|line| line.split(' ').nth(1))
        .collect();
    let mut agents = vec![program::agent()];
    if rustix::process::geteuid().is_root() && !groups.is_empty() {
        let path = world.path("agent-without-groups");
        let text = format!(
            "#!/bin/sh\nexec unshare --mount /bin/sh -c 'umount -l {} && exec \"$0\" \"$@\"' '{}' \"$@\"\n",
            groups.join(" "),
            agents[0].display()
        );
        fs::write(&path, text).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a program");
        agents.push(path);
    }
    agents
}

async fn at_the_gate(deployment: &Deployment, strays: &Strays) {
    deployment.says("at the gate").await;
    strays.are_there().await;
}

#[tokio::test]
async fn what_hides_ends_with_an_apply_whose_executor_and_parent_process_are_killed() {
    let world = World::start().await;
    let strays = Strays::of(&world);
    let agents = agents(&world);
    let variants = agents.iter().flat_map(|agent| [(agent, false), (agent, true)]);
    for (number, (program, also_parent)) in variants.enumerate() {
        let cluster = world.cluster().await;
        let gate = world.path(&format!("gate-{number}"));
        let story = Story { gate: Some(("apply", gate)), ..Story::default() };
        let setup = world.agent(&cluster).terraform(&strays.program);
        let executors = setup.executors();
        let _agent = setup.start_program(program);
        let deployment = cluster.queue(story.config()).await;
        at_the_gate(&deployment, &strays).await;
        let [executor] = executors.are(1).await[..] else { panic!("one executor") };
        kill_process(executor, Signal::KILL).expect("it is killed");
        deployment.says("The agent was restarted; Terraform went on meanwhile.").await;
        if also_parent {
            let [keeper] = executors.keepers()[..] else { panic!("one keeper") };
            kill_process(keeper, Signal::KILL).expect("it is killed");
        }
        story.go_on();
        let row = deployment.ended().await;
        // The narrator says no last message by which a lost exit code could be known.
        let expected = if also_parent { "FAILED" } else { "SUCCESS" };
        assert_eq!((row.status.as_str(), row.attempt), (expected, 1), "{row:?}");
        assert!(story.interrupts().is_empty(), "{:?}", story.interrupts());
        strays.are_gone("of the apply").await;
    }
}

#[tokio::test]
async fn what_hides_ends_with_a_plan_whose_executor_is_killed() {
    let world = World::start().await;
    let strays = Strays::of(&world);
    for (number, program) in agents(&world).iter().enumerate() {
        let cluster = world.cluster().await;
        let gate = world.path(&format!("gate-{number}"));
        let story = Story { gate: Some(("plan", gate)), ..Story::default() };
        let setup = world.agent(&cluster).terraform(&strays.program);
        let executors = setup.executors();
        let _agent = setup.start_program(program);
        let deployment = cluster.queue(story.config()).await;
        at_the_gate(&deployment, &strays).await;
        let [executor] = executors.are(1).await[..] else { panic!("one executor") };
        kill_process(executor, Signal::KILL).expect("it is killed");
        // The database queues it again once its lease has ended: that is another attempt.
        strays.are_gone("of the plan").await;
    }
}

/// Nobody lives that could look for them: the parent process of the apply does.
#[tokio::test]
async fn what_hides_ends_with_an_apply_of_which_only_the_parent_process_lives() {
    let world = World::start().await;
    let strays = Strays::of(&world);
    for (number, program) in agents(&world).iter().enumerate() {
        let cluster = world.cluster().await;
        let gate = world.path(&format!("gate-{number}"));
        let story = Story { gate: Some(("apply", gate)), ..Story::default() };
        let setup = world.agent(&cluster).terraform(&strays.program);
        let executors = setup.executors();
        let agent = setup.start_program(program);
        let deployment = cluster.queue(story.config()).await;
        at_the_gate(&deployment, &strays).await;
        kill(agent);
        executors.signal(Signal::KILL);
        executors.are(0).await;
        story.go_on();
        strays.are_gone("of the apply").await;
        let _again = setup.start_program(program);
        assert_untouched(&deployment, &story).await;
    }
}
