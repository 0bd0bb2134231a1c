//! Which Terraform a run has: chosen once, when its template is laid out, and the same one from then on, however many executors
//! the run has.

use std::{fs, io, path::Path};

use serde::Deserialize;

use crate::{
    control_plane::stack_version,
    execute::stages::Run,
    job::{Action, ErrorCode, Failure, JobSpec, Product, Version, source::Source},
    os::{blocking, files::private_file, untrusted::open_file},
    template::RootModule,
    terraform::{Choice, KnownTerraform, state::State},
};

impl Run<'_> {
    /// Whether every run of this agent has the same program.
    pub(crate) fn has_one_program(&self, spec: &JobSpec) -> bool {
        spec.terraform_version.is_none() && self.terraform.dir.path().is_none()
    }

    /// Chooses the program, has the row and the log say which one it is, and keeps it for the executors after this one.
    pub(crate) async fn choose_program(&mut self, spec: &JobSpec) -> Result<(), Failure> {
        let (default, request) = (&self.terraform.program, spec.terraform_version.as_ref());
        let product = request.and_then(|request| request.product).unwrap_or(default.product());
        let dir = self.workspace.module_dir();
        let read = blocking(move || {
            let module = RootModule::of(&dir, product);
            Ok((module.is_empty(), module.required_versions()))
        });
        let (is_empty, required) =
            read.await.map_err(|error| Failure::internal("the template's files cannot be read", &error))?;
        if is_empty && spec.action != Action::Destroy {
            return Err(nothing_to_read(spec, product));
        }
        let choice = self.terraform.dir.choose(default, product, request, required).await;
        let Choice { program, left_out } =
            choice.map_err(|sentence| Failure::new(ErrorCode::ConfigInvalid, sentence))?;
        for program in left_out {
            self.log.writer.annotate(format!("A version of Terraform is left out. {program}")).await;
        }
        if !self.has_one_program(spec) {
            let why = request.map_or_else(String::new, |request| {
                format!(" (config_snapshot.terraform_version: {request})")
            });
            self.log.writer.annotate(format!("It is run with {}{why}.", program.title())).await;
        }
        let known = program.known();
        // A run that waits may go on with another version of the agent, whose own program is another one.
        if spec.approval || known != default.known() {
            let file = self.workspace.program_file();
            let kept = blocking(move || private_file(&file, &serde_json::to_vec(&known)?)).await;
            kept.map_err(|error| Failure::internal("the agent's work directory cannot be written", &error))?;
        }
        self.terraform.program = program;
        self.report_program();
        Ok(())
    }

    /// The program with which an earlier executor planned. Errors: the plan cannot be applied, as that program is gone.
    pub(crate) async fn same_program(&mut self) -> Result<(), Failure> {
        let file = self.workspace.program_file();
        let earlier = blocking(move || load(&file)).await;
        let earlier = earlier
            .map_err(|error| Failure::internal("the agent's work directory cannot be read", &error))?;
        if let Some(earlier) = earlier {
            let again = self.terraform.dir.again(&self.terraform.program, &earlier).await;
            self.terraform.program = again.ok_or_else(|| {
                Failure::new(
                    ErrorCode::PlanChanged,
                    format!(
                        "The plan was made with {} {}, which this agent does not have any more, and no other version can apply it. Nothing was changed: queue the deployment again.",
                        earlier.product.name(),
                        earlier.version
                    ),
                )
            })?;
        }
        self.report_program();
        Ok(())
    }

    /// Refuses to work on a state that a newer version wrote: an older one may not know what is in it.
    pub(crate) async fn check_state_version(&self, state: &State) -> Result<(), Failure> {
        let program = &self.terraform.program;
        let local = local_state_version(state).await;
        let mut writers: Vec<(Product, Version)> =
            local.map(|version| (program.product(), version)).into_iter().collect();
        if self.job.state_key.is_some() {
            writers.extend(stack_version(&self.context.rest, state.key()).await);
        }
        let Some(own) = Version::parse(program.version()) else { return Ok(()) };
        let newer =
            writers.into_iter().find(|(product, version)| *product == program.product() && *version > own);
        let Some((product, version)) = newer else { return Ok(()) };
        Err(Failure::new(
            ErrorCode::ConfigInvalid,
            format!(
                "The state {} was written by {} {version}, and this run would have {}: an older version may not know what is in it. Ask for \">= {version}\" in config_snapshot.terraform_version, or give the agent that version",
                state.key(),
                product.name(),
                program.title()
            ),
        ))
    }

    fn report_program(&mut self) {
        let title = self.terraform.program.title();
        self.board.terraform(&title);
        self.results.program = Some(title);
    }
}

/// Of a template without a single file for the program.
fn nothing_to_read(spec: &JobSpec, product: Product) -> Failure {
    let (code, template) = match &spec.source {
        Source::Git(source) => (ErrorCode::SourceInvalid, source.to_string()),
        Source::BuiltIn(name) => (ErrorCode::ConfigInvalid, format!("the template \"{name}\"")),
    };
    let program = product.name();
    Failure::new(
        code,
        format!(
            "{template} has no file that {program} reads. {program} would plan to destroy everything in the stack, so nothing is planned: name the folder that has the .tf files, or use the action \"destroy\""
        ),
    )
}

/// What an earlier executor kept; nothing, if it was of a version that keeps nothing.
fn load(file: &Path) -> io::Result<Option<KnownTerraform>> {
    match fs::read(file) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Which version wrote a local state. A product is not in it.
async fn local_state_version(state: &State) -> Option<Version> {
    #[derive(Deserialize)]
    struct Head {
        terraform_version: String,
    }
    let file = state.local_file()?;
    let read = blocking(move || {
        // An earlier run wrote it, and nothing but its beginning is of interest.
        let state = io::BufReader::new(open_file(&file, None)?);
        Ok(serde_json::from_reader::<_, Head>(state)?)
    })
    .await;
    Version::parse(&read.ok()?.terraform_version)
}
