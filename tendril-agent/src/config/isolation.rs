//! What a template can reach beside its own run, in a sentence: for `doctor`, and for the agent's log.

use crate::{
    config::settings::Config,
    control_plane::auth::Credential,
    launch::LauncherKind,
    process::{
        SlotUsers,
        run_user::{SHARED_PLACES, shared_by_all},
    },
};

const ROOT: &str = "the agent runs as root, and so does every template: each can read and change everything on this machine, other runs and the agent's key too. Give runs users of their own (--slot-uid-base), or run the agent as a user of its own (User= of systemd, runAsNonRoot of a pod)";

/// What a template can reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Where it is as it should be.
    pub(crate) note: Option<String>,
    /// Where it is more than it should be.
    pub(crate) warning: Option<String>,
}

impl Reach {
    /// With this configuration. `has_key`: the agent has an API key, and no machine token.
    pub(crate) fn of(config: &Config, has_key: bool) -> Self {
        if let Some(users) = &config.slot_users {
            let sentence = of_slot_users(users);
            let is_whole = shared_by_all(&users.private_places).next().is_none();
            let (note, warning) = if is_whole { (Some(sentence), None) } else { (None, Some(sentence)) };
            return Self { note, warning };
        }
        let user = rustix::process::geteuid();
        if user.is_root() {
            return Self { note: None, warning: Some(as_root(config)) };
        }
        let mut note = format!(
            "templates run as user {} and can read its files, those of other runs too",
            user.as_raw()
        );
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
        Self { note: Some(note), warning: None }
    }
}

/// What is said when an agent starts as root; none where it is not.
pub(crate) fn of_root(config: &Config) -> Option<String> {
    if let Some(users) = &config.slot_users {
        return Some(of_slot_users(users));
    }
    rustix::process::geteuid().is_root().then(|| as_root(config))
}

fn as_root(config: &Config) -> String {
    match &config.no_slot_users {
        Some(why) => format!("{ROOT}. Runs have no users of their own: {why}"),
        None => ROOT.to_owned(),
    }
}

fn of_slot_users(users: &SlotUsers) -> String {
    let ids = format!("each run's programs have a user of their own ({} and up)", users.base + 1);
    let shared: Vec<&str> = shared_by_all(&users.private_places).collect();
    if shared.is_empty() {
        return format!("{ids}, and directories of their own for {}", SHARED_PLACES.join(", "));
    }
    format!(
        "{ids}, and share {} with everybody: what a run leaves there is removed when it ends. To make them private, give the agent the right to mount (CAP_SYS_ADMIN), and keep its directories and programs outside of them",
        shared.join(", ")
    )
}
