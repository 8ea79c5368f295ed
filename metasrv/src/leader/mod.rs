//! What only a leader has. Losing leadership is dropping this value.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | the value: term, lease, fence, nodes; what the heartbeat handlers ask of it |
//! | `node.rs`, `region.rs` | one node, and one region, as the leader sees it |
//! | `hearing.rs` | what is heard of nodes and of their processes' ends |
//! | `granting.rs` | what one heartbeat renews, opens and closes |
//! | `holding.rs` | what procedures ask about nodes and regions, and what they hold back |
//! | `relocate.rs` | routes change, in one fenced transaction with what is to be told of it |
//! | `measured.rs` | what the control loop counts, for graphs |
//! | `history.rs` | observations for the history, and what goes from it |
//! | `outranked.rs` | a node has seen a higher term: the store was set back |
//! | `takeover.rs` | the way in, from the win to leading |
//! | `term.rs` | a term of one's own: begun, made known, settled |
//! | `inheritance.rs` | the state that it begins with, from the mirror or listed |
//! | `registrar.rs` | one task that records processes and epochs, fenced |
//! | `regions.rs` | creating regions |
//! | `placing.rs` | which nodes new regions go to |
//! | `forgetting.rs` | dropping a region, forgetting a node |
//! | `resign.rs` | the way out |
//! | `succession.rs` | the term of whoever is next, begun by the resignation |

mod forgetting;
mod granting;
mod hearing;
mod history;
mod holding;
mod inheritance;
mod measured;
mod node;
mod outranked;
mod placing;
mod region;
mod regions;
mod registrar;
mod relocate;
mod resign;
mod succession;
mod takeover;
mod term;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dashmap::DashMap;
use metasrv_core::detector::Listening;
use metasrv_core::id::{Fence, Incarnation, NodeId, NodeKey, Term};
use metasrv_core::lease::LeadershipLease;
use metasrv_core::pacing;
use metasrv_core::stats::{NodeStat, Verdict};
use metasrv_core::time::{BootTime, Clock};
use metasrv_core::timing::Timing;
use metasrv_proto::admin::StoredEvent;
use tokio::sync::{mpsc, watch};

pub use granting::{Granted, GrantedSet};
pub use hearing::{Identity, NotStored};
pub use history::Entry;
pub use holding::last_grant;
pub use inheritance::{Agenda, Inheritance, inherit};
pub use measured::Nodes;
pub use node::Node;
pub use placing::Wanted;
pub use region::{About, Abouts, Region};
pub use regions::CreateError;
pub use relocate::{RelocateError, RouteChange};
pub use resign::{Resignation, resign};
pub use succession::{NoSuccession, Succession};
pub use takeover::{Candidate, Prepared, TakeoverError, take_over};
pub use term::{Ground, numbers as term_numbers};

use crate::control::ControlHandle;
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::record;
use crate::store::StoreError;
use crate::store::fenced::{CommitError, FencedStore, Write};
use crate::write_behind::WriteBehind;
use registrar::Request;

/// Nodes asking to be recorded at the same time; a heartbeat that finds no room asks again with the next one.
const REGISTRAR_QUEUE: usize = 4096;

/// A leader of one term.
pub struct Leader {
    term: Term,
    installation: u64,
    timing: Timing,
    fence: Fence,
    lease: Arc<LeadershipLease>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    keys: Keys,
    fenced: FencedStore,
    write_behind: WriteBehind,
    /// When all that earlier terms may have granted is over.
    settled_at: BootTime,
    nodes: DashMap<NodeKey, Node>,
    registrar: mpsc::Sender<Request>,
    /// Serialises creating regions and recording processes: both change routes.
    metadata: tokio::sync::Mutex<regions::Sequence>,
    /// Revision of the record of this term.
    term_revision: tokio::sync::Mutex<term::OwnTerm>,
    counter: outranked::Counter,
    /// Set before the last drain: from then on nothing is granted.
    closing: AtomicBool,
    ended: watch::Sender<bool>,
    frontends: AtomicU64,
    heartbeats: AtomicU64,
    /// The clock by which the silence of nodes is counted; turned by the control loop.
    listening: Mutex<Listening>,
    /// What the nodes are told, in milliseconds.
    interval_ms: AtomicU64,
    /// Numbers of this term.
    serials: AtomicU32,
    /// Observations that wait for the control loop to write them.
    untold: Mutex<Vec<StoredEvent>>,
    control: ControlHandle,
}

impl Leader {
    /// The term.
    pub fn term(&self) -> Term {
        self.term
    }

    /// The identity of this installation.
    pub fn installation(&self) -> u64 {
        self.installation
    }

    /// The durations it leads by.
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// The interval that nodes are told. It grows with the fleet, beyond the size that is configured.
    pub fn heartbeat_interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms.load(Ordering::Relaxed))
    }

    /// So many datanodes are heard.
    pub fn pace(&self, nodes: usize) {
        let present = self.heartbeat_interval();
        let interval = pacing::interval(&self.timing, nodes, present);
        if interval == present {
            return;
        }
        self.interval_ms.store(u64::try_from(interval.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.metrics.heartbeat_interval.set(interval.as_secs_f64());
        tracing::warn!(
            term = %self.term, nodes, full_rate_nodes = self.timing.full_rate_nodes, from = ?present, to = ?interval,
            at_its_end = pacing::is_at_its_end(&self.timing, nodes),
            "the heartbeat interval follows the size of the fleet"
        );
    }

    /// When all that earlier terms granted is over.
    pub fn settled_at(&self) -> BootTime {
        self.settled_at
    }

    /// Whether it leads at this instant. Asked at each use; there is no flag to go stale.
    pub fn leads(&self, now: BootTime) -> bool {
        self.lease.holds(now) && !self.closing.load(Ordering::Acquire)
    }

    /// Whether its lease holds, also while it hands over and grants nothing more.
    pub fn holds_lease(&self, now: BootTime) -> bool {
        self.lease.holds(now)
    }

    /// Resolves when it ends.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut ended = self.ended.subscribe();
        async move {
            // A leader that was dropped has ended too.
            let _ = ended.wait_for(|ended| *ended).await.map(drop);
        }
    }

    /// Resolves once a write was refused because the fence is gone: leadership has ended, and its owner should know.
    pub async fn fence_lost(&self) {
        self.fenced.lost().await;
    }

    /// Ends it for good and tells every stream.
    pub fn end(&self) {
        self.closing.store(true, Ordering::Release);
        self.lease.end();
        self.write_behind.close();
        self.ended.send_replace(true);
        self.metrics.leader.set(0);
    }

    /// Stops granting; fenced work that remains may still be done.
    pub fn stop_granting(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// It grants nothing any more, because another one shall.
    pub fn hands_over(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Writes behind what is queued, as far as the time allows, and queues nothing more. Grants may go on meanwhile.
    pub async fn last_drain(&self, deadline: Duration) {
        self.write_behind.take_no_more();
        self.drain(deadline).await;
    }

    /// Writes behind what is queued, as far as the time allows.
    pub async fn drain(&self, deadline: Duration) {
        if let Err(left) = self.write_behind.drain(deadline).await {
            tracing::warn!(term = %self.term, %left, "not everything was written behind before the end of the term");
        }
    }

    /// An id for a frontend: unique across leaders, because the term is part of it.
    pub fn frontend_id(&self) -> NodeId {
        let serial = self.frontends.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        NodeId((self.term.0 << FRONTEND_SERIAL_BITS) | (serial & ((1 << FRONTEND_SERIAL_BITS) - 1)))
    }

    /// Whether an id may have come from [`Leader::frontend_id`] of this or an earlier term.
    pub fn gave_frontend_id(&self, id: NodeId) -> bool {
        let term = id.0 >> FRONTEND_SERIAL_BITS;
        term >= 1 && term <= self.term.0 && id.0 & ((1 << FRONTEND_SERIAL_BITS) - 1) != 0
    }

    /// Takes note that a heartbeat was answered.
    pub fn answered(&self) {
        self.heartbeats.fetch_add(1, Ordering::Relaxed);
    }

    /// Heartbeats answered in this term.
    pub fn heartbeats(&self) -> u64 {
        self.heartbeats.load(Ordering::Relaxed)
    }

    /// A number that no term gives again: the term is part of it, so that numbers grow with time.
    pub fn new_id(&self) -> u64 {
        let serial = self.serials.fetch_add(1, Ordering::Relaxed);
        (self.term.0 << u32::BITS) | u64::from(serial)
    }

    /// The loop that moves regions.
    pub fn control(&self) -> &ControlHandle {
        &self.control
    }

    /// The keys of its store.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Every node it knows, connected or not.
    pub fn nodes(&self) -> &DashMap<NodeKey, Node> {
        &self.nodes
    }

    /// The clock it leads by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Whether the regions of this process's next stat are kept, and not its sums alone.
    pub fn keeps_regions(&self, node: &NodeKey, process: Incarnation) -> bool {
        self.nodes.get(node).is_none_or(|entry| entry.stats.keeps_regions(process.epoch))
    }

    /// Appends a stat to the epoch cache of its node and hands a full batch to the write-behind.
    pub fn persist_stat(&self, node: &NodeKey, process: Incarnation, stat: NodeStat) {
        let mut entry = self.nodes.entry(*node).or_default();
        match entry.stats.offer(process.epoch, stat) {
            Verdict::Appended => {}
            Verdict::Stale { known } => tracing::warn!(
                term = %self.term, %node, node_epoch = process.epoch, known,
                "stats of an older process of this node are ignored"
            ),
            Verdict::Flush => {
                let Some(batch) = entry.stats.drain() else { return };
                let value = record::encode_stats(&batch, self.term);
                if self.write_behind.offer(self.keys.stats(node), value).is_err() {
                    entry.stats.restore(batch);
                }
            }
        }
    }

    /// One fenced write of metadata, counted.
    async fn commit(&self, writes: Vec<Write>) -> Result<i64, CommitError> {
        let result = self.fenced.commit(writes).await;
        let outcome = match &result {
            Ok(_) => "done",
            Err(CommitError::FenceLost) => "fence_lost",
            Err(CommitError::LeadershipEnded) => "leadership_ended",
            Err(CommitError::Conflict { .. }) => "conflict",
            Err(CommitError::Refused(_)) => "refused",
        };
        self.metrics.fenced_writes.with_label_values(&[outcome]).inc();
        match &result {
            Ok(_) => self.metrics.store_out_of_space.set(0),
            Err(CommitError::Refused(StoreError::OutOfSpace)) => self.metrics.store_out_of_space.set(1),
            Err(_) => {}
        }
        result
    }
}

/// Frontends that one term can number; the rest of an id is the term.
const FRONTEND_SERIAL_BITS: u32 = 24;

#[cfg(test)]
mod tests;
