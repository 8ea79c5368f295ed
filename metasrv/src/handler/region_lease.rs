//! The heart of it: which regions this datanode may write to until its lease ends.

use std::sync::Arc;
use std::time::Duration;

use metasrv_core::grant::Reported;
use metasrv_core::id::{Epoch, RegionId, Role};
use metasrv_proto::admin::RenewedSet;
use metasrv_proto::meta::{GrantedRegion, HeartbeatRequest, RegionLease, RegionRole, mailbox_message};

use super::{Context, HandleControl, HandlerError, HeartbeatAccumulator, HeartbeatHandler};
use crate::leader::{Granted, GrantedSet, Leader};
use crate::mailbox::HeartbeatMailbox;
use crate::wire;

/// Renews the lease of each region that the routes give to this node and that it holds, and names the regions that
/// no route gives it. What the routes give it and it does not hold goes into an instruction with the same response.
/// A node that states a digest of its regions is answered for all of them at once.
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
        if let Some(set) = &request.region_set {
            match leader.grant_set(&context.node, process, set, &request.region_stats, context.now) {
                GrantedSet::Misstated => tracing::warn!(
                    node = %context.node, count = set.count, listed = request.region_stats.len(),
                    "the node states another digest than that of the regions that it lists: each is renewed by itself"
                ),
                granted => {
                    self.answer_set(granted, leader, request, context, accumulator);
                    return Ok(HandleControl::Continue);
                }
            }
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
            closeable_region_ids: ids(&closeable),
            ..length(request, lease)
        });
        // A peer that knows nothing of our extensions would not understand the instruction.
        if process.nonce != 0 {
            self.have_opened(&to_open, leader, context, accumulator);
        }
        Ok(HandleControl::Continue)
    }
}

impl RegionLeaseHandler {
    /// The answer to a request that states the digest of all regions: the same few bytes, however many they are.
    fn answer_set(
        &self,
        granted: GrantedSet,
        leader: &Leader,
        request: &HeartbeatRequest,
        context: &Context,
        accumulator: &mut HeartbeatAccumulator,
    ) {
        let (count, except, revision, closeable, to_open, lease) = match granted {
            GrantedSet::Nothing | GrantedSet::Misstated => return,
            GrantedSet::ListWanted => {
                context.metrics.region_lists_wanted.inc();
                accumulator.list_regions = true;
                return;
            }
            GrantedSet::Renewed { count, except, revision, closeable, to_open, lease } => {
                (count, except, revision, closeable, to_open, lease)
            }
        };
        let set = request.region_set.as_ref().map(|set| (set.digest, set.count, set.version));
        let (digest, stated, version) = set.unwrap_or_default();
        context.metrics.region_grants.inc_by(u64::try_from(count).unwrap_or(0));
        context.metrics.regions_closeable.inc_by(u64::try_from(closeable.len()).unwrap_or(0));
        accumulator.region_lease = Some(RegionLease {
            closeable_region_ids: ids(&closeable),
            renewed_set: Some(RenewedSet {
                digest,
                count: stated,
                version,
                revision,
                except_region_ids: ids(&except),
            }),
            ..length(request, lease)
        });
        self.have_opened(&to_open, leader, context, accumulator);
    }

    fn have_opened(
        &self,
        to_open: &[Reported],
        leader: &Leader,
        context: &Context,
        accumulator: &mut HeartbeatAccumulator,
    ) {
        if to_open.is_empty() {
            return;
        }
        let payload = mailbox_message::Payload::Instruction(wire::open_regions(leader.term(), to_open));
        accumulator.mailbox_message = Some(self.mailbox.message(&context.node, "open regions", payload));
        context.metrics.instructions.with_label_values(&["open_regions", "sent"]).inc();
    }
}

/// A lease of this length that grants nothing yet.
fn length(request: &HeartbeatRequest, lease: Duration) -> RegionLease {
    RegionLease {
        duration_since_epoch: request.duration_since_epoch,
        lease_seconds: lease.as_secs(),
        lease_ms: u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
        ..RegionLease::default()
    }
}

fn ids(regions: &[RegionId]) -> Vec<u64> {
    regions.iter().map(|region| region.0).collect()
}
