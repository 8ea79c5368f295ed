//! Lists of regions, a message at a time: nobody ever holds one whole. A leader of ten million regions would need ten times
//! the memory that it decides by.
//!
//! A list is in the order of ids. Each message is made when the one before it was taken, of what holds then; so a list
//! shows each region once, wherever it moves meanwhile, and not all of them as they were at one moment.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use futures_util::Stream;
use metasrv_core::id::{NodeKey, RegionId};
use metasrv_proto::admin::{self, ListRegionsResponse};
use tonic::Status;

use super::follower::Seen;
use super::listing::{CHUNK, describe};
use crate::leader::Leader;

/// All regions of a leader, or those of the nodes with one id.
pub fn of_leader(
    leader: Arc<Leader>,
    on: Option<u64>,
) -> impl Stream<Item = Result<ListRegionsResponse, Status>> + Send {
    let term = leader.term().0;
    parts(move |after| {
        if !leader.leads(leader.clock().now()) {
            return Err(Status::unavailable(
                "this replica does not lead any more; the list has not come to its end",
            ));
        }
        let regions = part_of_leader(&leader, on, after);
        Ok(ListRegionsResponse { regions, term, follower: None })
    })
}

/// The same of what a follower has seen.
pub fn of_follower(
    seen: Seen,
    on: Option<u64>,
) -> impl Stream<Item = Result<ListRegionsResponse, Status>> + Send {
    let follower = Some(seen.view);
    parts(move |after| Ok(ListRegionsResponse { regions: seen.regions(on, after), term: 0, follower }))
}

/// Messages until one is not full. A list without regions is one message without regions.
fn parts(
    part: impl FnMut(Option<RegionId>) -> Result<ListRegionsResponse, Status> + Send,
) -> impl Stream<Item = Result<ListRegionsResponse, Status>> + Send {
    let begin = Some((part, None, true));
    futures_util::stream::unfold(begin, |state| async move {
        let (mut part, after, is_first) = state?;
        match part(after) {
            Ok(message) => {
                let last = message.regions.last().map(|region| RegionId(region.region_id));
                let next =
                    last.filter(|_| message.regions.len() == CHUNK).map(|last| (part, Some(last), false));
                (is_first || last.is_some()).then_some((Ok(message), next))
            }
            Err(status) => Some((Err(status), None)),
        }
    })
}

fn part_of_leader(leader: &Leader, on: Option<u64>, after: Option<RegionId>) -> Vec<admin::Region> {
    let nodes: Vec<NodeKey> = leader.nodes().iter().map(|entry| *entry.key()).collect();
    let nodes = nodes.into_iter().filter(|node| on.is_none_or(|id| id == node.id.0));
    let next = |node: &NodeKey, after| {
        let entry = leader.nodes().get(node)?;
        entry.regions.iter_after(after).next().map(|(region, _)| *region)
    };
    let now = leader.clock().now();
    let mut regions: Vec<admin::Region> = Vec::new();
    for (region, node) in merged(nodes, next, after, CHUNK) {
        let describe = |node: &NodeKey| {
            let entry = leader.nodes().get(node)?;
            let known = entry.regions.get(&region)?;
            Some(describe(leader, node, &entry, region.0, known, now))
        };
        // It may have moved since it was found, to a node that was looked at before.
        let elsewhere = || match on {
            None => leader.route_of(region).and_then(|(node, _)| describe(&node)),
            Some(_) => None,
        };
        regions.extend(describe(&node).or_else(elsewhere));
    }
    regions
}

/// The first regions above `after` of all these nodes, in the order of ids, each once. `next` says which one of a node comes
/// next after another.
pub fn merged<K: Copy + Ord>(
    nodes: impl Iterator<Item = K>,
    next: impl Fn(&K, Option<RegionId>) -> Option<RegionId>,
    after: Option<RegionId>,
    most: usize,
) -> Vec<(RegionId, K)> {
    let mut heads: BinaryHeap<Reverse<(RegionId, K)>> =
        nodes.filter_map(|node| next(&node, after).map(|region| Reverse((region, node)))).collect();
    let mut found: Vec<(RegionId, K)> = Vec::new();
    while found.len() < most {
        let Some(Reverse((region, node))) = heads.pop() else { break };
        heads.extend(next(&node, Some(region)).map(|region| Reverse((region, node))));
        // While a region moves, both nodes have it.
        if found.last().is_none_or(|(last, _)| *last != region) {
            found.push((region, node));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use futures_util::StreamExt as _;
    use proptest::prelude::*;

    proptest! {
        /// Goal: parts put together are the whole list, in order, each region once. Method: random regions on random nodes,
        /// some on two, in parts of a random size.
        #[test]
        fn parts_make_the_whole(
            held in proptest::collection::btree_map(0_u8..5, proptest::collection::btree_set(0_u64..60, 0..40), 0..5),
            most in 1_usize..20,
        ) {
            let held: BTreeMap<u8, BTreeSet<u64>> = held;
            let next = |node: &u8, after: Option<RegionId>| {
                let mut above = held[node].iter().filter(|id| after.is_none_or(|after| **id > after.0));
                above.next().map(|id| RegionId(*id))
            };
            let (mut whole, mut after) = (Vec::new(), None);
            loop {
                let part = merged(held.keys().copied(), next, after, most);
                prop_assert!(part.iter().all(|(region, node)| held[node].contains(&region.0)));
                let Some((last, _)) = part.last() else { break };
                after = Some(*last);
                whole.extend(part.iter().map(|(region, _)| region.0));
            }
            let expected: BTreeSet<u64> = held.values().flatten().copied().collect();
            prop_assert!(whole.into_iter().eq(expected));
        }
    }

    /// Goal: a list ends, with a message in any case. Method: lists around the size of one message.
    #[tokio::test]
    async fn a_list_without_regions_is_one_message_and_none_comes_after_the_last() {
        for (regions, messages) in [(0, 1), (1, 1), (CHUNK, 1), (CHUNK + 1, 2), (3 * CHUNK, 3)] {
            let all: Vec<u64> = (1..=regions as u64).collect();
            let listed = parts(move |after| {
                let above = all.iter().filter(|id| after.is_none_or(|after| **id > after.0)).take(CHUNK);
                let regions =
                    above.map(|id| admin::Region { region_id: *id, ..Default::default() }).collect();
                Ok(ListRegionsResponse { regions, ..ListRegionsResponse::default() })
            });
            let listed: Vec<_> = listed.map(Result::unwrap).collect().await;
            assert_eq!(listed.len(), messages, "{regions}");
            let ids = listed.iter().flat_map(|message| &message.regions).map(|region| region.region_id);
            assert!(ids.eq(1..=regions as u64), "{regions}");
        }
    }
}
