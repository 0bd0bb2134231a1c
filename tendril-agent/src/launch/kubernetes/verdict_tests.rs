use std::{fs, path::Path};

use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Event, Pod},
};
use serde_json::Value;
use uuid::Uuid;

use super::*;
use crate::launch::kubernetes::names::{ATTEMPT, DEPLOYMENT, PART};

/// What the watches of a recorded case said, in order.
struct Recorded {
    jobs: Vec<Job>,
    pods: Vec<Pod>,
    events: Vec<Event>,
}

fn recorded(case: &str) -> Recorded {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/recorded/kubernetes/v1.36");
    let file = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_string_lossy().starts_with(case))
        .unwrap_or_else(|| panic!("{case} is recorded"));
    let text = fs::read_to_string(file).unwrap();
    let mut found = Recorded { jobs: Vec::new(), pods: Vec::new(), events: Vec::new() };
    for line in text.lines().filter(|line| line.starts_with("{\"type\":")) {
        let Ok(mut event) = serde_json::from_str::<Value>(line) else { continue };
        let mut object = event["object"].take();
        // The recorder had labels of its own.
        let labels = &mut object["metadata"]["labels"];
        labels[DEPLOYMENT] = Uuid::nil().to_string().into();
        labels[ATTEMPT] = "1".into();
        labels[PART] = "first".into();
        match object["kind"].as_str() {
            Some("Job") => found.jobs.push(serde_json::from_value(object).unwrap()),
            Some("Pod") => found.pods.push(serde_json::from_value(object).unwrap()),
            Some("Event") => found.events.push(serde_json::from_value(object).unwrap()),
            _ => {}
        }
    }
    assert!(!found.jobs.is_empty(), "{case} has a watch of Jobs");
    found
}

impl Recorded {
    fn job(&self) -> JobView {
        JobView::of(self.jobs.last().unwrap()).unwrap()
    }

    fn pod(&self) -> Option<PodView> {
        self.pods.last().map(|pod| PodView::of(pod).unwrap())
    }

    fn failed_create(&self) -> Vec<String> {
        let failed = self.events.iter().filter(|event| event.reason.as_deref() == Some("FailedCreate"));
        failed.filter_map(|event| event.message.clone()).collect()
    }
}

#[test]
fn each_recorded_end_has_its_sentence() {
    for (case, expected, code) in [
        ("031", "The executor ended with exit code 1.", None),
        (
            "032",
            "The run needed more memory than its limit, 64Mi, and was killed (OOMKilled). Raise resources.limits.memory of its rule in --service-account-map.",
            Some(ErrorCode::Internal),
        ),
        (
            "033",
            "The run passed the deadline of 25 s of its Job (activeDeadlineSeconds) and was ended.",
            Some(ErrorCode::TimedOut),
        ),
        (
            "036",
            "The run passed the deadline of 6 s of its Job (activeDeadlineSeconds) and was ended.",
            Some(ErrorCode::TimedOut),
        ),
        ("037", "The run's pod was deleted by somebody else than the agent.", None),
        ("038", "The run's pod was evicted through the API, as the drain of a node does it.", None),
        (
            "048",
            "The node evicted the run's pod: Pod ephemeral local storage usage exceeds the total limit of containers 8Mi.",
            Some(ErrorCode::DiskFull),
        ),
        ("052", "The program of the run's image cannot be started: ", Some(ErrorCode::Internal)),
    ] {
        let recorded = recorded(case);
        let ended = end(&recorded.job(), recorded.pod().as_ref(), false);
        let Some(Ended::Died(Death { sentence, repeats_as, is_certain, .. })) = ended else {
            panic!("{case}: {ended:?}");
        };
        assert_eq!(repeats_as, code, "{case}");
        assert!(is_certain, "{case}: its container has ended");
        assert!(sentence.starts_with(expected), "{case}: {sentence}");
        assert_eq!(sentence.lines().count(), 1, "{case}: {sentence}");
    }
    let success = recorded("030");
    assert_eq!(end(&success.job(), success.pod().as_ref(), false), Some(Ended::Said(End::Stored)));
}

#[test]
fn a_pod_that_does_not_start_says_why() {
    for (case, expected) in [
        (
            "012",
            "The run's service account is missing: error looking up service account tendril/missing: serviceaccount \"missing\" not found.",
        ),
        (
            "013",
            "The namespace's quota is used up, so the run waits: exceeded quota: pods, requested: pods=1, used: pods=0, limited: pods=0.",
        ),
        (
            "014",
            "The namespace refuses the run's pod: violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false",
        ),
        (
            "034",
            "The image localhost/none:1 cannot be pulled: Container image \"localhost/none:1\" is not present with pull policy of Never.",
        ),
        ("035", "No node can take the run's pod, which requests memory 500Gi: 1 Insufficient memory."),
        ("053", "The container cannot be created: container has runAsNonRoot and image will run as root"),
    ] {
        let recorded = recorded(case);
        // Each was seen at some time; in 013 the pod comes later by itself.
        let job = JobView::of(recorded.jobs.first().unwrap()).unwrap();
        let pods = std::iter::once(None).chain(recorded.pods.iter().map(PodView::of));
        let said: Vec<String> =
            pods.filter_map(|pod| hindrance(&job, pod.as_ref(), &recorded.failed_create())).collect();
        assert!(said.iter().any(|said| said.starts_with(expected)), "{case}: {said:#?}");
    }
    let pull = recorded("033");
    let job = JobView::of(pull.jobs.first().unwrap()).unwrap();
    let said = pull.pods.iter().filter_map(|pod| hindrance(&job, PodView::of(pod).as_ref(), &[]));
    let said: Vec<String> = said.collect();
    assert!(
        said.iter().all(|said| said.starts_with("The image 127.0.0.1:1/none:1 cannot be pulled: ")),
        "{said:#?}"
    );
    assert!(!said.is_empty());
}

#[test]
fn a_pod_that_starts_as_it_should_says_nothing() {
    for case in ["030", "031", "036", "041"] {
        let recorded = recorded(case);
        for (job, pod) in recorded.jobs.iter().zip(&recorded.pods) {
            let (job, pod) = (JobView::of(job).unwrap(), PodView::of(pod));
            assert_eq!(hindrance(&job, pod.as_ref(), &[]), None, "{case}");
        }
    }
}

#[test]
fn a_failure_target_is_no_end() {
    // Deadline, deletion, eviction: for seconds the Job is failing and its pod stores its state.
    for case in ["036", "037", "038", "058"] {
        let recorded = recorded(case);
        let jobs: Vec<JobView> = recorded.jobs.iter().filter_map(JobView::of).collect();
        // One that is being deleted, and whose pod has ended, gets no condition any more.
        let failing = |job: &&JobView| job.failing.is_some() && job.finished.is_none() && !job.leaves;
        let failing = jobs.iter().filter(failing);
        let mut count = 0;
        for job in failing {
            assert_eq!(end(job, recorded.pod().as_ref(), false), None, "{case}");
            count += 1;
        }
        assert!(count > 0, "{case} shows it");
    }
}

#[test]
fn a_node_that_does_not_answer_is_seen_and_is_no_end() {
    for case in ["055", "058"] {
        let recorded = recorded(case);
        let pods: Vec<PodView> = recorded.pods.iter().filter_map(PodView::of).collect();
        assert!(pods.iter().any(|pod| pod.is_silent), "{case}");
        let silent = pods.iter().find(|pod| pod.is_silent).unwrap();
        assert!(silent.is_running(), "{case}: as far as anybody knows");
    }
    // A pod that has just ended is not silent.
    let ended = recorded("031");
    assert!(ended.pods.iter().filter_map(PodView::of).all(|pod| !pod.is_silent));
}

#[test]
fn who_ended_it_makes_a_difference() {
    let deleted = recorded("041");
    let (job, pod) = (deleted.job(), deleted.pod());
    let pod = pod.as_ref();
    let Ended::Died(by_us) = end_of_gone(&job, pod, true, false) else { panic!("it died") };
    let Ended::Died(by_others) = end_of_gone(&job, pod, false, false) else { panic!("it died") };
    assert_eq!(by_us.sentence, "The run's pod was ended by the agent.");
    assert!(by_others.sentence.contains("somebody else"), "{by_others:?}");
}

#[test]
fn an_executor_that_says_how_it_ended_is_believed() {
    let mut recorded = recorded("036");
    let pod = recorded.pods.last_mut().unwrap();
    let status = pod.status.as_mut().unwrap().container_statuses.as_mut().unwrap();
    let terminated = status[0].state.as_mut().unwrap().terminated.as_mut().unwrap();
    // It was ended by the deadline, and stored its result within the grace.
    terminated.exit_code = 0;
    assert_eq!(end(&recorded.job(), recorded.pod().as_ref(), false), Some(Ended::Said(End::Stored)));
}

#[test]
fn what_a_program_or_a_webhook_says_has_no_control_characters() {
    assert_eq!(sentence("a\0b\u{1b}[31mc\n"), "a b [31mc.");
    assert_eq!(last_line("one\n two\0\u{1b}[1m \n\n"), "two[1m");
}
