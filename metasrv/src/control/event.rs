//! What is told of a decision. `docs/events.md` lists all kinds; those that need more than one sentence of an operator's have
//! their constructors here, those of procedures in `procedures/told.rs`.

use metasrv_core::id::{Epoch, NodeKey, RegionId};
use metasrv_proto::admin::StoredEvent;

use crate::leader::RouteChange;

/// A region of a lost node was given to another one.
pub fn region_failed_over(change: &RouteChange, why: &str) -> StoredEvent {
    StoredEvent {
        cluster_id: change.to.cluster.0,
        region_id: change.region.0,
        node_id: change.to.id.0,
        from_node_id: change.from.id.0,
        epoch: change.epoch.0,
        ..told("region_failed_over", why)
    }
}

/// A region stays on its node, and is led under a higher epoch from now on.
pub fn region_epoch_raised(node: &NodeKey, region: RegionId, epoch: Epoch, why: &str) -> StoredEvent {
    StoredEvent { region_id: region.0, epoch: epoch.0, ..of_node("region_epoch_raised", node, why) }
}

/// A process of a node has certainly ended.
pub fn process_ended(node: &NodeKey, how: &str) -> StoredEvent {
    of_node("process_ended", node, how)
}

/// Failovers stand still, and no operator said so.
pub fn brake_engaged(why: &str) -> StoredEvent {
    told("brake_engaged", why)
}

/// Failovers go on, or an operator overrides the brake.
pub fn brake_released() -> StoredEvent {
    told("brake_released", "")
}

fn of_node(kind: &str, node: &NodeKey, why: &str) -> StoredEvent {
    StoredEvent { cluster_id: node.cluster.0, node_id: node.id.0, ..told(kind, why) }
}

fn told(kind: &str, why: &str) -> StoredEvent {
    StoredEvent { kind: kind.to_owned(), why: why.to_owned(), ..StoredEvent::default() }
}
