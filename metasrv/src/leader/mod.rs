//! What only a leader has. Losing leadership is dropping this value.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | the value: term, lease, fence, nodes; what the heartbeat handlers ask of it |
//! | `node.rs` | one node as the leader sees it |
//! | `outranked.rs` | a node has seen a higher term: the store was set back |
//! | `takeover.rs` | the way in, from the win to leading |
//! | `term.rs` | a term of one's own: begun, made known, settled |
//! | `inheritance.rs` | the state that it begins with, from the mirror or listed |
//! | `registrar.rs` | one task that records processes and epochs, fenced |
//! | `regions.rs` | creating regions |
//! | `resign.rs` | the way out |

mod inheritance;
mod node;
mod outranked;
mod regions;
mod registrar;
mod resign;
mod takeover;
mod term;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use metasrv_core::grant::{Reported, decide};
use metasrv_core::id::{Fence, Incarnation, NodeId, NodeKey, RegionId, Role, Term};
use metasrv_core::incarnation::{Holds, Standing};
use metasrv_core::lease::LeadershipLease;
use metasrv_core::stats::{NodeStat, Verdict};
use metasrv_core::time::{BootTime, Clock};
use metasrv_core::timing::Timing;
use metasrv_proto::meta::NodeInfo;
use tokio::sync::{mpsc, oneshot, watch};

pub use inheritance::{Inheritance, inherit};
pub use node::{Node, Region};
pub use regions::CreateError;
pub use resign::{Resignation, resign};
pub use takeover::{Candidate, Prepared, TakeoverError, take_over};
pub use term::{Ground, numbers as term_numbers};

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
}

/// Where a process that names itself stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Identity {
    /// It is the recorded process of its node.
    Current,
    /// It waits: for the store, or for what its predecessor was granted.
    Waiting,
    /// A newer one is known, of this epoch.
    Stale(u64),
}

/// What one heartbeat grants.
pub struct Granted {
    /// Renewed, under these epochs.
    pub renewed: Vec<Reported>,
    /// To be closed: no route names them.
    pub closeable: Vec<RegionId>,
    /// To be opened under these epochs.
    pub to_open: Vec<Reported>,
    /// Length of the lease.
    pub lease: Duration,
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

    /// Whether it leads at this instant. Asked at each use; there is no flag to go stale.
    pub fn leads(&self, now: BootTime) -> bool {
        self.lease.holds(now) && !self.closing.load(Ordering::Acquire)
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

    /// Every node it knows, connected or not.
    pub fn nodes(&self) -> &DashMap<NodeKey, Node> {
        &self.nodes
    }

    /// The clock it leads by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Where this process of a datanode stands; has it recorded if its time has come, and waits for that up to
    /// `patience`. Frontends and flownodes hold nothing that two could write to: they are always current.
    pub async fn identify(
        &self,
        node: &NodeKey,
        process: Incarnation,
        addr: &str,
        patience: Duration,
    ) -> Identity {
        if node.role != Role::Datanode {
            return Identity::Current;
        }
        let recorded = {
            let mut entry = self.nodes.entry(*node).or_default();
            let now = self.clock.now();
            let holds = if entry.regions.is_empty() { Holds::Nothing } else { Holds::Regions };
            match entry.holder.offer(process, holds, self.settled_at, self.timing.grant_wait(), now) {
                Standing::Current => return Identity::Current,
                Standing::Stale(known) => return Identity::Stale(known),
                Standing::Waits(until) => {
                    if entry.waits_for != Some(process) {
                        entry.waits_for = Some(process);
                        tracing::info!(
                            term = %self.term, %node, node_epoch = process.epoch, wait = ?until.since(now),
                            "a restarted process waits until what its predecessor was granted is over"
                        );
                    }
                    return Identity::Waiting;
                }
                Standing::Admissible if entry.recording => return Identity::Waiting,
                Standing::Admissible => {
                    let (done, recorded) = oneshot::channel();
                    let request = Request::Record { node: *node, process, addr: addr.to_owned(), done };
                    if self.registrar.try_send(request).is_err() {
                        return Identity::Waiting;
                    }
                    entry.recording = true;
                    recorded
                }
            }
        };
        match tokio::time::timeout(patience, recorded).await {
            Ok(Ok(())) => Identity::Current,
            Ok(Err(_)) | Err(_) => Identity::Waiting,
        }
    }

    /// A node was heard of.
    pub fn heard_of(
        &self,
        node: &NodeKey,
        process: Option<Incarnation>,
        addr: &str,
        info: Option<&NodeInfo>,
        now: BootTime,
        wall_ms: u64,
    ) {
        let mut entry = self.nodes.entry(*node).or_default();
        entry.last_activity_ms = wall_ms;
        let changed = entry.addr != addr || (process.is_some() && entry.process != process);
        if changed {
            entry.addr = addr.to_owned();
            entry.process = process.or(entry.process);
        }
        if let Some(info) = info {
            entry.version.clone_from(&info.version);
            entry.hostname.clone_from(&info.hostname);
        }
        let due = entry.lease_offered_at.is_none_or(|before| now.since(before) >= self.timing.region_lease);
        if changed || due || entry.offered_term != self.term {
            let value = record::encode(&entry.lease_record(self.term));
            if self.write_behind.offer(self.keys.lease(node), value).is_ok() {
                entry.lease_offered_at = Some(now);
                entry.offered_term = self.term;
            }
        }
    }

    /// A node's stream has ended. A frontend that comes back brings its id, or gets another: nothing is lost with what
    /// is known of it, and kept for ever it would be one more record for each time that a frontend was started.
    pub fn left(&self, node: &NodeKey) {
        // Not where the term ended: the next leader shall know who was there.
        if node.role == Role::Frontend && self.leads(self.clock.now()) {
            self.forget(node);
        }
    }

    fn forget(&self, node: &NodeKey) {
        if self.write_behind.remove(self.keys.lease(node)).is_ok() {
            self.nodes.remove(node);
        }
    }

    /// Forgets the frontends that were there under an earlier leader and have not come back under this one.
    fn forget_lost_frontends(&self) {
        let lost = |node: &Node| node.lease_offered_at.is_none();
        let nodes = self.nodes.iter().filter(|entry| entry.key().role == Role::Frontend && lost(entry));
        let nodes: Vec<NodeKey> = nodes.map(|entry| *entry.key()).collect();
        for node in nodes {
            self.forget(&node);
        }
    }

    /// Compares what a process holds with the routes and renews what matches. `None` where the process may be
    /// granted nothing now, or this leader may grant nothing any more.
    pub fn grant(&self, node: &NodeKey, process: Incarnation, reported: Vec<Reported>) -> Option<Granted> {
        let mut entry = self.nodes.get_mut(node)?;
        let now = self.clock.now();
        // Leadership is compared with the clock here, at the moment of the grant, and not before.
        if !self.leads(now) || entry.recording || !entry.holder.may_be_granted(process) {
            return None;
        }
        let decision = decide(&entry.regions, |region| region.epoch, reported);
        for region in &decision.renew {
            if let Some(region) = entry.regions.get_mut(&region.region) {
                region.granted_at = Some(now);
            }
        }
        if !decision.renew.is_empty() {
            entry.holder.granted(now);
        }
        let patience = self.timing.heartbeat_interval.saturating_mul(3);
        let to_open = entry.openings.next(decision.open, patience, now);
        if !decision.ahead.is_empty() && !entry.recording {
            self.ask_to_raise(node, &mut entry, decision.ahead);
        }
        Some(Granted {
            renewed: decision.renew,
            closeable: decision.close,
            to_open,
            lease: self.timing.region_lease,
        })
    }

    /// A node holds regions under higher epochs than the routes have: the store was set back.
    fn ask_to_raise(&self, node: &NodeKey, entry: &mut Node, ahead: Vec<Reported>) {
        tracing::warn!(
            term = %self.term, %node, regions = ahead.len(),
            "the node holds regions under higher epochs than their routes: the store was set back; raising the routes'"
        );
        if self.registrar.try_send(Request::RaiseAbove { node: *node, held: ahead }).is_ok() {
            entry.recording = true;
        }
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
