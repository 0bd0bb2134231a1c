//! What a Job and its pod mean for the run: sentences for its user.
//!
//! Pure: the recordings of a real cluster are its test. Reasons come first, exit codes second; `FailureTarget` is why a Job is
//! failing and not that it has failed, and what a log says counts for nothing.

use crate::{
    job::ErrorCode,
    launch::{
        kubernetes::{
            death::{Death, DeathCause},
            view::{Cause, Finished, JobView, PodView, Terminated},
        },
        launcher::End,
    },
};

/// Why the pod of a run does not start; none, while there is nothing to say. `events` are the messages of the warnings about the Job,
/// where it has no pod, or about its pod, the newest last: of a pod that is not even created, or waits for its volumes, nothing else
/// tells.
pub(crate) fn hindrance(job: &JobView, pod: Option<&PodView>, events: &[String]) -> Option<String> {
    if job.finished.is_some() {
        return None;
    }
    let Some(pod) = pod else { return events.last().map(|event| not_created(event)) };
    if let Some(why) = &pod.unschedulable {
        return Some(unschedulable(pod, why));
    }
    let Cause { reason, message } = pod.waiting.as_ref()?;
    let said = sentence(message);
    match reason.as_str() {
        "ContainerCreating" => {
            events.last().map(|event| format!("The run's container is not created yet: {}", sentence(event)))
        }
        "PodInitializing" | "" => None,
        "ErrImagePull"
        | "ImagePullBackOff"
        | "ErrImageNeverPull"
        | "InvalidImageName"
        | "RegistryUnavailable"
        | "ImageInspectError" => Some(format!("The image {} cannot be pulled: {said}", pod.image)),
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            Some(format!("The container cannot be created: {said}"))
        }
        other => Some(format!("The pod does not start ({other}): {said}")),
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Its executor said so.
    Said(End),
    /// It did not come to its end.
    Died(Death),
}

/// How a run ended; none, while it has not. `pod` is as it was seen last: one that was ended from outside is gone by then.
/// `was_asked` says whether this agent had it ended.
pub(crate) fn end(job: &JobView, pod: Option<&PodView>, was_asked: bool) -> Option<Ended> {
    match &job.finished {
        Some(Finished::Complete) => Some(Ended::Said(End::Stored)),
        Some(Finished::Failed(why)) => Some(failed(job, pod, why, was_asked)),
        // `FailureTarget`: as long as the container is not known to have ended it stores its state. A Job that is being deleted
        // gets no condition any more, and somebody's finalizer may keep it for ever.
        None => {
            let has_ended = pod.is_none_or(|pod| pod.terminated.is_some() || pod.is_gone);
            (job.leaves && has_ended).then(|| end_of_gone(job, pod, was_asked, false))
        }
    }
}

/// How a run ended whose Job is gone, or all but gone. `went_unseen` says whether it went while nobody watched.
pub(crate) fn end_of_gone(job: &JobView, pod: Option<&PodView>, was_asked: bool, went_unseen: bool) -> Ended {
    let cause = job.failing.clone().unwrap_or_default();
    match pod.and_then(|pod| pod.terminated.as_ref()) {
        Some(_) => failed(job, pod, &cause, was_asked),
        None if was_asked => {
            Ended::Died(Death::lost(DeathCause::Agent, "The run's Job was deleted by the agent.", false))
        }
        // It may have ended before, in any way, and was removed as every Job that has ended.
        None if went_unseen && !job.leaves => Ended::Died(Death::lost(
            DeathCause::Unknown,
            "The run's Job went while the Kubernetes API did not answer: it was deleted, or removed after its end (--keep-finished-runs).",
            false,
        )),
        None => {
            let disrupted = pod.and_then(|pod| disruption(pod, false));
            Ended::Died(disrupted.unwrap_or_else(|| Death::deleted("Job", false)))
        }
    }
}

/// Why nobody sees a run whose node does not answer.
pub(crate) fn silence(pod: &PodView) -> String {
    let node = pod.node.as_deref().unwrap_or("of the run");
    let gave_up = disruption(pod, false).map(|death| death.sentence);
    gave_up.unwrap_or_else(|| format!("The node {node} does not answer."))
}

/// Why a run was asked to stop that ended by itself then: it cannot know. None, if nothing shows that it was, or this agent asked.
/// `is_gone`: whether the Job is, and was seen to go.
pub(crate) fn stopped_by(job: &JobView, pod: &PodView, is_gone: bool, was_asked: bool) -> Option<Death> {
    let why = match &job.finished {
        // A pod that was deleted, and whose executor ended well then, counts as one that has ended well.
        Some(Finished::Complete) => None,
        Some(Finished::Failed(why)) => Some(why),
        None => job.failing.as_ref(),
    };
    if let Some(evicted) = pod.cause.as_ref().filter(|cause| cause.reason == "Evicted") {
        return Some(evicted_by_kubelet(evicted));
    }
    if why.is_some_and(|why| why.reason == "DeadlineExceeded") {
        return Some(past_deadline(job));
    }
    if let Some(disrupted) = disruption(pod, true) {
        return Some(disrupted);
    }
    if was_asked {
        return None;
    }
    // What goes after it has ended was not stopped by that.
    let job_went = (is_gone || job.leaves) && job.finished.is_none();
    let what = if job_went { "Job" } else { "pod" };
    (pod.leaves || job_went).then(|| Death::deleted(what, true))
}

/// The same, of a run whose pod nobody saw and that is gone: the Job alone says little.
pub(crate) fn stopped_unseen(job: &JobView) -> Option<Death> {
    match job.finished.as_ref()? {
        Finished::Failed(why) if why.reason == "DeadlineExceeded" => Some(past_deadline(job)),
        _ => Some(Death::lost(
            DeathCause::Unknown,
            "The run's pod was deleted while no agent watched it: its node was drained, or somebody deleted it.",
            true,
        )),
    }
}

fn failed(job: &JobView, pod: Option<&PodView>, why: &Cause, was_asked: bool) -> Ended {
    let Some(pod) = pod else {
        return Ended::Died(match why.reason.as_str() {
            "DeadlineExceeded" => past_deadline(job),
            _ if was_asked => Death::lost(DeathCause::Agent, "The run's pod was ended by the agent.", true),
            _ => Death::lost(
                DeathCause::Unknown,
                format!("The run's pod was never seen: its Job failed ({}).", both(why)),
                false,
            ),
        });
    };
    let terminated = pod.terminated.as_ref();
    // An executor that ends by itself says how with its exit code, also when it was asked to end.
    if let Some(code) = terminated.map(|terminated| terminated.code) {
        match End::of_code(Some(code)) {
            // What it kept is gone with its pod.
            End::Kept => {
                return Ended::Died(Death::lost(
                    DeathCause::Exit,
                    "The run ended, and the control plane did not answer until its pod had to end: its result is lost.",
                    true,
                ));
            }
            End::Died(_) => {}
            said => return Ended::Said(said),
        }
    }
    let is_certain = terminated.is_some() && !pod.is_silent;
    Ended::Died(if terminated.is_some_and(|terminated| terminated.reason == "OOMKilled") {
        out_of_memory(pod)
    } else if let Some(evicted) = pod.cause.as_ref().filter(|cause| cause.reason == "Evicted") {
        evicted_by_kubelet(evicted)
    } else if why.reason == "DeadlineExceeded" {
        past_deadline(job)
    } else if let Some(disrupted) = disruption(pod, is_certain) {
        disrupted
    } else if was_asked {
        Death::lost(DeathCause::Agent, "The run's pod was ended by the agent.", is_certain)
    } else if pod.leaves {
        Death::deleted(if job.leaves { "Job" } else { "pod" }, is_certain)
    } else if let Some(terminated) = terminated {
        ended_badly(terminated)
    } else {
        Death::lost(DeathCause::Unknown, format!("The run's pod failed ({}).", both(why)), false)
    })
}

fn not_created(event: &str) -> String {
    let why = event.strip_prefix("Error creating: ").unwrap_or(event);
    // `pods "x" is forbidden: why`: the pod's generated name says nothing.
    let why = why.split_once("is forbidden: ").map_or(why, |(_, why)| why);
    let kind = if why.starts_with("exceeded quota") {
        "The namespace's quota is used up, so the run waits"
    } else if why.starts_with("error looking up service account") {
        "The run's service account is missing"
    } else if why.starts_with("violates PodSecurity") {
        "The namespace refuses the run's pod"
    } else {
        "The run's pod is not created"
    };
    format!("{kind}: {}", sentence(why))
}

fn unschedulable(pod: &PodView, why: &str) -> String {
    // `0/1 nodes are available: 1 Insufficient memory. no new claims …`: the reasons, without what preemption would do.
    let reasons = why.split_once("available: ").map_or(why, |(_, reasons)| reasons);
    let reasons = reasons.split_once(". ").map_or(reasons, |(reasons, _)| reasons).trim_end_matches('.');
    let asked: Vec<String> = pod
        .requests
        .iter()
        .filter(|(name, _)| reasons.contains(&format!("Insufficient {name}")))
        .map(|(name, amount)| format!("{name} {amount}"))
        .collect();
    if asked.is_empty() {
        return format!("No node can take the run's pod: {reasons}.");
    }
    format!("No node can take the run's pod, which requests {}: {reasons}.", asked.join(" and "))
}

fn out_of_memory(pod: &PodView) -> Death {
    let limit = pod.memory_limit.as_deref().unwrap_or("that of its node");
    Death::fatal(
        DeathCause::Memory,
        format!(
            "The run needed more memory than its limit, {limit}, and was killed (OOMKilled). Raise resources.limits.memory of its rule in --service-account-map."
        ),
        ErrorCode::Internal,
    )
}

/// Its own limit would be passed again; what a node lacks may be there on another one.
fn evicted_by_kubelet(evicted: &Cause) -> Death {
    let text = format!("The node evicted the run's pod: {}", sentence(&evicted.message));
    let is_own_limit = ["exceeds the total limit", "exceeds the limit", "exceeded its", "Usage of EmptyDir"]
        .iter()
        .any(|words| evicted.message.contains(words));
    if is_own_limit {
        Death::fatal(DeathCause::Disk, text, ErrorCode::DiskFull)
    } else {
        Death::lost(DeathCause::Eviction, text, true)
    }
}

fn past_deadline(job: &JobView) -> Death {
    let limit = job.deadline.map_or_else(String::new, |seconds| format!(" of {seconds} s"));
    Death::fatal(
        DeathCause::Deadline,
        format!("The run passed the deadline{limit} of its Job (activeDeadlineSeconds) and was ended."),
        ErrorCode::TimedOut,
    )
}

/// Who ended a pod from outside, where its conditions say that.
fn disruption(pod: &PodView, is_certain: bool) -> Option<Death> {
    let why = pod.disruption.as_ref()?;
    let (cause, sentence) = match why.reason.as_str() {
        "DeletionByTaintManager" => {
            let node = pod.node.as_deref().unwrap_or("of the run");
            (
                DeathCause::Node,
                format!("The node {node} does not answer, and the run's pod was given up with it."),
            )
        }
        "EvictionByEvictionAPI" => (
            DeathCause::Eviction,
            "The run's pod was evicted through the API, as the drain of a node does it.".to_owned(),
        ),
        "PreemptionByScheduler" => (
            DeathCause::Preemption,
            "The run's pod was preempted: a pod of a higher priority needed its place.".to_owned(),
        ),
        "TerminationByKubelet" => {
            (DeathCause::Node, format!("The node ended the run's pod: {}", sentence(&why.message)))
        }
        _ => (DeathCause::Unknown, format!("The run's pod was ended from outside ({}).", both(why))),
    };
    Some(Death::lost(cause, sentence, is_certain))
}

fn ended_badly(terminated: &Terminated) -> Death {
    let said = last_line(&terminated.message);
    let said = if said.is_empty() { String::new() } else { format!(" It said: {said}") };
    match (terminated.reason.as_str(), terminated.code) {
        ("StartError" | "ContainerCannotRun", _) => Death::fatal(
            DeathCause::Exit,
            format!("The program of the run's image cannot be started: {}", sentence(&terminated.message)),
            ErrorCode::Internal,
        ),
        ("ContainerStatusUnknown", _) => {
            Death::lost(DeathCause::Unknown, "The run's container is gone, and its exit code unknown.", false)
        }
        (_, 137) => Death::lost(
            DeathCause::Killed,
            format!("The executor was killed (SIGKILL, exit code 137).{said}"),
            true,
        ),
        (_, 143) => Death::lost(
            DeathCause::Killed,
            format!("The executor was ended by SIGTERM (exit code 143).{said}"),
            true,
        ),
        (_, code) if code > 128 => Death::lost(
            DeathCause::Killed,
            format!("The executor was ended by signal {} (exit code {code}).{said}", code - 128),
            true,
        ),
        (_, 2) => Death::fatal(
            DeathCause::Exit,
            format!("The executor refused its configuration or its attempt file (exit code 2).{said}"),
            ErrorCode::Internal,
        ),
        (_, code) => {
            Death::lost(DeathCause::Exit, format!("The executor ended with exit code {code}.{said}"), true)
        }
    }
}

fn both(cause: &Cause) -> String {
    match (cause.reason.as_str(), cause.message.as_str()) {
        ("", "") => "no reason was given".to_owned(),
        (reason, "") => reason.to_owned(),
        (reason, message) => format!("{reason}: {}", message.trim_end_matches(['.', ' '])),
    }
}

pub(super) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// With one full stop, at most 1 KiB long. What a webhook or an image says is anybody's text: it has no control characters.
pub(super) fn sentence(message: &str) -> String {
    const LONGEST: usize = 1024;
    let text: String = message.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    let text = text.trim().trim_end_matches('.');
    if text.is_empty() {
        return "no reason was given.".to_owned();
    }
    let end = (0..=LONGEST.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let cut = if end < text.len() { "…" } else { "." };
    format!("{}{cut}", &text[..end])
}

/// Of what a program printed last, the last line that says something, at most 300 letters.
pub(super) fn last_line(message: &str) -> String {
    let line = message.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    // Whoever runs in the pod can have written it.
    line.chars().filter(|letter| !letter.is_control()).take(300).collect()
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
