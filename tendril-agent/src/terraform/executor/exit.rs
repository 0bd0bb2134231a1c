//! What the exit of a step means.

use crate::{
    job::{ErrorCode, Failure, Findings},
    process::Exit,
    telemetry,
    terraform::{
        command::Step,
        executor::{StageError, TerraformExecutor},
    },
};

impl TerraformExecutor<'_> {
    pub(super) fn check_exit(&self, step: Step, exit: Exit, findings: &Findings) -> Result<(), StageError> {
        // The exit code is lost if the process that stores it was killed. Terraform's last message shows how the apply ended.
        let is_complete = step == Step::Apply && exit.code.is_none() && findings.is_complete;
        let exit = if is_complete { Exit { code: Some(0), ..exit } } else { exit };
        if self.stop.requested().is_some() {
            if let Some(stage) = exit.stage.name() {
                metrics::counter!(telemetry::STEPS_STOPPED, "stage" => stage).increment(1);
            }
            return Err(StageError::Stopped(step, exit.stage, exit.code));
        }
        if step.succeeded(exit.code) {
            return Ok(());
        }
        metrics::counter!(telemetry::STEPS_FAILED, "step" => step.name()).increment(1);
        let name = self.settings.program.name();
        let mut message = findings.error.clone().unwrap_or_else(|| match exit.code {
            Some(code) => format!("{name} {} ended with exit code {code}; see the log", step.name()),
            None => format!(
                "{name} {} was killed by a signal from outside the agent (out of memory?); the log shows how far it came",
                step.name()
            ),
        });
        if findings.further_errors > 0 {
            let further = findings.further_errors;
            message = format!("{message}\n(and {further} more errors in the log)");
        }
        if step == Step::Apply && findings.applied > 0 {
            let count = findings.applied;
            message = format!(
                "{message}\nApplied in part: {count} resources were changed before that, and are in the state."
            );
        }
        Err(Failure::new(ErrorCode::TerraformFailed, message).into())
    }
}
