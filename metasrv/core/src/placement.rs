//! Which node a new region goes to.
//!
//! The order of the fields of [`Score`] is the policy: the derived order compares them one after another, and the last
//! one is there so that equal nodes are chosen the same way every time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::id::NodeId;

/// A node that may be chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// The node.
    pub node: NodeId,
    /// Regions that the routes give it.
    pub regions: usize,
}

/// The lower, the better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Score {
    regions: usize,
    node: NodeId,
}

/// There is no node to choose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotEnough;

/// Chooses a node for each of `count` regions, one by one: the node with the fewest, those just placed included.
///
/// # Errors
/// [`NotEnough`] where there is no candidate.
pub fn choose(candidates: &[Candidate], count: usize) -> Result<Vec<NodeId>, NotEnough> {
    let mut scores: BinaryHeap<Reverse<Score>> = candidates
        .iter()
        .map(|candidate| Reverse(Score { regions: candidate.regions, node: candidate.node }))
        .collect();
    let mut chosen = Vec::with_capacity(count);
    for _ in 0..count {
        let mut best = scores.peek_mut().ok_or(NotEnough)?;
        chosen.push(best.0.node);
        best.0.regions = best.0.regions.saturating_add(1);
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(node: u64, regions: usize) -> Candidate {
        Candidate { node: NodeId(node), regions }
    }

    fn chosen(candidates: &[Candidate], count: usize) -> Vec<u64> {
        choose(candidates, count).unwrap().into_iter().map(|node| node.0).collect()
    }

    #[test]
    fn the_node_with_the_fewest_regions_is_chosen_region_by_region() {
        assert_eq!(chosen(&[candidate(1, 3), candidate(2, 0), candidate(3, 1)], 5), [2, 2, 3, 2, 3]);
    }

    #[test]
    fn equal_nodes_are_chosen_in_the_order_of_their_ids() {
        assert_eq!(chosen(&[candidate(3, 0), candidate(1, 0), candidate(2, 0)], 4), [1, 2, 3, 1]);
    }

    #[test]
    fn without_nodes_nothing_is_placed() {
        assert_eq!(choose(&[], 1), Err(NotEnough));
        assert_eq!(choose(&[], 0), Ok(vec![]));
    }

    proptest::proptest! {
        #[test]
        fn nodes_that_began_level_end_level(nodes in 1_u64..20, count in 0_usize..200) {
            let candidates: Vec<_> = (1..=nodes).map(|node| candidate(node, 7)).collect();
            let chosen = choose(&candidates, count).unwrap();
            let placed = |node: &Candidate| chosen.iter().filter(|chosen| **chosen == node.node).count();
            let most = candidates.iter().map(placed).max().unwrap();
            let least = candidates.iter().map(placed).min().unwrap();
            proptest::prop_assert!(most - least <= 1);
        }
    }
}
