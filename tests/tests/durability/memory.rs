//! A template that uses up the memory that there is: the kernel ends its programs, and neither the agent nor its executors.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tendril_tests::until;

use crate::run_users::{RUNS_SCRIPT, Stage};

/// A control group whose processes have so much memory together; removed when dropped.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// Below the group of this process. None, with the reason, where none can be made.
    fn with(bytes: u64) -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").expect("the groups of this process");
        let own = |controller: &str| {
            groups.lines().find_map(|line| line.split_once(controller).map(|(_, own)| own))
        };
        // Version 1 has a tree of its own for memory.
        let (place, limit) = match own(":memory:") {
            Some(own) => (format!("/sys/fs/cgroup/memory{own}"), "memory.limit_in_bytes"),
            None => (format!("/sys/fs/cgroup{}", own("0::").unwrap_or("/")), "memory.max"),
        };
        let group = Path::new(&place).join(format!("tendril-test-{}", std::process::id()));
        let made = fs::create_dir(&group).and_then(|()| {
            let made = Self(group.clone());
            fs::write(group.join(limit), bytes.to_string())?;
            // Swapping would only make it slower.
            let _without_it = fs::write(group.join("memory.memsw.limit_in_bytes"), bytes.to_string());
            Ok(made)
        });
        made.map_err(|error| println!("skipped: {} cannot have a limit of memory: {error}", group.display()))
            .ok()
    }

    fn take_in(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("the process is in the group");
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Not while something in it is about to end; an empty group that stays is harmless.
        let _best_effort = fs::remove_dir(&self.0);
    }
}

/// Each of its processes is smaller than the agent.
const USES_UP_THE_MEMORY: &str = "python3 - <<'P'
import os, time
for _ in range(400):
    if os.fork() == 0:
        kept = bytearray(os.urandom(4096) * 1024)
        time.sleep(60)
        os._exit(0)
while True:
    os.wait()
P
";

#[tokio::test]
async fn a_template_that_uses_up_the_memory_ends_and_neither_the_agent_nor_its_executor_does() {
    let Some(stage) = Stage::set().await else { return };
    let Some(group) = MemoryGroup::with(500 * 1024 * 1024) else { return };
    stage.template("uses-up-the-memory", RUNS_SCRIPT, USES_UP_THE_MEMORY);
    stage.template("innocent", RUNS_SCRIPT, "true");
    let executors = stage.setup.executors();
    let agent = stage.setup.start();
    agent.says("the cluster is online").await;
    group.take_in(agent.pid());
    let job = stage.queue("uses-up-the-memory").await;
    let running = executors.are(1).await;
    let row = job.ended().await;
    let log = job.log().await;
    log.assert_complete(&row);
    assert_eq!((row.status.as_str(), row.attempt), ("FAILED", 1), "{row:?}\n{}", log.text());
    let message = row.error_message.clone().expect("a message");
    assert_eq!(row.error_code.as_deref(), Some("TERRAFORM_FAILED"), "{message}");
    assert!(!agent.output().contains("the executor was killed"), "{}", agent.output());
    assert_eq!(running.len(), 1);
    let row = stage.queue("innocent").await.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    until("nothing of the run is left", async || {
        let left = fs::read_to_string(group.0.join("cgroup.procs")).expect("the group");
        let agents = agent.pid().to_string();
        if left.lines().all(|pid| pid == agents) { Ok(()) } else { Err(left) }
    })
    .await;
}
