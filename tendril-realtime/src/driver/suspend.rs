//! Detects that the machine was suspended: the wall clock advanced, the monotonic one did not.

use std::time::{Duration, Instant, SystemTime};

/// Both suspend at one moment.
pub(super) struct SuspendDetector {
    monotonic: Instant,
    wall: SystemTime,
}

impl SuspendDetector {
    pub(super) fn new(monotonic: Instant, wall: SystemTime) -> Self {
        Self { monotonic, wall }
    }

    /// Whether the wall clock ran ahead by more than two heartbeats since the last call.
    pub(super) fn was_suspended(
        &mut self,
        heartbeat: Duration,
        monotonic: Instant,
        wall: SystemTime,
    ) -> bool {
        let on_the_wall = wall.duration_since(self.wall).unwrap_or_default();
        let awake = monotonic.saturating_duration_since(self.monotonic);
        *self = Self::new(monotonic, wall);
        on_the_wall.saturating_sub(awake) > heartbeat * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_shows_on_the_wall_and_not_on_the_monotonic_clock() {
        let (start, wall) = (Instant::now(), SystemTime::now());
        let heartbeat = Duration::from_secs(25);
        let second = Duration::from_secs(1);
        let mut suspend = SuspendDetector::new(start, wall);
        assert!(!suspend.was_suspended(heartbeat, start + second, wall + second));
        assert!(suspend.was_suspended(heartbeat, start + 2 * second, wall + Duration::from_secs(600)));
        assert!(
            !suspend.was_suspended(heartbeat, start + 3 * second, wall),
            "a clock that was set back is no sleep"
        );
    }
}
