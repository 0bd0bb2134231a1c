//! What every Rust client does around the library it measures: read the plan, count rows, say the result.
//!
//! The clients in other languages do the same in their own words: see `../clients/meter.mjs` and `meter.py`.

use std::{
    env,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

/// The row that every client reads, with all of its columns.
#[derive(Debug, serde::Deserialize)]
pub struct Row {
    pub id: i64,
    pub cluster_id: String,
    pub status: String,
    pub phase: Option<String>,
    pub attempt: i32,
    pub title: String,
    pub created_at: String,
    /// Nanoseconds of the monotonic clock, in 16 digits; zeros where nothing is timed.
    pub sent: String,
}

/// What the driver asks for, in environment variables.
#[derive(Debug, Clone)]
pub struct Plan {
    /// `http://127.0.0.1:port`
    pub url: String,
    /// Channels to join; more than one only to weigh them.
    pub channels: usize,
    pub heartbeat: Duration,
    events: u64,
    warm_up: u64,
    deadline: Duration,
    /// How long the consumer sleeps after the warm-up.
    stall: Duration,
}

impl Plan {
    pub fn from_environment() -> Self {
        let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        Self {
            url: env::var("BENCH_URL").expect("BENCH_URL"),
            channels: number("BENCH_CHANNELS").max(1) as usize,
            heartbeat: Duration::from_millis(number("BENCH_HEARTBEAT_MS").max(1)),
            events: number("BENCH_EVENTS"),
            warm_up: number("BENCH_WARM_UP"),
            deadline: Duration::from_millis(number("BENCH_DEADLINE_MS").max(1)),
            stall: Duration::from_millis(number("BENCH_STALL_MS")),
        }
    }

    /// The name of a channel, without the prefix `realtime:`.
    pub fn channel(&self, number: usize) -> String {
        format!("bench-{number}")
    }

    pub fn weighs_channels(&self) -> bool {
        self.channels > 1
    }

    pub fn stalls(&self) -> bool {
        !self.stall.is_zero()
    }

    pub fn deadline(&self) -> Duration {
        self.deadline
    }
}

/// What comes after an event.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Read,
    /// The consumer is to sleep so long, and to call [`Meter::woke`] then.
    Sleep(Duration),
    Stop,
}

/// Counts and times.
#[derive(Debug)]
pub struct Meter {
    plan: Plan,
    seen: u64,
    /// Rows that did not have the number after the last one's.
    out_of_order: u64,
    last_id: i64,
    lagged: u64,
    begun: Option<(Duration, Instant)>,
    ended: Option<(Duration, Instant)>,
    latencies_us: Vec<u64>,
    resident_kib: Vec<u64>,
}

impl Meter {
    pub fn new(plan: &Plan) -> Self {
        Self {
            plan: plan.clone(),
            seen: 0,
            out_of_order: 0,
            last_id: 10_000_000,
            lagged: 0,
            begun: None,
            ended: None,
            latencies_us: Vec::new(),
            resident_kib: Vec::new(),
        }
    }

    /// A row came.
    pub fn row(&mut self, row: &Row) -> Next {
        self.seen += 1;
        if row.id != self.last_id + 1 {
            self.out_of_order += 1;
        }
        self.last_id = row.id;
        if !row.sent.starts_with("0000000000000000")
            && let Ok(sent) = row.sent.parse::<u64>()
        {
            self.latencies_us.push(monotonic_ns().saturating_sub(sent) / 1000);
        }
        if self.seen == self.plan.warm_up {
            self.begun = Some((cpu(), Instant::now()));
            self.weigh();
            if !self.plan.stall.is_zero() {
                return Next::Sleep(self.plan.stall);
            }
        }
        if self.seen >= self.plan.events { Next::Stop } else { Next::Read }
    }

    /// The consumer slept.
    pub fn woke(&mut self) {
        self.weigh();
    }

    /// The library said that so many events are lost.
    pub fn lagged(&mut self, count: u64) {
        self.lagged += count;
    }

    /// Notes the resident memory.
    pub fn weigh(&mut self) {
        self.resident_kib.push(status_kib("VmRSS:"));
    }

    /// Notes the end of the timed part: before anything is torn down.
    pub fn end(&mut self) {
        self.ended = Some((cpu(), Instant::now()));
    }

    /// Prints the result and ends the process.
    pub fn report(mut self) -> ! {
        if self.ended.is_none() {
            self.end();
        }
        let (cpu_us, wall_us) = match (self.begun, self.ended) {
            (Some((cpu, at)), Some((cpu_then, then))) => {
                ((cpu_then - cpu).as_micros() as u64, (then - at).as_micros() as u64)
            }
            _ => (0, 0),
        };
        let result = serde_json::json!({
            "seen": self.seen,
            "timed": self.seen.saturating_sub(self.plan.warm_up),
            "cpu_us": cpu_us,
            "wall_us": wall_us,
            "out_of_order": self.out_of_order,
            "lagged": self.lagged,
            "latencies_us": self.latencies_us,
            "resident_kib": self.resident_kib,
            "peak_kib": status_kib("VmHWM:"),
        });
        println!("{result}");
        std::process::exit(0)
    }
}

/// User and system time of this process, all threads.
fn cpu() -> Duration {
    read(ClockId::ProcessCPUTime)
}

/// The clock that the server stamps rows with.
pub fn monotonic_ns() -> u64 {
    read(ClockId::Monotonic).as_nanos() as u64
}

fn read(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn status_kib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|number| number.trim().parse().ok())
        .unwrap_or(0)
}
