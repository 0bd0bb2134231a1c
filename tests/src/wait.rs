//! Waiting for something to be so, never for time to pass.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// How long anything may take before the test fails. Generous: a busy machine is no bug.
pub const TIMEOUT: Duration = Duration::from_secs(90);

/// Between two probes.
const PAUSE: Duration = Duration::from_millis(50);

/// Probes again and again until there is something, and fails the test after [`TIMEOUT`] with what was seen last.
pub async fn until<T>(what: &str, probe: impl AsyncFnMut() -> Result<T, String>) -> T {
    until_within(TIMEOUT.as_secs(), what, probe).await
}

/// The same with another time limit in seconds, for what is known to take long.
pub async fn until_within<T>(
    seconds: u64,
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        let seen = match probe().await {
            Ok(found) => return found,
            Err(seen) => seen,
        };
        assert!(Instant::now() < deadline, "waited {seconds} s in vain: {what}; seen: {seen}");
        sleep(PAUSE).await;
    }
}

/// Probes again and again until there is something. Fails the test when [`TIMEOUT`] passes in which the count that `probe` gives with
/// its error does not fall: the deadline of a long job depends on its progress and not on the speed of the machine.
pub async fn until_none_are_left<T>(what: &str, mut probe: impl AsyncFnMut() -> Result<T, i64>) -> T {
    let (mut fewest, mut deadline) = (i64::MAX, Instant::now() + TIMEOUT);
    loop {
        let left = match probe().await {
            Ok(found) => return found,
            Err(left) => left,
        };
        if left < fewest {
            (fewest, deadline) = (left, Instant::now() + TIMEOUT);
        }
        assert!(Instant::now() < deadline, "{what}: no progress for {TIMEOUT:?}, {left} are left");
        sleep(PAUSE).await;
    }
}

/// The outcome of a future, or a failed test after [`TIMEOUT`].
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    timeout(TIMEOUT, future).await.unwrap_or_else(|_| panic!("waited {TIMEOUT:?} in vain: {what}"))
}
