//! Many nodes in one process, each with a connection and a stream of its own, keeping count of their leases as a
//! datanode does: every region's lease counts from the send time of the heartbeat that renewed it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use metasrv_core::time::BootTime;
use metasrv_core::timing::usable_lease;
use metasrv_proto::meta::heartbeat_client::HeartbeatClient;
use metasrv_proto::meta::{AskLeaderRequest, RequestHeader};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::node::{Answer, FakeNode, Identity};
use crate::replica::channel;
use crate::wait::{eventually, now};

/// Time between two attempts of a node to find the leader.
const RETRY: Duration = Duration::from_millis(50);

/// A takeover after the default TTL, ten thousand openings, and room for a loaded machine.
const LEASED: Duration = Duration::from_secs(60);

/// Deadline of one question for the leader.
const ASK: Duration = Duration::from_secs(1);

/// What is known of one node of the fleet.
#[derive(Clone, Debug, Default)]
pub struct NodeRecord {
    /// Until when each of its regions is writable, by its own count.
    pub leases: BTreeMap<u64, BootTime>,
    /// Term of the leader that accepted its last heartbeat.
    pub term: u64,
    /// Heartbeats accepted: answered with a lease.
    pub heartbeats: u64,
    /// When the last one was.
    pub accepted_at: Option<BootTime>,
    /// The longest time between two accepted ones, since the last [`Fleet::reset`].
    pub longest_gap: Duration,
    /// Leases that ran out before they were renewed, since the last [`Fleet::reset`].
    pub missed_leases: u64,
    /// Streams opened.
    pub streams: u64,
    /// Why the last stream ended.
    pub last_error: String,
}

impl NodeRecord {
    fn accept(&mut self, answer: &Answer, arrived: BootTime) {
        let Some(lease) = &answer.response.region_lease else { return };
        let until = answer.sent_at + usable_lease(Duration::from_millis(lease.lease_ms));
        for region in &lease.regions {
            let before = self.leases.insert(region.region_id, until);
            if before.is_some_and(|before| before < arrived) {
                self.missed_leases += 1;
            }
        }
        if let Some(before) = self.accepted_at {
            self.longest_gap = self.longest_gap.max(arrived.since(before));
        }
        self.heartbeats += 1;
        self.accepted_at = Some(arrived);
        if let Some(header) = &answer.response.header {
            self.term = header.term;
        }
    }
}

/// The nodes. They stop when this is dropped.
pub struct Fleet {
    records: Vec<Arc<Mutex<NodeRecord>>>,
    tasks: JoinSet<()>,
}

fn locked(record: &Mutex<NodeRecord>) -> MutexGuard<'_, NodeRecord> {
    record.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Fleet {
    /// Starts nodes with these ids against these replicas. Their first heartbeats are spread over one interval.
    pub fn start(ids: std::ops::RangeInclusive<u64>, addrs: &[String], interval: Duration) -> Fleet {
        // Asking for the leader is shared; streams are not: a fleet of real nodes has a connection each.
        let peers: Arc<[Channel]> = addrs.iter().map(|addr| channel(addr)).collect();
        let count = u32::try_from(ids.clone().count()).unwrap_or(u32::MAX).max(1);
        let mut fleet = Fleet { records: Vec::new(), tasks: JoinSet::new() };
        for (index, id) in (0u32..).zip(ids) {
            let record = Arc::new(Mutex::new(NodeRecord::default()));
            fleet.records.push(Arc::clone(&record));
            let phase = interval * index / count;
            fleet.tasks.spawn(live(id, Arc::clone(&peers), interval, phase, record));
        }
        fleet
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// What is known of each node now.
    pub fn records(&self) -> Vec<NodeRecord> {
        self.records.iter().map(|record| locked(record).clone()).collect()
    }

    /// Nodes whose regions, so many each, are all leased now and were renewed under this term or a later one.
    pub fn leased(&self, regions: usize, term: u64) -> usize {
        let now = now();
        self.count(|record| {
            record.term >= term
                && record.leases.len() == regions
                && record.leases.values().all(|until| now < *until)
        })
    }

    /// Waits until every node is leased so many regions under this term or a later one.
    pub async fn wait_leased(&self, regions: usize, term: u64) {
        let all = self.len();
        let what = format!("{all} nodes are leased {regions} regions each under term {term} or a later one");
        eventually(LEASED, &what, async || match self.leased(regions, term) {
            leased if leased == all => Ok(()),
            leased => {
                let mut errors = self.records.iter().map(|record| locked(record).last_error.clone());
                let error = errors.find(|error| !error.is_empty()).unwrap_or_default();
                Err(format!("{leased} are; one of them said {error:?} last"))
            }
        })
        .await;
    }

    /// Nodes that had a heartbeat accepted under this term or a later one.
    pub fn accepted(&self, term: u64) -> usize {
        self.count(|record| record.term >= term && record.accepted_at.is_some())
    }

    fn count(&self, condition: impl Fn(&NodeRecord) -> bool) -> usize {
        self.records.iter().filter(|record| condition(&locked(record))).count()
    }

    /// Forgets gaps and missed leases seen so far; the gap that is open now counts from its beginning.
    pub fn reset(&self) {
        for record in &self.records {
            let mut record = locked(record);
            record.longest_gap = Duration::ZERO;
            record.missed_leases = 0;
        }
    }

    /// The longest gap between accepted heartbeats of any node since the last reset, with those still open.
    pub fn longest_gap(&self) -> Duration {
        let now = now();
        let gap = |record: &NodeRecord| {
            record.longest_gap.max(record.accepted_at.map_or(Duration::ZERO, |at| now.since(at)))
        };
        self.records.iter().map(|record| gap(&locked(record))).max().unwrap_or_default()
    }

    /// Leases that ran out before they were renewed since the last reset, with those that are run out now.
    pub fn missed_leases(&self) -> u64 {
        let now = now();
        let missed = |record: &NodeRecord| {
            let open = record.leases.values().filter(|until| **until <= now).count();
            record.missed_leases + u64::try_from(open).unwrap_or(u64::MAX)
        };
        self.records.iter().map(|record| missed(&locked(record))).sum()
    }

    /// Heartbeats accepted so far.
    pub fn heartbeats(&self) -> u64 {
        self.records.iter().map(|record| locked(record).heartbeats).sum()
    }

    /// Streams opened so far.
    pub fn streams(&self) -> u64 {
        self.records.iter().map(|record| locked(record).streams).sum()
    }
}

/// One node: find the leader, stream to it until the stream ends, again.
async fn live(
    id: u64,
    peers: Arc<[Channel]>,
    interval: Duration,
    phase: Duration,
    record: Arc<Mutex<NodeRecord>>,
) {
    tokio::time::sleep(phase).await;
    let mut node = FakeNode::new(Identity::datanode(id));
    let mut rhythm = metasrv_client::Rhythm::new(interval);
    loop {
        if let Some(addr) = find_leader(id, &peers).await {
            let ended = stream(&mut node, &addr, &mut rhythm, &record).await;
            locked(&record).last_error = format!("{addr}: {ended}");
            node.disconnect();
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Asks all replicas at once; of those that name a leader, the one with the highest term is believed.
async fn find_leader(id: u64, peers: &[Channel]) -> Option<String> {
    let questions = peers.iter().map(|peer| {
        let header = RequestHeader { protocol_version: 1, member_id: id, ..RequestHeader::default() };
        let mut client = HeartbeatClient::new(peer.clone());
        async move {
            let question = client.ask_leader(AskLeaderRequest { header: Some(header), failed_term: 0 });
            let answer = tokio::time::timeout(ASK, question).await.ok()?.ok()?.into_inner();
            Some((answer.header.map_or(0, |header| header.term), answer.leader?.addr))
        }
    });
    let answers = futures_util::future::join_all(questions).await;
    answers.into_iter().flatten().max_by_key(|(term, _)| *term).map(|(_, addr)| addr)
}

/// Heartbeats at the interval until the stream ends; says why it did.
async fn stream(
    node: &mut FakeNode,
    addr: &str,
    rhythm: &mut metasrv_client::Rhythm,
    record: &Mutex<NodeRecord>,
) -> String {
    locked(record).streams += 1;
    let mut reported = node.regions.len();
    let mut answer = node.connect(addr).await;
    // The connection's first heartbeat was at once. The others come at the node's own moments, as a datanode's do: all
    // nodes connect in the same moment to a new leader.
    rhythm.beat();
    loop {
        match &answer {
            Err(status) => return status.to_string(),
            Ok(answer) if answer.error_code() != 0 => return format!("error {}", answer.error_code()),
            Ok(answer) => locked(record).accept(answer, now()),
        }
        // A change of the open regions is reported at once, as a datanode does.
        while node.regions.len() == reported {
            tokio::select! {
                biased;
                // What the server says of itself between heartbeats: instructions, and the end of the stream.
                pushed = node.pushed() => match pushed {
                    Ok(None) => return "the stream ended without error".to_owned(),
                    Ok(Some(response)) if crate::node::error_code(&response) != 0 => {
                        return format!("error {}", crate::node::error_code(&response));
                    }
                    Ok(Some(_)) => {}
                    // A quiet interval longer than a peer's patience is none here.
                    Err(status) if status.code() == tonic::Code::DeadlineExceeded => {}
                    Err(status) => return status.to_string(),
                },
                () = rhythm.due() => {
                    rhythm.beat();
                    break;
                }
            }
        }
        reported = node.regions.len();
        answer = node.beat().await;
    }
}
