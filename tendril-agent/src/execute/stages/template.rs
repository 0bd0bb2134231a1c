//! The template of a run: fetched from its repository, checked, and laid out in the workspace.

use crate::{
    execute::stages::Run,
    job::{
        ErrorCode, Failure, JobSpec, Phase,
        source::{GitSource, Source},
    },
    os::blocking,
    process::TerminationStage,
    template::{Template, git},
    terraform::{StageError, Step, state::State},
};

impl Run<'_> {
    /// Brings the template from its repository into the workspace.
    pub(super) async fn fetch(&mut self, source: &GitSource) -> Result<(), StageError> {
        self.phase(Phase::Workspace);
        self.log.writer.annotate(format!("The template is fetched from {source}.")).await;
        let settings = &self.context.settings;
        let console = git::Console {
            settings: &settings.git,
            runner: &*self.context.runner,
            stop: self.stop,
            timeout: settings.git_timeout,
            root: &git::root(&settings.work_dir),
        };
        let fetched = console.check_out(source, self.workspace, &self.context.secrets).await;
        let git::Checkout { commit, cached } = fetched.map_err(|failure| {
            failure.map_or(
                StageError::Stopped(Step::Init, TerminationStage::Untouched, None),
                StageError::Failed,
            )
        })?;
        let how = if cached { ", which was here already" } else { "" };
        self.log.writer.annotate(format!("The template is of commit {commit}{how}.")).await;
        self.workspace
            .store_commit(&commit)
            .map_err(|error| Failure::internal("the agent's work directory cannot be written", &error))?;
        self.is_of(commit);
        Ok(())
    }

    /// Shows in the row which commit is run.
    pub(super) fn is_of(&mut self, commit: String) {
        self.board.commit(&commit);
        self.results.commit = Some(commit);
    }

    pub(super) async fn template(&self, spec: &JobSpec) -> Result<Template, Failure> {
        let template = match &spec.source {
            Source::BuiltIn(name) => Template::built_in(&self.context.settings.templates_dir, name)?,
            Source::Git(source) => Template::open(self.workspace.source_dir()).map_err(|error| {
                let text = format!("template.json of {source} cannot be read: {error}");
                Failure::new(ErrorCode::SourceInvalid, text)
            })?,
        };
        self.log.redactor.hide_large(template.sensitive_values(&spec.variables)).await;
        Ok(template)
    }

    /// Template, variables, backend.
    pub(super) async fn lay_out(&self, spec: &JobSpec, state: &State) -> Result<Template, StageError> {
        let template = self.template(spec).await?;
        template.check(&spec.variables)?;
        let (workspace, variables) = (self.workspace.clone(), spec.variables.clone());
        let (from, state) = (template.dir().to_path_buf(), state.clone());
        let laid_out = blocking(move || {
            let laid_out = workspace.lay_out(&from, &variables);
            // Last: a template's own file of that name must not win.
            laid_out.is_ok().then(|| state.lay_out(&workspace.module_dir())).transpose()?;
            // From here on it is the run's user that works there.
            laid_out.is_ok().then(|| workspace.hand_over()).transpose()?;
            Ok(laid_out)
        })
        .await;
        laid_out.map_err(|error| Failure::internal("the workspace cannot be prepared", &error))??;
        Ok(template)
    }
}
