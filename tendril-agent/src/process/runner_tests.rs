use std::{
    ffi::OsString,
    fs,
    path::Path,
    sync::Mutex,
    time::{Duration, Instant},
};

use super::*;
use crate::process::cancellation::StopReason;

/// Stores what was written.
#[derive(Default)]
struct Captured(Mutex<(String, String)>);

impl Sink for Captured {
    fn write(&self, stream: Stream, bytes: Vec<u8>) -> BoxFuture<'_, ()> {
        let text = String::from_utf8(bytes).unwrap();
        let mut captured = self.0.lock().unwrap();
        match stream {
            Stream::Stderr => captured.1.push_str(&text),
            _ => captured.0.push_str(&text),
        }
        Box::pin(std::future::ready(()))
    }
}

impl Captured {
    fn stdout(&self) -> String {
        self.0.lock().unwrap().0.clone()
    }

    fn stderr(&self) -> String {
        self.0.lock().unwrap().1.clone()
    }

    /// Waits until the program has printed this.
    async fn has(&self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.stdout().contains(text) {
            assert!(Instant::now() < deadline, "the program never printed {text}");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

fn script(text: &str) -> Command {
    Command {
        program: "/bin/bash".into(),
        args: vec!["-c".into(), text.into()],
        dir: "/".into(),
        env: [("PATH".into(), std::env::var_os("PATH").unwrap_or_default())].into(),
        grace_period: GracePeriod { graceful: Duration::from_secs(20), forced: Duration::from_secs(20) },
        goes_on: None,
    }
}

/// Whether a process is there and no zombie.
fn is_running(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim_start().starts_with('Z'))
}

async fn until_ended(pid: &str) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while is_running(pid) {
        assert!(Instant::now() < deadline, "process {pid} is still there");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn both_streams_and_the_exit_code_arrive() {
    let captured = Captured::default();
    let exit = LocalRunner
        .run(script("echo out; echo err >&2; exit 7"), &captured, &StopSignal::default())
        .await
        .unwrap();
    assert_eq!(exit, Exit { code: Some(7), stage: TerminationStage::Untouched });
    assert_eq!((captured.stdout().as_str(), captured.stderr().as_str()), ("out\n", "err\n"));
}

#[tokio::test]
async fn the_environment_is_exactly_what_was_given() {
    let mut command = script("env | sort");
    command.env.insert(OsString::from("ONLY"), OsString::from("this"));
    let captured = Captured::default();
    LocalRunner.run(command, &captured, &StopSignal::default()).await.unwrap();
    let names: Vec<_> = captured
        .stdout()
        .lines()
        .filter_map(|line| line.split_once('=').map(|(name, _)| name.to_owned()))
        .collect();
    // The shell itself adds three.
    assert_eq!(names, ["ONLY", "PATH", "PWD", "SHLVL", "_"]);
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error() {
    let mut command = script("");
    command.program = "/no/such/program".into();
    let error = LocalRunner.run(command, &Captured::default(), &StopSignal::default()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn one_interrupt_reaches_the_group_and_lets_the_leader_finish() {
    let (captured, stop) = (Captured::default(), StopSignal::default());
    let command = script(
        "trap 'echo saving; exit 1' INT; (trap '' INT; echo provider $BASHPID; sleep 600) & sleep 600 & echo ready; wait",
    );
    let run = LocalRunner.run(command, &captured, &stop);
    let order = async {
        captured.has("ready").await;
        captured.has("provider").await;
        stop.request(StopReason::Cancelled);
    };
    let (exit, ()) = tokio::join!(run, order);
    assert_eq!(exit.unwrap(), Exit { code: Some(1), stage: TerminationStage::Interrupted });
    let out = captured.stdout();
    assert!(out.contains("saving"), "{out}");
    // What ignored the interrupt is gone with its group all the same.
    let provider = out.lines().find_map(|line| line.strip_prefix("provider ")).unwrap().to_owned();
    until_ended(&provider).await;
}

#[tokio::test]
async fn the_second_interrupt_comes_after_the_patience() {
    let (captured, stop) = (Captured::default(), StopSignal::default());
    let mut command = script(
        "n=0; trap 'n=$((n+1)); echo int $n; [ $n = 2 ] && exit 1' INT; echo ready; while :; do sleep 0.02; done",
    );
    command.grace_period.graceful = Duration::from_millis(300);
    let run = LocalRunner.run(command, &captured, &stop);
    let order = async {
        captured.has("ready").await;
        stop.request(StopReason::Cancelled);
    };
    let (exit, ()) = tokio::join!(run, order);
    assert_eq!(exit.unwrap().stage, TerminationStage::InterruptedTwice);
    assert!(captured.stdout().contains("int 1\nint 2"), "{}", captured.stdout());
}

#[tokio::test]
async fn haste_cuts_the_patience_short_and_deaf_programs_are_killed() {
    let (captured, stop) = (Captured::default(), StopSignal::default());
    let mut command = script("trap '' INT TERM; echo ready $$; while :; do sleep 0.02; done");
    command.grace_period.forced = Duration::from_millis(100);
    let run = LocalRunner.run(command, &captured, &stop);
    let order = async {
        captured.has("ready").await;
        stop.request(StopReason::ShuttingDown);
        stop.force();
    };
    let (exit, ()) = tokio::join!(run, order);
    assert_eq!(exit.unwrap(), Exit { code: None, stage: TerminationStage::Killed });
}

#[tokio::test]
async fn haste_sends_a_second_interrupt_that_is_seen_as_one_of_its_own() {
    let (captured, stop) = (Captured::default(), StopSignal::default());
    let dir = tempfile::tempdir().unwrap();
    let mut command = script(
        "n=0; trap 'n=$((n+1)); echo int $n; [ $n = 2 ] && exit 1' INT; echo ready; while :; do sleep 0.02; done",
    );
    // What an earlier program was sent does not count.
    EscalationRecord::note(&dir.path().join("data"), TerminationStage::Interrupted);
    command.env.insert("TF_DATA_DIR".into(), dir.path().join("data").into());
    let run = LocalRunner.run(command, &captured, &stop);
    let order = async {
        captured.has("ready").await;
        stop.request(StopReason::ShuttingDown);
        stop.force();
    };
    let (exit, ()) = tokio::join!(run, order);
    assert_eq!(exit.unwrap(), Exit { code: Some(1), stage: TerminationStage::InterruptedTwice });
    assert!(captured.stdout().contains("int 1\nint 2"), "{}", captured.stdout());
    // A later run reads what was sent.
    assert_eq!(
        EscalationRecord::noted(&dir.path().join("data")).unwrap().stage,
        TerminationStage::InterruptedTwice
    );
}

#[tokio::test]
async fn an_orphan_that_holds_the_pipes_does_not_hold_the_job() {
    let (captured, started) = (Captured::default(), Instant::now());
    let exit =
        LocalRunner.run(script("sleep 600 & echo $!"), &captured, &StopSignal::default()).await.unwrap();
    assert_eq!(exit.code, Some(0));
    assert!(started.elapsed() < Duration::from_secs(60));
    until_ended(&captured.stdout()).await;
}

#[tokio::test]
async fn a_run_that_is_abandoned_leaves_no_process() {
    let (captured, stop) = (Captured::default(), StopSignal::default());
    let run = LocalRunner.run(script("trap '' INT TERM; echo $$; sleep 600"), &captured, &stop);
    tokio::select! {
        exit = run => panic!("it ended: {exit:?}"),
        () = captured.has("\n") => {}
    }
    until_ended(&captured.stdout()).await;
}

#[tokio::test]
async fn a_flood_arrives_whole() {
    let captured = Captured::default();
    let exit = LocalRunner
        .run(script("yes 0123456789 | head -n 200000"), &captured, &StopSignal::default())
        .await
        .unwrap();
    assert_eq!(exit.code, Some(0));
    assert_eq!(captured.stdout().len(), 200_000 * 11);
}

/// Takes its time for each portion, as a disk that is stalled.
#[derive(Default)]
struct Slow(Captured);

impl Sink for Slow {
    fn write(&self, stream: Stream, bytes: Vec<u8>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            sleep(Duration::from_millis(400)).await;
            self.0.write(stream, bytes).await;
        })
    }
}

#[tokio::test]
async fn the_last_words_arrive_however_slow_the_disk_is() {
    let slow = Slow::default();
    let script = script("head -c 700000 /dev/zero | tr '\\000' x; echo last line");
    LocalRunner.run(script, &slow, &StopSignal::default()).await.unwrap();
    assert!(slow.0.stdout().ends_with("xxlast line\n"), "{}", slow.0.stdout().len());
}

#[tokio::test]
async fn a_process_that_writes_for_ever_does_not_hold_the_job() {
    let (captured, started) = (Captured::default(), Instant::now());
    let writer =
        "setsid bash -c 'echo $$; while :; do echo still here; sleep 0.1; done' & sleep 0.3; echo done";
    let exit = LocalRunner.run(script(writer), &captured, &StopSignal::default()).await.unwrap();
    assert_eq!(exit.code, Some(0));
    let took = started.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    let pid = captured.stdout().lines().next().unwrap().to_owned();
    let _left = std::process::Command::new("kill").args(["-9", &pid]).status();
}

/// Runs a script whose processes hide; none of them may be left.
async fn leaves_nothing(text: &str) {
    zombies::adopt_orphans(true).unwrap();
    let captured = Captured::default();
    let exit = LocalRunner.run(script(text), &captured, &StopSignal::default()).await.unwrap();
    assert_eq!(exit.code, Some(0), "{}", captured.stderr());
    let me = std::process::id().to_string();
    let children = std::process::Command::new("ps")
        .args(["--no-headers", "--ppid", &me, "-o", "stat,nlwp,args"])
        .output()
        .unwrap();
    let children = String::from_utf8_lossy(&children.stdout).into_owned();
    let has_ended = |line: &str| line.split_whitespace().take(2).eq(["Z", "1"]);
    let left: Vec<&str> =
        children.lines().filter(|line| !has_ended(line) && !line.contains("ps --no-headers")).collect();
    assert_eq!(left, [""; 0]);
}

#[tokio::test]
async fn whatever_hides_from_its_job_is_found_by_its_descent() {
    // A session of its own, nothing in its environment, no open file, another directory, another name, a parent that is gone;
    // and one that makes new ones as fast as it can.
    let hidden = "env -i /usr/bin/setsid /bin/bash -c 'cd /; echo $$ >&3; exec 3>&- >/dev/null 2>&1 </dev/null; (trap \"\" INT TERM HUP; exec -a kworker sleep 600)' 3>&1 &";
    let bomb = "env -i /usr/bin/setsid /bin/bash -c 'f() { (sleep 0.01; f) & }; f; f; f; sleep 600' >/dev/null 2>&1 &";
    leaves_nothing(&format!("{hidden} {bomb} sleep 0.5; echo done")).await;
}

#[tokio::test]
async fn a_process_that_is_always_another_one_is_found_by_its_descent() {
    // Each starts the next one and ends.
    let next = "import os\nwhile True:\n  if os.fork(): os._exit(0)";
    let text = format!("env -i /usr/bin/setsid python3 -c '{next}' >/dev/null 2>&1 & sleep 0.3");
    leaves_nothing(&text).await;
}

#[tokio::test]
async fn a_process_whose_first_thread_has_ended_is_found_by_its_descent() {
    // It looks like a zombie.
    let thread = "import ctypes,threading,time\nthreading.Thread(target=time.sleep,args=(600,)).start()\nctypes.CDLL(None).pthread_exit(0)";
    let text = format!(
        "env -i /usr/bin/setsid python3 -c '{thread}' >/dev/null 2>&1 & until grep -q '^State:.Z' /proc/$!/status; do sleep 0.02; done"
    );
    leaves_nothing(&text).await;
}

#[test]
fn a_group_is_killed_once_and_its_number_forgotten() {
    thread_local!(static SENT: std::cell::RefCell<Vec<Signal>> = const { std::cell::RefCell::new(Vec::new()) });
    let send = |_, signal| {
        SENT.with_borrow_mut(|sent| sent.push(signal));
        Ok(())
    };
    let mut group = Group { pid: Pid::from_raw(1234), data_dir: None, send };
    group.signal(Signal::INT);
    group.kill();
    group.kill();
    group.interrupt(TerminationStage::Interrupted);
    drop(group);
    assert_eq!(SENT.take(), [Signal::INT, Signal::KILL]);
}

#[tokio::test]
async fn where_memory_is_used_up_a_program_and_what_it_starts_are_killed_before_this_process() {
    let captured = Captured::default();
    let read = "cat /proc/self/oom_score_adj";
    LocalRunner
        .run(script(&format!("sleep 0.1; {read}; ({read})")), &captured, &StopSignal::default())
        .await
        .unwrap();
    let own: i32 = fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    let score = (own + 500).min(1000);
    assert_eq!(captured.stdout(), format!("{score}\n{score}\n"));
}
