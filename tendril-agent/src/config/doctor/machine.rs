//! What the agent needs of its machine, and what a template can reach on it.

use super::finding::Finding;
use crate::{
    config::{isolation::Reach, settings::Config},
    dispatch::DiskGuard,
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

/// What a template can reach beside its own run.
pub(super) fn isolation(config: &Config, has_key: bool) -> Finding {
    let Reach { note, warning } = Reach::of(config, has_key);
    Finding { check: "isolation", problem: None, note, warning }
}
