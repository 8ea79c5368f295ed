//! What a replica that does not lead can say of nodes and regions: what its mirror has seen in the store.
//!
//! It is what this replica would begin to lead with. Who is connected, and who holds a lease at this moment, only a
//! leader knows.

use std::collections::BTreeMap;

use metasrv_core::id::NodeKey;
use metasrv_proto::admin::{self, FollowerView};
use tonic::Status;

use super::listing::as_u64;
use crate::keys::Keys;
use crate::leader::{Node, inherit};
use crate::mirror::Mirror;

/// The state of a region of which a follower does not know whether it is leased.
const UNKNOWN: &str = "unknown";

/// What is known at one revision.
pub struct Seen {
    /// Where the follower stands.
    pub view: FollowerView,
    nodes: BTreeMap<NodeKey, Node>,
}

impl Seen {
    /// What the mirror holds; nothing where it was not read yet, or where there is none.
    ///
    /// # Errors
    /// `DATA_LOSS` where something in the store cannot be understood. A takeover would fail over it too.
    pub fn in_mirror(mirror: Option<&Mirror>, keys: &Keys) -> Result<Option<Seen>, Status> {
        let Some((state, view)) = mirror.and_then(Mirror::read) else { return Ok(None) };
        let known = inherit(keys, state).map_err(|error| Status::data_loss(error.to_string()))?;
        Ok(Some(Seen { view, nodes: known.nodes.into_iter().collect() }))
    }

    /// Its regions, or those of the nodes with one id, in the order of their ids.
    pub fn regions(&self, on: Option<u64>) -> Vec<admin::Region> {
        let nodes = self.nodes.iter().filter(|(key, _)| on.is_none_or(|id| id == key.id.0));
        let mut regions: Vec<admin::Region> = nodes
            .flat_map(|(key, node)| {
                node.regions.iter().map(|(id, region)| admin::Region {
                    region_id: id.0,
                    cluster_id: key.cluster.0,
                    node_id: key.id.0,
                    node_addr: node.addr.clone(),
                    epoch: region.epoch.0,
                    writable: false,
                    state: UNKNOWN.to_owned(),
                    created_at_ms: region.created_at_ms,
                    reason: region.reason.clone(),
                })
            })
            .collect();
        regions.sort_unstable_by_key(|region| region.region_id);
        regions
    }

    /// Its nodes, in the order of role, cluster and id.
    pub fn nodes(&self) -> Vec<admin::Node> {
        let nodes = self.nodes.iter().map(|(key, node)| {
            let process = node.process.unwrap_or_default();
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
            }
        });
        nodes.collect()
    }

    /// How many nodes and regions there are.
    pub fn counts(&self) -> (u64, u64) {
        let regions: usize = self.nodes.values().map(|node| node.regions.len()).sum();
        (as_u64(self.nodes.len()), as_u64(regions))
    }
}
