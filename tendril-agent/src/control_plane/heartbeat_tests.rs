use uuid::Uuid;
use wiremock::ResponseTemplate;

use super::*;
use crate::{
    job::Job,
    process::StopReason,
    testing::{ControlPlane, refusal},
};

fn heartbeat(plane: &ControlPlane) -> Heartbeat {
    Heartbeat {
        rest: plane.rest(),
        leases: Leases::default(),
        health: Health::default(),
        agent_name: "pod-0".to_owned(),
        state_store: None,
        contract: Arc::new(AtomicU32::new(CONTRACT)),
        period: Duration::from_millis(20),
        spread: Duration::ZERO,
    }
}

#[tokio::test]
async fn a_refused_first_beat_says_what_to_do_and_is_tried_until_it_is_accepted() {
    for (status, code, part) in [
        (400, "TD003", "does not know this token's cluster"),
        (400, "TD004", "was revoked"),
        (401, "PGRST301", "does not accept the machine token"),
        (401, "PGRST303", "has expired"),
        (403, "42501", "role"),
        (404, "PGRST202", "supabase/migrations"),
    ] {
        let plane = ControlPlane::start().await;
        plane.answer_next("agent_heartbeat", refusal(status, code));
        if code == "PGRST202" {
            // It tries once more for each older contract.
            plane.answer_next("agent_heartbeat", refusal(status, code));
            plane.answer_next("agent_heartbeat", refusal(status, code));
        }
        let heartbeat = heartbeat(&plane);
        let error = heartbeat.send().await.unwrap_err();
        assert!(is_refusal(&error) && advice(&error).contains(part), "{code}: {}", advice(&error));
        let unready = heartbeat.health.ready().unwrap_err();
        assert!(unready.contains(part), "{unready}");
        assert_eq!(heartbeat.health.is_revoked(), code.starts_with("TD"));
        plane.answer_next("agent_heartbeat", refusal(status, code));
        if code == "PGRST202" {
            plane.answer_next("agent_heartbeat", refusal(503, ""));
        }
        let answer = json!({"now": "2026-01-01T00:00:00Z", "cluster": {}, "claims": [], "contract": 3});
        plane.answer_next("agent_heartbeat", ResponseTemplate::new(200).set_body_json(answer));
        heartbeat.first().await;
        assert_eq!((heartbeat.health.ready(), heartbeat.health.is_revoked()), (Ok(()), false), "{code}");
    }
}

#[tokio::test]
async fn the_first_beat_waits_for_a_control_plane_that_is_away_and_tells_the_jobs() {
    let plane = ControlPlane::start().await;
    plane.answer_next("agent_heartbeat", refusal(503, ""));
    let heartbeat = heartbeat(&plane);
    let job = Job {
        id: Uuid::nil(),
        attempt: 1,
        claim_token: Uuid::from_u128(5),
        config: crate::job::ConfigSnapshot::default(),
        state_key: None,
    };
    let lease = heartbeat.leases.hold(&job);
    let claim = json!({"claim_token": job.claim_token, "mine": true, "cancel_requested": true, "status": "PROCESSING"});
    let answer = json!({"now": "2026-01-01T00:00:00Z", "cluster": {}, "claims": [claim], "reaped": 0});
    plane.answer_next("agent_heartbeat", ResponseTemplate::new(200).set_body_json(answer));
    heartbeat.first().await;
    assert_eq!(lease.stop.requested(), Some(StopReason::Cancelled));
    assert_eq!(heartbeat.health.ready(), Ok(()));
}
