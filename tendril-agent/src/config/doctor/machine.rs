//! What the agent needs of its machine, and what a template can reach on it.

use super::finding::Finding;
use crate::{
    config::settings::Config,
    control_plane::auth::Credential,
    dispatch::DiskGuard,
    launch::LauncherKind,
    template::{Template, names},
    terraform::pending_push,
};

pub(super) fn templates(config: &Config) -> Result<(), String> {
    for name in names(&config.templates_dir) {
        let opened = Template::built_in(&config.templates_dir, &name);
        opened.map_err(|failure| {
            format!(
                "{}: fix the file, or take the folder out of {}",
                failure.message,
                config.templates_dir.display()
            )
        })?;
    }
    Ok(())
}

pub(super) fn disk(config: &Config) -> Result<(), String> {
    let disk = DiskGuard::default();
    disk.measure(&config.work_dir, None, config.work_limit, |_| {});
    if disk.is_full() {
        return Err(format!(
            "{} holds {} MiB, or its volume is full, so that no job would be claimed: make room, or raise --work-limit / TENDRIL_WORK_LIMIT",
            config.work_dir.display(),
            disk.used() / (1024 * 1024)
        ));
    }
    let pending = pending_push::saved(&config.state_dir);
    if pending.is_empty() {
        return Ok(());
    }
    Err(format!(
        "the newest state of {} could not be written to its backend and is saved in {}: start the agent, which stores it, and look at its log",
        pending.join(", "),
        config.state_dir.display()
    ))
}

pub(super) fn health_address(config: &Config) -> Result<(), String> {
    let Some(addr) = config.health_addr else { return Ok(()) };
    std::net::TcpListener::bind(addr).map(drop).map_err(|error| {
        format!("--health-addr {addr} cannot be used ({error:#}): choose another address, or stop what listens there (an agent that already runs?)")
    })
}

/// What a template can reach beside its own run. It runs as the agent's user.
pub(super) fn isolation(config: &Config, has_key: bool) -> Finding {
    let check = "isolation";
    let user = rustix::process::geteuid();
    if user.is_root() {
        let warning = "the agent runs as root, and so does every template: each can read and change everything on this machine, other runs and the agent's key too. Run the agent as a user of its own (User= of systemd, runAsNonRoot of a pod)";
        return Finding { check, problem: None, note: None, warning: Some(warning.to_owned()) };
    }
    let mut note =
        format!("templates run as user {} and can read its files, those of other runs too", user.as_raw());
    if let Credential::File(file) = &config.credential {
        note = format!("{note}, and {}", file.display());
    }
    note.push_str(match (has_key, config.launcher) {
        (true, LauncherKind::InProcess) => "",
        (true, _) => "; a run has a token of its own deployment",
        (false, _) => {
            "; a run has the agent's own token, which reaches every deployment of the cluster: with an API key it has one of its own deployment"
        }
    });
    Finding { check, problem: None, note: Some(note), warning: None }
}
