//! What lists say of regions and nodes: what the leader knows, beside what the store has.

use std::collections::HashMap;
use std::time::Duration;

use metasrv_core::grant::Reported;
use metasrv_core::id::{NodeKey, RegionId, Role};
use metasrv_core::time::BootTime;
use metasrv_proto::admin::{self, NodeLeaseRecord, StatsRecord};
use tonic::Status;

use super::refusal;
use crate::control::{Command, NodeDuty, health_name};
use crate::keys::Keys;
use crate::leader::{Leader, Node, Region};
use crate::pusher::Pushers;
use crate::record;
use crate::store::{Record, Store, StoreError, each};

/// Items of one message of a list.
pub const CHUNK: usize = 1_000;

/// Stats of nodes that are held at a time: each may have half a mebibyte.
const STATS_AT_ONCE: usize = 32;

/// Deadline of the read of what is persisted of the nodes.
const READ_PATIENCE: Duration = Duration::from_secs(5);

/// Those of these regions of a node that are still there.
pub fn created(leader: &Leader, node: &NodeKey, created: &[Reported], now: BootTime) -> Vec<admin::Region> {
    let Some(entry) = leader.nodes().get(node) else { return Vec::new() };
    let listed = created.iter().filter_map(|created| {
        let region = entry.regions.get(&created.region)?;
        Some(describe(leader, node, &entry, created.region.0, region, now))
    });
    listed.collect()
}

/// Every node that the leader knows, in the order of role, cluster and id. What is called persisted is read from the
/// store, so that it says what a successor would find.
///
/// # Errors
/// `UNAVAILABLE` where the store does not answer, and what the control loop says where that does not.
pub async fn nodes(
    leader: &Leader,
    pushers: &Pushers,
    store: &dyn Store,
    keys: &Keys,
) -> Result<Vec<admin::Node>, Status> {
    let read = tokio::time::timeout(READ_PATIENCE, persisted(store, keys));
    let (stats, leases) = read
        .await
        .map_err(|_| Status::unavailable("what is persisted of the nodes could not be read in time"))?
        .map_err(|error| Status::unavailable(format!("what is persisted of the nodes: {error}")))?;
    let duties = leader.control().ask(Command::Duties).await.map_err(refusal::status)?;
    let listening = leader.listening();
    let now = leader.clock().now();
    let mut nodes: Vec<(NodeKey, admin::Node)> = leader
        .nodes()
        .iter()
        .map(|entry| {
            let key = *entry.key();
            let process = entry.process.unwrap_or_default();
            let duty = duties.get(&key);
            // Others than datanodes hold nothing that could be lost: nobody judges their silence.
            let is_judged = key.role == Role::Datanode;
            let node = admin::Node {
                node_id: key.id.0,
                cluster_id: key.cluster.0,
                role: key.role.name().to_owned(),
                addr: entry.addr.clone(),
                node_epoch: process.epoch,
                incarnation_nonce: process.nonce,
                connected: pushers.is_connected(&key),
                last_activity_ms: entry.last_activity_ms,
                regions: as_u64(entry.regions.len()),
                regions_writable: as_u64(writable(&entry, leader, now)),
                persisted_stats: as_u64(stats.get(&key).copied().unwrap_or(0)),
                version: entry.version.clone(),
                persisted_term: leases.get(&key).copied().unwrap_or(0),
                hostname: entry.hostname.clone(),
                zone: entry.zone.clone(),
                host: entry.host.clone(),
                weight: entry.capacity(),
                health: match is_judged {
                    true => health_name(&leader.health(&entry, &listening, now)).to_owned(),
                    false => String::new(),
                },
                duty: duty.map(NodeDuty::name).unwrap_or_default().to_owned(),
                restarting_ms: duty
                    .and_then(|duty| duty.restarting_until)
                    .map_or(0, |until| millis(until, now)),
            };
            (key, node)
        })
        .collect();
    nodes.sort_unstable_by_key(|(key, _)| *key);
    Ok(nodes.into_iter().map(|(_, node)| node).collect())
}

/// How many stats are persisted of each datanode, and under which term each node's lease.
async fn persisted(
    store: &dyn Store,
    keys: &Keys,
) -> Result<(HashMap<NodeKey, usize>, HashMap<NodeKey, u64>), StoreError> {
    let (mut stats, mut leases) = (HashMap::new(), HashMap::new());
    let see = |stored: &Record| {
        if let (Some(node), Ok(record)) =
            (keys.parse_stats(&stored.key), record::decode::<StatsRecord>(stored))
        {
            stats.insert(node, record.stats.len());
        }
    };
    each(store, &keys.all_stats(), STATS_AT_ONCE, see).await?;
    let see = |stored: &Record| {
        if let (Some(node), Ok(record)) =
            (keys.parse_lease(&stored.key), record::decode::<NodeLeaseRecord>(stored))
        {
            leases.insert(node, record.term);
        }
    };
    each(store, &keys.leases(), CHUNK, see).await?;
    Ok((stats, leases))
}

/// Regions of a node that are leased at this instant.
pub fn writable(node: &Node, leader: &Leader, now: BootTime) -> usize {
    node.regions.keys().filter(|region| leader.is_writable(node, **region, now)).count()
}

/// Milliseconds that are left until then, at least one.
fn millis(until: BootTime, now: BootTime) -> u64 {
    u64::try_from(until.since(now).as_millis()).unwrap_or(u64::MAX).max(1)
}

/// A count on the wire.
pub fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// What is said of a region.
pub fn describe(
    leader: &Leader,
    key: &NodeKey,
    node: &Node,
    id: u64,
    region: &Region,
    now: BootTime,
) -> admin::Region {
    let writable = leader.is_writable(node, RegionId(id), now);
    let state = match (writable, node.regions.granted_at(&RegionId(id)), node.openings.were_told()) {
        (true, ..) => "leased",
        (false, Some(_), _) => "expired",
        (false, None, true) => "opening",
        (false, None, false) => "unreported",
    };
    admin::Region {
        region_id: id,
        cluster_id: key.cluster.0,
        node_id: key.id.0,
        node_addr: node.addr.clone(),
        epoch: region.epoch.0,
        writable,
        state: state.to_owned(),
        created_at_ms: region.created_at_ms,
        reason: region.about.reason.clone(),
        group: region.group().map(|group| (**group).to_owned()).unwrap_or_default(),
    }
}

/// Cuts a list into messages; a list without items is one message without items.
pub fn chunks<I: Clone, M: Send + 'static, F: Fn(Vec<I>) -> M>(
    items: &[I],
    message: F,
) -> impl futures_util::Stream<Item = Result<M, Status>> + Send + use<I, M, F> {
    let cut: Vec<M> = match items.is_empty() {
        true => vec![message(Vec::new())],
        false => items.chunks(CHUNK).map(<[I]>::to_vec).map(message).collect(),
    };
    futures_util::stream::iter(cut.into_iter().map(Ok))
}
