//! What a leader begins with: the stored state, made into the nodes that it knows.
//!
//! It comes from the mirror that this replica held while it did not lead, which is there at once; where the mirror has
//! not seen the first transaction of the term in time, it is listed.

use std::collections::HashMap;
use std::time::Duration;

use dashmap::DashMap;
use metasrv_core::failover::{Certificate, Proof};
use metasrv_core::holdings::Holdings;
use metasrv_core::id::{Fence, Incarnation, NodeKey, Term};
use metasrv_core::incarnation::Holder;
use metasrv_core::stats::EpochCache;
use metasrv_core::time::BootTime;
use metasrv_proto::admin::{FailoverOrderRecord, NodeOrderRecord, ProcedureRecord};

use super::node::Node;
use super::regions::Sequence;
use super::takeover::{Candidate, TakeoverError};
use crate::control::procedures::record::understand;
use crate::keys::Keys;
use crate::mirror::state::{Held, State, Unreadable};

/// How long a takeover waits for its mirror to have seen the term's first transaction. A watch is a few milliseconds
/// behind; when it is not, a list takes about as long as this.
const CATCH_UP: Duration = Duration::from_millis(150);

/// Everything that is known of the nodes and regions.
pub struct Inheritance {
    /// The last region id.
    pub sequence: Sequence,
    /// The nodes with their regions.
    pub nodes: DashMap<NodeKey, Node>,
    /// Mod revisions of the nodes' leases, by their keys.
    pub lease_revisions: HashMap<String, i64>,
    /// What is at work, and what operators want.
    pub agenda: Agenda,
}

/// What a term takes up from those before it.
#[derive(Default)]
pub struct Agenda {
    /// When the term began to serve: what is reported from then on counts.
    pub since: BootTime,
    /// Procedures at work.
    pub procedures: Vec<Held<ProcedureRecord>>,
    /// What operators want of nodes.
    pub node_orders: Vec<(NodeKey, Held<NodeOrderRecord>)>,
    /// What operators want of all failovers.
    pub failover_order: Option<Held<FailoverOrderRecord>>,
}

/// What was made of a mirror before it was certain that the term has begun.
pub struct Early {
    /// The mirror had seen the key of the fence change at this revision.
    revision: i64,
    inheritance: Inheritance,
}

impl Early {
    /// Of a term that was begun for this winner, if the mirror has seen that. What cannot be understood is read again, by
    /// [`load`].
    pub fn of(candidate: &Candidate, fence: &Fence) -> Option<Early> {
        let (state, revision) = candidate.mirror.as_ref()?.take_begun(fence)?;
        let inheritance = inherit(&candidate.keys, state).ok()?;
        Some(Early { revision, inheritance })
    }
}

/// Loads the state as it was when the term began or later: `revision` is that of the term's first transaction, which
/// changed the key of the fence. Nobody but this leader has written since.
pub async fn load(
    candidate: &Candidate,
    fence: &Fence,
    revision: i64,
    early: Option<Early>,
) -> Result<Inheritance, TakeoverError> {
    if let Some(early) = early.filter(|early| early.revision == revision) {
        candidate.metrics.takeovers.with_label_values(&["mirror"]).inc();
        return Ok(early.inheritance);
    }
    let began = candidate.clock.now();
    let mirrored = match &candidate.mirror {
        Some(mirror) => match mirror.take(&fence.key, revision, CATCH_UP).await {
            Ok(state) => Some(state),
            Err(lag) => {
                tracing::info!(%lag, "the state is listed");
                None
            }
        },
        None => None,
    };
    let from = if mirrored.is_some() { "mirror" } else { "list" };
    candidate.metrics.takeovers.with_label_values(&[from]).inc();
    let state = match mirrored {
        Some(state) => state,
        None => list(candidate).await?,
    };
    let inheritance = inherit(&candidate.keys, state)?;
    tracing::info!(from, took = ?candidate.clock.now().since(began), "the state is loaded");
    Ok(inheritance)
}

async fn list(candidate: &Candidate) -> Result<State, TakeoverError> {
    let Candidate { store, keys, .. } = candidate;
    let (node_prefix, lease_prefix, region_prefix) = (keys.nodes(), keys.leases(), keys.regions());
    let (order_prefix, procedure_prefix) = (keys.orders(), keys.procedures());
    let (nodes, leases, regions, orders, procedures, sequence) = tokio::try_join!(
        store.list(&node_prefix),
        store.list(&lease_prefix),
        store.list(&region_prefix),
        store.list(&order_prefix),
        store.list(&procedure_prefix),
        async { store.get(&keys.region_sequence()).await },
    )?;
    // They are of different revisions, between which this leader itself has changed nothing.
    let pages = [&nodes, &leases, &regions, &orders, &procedures].into_iter().flat_map(|page| &page.records);
    Ok(State::of(keys, nodes.revision, pages.chain(&sequence)))
}

/// The nodes that a state speaks of.
///
/// # Errors
/// [`TakeoverError::Record`] and [`TakeoverError::Key`] for what cannot be understood. Leases of nodes are the
/// exception: they come again.
pub fn inherit(keys: &Keys, state: State) -> Result<Inheritance, TakeoverError> {
    let lease_prefix = keys.leases();
    for (key, (_, why)) in state.unreadable {
        if key.starts_with(&lease_prefix) {
            tracing::error!(key, "the lease of a node cannot be read; it is known again when it is heard of");
            continue;
        }
        return Err(match why {
            Unreadable::Key => TakeoverError::Key(key),
            Unreadable::Record(error) => TakeoverError::Record(error),
        });
    }
    let known: DashMap<NodeKey, Node> = DashMap::with_capacity(state.leases.len());
    for (key, held) in state.processes {
        let process = Incarnation { epoch: held.value.node_epoch, nonce: held.value.incarnation_nonce };
        let mut node = known.entry(key).or_default();
        node.holder = Holder::recorded(process);
        node.process = Some(process);
        node.record_revision = held.revision;
        node.addr = held.value.addr;
        node.directory_lock = held.value.directory_lock;
        if !held.value.ended.is_empty() {
            node.holder.certify_end(process);
            node.certificate = Some(Certificate { ended: process, proof: Proof::Reaped });
        }
    }
    let mut lease_revisions = HashMap::with_capacity(state.leases.len());
    for (key, held) in state.leases {
        lease_revisions.insert(keys.lease(&key), held.revision);
        let mut node = known.entry(key).or_default();
        node.addr = held.value.addr;
        node.version = held.value.version;
        node.hostname = held.value.hostname;
        node.zone = held.value.zone;
        node.host = held.value.host;
        node.weight = held.value.weight;
        node.last_activity_ms = held.value.last_activity_ms;
        node.offered_term = Term(held.value.term);
        if node.process.is_none() {
            node.process = Some(Incarnation { epoch: held.value.node_epoch, nonce: 0 });
        }
        if let Some(process) = node.process {
            node.stats = EpochCache::inherited(process.epoch, key.id.0);
        }
    }
    for (key, regions) in state.routes {
        known.entry(key).or_default().regions = Holdings::from(regions);
    }
    let sequence = state.sequence.map_or(Sequence { last: 0, revision: 0 }, |held| Sequence {
        last: held.value.value,
        revision: held.revision,
    });
    let agenda = Agenda {
        since: BootTime::ZERO,
        procedures: state.procedures.into_values().filter(|held| is_understood(keys, held)).collect(),
        node_orders: state.node_orders.into_iter().collect(),
        failover_order: state.failover_order,
    };
    Ok(Inheritance { sequence, nodes: known, lease_revisions, agenda })
}

/// One that makes no sense is left alone, where a check of the store finds it: without a leader no region would have a writer for
/// long. Nobody carries it out, so nothing changes hands by it; and whatever it had stopped, its node refuses by itself.
fn is_understood(keys: &Keys, held: &Held<ProcedureRecord>) -> bool {
    let understood = understand(keys, held);
    if let Err(error) = &understood {
        tracing::error!(%error, "the record of a procedure makes no sense: it is left alone");
    }
    understood.is_ok()
}
