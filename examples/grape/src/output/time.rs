//! Times for people.

use std::time::Duration;

use jiff::Timestamp;

/// How long that is, in the one or two units that matter: `4 s`, `2 m 3 s`, `5 h 7 m`, `3 d 4 h`.
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => two(seconds / 60, "m", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

fn two(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 {
        format!("{large} {large_unit}")
    } else {
        format!("{large} {large_unit} {small} {small_unit}")
    }
}

/// How long ago that was; a clock that is ahead counts as now.
pub fn ago(time: Timestamp, now: Timestamp) -> String {
    span(between(time, now))
}

/// The time between two moments, zero where they are the other way round.
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    to.duration_since(from).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_the_units_that_matter() {
        let text = |seconds| span(Duration::from_secs(seconds));
        assert_eq!([text(0), text(59), text(60), text(123)], ["0 s", "59 s", "1 m", "2 m 3 s"]);
        assert_eq!(
            [text(3600), text(18_420), text(86_400), text(273_600)],
            ["1 h", "5 h 7 m", "1 d", "3 d 4 h"]
        );
    }
}
