//! The pace of heartbeats: the interval that metasrv dictates, and the moments at which they are due.

use std::ops::RangeInclusive;
use std::time::Duration;

use metasrv_proto::meta::HeartbeatResponse;
use tokio::time::{Instant, Interval, MissedTickBehavior};

/// Intervals outside of this, in milliseconds, are a mistake in units.
const INTERVALS_MS: RangeInclusive<u64> = 50..=600_000;

/// An interval that makes no sense was dictated; the present one stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("heartbeat_config.heartbeat_interval_ms: {0} is not in {INTERVALS_MS:?}")]
pub struct BadInterval(pub u64);

/// The interval that a response dictates, if it does.
///
/// # Errors
/// [`BadInterval`].
pub fn dictated_interval(response: &HeartbeatResponse) -> Result<Option<Duration>, BadInterval> {
    match response.heartbeat_config.as_ref().map(|config| config.heartbeat_interval_ms) {
        None => Ok(None),
        Some(ms) if INTERVALS_MS.contains(&ms) => Ok(Some(Duration::from_millis(ms))),
        Some(ms) => Err(BadInterval(ms)),
    }
}

/// Ticks once an interval, from a random moment within the first one on: nodes that lost the same leader open their
/// next streams in the same millisecond, and should not beat in step ever after. The stream's handshake was the first
/// heartbeat, at once.
pub fn heartbeat_ticks(interval: Duration) -> Interval {
    let first = Instant::now() + interval.mul_f64(rand::random_range(0.1..=1.0));
    let mut ticks = tokio::time::interval_at(first, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;
    use metasrv_proto::meta::HeartbeatConfig;

    #[test]
    fn an_interval_in_the_wrong_unit_is_refused() {
        let response = |heartbeat_interval_ms| HeartbeatResponse {
            heartbeat_config: Some(HeartbeatConfig { heartbeat_interval_ms, retry_interval_ms: 0 }),
            ..HeartbeatResponse::default()
        };
        assert_eq!(dictated_interval(&HeartbeatResponse::default()), Ok(None));
        assert_eq!(dictated_interval(&response(1_000)), Ok(Some(Duration::from_secs(1))));
        for ms in [0, 1, 49, 600_001, u64::MAX] {
            assert_eq!(dictated_interval(&response(ms)), Err(BadInterval(ms)));
        }
    }

    /// Goal: nodes that connect together do not beat together. Method: a hundred first ticks of an hour each.
    #[tokio::test(start_paused = true)]
    async fn first_ticks_are_spread_over_the_interval() {
        let hour = Duration::from_secs(3_600);
        let started = Instant::now();
        let firsts = (0..100).map(|_| async { heartbeat_ticks(hour).tick().await.duration_since(started) });
        let mut firsts = futures_util::future::join_all(firsts).await;
        firsts.sort_unstable();
        assert!(firsts.iter().all(|first| *first >= hour / 10 && *first <= hour));
        assert!(firsts[90] - firsts[10] > hour / 4, "they come together: {firsts:?}");
    }
}
