//! Where a region of a node goes: placement over the nodes of its cluster, with everything counted that is on its way.
//!
//! Regions chosen one after another with one value count as placed, so that many of them do not all go to the node that was
//! the emptiest.

use std::collections::{BTreeMap, BTreeSet};

use metasrv_core::id::{NodeId, NodeKey, RegionId};
use metasrv_core::placement::{Candidate, Group, Placer};

use crate::control::{Control, failover, nobody};

/// Chooses targets for regions of one node.
pub(super) struct Targets<'a> {
    control: &'a Control,
    from: NodeKey,
    candidates: &'a [Candidate],
    placer: Placer<'a>,
    /// Where the regions of the groups are that were asked for so far.
    groups: BTreeMap<String, Group>,
}

impl<'a> Targets<'a> {
    /// For regions of this node, over the candidates of its cluster ([`failover::candidates`]).
    pub(super) fn new(control: &'a Control, from: NodeKey, candidates: &'a [Candidate]) -> Targets<'a> {
        Targets { control, from, candidates, placer: Placer::new(candidates), groups: BTreeMap::new() }
    }

    /// The node for one region.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub(super) fn choose(&mut self, region: RegionId) -> Result<NodeId, String> {
        let from = self.from;
        let chosen = match label(self.control, &from, region) {
            None => self.placer.place(Some(from.id)),
            Some(label) => {
                let control = self.control;
                let group =
                    self.groups.entry(label).or_insert_with_key(|label| spread(control, &from, label));
                move_out(group, from.id);
                self.placer.place_in_group(group, Some(from.id))
            }
        };
        chosen.ok_or_else(|| nobody(self.candidates, from.cluster, Some(from.id)))
    }
}

/// The group of a region, if it has one.
fn label(control: &Control, node: &NodeKey, region: RegionId) -> Option<String> {
    let entry = control.leader.nodes().get(node)?;
    entry.regions.get(&region)?.group().map(|group| (**group).to_owned())
}

/// Where the regions of a group are, those counted as moved that are on their way.
fn spread(control: &Control, of: &NodeKey, group: &str) -> Group {
    let labels = BTreeSet::from([group]);
    let mut known = failover::groups(control, of.cluster, &labels).remove(group).unwrap_or_default();
    let moving = control.procedures.migrations.values();
    for moving in moving.filter(|moving| moving.is_on_its_way() && moving.from().cluster == of.cluster) {
        if label(control, &moving.from(), moving.region()).as_deref() == Some(group) {
            move_out(&mut known, moving.from().id);
            let held = known.entry(moving.to().id).or_default();
            *held = held.saturating_add(1);
        }
    }
    known
}

fn move_out(group: &mut Group, node: NodeId) {
    if let Some(held) = group.get_mut(&node) {
        *held = held.saturating_sub(1);
    }
}
