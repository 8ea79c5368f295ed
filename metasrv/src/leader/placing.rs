//! Where new regions go: on the node that is named, or on those that placement chooses.
//!
//! | a datanode | gets new regions |
//! | --- | --- |
//! | named by the operator, connected | yes, unless it is cordoned, being drained, or announced to restart |
//! | not connected | no: nobody would open them |
//! | suspect, lost, cordoned, draining, announced to restart, without capacity | no |
//! | else | by [`metasrv_core::placement`]: regions of one group spread over zones, hosts and nodes, then the lowest load |

use metasrv_core::id::{ClusterId, NodeId, NodeKey};
use metasrv_core::placement::{Candidate, Duty, Exclusion, Group, Placer};

use super::{CreateError, Leader};
use crate::control::{Command, nobody};
use crate::pusher::Pushers;

/// Regions to be created.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted<'a> {
    /// In which cluster.
    pub cluster: ClusterId,
    /// On which node; `None`: where placement puts them.
    pub on: Option<NodeId>,
    /// How many.
    pub count: usize,
    /// Label of the group that they belong to; empty: none.
    pub group: &'a str,
    /// Why, for people.
    pub reason: &'a str,
}

impl Leader {
    /// A node for each region.
    pub(super) async fn place(
        &self,
        pushers: &Pushers,
        wanted: &Wanted<'_>,
    ) -> Result<Vec<NodeKey>, CreateError> {
        let cluster = wanted.cluster;
        let duties = self.control.ask(Command::Duties).await?;
        if let Some(id) = wanted.on {
            let node = NodeKey::datanode(cluster, id);
            if !pushers.is_connected(&node) || !self.nodes.contains_key(&node) {
                return Err(CreateError::NoSuchNode(node));
            }
            let known = duties.get(&node);
            let why = match known.map_or(Duty::Open, |known| known.duty) {
                Duty::Cordoned => Exclusion::Cordoned,
                Duty::Draining => Exclusion::Draining,
                Duty::Open if known.is_some_and(|known| known.restarting_until.is_some()) => {
                    Exclusion::Restarting
                }
                Duty::Open => return Ok(vec![node; wanted.count]),
            };
            return Err(CreateError::Unfit { node, why });
        }
        let known = self.candidates(cluster, self.clock.now());
        let mut candidates: Vec<Candidate> = known
            .into_iter()
            .filter(|candidate| pushers.is_connected(&NodeKey::datanode(cluster, candidate.node)))
            .collect();
        if candidates.is_empty() {
            return Err(CreateError::NotEnoughDatanodes(cluster));
        }
        for candidate in &mut candidates {
            if let Some(known) = duties.get(&NodeKey::datanode(cluster, candidate.node)) {
                candidate.duty = known.duty;
                candidate.is_restarting = known.restarting_until.is_some();
                (candidate.incoming, candidate.outgoing) = (known.incoming, known.outgoing);
            }
        }
        self.choose(&candidates, wanted)
            .map(|chosen| chosen.into_iter().map(|id| NodeKey::datanode(cluster, id)).collect())
            .ok_or_else(|| CreateError::Excluded(nobody(&candidates, cluster, None)))
    }

    fn choose(&self, candidates: &[Candidate], wanted: &Wanted<'_>) -> Option<Vec<NodeId>> {
        let mut placer = Placer::new(candidates);
        if wanted.group.is_empty() {
            return (0..wanted.count).map(|_| placer.place(None)).collect();
        }
        let mut group = self.group(wanted.cluster, wanted.group);
        (0..wanted.count).map(|_| placer.place_in_group(&mut group, None)).collect()
    }

    /// Where the regions of a group are.
    fn group(&self, cluster: ClusterId, label: &str) -> Group {
        let mut group = Group::new();
        for entry in self.nodes.iter().filter(|entry| entry.key().cluster == cluster) {
            let held = entry
                .regions
                .values()
                .filter(|region| region.group().is_some_and(|group| **group == *label))
                .count();
            if held > 0 {
                group.insert(entry.key().id, held);
            }
        }
        group
    }
}
