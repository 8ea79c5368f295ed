//! Regions move until loads are even: [`metasrv_core::placement::rebalance`] says from which node to which, and here the region is
//! chosen that costs its group the least, and its migration begins.

use std::collections::{BTreeMap, BTreeSet};

use metasrv_core::id::{ClusterId, NodeId, NodeKey, RegionId};
use metasrv_core::placement::{Group, Limits, Move, rebalance as even_out};
use metasrv_core::time::BootTime;
use metasrv_proto::admin::{PlannedMove, RebalanceRequest, RebalanceResponse};

use crate::control::explain::leave;
use crate::control::procedures::{Wanted, begin_migration};
use crate::control::{Control, ControlError, failover};

/// Moves regions, or says which it would move.
pub fn rebalance(
    control: &mut Control,
    request: &RebalanceRequest,
    now: BootTime,
) -> Result<RebalanceResponse, ControlError> {
    if control.orders.maintenance() && !request.dry_run {
        let why = "maintenance is on: nothing is moved to even loads out".to_owned();
        return Err(ControlError::Refused(why));
    }
    let cluster = ClusterId(request.cluster_id);
    let candidates = failover::candidates(control, cluster, now);
    let moves = even_out(&candidates, &Limits::default());
    let mut planned = choose(control, cluster, &moves);
    let mut refusal = None;
    if !request.dry_run {
        planned.retain(|planned| {
            let (region, to) = (RegionId(planned.region_id), Some(NodeId(planned.to_node)));
            let wanted = Wanted { region, to, reason: &request.reason, drain: None };
            let begun = begin_migration(control, wanted, now);
            begun.map_err(|why| refusal.get_or_insert(why).clone()).is_ok()
        });
    }
    // What the limits leave out is moved by the next call; where they leave out everything, say so.
    match refusal.filter(|_| planned.is_empty()) {
        Some(why) => Err(why),
        None => Ok(RebalanceResponse { moves: planned }),
    }
}

/// A region for each move; a move for which there is none is left out.
fn choose(control: &Control, cluster: ClusterId, moves: &[Move]) -> Vec<PlannedMove> {
    let mut movable: BTreeMap<NodeId, Vec<(RegionId, Option<String>)>> = BTreeMap::new();
    for from in moves.iter().map(|planned| planned.from).collect::<BTreeSet<_>>() {
        movable.insert(from, free_regions(control, NodeKey::datanode(cluster, from)));
    }
    let labels: BTreeSet<&str> =
        movable.values().flatten().filter_map(|(_, group)| group.as_deref()).collect();
    let mut groups = failover::groups(control, cluster, &labels);
    let mut planned = Vec::with_capacity(moves.len());
    for Move { from, to } in moves {
        let Some(regions) = movable.get_mut(from) else { continue };
        let Some(index) = cheapest(regions, &groups, *to) else { continue };
        let (region, group) = regions.swap_remove(index);
        if let Some(group) = group.and_then(|label| groups.get_mut(&label)) {
            leave(group, *from);
            let held = group.entry(*to).or_default();
            *held = held.saturating_add(1);
        }
        planned.push(PlannedMove { region_id: region.0, from_node: from.0, to_node: to.0 });
    }
    planned
}

/// The region of whose group the target has the fewest; none has none.
fn cheapest(
    regions: &[(RegionId, Option<String>)],
    groups: &BTreeMap<String, Group>,
    to: NodeId,
) -> Option<usize> {
    let held = |label: &String| groups.get(label).and_then(|group| group.get(&to)).copied();
    let costs = regions.iter().enumerate().map(|(index, (region, label))| {
        let cost = label.as_ref().and_then(held).unwrap_or_default();
        (cost, *region, index)
    });
    costs.min().map(|(.., index)| index)
}

/// Regions of a node that nothing is at work on.
fn free_regions(control: &Control, node: NodeKey) -> Vec<(RegionId, Option<String>)> {
    let Some(entry) = control.leader.nodes().get(&node) else { return Vec::new() };
    let is_free = |region: &RegionId| {
        control.procedures.busy(*region).is_none() && !control.failover.is_in_flight(*region)
    };
    let free = entry.regions.iter().filter(|(id, _)| is_free(id));
    free.map(|(id, region)| (*id, region.group().map(|group| (**group).to_owned()))).collect()
}
