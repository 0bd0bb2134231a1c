//! Which Terraform commands are run, with which arguments and which environment, and what their answers mean.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    job::{Action, Product},
    process::{Command, GracePeriod},
    template::Workspace,
};

use super::{
    cli_config,
    dependency_lock::{self, DependencyLock},
    environment::AllowList,
    registry_token::RegistryTokens,
    step_timing::StepTiming,
};

/// The variable that names the directory of shared providers.
pub(super) const PLUGIN_CACHE_DIR: &str = "TF_PLUGIN_CACHE_DIR";

/// A program that was found, and its version, so that an executor on the same machine need not run it again for that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownTerraform {
    pub(crate) program: PathBuf,
    pub(crate) product: Product,
    pub(crate) version: String,
}

/// The program, found and tried.
#[derive(Clone, Debug)]
pub struct Terraform {
    program: PathBuf,
    product: Product,
    version: String,
    cli_config: Option<PathBuf>,
    plugin_cache: Option<PathBuf>,
    allow_list: AllowList,
    registry_tokens: RegistryTokens,
}

/// One command of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Backend, modules, providers.
    Init,
    /// Compare, and save the plan.
    Plan,
    /// Carry out the saved plan.
    Apply,
    /// Read the outputs.
    Output,
}

impl Step {
    /// The subcommand.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Plan => "plan",
            Self::Apply => "apply",
            Self::Output => "output",
        }
    }

    /// What Terraform writes into the lock that it takes for it; none where it takes none.
    pub(crate) const fn operation(self) -> Option<&'static str> {
        match self {
            Self::Plan => Some("OperationTypePlan"),
            Self::Apply => Some("OperationTypeApply"),
            Self::Init | Self::Output => None,
        }
    }

    /// Whether an exit code means that it did what it should. `plan -detailed-exitcode` exits with 2 where there are changes.
    pub(crate) fn succeeded(self, code: Option<i32>) -> bool {
        code == Some(0) || self == Self::Plan && code == Some(2)
    }
}

impl Terraform {
    /// A program that answered `version`.
    pub(crate) fn new(
        program: PathBuf,
        product: Product,
        version: String,
        cli_config: Option<PathBuf>,
    ) -> Self {
        Self {
            program,
            product,
            version,
            cli_config,
            plugin_cache: None,
            allow_list: AllowList::default(),
            registry_tokens: RegistryTokens::default(),
        }
    }

    /// The same program with a provider cache in this directory, which must exist.
    pub(crate) fn caching(mut self, plugins: PathBuf) -> Self {
        self.plugin_cache = Some(plugins);
        self
    }

    /// The same program with this list of variables.
    pub(crate) fn allowing(mut self, allow_list: AllowList) -> Self {
        self.allow_list = allow_list;
        self
    }

    /// The same program with tokens for private registries.
    pub(crate) fn with_registry_tokens(mut self, tokens: RegistryTokens) -> Self {
        self.registry_tokens = tokens;
        self
    }

    /// The tokens for private registries.
    pub(crate) const fn registry_tokens(&self) -> &RegistryTokens {
        &self.registry_tokens
    }

    /// The CLI configuration of every run, if there is one.
    pub(crate) fn cli_config(&self) -> Option<&Path> {
        self.cli_config.as_deref()
    }

    /// Another program with the same settings.
    pub(crate) fn with_program(&self, known: KnownTerraform) -> Self {
        let KnownTerraform { program, product, version } = known;
        Self { program, product, version, ..self.clone() }
    }

    /// Where it stores downloaded providers.
    pub(crate) fn plugin_cache(&self) -> Option<&Path> {
        self.plugin_cache.as_deref()
    }

    /// Its version, such as `1.11.4`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Which program it is.
    pub(crate) fn known(&self) -> KnownTerraform {
        let Self { program, product, version, .. } = self.clone();
        KnownTerraform { program, product, version }
    }

    /// Which of the two it is.
    pub(crate) const fn product(&self) -> Product {
        self.product
    }

    /// Its name and version, such as `terraform 1.11.4`.
    pub(crate) fn title(&self) -> String {
        format!("{} {}", self.name(), self.version)
    }

    /// Its name, as its users write it.
    pub const fn name(&self) -> &'static str {
        self.product.name()
    }

    /// The command of one step. It waits for a state lock that another run holds for as long as `timing` allows.
    pub(crate) fn command(
        &self,
        step: Step,
        action: Action,
        workspace: &Workspace,
        timing: &StepTiming,
    ) -> io::Result<Command> {
        let args = arguments(step, action, workspace, timing.lock_timeout);
        let mut command = self.plain(args, workspace, grace_period(step, timing))?;
        // Without a lock file Terraform would write each cached provider again, to have what belongs into one: a file that another run
        // may be using, and that belongs to root where runs have users of their own. No run keeps its lock file.
        if step == Step::Init && self.plugin_cache.is_some() && !has_lock_file(workspace) {
            command.env.insert("TF_PLUGIN_CACHE_MAY_BREAK_DEPENDENCY_LOCK_FILE".into(), "1".into());
        }
        workspace.confine(command, step == Step::Init && self.plugin_cache.is_some())
    }

    /// Removes the state lock of this ID.
    pub(crate) fn unlock(&self, id: &str, workspace: &Workspace, timing: &StepTiming) -> io::Result<Command> {
        // An ID comes from outside: it must not be taken for a flag.
        let args = ["force-unlock", "-force", "-no-color", "--", id].map(OsString::from);
        self.with_arguments(args.into(), workspace, grace_period(Step::Init, timing))
    }

    /// Writes a state file to the backend, unless the state there has another lineage or is newer.
    pub(crate) fn push(
        &self,
        file: &Path,
        workspace: &Workspace,
        timing: &StepTiming,
    ) -> io::Result<Command> {
        let mut args = ["state", "push", "-no-color"].map(OsString::from).to_vec();
        args.extend([lock_timeout(timing.lock_timeout), file.into()]);
        self.with_arguments(args, workspace, grace_period(Step::Init, timing))
    }

    /// Deletes a workspace of the state with all that is in it.
    pub(crate) fn delete_workspace(
        &self,
        name: &str,
        workspace: &Workspace,
        timing: &StepTiming,
    ) -> io::Result<Command> {
        let args = ["workspace", "delete", "-force", "-no-color", name].map(OsString::from);
        self.with_arguments(args.into(), workspace, grace_period(Step::Init, timing))
    }

    /// Shows the saved plan, as JSON.
    pub(crate) fn show_plan(&self, workspace: &Workspace, timing: &StepTiming) -> io::Result<Command> {
        let mut args = ["show", "-json", "-no-color"].map(OsString::from).to_vec();
        args.push(workspace.plan_file().into());
        self.with_arguments(args, workspace, grace_period(Step::Output, timing))
    }

    fn with_arguments(
        &self,
        args: Vec<OsString>,
        workspace: &Workspace,
        grace_period: GracePeriod,
    ) -> io::Result<Command> {
        workspace.confine(self.plain(args, workspace, grace_period)?, false)
    }

    /// As a command of this process's user.
    fn plain(
        &self,
        args: Vec<OsString>,
        workspace: &Workspace,
        grace_period: GracePeriod,
    ) -> io::Result<Command> {
        let env = self.environment(workspace)?;
        Ok(Command {
            program: self.program.clone(),
            args,
            dir: workspace.module_dir(),
            env,
            grace_period,
            goes_on: None,
        })
    }

    /// The whole environment of a command: what may be inherited, and the agent's own settings.
    fn environment(&self, workspace: &Workspace) -> io::Result<BTreeMap<OsString, OsString>> {
        let home = workspace.home_dir();
        let cli_config = match &self.cli_config {
            Some(file) => file.clone(),
            None => own_cli_config(workspace.cli_config_file())?,
        };
        let mut env = self.allow_list.inherited();
        let set: [(&str, OsString); 7] = [
            ("HOME", home.clone().into()),
            ("TMPDIR", home.into()),
            ("TF_IN_AUTOMATION", "1".into()),
            ("TF_INPUT", "0".into()),
            ("CHECKPOINT_DISABLE", "1".into()),
            ("TF_DATA_DIR", workspace.data_dir().into()),
            ("TF_CLI_CONFIG_FILE", cli_config.into()),
        ];
        env.extend(set.map(|(name, value)| (name.into(), value)));
        env.extend(self.plugin_cache.iter().map(|dir| (PLUGIN_CACHE_DIR.into(), dir.into())));
        Ok(env)
    }

    /// Values that Terraform can see and no log may show.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let mut secrets = self.allow_list.secrets_in(&self.allow_list.inherited());
        secrets.extend(self.registry_secrets());
        secrets
    }

    /// The tokens of registries as they are now: those of the setting, and those in the CLI configuration.
    pub(crate) fn registry_secrets(&self) -> Vec<String> {
        let mut secrets = self.registry_tokens.secrets();
        secrets.extend(self.cli_config.iter().flat_map(|file| cli_config::credentials(file)));
        secrets
    }
}

/// Terraform warns on every command where the file is missing, and reads the user's own where the variable is.
fn own_cli_config(file: PathBuf) -> io::Result<PathBuf> {
    if !file.exists() {
        fs::write(&file, "disable_checkpoint = true\n")?;
        // The run's user reads it.
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
    }
    Ok(file)
}

fn lock_timeout(time: Duration) -> OsString {
    format!("-lock-timeout={}s", time.as_secs()).into()
}

fn has_lock_file(workspace: &Workspace) -> bool {
    fs::symlink_metadata(workspace.module_dir().join(dependency_lock::FILE)).is_ok()
}

fn arguments(step: Step, action: Action, workspace: &Workspace, grace_period: Duration) -> Vec<OsString> {
    let plan = workspace.plan_file();
    let mut args: Vec<OsString> = vec![step.name().into()];
    let mut push = |arg: &str| args.push(arg.into());
    push("-no-color");
    match step {
        Step::Init => {
            push("-input=false");
            // Where the run cannot be compared with it afterwards, it stays as it is.
            if has_lock_file(workspace) && DependencyLock::read(workspace).is_none() {
                push("-lockfile=readonly");
            }
        }
        Step::Plan => {
            ["-json", "-input=false", "-detailed-exitcode"].into_iter().for_each(&mut push);
            if action == Action::Destroy {
                push("-destroy");
            }
            args.push(lock_timeout(grace_period));
            let mut variables = OsString::from("-var-file=");
            variables.push(workspace.variables_file());
            args.push(variables);
            let mut out = OsString::from("-out=");
            out.push(plan);
            args.push(out);
        }
        Step::Apply => {
            ["-json", "-input=false"].into_iter().for_each(&mut push);
            args.extend([lock_timeout(grace_period), plan.into()]);
        }
        Step::Output => push("-json"),
    }
    args
}

pub(crate) fn grace_period(step: Step, timing: &StepTiming) -> GracePeriod {
    let graceful = match step {
        Step::Apply => timing.apply_cancel_grace,
        Step::Plan => timing.plan_cancel_grace,
        Step::Init | Step::Output => timing.plan_cancel_grace.min(Duration::from_secs(60)),
    };
    GracePeriod { graceful, forced: timing.kill_grace }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Timeouts;

    fn workspace() -> Workspace {
        Workspace::at(PathBuf::from("/w"))
    }

    fn line(step: Step, action: Action) -> String {
        let args = arguments(step, action, &workspace(), Duration::from_secs(120));
        args.join(std::ffi::OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn each_step_has_its_arguments() {
        assert_eq!(line(Step::Init, Action::Apply), "init -no-color -input=false");
        assert_eq!(
            line(Step::Plan, Action::Destroy),
            "plan -no-color -json -input=false -detailed-exitcode -destroy -lock-timeout=120s -var-file=/w/run/module/zz_tendril.auto.tfvars.json -out=/w/run/data/tfplan"
        );
        assert_eq!(
            line(Step::Apply, Action::Destroy),
            "apply -no-color -json -input=false -lock-timeout=120s /w/run/data/tfplan"
        );
        assert_eq!(line(Step::Output, Action::Apply), "output -no-color -json");
    }

    #[test]
    fn a_cached_provider_is_used_as_it_is_where_there_is_no_lock_file() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = Workspace::at(dir.path().to_path_buf());
        workspace.make_dirs().unwrap();
        let terraform = Terraform::new("/terraform".into(), Product::Terraform, "1.11.4".to_owned(), None);
        let terraform = terraform.caching(dir.path().join("plugins"));
        let [lock_timeout, plan_cancel_grace, apply_cancel_grace, kill_grace] = [Duration::ZERO; 4];
        let limits = Timeouts::default();
        let timing = StepTiming { lock_timeout, plan_cancel_grace, apply_cancel_grace, kill_grace, limits };
        let env = |step| terraform.command(step, Action::Apply, &workspace, &timing).unwrap().env;
        let name = OsString::from("TF_PLUGIN_CACHE_MAY_BREAK_DEPENDENCY_LOCK_FILE");
        assert!(env(Step::Init).contains_key(&name) && !env(Step::Plan).contains_key(&name));
        fs::write(workspace.module_dir().join(".terraform.lock.hcl"), "").unwrap();
        assert!(!env(Step::Init).contains_key(&name));
    }

    #[test]
    fn a_plan_with_changes_has_succeeded() {
        assert!(Step::Plan.succeeded(Some(2)));
        assert!(!Step::Apply.succeeded(Some(2)));
        assert!(!Step::Plan.succeeded(None));
    }
}
