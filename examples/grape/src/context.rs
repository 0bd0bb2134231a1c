//! What commands share: the output, the project, and questions at the terminal.

use std::io;

use crate::{
    cli::Global,
    control_plane::project::Project,
    failure::{Failure, FailureKind, Result},
    output::{Output, style::Style},
    session::profile::ConfigDir,
};

/// What commands share.
#[derive(Debug)]
pub struct Context {
    /// Where answers go.
    pub out: Output,
    /// Where profiles and sessions are.
    pub dir: ConfigDir,
    /// The requested profile.
    pub profile: Option<String>,
}

impl Context {
    /// From the options of every command.
    ///
    /// # Errors
    /// A user without a home directory.
    pub fn new(global: &Global) -> Result<Self> {
        let out = output(global);
        Ok(Self { out, dir: ConfigDir::find()?, profile: global.profile.clone() })
    }

    /// The project, as who is signed in.
    ///
    /// # Errors
    /// [`FailureKind::NotSignedIn`] with what to do.
    pub fn project(&self) -> Result<Project> {
        Project::open(&self.dir, self.profile.as_deref())
    }

    /// Asks a question at the terminal. Where there is none, `--yes` is required.
    ///
    /// # Errors
    /// [`FailureKind::Usage`] where there is no terminal; [`FailureKind::Interrupted`] for a no.
    pub async fn confirm(&self, question: impl Into<String>, yes: bool) -> Result<()> {
        let question = question.into();
        if yes {
            return Ok(());
        }
        if !self.out.can_ask() {
            return Err(Failure::new(
                FailureKind::Usage,
                format!("There is no terminal to ask on: {question}"),
            )
            .next("Answer it with --yes."));
        }
        let theme = dialoguer::theme::ColorfulTheme::default();
        let coloured = self.out.notes.coloured;
        let ask = move || {
            if coloured {
                dialoguer::Confirm::with_theme(&theme).with_prompt(question).default(false).interact()
            } else {
                dialoguer::Confirm::new().with_prompt(question).default(false).interact()
            }
        };
        if prompt(ask).await? {
            Ok(())
        } else {
            Err(Failure::new(FailureKind::Interrupted, "Nothing was done."))
        }
    }
}

/// Asks on a thread of its own, so that Ctrl-C and the network are handled meanwhile.
pub(crate) async fn prompt<T: Send + 'static>(
    ask: impl FnOnce() -> dialoguer::Result<T> + Send + 'static,
) -> Result<T> {
    let answer = tokio::task::spawn_blocking(ask).await;
    let failed = |error: dialoguer::Error| match error {
        dialoguer::Error::IO(error) if error.kind() == io::ErrorKind::Interrupted => {
            Failure::new(FailureKind::Interrupted, "Nothing was done.")
        }
        dialoguer::Error::IO(error) => Failure::from(error),
    };
    answer.map_err(|_| Failure::new(FailureKind::Interrupted, "Nothing was done."))?.map_err(failed)
}

/// Where answers go, by the options.
pub(crate) fn output(global: &Global) -> Output {
    Output {
        format: global.output,
        style: Style::for_stream(global.color, &io::stdout()),
        notes: Style::for_stream(global.color, &io::stderr()),
    }
}
