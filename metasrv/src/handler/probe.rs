//! Second: a probe ends here. It has proved that heartbeats are served, and nothing of it is kept.

use metasrv_core::id::{ClusterId, NodeId, NodeKey, Role};
use metasrv_proto::code;
use metasrv_proto::meta::HeartbeatRequest;

use super::{Context, HandleControl, HandlerError, HeartbeatAccumulator, HeartbeatHandler};
use crate::wire;

/// Ends the line for probes. One probe after another looks at another part of the leader's map of nodes: a part that
/// stays locked would hold up the heartbeats of its nodes, so the probe says that it stands still.
pub struct ProbeHandler;

impl HeartbeatHandler for ProbeHandler {
    fn name(&self) -> &'static str {
        "Probe"
    }

    fn is_acceptable(&self, role: Role) -> bool {
        role == Role::Frontend
    }

    fn handle(
        &self,
        request: &HeartbeatRequest,
        context: &Context,
        accumulator: &mut HeartbeatAccumulator,
    ) -> Result<HandleControl, HandlerError> {
        if !request.probe {
            return Ok(HandleControl::Continue);
        }
        let anybody = NodeKey::datanode(ClusterId(0), NodeId(request.sequence));
        if context.leader.as_ref().is_some_and(|leader| leader.nodes().try_get(&anybody).is_locked()) {
            let why = "a part of the map of nodes is locked at this moment".to_owned();
            accumulator.header.error = Some(wire::error(code::STANDS_STILL, why));
        }
        Ok(HandleControl::Done)
    }
}
