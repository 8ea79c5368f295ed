//! Which process of a node may be granted leases.
//!
//! Two processes may claim one node id: one that was restarted and the one before it, which may be stopped, cut off,
//! or alive. They count as different nodes: the later one gets the regions only when nothing granted to the earlier
//! one can still be valid, and under raised epochs (design 03, rule 4 and its amendment "Incarnation").

use std::time::Duration;

use crate::guard::{Rule, carried, holds};
use crate::id::Incarnation;
use crate::time::BootTime;

/// The process that may be granted leases, and the one that waits to become it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Holder {
    /// As the store has it. `None`: no process of this node was ever granted anything.
    recorded: Option<Incarnation>,
    /// The newest process that asked. From the moment it did, the recorded one is granted nothing.
    successor: Option<Incarnation>,
    /// When this leader last granted the recorded one anything.
    last_grant: Option<BootTime>,
    /// It is proved that the recorded one has ended.
    ended: bool,
}

/// What a process that names itself may expect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It is the recorded one: it may be granted leases.
    Current,
    /// It may be recorded now; until it is, it gets nothing.
    Admissible,
    /// It may be recorded at this instant and not before.
    Waits(BootTime),
    /// A newer one is known, of this epoch.
    Stale(u64),
}

impl Holder {
    /// As the store has it at the begin of a term.
    pub fn recorded(incarnation: Incarnation) -> Holder {
        Holder { recorded: Some(incarnation), ..Holder::default() }
    }

    /// Where a process of this node stands. `settled_at` is when all that earlier terms granted is over;
    /// `grant_wait` how long a grant of this term may last. A newer process than any before becomes the successor.
    pub fn offer(
        &mut self,
        offered: Incarnation,
        holds: Holds,
        settled_at: BootTime,
        grant_wait: Duration,
        now: BootTime,
    ) -> Standing {
        let newest = self.recorded.max(self.successor);
        match newest {
            Some(newest) if offered < newest || (offered.epoch == newest.epoch && offered != newest) => {
                return Standing::Stale(newest.epoch);
            }
            _ if self.recorded == Some(offered) => return Standing::Current,
            _ => self.successor = Some(offered),
        }
        let free_at = match (self.recorded, holds) {
            (None, _) | (_, Holds::Nothing) => BootTime::ZERO,
            _ if self.ended => BootTime::ZERO,
            (Some(_), Holds::Regions) => {
                let own = self.last_grant.map_or(BootTime::ZERO, |granted| granted + grant_wait);
                let own = carried(Rule::SuccessorWaitsForGrants, own, || BootTime::ZERO);
                carried(Rule::SuccessorWaitsForTerms, settled_at, || BootTime::ZERO).max(own)
            }
        };
        if now >= free_at { Standing::Admissible } else { Standing::Waits(free_at) }
    }

    /// The store has this process now.
    pub fn record(&mut self, incarnation: Incarnation) {
        self.recorded = Some(incarnation);
        if self.successor == Some(incarnation) {
            self.successor = None;
        }
        self.last_grant = None;
        self.ended = false;
    }

    /// It is proved that this process has ended ([`crate::failover::Certificate`]). Where it is the recorded one, it is
    /// granted nothing any more, and nobody waits for what it was granted. Says whether it is.
    pub fn certify_end(&mut self, ended: Incarnation) -> bool {
        let is_recorded = holds(Rule::EndOfTheRecorded, self.recorded == Some(ended));
        self.ended |= is_recorded;
        is_recorded
    }

    /// Whether this process may be granted leases at this moment.
    pub fn may_be_granted(&self, incarnation: Incarnation) -> bool {
        self.recorded == Some(incarnation) && self.successor.is_none() && !self.ended
    }

    /// Something was granted to the recorded process.
    pub fn granted(&mut self, now: BootTime) {
        self.last_grant = Some(self.last_grant.map_or(now, |before| before.max(now)));
    }

    /// When this leader last granted the recorded process anything.
    pub fn last_grant(&self) -> Option<BootTime> {
        self.last_grant
    }

    /// The same seen so much later, by a clock whose present instant never changes; what happened before `oldest` is taken
    /// to have happened then. For the proof, whose states know no instants.
    #[cfg(feature = "mutations")]
    pub fn aged(self, by: Duration, oldest: BootTime) -> Holder {
        Holder { last_grant: self.last_grant.map(|granted| granted.before(by).max(oldest)), ..self }
    }

    /// The process that the store has.
    pub fn current(&self) -> Option<Incarnation> {
        self.recorded
    }
}

/// Whether routes give the node anything that two processes could both write to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holds {
    /// No region: there is nothing to wait for.
    Nothing,
    /// At least one region.
    Regions,
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_millis(5_050);

    fn at(millis: u64) -> BootTime {
        BootTime::from_millis(millis)
    }

    fn process(epoch: u64, nonce: u64) -> Incarnation {
        Incarnation { epoch, nonce }
    }

    fn offer(holder: &mut Holder, offered: Incarnation, now: u64) -> Standing {
        holder.offer(offered, Holds::Regions, at(2_000), WAIT, at(now))
    }

    #[test]
    fn the_first_process_of_a_node_is_admitted_at_once_but_granted_only_when_recorded() {
        let mut holder = Holder::default();
        assert_eq!(offer(&mut holder, process(10, 1), 0), Standing::Admissible);
        assert!(!holder.may_be_granted(process(10, 1)));
        holder.record(process(10, 1));
        assert_eq!(offer(&mut holder, process(10, 1), 1), Standing::Current);
        assert!(holder.may_be_granted(process(10, 1)));
    }

    #[test]
    fn a_restarted_process_waits_for_what_its_predecessor_was_granted() {
        let mut holder = Holder::recorded(process(10, 1));
        holder.granted(at(3_000));
        assert_eq!(offer(&mut holder, process(11, 2), 3_500), Standing::Waits(at(8_050)));
        assert!(!holder.may_be_granted(process(10, 1)), "from now on the predecessor gets nothing");
        assert_eq!(offer(&mut holder, process(11, 2), 8_050), Standing::Admissible);
    }

    #[test]
    fn a_restarted_process_waits_for_what_earlier_terms_granted() {
        let mut holder = Holder::recorded(process(10, 1));
        assert_eq!(offer(&mut holder, process(11, 2), 1_000), Standing::Waits(at(2_000)));
        assert_eq!(offer(&mut holder, process(11, 2), 2_000), Standing::Admissible);
    }

    #[test]
    fn without_regions_nobody_waits() {
        let mut holder = Holder::recorded(process(10, 1));
        let standing = holder.offer(process(11, 2), Holds::Nothing, at(9_000), WAIT, at(0));
        assert_eq!(standing, Standing::Admissible);
    }

    #[test]
    fn a_certified_end_ends_all_waiting_and_all_grants_of_that_process_and_of_no_other() {
        let mut holder = Holder::recorded(process(10, 1));
        holder.granted(at(3_000));
        assert!(!holder.certify_end(process(9, 1)), "an older one ended long ago");
        assert!(!holder.certify_end(process(10, 2)), "the nonce is another one's");
        assert!(holder.may_be_granted(process(10, 1)));
        assert!(holder.certify_end(process(10, 1)));
        assert!(!holder.may_be_granted(process(10, 1)), "the dead are granted nothing");
        assert_eq!(offer(&mut holder, process(11, 2), 3_001), Standing::Admissible);
        holder.record(process(11, 2));
        assert!(holder.may_be_granted(process(11, 2)), "the end was its predecessor's");
    }

    #[test]
    fn an_older_process_is_told_what_is_known() {
        let mut holder = Holder::recorded(process(10, 1));
        assert_eq!(offer(&mut holder, process(9, 5), 0), Standing::Stale(10));
        assert_eq!(
            offer(&mut holder, process(10, 2), 0),
            Standing::Stale(10),
            "same instant, another process"
        );
        offer(&mut holder, process(12, 3), 0);
        assert_eq!(
            offer(&mut holder, process(11, 4), 0),
            Standing::Stale(12),
            "older than the one that waits"
        );
        assert_eq!(
            offer(&mut holder, process(10, 1), 0),
            Standing::Stale(12),
            "the recorded one is superseded"
        );
    }

    #[test]
    fn a_third_process_takes_the_place_of_the_one_that_waits() {
        let mut holder = Holder::recorded(process(10, 1));
        holder.granted(at(3_000));
        offer(&mut holder, process(11, 2), 3_100);
        assert_eq!(offer(&mut holder, process(12, 3), 8_100), Standing::Admissible);
        holder.record(process(12, 3));
        assert!(holder.may_be_granted(process(12, 3)));
    }

    #[test]
    fn recording_a_process_that_was_overtaken_meanwhile_grants_nobody() {
        let mut holder = Holder::default();
        offer(&mut holder, process(10, 1), 0);
        offer(&mut holder, process(11, 2), 0);
        holder.record(process(10, 1));
        assert!(!holder.may_be_granted(process(10, 1)));
        assert!(!holder.may_be_granted(process(11, 2)));
    }

    /// Goal: what a holder says of itself is what moves are judged by. Method: before and after a grant and a record.
    #[test]
    fn it_says_which_process_is_recorded_and_when_that_was_granted_anything() {
        let mut holder = Holder::default();
        assert_eq!((holder.current(), holder.last_grant()), (None, None));
        holder.record(process(10, 1));
        holder.granted(at(3_000));
        holder.granted(at(2_000));
        assert_eq!((holder.current(), holder.last_grant()), (Some(process(10, 1)), Some(at(3_000))));
        holder.record(process(11, 2));
        assert_eq!((holder.current(), holder.last_grant()), (Some(process(11, 2)), None));
    }
}
