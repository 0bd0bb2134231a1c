//! What the dispatcher costs: from the claim to the Job, and requests while nothing happens. `benches/pods.rs` measures the same in a release
//! build, and its memory.

use tendril_tests::Pods;

#[tokio::test]
async fn from_the_claim_to_the_job_it_is_a_moment() {
    let mut pods = Pods::start().await;
    pods.stand_in();
    let _agent = pods.agent();
    pods.cluster.online().await;
    let mut took = Vec::new();
    for n in 0..15 {
        let job = pods.queue(pods.ticket(&format!("s{n}"))).await;
        assert_eq!(job.ended().await.status, "SUCCESS");
        took.push(pods.claim_to_job(&job).await);
    }
    took.sort_by(f64::total_cmp);
    let half = took[took.len() / 2];
    println!("claim -> Job: p50 {half:.0} ms, slowest {:.0} ms", took[took.len() - 1]);
    assert!(half <= 50.0, "{took:?}");
}

#[tokio::test]
async fn many_jobs_cost_few_requests() {
    let mut pods = Pods::start().await;
    pods.agent_env = vec![("TENDRIL_LEASE", "tendril".to_owned())];
    let idle = pods.watch_many(500).await;
    println!("{idle:?}");
    assert!(idle.requests <= 4, "{idle:?}");
}
