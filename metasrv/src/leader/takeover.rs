//! The way in: raise the term under the fence, then load what the store knows (design 03, rule 5).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use dashmap::DashMap;
use metasrv_core::id::{ClusterId, Epoch, Fence, Incarnation, NodeId, NodeKey, Term};
use metasrv_core::incarnation::Holder;
use metasrv_core::lease::LeadershipLease;
use metasrv_core::settlement::{TermEnd, TermNumbers, takeover_wait};
use metasrv_core::time::{BootTime, Clock};
use metasrv_core::timing::Timing;
use metasrv_proto::admin::{
    CandidateRecord, CounterRecord, InstallationRecord, NodeLeaseRecord, NodeRecord, RouteRecord, TermRecord,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::node::{Node, Region};
use super::regions::Sequence;
use super::{Leader, REGISTRAR_QUEUE, registrar};
use crate::clock::wall_clock_ms;
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::record::{self, RecordError};
use crate::store::fenced::{CommitError, FencedStore, Write};
use crate::store::{Change, Record, Store, StoreError};
use crate::write_behind::WriteBehind;

/// What a replica brings along to lead.
#[derive(Clone)]
pub struct Candidate {
    /// What it publishes of itself.
    pub record: CandidateRecord,
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// Under which names.
    pub keys: Keys,
    /// Where `now` comes from.
    pub clock: Arc<dyn Clock>,
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// The durations to lead by.
    pub timing: Timing,
}

/// Why a win did not lead to leading.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// The store could not be read.
    #[error("cannot read the state: {0}")]
    Read(#[from] StoreError),
    /// What is stored makes no sense. A leader that skipped it would tell a node to close a region that exists.
    #[error("cannot understand the state: {0}")]
    Record(#[from] RecordError),
    /// A key under our prefix does not follow the scheme.
    #[error("cannot understand the key {0:?}")]
    Key(String),
    /// The key that was won is gone.
    #[error("the election key is gone")]
    KeyGone,
    /// The first fenced transaction failed.
    #[error("cannot raise the term: {0}")]
    Raise(#[from] CommitError),
}

/// A raised term and the state of the store, ready to lead.
pub struct Prepared {
    candidate: Candidate,
    fence: Fence,
    lease: Arc<LeadershipLease>,
    fenced: FencedStore,
    own_term: OwnTerm,
    installation: u64,
    wait: Duration,
    sequence: Sequence,
    nodes: DashMap<NodeKey, Node>,
    lease_revisions: HashMap<String, i64>,
}

/// The record of our own term, and its revision.
#[derive(Clone, Debug)]
pub struct OwnTerm {
    /// As it was last written.
    pub record: TermRecord,
    /// Mod revision of that.
    pub revision: i64,
}

/// Raises the term and loads the state. Called once per win, after the read-back.
///
/// # Errors
/// Any [`TakeoverError`] means: do not lead, release the fence.
pub async fn take_over(
    candidate: Candidate,
    fence: Fence,
    lease: Arc<LeadershipLease>,
) -> Result<Prepared, TakeoverError> {
    let fenced = FencedStore::new(
        Arc::clone(&candidate.store),
        fence.clone(),
        Arc::clone(&lease),
        Arc::clone(&candidate.clock),
    );
    let (own_term, installation, wait) = raise_term(&candidate, &fence, &fenced).await?;
    let (sequence, nodes, lease_revisions) = load(&candidate).await?;
    Ok(Prepared {
        candidate,
        fence,
        lease,
        fenced,
        own_term,
        installation,
        wait,
        sequence,
        nodes,
        lease_revisions,
    })
}

async fn raise_term(
    candidate: &Candidate,
    fence: &Fence,
    fenced: &FencedStore,
) -> Result<(OwnTerm, u64, Duration), TakeoverError> {
    let Candidate { store, keys, timing, .. } = candidate;
    let own_key = store.get(&fence.key).await?.ok_or(TakeoverError::KeyGone)?;
    let counter = store.get(&keys.term_current()).await?;
    let records = store.list(&keys.term_records()).await?.records;
    let installed = store.get(&keys.installation()).await?;

    let numbers: Vec<TermNumbers> = records.iter().filter_map(term_numbers).collect();
    let counted = match &counter {
        Some(counter) => record::decode::<CounterRecord>(counter)?.value,
        None => 0,
    };
    let last = numbers.iter().map(|numbers| numbers.term).max().unwrap_or_default().max(Term(counted));
    let term = last.next();

    let term_record = TermRecord {
        term: term.0,
        election_ttl_ms: candidate.record.election_ttl_ms,
        region_lease_ms: candidate.record.region_lease_ms,
        name: candidate.record.name.clone(),
        addr: candidate.record.addr.clone(),
        resigned: false,
        settled_below: 0,
        began_at_ms: wall_clock_ms(),
    };
    let published = CandidateRecord { term: term.0, ..candidate.record.clone() };
    let mut writes = vec![
        put(
            keys.term_current(),
            record::encode(&CounterRecord { value: term.0 }),
            revision_of(counter.as_ref()),
        ),
        put(keys.term_record(term), record::encode(&term_record), 0),
        Write {
            change: Change::Update { key: fence.key.clone(), value: record::encode(&published) },
            expected_mod_revision: own_key.mod_revision,
        },
    ];
    let installation = match &installed {
        Some(installed) => record::decode::<InstallationRecord>(installed)?.installation,
        None => {
            // Zero means "not told yet" on the wire.
            let installation = rand::random::<u64>().max(1);
            let value = InstallationRecord { installation, created_at_ms: wall_clock_ms() };
            writes.push(put(keys.installation(), record::encode(&value), 0));
            installation
        }
    };
    let revision = fenced.commit(writes).await?;
    let wait = takeover_wait(&numbers, last, timing);
    Ok((OwnTerm { record: term_record, revision }, installation, wait))
}

fn put(key: String, value: Vec<u8>, expected_mod_revision: i64) -> Write {
    Write { change: Change::Put { key, value }, expected_mod_revision }
}

fn revision_of(record: Option<&Record>) -> i64 {
    record.map_or(0, |record| record.mod_revision)
}

/// The numbers of a stored term. One that cannot be read counts as missing, for which the longest wait stands.
fn term_numbers(stored: &Record) -> Option<TermNumbers> {
    match record::decode::<TermRecord>(stored) {
        Ok(record) => Some(TermNumbers {
            term: Term(record.term),
            election_ttl: Duration::from_millis(record.election_ttl_ms),
            region_lease: Duration::from_millis(record.region_lease_ms),
            end: if record.resigned { TermEnd::Resigned } else { TermEnd::Unknown },
            settled_below: Term(record.settled_below),
        }),
        Err(error) => {
            tracing::error!(%error, "the record of a term cannot be read; waiting as if it had not resigned");
            None
        }
    }
}

async fn load(
    candidate: &Candidate,
) -> Result<(Sequence, DashMap<NodeKey, Node>, HashMap<String, i64>), TakeoverError> {
    let Candidate { store, keys, .. } = candidate;
    let (node_prefix, lease_prefix, region_prefix) = (keys.nodes(), keys.leases(), keys.regions());
    let (nodes, leases, regions, sequence) = tokio::try_join!(
        store.list(&node_prefix),
        store.list(&lease_prefix),
        store.list(&region_prefix),
        async { store.get(&keys.region_sequence()).await },
    )?;

    let known: DashMap<NodeKey, Node> = DashMap::new();
    for stored in &nodes.records {
        let key = keys.parse_node(&stored.key).ok_or_else(|| TakeoverError::Key(stored.key.clone()))?;
        let record: NodeRecord = record::decode(stored)?;
        let process = Incarnation { epoch: record.node_epoch, nonce: record.incarnation_nonce };
        let mut node = known.entry(key).or_default();
        node.holder = Holder::recorded(process);
        node.process = Some(process);
        node.record_revision = stored.mod_revision;
        node.addr = record.addr;
    }
    let mut lease_revisions = HashMap::with_capacity(leases.records.len());
    for stored in &leases.records {
        let (Some(key), Ok(record)) =
            (keys.parse_lease(&stored.key), record::decode::<NodeLeaseRecord>(stored))
        else {
            tracing::error!(
                key = stored.key,
                "the lease of a node cannot be read; it is known again when it is heard of"
            );
            continue;
        };
        lease_revisions.insert(stored.key.clone(), stored.mod_revision);
        let mut node = known.entry(key).or_default();
        node.addr = record.addr;
        node.version = record.version;
        node.hostname = record.hostname;
        node.last_activity_ms = record.last_activity_ms;
        node.offered_term = Term(record.term);
        if node.process.is_none() {
            node.process = Some(Incarnation { epoch: record.node_epoch, nonce: 0 });
        }
    }
    for stored in &regions.records {
        let region = keys.parse_region(&stored.key).ok_or_else(|| TakeoverError::Key(stored.key.clone()))?;
        let route: RouteRecord = record::decode(stored)?;
        let key = NodeKey::datanode(ClusterId(route.cluster_id), NodeId(route.node_id));
        known.entry(key).or_default().regions.insert(
            region,
            Region {
                epoch: Epoch(route.epoch),
                revision: stored.mod_revision,
                term: Term(route.term),
                created_at_ms: route.created_at_ms,
                reason: route.reason,
                granted_at: None,
            },
        );
    }
    let sequence = match &sequence {
        Some(stored) => {
            Sequence { last: record::decode::<CounterRecord>(stored)?.value, revision: stored.mod_revision }
        }
        None => Sequence { last: 0, revision: 0 },
    };
    Ok((sequence, known, lease_revisions))
}

impl Prepared {
    /// The term.
    pub fn term(&self) -> Term {
        Term(self.own_term.record.term)
    }

    /// Begins to lead. `read_back` is the instant from which the waits for earlier terms count. The tasks belong to
    /// the caller; they end with the leader.
    pub fn lead(self, read_back: BootTime) -> (Arc<Leader>, JoinSet<()>) {
        let Prepared {
            candidate,
            fence,
            lease,
            fenced,
            own_term,
            installation,
            wait,
            sequence,
            nodes,
            lease_revisions,
        } = self;
        let mut tasks = JoinSet::new();
        let (write_behind, writing) = WriteBehind::new(
            fenced.clone(),
            lease_revisions,
            Arc::clone(&candidate.metrics),
            Arc::clone(&candidate.clock),
        );
        let (registrar, requests) = mpsc::channel(REGISTRAR_QUEUE);
        let term = Term(own_term.record.term);
        candidate.metrics.leader.set(1);
        candidate.metrics.term.set(i64::try_from(term.0).unwrap_or(i64::MAX));
        let leader = Arc::new(Leader {
            term,
            installation,
            timing: candidate.timing,
            fence,
            lease,
            clock: candidate.clock,
            metrics: candidate.metrics,
            keys: candidate.keys,
            fenced,
            write_behind,
            settled_at: read_back + wait,
            nodes,
            registrar,
            metadata: tokio::sync::Mutex::new(sequence),
            counter: super::outranked::Counter::new(own_term.revision),
            term_revision: tokio::sync::Mutex::new(own_term),
            closing: AtomicBool::new(false),
            ended: watch::channel(false).0,
            frontends: AtomicU64::new(0),
            heartbeats: AtomicU64::new(0),
        });
        let regions: usize = leader.nodes.iter().map(|node| node.regions.len()).sum();
        leader.metrics.regions.set(i64::try_from(regions).unwrap_or(i64::MAX));
        tracing::info!(
            %term, nodes = leader.nodes.len(), regions, settled_in = ?wait,
            "leading; leases are renewed at once, regions change hands when earlier terms are settled"
        );
        tasks.spawn(writing);
        tasks.spawn(registrar::run(Arc::clone(&leader), requests));
        tasks.spawn(settle(Arc::clone(&leader)));
        (leader, tasks)
    }
}

/// Records, once it is so, that nothing granted in earlier terms can still be valid, so that successors need not
/// wait for them again.
async fn settle(leader: Arc<Leader>) {
    loop {
        let left = leader.settled_at.since(leader.clock.now());
        if left.is_zero() {
            break;
        }
        tokio::select! {
            biased;
            () = leader.ended() => return,
            () = tokio::time::sleep(left) => {}
        }
    }
    // Whoever streamed to an earlier leader has had the time to come back.
    leader.forget_lost_frontends();
    let mut own = leader.term_revision.lock().await;
    let settled = TermRecord { settled_below: leader.term.0, ..own.record.clone() };
    let write = put(leader.keys.term_record(leader.term), record::encode(&settled), own.revision);
    match leader.commit(vec![write]).await {
        Ok(revision) => {
            *own = OwnTerm { record: settled, revision };
            tracing::info!(term = %leader.term, "settled: nothing granted in earlier terms is valid any more");
        }
        Err(error) => {
            tracing::warn!(term = %leader.term, %error, "could not record that earlier terms are settled")
        }
    }
}

impl Leader {
    /// Fence and term record, for the resignation.
    pub async fn last_will(&self) -> (Fence, TermRecord, i64) {
        let own = self.term_revision.lock().await;
        (self.fence.clone(), own.record.clone(), own.revision)
    }
}
