//! Waiting for something to be so, never for time to pass.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// How long anything may take before the test fails. Generous: a busy machine is no bug.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks again and again until there is something, and fails the test after [`PATIENCE`] with what was seen last.
pub async fn until<T>(what: &str, look: impl AsyncFnMut() -> Result<T, String>) -> T {
    until_within(PATIENCE.as_secs(), what, look).await
}

/// The same with another patience, in seconds, for what is known to be much.
pub async fn until_within<T>(
    patience: u64,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + Duration::from_secs(patience);
    loop {
        let seen = match look().await {
            Ok(found) => return found,
            Err(seen) => seen,
        };
        assert!(Instant::now() < deadline, "waited {patience} s in vain: {what}; seen: {seen}");
        sleep(PAUSE).await;
    }
}

/// Looks again and again until there is something. Fails the test when [`PATIENCE`] passes in which the count that `look` gives with
/// its error does not fall: the deadline of a long job depends on its progress and not on the speed of the machine.
pub async fn until_none_are_left<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, i64>) -> T {
    let (mut fewest, mut deadline) = (i64::MAX, Instant::now() + PATIENCE);
    loop {
        let left = match look().await {
            Ok(found) => return found,
            Err(left) => left,
        };
        if left < fewest {
            (fewest, deadline) = (left, Instant::now() + PATIENCE);
        }
        assert!(Instant::now() < deadline, "{what}: no progress for {PATIENCE:?}, {left} are left");
        sleep(PAUSE).await;
    }
}

/// The outcome of a future, or a failed test after [`PATIENCE`].
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain: {what}"))
}
