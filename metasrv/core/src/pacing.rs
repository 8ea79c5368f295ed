//! How often the nodes of a fleet heartbeat.
//!
//! Up to a stated size each of them does so at the interval that is configured: nothing takes longer because there are more of
//! them. Beyond that size the interval grows in proportion, so that the leader has no more heartbeats to answer in a second than
//! it was sized for. It grows in quarters of the configured one, and shrinks only where the fleet has shrunk by a ninth below the
//! step, so that one node that comes and goes changes nothing.
//!
//! It ends at two fifths of a region lease: of the two heartbeats within a lease one may be late. A larger fleet needs a longer
//! lease, or a second installation.

use std::time::Duration;

use crate::timing::Timing;

/// Steps of the interval, in parts of the configured one.
const STEPS: usize = 4;

/// The longest interval, in hundredths of a region lease.
const LONGEST_PERCENT: u32 = 40;

/// The interval of so many nodes, at present told another one or the same.
pub fn interval(timing: &Timing, nodes: usize, present: Duration) -> Duration {
    let grown = step(timing, nodes);
    let shrunk = step(timing, nodes.saturating_add(nodes / 9));
    if grown > present { grown } else { shrunk.min(present) }
}

/// Whether no longer interval is possible, though the fleet asks for it.
pub fn is_at_its_end(timing: &Timing, nodes: usize) -> bool {
    wanted(timing, nodes) > longest(timing)
}

fn step(timing: &Timing, nodes: usize) -> Duration {
    wanted(timing, nodes).min(longest(timing))
}

fn wanted(timing: &Timing, nodes: usize) -> Duration {
    let size = timing.full_rate_nodes.max(1);
    if nodes <= size {
        return timing.heartbeat_interval;
    }
    let quarters = nodes.saturating_mul(STEPS).div_ceil(size);
    let quarter = timing.heartbeat_interval / u32::try_from(STEPS).unwrap_or(1);
    quarter.saturating_mul(u32::try_from(quarters).unwrap_or(u32::MAX))
}

fn longest(timing: &Timing) -> Duration {
    (timing.region_lease.saturating_mul(LONGEST_PERCENT) / 100).max(timing.heartbeat_interval)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn timing() -> Timing {
        Timing { full_rate_nodes: 1_000, ..Timing::default() }
    }

    fn after(counts: &[usize]) -> Vec<u128> {
        let mut present = timing().heartbeat_interval;
        let told = counts.iter().map(|nodes| {
            present = interval(&timing(), *nodes, present);
            present.as_millis()
        });
        told.collect()
    }

    #[test]
    fn nothing_grows_up_to_the_stated_size_and_then_in_quarters_up_to_the_longest() {
        assert_eq!(after(&[0, 1, 999, 1_000]), [1_000; 4]);
        assert_eq!(after(&[1_001, 1_250, 1_251, 1_999]), [1_250, 1_250, 1_500, 2_000]);
        assert_eq!(after(&[2_000, 9_000]), [2_000, 2_000], "two fifths of five seconds");
        assert!(!is_at_its_end(&timing(), 2_000) && is_at_its_end(&timing(), 2_001));
    }

    #[test]
    fn a_node_that_comes_and_goes_changes_nothing() {
        assert_eq!(after(&[1_001, 1_000, 1_001, 950, 901, 900]), [1_250, 1_250, 1_250, 1_250, 1_250, 1_000]);
    }

    #[test]
    fn a_lease_that_is_just_long_enough_leaves_no_room() {
        let timing = Timing { region_lease: Duration::from_secs(2), ..timing() };
        assert_eq!(interval(&timing, 5_000, timing.heartbeat_interval), timing.heartbeat_interval);
    }

    proptest! {
        #[test]
        fn more_nodes_never_beat_more_often(nodes in 0_usize..10_000, more in 0_usize..10_000, present in 1_000_u64..3_000) {
            let present = Duration::from_millis(present);
            prop_assert!(interval(&timing(), nodes, present) <= interval(&timing(), nodes + more, present));
            let told = interval(&timing(), nodes, present);
            prop_assert_eq!(interval(&timing(), nodes, told), told, "settled");
        }
    }
}
