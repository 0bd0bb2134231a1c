//! An apply that an earlier process of the agent began.

use std::{io, time::Instant};

use crate::{
    job::{ErrorCode, Failure},
    process::keeper,
    terraform::{
        command::{Step, grace_period},
        executor::{StageError, TerraformExecutor, Timed},
        state::{lock_owner::LockOwner, state_dump::StateDumpFilter},
    },
};

/// Of an apply whose end was not stored.
const LOST: &str = "The agent was killed while Terraform applied the plan, and so was the process that stores Terraform's exit code. Resources may have been changed, and the state may still be locked: check both before you queue it again.";

impl TerraformExecutor<'_> {
    /// Takes over the apply that a previous run of the agent began, and that went on or has ended since.
    pub(crate) async fn adopt_apply(&self) -> Result<(), StageError> {
        let (exit_file, data_dir) = (self.workspace.exit_file(), self.workspace.data_dir());
        let disk = |error: io::Error| Failure::internal("the agent's work directory cannot be read", &error);
        let _timed = Timed { step: Step::Apply, since: Instant::now() };
        let owner = LockOwner::of_adopted(&self.workspace.lock_owner_file()).unwrap_or_else(|_| {
            let operation = Step::Apply.operation().unwrap_or_default();
            LockOwner::new(
                self.job.id,
                self.job.attempt,
                self.state,
                operation,
                self.settings.timing.lock_timeout,
            )
        });
        let grace_period = grace_period(Step::Apply, &self.settings.timing);
        let dumps = StateDumpFilter::new(&self.log.writer, self.state, self.workspace);
        let adopt = async {
            let exit =
                keeper::adopt(&exit_file, &data_dir, &dumps, self.stop, grace_period).await.map_err(disk)?;
            let exit = exit.ok_or_else(|| Failure::new(ErrorCode::AgentLost, LOST))?;
            Ok((exit, self.log.writer.findings().await))
        };
        let (exit, findings) = self.as_owner(owner, Step::Apply, &dumps, adopt).await?;
        self.check_exit(Step::Apply, exit, &findings)?;
        self.state.clear_stale();
        Ok(())
    }
}
