//! What is told of a decision: a constructor for each kind that `docs/events.md` lists, but for those of procedures, which are in
//! `procedures/told.rs`.

use std::time::Duration;

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

/// A region was created on this node.
pub fn region_created(node: &NodeKey, region: RegionId, epoch: Epoch, why: &str) -> StoredEvent {
    StoredEvent { region_id: region.0, epoch: epoch.0, ..of_node("region_created", node, why) }
}

/// A region's route was taken away from this node.
pub fn region_dropped(node: &NodeKey, region: RegionId, epoch: Epoch, why: &str) -> StoredEvent {
    StoredEvent {
        cluster_id: node.cluster.0,
        region_id: region.0,
        from_node_id: node.id.0,
        epoch: epoch.0,
        ..told("region_dropped", why)
    }
}

/// A node gets no more regions.
pub fn node_cordoned(node: &NodeKey, why: &str) -> StoredEvent {
    of_node("node_cordoned", node, why)
}

/// A node gets regions again.
pub fn node_uncordoned(node: &NodeKey, why: &str) -> StoredEvent {
    of_node("node_uncordoned", node, why)
}

/// For so long the regions of a node wait for it.
pub fn restart_announced(node: &NodeKey, lasts: Duration, why: &str) -> StoredEvent {
    of_node("restart_announced", node, &lasting(lasts, why))
}

/// They do not wait any more: an operator says so.
pub fn restart_withdrawn(node: &NodeKey, why: &str) -> StoredEvent {
    of_node("restart_withdrawn", node, why)
}

/// The same, because the time is over. It goes to the log, and not to the history.
pub fn restart_over(node: &NodeKey) -> StoredEvent {
    of_node("restart_over", node, "its time is over")
}

/// A node is forgotten.
pub fn node_decommissioned(node: &NodeKey, why: &str) -> StoredEvent {
    of_node("node_decommissioned", node, why)
}

/// For so long no failover begins.
pub fn failover_paused(lasts: Duration, why: &str) -> StoredEvent {
    told("failover_paused", &lasting(lasts, why))
}

/// A pause ends; for so long, where it is not zero, failovers go on whatever the brake sees.
pub fn failover_resumed(lasts: Duration, why: &str) -> StoredEvent {
    told("failover_resumed", &lasting(lasts, why))
}

/// Nothing moves by itself.
pub fn maintenance_on(why: &str) -> StoredEvent {
    told("maintenance_on", why)
}

/// It does again.
pub fn maintenance_off(why: &str) -> StoredEvent {
    told("maintenance_off", why)
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

fn lasting(time: Duration, why: &str) -> String {
    if time.is_zero() { why.to_owned() } else { format!("for {} s: {why}", time.as_secs_f64()) }
}
