//! What an operator wants of one node: that it gets no more regions, that its restart is waited for, that it is forgotten.

use std::time::Duration;

use metasrv_core::time::BootTime;
use metasrv_proto::admin::{
    AnnounceRestartRequest, AnnounceRestartResponse, CordonNodeRequest, CordonNodeResponse,
    DecommissionNodeRequest, DecommissionNodeResponse,
};

use super::{answer, datanode, given, known};
use crate::control::orders::{self, Answer, Told};
use crate::control::{Control, ControlError, Reply, event};

/// Cordons a node, or ends that.
pub fn cordon(
    control: &mut Control,
    request: &CordonNodeRequest,
    reply: Reply<CordonNodeResponse>,
    now: BootTime,
) {
    let node = datanode(request.cluster_id, request.node_id);
    // What is wanted of a node can be taken back also where the node is not known any more.
    if !control.orders.cordoned(&node)
        && let Err(error) = known(control, request.cluster_id, request.node_id)
    {
        return answer(reply, Err(error));
    }
    if !request.cordoned && control.procedures.drains(&node) {
        let why = format!("{node} is being drained, which would go on: cancel the drain first");
        return answer(reply, Err(ControlError::Refused(why)));
    }
    let given = given(control, &request.reason, now);
    let tell = if request.cordoned { event::node_cordoned } else { event::node_uncordoned };
    match control.orders.cordon(control.leader.keys(), node, request.cordoned, given) {
        None => answer(reply, Ok(CordonNodeResponse {})),
        Some(change) => {
            let told = Told { event: tell(&node, &request.reason), by_itself: false };
            orders::begin(control, change, told, Answer::Cordon(reply));
        }
    }
}

/// Announces that a node restarts, or takes that back.
pub fn announce_restart(
    control: &mut Control,
    request: &AnnounceRestartRequest,
    reply: Reply<AnnounceRestartResponse>,
    now: BootTime,
) {
    let node = match known(control, request.cluster_id, request.node_id) {
        Ok(node) => node,
        Err(error) => return answer(reply, Err(error)),
    };
    let lasts = Duration::from_millis(request.for_ms);
    let given = given(control, &request.reason, now);
    let (event, until_ms) = if lasts.is_zero() {
        (event::restart_withdrawn(&node, &request.reason), 0)
    } else {
        let until_ms = given.wall_ms.saturating_add(request.for_ms);
        (event::restart_announced(&node, lasts, &request.reason), until_ms)
    };
    match control.orders.announce_restart(control.leader.keys(), node, lasts, given) {
        None => answer(reply, Ok(AnnounceRestartResponse { until_ms })),
        Some(change) => {
            let told = Told { event, by_itself: false };
            orders::begin(control, change, told, Answer::Restart(reply, until_ms));
        }
    }
}

/// Forgets a node for good.
pub fn decommission(
    control: &mut Control,
    request: &DecommissionNodeRequest,
    reply: Reply<DecommissionNodeResponse>,
) {
    let node = match known(control, request.cluster_id, request.node_id) {
        Ok(node) => node,
        Err(error) => return answer(reply, Err(error)),
    };
    let regions = control.leader.nodes().get(&node).map_or(0, |entry| entry.regions.len());
    let coming = control.procedures.incoming(&node).saturating_add(control.failover.incoming(&node));
    let refusal = if !control.orders.cordoned(&node) {
        Some(format!("{node} is not cordoned: cordon it first, so that it gets no more regions"))
    } else if regions > 0 {
        Some(format!("{node} still has {regions} regions: drain it first"))
    } else if coming > 0 {
        Some(format!("{coming} regions are on their way to {node}: wait for them, then drain it"))
    } else if control.procedures.drains(&node) {
        Some(format!("a drain of {node} is still at work: wait for its end, or cancel it"))
    } else if control.mailbox.pushers().is_connected(&node) {
        Some(format!("{node} is connected: stop it first"))
    } else {
        None
    };
    if let Some(why) = refusal {
        return answer(reply, Err(ControlError::Refused(why)));
    }
    let Some(change) = control.orders.forget(control.leader.keys(), node) else {
        return answer(reply, Err(ControlError::Refused(format!("{node} is not cordoned"))));
    };
    let told = Told { event: event::node_decommissioned(&node, &request.reason), by_itself: false };
    orders::begin_to_forget(control, node, change, told, Answer::Decommission(reply));
}
