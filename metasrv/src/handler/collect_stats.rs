//! What a datanode reports of its regions.

use metasrv_core::id::{Epoch, RegionId, Role};
use metasrv_core::stats::{NodeStat, RegionStat};
use metasrv_proto::meta::HeartbeatRequest;

use super::{Context, HandleControl, HandlerError, HeartbeatAccumulator, HeartbeatHandler};

/// Regions of one heartbeat that are kept though it does not end a batch.
const MOST_CHANGED: usize = 64;

/// Turns the request's region stats into a [`NodeStat`]. Datanodes only; a request that carries a mailbox message
/// carries no stat and is skipped; a stat that makes no sense is warned about and left out, which is not fatal.
/// Where the request states a digest of all regions, it says the sums itself, and its stats are those that have changed.
pub struct CollectStatsHandler;

impl HeartbeatHandler for CollectStatsHandler {
    fn name(&self) -> &'static str {
        "CollectStats"
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
        if request.mailbox_message.is_some() || request.peer.is_none() {
            return Ok(HandleControl::Continue);
        }
        let mut stat = NodeStat { timestamp_ms: context.wall_ms, ..NodeStat::default() };
        if let Some(set) = request.region_set.as_ref().filter(|set| !set.complete) {
            (stat.rcus, stat.wcus, stat.approximate_bytes) = (set.rcus, set.wcus, set.approximate_bytes);
            stat.omitted = usize::try_from(set.count).unwrap_or(usize::MAX);
            stat.omitted = stat.omitted.saturating_sub(request.region_stats.len());
            // Those that have changed are few.
            stat.is_partial = request.region_stats.len() <= MOST_CHANGED;
        }
        let has_sums = request.region_set.as_ref().is_some_and(|set| !set.complete);
        // Of nine heartbeats in ten only the sums are wanted.
        let keeps_regions = match (&context.leader, context.process) {
            (Some(leader), Some(process)) => leader.keeps_regions(&context.node, process),
            _ => true,
        } || stat.is_partial;
        if keeps_regions {
            stat.regions.reserve_exact(request.region_stats.len());
        }
        for region in &request.region_stats {
            if region.region_id == 0 || region.rcus < 0 || region.wcus < 0 || region.approximate_bytes < 0 {
                tracing::warn!(
                    node = %context.node,
                    region = region.region_id,
                    rcus = region.rcus,
                    wcus = region.wcus,
                    approximate_bytes = region.approximate_bytes,
                    "a bad region stat is left out: its id is zero or a figure is negative"
                );
                continue;
            }
            if !has_sums {
                stat.rcus = stat.rcus.saturating_add(region.rcus);
                stat.wcus = stat.wcus.saturating_add(region.wcus);
                stat.approximate_bytes = stat.approximate_bytes.saturating_add(region.approximate_bytes);
            }
            if !keeps_regions {
                stat.omitted = stat.omitted.saturating_add(1);
                continue;
            }
            stat.regions.push(RegionStat {
                region: RegionId(region.region_id),
                epoch: Epoch(region.epoch),
                rcus: region.rcus,
                wcus: region.wcus,
                approximate_bytes: region.approximate_bytes,
                engine: region.engine.clone(),
                role: u32::try_from(region.role).unwrap_or(0),
            });
        }
        accumulator.stat = Some(stat);
        Ok(HandleControl::Continue)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::SystemClock;
    use crate::metrics::Metrics;
    use metasrv_core::id::{ClusterId, NodeId, NodeKey};
    use metasrv_core::time::BootTime;
    use metasrv_proto::meta::{MailboxMessage, Peer, RegionStat as Sent};

    fn collected(request: &HeartbeatRequest) -> Option<NodeStat> {
        let context = Context {
            node: NodeKey::datanode(ClusterId(0), NodeId(1)),
            process: None,
            leader: None,
            known_leader: None,
            clock: Arc::new(SystemClock),
            now: BootTime::ZERO,
            wall_ms: 77,
            metrics: Arc::new(Metrics::new()),
        };
        let mut accumulator = HeartbeatAccumulator::default();
        let control = CollectStatsHandler.handle(request, &context, &mut accumulator);
        assert_eq!(control.unwrap(), HandleControl::Continue);
        accumulator.stat
    }

    fn request(region_stats: Vec<Sent>) -> HeartbeatRequest {
        let peer = Some(Peer { id: 1, addr: "127.0.0.1:4001".to_owned() });
        HeartbeatRequest { peer, region_stats, ..HeartbeatRequest::default() }
    }

    fn sent(region_id: u64, rcus: i64, wcus: i64, approximate_bytes: i64) -> Sent {
        Sent { region_id, rcus, wcus, approximate_bytes, ..Sent::default() }
    }

    #[test]
    fn a_bad_stat_is_left_out_and_not_fatal() {
        let stats = vec![
            sent(0, 1, 1, 1),
            sent(5, -1, 1, 1),
            sent(6, 1, 1, -1),
            sent(7, 1, 2, 3),
            sent(8, i64::MAX, 0, 0),
        ];
        let stat = collected(&request(stats)).expect("the good ones are kept");
        assert_eq!(stat.regions.iter().map(|region| region.region.0).collect::<Vec<_>>(), [7, 8]);
        assert_eq!((stat.rcus, stat.wcus, stat.approximate_bytes, stat.timestamp_ms), (i64::MAX, 2, 3, 77));
    }

    #[test]
    fn a_reply_and_a_bare_handshake_carry_no_stat_and_only_datanodes_are_asked() {
        let reply = HeartbeatRequest {
            mailbox_message: Some(MailboxMessage::default()),
            ..request(vec![sent(7, 1, 1, 1)])
        };
        assert_eq!(collected(&reply), None);
        assert_eq!(collected(&HeartbeatRequest::default()), None);
        assert_eq!(
            collected(&request(vec![])).map(|stat| stat.regions.len()),
            Some(0),
            "a node without regions reports"
        );
        let asked = [Role::Datanode, Role::Frontend, Role::Flownode]
            .map(|role| CollectStatsHandler.is_acceptable(role));
        assert_eq!(asked, [true, false, false]);
    }
}
