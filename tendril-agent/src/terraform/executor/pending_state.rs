//! State of an earlier run that its backend did not take: it is stored before anything is planned.

use std::{io, path::Path};

use crate::{
    job::{ErrorCode, Failure},
    terraform::{
        command::Step,
        executor::{StageError, TerraformExecutor},
        pending_push::{self, Push, Stored},
    },
};

impl TerraformExecutor<'_> {
    /// A plan against an older state would make everything again that is in the newer one: nothing is planned before what
    /// was pending is stored.
    pub(super) async fn push_pending(&self) -> Result<(), StageError> {
        let fault = |error: io::Error| Failure::internal("the state directory cannot be used", &error);
        if let Some((place, why)) =
            pending_push::gather(self.settings, self.state, self.workspace).map_err(fault)?
        {
            return Err(Failure::new(
                ErrorCode::StateNotStored,
                format!(
                    "State of an earlier run is in no backend yet. The only copy is {}, in the agent's work directory, and cannot be moved to the agent's state directory: {why}\nNothing was planned. Fix the state directory; then queue the deployment again.",
                    place.display()
                ),
            )
            .into());
        }
        for file in self.state.pending().map_err(fault)? {
            self.go_on(Step::Plan)?;
            let push = Push {
                settings: self.settings,
                runner: self.runner,
                state: self.state,
                workspace: self.workspace,
                stop: self.stop,
                id: self.job.id,
                attempt: self.job.attempt,
            };
            match push.store(&file).await.map_err(fault)? {
                Stored::Done => {}
                Stored::Refused(why) => {
                    return Err(self.not_stored(&file, &self.log.redactor.redact(&why)).into());
                }
                Stored::Stopped(exit) => return Err(StageError::Stopped(Step::Init, exit.stage, exit.code)),
            }
            self.annotate(format!(
                "State of an earlier run that was saved in {} is stored now.",
                file.display()
            ))
            .await;
        }
        Ok(())
    }

    fn not_stored(&self, file: &Path, why: &str) -> Failure {
        let command = format!("terraform state push {}", file.display());
        Failure::new(
            ErrorCode::StateNotStored,
            format!(
                "State of an earlier run is not in the backend yet, and cannot be stored: {why}\nIt is saved in {} on the agent's volume. Nothing was planned. Compare it with the state in the backend; then store it or remove the file: {}",
                file.display(),
                self.state.by_hand(&command)
            ),
        )
    }
}
