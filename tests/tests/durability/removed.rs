//! A run whose directory somebody removes: it ends gracefully with a clear status, and is not run again.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use rustix::process::Signal;
use tendril_tests::{AgentSetup, Cluster, Deployment, Row, Story, World, fixtures};

use crate::executors::kill;

/// An agent whose terraform stands still in its apply, and notes each interrupt.
struct Stage {
    cluster: Cluster,
    setup: AgentSetup,
    notes: PathBuf,
    _world: World,
}

impl Stage {
    async fn set() -> Self {
        let world = World::start().await;
        let cluster = world.cluster().await;
        let (program, notes) = (world.path("terraform"), world.path("interrupts"));
        let text = format!(
            "#!/bin/sh\nif [ \"$1\" = apply ]; then\n  trap 'echo interrupted >>{notes}; exit 1' INT\n  echo at the gate\n  while [ -d '{scratch}' ]; do sleep 0.1; done\nfi\nexec '{narrator}' \"$@\"\n",
            notes = notes.display(),
            scratch = world.path("").display(),
            narrator = fixtures("terraform-narrator").display(),
        );
        fs::write(&program, text).expect("a script");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a program");
        let setup = world.agent(&cluster).terraform(&program);
        Self { cluster, setup, notes, _world: world }
    }

    async fn at_the_gate(&self) -> Deployment {
        let job = self.cluster.queue(Story { lines: 101, ..Story::default() }.config()).await;
        job.says("at the gate").await;
        job
    }

    fn work_dir(&self) -> PathBuf {
        self.setup.cli.work_dir.clone().expect("a directory").into()
    }

    /// It was interrupted once, and its row says what happened.
    async fn ends(&self, job: &Deployment, says: &str) -> Row {
        let row = job.ended().await;
        assert_eq!(
            (row.status.as_str(), row.error_code.as_deref()),
            ("FAILED", Some("AGENT_LOST")),
            "{row:?}"
        );
        assert_eq!(row.attempt, 1);
        let message = row.error_message.clone().unwrap_or_default();
        assert!(message.contains(says), "{message}");
        assert!(message.contains("it ended after one interrupt (SIGINT)"), "{message}");
        assert_eq!(fs::read_to_string(&self.notes).unwrap_or_default(), "interrupted\n");
        self.setup.executors().are(0).await;
        assert!(self.setup.executors().keepers().is_empty());
        row
    }
}

#[tokio::test]
async fn a_run_whose_directory_is_removed_is_interrupted_and_says_so() {
    let stage = Stage::set().await;
    let agent = stage.setup.start();
    let job = stage.at_the_gate().await;
    fs::remove_dir_all(stage.work_dir().join(format!("{}.1", job.id))).expect("it is removed");
    stage.ends(&job, "directory in the agent's work directory was removed during apply").await;
    assert!(Path::new(&format!("/proc/{}", agent.pid())).exists());
    // The agent goes on.
    let plan = Story { planned: 1, lines: 1, ..Story::default() }.config();
    let mut plan = plan;
    plan["action"] = "plan".into();
    assert_eq!(stage.cluster.queue(plan).await.ended().await.status, "SUCCESS");
}

#[tokio::test]
async fn an_executor_without_dispatcher_ends_when_the_whole_work_directory_is_removed() {
    let stage = Stage::set().await;
    let agent = stage.setup.start();
    let job = stage.at_the_gate().await;
    kill(agent);
    fs::remove_dir_all(stage.work_dir()).expect("it is removed");
    stage.ends(&job, "was removed during apply").await;
}

#[tokio::test]
async fn an_apply_whose_executor_was_killed_and_whose_directory_is_removed_is_not_begun_again() {
    let stage = Stage::set().await;
    let _agent = stage.setup.start();
    let job = stage.at_the_gate().await;
    fs::remove_dir_all(stage.work_dir().join(format!("{}.1", job.id))).expect("it is removed");
    stage.setup.executors().signal(Signal::KILL);
    stage.ends(&job, "Resources may have been changed").await;
}
