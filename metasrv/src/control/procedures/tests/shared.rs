//! What datanodes and a test share, and what datanodes do by themselves: heartbeats, and carrying out what they are told.
//!
//! Each heartbeat checks: nothing is granted while the store says that the region's source is to stop and the route is the
//! old one; and no second node may write to a region. What is broken is noted, and told when a test is over.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metasrv_core::grant::Reported;
use metasrv_core::id::{Epoch, RegionId};
use metasrv_core::time::{BootTime, Clock};
use metasrv_proto::admin::procedure_record::Kind;
use metasrv_proto::admin::{MigrationRecord, ProcedureRecord, RouteRecord};
use metasrv_proto::meta::mailbox_message::Payload;
use metasrv_proto::meta::{HeartbeatResponse, MailboxMessage, RegionStat};
use tokio::sync::mpsc;

use super::datanode::Datanode;
use super::store::Faulty;
use super::{keys, millis, node};
use crate::leader::{Granted, Identity, Leader};
use crate::mailbox::HeartbeatMailbox;
use crate::record::decode;
use crate::store::Store;

/// Between two heartbeats of a node that nothing makes report at once.
pub(super) const HEARTBEAT: Duration = millis(500);

/// What the datanodes share with the test.
pub(super) struct Shared {
    pub(super) store: Arc<Faulty>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) leading: Mutex<(Arc<Leader>, Arc<HeartbeatMailbox>)>,
    pub(super) nodes: Mutex<BTreeMap<u64, Datanode>>,
    pub(super) broken: Mutex<Vec<String>>,
    /// Heartbeats that were answered while a region had no writer.
    pub(super) in_gap: Mutex<usize>,
    /// Most migrations that one node took part in.
    pub(super) most: Mutex<usize>,
    /// Most regions of one node that were without a writer.
    pub(super) most_gaps: Mutex<usize>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn leading(&self) -> (Arc<Leader>, Arc<HeartbeatMailbox>) {
        lock(&self.leading).clone()
    }

    pub(super) async fn procedures(&self) -> Vec<ProcedureRecord> {
        let page = self.store.list(&keys().procedures()).await.unwrap();
        page.records.iter().map(|stored| decode(stored).unwrap()).collect()
    }

    pub(super) async fn migrations(&self) -> Vec<MigrationRecord> {
        let of = |record: ProcedureRecord| match record.kind {
            Some(Kind::Migration(migration)) => Some(migration),
            _ => None,
        };
        self.procedures().await.into_iter().filter_map(of).collect()
    }

    pub(super) async fn route(&self, region: RegionId) -> (u64, u64) {
        let stored = self.store.get(&keys().region(region)).await.unwrap().unwrap();
        let route: RouteRecord = decode(&stored).unwrap();
        (route.node_id, route.epoch)
    }

    /// Regions whose source is to stop, by what is stored, and whose route is the old one.
    async fn without_writer(&self) -> Vec<RegionId> {
        let mut regions = Vec::new();
        for migration in self.migrations().await {
            let is_past = ["downgrading", "catching_up"].contains(&migration.state.as_str());
            let region = RegionId(migration.region_id);
            let before = (migration.from_node, migration.region_epoch);
            if (is_past || migration.owes_epoch) && self.route(region).await == before {
                regions.push(region);
            }
        }
        regions
    }

    async fn heartbeat(&self, id: u64) {
        let (leader, _) = self.leading();
        let said = |datanode: &Datanode| (datanode.process, datanode.stats());
        let Some((process, stats)) = lock(&self.nodes).get(&id).filter(|node| !node.is_silent).map(said)
        else {
            return;
        };
        let (key, now) = (node(id), self.clock.now());
        // One that waits for what its predecessor was granted is heard, and granted nothing.
        let identity = leader.identify(&key, process, "h:1", None, millis(1_000)).await;
        if matches!(identity, Identity::Stale(_)) {
            return;
        }
        leader.heard_of(&key, Some(process), "h:1", None, now, 1);
        leader.note_reports(&key, process, &stats, now);
        let held =
            |stat: &RegionStat| Reported { region: RegionId(stat.region_id), epoch: Epoch(stat.epoch) };
        let before = self.without_writer().await;
        let granted = leader.grant(&key, process, stats.iter().map(held).collect());
        let after = self.without_writer().await;
        let Some(granted) = granted else { return };
        let stay: Vec<RegionId> = before.into_iter().filter(|region| after.contains(region)).collect();
        *lock(&self.in_gap) += usize::from(!stay.is_empty());
        for granted in granted.renewed.iter().chain(&granted.to_open).filter(|one| stay.contains(&one.region))
        {
            lock(&self.broken).push(format!("node {id} was granted {granted:?} in the gap"));
        }
        self.apply(id, &granted, now);
        self.count_load().await;
    }

    fn apply(&self, id: u64, granted: &Granted, now: BootTime) {
        let mut nodes = lock(&self.nodes);
        if let Some(datanode) = nodes.get_mut(&id) {
            for Reported { region, epoch } in &granted.renewed {
                datanode.renewed(*region, *epoch, now + granted.lease);
            }
            datanode.regions.retain(|region, _| !granted.closeable.contains(region));
            granted.to_open.iter().for_each(|one| datanode.open(one.region, one.epoch));
        }
        for Reported { region, .. } in &granted.renewed {
            let writers = nodes.values().filter(|datanode| datanode.writes(*region, now)).count();
            if writers > 1 {
                lock(&self.broken).push(format!("{writers} nodes may write to region {region}"));
            }
        }
    }

    async fn count_load(&self) {
        let (mut load, mut gaps): (BTreeMap<u64, usize>, BTreeMap<u64, usize>) = Default::default();
        for migration in self.migrations().await {
            let in_gap = usize::from(migration.state == "downgrading");
            for node in [migration.from_node, migration.to_node] {
                *load.entry(node).or_default() += 1;
                *gaps.entry(node).or_default() += in_gap;
            }
        }
        for (most, of_nodes) in [(&self.most, load), (&self.most_gaps, gaps)] {
            let mut most = lock(most);
            *most = of_nodes.into_values().max().unwrap_or(0).max(*most);
        }
    }

    fn obey(&self, id: u64, response: HeartbeatResponse) -> bool {
        let Some(message) = response.mailbox_message else { return false };
        let Some(Payload::Instruction(instruction)) = message.payload else { return false };
        let now = self.clock.now();
        let reply = lock(&self.nodes).get_mut(&id).and_then(|node| node.obey(&instruction, now));
        let Some(reply) = reply else { return false };
        let payload = Some(Payload::InstructionReply(reply));
        let message = MailboxMessage { id: message.id, payload, ..MailboxMessage::default() };
        // Nobody waits for the reply to an opening, or after a change of leaders.
        let _ = self.leading().1.reply(&node(id), message);
        true
    }
}

/// One datanode's stream and its heartbeats.
pub(super) async fn live(
    shared: Arc<Shared>,
    id: u64,
    mut responses: mpsc::Receiver<Result<Box<HeartbeatResponse>, tonic::Status>>,
) {
    let mut due = tokio::time::interval(HEARTBEAT);
    loop {
        tokio::select! {
            biased;
            Some(Ok(response)) = responses.recv() => if shared.obey(id, *response) {
                shared.heartbeat(id).await;
            },
            _ = due.tick() => shared.heartbeat(id).await,
        }
    }
}
