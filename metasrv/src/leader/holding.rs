//! What procedures ask about nodes and their regions, and what they hold back: leases of a region that is about to be taken
//! away, and the closing of a copy that is in use though no route names it.

use std::collections::BTreeMap;

use metasrv_core::detector::Health;
use metasrv_core::failover::{Evidence, Release, release};
use metasrv_core::id::{ClusterId, Epoch, Incarnation, NodeKey, RegionId, Role};
use metasrv_core::placement::{Candidate, Duty, Reach};
use metasrv_core::procedure::instruction::{Held, HeldAs, NodeView, Presence};
use metasrv_core::time::BootTime;
use metasrv_proto::meta::{RegionRole, RegionStat};

use super::Leader;
use super::granting::note;
use super::node::Node;

impl Leader {
    /// Which node leads a region, and under which epoch.
    pub fn route_of(&self, region: RegionId) -> Option<(NodeKey, Epoch)> {
        self.nodes.iter().find_map(|entry| {
            let found = entry.regions.get(&region)?;
            Some((*entry.key(), found.epoch))
        })
    }

    /// From now on nothing is granted to this node for the region, or again what its route says.
    pub fn withhold(&self, node: &NodeKey, region: RegionId, withheld: bool) {
        let Some(mut entry) = self.nodes.get_mut(node) else { return };
        if withheld {
            entry.regions.withhold(region);
        } else {
            entry.regions.release(&region);
        }
    }

    /// The node's copy of the region is in use though no route names it, or is no longer.
    pub fn keep_open(&self, node: &NodeKey, region: RegionId, kept: bool) {
        let Some(mut entry) = self.nodes.get_mut(node) else { return };
        if kept {
            entry.kept_open.insert(region);
        } else {
            entry.kept_open.remove(&region);
        }
    }

    /// From now on what the node reports of this region is remembered.
    pub fn watch_region(&self, node: &NodeKey, region: RegionId) {
        self.nodes.entry(*node).or_default().watched.entry(region).or_default();
    }

    /// Nobody wants to hear of it any more.
    pub fn unwatch_region(&self, node: &NodeKey, region: RegionId) {
        if let Some(mut entry) = self.nodes.get_mut(node) {
            entry.watched.remove(&region);
        }
    }

    /// Remembers what a process reports of the regions that somebody wants to hear of.
    pub fn note_reports(&self, node: &NodeKey, process: Incarnation, stats: &[RegionStat], now: BootTime) {
        let Some(mut entry) = self.nodes.get_mut(node) else { return };
        if entry.watched.is_empty() || entry.holder.current() != Some(process) {
            return;
        }
        // One walk over what is reported, however many are watched.
        let watched = stats.iter().filter(|stat| entry.watched.contains_key(&RegionId(stat.region_id)));
        let reported: BTreeMap<u64, Held> = watched.rev().map(|stat| (stat.region_id, held(stat))).collect();
        let news = note(&mut entry.watched, |region| reported.get(&region.0).copied(), now);
        drop(entry);
        if news {
            self.control.wake_procedures();
        }
    }

    /// A node has a stream to this leader: what a procedure has to tell it can be told now.
    pub fn connected(&self, node: &NodeKey) {
        if self.nodes.get(node).is_some_and(|entry| !entry.watched.is_empty()) {
            self.control.wake_procedures();
        }
    }

    /// What is known of a node, and of how it holds a region that is watched. Whether it has a stream the mailbox knows.
    pub fn node_view(&self, node: &NodeKey, region: RegionId, now: BootTime) -> NodeView {
        let listening = self.listening();
        let Some(entry) = self.nodes.get(node) else {
            return NodeView { process: None, presence: Presence::Lost, report: None, stream: None };
        };
        let is_lost = matches!(self.health(&entry, &listening, now), Health::Lost { .. });
        NodeView {
            process: entry.holder.current(),
            presence: if entry.is_dead() || is_lost { Presence::Lost } else { Presence::Reachable },
            report: entry.watched.get(&region).copied().flatten(),
            stream: None,
        }
    }

    /// Rule 4: when a region may be taken from its node. Nothing may be granted for it from before this is asked.
    /// [`BootTime::ZERO`]: now.
    pub fn free_at(&self, node: &NodeKey, region: RegionId, epoch: Epoch, now: BootTime) -> BootTime {
        let Some(entry) = self.nodes.get(node) else { return BootTime::MAX };
        let evidence = self.evidence(&entry, region);
        match release(entry.holder.current(), region, epoch, &evidence, now) {
            Release::Allowed { .. } => BootTime::ZERO,
            Release::NotBefore { at, .. } => at,
        }
    }

    /// What is known about the right of a node to write to a region.
    pub fn evidence(&self, node: &Node, region: RegionId) -> Evidence {
        Evidence {
            last_grant: last_grant(node, region),
            grant_wait: self.timing.grant_wait(),
            settled_at: self.settled_at,
            certificate: node.certificate,
            stopped: None,
            fenced: None,
        }
    }

    /// The datanodes of a cluster, in the order of their ids, as placement counts them; without what operators want of them
    /// and without moves under way, which the control loop knows.
    pub fn candidates(&self, cluster: ClusterId, now: BootTime) -> Vec<Candidate> {
        let listening = self.listening();
        let datanodes = self
            .nodes
            .iter()
            .filter(|entry| entry.key().role == Role::Datanode && entry.key().cluster == cluster)
            .map(|entry| Candidate {
                weight: entry.capacity(),
                zone: entry.zone.clone(),
                host: entry.host.clone(),
                reach: self.reach(&entry, &self.health(&entry, &listening, now)),
                duty: Duty::Open,
                ..Candidate::new(entry.key().id, entry.regions.len())
            });
        let mut candidates: Vec<Candidate> = datanodes.collect();
        candidates.sort_unstable_by_key(|candidate| candidate.node);
        candidates
    }

    /// A node whose process has ended, or that was never admitted, can take nothing, however lately it was heard.
    fn reach(&self, node: &Node, health: &Health) -> Reach {
        if node.holder.current().is_none() || node.is_dead() { Reach::Lost } else { Reach::from(health) }
    }
}

/// When a region was last granted to the recorded process of its node. Where its epoch was raised since, that is not known for
/// the region alone: whatever the process was granted counts.
pub fn last_grant(node: &Node, region: RegionId) -> Option<BootTime> {
    node.regions.granted_at(&region).or_else(|| node.holder.last_grant())
}

/// How a node says that it holds a region.
pub(super) fn held(stat: &RegionStat) -> Held {
    let role = match (stat.candidate, RegionRole::try_from(stat.role)) {
        (true, _) => HeldAs::Candidate,
        (false, Ok(RegionRole::DowngradingLeader)) => HeldAs::Downgraded,
        // A leader whose lease has not come yet says that it follows.
        (false, _) => HeldAs::Leader,
    };
    Held { role, epoch: Epoch(stat.epoch) }
}
