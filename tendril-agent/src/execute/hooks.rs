//! Programs of the agent's operator that run at fixed places of a run: their output is in the job's log, and those before an
//! apply can forbid it. This is where OPA, conftest or checkov plug in.
//!
//! ```text
//! <hook dir>/pre-init     before terraform init
//! <hook dir>/pre-plan     before terraform plan
//! <hook dir>/post-plan    after it, with the plan as JSON in the file $TENDRIL_PLAN_JSON
//! <hook dir>/post-apply   after an apply or destroy
//! <hook dir>/on-failure   after a failure, with $TENDRIL_ERROR_CODE and $TENDRIL_ERROR_MESSAGE
//! ```
//!
//! Each sees `$TENDRIL_DEPLOYMENT_ID`, `$TENDRIL_ATTEMPT`, `$TENDRIL_ACTION`, `$TENDRIL_TEMPLATE`, `$TENDRIL_STACK` and
//! `$TENDRIL_MODULE_DIR`, and the variables of the agent that begin with `TENDRIL_HOOK_`.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::time::sleep;

use crate::{
    job::{Action, ErrorCode, Failure, Job, JobSpec},
    os::{blocking, text::without_torn_line},
    process::{Command, GracePeriod, Runner, Sink, StopReason, StopSignal, Stream, StreamJournal},
    template::Workspace,
    terraform::{Log, environment::inherited},
};

/// Variables of the agent that a hook may see, beside those that every program may.
const ENVIRONMENT: &[&str] = &["TENDRIL_HOOK_*"];
/// How long a hook may take to end when it is interrupted.
const GRACE: GracePeriod = GracePeriod { graceful: Duration::from_secs(5), forced: Duration::from_secs(2) };
/// This much of the end of a hook's output is its reason.
const REASON: usize = 4096;

/// A place where a hook may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    PreInit,
    PrePlan,
    PostPlan,
    PostApply,
    OnFailure,
}

impl Hook {
    const ALL: [Self; 5] = [Self::PreInit, Self::PrePlan, Self::PostPlan, Self::PostApply, Self::OnFailure];

    /// Whether an executor that takes over the run runs it again, from its first line on.
    const fn runs_again(self) -> bool {
        matches!(self, Self::PostApply | Self::OnFailure)
    }

    /// The name of its file.
    const fn name(self) -> &'static str {
        match self {
            Self::PreInit => "pre-init",
            Self::PrePlan => "pre-plan",
            Self::PostPlan => "post-plan",
            Self::PostApply => "post-apply",
            Self::OnFailure => "on-failure",
        }
    }
}

/// Which hooks there are.
#[derive(Clone, Debug, Default)]
pub(crate) struct HookSettings {
    /// Where they are.
    pub(crate) dir: Option<PathBuf>,
    /// How long one may take.
    pub(crate) timeout: Duration,
}

impl HookSettings {
    /// The program of a hook, if there is one. Errors: nobody can say whether there is; one that may forbid is not passed over then.
    fn program(&self, hook: Hook) -> Result<Option<PathBuf>, String> {
        let Some(dir) = &self.dir else { return Ok(None) };
        let path = dir.join(hook.name());
        match fs::symlink_metadata(&path) {
            Ok(_) => Ok(Some(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && dir.is_dir() => Ok(None),
            Err(error) => {
                Err(format!("--hook-dir / TENDRIL_HOOK_DIR {} cannot be read ({error})", dir.display()))
            }
        }
    }
}

/// Looks into a directory of hooks. Errors: a sentence for each file that would not run.
pub(crate) fn inspect(dir: &Path) -> Result<(), String> {
    let name = "--hook-dir / TENDRIL_HOOK_DIR";
    let entries =
        fs::read_dir(dir).map_err(|error| format!("{name} {} cannot be read ({error})", dir.display()))?;
    let known = Hook::ALL.map(Hook::name);
    for entry in entries.filter_map(Result::ok) {
        let file = entry.file_name().to_string_lossy().into_owned();
        // What a mounted ConfigMap has beside its files, and notes for people.
        if file.starts_with('.') || file.contains('.') {
            continue;
        }
        if !known.contains(&file.as_str()) {
            return Err(format!(
                "{name} {} holds \"{file}\", which is no hook: there are {}",
                dir.display(),
                known.join(", ")
            ));
        }
        let is_program = fs::metadata(entry.path())
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
        if !is_program {
            return Err(format!("{name}: {} is not executable: chmod +x it", entry.path().display()));
        }
    }
    Ok(())
}

/// The hooks of one attempt.
pub(crate) struct Hooks<'a> {
    pub(crate) settings: &'a HookSettings,
    pub(crate) runner: &'a dyn Runner,
    pub(crate) job: &'a Job,
    pub(crate) workspace: &'a Workspace,
    pub(crate) log: &'a Log,
    pub(crate) stop: &'a StopSignal,
}

impl Hooks<'_> {
    /// Whether there is such a hook, or may be.
    pub(crate) fn has(&self, hook: Hook) -> bool {
        self.settings.program(hook) != Ok(None)
    }

    /// Runs a hook that may forbid to go on. Errors: it did; its output is the reason.
    pub(crate) async fn ask(
        &self,
        hook: Hook,
        spec: &JobSpec,
        more: &[(&str, OsString)],
    ) -> Result<(), Failure> {
        let denied = |why: String| {
            Failure::new(
                ErrorCode::PolicyDenied,
                format!("The hook {} of this agent refused: {why}", hook.name()),
            )
        };
        self.run(hook, Some(spec), more).await.map_err(denied)
    }

    /// Runs a hook whose result changes nothing.
    pub(crate) async fn notify(&self, hook: Hook, spec: Option<&JobSpec>, more: &[(&str, OsString)]) {
        if let Err(why) = self.run(hook, spec, more).await {
            tracing::warn!(hook = hook.name(), why, "a hook failed");
            self.log.writer.annotate(format!("The hook {} failed: {why}", hook.name())).await;
        }
    }

    async fn run(&self, hook: Hook, spec: Option<&JobSpec>, more: &[(&str, OsString)]) -> Result<(), String> {
        let Some(program) = self.settings.program(hook)? else { return Ok(()) };
        self.log.writer.annotate(format!("hook {}", hook.name())).await;
        let env = self.environment(hook, spec, more);
        let dir = self.workspace.hook_dir();
        let command = Command { program, args: Vec::new(), dir, env, grace_period: GRACE, goes_on: None };
        let workspace = self.workspace.clone();
        let confined = blocking(move || {
            workspace.make_hook_dir()?;
            workspace.confine(command, false)
        });
        let command =
            confined.await.map_err(|error| format!("the agent's work directory cannot be used ({error})"))?;
        let output = Output { log: self.log, tail: Tail::default(), is_journaled: !hook.runs_again() };
        let own = StopSignal::default();
        let mut running = self.runner.run(command, &output, &own);
        let exit = tokio::select! {
            exit = &mut running => exit,
            () = sleep(self.settings.timeout) => {
                own.request(StopReason::Cancelled);
                let _ended = running.await;
                return Err(format!("it did not end within {} s (--hook-timeout)", self.settings.timeout.as_secs()));
            }
            () = self.stop.wait() => {
                own.request(StopReason::Cancelled);
                let _ended = running.await;
                return Err("the job was stopped meanwhile".to_owned());
            }
        };
        self.log.writer.findings().await;
        match exit.map_err(|error| format!("it cannot be started ({error})"))?.code {
            Some(0) => Ok(()),
            code => {
                let tail = self.log.redactor.redact(&output.tail.text()).trim().to_owned();
                let code = code.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"));
                Err(if tail.is_empty() { format!("it ended with {code} and no output") } else { tail })
            }
        }
    }

    fn environment(
        &self,
        hook: Hook,
        spec: Option<&JobSpec>,
        more: &[(&str, OsString)],
    ) -> BTreeMap<OsString, OsString> {
        let mut env = inherited(ENVIRONMENT);
        let home = self.workspace.hook_dir();
        let mut set = |name: &str, value: OsString| drop(env.insert(name.into(), value));
        set("HOME", home.clone().into());
        set("TMPDIR", home.into());
        // Processes that it leaves are found by it.
        set("TF_DATA_DIR", self.workspace.data_dir().into());
        set("TENDRIL_MODULE_DIR", self.workspace.module_dir().into());
        set("TENDRIL_HOOK", hook.name().into());
        set("TENDRIL_DEPLOYMENT_ID", self.job.id.to_string().into());
        set("TENDRIL_ATTEMPT", self.job.attempt.to_string().into());
        if let Some(spec) = spec {
            let action = match spec.action {
                Action::Plan => "plan",
                Action::Apply => "apply",
                Action::Destroy => "destroy",
            };
            set("TENDRIL_ACTION", action.into());
            set("TENDRIL_TEMPLATE", spec.source.key().into());
            set("TENDRIL_STACK", spec.stack.clone().unwrap_or_default().into());
        }
        for (name, value) in more {
            set(name, value.clone());
        }
        env
    }
}

/// Sends a hook's output to the log, and stores the end of it.
struct Output<'a> {
    log: &'a Log,
    tail: Tail,
    /// Whether what it wrote is read again by an executor that takes over the run.
    is_journaled: bool,
}

impl Sink for Output<'_> {
    fn write(&self, stream: Stream, bytes: Vec<u8>) -> BoxFuture<'_, ()> {
        self.tail.push(&bytes);
        self.log.writer.write(stream, bytes)
    }

    fn write_journaled(&self, stream: Stream, bytes: Vec<u8>, end: u64) -> BoxFuture<'_, ()> {
        self.tail.push(&bytes);
        self.log.writer.write_journaled(stream, bytes, end)
    }

    fn journal(&self, stream: Stream) -> Option<&StreamJournal> {
        self.log.writer.journal(stream).filter(|_| self.is_journaled)
    }
}

/// The last bytes of an output.
#[derive(Debug, Default)]
struct Tail(Mutex<(Vec<u8>, bool)>);

impl Tail {
    fn push(&self, bytes: &[u8]) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (tail, is_cut) = &mut *state;
        tail.extend_from_slice(bytes);
        let over = tail.len().saturating_sub(REASON);
        *is_cut |= over > 0;
        tail.drain(..over);
    }

    /// Its whole lines.
    fn text(&self) -> String {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&state.0);
        match (state.1, without_torn_line(&text)) {
            (false, _) => text.into_owned(),
            (true, "") => "its output is one long line, and in the log".to_owned(),
            (true, whole) => whole.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_two_lines() {
        let tail = Tail::default();
        tail.push(b"short");
        assert_eq!(tail.text(), "short");
        for number in 0..1000 {
            tail.push(format!("a line with s3cret-number-{number:04}\n").as_bytes());
        }
        let text = tail.text();
        assert!(text.len() <= REASON && text.starts_with("a line with s3cret-number-"), "{text}");
        tail.push("x".repeat(2 * REASON).as_bytes());
        assert_eq!(tail.text(), "its output is one long line, and in the log");
    }

    #[test]
    fn a_hook_that_cannot_be_looked_for_is_not_taken_for_one_that_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let settings = HookSettings { dir: Some(dir.path().join("hooks")), timeout: Duration::from_secs(1) };
        assert!(settings.program(Hook::PostPlan).unwrap_err().contains("cannot be read"));
        fs::create_dir(dir.path().join("hooks")).unwrap();
        assert_eq!(settings.program(Hook::PostPlan), Ok(None));
        let hook = dir.path().join("hooks/post-plan");
        std::os::unix::fs::symlink("not-there", &hook).unwrap();
        assert_eq!(settings.program(Hook::PostPlan), Ok(Some(hook)), "it is started, and that fails");
        assert_eq!(HookSettings::default().program(Hook::PostPlan), Ok(None));
    }

    #[test]
    fn a_hook_that_would_not_run_is_found_at_start() {
        let dir = tempfile::tempdir().unwrap();
        inspect(dir.path()).unwrap();
        fs::write(dir.path().join("README.md"), "").unwrap();
        fs::write(dir.path().join("post-plan"), "#!/bin/sh\n").unwrap();
        assert!(inspect(dir.path()).unwrap_err().contains("post-plan is not executable"));
        fs::set_permissions(dir.path().join("post-plan"), fs::Permissions::from_mode(0o755)).unwrap();
        inspect(dir.path()).unwrap();
        fs::write(dir.path().join("post_plan"), "").unwrap();
        assert!(
            inspect(dir.path()).unwrap_err().contains("\"post_plan\", which is no hook: there are pre-init")
        );
        assert!(inspect(&dir.path().join("none")).unwrap_err().contains("cannot be read"));
    }
}
