//! Which of a node's regions a heartbeat renews, opens, or closes.
//!
//! The routes say what the node should hold, the heartbeat says what it does hold; one walk over both decides.

use crate::id::{Epoch, RegionId};
use crate::region_map::RegionMap;

/// A region as a node reports it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Reported {
    /// The region.
    pub region: RegionId,
    /// The epoch it is held under; 0 from peers that do not know of epochs.
    pub epoch: Epoch,
}

/// What to do about each region, each list in the order of ids.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Decision {
    /// Held as the routes want it: renewed, under this epoch.
    pub renew: Vec<Reported>,
    /// Routed to the node but not held, or held under an older epoch: to be opened under this epoch.
    pub open: Vec<Reported>,
    /// Held, but no route gives it to the node.
    pub close: Vec<RegionId>,
    /// Held under a higher epoch than the route's: the store was set back. Not renewed before the route's epoch
    /// is above the reported one.
    pub ahead: Vec<Reported>,
}

/// Compares what is reported (in any order; repeated regions count once, by their highest epoch) with the routes.
/// `epoch_of` reads the route's epoch out of whatever the routes keep for a region.
pub fn decide<R>(
    routes: &RegionMap<R>,
    epoch_of: impl Fn(&R) -> Epoch,
    mut reported: Vec<Reported>,
) -> Decision {
    reported.sort_unstable_by(|a, b| b.cmp(a));
    reported.dedup_by_key(|report| report.region);
    reported.reverse();

    let mut decision = Decision::default();
    let mut wanted =
        routes.iter().map(|(region, route)| Reported { region: *region, epoch: epoch_of(route) }).peekable();
    for held in reported {
        while let Some(missing) = wanted.next_if(|want| want.region < held.region) {
            decision.open.push(missing);
        }
        let Some(want) = wanted.next_if(|want| want.region == held.region) else {
            decision.close.push(held.region);
            continue;
        };
        if held.epoch == want.epoch || held.epoch == Epoch(0) {
            decision.renew.push(want);
        } else if held.epoch < want.epoch {
            decision.open.push(want);
        } else {
            decision.ahead.push(held);
        }
    }
    decision.open.extend(wanted);
    decision
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(routes: &[(u64, u64)]) -> RegionMap<Epoch> {
        routes.iter().map(|&(region, epoch)| (RegionId(region), Epoch(epoch))).collect()
    }

    fn reports(reports: &[(u64, u64)]) -> Vec<Reported> {
        reports
            .iter()
            .map(|&(region, epoch)| Reported { region: RegionId(region), epoch: Epoch(epoch) })
            .collect()
    }

    #[test]
    fn each_region_ends_in_exactly_one_list() {
        let routes = routes(&[(1, 1), (2, 5), (3, 2), (4, 1), (9, 1)]);
        let decision = decide(&routes, |epoch| *epoch, reports(&[(7, 1), (1, 1), (2, 4), (3, 3)]));
        assert_eq!(decision.renew, reports(&[(1, 1)]));
        assert_eq!(decision.open, reports(&[(2, 5), (4, 1), (9, 1)]), "an older epoch is opened anew");
        assert_eq!(decision.close, [RegionId(7)]);
        assert_eq!(decision.ahead, reports(&[(3, 3)]));
    }

    #[test]
    fn a_peer_without_epochs_is_renewed_by_region_alone() {
        let decision = decide(&routes(&[(1, 7)]), |epoch| *epoch, reports(&[(1, 0)]));
        assert_eq!(decision.renew, reports(&[(1, 7)]));
    }

    #[test]
    fn a_repeated_region_counts_once_by_its_highest_epoch() {
        let decision = decide(&routes(&[(1, 2)]), |epoch| *epoch, reports(&[(1, 2), (1, 1), (1, 2)]));
        assert_eq!(decision.renew, reports(&[(1, 2)]));
        assert_eq!(decision.open, []);
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_forgotten_or_invented(
            routed in proptest::collection::btree_map(0_u64..40, 1_u64..4, 0..20),
            held in proptest::collection::vec((0_u64..40, 0_u64..5), 0..40),
        ) {
            let routes: RegionMap<_> = routed.iter().map(|(r, e)| (RegionId(*r), Epoch(*e))).collect();
            let decision = decide(&routes, |epoch| *epoch, reports(&held));
            for renewed in &decision.renew {
                proptest::prop_assert_eq!(routes.get(&renewed.region), Some(&renewed.epoch));
                proptest::prop_assert!(held.iter().any(|(r, e)| *r == renewed.region.0 && (*e == renewed.epoch.0 || *e == 0)));
            }
            for closed in &decision.close {
                proptest::prop_assert!(!routes.contains_key(closed));
            }
            let mut all: Vec<_> = decision.renew.iter().chain(&decision.open).chain(&decision.ahead).map(|r| r.region).collect();
            all.extend(&decision.close);
            all.sort_unstable();
            let mut expected: Vec<_> = routes.keys().copied().chain(held.iter().map(|(r, _)| RegionId(*r))).collect();
            expected.sort_unstable();
            expected.dedup();
            proptest::prop_assert_eq!(all, expected);
        }
    }
}
