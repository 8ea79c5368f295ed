//! A node was heard of: when, and where it is.

use metasrv_core::id::Role;
use metasrv_proto::meta::HeartbeatRequest;

use super::{Context, HandleControl, HandlerError, HeartbeatAccumulator, HeartbeatHandler};

/// Keeps (cluster, node) -> last activity and address, and has it persisted so that a new leader knows every node:
/// at once where the node is new, moved or restarted, else once per region lease. Never one store write per heartbeat:
/// the write-behind keeps only the latest value of each node.
pub struct KeepLeaseHandler;

impl HeartbeatHandler for KeepLeaseHandler {
    fn name(&self) -> &'static str {
        "KeepLease"
    }

    fn is_acceptable(&self, _: Role) -> bool {
        true
    }

    fn handle(
        &self,
        request: &HeartbeatRequest,
        context: &Context,
        _: &mut HeartbeatAccumulator,
    ) -> Result<HandleControl, HandlerError> {
        // A bare handshake or a reply names no address; the stats request that follows does.
        let (Some(leader), Some(peer)) = (&context.leader, &request.peer) else {
            return Ok(HandleControl::Continue);
        };
        leader.heard_of(
            &context.node,
            context.process,
            &peer.addr,
            request.info.as_ref(),
            context.now,
            context.wall_ms,
        );
        Ok(HandleControl::Continue)
    }
}
