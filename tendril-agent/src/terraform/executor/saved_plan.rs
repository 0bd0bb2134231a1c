//! The saved plan, shown: as JSON in a file, and as changes.

use std::{io, path::Path};

use futures_util::future::BoxFuture;

use crate::{
    job::Failure,
    os::blocking,
    process::{FileSink, Sink, Stream},
    terraform::{
        command::Step,
        executor::{StageError, TerraformExecutor},
        pending_push::StderrTail,
        plan_changes::{self, PlannedChanges},
    },
};

impl TerraformExecutor<'_> {
    /// Writes the saved plan as JSON into a file. Errors: Terraform's message.
    pub(crate) async fn show_plan(&self, file: &Path) -> Result<(), StageError> {
        let fault = |error: io::Error| Failure::internal("the plan cannot be written as JSON", &error);
        let sink = FileSink::create(file).map_err(fault)?;
        let command = self.settings.program.show_plan(self.workspace, &self.settings.timing);
        let (exit, findings) = self.run(command, &sink).await?;
        self.check_exit(Step::Plan, exit, &findings)?;
        Ok(sink.finish().map_err(fault)?)
    }

    /// What the saved plan changes, resource by resource. Errors: the program cannot show it, which is no reason to fail.
    pub(crate) async fn planned_changes(&self) -> io::Result<PlannedChanges> {
        let shown = ShownPlan::default();
        let command = self.settings.program.show_plan(self.workspace, &self.settings.timing)?;
        let exit = self.runner.run(command, &shown, self.stop).await?;
        if exit.code != Some(0) {
            let output = self.log.redactor.redact(&shown.stderr.into_text()).into_owned();
            return Err(io::Error::other(output));
        }
        let retained = shown.stdout.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        if retained.len() > SHOWN_LIMIT {
            return Err(io::Error::other("it is larger than 32 MiB"));
        }
        let redactor = self.log.redactor.clone();
        blocking(move || Ok(plan_changes::read(&retained, &redactor)?)).await
    }
}

/// The longest plan that is shown.
const SHOWN_LIMIT: usize = 32 * 1024 * 1024;

/// Captures what `show` prints. Nothing of it may reach the log: it contains the values of everything.
#[derive(Debug, Default)]
struct ShownPlan {
    stdout: std::sync::Mutex<Vec<u8>>,
    stderr: StderrTail,
}

impl Sink for ShownPlan {
    fn write(&self, stream: Stream, bytes: Vec<u8>) -> BoxFuture<'_, ()> {
        if stream != Stream::Stdout {
            return self.stderr.write(stream, bytes);
        }
        let mut retained = self.stdout.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if retained.len() <= SHOWN_LIMIT {
            retained.extend_from_slice(&bytes);
        }
        Box::pin(std::future::ready(()))
    }
}
