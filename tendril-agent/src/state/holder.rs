//! Which of our own attempts may have left a lock behind: written down before Terraform takes a lock, and consulted when one
//! is in the way.
//!
//! An attempt writes itself down before each step that locks the state. When the attempt is known to be dead (its processes
//! are gone and it did not end in good order) the note moves beside the state. A lock is ours, and dead, when such a note fits
//! it: same user and host, same operation, taken while that step could take it. Notes are thrown away as soon as they can do
//! no good any more.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{State, lock::Lock};
use crate::workspace::{private_dir, private_file};

/// How much later than its step's beginning a lock can be taken, beside the time that Terraform is told to wait for one.
const MARGIN: SignedDuration = SignedDuration::from_secs(60);

/// A step of an attempt that takes the state's lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    pub(crate) deployment_id: Uuid,
    pub(crate) attempt: i32,
    /// The state that it works on.
    pub(crate) state_key: String,
    /// `user@host`, as Terraform writes it into the lock.
    pub(crate) who: String,
    /// `OperationTypePlan` or `OperationTypeApply`.
    pub(crate) operation: String,
    /// When the step began.
    pub(crate) began_at: Timestamp,
    /// When it could take the lock at the latest.
    pub(crate) locks_until: Timestamp,
}

impl Holder {
    /// Of a step that begins now.
    pub(crate) fn new(
        deployment_id: Uuid,
        attempt: i32,
        state: &State,
        step: &str,
        patience: std::time::Duration,
    ) -> Self {
        let began_at = Timestamp::now();
        let patience = SignedDuration::try_from(patience).unwrap_or(MARGIN);
        let mut operation = "OperationType".to_owned();
        operation.extend(step.chars().next().map(|first| first.to_ascii_uppercase()));
        operation.push_str(step.get(1..).unwrap_or_default());
        Self {
            deployment_id,
            attempt,
            state_key: state.key().to_owned(),
            who: who(),
            operation,
            began_at,
            locks_until: began_at.saturating_add(patience + MARGIN).unwrap_or(Timestamp::MAX),
        }
    }

    /// Keeps it, while the step runs.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        private_file(path, &serde_json::to_vec(self)?)
    }

    /// What an earlier life kept.
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    }

    /// Whether this step, which is dead, took this lock.
    pub(crate) fn made(&self, lock: &Lock) -> bool {
        lock.who.as_deref() == Some(self.who.as_str())
            && lock.operation.as_deref() == Some(self.operation.as_str())
            && lock.created.is_some_and(|created| (self.began_at..=self.locks_until).contains(&created))
    }

    /// Writes down beside the state that this step is dead, and may have left a lock. A lock that is taken from now on is
    /// not its.
    pub(crate) fn bury(mut self, state: &State) -> io::Result<()> {
        self.locks_until = self.locks_until.min(Timestamp::now());
        private_dir(state.dir())?;
        self.save(&state.dir().join(format!("dead-{}.{}.json", self.deployment_id, self.attempt)))
    }
}

impl State {
    /// The dead steps that may have left a lock.
    pub(crate) fn dead_holders(&self) -> Vec<Holder> {
        self.notes().iter().filter_map(|path| Holder::load(path).ok()).collect()
    }

    /// No dead step holds the lock any more: somebody else could take it.
    pub(crate) fn forget_dead_holders(&self) {
        for path in self.notes() {
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "a note about a dead attempt cannot be removed");
            }
        }
    }

    fn notes(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir()).into_iter().flatten().filter_map(Result::ok);
        let is_note = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("dead-") && name.ends_with(".json")
        };
        entries.map(|entry| entry.path()).filter(is_note).collect()
    }
}

/// `user@host` as Terraform finds them: the name of this process's user in `/etc/passwd`, and the host's name.
pub(crate) fn who() -> String {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        (id == uid).then(|| name.to_owned())
    });
    let user = named.or_else(|| env::var("USER").ok()).unwrap_or_default();
    format!("{user}@{}", rustix::system::uname().nodename().to_string_lossy())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::state::StateBackend;

    fn holder(state: &State) -> Holder {
        Holder::new(Uuid::from_u128(1), 2, state, "apply", std::time::Duration::from_secs(120))
    }

    fn lock_of(holder: &Holder) -> Lock {
        Lock {
            id: Some("the-id".to_owned()),
            operation: Some("OperationTypeApply".to_owned()),
            who: Some(holder.who.clone()),
            version: None,
            created: Some(holder.began_at),
        }
    }

    #[test]
    fn a_lock_of_a_dead_step_is_recognised_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateBackend::local().of(dir.path(), "k");
        let holder = holder(&state);
        let began_at = holder.began_at;
        let mut lock = lock_of(&holder);
        assert_eq!(lock.of_dead(&state.dead_holders()), None);
        holder.bury(&state).unwrap();
        assert_eq!(lock.of_dead(&state.dead_holders()), Some("the-id"));
        lock.created = Some(Timestamp::now() + SignedDuration::from_millis(1));
        assert_eq!(lock.of_dead(&state.dead_holders()), None, "it was taken after the burial");
        lock.created = Some(began_at);
        state.forget_dead_holders();
        assert_eq!(lock.of_dead(&state.dead_holders()), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn a_foreign_lock_is_never_ours(
            who in "[a-z]{0,4}@[a-z]{0,4}", operation in "OperationType(Plan|Apply|Refresh)",
            seconds in -100_000..100_000_i64, known in any::<(bool, bool, bool, bool)>(), same in any::<(bool, bool)>(),
        ) {
            let state = StateBackend::local().of(Path::new("/s"), "k");
            let dead = holder(&state);
            let who = if same.0 { dead.who.clone() } else { who };
            let operation = if same.1 { dead.operation.clone() } else { operation };
            let ours = who == dead.who && operation == dead.operation && (0..=180).contains(&seconds)
                && known == (true, true, true, true);
            let lock = Lock {
                id: known.0.then(|| "x".to_owned()),
                operation: known.1.then_some(operation),
                who: known.2.then_some(who),
                version: None,
                created: known.3.then(|| dead.began_at + SignedDuration::from_secs(seconds)),
            };
            prop_assert_eq!(lock.of_dead(&[dead]).is_some(), ours);
        }
    }
}
