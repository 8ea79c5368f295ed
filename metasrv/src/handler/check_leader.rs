//! First: a replica that does not lead says so, and who does.

use metasrv_core::id::{Role, Term};
use metasrv_proto::code;
use metasrv_proto::meta::HeartbeatRequest;

use super::{Context, HandleControl, HandlerError, HeartbeatAccumulator, HeartbeatHandler};
use crate::wire;

/// Ends the line with error `not leader` in the header unless this replica leads at this very moment.
/// In embedded mode the one replica always leads.
pub struct CheckLeaderHandler;

impl HeartbeatHandler for CheckLeaderHandler {
    fn name(&self) -> &'static str {
        "CheckLeader"
    }

    fn is_acceptable(&self, _: Role) -> bool {
        true
    }

    fn handle(
        &self,
        _: &HeartbeatRequest,
        context: &Context,
        accumulator: &mut HeartbeatAccumulator,
    ) -> Result<HandleControl, HandlerError> {
        if context.leader.as_ref().is_some_and(|leader| leader.leads(context.clock.now())) {
            return Ok(HandleControl::Continue);
        }
        let known = context.known_leader.as_ref();
        let installation = accumulator.header.installation;
        accumulator.header =
            wire::response_header(&context.node, known.map_or(Term(0), |known| known.term), installation);
        accumulator.header.leader = known.map(|known| wire::peer(&known.addr));
        accumulator.header.error = Some(wire::error(
            code::NOT_LEADER,
            match known {
                Some(known) => format!("this replica does not lead; {} at {} does", known.name, known.addr),
                None => "this replica does not lead, and knows of no leader".to_owned(),
            },
        ));
        Ok(HandleControl::Done)
    }
}
