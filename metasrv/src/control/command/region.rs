//! One region is dropped: its route goes, and what is in the storage stays.

use std::sync::Arc;

use metasrv_core::id::{Epoch, NodeKey, RegionId};
use metasrv_proto::admin::{DropRegionRequest, DropRegionResponse};

use super::{answer, not_done};
use crate::control::{Control, ControlError, Done, Reply, event};

/// Takes a region's route away.
pub fn drop(control: &mut Control, request: &DropRegionRequest, reply: Reply<DropRegionResponse>) {
    let region = RegionId(request.region_id);
    let (node, epoch) = match free_route(control, region) {
        Ok(found) => found,
        Err(error) => return answer(reply, Err(error)),
    };
    let event = event::region_dropped(&node, region, epoch, &request.reason);
    let leader = Arc::clone(&control.leader);
    control.work.spawn(async move {
        let dropped = leader.drop_region(&node, region, epoch, vec![event]).await;
        answer(reply, dropped.map(|()| DropRegionResponse { epoch: epoch.0 }).map_err(not_done));
        Done::Nothing
    });
}

/// Where a region is that nothing is at work on.
fn free_route(control: &Control, region: RegionId) -> Result<(NodeKey, Epoch), ControlError> {
    let Some(route) = control.leader.route_of(region) else {
        return Err(ControlError::NotFound(format!("there is no region {region}")));
    };
    if let Some(id) = control.procedures.busy(region) {
        let why = format!("procedure {id} is at work on region {region}: wait for its end, or cancel it");
        return Err(ControlError::Refused(why));
    }
    if control.failover.is_in_flight(region) {
        let why = format!("region {region} is being given to another node, because its node is lost");
        return Err(ControlError::Refused(why));
    }
    Ok(route)
}
