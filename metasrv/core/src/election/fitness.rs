//! Whether this replica has earned to hold on to its lease: its own work is proved, or nobody else could do it.
//!
//! A leader that hangs in one part while another part renews its lease is the field's worst outage. So a keep-alive goes
//! out only while a probe heartbeat came back lately through the replica's own listener; and it goes out from the loop
//! that decides, so that a loop that stands still renews nothing. A candidate keeps its place in the queue by the same
//! proof: whoever is seen in the queue has passed the test, and a leader that fails it makes room for somebody who does
//! not. Where nobody else queues, there is nobody to make room for, and a broken probe costs nothing (design 03, rule 7
//! and its amendment "Recovery").

use std::time::Duration;

use super::events::{Attempt, Effect, LeaseId, Vitals};
use crate::time::BootTime;

/// A replica whose work is not proved yet looks again so soon: as often as probes go out.
pub const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub struct Fitness {
    /// A proof older than this proves nothing.
    bound: Duration,
    vitals: Vitals,
}

impl Fitness {
    /// Nothing is proved yet.
    pub fn new(bound: Duration) -> Fitness {
        Fitness { bound, vitals: Vitals::default() }
    }

    /// Takes what is known now. A proof is never taken back by an older one.
    pub fn take(&mut self, vitals: Vitals) {
        self.vitals = Vitals {
            proved_at: self.vitals.proved_at.max(vitals.proved_at),
            rivals: vitals.rivals.or(self.vitals.rivals),
        };
    }

    /// Whether a lease may be taken or kept alive at this instant.
    pub fn may_claim(&self, now: BootTime) -> bool {
        !self.has_rivals() || self.proved_within(self.bound, now)
    }

    /// What becomes of a keep-alive that is due. Renewing must be earned (design 03, rule 7). The other proof of rule 7,
    /// that the last read went through, is part of the deadline of leadership.
    pub fn keep_alive(&self, attempt: Attempt, lease: LeaseId, now: BootTime) -> Effect {
        match self.may_claim(now) {
            true => Effect::KeepAlive(attempt, lease),
            false => Effect::Withhold(attempt),
        }
    }

    /// Whether the proof has been missing for so long that what is held is to be given up.
    pub fn is_lost(&self, now: BootTime) -> bool {
        self.has_rivals() && !self.proved_within(self.bound.saturating_mul(2), now)
    }

    /// In doubt there are some.
    fn has_rivals(&self) -> bool {
        self.vitals.rivals.unwrap_or(true)
    }

    fn proved_within(&self, bound: Duration, now: BootTime) -> bool {
        self.vitals.proved_at.is_some_and(|at| now.since(at) < bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> BootTime {
        BootTime::from_millis(millis)
    }

    fn fitness(proved_at: Option<u64>, rivals: Option<bool>) -> Fitness {
        let mut fitness = Fitness::new(Duration::from_secs(1));
        fitness.take(Vitals { proved_at: proved_at.map(at), rivals });
        fitness
    }

    #[test]
    fn a_proof_lasts_for_its_bound_and_what_is_held_for_two() {
        let fitness = fitness(Some(100), Some(true));
        for (now, claims, lost) in [
            (100, true, false),
            (1_099, true, false),
            (1_100, false, false),
            (2_099, false, false),
            (2_100, false, true),
        ] {
            assert_eq!((fitness.may_claim(at(now)), fitness.is_lost(at(now))), (claims, lost), "at {now} ms");
        }
    }

    #[test]
    fn without_others_in_the_queue_nothing_needs_to_be_proved() {
        let alone = fitness(None, Some(false));
        assert!(alone.may_claim(at(9_000)) && !alone.is_lost(at(9_000)));
    }

    #[test]
    fn a_queue_that_was_not_seen_may_hold_others() {
        let unseen = fitness(None, None);
        assert!(!unseen.may_claim(at(0)) && unseen.is_lost(at(0)));
        assert!(fitness(Some(0), None).may_claim(at(10)));
    }

    #[test]
    fn an_older_proof_and_a_look_that_failed_take_nothing_back() {
        let mut fitness = fitness(Some(5_000), Some(false));
        fitness.take(Vitals { proved_at: Some(at(10)), rivals: None });
        fitness.take(Vitals { proved_at: None, rivals: None });
        assert!(fitness.may_claim(at(50_000)));
        fitness.take(Vitals { proved_at: None, rivals: Some(true) });
        assert!(fitness.may_claim(at(5_900)) && !fitness.may_claim(at(6_000)));
    }
}
