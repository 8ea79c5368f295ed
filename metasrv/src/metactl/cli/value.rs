//! What a duration or a time on the command line may be. A value that cannot be meant is refused here, before anything is
//! sent, and the error says how to write it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longer than any wait that somebody sits through, and far from where adding it to the present overflows.
pub const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// History is kept by number and not by age: a century is all there is.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// How long a command may take.
pub fn timeout(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be more than zero".to_owned()),
        timeout if timeout > LONGEST_TIMEOUT => Err("must not be longer than a day".to_owned()),
        timeout => Ok(timeout),
    }
}

/// How long the regions of a node wait for its restart.
pub fn restart(text: &str) -> Result<Duration, String> {
    between(text, SECOND, HOUR, "from 1s to 1h")
}

/// How long failovers are paused, or go on whatever the brake sees.
pub fn failover(text: &str) -> Result<Duration, String> {
    between(text, SECOND, DAY, "from 1s to 24h")
}

/// How far back to look.
pub fn since(text: &str) -> Result<Duration, String> {
    between(text, Duration::ZERO, CENTURY, "at most 100 years")
}

/// An instant in RFC 3339, in milliseconds since 1970.
pub fn instant(text: &str) -> Result<u64, String> {
    let instant: SystemTime = humantime::parse_rfc3339_weak(text)
        .map_err(|error| format!("{error}; write 2026-01-31T12:00:00Z, which is UTC"))?;
    let since_1970 = instant.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write 15s or 2m"))
}

fn between(text: &str, least: Duration, most: Duration, rule: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if (least..=most).contains(&duration) { Ok(duration) } else { Err(format!("must be {rule}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_limits_and_say_them() {
        assert_eq!(timeout("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(restart("1h"), Ok(HOUR));
        assert_eq!(failover("24h"), Ok(DAY));
        assert_eq!(since("0s"), Ok(Duration::ZERO));
        for (refused, part) in [
            (timeout("0s"), "more than zero"),
            (timeout("25h"), "a day"),
            (restart("61m"), "1s to 1h"),
            (restart("100ms"), "1s to 1h"),
            (failover("25h"), "1s to 24h"),
            (since("200years"), "100 years"),
            (since("yesterday"), "write 15s or 2m"),
        ] {
            let why = refused.expect_err(part);
            assert!(why.contains(part), "{part} is not in: {why}");
        }
    }

    #[test]
    fn instants_are_utc_and_need_not_name_the_zone() {
        let noon = 1_769_860_800_000;
        for text in ["2026-01-31T12:00:00Z", "2026-01-31 12:00:00", "2026-01-31T12:00:00.000Z"] {
            assert_eq!(instant(text), Ok(noon), "{text}");
        }
        let why = instant("noon").expect_err("no time");
        assert!(why.contains("2026-01-31T12:00:00Z"), "{why}");
    }
}
