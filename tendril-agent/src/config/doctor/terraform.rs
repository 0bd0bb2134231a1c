//! Terraform, its versions, its registries, its state backend, and what estimates the cost of its plans.

use std::{fs, io, path::Path};

use rustix::fs::{Access, access};

use super::finding::Finding;
use crate::{
    config::settings::Config,
    process::LocalRunner,
    terraform::{backend_trial, credentials, state::Kind},
};

/// The state key that the backend is tried with; no template has this name.
const STATE_KEY: &str = ".doctor";
/// The first Terraform whose `s3` backend locks with a file.
const S3_LOCKFILE_SINCE: (u64, u64) = (1, 10);

pub(super) fn terraform(config: &Config) -> Result<(), String> {
    let (name, version) = (config.terraform.name(), config.terraform.version());
    let mut numbers = version.split('.').map_while(|part| part.parse::<u64>().ok());
    let version_read = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    if config.state_backend.kind() == Kind::S3 && name == "terraform" && version_read < S3_LOCKFILE_SINCE {
        return Err(format!(
            "terraform {version} cannot lock state in S3 with a file: install 1.10 or newer, or set \"use_lockfile\": false and \"dynamodb_table\" in TENDRIL_STATE_CONFIG"
        ));
    }
    Ok(())
}

/// Has every program of the directory of versions say its version.
pub(super) async fn terraform_versions(config: &Config) -> Finding {
    let check = "terraform versions";
    let dir = &config.terraform_dir;
    let candidates = match dir.candidates() {
        Ok(candidates) => candidates,
        Err(error) => return Finding::new(check, Err(dir.unreadable(&error))),
    };
    let (mut usable, mut broken, mut replaceable) = (Vec::new(), Vec::new(), Vec::new());
    for candidate in &candidates {
        match dir.verify(candidate).await {
            Ok(known) => usable.push(format!("{} {}", candidate.product.name(), known.version)),
            Err(why) => broken.push(format!("{}: {why}", candidate.path.display())),
        }
        replaceable.extend(is_replaceable(&candidate.path).then(|| candidate.path.display().to_string()));
    }
    let problem = (!broken.is_empty()).then(|| {
        format!(
            "programs that cannot be run, which deployments may ask for: fix or remove them\n{}",
            broken.join("\n")
        )
    });
    let warning = (!replaceable.is_empty()).then(|| {
        format!(
            "the user of this agent, as which templates run, may replace programs that other runs use: have another user own {}",
            replaceable.join(", ")
        )
    });
    Finding { check, problem, note: Some(usable.join(", ")), warning }
}

/// Whether this user, who is not root, could put another program in the place of this one.
fn is_replaceable(program: &Path) -> bool {
    let writable = |path: &Path| access(path, Access::WRITE_OK).is_ok();
    let Ok(real) = program.canonicalize() else { return false };
    let dirs = [program.parent(), real.parent()];
    !rustix::process::geteuid().is_root() && (writable(&real) || dirs.into_iter().flatten().any(writable))
}

/// The tokens of private registries, and who can read them.
pub(super) fn registries(config: &Config) -> Option<Finding> {
    let (check, terraform) = ("registry tokens", &config.terraform);
    let (tokens, file) = (terraform.registry_tokens(), terraform.cli_config());
    let exposed = file.filter(|file| !credentials(file).is_empty());
    if tokens.hosts().is_empty() && exposed.is_none() {
        return None;
    }
    let warning = exposed.map(|file| {
        format!(
            "{} holds credentials, and every command of a run can read it, those of templates too: move them to --terraform-token-file, which terraform init alone gets",
            file.display()
        )
    });
    let note = (!tokens.hosts().is_empty()).then(|| tokens.hosts().join(", "));
    let problems = tokens.problems();
    let problem = (!problems.is_empty()).then(|| problems.join("\n"));
    Some(Finding { check, problem, note, warning })
}

/// An agent without them is well.
pub(super) fn cost_estimates(config: &Config) -> Finding {
    let infracost = &config.infracost;
    Finding {
        check: "cost estimates",
        problem: infracost.complaint(),
        note: Some(infracost.found().to_string()),
        warning: None,
    }
}

pub(super) async fn state_backend(config: &Config) -> Finding {
    let check = "state backend";
    #[cfg(feature = "kubernetes")]
    if config.kubernetes.is_some() {
        let note = "not tried here: runs reach it, with the rights of their own service accounts".to_owned();
        return Finding { check, problem: None, note: Some(note), warning: None };
    }
    match try_backend(config).await {
        Ok(warning) => Finding { check, problem: None, note: None, warning },
        Err(problem) => Finding::new(check, Err(problem)),
    }
}

async fn try_backend(config: &Config) -> Result<Option<String>, String> {
    let state = config.terraform_settings().state(STATE_KEY);
    let tried = backend_trial::try_backend(&config.terraform_settings(), &LocalRunner, &state).await;
    // The local one leaves its directory.
    let removed = fs::remove_dir(state.dir());
    if let Err(error) = removed.as_ref()
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(error = %format_args!("{error:#}"), "the doctor's state directory is not empty");
    }
    tried.map_err(|error| {
        let kind = config.state_backend.kind().name();
        format!("the {kind} backend cannot be used: look at TENDRIL_STATE_CONFIG, at the credentials in the agent's environment, and at the network. It says:\n{error}")
    })
}
