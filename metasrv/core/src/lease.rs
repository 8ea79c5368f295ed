//! Until when: a leader's right to lead, and a datanode's right to write. Both are deadlines, not flags.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::id::Epoch;
use crate::time::BootTime;
use crate::timing;

/// A leader's right to lead, compared with the clock at each use.
///
/// The deadline only ever moves forward, by evidence that arrives before the present deadline. Once it has passed,
/// noticed or not, or once the leader stepped down, nothing brings it back (design 03, rules 1 and 2).
/// It is shared by every stream, so it is one atomic number: the deadline, or 0 once leadership has ended.
#[derive(Debug)]
pub struct LeadershipLease {
    until: AtomicU64,
}

/// What became of evidence for leadership.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Renewal {
    /// The deadline stands at this instant now.
    Until(BootTime),
    /// It came after the deadline or after the end; leadership is over for good.
    TooLate,
}

impl LeadershipLease {
    /// Leadership by evidence that was asked for at `sent_at`, under a lease of `election_ttl`.
    pub fn new(sent_at: BootTime, election_ttl: Duration) -> LeadershipLease {
        LeadershipLease { until: AtomicU64::new((sent_at + timing::leadership(election_ttl)).as_nanos()) }
    }

    /// Takes evidence (a confirmed keep-alive, or a linearizable read of our key with our create revision) that
    /// was asked for at `sent_at` and arrived `now`.
    pub fn renew(&self, sent_at: BootTime, election_ttl: Duration, now: BootTime) -> Renewal {
        let offered = (sent_at + timing::leadership(election_ttl)).as_nanos();
        let update = self.until.fetch_update(Ordering::AcqRel, Ordering::Acquire, |until| {
            if now.as_nanos() >= until { None } else { Some(until.max(offered)) }
        });
        match update {
            Ok(before) => Renewal::Until(BootTime::from_nanos(before.max(offered))),
            Err(_) => {
                self.end();
                Renewal::TooLate
            }
        }
    }

    /// Ends leadership for good.
    pub fn end(&self) {
        self.until.store(0, Ordering::Release);
    }

    /// Whether the leader leads at this instant.
    pub fn holds(&self, now: BootTime) -> bool {
        now.as_nanos() < self.until.load(Ordering::Acquire)
    }

    /// The present deadline; [`BootTime::ZERO`] once leadership has ended.
    pub fn until(&self) -> BootTime {
        BootTime::from_nanos(self.until.load(Ordering::Acquire))
    }
}

/// A datanode's right to write to one region under one epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegionLease {
    epoch: Epoch,
    until: BootTime,
}

impl RegionLease {
    /// A region that was opened under `epoch`: no right to write yet, a grant gives it.
    pub fn opened(epoch: Epoch) -> RegionLease {
        RegionLease { epoch, until: BootTime::ZERO }
    }

    /// Takes a grant for `epoch` of `length`, answering a request sent at `sent_at` by this node's own clock.
    /// A grant for another epoch changes nothing: an older one is late, a newer one needs to be opened first.
    /// The deadline only ever moves forward.
    pub fn grant(&mut self, epoch: Epoch, sent_at: BootTime, length: Duration) -> bool {
        if epoch != self.epoch {
            return false;
        }
        self.until = self.until.max(sent_at + timing::usable_lease(length));
        true
    }

    /// The right to write under the present epoch lasts until then at least: what was granted for all regions of a node at once is
    /// kept for this one. The deadline only ever moves forward.
    pub fn extend(&mut self, until: BootTime) {
        self.until = self.until.max(until);
    }

    /// Holds the region under a higher epoch, without the right to write under it.
    pub fn raise(&mut self, epoch: Epoch) {
        if epoch > self.epoch {
            *self = RegionLease::opened(epoch);
        }
    }

    /// The epoch this region is held under.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The instant at which the right to write ends; [`BootTime::ZERO`] where there never was one.
    pub fn until(&self) -> BootTime {
        self.until
    }

    /// Whether the node may write at this instant.
    pub fn is_valid(&self, now: BootTime) -> bool {
        now < self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(5);

    fn at(millis: u64) -> BootTime {
        BootTime::from_millis(millis)
    }

    #[test]
    fn leadership_counts_from_the_sending_and_ends_before_the_ttl() {
        let lease = LeadershipLease::new(at(1_000), TTL);
        assert!(lease.holds(at(5_700)));
        assert!(!lease.holds(at(5_900)), "TTL·0.99/1.01 − 100 ms after the sending");
    }

    #[test]
    fn a_renewal_moves_the_deadline_forward_only() {
        let lease = LeadershipLease::new(at(1_000), TTL);
        let Renewal::Until(until) = lease.renew(at(2_000), TTL, at(2_010)) else { unreachable!() };
        assert_eq!(
            lease.renew(at(1_500), TTL, at(2_020)),
            Renewal::Until(until),
            "an older answer came later"
        );
    }

    #[test]
    fn an_answer_after_the_deadline_revives_nothing() {
        let lease = LeadershipLease::new(at(1_000), TTL);
        assert_eq!(lease.renew(at(5_000), TTL, at(6_000)), Renewal::TooLate);
        assert!(!lease.holds(at(5_000)), "final, even if the clock is asked about an earlier instant");
    }

    #[test]
    fn an_answer_after_stepping_down_revives_nothing() {
        let lease = LeadershipLease::new(at(1_000), TTL);
        lease.end();
        assert_eq!(lease.renew(at(1_100), TTL, at(1_200)), Renewal::TooLate);
        assert!(!lease.holds(at(1_200)));
    }

    #[test]
    fn a_region_is_writable_only_under_the_epoch_it_is_held_under() {
        let mut lease = RegionLease::opened(Epoch(3));
        assert!(!lease.grant(Epoch(2), at(0), TTL), "an older epoch");
        assert!(!lease.grant(Epoch(4), at(0), TTL), "a newer epoch, not opened yet");
        assert!(!lease.is_valid(at(1)));
        assert!(lease.grant(Epoch(3), at(0), TTL));
        assert!(lease.is_valid(at(4_949)));
        assert!(!lease.is_valid(at(4_950)), "L·(1−ρ) after the sending");
    }

    #[test]
    fn an_expired_region_is_writable_again_by_a_grant_alone() {
        let mut lease = RegionLease::opened(Epoch(1));
        lease.grant(Epoch(1), at(0), TTL);
        assert!(!lease.is_valid(at(9_000)));
        assert!(lease.grant(Epoch(1), at(9_000), TTL));
        assert!(lease.is_valid(at(9_001)));
    }

    #[test]
    fn what_was_granted_for_all_regions_is_kept_and_never_shortened() {
        let mut lease = RegionLease::opened(Epoch(1));
        lease.extend(at(3_000));
        assert!(lease.is_valid(at(2_999)) && !lease.is_valid(at(3_000)));
        lease.extend(at(1_000));
        assert_eq!(lease.until(), at(3_000));
    }

    #[test]
    fn raising_the_epoch_takes_the_right_to_write_away() {
        let mut lease = RegionLease::opened(Epoch(1));
        lease.grant(Epoch(1), at(0), TTL);
        lease.raise(Epoch(2));
        assert!(!lease.is_valid(at(1)));
        lease.raise(Epoch(1));
        assert_eq!(lease.epoch(), Epoch(2), "epochs never go back");
    }

    /// Goal: a deadline is over at its instant, not after it, and is told as it is. Method: the instants beside it.
    #[test]
    fn a_deadline_is_over_at_its_instant() {
        let lease = LeadershipLease::new(at(0), TTL);
        let until = lease.until();
        let just_before = BootTime::from_nanos(until.as_nanos() - 1);
        assert!(lease.holds(just_before) && !lease.holds(until));
        let Renewal::Until(renewed) = lease.renew(at(1_000), TTL, just_before) else { unreachable!() };
        assert_eq!(lease.until(), renewed);
        assert_eq!(lease.renew(at(5_000), TTL, renewed), Renewal::TooLate, "at the deadline it is too late");

        let mut region = RegionLease::opened(Epoch(1));
        assert_eq!(region.until(), BootTime::ZERO);
        region.grant(Epoch(1), at(0), TTL);
        assert_eq!(region.until(), at(4_950));
        assert!(region.is_valid(at(4_949)) && !region.is_valid(at(4_950)));
        region.raise(Epoch(1));
        assert!(region.is_valid(at(4_949)), "the epoch is the same: nothing was raised");
    }
}
