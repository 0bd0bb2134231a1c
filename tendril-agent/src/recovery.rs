//! What an earlier life of this agent left behind: lines that were not uploaded, results that were not stored.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tendril_realtime::Rest;
use uuid::Uuid;

use crate::{
    config::Config,
    failpoint::failpoint,
    job::{Ending, ErrorCode, Failure},
    log_sink::LogSink,
    log_spool::{LogSpool, Stream},
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

/// The attempts' directories, `<deployment>.<attempt>`. One without a claim was made a moment before the end, and holds
/// nothing.
fn leftovers(config: &Config) -> io::Result<Vec<PathBuf>> {
    let mut left = Vec::new();
    for entry in std::fs::read_dir(&config.work_dir)? {
        let path = entry?.path();
        if path.join("claim.json").exists() {
            left.push(path);
        } else if is_attempt(&path) {
            std::fs::remove_dir_all(&path)?;
        }
    }
    Ok(left)
}

fn is_attempt(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once('.'));
    name.is_some_and(|(id, attempt)| Uuid::parse_str(id).is_ok() && attempt.parse::<i32>().is_ok())
}

async fn recover_one(config: &Config, rest: &Rest, workspace: Workspace) -> io::Result<()> {
    failpoint!("recovery.found");
    let claim = ClaimRecord::load(&workspace.claim_file())?;
    let kept = FinalStatus::load(&workspace.ending_file()).ok();
    let rescued = workspace.clear_run(&config.state_dir)?;
    failpoint!("recovery.cleared");
    let mut end = kept.or_else(|| lost_in_mid_run(&claim, rescued));
    if end.as_ref().is_none_or(|end| end.log_count.is_none()) {
        let chunks = upload(config, rest, &workspace, &claim, end.is_some()).await?;
        failpoint!("recovery.uploaded");
        if let Some(end) = &mut end {
            end.log_count = Some(chunks);
            // If this life ends too, the next one must not add to a log that the row may have counted.
            end.save(&workspace.ending_file())?;
            failpoint!("recovery.counted");
        }
    }
    if let Some(end) = end {
        let reporter = Reporter::new(rest.clone(), claim.deployment_id, claim.claim_token);
        if let Written::Refused(why) = reporter.finish(&end).await {
            tracing::warn!(deployment = %claim.deployment_id, why, "an earlier life's result was refused");
        }
        failpoint!("recovery.stored");
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

/// Uploads what the database does not have yet of the log, and a remark that says why it ends here.
async fn upload(
    config: &Config,
    rest: &Rest,
    workspace: &Workspace,
    claim: &ClaimRecord,
    ended: bool,
) -> io::Result<u64> {
    let rules = config.spool_rules();
    let (mut spool, mut reader) = match LogSpool::resume(&workspace.log_dir(), rules) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        resumed => resumed?,
    };
    failpoint!("recovery.resumed");
    let mut sink = LogSink::new(rest.clone(), claim.deployment_id, claim.attempt, rules.flush_after);
    let now = std::time::Instant::now();
    if !reader.skip_to(sink.last_stored().await)? {
        let remark = "The machine went down before the last lines had reached its disk: up to half a second of them may be missing here.";
        spool.append(Stream::Agent, remark, now);
    }
    let remark = if ended {
        "The agent was restarted here; what it had read before is above."
    } else {
        "The agent was killed here, before anything was changed; the job goes back to the queue."
    };
    spool.append(Stream::Agent, remark, now);
    spool.finish();
    sink.upload(reader).await
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;
