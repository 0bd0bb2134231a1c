//! Which of our own attempts may have left a lock behind: written down before Terraform takes a lock, and consulted when one
//! is in the way.
//!
//! An attempt writes itself down before each step that locks the state. When the attempt is known to be dead (its processes
//! are gone and it did not end gracefully) the note moves beside the state. A lock is ours, and stale, when such a note fits
//! it: same user and host, same operation, taken while that step could take it. That time ends with the last sign of life of
//! the agent that ran the step, so that a lock which another agent of the same host took later is not mistaken for it. Notes
//! are thrown away as soon as they can do no good any more.

use std::{
    convert::Infallible,
    env, fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use std::io::Read as _;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use uuid::Uuid;

use super::{backend::State, lock::Lock};
use crate::os::{
    blocking, failpoint,
    files::{private_dir, private_file},
    untrusted::open_own_file,
};

/// Most of a note that is read, in bytes.
const LARGEST_NOTE: u64 = 64 * 1024;
/// How much later than its step's beginning a lock can be taken, beside the time that Terraform is allowed to wait for one.
const MARGIN: SignedDuration = SignedDuration::from_secs(60);
/// How much later than the last sign of its agent's life a dead step can have taken a lock.
const PROOF: SignedDuration = SignedDuration::from_secs(1);

/// A step of an attempt that takes the state's lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LockOwner {
    pub(crate) deployment_id: Uuid,
    pub(crate) attempt: i32,
    /// The state that it works on.
    pub(crate) state_key: String,
    /// `user@host`, as Terraform writes it into the lock.
    pub(crate) who: String,
    /// `OperationTypePlan`, `OperationTypeApply` or `state-push`.
    pub(crate) operation: String,
    /// The pod that took it and has ended; then its host counts, and nothing else: no other pod ever has that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<String>,
    /// When the step began.
    pub(crate) began_at: Timestamp,
    /// When it could take the lock at the latest.
    pub(crate) locks_until: Timestamp,
}

impl LockOwner {
    /// Of a step that begins now.
    pub(crate) fn new(
        deployment_id: Uuid,
        attempt: i32,
        state: &State,
        operation: &str,
        grace_period: Duration,
    ) -> Self {
        let began_at = Timestamp::now();
        let grace_period = SignedDuration::try_from(grace_period).unwrap_or(MARGIN);
        Self {
            deployment_id,
            attempt,
            state_key: state.key().to_owned(),
            who: who(),
            operation: operation.to_owned(),
            pod: None,
            began_at,
            locks_until: began_at.saturating_add(grace_period + MARGIN).unwrap_or(Timestamp::MAX),
        }
    }

    /// Of whatever step of a pod that has ended.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn of_ended_pod(state: &State, pod: &str) -> Self {
        let id = Uuid::new_v4();
        Self { pod: Some(pod.to_owned()), ..Self::new(id, 0, state, "", Duration::ZERO) }
    }

    /// Saves it, while the step runs.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        private_file(path, &serde_json::to_vec(self)?)
    }

    /// Of a step that a previous run began, and that goes on.
    pub(crate) fn of_adopted(path: &Path) -> io::Result<Self> {
        Self::load(path)
    }

    /// What was stored beside a state.
    fn load(path: &Path) -> io::Result<Self> {
        let note = open_own_file(path)?.take(LARGEST_NOTE);
        Ok(serde_json::from_reader(io::BufReader::new(note))?)
    }

    /// What a previous run stored: of a step that is dead. It could take a lock until its agent was seen alive for the last
    /// time; until now, if it outlived its agent.
    pub(crate) fn of_previous_run(path: &Path, outlived: bool) -> io::Result<Self> {
        let mut owner = Self::load(path)?;
        if !outlived {
            let seen = Timestamp::try_from(fs::metadata(path)?.modified()?).unwrap_or(owner.began_at);
            let seen = seen.saturating_add(PROOF).unwrap_or(seen);
            owner.locks_until = owner.locks_until.min(seen);
        }
        Ok(owner)
    }

    /// Whether this step, which is dead, took this lock.
    fn made(&self, lock: &Lock) -> bool {
        if let Some(pod) = &self.pod {
            return lock.host() == Some(host_of(pod));
        }
        lock.who.as_deref() == Some(self.who.as_str())
            && lock.operation.as_deref() == Some(self.operation.as_str())
            && lock.created.is_some_and(|created| (self.began_at..=self.locks_until).contains(&created))
    }

    /// Writes down beside the state that this step is dead, and may have left a lock. A lock that is taken from now on is
    /// not its.
    pub(crate) fn mark_stale(mut self, state: &State) -> io::Result<()> {
        self.locks_until = self.locks_until.min(Timestamp::now());
        private_dir(state.dir())?;
        self.save(&state.note_of(self.deployment_id, self.attempt))
    }
}

/// A sentence about the newest of dead steps, each of which may have left a lock: for somebody who has to decide whether one is still used. Empty,
/// where there is none.
pub(crate) fn suspects(stale: &[LockOwner]) -> String {
    let Some(last) = stale.iter().max_by_key(|owner| owner.began_at) else { return String::new() };
    let LockOwner { deployment_id, attempt, began_at, .. } = last;
    match &last.pod {
        Some(pod) => {
            format!(" The pod {pod} of this agent worked on this state, has ended, and may have left it.")
        }
        // A state that was stored outside of any run.
        None if *attempt == 0 => {
            format!(
                " A command of this agent that began at {began_at:.0} ended abruptly and may have left it."
            )
        }
        None => format!(
            " A step of attempt {attempt} of deployment {deployment_id} that began at {began_at:.0} on this agent ended abruptly and may have left it."
        ),
    }
}

impl Lock {
    /// Whether this is the lock of one of our dead attempts; its ID, if so.
    pub(crate) fn of_stale(&self, dead: &[LockOwner]) -> Option<&str> {
        let id = self.id.as_deref()?;
        dead.iter().any(|owner| owner.made(self)).then_some(id)
    }
}

/// Runs a step with its note at `path`, and refreshes the note each half second. The note is marked stale if the step may have
/// left the lock: what the step answers decides that.
pub(crate) async fn during<T>(
    note: LockOwner,
    path: PathBuf,
    state: &State,
    step: impl Future<Output = T>,
    left_lock: impl FnOnce(&T) -> bool,
) -> io::Result<T> {
    let (stored, at) = (note.clone(), path.clone());
    blocking(move || {
        // A step that goes on has its note already; it must not be ended because the disk is full by now.
        let is_there = || LockOwner::load(&at).is_ok_and(|known| known == stored);
        stored.save(&at).or_else(|error| if is_there() { Ok(()) } else { Err(error) })
    })
    .await?;
    failpoint!("lock_owner.saved");
    let ended = tokio::select! {
        ended = step => ended,
        never = show_life(&path) => match never {},
    };
    let (left, state) = (left_lock(&ended), state.clone());
    blocking(move || {
        if left {
            note.mark_stale(&state)?;
        }
        match fs::remove_file(&path) {
            // Somebody has removed the run's directory.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    })
    .await?;
    Ok(ended)
}

/// Touches a note for ever.
async fn show_life(path: &Path) -> Infallible {
    loop {
        sleep(PROOF.unsigned_abs() / 2).await;
        let path = path.to_path_buf();
        // A sign that is missing shortens what is taken for ours.
        let _missing = blocking(move || fs::File::open(path)?.set_modified(SystemTime::now())).await;
    }
}

impl State {
    /// The dead steps that may have left a lock.
    pub(crate) fn stale_owners(&self) -> Vec<LockOwner> {
        self.notes().iter().filter_map(|path| LockOwner::load(path).ok()).collect()
    }

    /// No dead step holds the lock any more: somebody else could take it.
    pub(crate) fn clear_stale(&self) {
        for path in self.notes() {
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "a note about a dead attempt cannot be removed");
            }
        }
        self.tidy();
    }

    fn note_of(&self, id: Uuid, attempt: i32) -> PathBuf {
        self.dir().join(format!("dead-{id}.{attempt}.json"))
    }

    fn notes(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir()).into_iter().flatten().filter_map(Result::ok);
        entries.map(|entry| entry.path()).filter(|path| is_note(path)).collect()
    }
}

/// Whether a file is about a dead step.
pub(super) fn is_note(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("dead-") && name.ends_with(".json")
}

/// The host name of a pod: the kubelet cuts its name at 63 letters.
fn host_of(pod: &str) -> &str {
    const LONGEST: usize = 63;
    pod.get(..LONGEST).map_or(pod, |cut| cut.trim_end_matches(['-', '.']))
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
    use crate::terraform::state::backend::StateBackend;

    fn owner(state: &State) -> LockOwner {
        LockOwner::new(Uuid::from_u128(1), 2, state, "OperationTypeApply", Duration::from_secs(120))
    }

    fn lock_of(owner: &LockOwner) -> Lock {
        Lock {
            id: Some("the-id".to_owned()),
            operation: Some("OperationTypeApply".to_owned()),
            who: Some(owner.who.clone()),
            version: None,
            created: Some(owner.began_at),
        }
    }

    #[test]
    fn a_lock_of_a_dead_step_is_recognised_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateBackend::local().of(dir.path(), "k");
        let owner = owner(&state);
        let began_at = owner.began_at;
        let mut lock = lock_of(&owner);
        assert_eq!(lock.of_stale(&state.stale_owners()), None);
        owner.mark_stale(&state).unwrap();
        assert_eq!(lock.of_stale(&state.stale_owners()), Some("the-id"));
        lock.created = Some(Timestamp::now() + SignedDuration::from_millis(1));
        assert_eq!(
            lock.of_stale(&state.stale_owners()),
            None,
            "it was taken after the note was marked stale"
        );
        lock.created = Some(began_at);
        state.clear_stale();
        assert_eq!(lock.of_stale(&state.stale_owners()), None);
    }

    /// Who takes locks on one state: our agent's step, and somebody with another name, or with another operation, or
    /// another agent on the same host, which differs from ours by the time only.
    #[derive(Clone, Copy, Debug)]
    enum Taker {
        OurStep,
        OtherHost,
        OtherOperation,
        SameHost,
    }

    fn system(time: Timestamp) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(time.as_nanosecond()).unwrap())
    }

    fn taker() -> impl Strategy<Value = Taker> {
        prop_oneof![
            Just(Taker::OurStep),
            Just(Taker::OtherHost),
            Just(Taker::OtherOperation),
            Just(Taker::SameHost)
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        /// A history in milliseconds: our step begins, its agent shows life each half second and dies; locks are taken by
        /// anybody at any time; our next run reads the lock much later. The test knows who took it.
        #[test]
        fn a_foreign_lock_is_never_ours_and_ours_is(
            taker in taker(), taken in 0..300_000_i64, died in 0..200_000_i64, back in 0..600_000_i64,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let state = StateBackend::local().of(dir.path(), "k");
            let dead = owner(&state);
            let began_at = dead.began_at;
            let at = |millis: i64| began_at + SignedDuration::from_millis(millis);
            let (created, seen) = (at(taken), at(died / 500 * 500));
            // A step takes its lock while it lives, and no later than it was allowed to wait for one.
            let grace_period = 120_000;
            let ours = matches!(taker, Taker::OurStep) && taken <= died && taken <= grace_period;
            prop_assume!(!matches!(taker, Taker::OurStep) || ours);
            // Within a second of our agent's last refresh they cannot be distinguished.
            let apart = SignedDuration::from_secs(1);
            prop_assume!(!matches!(taker, Taker::SameHost) || created > seen + apart);

            let note = dir.path().join("owner.json");
            dead.save(&note).unwrap();
            fs::File::open(&note).unwrap().set_modified(system(seen)).unwrap();
            let mut stale = LockOwner::of_previous_run(&note, false).unwrap();
            stale.locks_until = stale.locks_until.min(at(died + back));
            let lock = Lock {
                id: Some("x".to_owned()),
                operation: Some(if matches!(taker, Taker::OtherOperation) { "OperationTypePlan" } else { "OperationTypeApply" }.to_owned()),
                who: Some(if matches!(taker, Taker::OtherHost) { "ann@laptop".to_owned() } else { who() }),
                version: None,
                created: Some(created),
            };
            prop_assert_eq!(lock.of_stale(&[stale.clone()]).is_some(), ours);
            for unknown in [Lock { id: None, ..lock.clone() }, Lock { who: None, ..lock.clone() },
                Lock { operation: None, ..lock.clone() }, Lock { created: None, ..lock }] {
                prop_assert_eq!(unknown.of_stale(&[stale.clone()]), None);
            }
        }
    }

    #[cfg(feature = "kubernetes")]
    #[test]
    fn a_lock_of_a_pod_that_has_ended_is_recognised_by_its_host_alone() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateBackend::local().of(dir.path(), "k");
        let pod = "tendril-0b6c7f6e-0000-4000-8000-000000000001-1-x7k2p";
        LockOwner::of_ended_pod(&state, pod).mark_stale(&state).unwrap();
        let mut lock = lock_of(&owner(&state));
        assert_eq!(lock.of_stale(&state.stale_owners()), None, "of another host");
        lock.who = Some(format!("tendril@{pod}"));
        assert_eq!(lock.of_stale(&state.stale_owners()), Some("the-id"));
        lock.who = Some(format!("tendril@{pod}-2"));
        assert_eq!(lock.of_stale(&state.stale_owners()), None, "of another pod");
    }

    #[test]
    fn a_step_that_outlived_its_agent_could_lock_until_it_was_ended() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateBackend::local().of(dir.path(), "k");
        let (note, owner) = (dir.path().join("owner.json"), owner(&state));
        owner.save(&note).unwrap();
        assert!(LockOwner::of_previous_run(&note, false).unwrap().locks_until < owner.locks_until);
        assert_eq!(LockOwner::of_previous_run(&note, true).unwrap(), owner);
    }

    #[tokio::test]
    async fn a_note_is_refreshed_while_its_step_runs_and_is_marked_stale_if_a_lock_may_be_left() {
        for left in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let state = StateBackend::local().of(dir.path(), "k");
            let note = dir.path().join("owner.json");
            let modified = || fs::metadata(&note).unwrap().modified().unwrap();
            let step = async {
                let first = modified();
                while modified() == first {
                    sleep(Duration::from_millis(20)).await;
                }
            };
            let owner = owner(&state);
            let began_at = owner.began_at;
            during(owner, note.clone(), &state, step, |()| left).await.unwrap();
            assert!(!note.exists());
            let dead = state.stale_owners();
            assert_eq!(dead.len(), usize::from(left));
            assert!(
                dead.iter().all(|dead| dead.began_at == began_at && dead.locks_until <= Timestamp::now())
            );
        }
    }

    #[tokio::test]
    async fn a_step_that_goes_on_is_not_ended_because_its_note_cannot_be_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateBackend::local().of(dir.path(), "k");
        let (note, owner) = (dir.path().join("owner.json"), owner(&state));
        owner.save(&note).unwrap();
        // As on a full disk: there is no place for a new file.
        fs::create_dir(dir.path().join("owner.json.new")).unwrap();
        let adopted = LockOwner::of_adopted(&note).unwrap();
        assert_eq!(during(adopted, note.clone(), &state, async { 7 }, |_| false).await.unwrap(), 7);
        assert!(!note.exists());
        during(owner.clone(), note.clone(), &state, async {}, |()| false)
            .await
            .expect_err("there is no note");
        let other = LockOwner { operation: "OperationTypePlan".to_owned(), ..owner.clone() };
        fs::write(&note, serde_json::to_vec(&other).unwrap()).unwrap();
        during(owner, note, &state, async {}, |()| false).await.expect_err("the note is of another step");
    }
}
