//! What becomes of a job whose agent or executor is killed at a chosen place: played to its end, and evaluated.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use supabase_local::{Injection, RequestFault, Target};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use self::evidence::{spooled, stored_status};
use crate::{
    agent::AgentSetup,
    cluster::Cluster,
    deployment::{Deployment, Row},
    program::{self, Program},
    story::Story,
    wait::{TIMEOUT, until},
    world::World,
};

mod evidence;

/// How long a run's directory has been gone when its lease is ended by hand: no real lease ends in the same moment.
const LET_GO: Duration = Duration::from_secs(1);
/// Between two looks whether a process has died.
const LOOK: Duration = Duration::from_millis(20);

/// Places, and which times the agent comes there. Together they are the crash table.
pub const PLACES: &[(&str, &[u64])] = &[
    ("claim.answered", &[1]),
    ("claim.won", &[1]),
    ("workspace.made", &[1]),
    ("workspace.claimed", &[1]),
    ("workspace.logging", &[1]),
    ("step.begins", &[1, 2, 3, 4]),
    ("step.ended", &[1, 2, 3, 4]),
    ("lock_owner.saved", &[1, 2]),
    ("approval.saved", &[1]),
    ("approval.shown", &[1]),
    ("journal.taken", &[1, 2, 4, 8]),
    ("writer.took", &[1, 2, 4, 8]),
    ("writer.line", &[1, 10, 150, 600]),
    ("spool.flushing", &[1, 2, 4, 8]),
    ("spool.flushed", &[1, 2, 4, 8]),
    ("spool.sealed", &[1, 2]),
    ("spool.begun", &[1, 2]),
    ("spool.dropping", &[1, 3]),
    ("spool.dropped", &[1, 3]),
    ("sink.read", &[1, 2]),
    ("sink.sending", &[1, 2]),
    ("sink.stored", &[1, 2]),
    ("sink.based", &[1]),
    ("sink.forgot", &[1]),
    ("progress.stored", &[1, 2, 3]),
    ("apply.saved", &[1]),
    ("apply.flushed", &[1]),
    ("final_status.made", &[1]),
    ("final_status.saved", &[1]),
    ("final_status.uploaded", &[1]),
    ("final_status.counted", &[1]),
    ("final_status.stored", &[1]),
    ("workspace.removing", &[1]),
    ("final_status.removed", &[1]),
    ("recovery.found", &[1]),
    ("recovery.cleared", &[1]),
    ("recovery.resumed", &[1]),
    ("recovery.uploaded", &[1]),
    ("recovery.counted", &[1]),
    ("recovery.stored", &[1]),
];

/// Where the job runs, and so what dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Launcher {
    /// Inside the agent, without a parent process that keeps exit codes: everything dies.
    InProcess,
    /// In an executor. The one of the two processes dies that comes to the place: the dispatcher claims and recovers, the
    /// executor does everything else.
    Local,
}

impl Launcher {
    /// Both.
    pub const ALL: [Self; 2] = [Self::InProcess, Self::Local];

    /// As `--launcher` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InProcess => "in-process",
            Self::Local => "local",
        }
    }
}

/// One crash: where, which time, and a seed for all that may differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crash {
    /// Where the job runs.
    pub launcher: Launcher,
    /// The place's name.
    pub place: &'static str,
    /// Which time it comes there.
    pub time: u64,
    /// Decides how much the program prints, how fast, and in what portions.
    pub seed: u64,
}

/// Makes the program that dies, where it is stale. To be called before there is a world: it takes minutes, and the stack
/// shares the test's only thread.
pub fn prepare() {
    program::agent_with_failpoints();
}

/// How it went.
#[derive(Debug, Clone)]
pub struct Aftermath {
    /// The job's last status.
    pub row: Row,
    /// Lines stored, by attempt.
    pub lines: BTreeMap<i32, usize>,
    /// Lines that were on the dead agent's disk.
    pub on_disk: usize,
}

impl Crash {
    /// Every crash of the table, each with so many seeds.
    pub fn all(seeds: u64) -> Vec<Self> {
        let places = PLACES.iter().flat_map(|(place, times)| times.iter().map(move |time| (*place, *time)));
        let places = places.flat_map(|place| Launcher::ALL.map(|launcher| (place, launcher)));
        places
            .flat_map(|((place, time), launcher)| {
                (0..seeds).map(move |seed| Self { launcher, place, time, seed })
            })
            .collect()
    }

    fn story(self) -> Story {
        // Numbers that look random are all that is wanted of this.
        let pick = |salt: u32, from: u64, to: u64| {
            let mixed = (self.seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17 * salt + 7);
            from + mixed % (to - from + 1)
        };
        let story = Story {
            planned: pick(1, 100, 300),
            lines: pick(2, 700, 1500),
            burst: pick(3, 20, 120),
            width: pick(4, 12, 120),
            gate: None,
        };
        match self.place {
            // Enough for several segments; far more than may wait on disk.
            "spool.sealed" | "spool.begun" | "sink.based" | "sink.forgot" => {
                Story { lines: 2500, burst: 250, width: 1500, ..story }
            }
            "spool.dropping" | "spool.dropped" => Story { lines: 3000, burst: 500, width: 1500, ..story },
            _ => story,
        }
    }

    /// How a job may end whose agent was killed there, and in which attempt: nothing is run again once the apply began, what
    /// had not begun is run again, and an end that was on disk is the end.
    fn truths(self) -> &'static [(&'static str, i32)] {
        const AGAIN: (&str, i32) = ("SUCCESS", 2);
        const LOST: (&str, i32) = ("FAILED", 1);
        const ENDED: (&str, i32) = ("SUCCESS", 1);
        let (place, time) = self.before().unwrap_or((self.place, self.time));
        if self.launcher == Launcher::Local && self.before().is_none() {
            return match (place, time) {
                // It had left nothing, and is started again.
                ("workspace.made", _) => &[ENDED],
                ("claim.answered" | "claim.won" | "workspace.claimed" | "workspace.logging", _)
                | ("step.begins" | "step.ended", 1 | 2)
                | ("lock_owner.saved", 1)
                | ("writer.line", 1 | 10) => &[AGAIN],
                ("step.begins" | "step.ended" | "lock_owner.saved", _) | ("writer.line", 600..) => &[ENDED],
                _ if ["approval.", "apply.", "final_status."]
                    .iter()
                    .any(|stage| place.starts_with(stage)) =>
                {
                    &[ENDED]
                }
                ("workspace.removing", _) => &[ENDED],
                // Of the plan or of the apply, as it comes. No apply is lost.
                _ => &[AGAIN, ENDED],
            };
        }
        match (place, time) {
            (
                "claim.answered" | "claim.won" | "workspace.made" | "workspace.claimed" | "workspace.logging",
                _,
            )
            | ("step.begins" | "step.ended", 1 | 2)
            | ("lock_owner.saved", 1)
            | ("writer.line", 1 | 10) => &[AGAIN],
            // The plan has at most 300 lines.
            ("step.begins" | "step.ended" | "lock_owner.saved" | "apply.saved" | "apply.flushed", _)
            | ("writer.line", 600..) => &[LOST],
            // A plan that waits for approval goes on waiting.
            ("approval.saved" | "approval.shown" | "workspace.removing", _) => &[ENDED],
            _ if place.starts_with("final_status.") => &[ENDED],
            // Lines and chunks are of the plan or of the apply, or still on their way when all is over, as it comes.
            _ => &[AGAIN, LOST, ENDED],
        }
    }

    /// Whether it can end well in its first attempt though no end was on disk: the row had it, or it went on.
    fn goes_on(self) -> bool {
        let place = matches!(
            self.place,
            "approval.saved"
                | "approval.shown"
                | "final_status.stored"
                | "workspace.removing"
                | "final_status.removed"
        );
        place || self.launcher == Launcher::Local
    }

    /// Where the first of two lives ends.
    fn before(self) -> Option<(&'static str, u64)> {
        let first = [("step.ended", 3), ("final_status.saved", 1), ("writer.line", 650)];
        let seed = usize::try_from(self.seed).unwrap_or_default();
        self.place.starts_with("recovery.").then(|| first[seed % first.len()])
    }

    fn is_about_dropping(self) -> bool {
        self.place.starts_with("spool.drop")
    }

    /// Plays it: a first life that dies there, where need be a second one, and a last one that tidies up.
    ///
    /// Errors: what was promised and did not come true, in a sentence.
    pub async fn play(self, world: &World) -> Result<Aftermath, String> {
        let cluster = world.cluster().await;
        let mut setup = world.agent(&cluster).narrator();
        setup.cli.spool_limit = Some(if self.is_about_dropping() { "1MiB" } else { "8MiB" }.to_owned());
        let outage = self.is_about_dropping().then(|| logs_refused(world, &cluster)).flatten();
        let mut order = self.story().config();
        order["approval"] = self.place.starts_with("approval.").into();
        let deployment = cluster.queue(order).await;

        if let Some((place, time)) = self.before() {
            live_until(&setup, place, time).await?;
        }
        let work_dir = setup.cli.work_dir.clone().expect("a work directory");
        let work_dir = Path::new(&work_dir);
        let (mut on_disk, mut stored, mut life) = (Vec::new(), None, None);
        match self.launcher {
            Launcher::InProcess => {
                live_until(&setup, self.place, self.time).await?;
                on_disk = spooled(work_dir, deployment.id);
                stored = stored_status(work_dir, deployment.id);
            }
            // What an executor had on disk is taken up at once by the next one.
            Launcher::Local => life = one_dies(&setup, &deployment, self.place, self.time, world).await?,
        }
        if let Some(outage) = outage {
            outage.lift();
        }
        let life = life.unwrap_or_else(|| setup.start());
        // What is started again in the same attempt needs its lease.
        let is_queued_again = self.truths() != [("SUCCESS", 1)];
        let row = await_end(world, &deployment, work_dir, is_queued_again).await;
        // A process that gets SIGTERM would first report its cluster OFFLINE.
        life.signal(Signal::KILL);
        self.evaluate(world, deployment.id, row, &on_disk, stored.as_deref()).await
    }

    async fn evaluate(
        self,
        world: &World,
        deployment: Uuid,
        row: Row,
        on_disk: &[(i32, u64)],
        stored: Option<&str>,
    ) -> Result<Aftermath, String> {
        let query = "select attempt, seq, stream, log_chunk from public.deployment_logs where deployment_id = $1 order by attempt, seq";
        let rows = world.database.query(query, &[&deployment]).await.map_err(|error| error.to_string())?;
        let (mut chunks, mut lines): (BTreeMap<i32, i64>, BTreeMap<i32, Vec<u64>>) = Default::default();
        let mut missing = 0;
        for chunk in rows {
            let (attempt, seq, text): (i32, i64, String) = (chunk.get(0), chunk.get(1), chunk.get(3));
            let last = chunks.entry(attempt).or_default();
            if seq != *last + 1 {
                return Err(format!("attempt {attempt}: chunk {seq} follows {last}"));
            }
            *last = seq;
            let printed = lines.entry(attempt).or_default();
            printed.extend(text.lines().filter_map(|line| line.rsplit_once("line ")?.1.parse::<u64>().ok()));
            if let Some((_, rest)) = text.split_once("… ") {
                missing += rest.split(' ').next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
            }
        }
        if !self.truths().contains(&(row.status.as_str(), row.attempt)) {
            return Err(format!("the truth is one of {:?}, and the row has {row:?}", self.truths()));
        }
        let printed = (row.status.as_str(), row.attempt);
        if stored.is_some_and(|stored| printed != (stored, 1)) {
            return Err(format!("{stored:?} was on disk, and the row has {row:?}"));
        }
        if stored.is_none() && printed == ("SUCCESS", 1) && !self.goes_on() {
            return Err(format!("nobody knew of an end, and the row has {row:?}"));
        }
        if row.status == "FAILED" && row.error_code.as_deref() != Some("AGENT_LOST") {
            return Err(format!("it was lost, and the row has {row:?}"));
        }
        if !self.is_about_dropping() && missing > 0 {
            return Err(format!("{missing} lines are reported missing"));
        }
        for (attempt, printed) in &lines {
            let whole = if self.is_about_dropping() {
                printed.windows(2).all(|pair| pair[0] < pair[1])
            } else {
                printed.iter().zip(1..).all(|(line, place)| *line == place)
            };
            if !whole {
                let breaks: Vec<_> = printed
                    .windows(2)
                    .filter(|pair| pair[0] + 1 != pair[1])
                    .map(|pair| (pair[0], pair[1]))
                    .collect();
                return Err(format!(
                    "attempt {attempt}: lines are missing, doubled or moved: from {:?}, then {breaks:?}",
                    printed.first()
                ));
            }
        }
        let stored = |attempt: &i32, line: &u64| {
            lines.get(attempt).is_some_and(|printed| printed.binary_search(line).is_ok())
        };
        if let Some((attempt, line)) = on_disk.iter().find(|(attempt, line)| !stored(attempt, line)) {
            return Err(format!("attempt {attempt}: line {line} was on disk and never arrived"));
        }
        let last = chunks.get(&row.attempt).copied().unwrap_or_default();
        if row.log_count != last {
            return Err(format!("log_count is {} and {last} chunks are stored", row.log_count));
        }
        let all = usize::try_from(self.story().lines).unwrap_or(usize::MAX);
        let printed = lines.get(&row.attempt).map_or(0, Vec::len);
        if row.status == "SUCCESS" && !self.is_about_dropping() && printed != all {
            return Err(format!("SUCCESS with {printed} of {all} lines"));
        }
        let lines = lines.into_iter().map(|(attempt, printed)| (attempt, printed.len())).collect();
        Ok(Aftermath { row, lines, on_disk: on_disk.len() })
    }
}

/// Only this cluster's log rows are refused, for others play in the same world.
fn logs_refused(world: &World, cluster: &Cluster) -> Option<Injection> {
    let faults = world.project.stack("log rows are refused")?.faults();
    let logs = Target::all().method("POST").path("/rest/v1/deployment_logs");
    let fault = RequestFault::Status { code: 503, retry_after: None };
    Some(faults.on_requests(fault, logs.claim("cluster_id", cluster.id.to_string())))
}

async fn live_until(setup: &AgentSetup, place: &str, time: u64) -> Result<(), String> {
    let mut doomed = setup.start_to_die_at(place, time);
    match timeout(TIMEOUT, doomed.ended()).await {
        Ok(status) if status.code().is_none() => Ok(()),
        Ok(status) => Err(format!("the agent ended with {status} instead: {}", doomed.output())),
        Err(_) => Err(format!("the agent never came to {place} the {time}. time")),
    }
}

/// Lives until the dispatcher or an executor dies at a place; answers the dispatcher, if it is the one that lives.
async fn one_dies(
    setup: &AgentSetup,
    deployment: &Deployment,
    place: &str,
    time: u64,
    world: &World,
) -> Result<Option<Program>, String> {
    let once = world.path(&format!("{}.once", deployment.id));
    let mut agent = setup.start_with_mortal_executors(place, time, &once);
    let died = async {
        while !once.exists() {
            approve_what_waits(world, deployment).await;
            sleep(LOOK).await;
        }
    };
    if timeout(TIMEOUT, died).await.is_err() {
        return Err(format!(
            "neither process came to {place} the {time}. time: {:?} {}",
            deployment.row().await,
            agent.output()
        ));
    }
    let is_of_dispatcher = place.starts_with("claim.") || place.starts_with("recovery.");
    if is_of_dispatcher {
        let status = agent.ended().await;
        if status.code().is_some() {
            return Err(format!("the dispatcher ended with {status} instead: {}", agent.output()));
        }
    }
    Ok((!is_of_dispatcher).then_some(agent))
}

/// Waits for the job's end and for the last life to have nothing left to tidy. Where only the end of the lease helps, it
/// ends now instead of in a minute.
async fn await_end(world: &World, deployment: &Deployment, work_dir: &Path, is_queued_again: bool) -> Row {
    let first = work_dir.join(format!("{}.1", deployment.id));
    let gone_since = Cell::new(None::<Instant>);
    let row = until("the job ends", async || {
        let row = deployment.row().await;
        if row.has_ended() {
            return Ok(row);
        }
        approve_what_waits(world, deployment).await;
        gone_since.set((!first.exists()).then(|| gone_since.get().unwrap_or_else(Instant::now)));
        // By then the dispatcher has let go of the run, and takes it as a new one.
        let is_let_go = gone_since.get().is_some_and(|since| since.elapsed() > LET_GO);
        if is_queued_again && row.attempt == 1 && row.status == "PROCESSING" && is_let_go {
            expire_lease(world, deployment).await;
        }
        Err(format!("{row:?}"))
    })
    .await;
    until("the work directory is tidy", async || {
        let left = fs::read_dir(work_dir).into_iter().flatten().flatten();
        let left: Vec<_> =
            left.map(|entry| entry.file_name()).filter(|name| name.to_string_lossy().contains('-')).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    row
}

/// Approves the plan that is shown, if there is one.
async fn approve_what_waits(world: &World, deployment: &Deployment) {
    let approve = "update public.deployments set approved_plan = plan_sha256 where id = $1 and phase = 'APPROVAL' and plan_sha256 is not null and approved_plan is null";
    world.database.execute(approve, &[&deployment.id]).await.expect("the plan is approved");
}

/// Ends the lease of a job now, and lets the reaper look.
pub async fn expire_lease(world: &World, deployment: &Deployment) {
    let expire =
        "update tendril.leases set last_heartbeat_at = now() - interval '1 hour' where deployment_id = $1";
    world.database.execute(expire, &[&deployment.id]).await.expect("the lease ends");
    world.database.execute("select public.reap_lost_agents()", &[]).await.expect("the reaper");
}
