//! What the programs of a lost run wrote and nobody had put into its log: read, redacted and added before the log ends.

use std::{io, path::PathBuf, sync::Arc};

use crate::{
    execute::settings::ExecuteSettings,
    job::Fields,
    logs::{LogSpool, LogWriter, SpoolReader},
    os::{blocking, untrusted::read_file},
    process::{Journal, Survivors, orphans},
    redaction::Redactor,
    template::{Template, Workspace},
    terraform::OutputReader,
};

/// The largest file of variables that is read, in bytes: the database takes less.
const LARGEST_VARIABLES: u64 = 16 * 1024 * 1024;

/// What of a lost run's output was not put into its log.
pub(super) struct Leftover {
    journal_dir: PathBuf,
    /// From where on it is read, for each stream.
    from: [Option<u64>; 2],
    redactor: Redactor,
}

impl Leftover {
    /// Of a run in this workspace, before anything in it is removed. None, if there is no log, or it is not known what of the
    /// output it has, or which secrets may be in it. Blocks.
    pub(super) fn of(settings: &ExecuteSettings, secrets: &Redactor, workspace: &Workspace) -> Option<Self> {
        let positions = LogSpool::positions_in(&workspace.log_dir(), settings.spool).ok().flatten()?;
        let redactor = secrets.child();
        redactor.hide(settings.terraform.program.registry_secrets());
        match sensitive_values(workspace) {
            Ok(values) => redactor.hide(values),
            Err(error) => {
                tracing::error!(%error, "which values of a lost run are secret cannot be read: what it wrote last is left out of its log");
                return None;
            }
        }
        let from = positions.map(|position| Some(position.offset));
        Some(Self { journal_dir: workspace.journal_dir(), from, redactor })
    }

    /// Begins to read what programs write that still run.
    pub(super) async fn read_on(
        &self,
        settings: &ExecuteSettings,
        workspace: &Workspace,
    ) -> io::Result<Survivors> {
        let data_dir = workspace.data_dir();
        let pids = blocking(move || Ok(orphans::of(&data_dir))).await?;
        let journal = Journal::resume(&self.journal_dir, [None, None]).limited(settings.spool.limit);
        Ok(Survivors::of(pids, &Arc::new(journal)))
    }

    /// Opens the log of the run, with what is left added.
    pub(super) async fn add(
        self,
        settings: &ExecuteSettings,
        workspace: &Workspace,
    ) -> io::Result<(LogWriter, SpoolReader)> {
        let (log_dir, rules) = (workspace.log_dir(), settings.spool);
        let (spool, reader) = blocking(move || LogSpool::resume(&log_dir, rules)).await?;
        let journal = Journal::resume(&self.journal_dir, self.from);
        let writer = LogWriter::start(spool, Some(journal), self.redactor, OutputReader::default());
        writer.catch_up().await;
        Ok((writer, reader))
    }
}

/// The values that the template marks as sensitive. Before it is laid out there are none in any output.
fn sensitive_values(workspace: &Workspace) -> io::Result<Vec<String>> {
    // Its programs may still run, and put there what they like.
    let variables: Fields =
        match read_file(&workspace.variables_file(), workspace.owner()?, LARGEST_VARIABLES) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            variables => serde_json::from_slice(&variables?)?,
        };
    Ok(Template::open_used(workspace.module_dir())?.sensitive_values(&variables))
}
