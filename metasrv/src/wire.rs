//! Between the wire's types and ours.

use metasrv_core::id::{ClusterId, NodeId, NodeKey, Role, Term};
use metasrv_proto::admin::{Instruction, OpenRegions, RegionTarget, instruction};
use metasrv_proto::{PROTOCOL_VERSION, meta};

use metasrv_core::grant::Reported;

/// The role that a header names, or `None` where it is unknown.
pub fn role(number: i32) -> Option<Role> {
    Some(match meta::Role::try_from(number).ok()? {
        meta::Role::Datanode => Role::Datanode,
        meta::Role::Frontend => Role::Frontend,
        meta::Role::Flownode => Role::Flownode,
    })
}

/// The node that a header names. Its role has to be known.
pub fn node_key(header: &meta::RequestHeader) -> Option<NodeKey> {
    Some(NodeKey {
        role: role(header.role)?,
        cluster: ClusterId(header.cluster_id),
        id: NodeId(header.member_id),
    })
}

/// What every response begins with.
pub fn response_header(node: &NodeKey, term: Term, installation: u64) -> meta::ResponseHeader {
    meta::ResponseHeader {
        protocol_version: PROTOCOL_VERSION,
        cluster_id: node.cluster.0,
        member_id: node.id.0,
        term: term.0,
        installation,
        ..Default::default()
    }
}

/// An error for a response header.
pub fn error(code: i32, message: impl Into<String>) -> meta::Error {
    meta::Error { code, err_msg: message.into(), known_node_epoch: 0 }
}

/// A peer by address alone.
pub fn peer(addr: &str) -> meta::Peer {
    meta::Peer { id: 0, addr: addr.to_owned() }
}

/// Open these regions under these epochs.
pub fn open_regions(term: Term, regions: &[Reported]) -> Instruction {
    Instruction {
        term: term.0,
        action: Some(instruction::Action::OpenRegions(OpenRegions { regions: targets(regions) })),
        ..Instruction::default()
    }
}

fn targets(regions: &[Reported]) -> Vec<RegionTarget> {
    let target = |region: &Reported| RegionTarget {
        region_id: region.region.0,
        epoch: region.epoch.0,
        ..RegionTarget::default()
    };
    regions.iter().map(target).collect()
}
