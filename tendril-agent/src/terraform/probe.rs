//! Asks a program which version of Terraform it is. What hangs, floods or answers nonsense is a problem with a sentence.

use std::{
    env,
    ffi::OsString,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use serde::Deserialize;
use tokio::time::sleep;

use crate::process::{Command, GracePeriod, LocalRunner, Runner as _, Sink, StopReason, StopSignal, Stream};

/// How long a program may take to say its version.
pub(crate) const PROBE_LIMIT: Duration = Duration::from_secs(20);
/// Most that it may say.
const LONGEST_ANSWER: usize = 64 * 1024;
/// How long it may take to end when it is interrupted.
const GRACE: GracePeriod =
    GracePeriod { graceful: Duration::from_millis(500), forced: Duration::from_millis(500) };

/// The part of `version -json` that is read. Both products name the field after terraform.
#[derive(Deserialize)]
struct Answer {
    terraform_version: String,
}

/// The version that a program says it is. Errors: why it does not say one.
pub(crate) async fn version_of(program: &Path, limit: Duration) -> Result<String, String> {
    let variable = |name: &str| env::var_os(name).map(|value| (OsString::from(name), value));
    let set = |name: &str, value: &str| Some((OsString::from(name), OsString::from(value)));
    let env = [variable("PATH"), set("HOME", "/nonexistent"), set("CHECKPOINT_DISABLE", "1")];
    let command = Command {
        program: program.to_path_buf(),
        args: ["version", "-json"].map(OsString::from).into(),
        dir: "/".into(),
        env: env.into_iter().flatten().collect(),
        grace_period: GRACE,
        goes_on: None,
    };
    let (stop, answer) = (StopSignal::default(), Capture::default());
    let mut running = LocalRunner.run(command, &answer, &stop);
    let exit = tokio::select! {
        exit = &mut running => exit.map_err(|error| error.to_string())?,
        () = sleep(limit) => {
            stop.request(StopReason::Cancelled);
            let _ended = running.await;
            return Err(format!("\"version -json\" did not end within {} s", limit.as_secs_f32()));
        }
    };
    drop(running);
    match exit.code {
        Some(0) => {}
        Some(code) => return Err(format!("\"version -json\" ended with exit status: {code}")),
        None => return Err("\"version -json\" was killed by a signal".to_owned()),
    }
    let answer = answer.0.into_inner().unwrap_or_else(PoisonError::into_inner);
    let read = serde_json::from_slice::<Answer>(&answer).ok().filter(|_| answer.len() <= LONGEST_ANSWER);
    read.map(|answer| answer.terraform_version)
        .ok_or_else(|| "\"version -json\" did not answer with a version".to_owned())
}

/// Keeps the beginning of what a program prints.
#[derive(Debug, Default)]
struct Capture(Mutex<Vec<u8>>);

impl Sink for Capture {
    fn write(&self, stream: Stream, bytes: Vec<u8>) -> BoxFuture<'_, ()> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if stream == Stream::Stdout && kept.len() <= LONGEST_ANSWER {
            kept.extend_from_slice(&bytes);
        }
        Box::pin(std::future::ready(()))
    }
}
