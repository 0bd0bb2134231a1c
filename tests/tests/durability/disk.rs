//! A job that writes more than there is room for: it is stopped gracefully, with the reason; its log shows what is missing.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;
use serde_json::json;
use tendril_tests::{Flood, World, until};

/// An apply that does this, and ends as gracefully as terraform once it is interrupted.
fn polite(world: &World, script: &str) -> serde_json::Value {
    let path = world.path("script");
    let wait = "while :; do sleep 0.02; done";
    fs::write(&path, format!("trap 'echo saved in good order; exit 1' INT\n{script}\n{wait}"))
        .expect("a script");
    json!({"template": "story", "variables": {"script": path}})
}

#[tokio::test]
async fn a_job_that_writes_more_than_the_limit_is_stopped_in_good_order_and_the_next_one_runs() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let _agent = Flood::agent(world.agent(&cluster)).env("TENDRIL_WORK_LIMIT", "32MiB").start();
    let script = "head -c 50331648 /dev/zero >fill; echo filled";
    let deployment = cluster.queue(polite(&world, script)).await;
    let row = deployment.ended().await;
    assert_eq!((row.status.as_str(), row.error_code.as_deref()), ("FAILED", Some("DISK_FULL")), "{row:?}");
    let message = row.error_message.clone().expect("a message");
    for part in [
        "its limit is 32 MiB (--work-limit / TENDRIL_WORK_LIMIT)",
        "this job had most of it, 48 MiB",
        "stopped during apply: it ended after one interrupt (SIGINT)",
    ] {
        assert!(message.contains(part), "{message}");
    }
    let log = deployment.log().await;
    log.assert_complete(&row);
    assert!(log.text().contains("saved in good order"), "{}", log.text());

    // What it wrote is gone, and the agent takes the next one.
    fs::write(world.path("script"), "echo quick").expect("a script");
    let next =
        cluster.queue(json!({"template": "story", "variables": {"script": world.path("script")}})).await;
    assert_eq!(next.ended().await.status, "SUCCESS");
}

/// A small file system of its own; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None, with the reason, where none can be made.
    fn mount(at: &Path, mib: u32, inodes: u32) -> Option<Self> {
        fs::create_dir_all(at).expect("a directory");
        let size = format!("size={mib}m,nr_inodes={inodes}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        if mounted.as_ref().is_ok_and(|mounted| mounted.status.success()) {
            return Some(Self(at.to_owned()));
        }
        println!("skipped: a file system can only be mounted by root: {mounted:?}");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: whatever still has a file open there is about to end.
        let _best_effort = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn on_a_full_disk_the_result_is_reported_and_the_log_says_what_is_missing() {
    let world = World::start().await;
    let disk = world.path("disk");
    // 64 MiB are reserved: there is little more.
    let Some(_mounted) = SmallDisk::mount(&disk, 96, 100_000) else { return };
    let cluster = world.cluster().await;
    let mut setup = Flood::agent(world.agent(&cluster));
    setup.cli.work_dir = Some(disk.join("work").display().to_string());
    let _agent = setup.start();
    // Not one block is free when the lines are printed.
    let script = format!(
        "echo 'line 1'; sleep 0.1; head -c 1000000000 /dev/zero >fill 2>/dev/null || true; {}",
        Flood::script(20_000)
    );
    let deployment = cluster.queue(polite(&world, &script)).await;
    let row = deployment.ended().await;
    assert_eq!((row.status.as_str(), row.error_code.as_deref()), ("FAILED", Some("DISK_FULL")), "{row:?}");
    let message = row.error_message.clone().expect("a message");
    assert!(message.contains("Only 0 MiB were free") && message.contains("64 MiB are reserved"), "{message}");
    let log = deployment.log().await;
    log.assert_complete(&row);
    let marked: Vec<_> =
        log.lines("agent").into_iter().filter(|line| line.contains("lines are missing")).collect();
    assert!(!marked.is_empty(), "{}", log.text());
    assert!(marked.iter().all(|line| line.contains("the agent's disk refused them")), "{marked:?}");
    assert!(log.text().contains("Failed after"), "its last lines are there: {}", log.text());
}

#[tokio::test]
async fn a_job_that_takes_nearly_all_inodes_is_stopped_in_good_order_and_another_one_goes_on() {
    let world = World::start().await;
    let disk = world.path("disk");
    // 4,096 files are reserved.
    let Some(_mounted) = SmallDisk::mount(&disk, 1024, 50_000) else { return };
    let cluster = world.cluster().await;
    let mut setup = Flood::agent(world.agent(&cluster)).concurrency(2);
    setup.cli.work_dir = Some(disk.join("work").display().to_string());
    let _agent = setup.start();
    let gate = world.path("gate");
    let waits = world.path("waits");
    fs::write(
        &waits,
        format!("echo waits; until [ -e {} ]; do sleep 0.02; done; echo 'goes on'", gate.display()),
    )
    .expect("a script");
    let other =
        cluster.queue(json!({"template": "story", "stack": "other", "variables": {"script": waits}})).await;
    other.says("waits").await;
    let script = "python3 -c 'for n in range(47000): open(f\"f{n}\", \"w\").close()'; echo filled";
    let deployment = cluster.queue(polite(&world, script)).await;
    let row = deployment.ended().await;
    assert_eq!((row.status.as_str(), row.error_code.as_deref()), ("FAILED", Some("DISK_FULL")), "{row:?}");
    let message = row.error_message.clone().expect("a message");
    for part in [
        "(inodes), and 4096 are reserved; this job had most of them, 4",
        "it ended after one interrupt (SIGINT)",
    ] {
        assert!(message.contains(part), "{message}");
    }
    deployment.log().await.assert_complete(&row);
    fs::write(&gate, "").expect("the gate");
    let other = other.ended().await;
    assert_eq!((other.status.as_str(), other.attempt), ("SUCCESS", 1), "{other:?}");
}

#[tokio::test]
async fn an_executor_that_is_killed_while_the_disk_is_full_costs_no_line() {
    const LINES: usize = 1000;
    let world = World::start().await;
    let disk = world.path("disk");
    let Some(_mounted) = SmallDisk::mount(&disk, 160, 100_000) else { return };
    let cluster = world.cluster().await;
    let mut setup = Flood::agent(world.agent(&cluster));
    let work = disk.join("work");
    setup.cli.work_dir = Some(work.display().to_string());
    let executors = setup.executors();
    let _agent = setup.start();
    let gate = world.path("gate");
    // Not one block is free when the lines are printed.
    let script = format!(
        "trap '' INT
        echo first
        until grep -q first '{work}'/*/journal/stdout; do sleep 0.02; done
        head -c 1000000000 /dev/zero >'{disk}/fill' 2>/dev/null || true
        {flood}
        until [ -e '{gate}' ]; do sleep 0.02; done; exit 0",
        work = work.display(),
        disk = disk.display(),
        flood = Flood::script(LINES as u64),
        gate = gate.display(),
    );
    let path = world.path("script");
    fs::write(&path, script).expect("a script");
    let job = cluster.queue(json!({"template": "story", "variables": {"script": path}})).await;
    let journal = work.join(format!("{}.1/journal/stdout", job.id));
    until("the lines are in the journal", async || {
        let journal = fs::read_to_string(&journal).map_err(|error| error.to_string())?;
        if journal.ends_with(&format!(" line {LINES}\n")) { Ok(()) } else { Err(journal.len().to_string()) }
    })
    .await;
    executors.signal(Signal::KILL);
    fs::remove_file(disk.join("fill")).expect("there is room again");
    fs::write(&gate, "").expect("the gate");
    let row = job.ended().await;
    let log = job.log().await;
    log.assert_complete(&row);
    let lines: Vec<usize> = log
        .lines("stdout")
        .iter()
        .filter_map(|line| line.strip_prefix("...")?.trim().strip_prefix("line ")?.parse().ok())
        .collect();
    assert_eq!(lines.len(), LINES, "{row:?}\n{:?}", log.lines("agent"));
    assert!(lines.iter().copied().eq(1..=LINES), "each once and in order");
}
