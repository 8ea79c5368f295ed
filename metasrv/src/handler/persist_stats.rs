//! Last: the stats reach the store, in batches.

use metasrv_core::id::Role;
use metasrv_proto::meta::HeartbeatRequest;

use super::{Context, HandleControl, HandlerError, HeartbeatAccumulator, HeartbeatHandler};

/// Appends the stat to its node's epoch cache; at the threshold, or when a newer process shows itself, all that is
/// cached for the node goes to the write-behind in one batch.
pub struct PersistStatsHandler;

impl HeartbeatHandler for PersistStatsHandler {
    fn name(&self) -> &'static str {
        "PersistStats"
    }

    fn is_acceptable(&self, role: Role) -> bool {
        role == Role::Datanode
    }

    fn handle(
        &self,
        _: &HeartbeatRequest,
        context: &Context,
        accumulator: &mut HeartbeatAccumulator,
    ) -> Result<HandleControl, HandlerError> {
        let (Some(leader), Some(process)) = (&context.leader, context.process) else {
            return Ok(HandleControl::Continue);
        };
        if let Some(stat) = accumulator.stat.take() {
            leader.persist_stat(&context.node, process, stat);
        }
        Ok(HandleControl::Continue)
    }
}
