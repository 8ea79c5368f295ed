//! The pace of heartbeats: the interval that metasrv dictates, and the moments at which they are due.

use std::ops::RangeInclusive;
use std::time::Duration;

use metasrv_proto::meta::HeartbeatResponse;
use tokio::time::Instant;

/// What part of the time until the next heartbeat a node waits with its next stream.
const SHARES: RangeInclusive<f64> = 0.6..=0.9;

/// No node waits longer with its next stream.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

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

/// The moments at which a node's heartbeats are due. They stay the same over all its streams: a node that came to a new
/// leader early beats on at its own moments, so that a thousand nodes that come to it together do not beat together
/// ever after, and no gap between two heartbeats is longer than the interval.
#[derive(Clone, Copy, Debug)]
pub struct Rhythm {
    interval: Duration,
    next: Instant,
}

impl Rhythm {
    /// Of a node that begins now. Its first moment is a random one within the first interval: nodes that were started
    /// together do not beat together.
    pub fn new(interval: Duration) -> Rhythm {
        Rhythm { interval, next: Instant::now() + interval.mul_f64(rand::random_range(0.0..=1.0)) }
    }

    /// Time between two heartbeats.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Resolves when the next heartbeat is due. Dropping the future loses nothing.
    pub async fn due(&self) {
        tokio::time::sleep_until(self.next).await;
    }

    /// A heartbeat goes out now; moments that have passed are not made up for.
    pub fn beat(&mut self) {
        let late = Instant::now().saturating_duration_since(self.next);
        if self.next > Instant::now() || self.interval.is_zero() {
            return;
        }
        let missed = late.as_nanos() / self.interval.as_nanos();
        let skipped = u32::try_from(missed).unwrap_or(u32::MAX).saturating_add(1);
        self.next += self.interval.saturating_mul(skipped);
    }

    /// Takes another interval. Its first moment is a random one again: a whole fleet is told at about the same time.
    pub fn change(&mut self, interval: Duration) {
        *self = Rhythm::new(interval);
    }

    /// How long to wait before the next stream is opened, after the end of one whose latest answered request was sent at
    /// this moment. See [`reconnect_after`].
    pub fn reconnect_after(&self, accepted: Option<Instant>) -> Duration {
        let left =
            accepted.map_or(Duration::ZERO, |accepted| self.interval.saturating_sub(accepted.elapsed()));
        reconnect_after(left, self.interval, rand::random_range(SHARES))
    }
}

/// How long a node waits with its next stream whose next heartbeat is due in `left` of an `interval`, by the share of
/// that time that it takes.
///
/// The streams of a thousand nodes end in the same millisecond when their leader dies. To take them all at once keeps
/// two cores busy for half a second, and whose heartbeat is due now would wait behind those who have a second left: on
/// a busy machine their gap was half a second longer than the interval, and half of that in the order that is kept here.
/// They come in the order of their urgency: who is due comes at once, who has just had an answer comes last. As moments
/// are spread over the interval, so are the new streams, and the new leader has to take few more of them in a
/// millisecond than it had heartbeats to answer before.
///
/// The share is less than one, for the time that it takes to connect, and a random one, so that nodes that beat together
/// come apart. No gap between two accepted heartbeats gets longer than the interval by the wait: it ends before the
/// next one is due. Leases last at least two intervals, so none ends meanwhile. And where the interval is long, a second
/// suffices for a thousand nodes, and instructions cannot reach a node without a stream: no wait is longer.
fn reconnect_after(left: Duration, interval: Duration, share: f64) -> Duration {
    if interval.is_zero() {
        return Duration::ZERO;
    }
    let urgency = left.as_secs_f64() / interval.as_secs_f64();
    interval.min(LONGEST_WAIT).mul_f64(urgency.min(1.0) * share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use metasrv_proto::meta::HeartbeatConfig;

    #[test]
    fn an_interval_in_the_wrong_unit_is_refused() {
        let response = |heartbeat_interval_ms| HeartbeatResponse {
            heartbeat_config: Some(HeartbeatConfig { heartbeat_interval_ms, ..HeartbeatConfig::default() }),
            ..HeartbeatResponse::default()
        };
        assert_eq!(dictated_interval(&HeartbeatResponse::default()), Ok(None));
        assert_eq!(dictated_interval(&response(1_000)), Ok(Some(Duration::from_secs(1))));
        for ms in [0, 1, 49, 600_001, u64::MAX] {
            assert_eq!(dictated_interval(&response(ms)), Err(BadInterval(ms)));
        }
    }

    /// Goal: nodes that start together do not beat together. Method: a hundred first moments of an hour each.
    #[tokio::test(start_paused = true)]
    async fn first_heartbeats_are_spread_over_the_interval() {
        let hour = Duration::from_secs(3_600);
        let started = Instant::now();
        let mut firsts: Vec<_> = (0..100).map(|_| Rhythm::new(hour).next - started).collect();
        firsts.sort_unstable();
        assert!(firsts[99] <= hour);
        assert!(firsts[90] - firsts[10] > hour / 4, "they come together: {firsts:?}");
    }

    /// Goal: a node keeps its own moments, whatever happens between them. Method: early and late heartbeats, and a pause
    /// of several intervals, on a paused clock.
    #[tokio::test(start_paused = true)]
    async fn the_rhythm_is_kept() {
        let second = Duration::from_secs(1);
        let mut rhythm = Rhythm::new(second);
        let first = rhythm.next;
        let moments = |rhythm: &Rhythm| (rhythm.next - first).as_secs_f64();
        for k in [0.0, 1.0, 2.0] {
            rhythm.due().await;
            assert_eq!(moments(&rhythm), k);
            tokio::time::advance(Duration::from_millis(300)).await;
            rhythm.beat();
            rhythm.beat();
        }
        assert_eq!(moments(&rhythm), 3.0, "a second heartbeat between two moments moves none");
        tokio::time::advance(Duration::from_millis(5_500)).await;
        rhythm.beat();
        assert_eq!(moments(&rhythm), 8.0, "what was missed is not made up for");
        rhythm.change(Duration::from_millis(50));
        assert!(rhythm.next - Instant::now() <= Duration::from_millis(50));
    }

    /// Goal: nodes come to a new leader in the order of their urgency, and in time. Method: all times left in
    /// milliseconds, for several intervals and the ends of the range of shares.
    #[test]
    fn the_wait_before_a_new_stream_is_ordered_by_urgency_and_bounded() {
        for interval in [50, 1_000, 5_000, 300_000].map(Duration::from_millis) {
            for share in [*SHARES.start(), *SHARES.end()] {
                let wait = |left: Duration| reconnect_after(left, interval, share);
                assert_eq!(wait(Duration::ZERO), Duration::ZERO, "due: at once");
                let mut before = Duration::ZERO;
                for ms in 1..=1_000 {
                    let left = interval.mul_f64(f64::from(ms) / 1_000.0);
                    assert!(wait(left) > before && wait(left) < left, "{left:?} of {interval:?}");
                    before = wait(left);
                }
                assert!(before <= LONGEST_WAIT);
                assert_eq!(wait(interval * 3), before, "never more than for a whole interval");
            }
        }
        assert_eq!(reconnect_after(Duration::from_secs(1), Duration::ZERO, 0.9), Duration::ZERO);
    }

    /// Goal: a thousand nodes that lost their leader together come to the next one over most of an interval. Method:
    /// moments spread evenly, and all at once; the most that come within any 50 ms.
    #[tokio::test(start_paused = true)]
    async fn a_thousand_nodes_come_one_after_another() {
        let second = Duration::from_secs(1);
        let started = Instant::now();
        tokio::time::advance(second).await;
        let most_in_50_ms = |accepted: &dyn Fn(u32) -> Instant| {
            let wait = |node| Rhythm::new(second).reconnect_after(Some(accepted(node))).as_millis();
            let mut waits: Vec<_> = (0..1_000).map(wait).collect();
            waits.sort_unstable();
            waits
                .iter()
                .map(|from| waits.iter().filter(|wait| (*from..from + 50).contains(wait)).count())
                .max()
        };
        let spread = most_in_50_ms(&|node| started + second * node / 1_000);
        assert!(spread.is_some_and(|most| most < 150), "{spread:?} of nodes with moments of their own");
        let together = most_in_50_ms(&|_| started + second);
        assert!(together.is_some_and(|most| most < 300), "{together:?} of nodes that beat together");
        assert_eq!(
            Rhythm::new(second).reconnect_after(None),
            Duration::ZERO,
            "who had no answer comes at once"
        );
    }
}
