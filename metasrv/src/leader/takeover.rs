//! The way in: begin a term under the fence, then load what the store knows (design 03, rule 5).

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex};

use metasrv_core::detector::Listening;
use metasrv_core::id::{Fence, Term};
use metasrv_core::lease::LeadershipLease;
use metasrv_core::time::{BootTime, Clock};
use metasrv_core::timing::Timing;
use metasrv_proto::admin::CandidateRecord;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::inheritance::{Inheritance, load};
use super::term::{self, Begun, Ground};
use super::{Leader, REGISTRAR_QUEUE, registrar};
use crate::control::procedures::Procedures;
use crate::control::{self, ControlHandle};
use crate::keys::Keys;
use crate::mailbox::HeartbeatMailbox;
use crate::metrics::Metrics;
use crate::mirror::Mirror;
use crate::record::RecordError;
use crate::store::fenced::{CommitError, FencedStore};
use crate::store::{Store, StoreError};
use crate::terms::TermsError;
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
    /// What it holds of the state already; none in embedded mode.
    pub mirror: Option<Mirror>,
    /// The way to the nodes.
    pub mailbox: Arc<HeartbeatMailbox>,
}

#[cfg(test)]
impl Candidate {
    /// One that has nothing of the state yet and reaches no node, with virtual time.
    pub fn fresh(record: CandidateRecord, store: Arc<dyn Store>, keys: Keys) -> Candidate {
        Candidate {
            record,
            store,
            keys,
            clock: Arc::new(crate::clock::Virtual(tokio::time::Instant::now())),
            metrics: Arc::new(Metrics::new()),
            timing: Timing::default(),
            mirror: None,
            mailbox: Arc::new(HeartbeatMailbox::new(Arc::default())),
        }
    }
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
    /// A new term cannot be written, and none was reserved before.
    #[error(
        "the store is out of space, and this replica has no term reserved: compact, defragment, then disarm its alarm"
    )]
    NothingReserved,
}

impl From<TermsError> for TakeoverError {
    fn from(error: TermsError) -> TakeoverError {
        match error {
            TermsError::Read(error) => TakeoverError::Read(error),
            TermsError::Record(error) => TakeoverError::Record(error),
        }
    }
}

/// A term that has begun and the state of the store, ready to lead.
pub struct Prepared {
    candidate: Candidate,
    fence: Fence,
    lease: Arc<LeadershipLease>,
    fenced: FencedStore,
    begun: Begun,
    inheritance: Inheritance,
}

/// Begins a term and loads the state. Called once per win, after the read-back; `ground` is what was read beside it.
///
/// # Errors
/// Any [`TakeoverError`] means: do not lead, release the fence.
pub async fn take_over(
    candidate: Candidate,
    fence: Fence,
    lease: Arc<LeadershipLease>,
    ground: Option<Ground>,
) -> Result<Prepared, TakeoverError> {
    let fenced = FencedStore::new(
        Arc::clone(&candidate.store),
        fence.clone(),
        Arc::clone(&lease),
        Arc::clone(&candidate.clock),
    );
    let mut begun = term::begin(&candidate, &fence, &fenced, ground).await?;
    let inheritance = load(&candidate, &fence, begun.revision, begun.early.take()).await?;
    Ok(Prepared { candidate, fence, lease, fenced, begun, inheritance })
}

impl Prepared {
    /// The term.
    pub fn term(&self) -> Term {
        Term(self.begun.own.record.term)
    }

    /// Begins to lead. `read_back` is the instant from which the waits for earlier terms count. The tasks belong to
    /// the caller; they end with the leader.
    pub fn lead(self, read_back: BootTime) -> (Arc<Leader>, JoinSet<()>) {
        let Prepared {
            candidate,
            fence,
            lease,
            fenced,
            begun: Begun { own, installation, wait, .. },
            inheritance: Inheritance { sequence, nodes, lease_revisions, mut agenda },
        } = self;
        agenda.since = candidate.clock.now();
        candidate.metrics.takeover_duration.observe(agenda.since.since(read_back).as_secs_f64());
        let mut tasks = JoinSet::new();
        let (write_behind, writing) = WriteBehind::new(
            fenced.clone(),
            lease_revisions,
            Arc::clone(&candidate.metrics),
            Arc::clone(&candidate.clock),
        );
        let (registrar, requests) = mpsc::channel(REGISTRAR_QUEUE);
        let term = Term(own.record.term);
        candidate.metrics.leader.set(1);
        candidate.metrics.term.set(i64::try_from(term.0).unwrap_or(i64::MAX));
        // Before the first grant: what earlier terms were about to take away is not renewed.
        Procedures::hold_back(&agenda.procedures, &nodes);
        let (control, commands) = ControlHandle::new();
        let listening = Listening::new(candidate.timing.region_lease, control::BOUND, candidate.clock.now());
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
            counter: super::outranked::Counter::default(),
            term_revision: tokio::sync::Mutex::new(own),
            closing: AtomicBool::new(false),
            ended: watch::channel(false).0,
            frontends: AtomicU64::new(0),
            heartbeats: AtomicU64::new(0),
            listening: Mutex::new(listening),
            interval_ms: AtomicU64::new(
                u64::try_from(candidate.timing.heartbeat_interval.as_millis()).unwrap_or(u64::MAX),
            ),
            serials: AtomicU32::new(1),
            untold: Mutex::default(),
            control,
        });
        leader.metrics.heartbeat_interval.set(leader.heartbeat_interval().as_secs_f64());
        let regions: usize = leader.nodes.iter().map(|node| node.regions.len()).sum();
        leader.metrics.regions.set(i64::try_from(regions).unwrap_or(i64::MAX));
        tracing::info!(
            %term, nodes = leader.nodes.len(), regions, settled_in = ?wait,
            "leading; leases are renewed at once, regions change hands when earlier terms are settled"
        );
        tasks.spawn(writing);
        tasks.spawn(registrar::run(Arc::clone(&leader), requests));
        tasks.spawn(control::run(Arc::clone(&leader), candidate.mailbox, agenda, commands));
        let (settling, publishing) = (Arc::clone(&leader), Arc::clone(&leader));
        tasks.spawn(async move { settling.settle().await });
        tasks.spawn(async move { publishing.publish(candidate.record).await });
        (leader, tasks)
    }
}
