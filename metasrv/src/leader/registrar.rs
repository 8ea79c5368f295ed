//! One task that records, under the fence, which process of a node may be granted leases, and raises epochs and the
//! counter of terms; and that a recorded process has ended.
//!
//! A process is recorded before its first grant. One that follows another gets the node's regions under raised
//! epochs, and only after whatever its predecessor was granted is over (`metasrv_core::incarnation` decides when).

use std::sync::Arc;

use metasrv_core::failover::{Certificate, Proof};
use metasrv_core::grant::Reported;
use metasrv_core::id::{ClusterId, Epoch, Incarnation, NodeId, NodeKey, RegionId, Term};
use metasrv_core::incarnation::Holder;
use metasrv_proto::admin::{DirectoryLock, NodeRecord, RouteRecord};
use tokio::sync::{mpsc, oneshot};

use super::Leader;
use super::region::Region;
use crate::control::event;
use crate::record;
use crate::store::fenced::{CommitError, Write};
use crate::store::{Change, MAX_CHANGES, Record};

/// What the registrar is asked to do.
pub enum Request {
    /// Record this process; `done` is told when it is.
    Record {
        /// The node.
        node: NodeKey,
        /// Its process.
        process: Incarnation,
        /// Where it is.
        addr: String,
        /// What it holds in the kernel.
        lock: Option<DirectoryLock>,
        /// Dropped unanswered where it could not be recorded.
        done: oneshot::Sender<()>,
    },
    /// Record that this process has ended; `done` is told when it is.
    Ended {
        /// The node.
        node: NodeKey,
        /// The process that was reaped.
        ended: Incarnation,
        /// Exit code or signal.
        how: String,
        /// Dropped unanswered where it could not be recorded.
        done: oneshot::Sender<()>,
    },
    /// Raise the epochs of these regions above what the node reported.
    RaiseAbove {
        /// The node.
        node: NodeKey,
        /// What it holds.
        held: Vec<Reported>,
    },
    /// Raise the counter of terms to what a node has seen.
    RaiseTerm(Term),
}

impl Request {
    fn node(&self) -> Option<NodeKey> {
        match self {
            Request::Record { node, .. } | Request::RaiseAbove { node, .. } => Some(*node),
            Request::Ended { .. } | Request::RaiseTerm(_) => None,
        }
    }
}

/// Works until the leader ends. Nodes without regions are recorded together, as many as a transaction takes.
pub async fn run(leader: Arc<Leader>, mut requests: mpsc::Receiver<Request>) {
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            () = leader.ended() => return,
            received = requests.recv_many(&mut batch, MAX_CHANGES) => if received == 0 { return },
        }
        let nodes: Vec<NodeKey> = batch.iter().filter_map(Request::node).collect();
        let _serial = leader.metadata.lock().await;
        if let Err(error) = leader.register(batch).await {
            tracing::warn!(term = %leader.term, %error, "processes could not be recorded; they ask again");
        }
        for node in nodes {
            if let Some(mut entry) = leader.nodes.get_mut(&node) {
                entry.recording = false;
            }
        }
    }
}

/// A process to be recorded.
struct Recording {
    node: NodeKey,
    process: Incarnation,
    addr: String,
    lock: Option<DirectoryLock>,
    done: oneshot::Sender<()>,
}

/// A route to be written with a higher epoch.
struct Raise {
    region: RegionId,
    epoch: Epoch,
}

impl Leader {
    async fn register(&self, batch: Vec<Request>) -> Result<(), CommitError> {
        let mut records = Vec::new();
        let mut result = Ok(());
        for request in batch {
            match request {
                Request::RaiseTerm(seen) => result = result.and(self.raise_counter(seen).await),
                Request::Ended { node, ended, how, done } => {
                    let recorded = self.record_end(&node, ended, &how).await;
                    if recorded.is_ok() {
                        // The supervisor may have given up waiting.
                        let _ = done.send(());
                    }
                    result = result.and(recorded);
                }
                Request::RaiseAbove { node, held } => {
                    let raises = self.raises_above(&node, &held);
                    result = result.and(self.raise(&node, &raises, "the node reported higher epochs").await);
                }
                Request::Record { node, process, addr, lock, done } => {
                    let raised = self
                        .raise(&node, &self.raises_for_successor(&node), "a new process of the node")
                        .await;
                    match raised {
                        Ok(()) => records.push(Recording { node, process, addr, lock, done }),
                        Err(error) => result = Err(error),
                    }
                }
            }
        }
        result.and(self.record(records).await)
    }

    /// Epochs that a process needs which follows another one: each region's, raised by one.
    fn raises_for_successor(&self, node: &NodeKey) -> Vec<Raise> {
        let Some(entry) = self.nodes.get(node) else { return Vec::new() };
        if entry.holder.current().is_none() {
            return Vec::new();
        }
        entry.regions.iter().map(|(id, region)| Raise { region: *id, epoch: region.epoch.next() }).collect()
    }

    fn raises_above(&self, node: &NodeKey, held: &[Reported]) -> Vec<Raise> {
        let Some(entry) = self.nodes.get(node) else { return Vec::new() };
        held.iter()
            .filter(|held| entry.regions.get(&held.region).is_some_and(|region| region.epoch < held.epoch))
            .map(|held| Raise { region: held.region, epoch: held.epoch.next() })
            .collect()
    }

    async fn raise(&self, node: &NodeKey, raises: &[Raise], why: &str) -> Result<(), CommitError> {
        // One change of each transaction is the history's.
        for chunk in raises.chunks(MAX_CHANGES - 1) {
            let mut writes = Vec::with_capacity(chunk.len().saturating_add(1));
            let mut events = Vec::with_capacity(chunk.len());
            {
                let Some(entry) = self.nodes.get(node) else { return Ok(()) };
                for raise in chunk {
                    let Some(region) = entry.regions.get(&raise.region) else { continue };
                    let route = self.route_record(node, raise.epoch, region);
                    writes.push(Write {
                        change: Change::Put {
                            key: self.keys.region(raise.region),
                            value: record::encode(&route),
                        },
                        expected_mod_revision: region.revision,
                    });
                    events.push(event::region_epoch_raised(node, raise.region, raise.epoch, why));
                }
            }
            writes.extend(self.timeline_entry(events));
            let revision = match self.commit(writes).await {
                Ok(revision) => revision,
                Err(error) => {
                    if let CommitError::Conflict { found } = &error {
                        self.relearn_routes(node, found);
                    }
                    return Err(error);
                }
            };
            let Some(mut entry) = self.nodes.get_mut(node) else { return Ok(()) };
            for raise in chunk {
                // Where this answer was late, the route may be a newer one by now: it never goes back.
                if entry.regions.get(&raise.region).is_some_and(|region| region.epoch < raise.epoch) {
                    let under = |region: &mut Region| *region = region.under(raise.epoch, revision);
                    entry.regions.change(raise.region, under);
                }
            }
            // The new epochs are to be told at once.
            entry.openings.begin_anew();
            tracing::info!(term = %self.term, %node, regions = chunk.len(), why, "epochs raised");
        }
        Ok(())
    }

    async fn record(&self, records: Vec<Recording>) -> Result<(), CommitError> {
        if records.is_empty() {
            return Ok(());
        }
        let writes = records
            .iter()
            .map(|Recording { node, process, addr, lock, .. }| Write {
                change: Change::Put {
                    key: self.keys.node(node),
                    value: record::encode(&NodeRecord {
                        node_epoch: process.epoch,
                        incarnation_nonce: process.nonce,
                        addr: addr.clone(),
                        term: self.term.0,
                        directory_lock: lock.clone(),
                        ended: String::new(),
                    }),
                },
                expected_mod_revision: self.nodes.get(node).map_or(0, |entry| entry.record_revision),
            })
            .collect();
        let revision = match self.commit(writes).await {
            Ok(revision) => revision,
            Err(error) => {
                if let CommitError::Conflict { found } = &error {
                    for (recording, found) in records.iter().zip(found) {
                        self.relearn_node(&recording.node, found.as_ref());
                    }
                }
                return Err(error);
            }
        };
        for Recording { node, process, addr, lock, done } in records {
            let mut entry = self.nodes.entry(node).or_default();
            entry.holder.record(process);
            entry.record_revision = revision;
            entry.process = Some(process);
            entry.certificate = None;
            entry.directory_lock = lock;
            entry.recording = false;
            tracing::info!(term = %self.term, %node, node_epoch = process.epoch, addr, "process recorded");
            // Nobody waits any more where the stream ended meanwhile.
            let _ = done.send(());
        }
        Ok(())
    }

    /// Records that the recorded process has ended, with the entry of the history: what follows from a certificate is
    /// decided only after that, and by the next leader too.
    async fn record_end(&self, node: &NodeKey, ended: Incarnation, how: &str) -> Result<(), CommitError> {
        let write = {
            let Some(entry) = self.nodes.get(node) else { return Ok(()) };
            if entry.holder.current() != Some(ended) || entry.is_dead() {
                return Ok(());
            }
            let record = NodeRecord {
                node_epoch: ended.epoch,
                incarnation_nonce: ended.nonce,
                addr: entry.addr.clone(),
                term: self.term.0,
                directory_lock: entry.directory_lock.clone(),
                ended: how.to_owned(),
            };
            Write {
                change: Change::Put { key: self.keys.node(node), value: record::encode(&record) },
                expected_mod_revision: entry.record_revision,
            }
        };
        let told = event::process_ended(node, &format!("{how}: its supervisor has reaped it"));
        let revision =
            match self.commit([write].into_iter().chain(self.timeline_entry(vec![told])).collect()).await {
                Ok(revision) => revision,
                Err(error) => {
                    if let CommitError::Conflict { found } = &error {
                        self.relearn_node(node, found.first().and_then(Option::as_ref));
                    }
                    return Err(error);
                }
            };
        let mut entry = self.nodes.entry(*node).or_default();
        entry.record_revision = revision;
        entry.certificate = Some(Certificate { ended, proof: Proof::Reaped });
        drop(entry);
        self.control.wake();
        Ok(())
    }

    /// The route that shall be: this region's, under this epoch, to this node.
    pub(super) fn route_record(&self, node: &NodeKey, epoch: Epoch, region: &Region) -> RouteRecord {
        RouteRecord {
            cluster_id: node.cluster.0,
            node_id: node.id.0,
            epoch: epoch.0,
            term: self.term.0,
            created_at_ms: region.created_at_ms,
            reason: region.about.reason.clone(),
            group: region.group().map(|group| (**group).to_owned()).unwrap_or_default(),
        }
    }

    /// Somebody else changed records that only a leader writes: take what is there, and say so.
    pub(super) fn relearn_routes(&self, node: &NodeKey, found: &[Option<Record>]) {
        let Some(mut entry) = self.nodes.get_mut(node) else { return };
        for stored in found.iter().flatten() {
            let (Some(id), Ok(route)) =
                (self.keys.parse_region(&stored.key), record::decode::<RouteRecord>(stored))
            else {
                continue;
            };
            // Given to another node meanwhile, by this leader: whoever did that puts it there.
            if NodeId(route.node_id) != node.id || ClusterId(route.cluster_id) != node.cluster {
                continue;
            }
            if entry.regions.get(&id).is_some_and(|region| region.revision != stored.mod_revision) {
                tracing::error!(term = %self.term, region = %id, "a route was changed by somebody else than its leader");
                entry.regions.change(id, |region| {
                    region.revision = stored.mod_revision;
                    region.epoch = region.epoch.max(Epoch(route.epoch));
                });
            }
        }
    }

    pub(super) fn relearn_node(&self, node: &NodeKey, found: Option<&Record>) {
        let revision = found.map_or(0, |found| found.mod_revision);
        let mut entry = self.nodes.entry(*node).or_default();
        if entry.record_revision == revision {
            return;
        }
        tracing::error!(term = %self.term, %node, "the record of a node was changed by somebody else than its leader");
        entry.record_revision = revision;
        if let Some(Ok(record)) = found.map(record::decode::<NodeRecord>) {
            entry.holder =
                Holder::recorded(Incarnation { epoch: record.node_epoch, nonce: record.incarnation_nonce });
        }
    }
}
