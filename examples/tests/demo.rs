//! `make demo` as a newcomer sees it. Needs the agent: `cargo build -p tendril-agent --bins`.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use std::{
    collections::HashMap,
    env,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

/// A program that Cargo built beside this test.
fn example(name: &str) -> Command {
    let test = env::current_exe().unwrap();
    let path: PathBuf = test.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build -p tendril-examples --examples`",
        path.display()
    );
    let mut command = Command::new(path);
    // Anywhere will do, and nobody's settings matter.
    command.current_dir(env::temp_dir()).stdin(Stdio::null());
    for name in ["SUPABASE_URL", "SUPABASE_ANON_KEY", "TENDRIL_AGENT_TOKEN", "TENDRIL_TEMPLATES_DIR"] {
        command.env_remove(name);
    }
    command
}

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_demo_shows_every_line_in_order_and_ends_with_success() {
    let output = example("demo").args(["--var", "lines=30"]).output().unwrap();
    let (out, err) = text(&output);
    assert!(output.status.success(), "{out}\n{err}");
    let numbers: Vec<u32> = out
        .lines()
        .filter_map(|line| line.split_once("line ")?.1.split_once(" of 30")?.0.parse().ok())
        .collect();
    assert_eq!(numbers, (1..=30).collect::<Vec<_>>(), "{out}");
    for fact in [
        "SUCCESS after",
        "message = \"Hello, Tendril!\"",
        "after the insert",
        "exit 0, its cluster is OFFLINE",
    ] {
        assert!(out.contains(fact), "no \"{fact}\" in\n{out}");
    }
    assert!(!out.contains('\x1b'), "colours belong on a terminal:\n{out}");
}

#[test]
fn a_deployment_that_fails_fails_the_demo_with_its_reason() {
    let output = example("demo").args(["--var", "greeting=H3llo"]).output().unwrap();
    let (out, err) = text(&output);
    assert_eq!(output.status.code(), Some(1), "{out}\n{err}");
    assert!(out.contains("FAILED") && out.contains("variable \"greeting\""), "{out}");
    assert!(err.contains("The end of the agent's own log"), "{err}");
}

/// Ends with the test, also when that fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_is_kept_takes_further_deployments_until_ctrl_c() {
    let mut stored = Running(example("demo").arg("--keep").stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(stored.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let exports: HashMap<String, String> = lines
        .by_ref()
        .take_while(|line| !line.starts_with("psql"))
        .filter_map(|line| {
            let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        })
        .collect();
    assert_eq!(exports.len(), 4, "{exports:?}");

    let deployed = example("deploy").envs(&exports).args(["--var", "name=you"]).output().unwrap();
    let (out, err) = text(&deployed);
    assert!(deployed.status.success(), "{out}\n{err}");
    assert!(out.contains("Hello, you!"), "{out}");

    let failed = example("deploy").envs(&exports).args(["--template", "nope"]).output().unwrap();
    let (out, err) = text(&failed);
    assert_eq!(failed.status.code(), Some(1), "{out}\n{err}");
    assert!(out.contains("no template \"nope\""), "{out}");

    let id = Pid::from_raw(stored.0.id().try_into().unwrap()).unwrap();
    kill_process(id, Signal::INT).unwrap();
    let rest: Vec<String> = lines.collect();
    assert!(stored.0.wait().unwrap().success(), "{rest:?}");
}
