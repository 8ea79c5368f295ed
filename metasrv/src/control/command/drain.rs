//! A node is to be emptied: checked and cordoned here, planned and carried out by a procedure ([`crate::control::procedures`]).

use metasrv_core::time::BootTime;
use metasrv_proto::admin::{DrainNodeRequest, DrainNodeResponse};

use super::{answer, given, known};
use crate::control::procedures::{self, Beside};
use crate::control::{Control, ControlError, Reply, event, exclusion, failover};

/// Begins to drain a node, or says what that would do. The node is cordoned in the transaction that stores the drain: between
/// the two it could get new regions.
pub fn drain(
    control: &mut Control,
    request: &DrainNodeRequest,
    reply: Reply<DrainNodeResponse>,
    now: BootTime,
) {
    let beside = match check(control, request, now) {
        Ok(()) if request.dry_run => None,
        Ok(()) => cordon(control, request, now),
        Err(error) => return answer(reply, Err(error)),
    };
    procedures::drain(control, request, beside, reply);
}

/// Refused where no region could go anywhere: the node would be cordoned for nothing. A dry run says that of each region.
fn check(control: &Control, request: &DrainNodeRequest, now: BootTime) -> Result<(), ControlError> {
    let node = known(control, request.cluster_id, request.node_id)?;
    if request.dry_run {
        return Ok(());
    }
    if control.procedures.drains(&node) {
        return Err(ControlError::Refused(format!("{node} is being drained already")));
    }
    let is_empty = control.leader.nodes().get(&node).is_none_or(|entry| entry.regions.is_empty());
    let candidates = failover::candidates(control, node.cluster, now);
    let takes = candidates.iter().any(|candidate| candidate.exclusion(Some(node.id)).is_none());
    if !takes && !is_empty {
        let nobody = exclusion::nobody(&candidates, node.cluster, Some(node.id));
        return Err(ControlError::Refused(format!("{node} cannot be drained: {nobody}")));
    }
    Ok(())
}

/// What is stored beside the drain. `None`: the node is cordoned already.
fn cordon(control: &mut Control, request: &DrainNodeRequest, now: BootTime) -> Option<Beside> {
    let node = super::datanode(request.cluster_id, request.node_id);
    let given = given(control, &request.reason, now);
    let (write, change) = control.orders.cordon(control.leader.keys(), node, true, given)?;
    Some(Beside {
        write,
        event: event::node_cordoned(&node, &request.reason),
        committed: Box::new(move |control, revision| control.orders.committed(change, revision)),
    })
}
