//! What a replica that does not lead can say of nodes and regions: what its mirror has seen in the store.
//!
//! It is what this replica would begin to lead with. Who is connected, and who holds a lease at this moment, only a
//! leader knows.

use std::collections::BTreeMap;

use metasrv_core::id::{NodeKey, RegionId, Role};
use metasrv_proto::admin::procedure_record::Kind;
use metasrv_proto::admin::{self, FollowerView, NodeOrderRecord};
use tonic::Status;

use super::listing::{CHUNK, as_u64};
use super::regions::merged;
use crate::clock::wall_clock_ms;
use crate::keys::Keys;
use crate::leader::{Agenda, Node, inherit};
use crate::mirror::Mirror;

/// The state of a region of which a follower does not know whether it is leased, and the health of a node whose heartbeats
/// it does not hear.
const UNKNOWN: &str = "unknown";

/// What is known at one revision.
pub struct Seen {
    /// Where the follower stands.
    pub view: FollowerView,
    nodes: BTreeMap<NodeKey, Node>,
    agenda: Agenda,
}

impl Seen {
    /// What the mirror holds; nothing where it was not read yet, or where there is none.
    ///
    /// # Errors
    /// `DATA_LOSS` where something in the store cannot be understood. A takeover would fail over it too.
    pub fn in_mirror(mirror: Option<&Mirror>, keys: &Keys) -> Result<Option<Seen>, Status> {
        let Some((state, view)) = mirror.and_then(Mirror::read) else { return Ok(None) };
        let known = inherit(keys, state).map_err(|error| Status::data_loss(error.to_string()))?;
        Ok(Some(Seen { view, nodes: known.nodes.into_iter().collect(), agenda: known.agenda }))
    }

    /// A message's worth of its regions above this one, or of those of the nodes with one id, in the order of their ids.
    pub fn regions(&self, on: Option<u64>, after: Option<RegionId>) -> Vec<admin::Region> {
        let nodes = self.nodes.keys().copied().filter(|key| on.is_none_or(|id| id == key.id.0));
        let next = |key: &NodeKey, after| {
            let held = &self.nodes.get(key)?.regions;
            held.iter_after(after).next().map(|(region, _)| *region)
        };
        let found = merged(nodes, next, after, CHUNK);
        let described = found.into_iter().filter_map(|(id, key)| {
            let node = self.nodes.get(&key)?;
            let region = node.regions.get(&id)?;
            Some(admin::Region {
                region_id: id.0,
                cluster_id: key.cluster.0,
                node_id: key.id.0,
                node_addr: node.addr.clone(),
                epoch: region.epoch.0,
                writable: false,
                state: UNKNOWN.to_owned(),
                created_at_ms: region.created_at_ms,
                reason: region.about.reason.clone(),
                group: region.group().map(|group| (**group).to_owned()).unwrap_or_default(),
            })
        });
        described.collect()
    }

    /// Its nodes, in the order of role, cluster and id.
    pub fn nodes(&self) -> Vec<admin::Node> {
        let nodes = self.nodes.iter().map(|(key, node)| {
            let process = node.process.unwrap_or_default();
            let is_datanode = key.role == Role::Datanode;
            let restarting_until_ms = self.order(key).map_or(0, |order| order.restarting_until_ms);
            admin::Node {
                node_id: key.id.0,
                cluster_id: key.cluster.0,
                role: key.role.name().to_owned(),
                addr: node.addr.clone(),
                node_epoch: process.epoch,
                incarnation_nonce: process.nonce,
                connected: false,
                last_activity_ms: node.last_activity_ms,
                regions: as_u64(node.regions.len()),
                regions_writable: 0,
                persisted_stats: 0,
                version: node.version.clone(),
                persisted_term: node.offered_term.0,
                hostname: node.hostname.clone(),
                zone: node.zone.clone(),
                host: node.host.clone(),
                weight: node.capacity(),
                health: if is_datanode { UNKNOWN.to_owned() } else { String::new() },
                duty: if is_datanode { self.duty(key).to_owned() } else { String::new() },
                // For people: the leader goes by its own clock.
                restarting_ms: restarting_until_ms.saturating_sub(wall_clock_ms()),
            }
        });
        nodes.collect()
    }

    fn order(&self, node: &NodeKey) -> Option<&NodeOrderRecord> {
        let found = self.agenda.node_orders.iter().find(|(key, _)| key == node);
        found.map(|(_, held)| &held.value)
    }

    /// What an operator wants of a datanode.
    fn duty(&self, node: &NodeKey) -> &'static str {
        let is_drained = self.agenda.procedures.iter().any(|held| {
            let of_cluster = held.value.cluster_id == node.cluster.0;
            of_cluster && matches!(&held.value.kind, Some(Kind::Drain(drain)) if drain.node_id == node.id.0)
        });
        match self.order(node) {
            _ if is_drained => "draining",
            Some(order) if order.cordoned => "cordoned",
            _ => "open",
        }
    }
}
