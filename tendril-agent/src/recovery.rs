//! What an earlier life of this agent left behind: lines that were not uploaded, results that were not stored.

use std::{io, path::PathBuf, sync::Arc};

use tendril_realtime::Rest;

use crate::{
    config::Config,
    job::{Ending, ErrorCode, Failure},
    log_sink::LogSink,
    log_spool::{LogSpool, SpoolReader, Stream},
    report::{ClaimRecord, FinalStatus, Reporter, Written},
    workspace::Workspace,
};

/// Uploads and reports everything that is left, one attempt after the other.
pub(crate) async fn recover(config: Arc<Config>, rest: Rest) {
    let left = match leftovers(&config) {
        Ok(left) => left,
        Err(error) => {
            tracing::error!(%error, "the work directory cannot be searched for what an earlier life left");
            return;
        }
    };
    for root in left {
        let shown = root.display().to_string();
        match recover_one(&config, &rest, Workspace::at(root)).await {
            Ok(()) => tracing::info!(directory = shown, "an earlier life's attempt is settled"),
            Err(error) => {
                tracing::error!(directory = shown, %error, "an earlier life's attempt cannot be settled; it is kept");
            }
        }
    }
}

/// The attempts' directories, `<deployment>.<attempt>`.
fn leftovers(config: &Config) -> io::Result<Vec<PathBuf>> {
    let mut left = Vec::new();
    for entry in std::fs::read_dir(&config.work_dir)? {
        let path = entry?.path();
        if path.join("claim.json").exists() {
            left.push(path);
        }
    }
    Ok(left)
}

async fn recover_one(config: &Config, rest: &Rest, workspace: Workspace) -> io::Result<()> {
    let claim = ClaimRecord::load(&workspace.claim_file())?;
    let kept = FinalStatus::load(&workspace.ending_file()).ok();
    let rescued = workspace.clear_run(&config.state_dir)?;
    let end = kept.or_else(|| lost_in_mid_run(&claim, rescued));
    let chunks = upload(config, rest, &workspace, &claim, end.is_some()).await?;
    if let Some(mut end) = end {
        end.log_count = Some(chunks);
        let reporter = Reporter::new(rest.clone(), claim.deployment_id, claim.claim_token);
        if let Written::Refused(why) = reporter.finish(&end).await {
            tracing::warn!(deployment = %claim.deployment_id, why, "an earlier life's result was refused");
        }
    }
    workspace.remove()
}

/// The end of a run that was cut off. Before the apply there is none: the database puts the job back into the queue.
fn lost_in_mid_run(claim: &ClaimRecord, rescued: Option<PathBuf>) -> Option<FinalStatus> {
    if !claim.phase.changes_the_world() {
        return None;
    }
    let mut message = format!(
        "The agent was killed in phase {}. Resources may have been changed, and the state may still be locked: look at both before you queue it again.",
        claim.phase.as_str()
    );
    if let Some(place) = rescued {
        message = format!("{message} State that was not stored is kept in {}.", place.display());
    }
    let ending = Ending::Failed(Failure::new(ErrorCode::AgentLost, message));
    Some(FinalStatus::new(&ending, None, None))
}

/// Uploads the rest of the log. Chunks that are stored already are sent once more, and ignored.
async fn upload(
    config: &Config,
    rest: &Rest,
    workspace: &Workspace,
    claim: &ClaimRecord,
    ended: bool,
) -> io::Result<u64> {
    let flush = config.timing.log_flush;
    let (mut spool, progress) = match LogSpool::resume(&workspace.log_file(), flush) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        resumed => resumed?,
    };
    let remark = if ended {
        "The agent was restarted here; what it had read before is above."
    } else {
        "The agent was killed here, before anything was changed; the job goes back to the queue."
    };
    spool.append(Stream::Agent, remark, std::time::Instant::now());
    spool.finish();
    let reader = SpoolReader::open(&workspace.log_file())?;
    LogSink::new(rest.clone(), claim.deployment_id, claim.attempt, flush).upload(reader, progress).await
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;
