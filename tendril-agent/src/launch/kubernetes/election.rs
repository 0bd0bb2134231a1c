//! Who of several dispatchers is at work: the holder of a Lease, as in every controller of Kubernetes.
//!
//! The others wait. Whether a Lease has expired is judged by the time since its last change was seen here, so that clocks
//! need not agree.

use std::time::{Duration, SystemTime};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, api::PostParams};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use crate::{launch::kubernetes::settings::LeaseSettings, os::failpoint};

/// Of one request.
const ANSWER: Duration = Duration::from_secs(10);

/// A Lease and who asks for it.
#[derive(Clone, Debug)]
pub(crate) struct Election {
    leases: Api<Lease>,
    settings: LeaseSettings,
    /// Different for each process: the name of its pod.
    identity: String,
}

/// The Lease is held.
#[derive(Debug)]
pub(crate) struct Leadership {
    election: Election,
    lease: Lease,
    /// When it was renewed last.
    renewed: Instant,
    /// When the holder before this one renewed it last, or gave it back, in seconds since 1970.
    predecessor: Option<i64>,
}

impl Election {
    pub(crate) fn new(leases: Api<Lease>, settings: LeaseSettings, identity: String) -> Self {
        Self { leases, settings, identity }
    }

    /// Waits until the Lease is held. What is not allowed or cannot be reached is logged, and tried again.
    pub(crate) async fn win(&self) -> Leadership {
        let mut last: Option<(String, Instant)> = None;
        let mut holder = String::new();
        let name = &self.settings.name;
        loop {
            // It holds from the server's write on, which is later than this.
            let asked = Instant::now();
            match self.attempt(&mut last).await {
                Ok(Standing::Holds(lease, predecessor)) => {
                    tracing::info!(lease = name, identity = self.identity, "this dispatcher leads");
                    failpoint!("lease.won");
                    return Leadership { election: self.clone(), lease: *lease, renewed: asked, predecessor };
                }
                Ok(Standing::Waits(other)) if other != holder => {
                    tracing::info!(lease = name, holder = other, "another dispatcher leads: waiting");
                    holder = other;
                }
                Ok(Standing::Waits(_)) => {}
                Err(error) => tracing::warn!(lease = name, %error, "the Lease cannot be had now"),
            }
            sleep(self.settings.look_every()).await;
        }
    }

    /// Tries to take the Lease. `last` is its version that was seen last, and since when.
    async fn attempt(&self, last: &mut Option<(String, Instant)>) -> Result<Standing, kube::Error> {
        let Some(lease) = answered(self.leases.get_opt(&self.settings.name)).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.settings.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.spec(None)),
            };
            return match answered(self.leases.create(&PostParams::default(), &lease)).await {
                Ok(lease) => Ok(Standing::Holds(Box::new(lease), None)),
                Err(error) if is_conflict(&error) => Ok(Standing::Waits(String::new())),
                Err(error) => Err(error),
            };
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match last {
            Some((seen, since)) if *seen == version => *since,
            _ => last.insert((version, Instant::now())).1,
        };
        let holds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let is_free =
            holder.is_empty() || since.elapsed() >= holds.map_or(self.settings.duration, Duration::from_secs);
        if holder != self.identity && !is_free {
            return Ok(Standing::Waits(holder));
        }
        let lease = Lease { spec: Some(self.spec(lease.spec.as_ref())), ..lease };
        match answered(self.leases.replace(&self.settings.name, &PostParams::default(), &lease)).await {
            Ok(lease) => {
                let before = spec.renew_time.map(|time| time.0.as_second());
                Ok(Standing::Holds(Box::new(lease), before))
            }
            // Somebody was faster.
            Err(error) if is_conflict(&error) => Ok(Standing::Waits(String::new())),
            Err(error) => Err(error),
        }
    }

    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = now();
        let was_mine = before.is_some_and(|spec| spec.holder_identity.as_deref() == Some(&self.identity));
        let acquired = before.and_then(|spec| spec.acquire_time.clone()).filter(|_| was_mine);
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.settings.duration.as_secs()).ok(),
            acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions + i32::from(before.is_some() && !was_mine)),
            ..LeaseSpec::default()
        }
    }
}

enum Standing {
    /// And when its holder before renewed it last.
    Holds(Box<Lease>, Option<i64>),
    /// Who has it.
    Waits(String),
}

impl Leadership {
    /// Renews the Lease for as long as that works; returns when it is lost, or will be before it can be renewed.
    pub(crate) async fn keep(&mut self) {
        loop {
            sleep_until(self.renewed + self.election.settings.renew_every()).await;
            // Also where the process was stopped meanwhile: the clock went on.
            let ends = self.renewed + self.election.settings.renew_deadline;
            let renewed = async {
                loop {
                    match self.renew().await {
                        Ok(()) => return None,
                        Err(Lost::Taken(holder)) => return Some(holder),
                        Err(Lost::Unknown(_)) => sleep(self.election.settings.retry_every()).await,
                    }
                }
            };
            match timeout_at(ends, renewed).await {
                Ok(None) => {}
                Ok(Some(holder)) => {
                    tracing::error!(holder, "another dispatcher has the Lease");
                    return;
                }
                Err(_) => {
                    tracing::error!("the Lease cannot be renewed in time");
                    return;
                }
            }
        }
    }

    async fn renew(&mut self) -> Result<(), Lost> {
        let Election { leases, settings: LeaseSettings { name, .. }, identity } = &self.election;
        let spec = self.election.spec(self.lease.spec.as_ref());
        let lease = Lease { spec: Some(spec), ..self.lease.clone() };
        let asked = Instant::now();
        match answered(leases.replace(name, &PostParams::default(), &lease)).await {
            Ok(lease) => {
                self.lease = lease;
                self.renewed = asked;
                Ok(())
            }
            // Somebody changed it: a person, or this process, whose answer was lost.
            Err(error) if is_conflict(&error) => {
                let lease = answered(leases.get(name)).await.map_err(Lost::Unknown)?;
                let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
                match holder {
                    Some(holder) if holder != *identity => Err(Lost::Taken(holder)),
                    _ => {
                        self.lease = lease;
                        Err(Lost::Unknown(error))
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the Lease cannot be renewed now");
                Err(Lost::Unknown(error))
            }
        }
    }

    /// When the dispatcher before this one was at work last, in seconds since 1970.
    pub(crate) fn predecessor(&self) -> Option<i64> {
        self.predecessor
    }

    /// Gives the Lease back, so that the next one need not wait for its end. It says when this one stopped to look after runs.
    pub(crate) async fn release(self, stopped: Option<SystemTime>) {
        let Election { leases, settings: LeaseSettings { name, .. }, .. } = &self.election;
        let mut lease = self.lease;
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
            let stopped = stopped.and_then(|stopped| Timestamp::try_from(stopped).ok());
            spec.renew_time = Some(stopped.map_or_else(now, MicroTime));
            spec.lease_duration_seconds = Some(1);
        }
        if let Err(error) = answered(leases.replace(name, &PostParams::default(), &lease)).await {
            tracing::debug!(%error, "the Lease is left to expire");
        }
    }
}

enum Lost {
    Taken(String),
    Unknown(#[expect(dead_code, reason = "was logged where it came up")] kube::Error),
}

/// Written with six decimals: the API takes no more and no fewer.
fn now() -> MicroTime {
    MicroTime(Timestamp::now())
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// Bounds the time of one request.
pub(super) async fn answered<T>(
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, kube::Error> {
    timeout(ANSWER, request)
        .await
        .unwrap_or_else(|_| Err(kube::Error::Service(std::io::Error::other("no answer within 10 s").into())))
}
