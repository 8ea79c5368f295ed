//! What a node was told to open, and what it is told next.
//!
//! An instruction names a bounded number of regions, so that a node with ten thousand of them is told in parts: the
//! next part goes with the next heartbeat, whatever became of the one before. Once all were named, whatever is still
//! missing is named again, but not before the node had time to open it.

use std::time::Duration;

use crate::grant::Reported;
use crate::id::RegionId;
use crate::time::BootTime;

/// Regions named by one instruction.
const MOST: usize = 1_000;

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Openings {
    /// When the node was last told.
    told_at: Option<BootTime>,
    /// The last region of the last part, where further ones were left out of it.
    told_up_to: Option<RegionId>,
}

impl Openings {
    /// The part of `wanted` (in the order of ids) that the node is to be told now. `patience` is the time that it has
    /// to open what it was told.
    pub fn next(&mut self, wanted: Vec<Reported>, patience: Duration, now: BootTime) -> Vec<Reported> {
        let waits = self.told_at.is_some_and(|told| now.since(told) < patience);
        let mut part = match self.told_up_to {
            Some(last) => wanted.into_iter().filter(|region| region.region > last).collect(),
            None if waits => return Vec::new(),
            None => wanted,
        };
        let more = part.len() > MOST;
        part.truncate(MOST);
        self.told_up_to = part.last().map(|last| last.region).filter(|_| more);
        if !part.is_empty() {
            self.told_at = Some(now);
        }
        part
    }

    /// The node was told of new regions beside its heartbeats.
    pub fn announced(&mut self, now: BootTime) {
        self.told_at = Some(now);
    }

    /// Everything is to be told at once, whatever was told before: epochs were raised.
    pub fn begin_anew(&mut self) {
        *self = Openings::default();
    }

    /// Whether the node was told anything.
    pub fn were_told(&self) -> bool {
        self.told_at.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Epoch;

    const PATIENCE: Duration = Duration::from_secs(3);

    fn regions(ids: std::ops::RangeInclusive<u64>) -> Vec<Reported> {
        ids.map(|id| Reported { region: RegionId(id), epoch: Epoch(1) }).collect()
    }

    fn at(millis: u64) -> BootTime {
        BootTime::from_millis(millis)
    }

    #[test]
    fn many_regions_are_told_in_parts_one_with_each_heartbeat() {
        let mut openings = Openings::default();
        assert_eq!(openings.next(regions(1..=2_500), PATIENCE, at(0)), regions(1..=1_000));
        // Some were opened meanwhile, some were not: the next part comes all the same.
        assert_eq!(openings.next(regions(500..=2_500), PATIENCE, at(100)), regions(1_001..=2_000));
        assert_eq!(openings.next(regions(500..=2_500), PATIENCE, at(200)), regions(2_001..=2_500));
        assert_eq!(openings.next(regions(500..=2_500), PATIENCE, at(300)), [], "it has time to open them");
        assert_eq!(
            openings.next(regions(700..=800), PATIENCE, at(3_200)),
            regions(700..=800),
            "what is missing still"
        );
    }

    #[test]
    fn what_was_told_is_told_again_only_when_nothing_came_of_it() {
        let mut openings = Openings::default();
        assert!(!openings.were_told());
        openings.announced(at(0));
        assert_eq!(openings.next(regions(1..=3), PATIENCE, at(2_999)), []);
        assert_eq!(openings.next(regions(1..=3), PATIENCE, at(3_000)), regions(1..=3));
        assert_eq!(openings.next(regions(1..=3), PATIENCE, at(3_001)), []);
        openings.begin_anew();
        assert_eq!(openings.next(regions(1..=3), PATIENCE, at(3_002)), regions(1..=3));
        assert!(openings.were_told());
    }

    #[test]
    fn nothing_wanted_is_nothing_told() {
        let mut openings = Openings::default();
        assert_eq!(openings.next(Vec::new(), PATIENCE, at(0)), []);
        assert!(!openings.were_told());
        openings.next(regions(1..=1_001), PATIENCE, at(1));
        assert_eq!(
            openings.next(Vec::new(), PATIENCE, at(2)),
            [],
            "all of the next part was opened by itself"
        );
        assert_eq!(openings.next(regions(1..=1), PATIENCE, at(3_001)), regions(1..=1));
    }
}
