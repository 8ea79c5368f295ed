//! The heart of it: which regions this datanode may write to until its lease ends.

use std::sync::Arc;

use metasrv_core::grant::Reported;
use metasrv_core::id::{Epoch, RegionId, Role};
use metasrv_proto::meta::{GrantedRegion, HeartbeatRequest, RegionLease, RegionRole, mailbox_message};

use super::{Context, HandleControl, HandlerError, HeartbeatAccumulator, HeartbeatHandler};
use crate::leader::Granted;
use crate::mailbox::HeartbeatMailbox;
use crate::wire;

/// Renews the lease of each region that the routes give to this node and that it holds, and names the regions that
/// no route gives it. What the routes give it and it does not hold goes into an instruction with the same response.
pub struct RegionLeaseHandler {
    mailbox: Arc<HeartbeatMailbox>,
}

impl RegionLeaseHandler {
    /// With this mailbox, which numbers the instructions.
    pub fn new(mailbox: Arc<HeartbeatMailbox>) -> RegionLeaseHandler {
        RegionLeaseHandler { mailbox }
    }
}

impl HeartbeatHandler for RegionLeaseHandler {
    fn name(&self) -> &'static str {
        "RegionLease"
    }

    fn is_acceptable(&self, role: Role) -> bool {
        role == Role::Datanode
    }

    fn handle(
        &self,
        request: &HeartbeatRequest,
        context: &Context,
        accumulator: &mut HeartbeatAccumulator,
    ) -> Result<HandleControl, HandlerError> {
        let (Some(leader), Some(process)) = (&context.leader, context.process) else {
            return Ok(HandleControl::Continue);
        };
        // Without a list of regions there is nothing to compare the routes with.
        if request.mailbox_message.is_some() || request.peer.is_none() {
            return Ok(HandleControl::Continue);
        }
        leader.note_reports(&context.node, process, &request.region_stats, context.now);
        let reported = request
            .region_stats
            .iter()
            .map(|stat| Reported { region: RegionId(stat.region_id), epoch: Epoch(stat.epoch) })
            .collect();
        let Some(Granted { renewed, closeable, to_open, lease }) =
            leader.grant(&context.node, process, reported)
        else {
            return Ok(HandleControl::Continue);
        };
        context.metrics.region_grants.inc_by(u64::try_from(renewed.len()).unwrap_or(0));
        context.metrics.regions_closeable.inc_by(u64::try_from(closeable.len()).unwrap_or(0));
        accumulator.region_lease = Some(RegionLease {
            regions: renewed
                .iter()
                .map(|region| GrantedRegion {
                    region_id: region.region.0,
                    role: RegionRole::Leader.into(),
                    epoch: region.epoch.0,
                    ..GrantedRegion::default()
                })
                .collect(),
            duration_since_epoch: request.duration_since_epoch,
            lease_seconds: lease.as_secs(),
            lease_ms: u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
            closeable_region_ids: closeable.iter().map(|region| region.0).collect(),
        });
        // A peer that knows nothing of our extensions would not understand the instruction.
        if !to_open.is_empty() && process.nonce != 0 {
            let payload = mailbox_message::Payload::Instruction(wire::open_regions(leader.term(), &to_open));
            accumulator.mailbox_message = Some(self.mailbox.message(&context.node, "open regions", payload));
            context.metrics.instructions.with_label_values(&["open_regions", "sent"]).inc();
        }
        Ok(HandleControl::Continue)
    }
}
