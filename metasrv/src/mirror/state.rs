//! What the store says that a leader begins with, decoded, as it stands at one revision. No I/O and no clock here.
//!
//! | held | of which keys | decoded |
//! | --- | --- | --- |
//! | processes | `node/…` | which process of a node may be granted leases |
//! | leases | `lease/…` | when a node was last heard of |
//! | routes | `region/…` | who leads a region, node by node, as a leader keeps them: a takeover moves them |
//! | orders | `order/…` | what operators want of nodes and of failovers |
//! | procedures | `procedure/…` | what is at work over several nodes |
//! | sequence | `sequence/region` | the last region id that was given |
//! | fences | `election/…` | the revisions of each candidate's key, and the term in it |
//!
//! A record that cannot be read is held as such: a takeover has to fail over a route, and may go on without a lease.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use metasrv_core::id::{ClusterId, Epoch, NodeId, NodeKey, RegionId, Term};
use metasrv_core::procedure::ProcedureId;
use metasrv_core::region_map::RegionMap;
use metasrv_proto::admin::{
    CandidateRecord, CounterRecord, FailoverOrderRecord, NodeLeaseRecord, NodeOrderRecord, NodeRecord,
    ProcedureRecord, RouteRecord,
};
use prost::Message;

use super::homes::Homes;
use crate::keys::Keys;
use crate::leader::{About, Abouts, Region};
use crate::record::{self, RecordError};
use crate::store::Record;

/// One change in the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A record was written; its mod revision is the change's.
    Put(Record),
    /// A key was removed.
    Deleted {
        /// Which.
        key: String,
        /// The revision that removed it.
        revision: i64,
    },
}

/// A decoded record and its mod revision.
#[derive(Clone, PartialEq, Debug)]
pub struct Held<T> {
    /// What it says.
    pub value: T,
    /// Its mod revision.
    pub revision: i64,
}

/// A candidate's key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fenced {
    /// The revision that created it.
    pub create_revision: i64,
    /// The revision that changed it last.
    pub revision: i64,
    /// The term in it. 0: none, or it cannot be read.
    pub term: Term,
}

impl Fenced {
    fn of(stored: &Record) -> Fenced {
        let term = record::decode::<CandidateRecord>(stored).map_or(0, |candidate| candidate.term);
        let Record { create_revision, mod_revision: revision, .. } = *stored;
        Fenced { create_revision, revision, term: Term(term) }
    }
}

/// What is wrong with a key or a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unreadable {
    /// The key does not follow the scheme.
    Key,
    /// The record is of a newer format, or garbage.
    Record(RecordError),
}

/// Events that do not follow what is held. Applying them could lose a change for ever, so they are refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an event of revision {event} does not follow revision {held}")]
pub struct OutOfOrder {
    /// The revision that is held.
    pub held: i64,
    /// The revision of the event.
    pub event: i64,
}

/// How many records two states differ in.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Difference {
    /// Records that were added or written again.
    pub put: usize,
    /// Records that are gone.
    pub deleted: usize,
}

/// See the module.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct State {
    /// The store's revision that this is.
    pub revision: i64,
    /// Recorded processes.
    pub processes: HashMap<NodeKey, Held<NodeRecord>>,
    /// Leases of nodes.
    pub leases: HashMap<NodeKey, Held<NodeLeaseRecord>>,
    /// Routes: the regions of each node.
    pub routes: HashMap<NodeKey, RegionMap<Region>>,
    /// Which node each of them is under.
    homes: Homes,
    /// What is said of them.
    abouts: Abouts,
    /// The last region id.
    pub sequence: Option<Held<CounterRecord>>,
    /// What operators want of nodes.
    pub node_orders: HashMap<NodeKey, Held<NodeOrderRecord>>,
    /// What operators want of all failovers.
    pub failover_order: Option<Held<FailoverOrderRecord>>,
    /// The procedures at work.
    pub procedures: BTreeMap<ProcedureId, Held<ProcedureRecord>>,
    /// The candidates' keys.
    pub fences: HashMap<String, Fenced>,
    /// What cannot be understood, by its key, with its mod revision.
    pub unreadable: BTreeMap<String, (i64, Unreadable)>,
}

impl State {
    /// What these records say; others than those in the table above are left aside.
    pub fn of<'a>(keys: &Keys, revision: i64, records: impl IntoIterator<Item = &'a Record>) -> State {
        let mut state = State { revision, ..State::default() };
        for record in records {
            state.put(keys, record);
        }
        state
    }

    /// Takes over changes that follow what is held, in the order of their revisions; a batch holds whole revisions.
    ///
    /// # Errors
    /// [`OutOfOrder`] where they do not follow. What is held is no good any more then.
    pub fn apply(&mut self, keys: &Keys, events: &[Event]) -> Result<(), OutOfOrder> {
        let mut last = None;
        for event in events {
            let revision = event.revision();
            let follows = last.map_or(revision > self.revision, |last| revision >= last);
            if !follows {
                return Err(OutOfOrder { held: last.unwrap_or(self.revision), event: revision });
            }
            last = Some(revision);
            match event {
                Event::Put(record) => self.put(keys, record),
                Event::Deleted { key, .. } => self.forget(keys, key),
            }
        }
        self.revision = last.unwrap_or(self.revision);
        Ok(())
    }

    /// In how many records a later state differs.
    pub fn difference(&self, later: &State) -> Difference {
        let (before, after) = (self.revisions(), later.revisions());
        Difference {
            put: after.iter().filter(|(key, revision)| before.get(*key) != Some(*revision)).count(),
            deleted: before.keys().filter(|key| !after.contains_key(*key)).count(),
        }
    }

    fn put(&mut self, keys: &Keys, record: &Record) {
        self.forget(keys, &record.key);
        let key = record.key.as_str();
        let unreadable = match Slot::of(keys, key) {
            Slot::Process(node) => hold(&mut self.processes, node, record),
            Slot::Lease(node) => hold(&mut self.leases, node, record),
            Slot::Route(region) => self.route(region, record),
            Slot::Sequence => hold_one(&mut self.sequence, record),
            Slot::NodeOrder(node) => hold(&mut self.node_orders, node, record),
            Slot::FailoverOrder => hold_one(&mut self.failover_order, record),
            Slot::Procedure(id) => match record::decode(record) {
                Ok(value) => {
                    self.procedures.insert(id, Held { value, revision: record.mod_revision });
                    None
                }
                Err(error) => Some(Unreadable::Record(error)),
            },
            Slot::Fence => {
                self.fences.insert(key.to_owned(), Fenced::of(record));
                None
            }
            Slot::Unknown => Some(Unreadable::Key),
            Slot::Other => None,
        };
        if let Some(unreadable) = unreadable {
            self.unreadable.insert(key.to_owned(), (record.mod_revision, unreadable));
        }
    }

    fn forget(&mut self, keys: &Keys, key: &str) {
        // Nearly always empty, so that this costs nothing.
        self.unreadable.remove(key);
        match Slot::of(keys, key) {
            Slot::Process(node) => drop(self.processes.remove(&node)),
            Slot::Lease(node) => drop(self.leases.remove(&node)),
            Slot::Route(region) => self.unroute(region),
            Slot::Sequence => self.sequence = None,
            Slot::NodeOrder(node) => drop(self.node_orders.remove(&node)),
            Slot::FailoverOrder => self.failover_order = None,
            Slot::Procedure(id) => drop(self.procedures.remove(&id)),
            Slot::Fence => drop(self.fences.remove(key)),
            Slot::Unknown | Slot::Other => {}
        }
    }

    /// How many nodes are spoken of.
    pub fn nodes(&self) -> usize {
        let keys = self.processes.keys().chain(self.leases.keys()).chain(self.routes.keys());
        keys.collect::<HashSet<_>>().len()
    }

    /// How many routes are held.
    pub fn regions(&self) -> usize {
        self.homes.len()
    }

    fn route(&mut self, id: RegionId, stored: &Record) -> Option<Unreadable> {
        let route: RouteRecord = match record::decode(stored) {
            Ok(route) => route,
            Err(error) => return Some(Unreadable::Record(error)),
        };
        let node = NodeKey::datanode(ClusterId(route.cluster_id), NodeId(route.node_id));
        let about = self.abouts.share(About {
            reason: route.reason,
            group: (!route.group.is_empty()).then(|| Arc::from(route.group)),
        });
        let region = Region::new(Epoch(route.epoch), stored.mod_revision, route.created_at_ms, about);
        self.homes.insert(id, node);
        self.routes.entry(node).or_default().insert(id, region);
        None
    }

    fn unroute(&mut self, id: RegionId) {
        let Some(node) = self.homes.remove(id) else { return };
        if let Some(regions) = self.routes.get_mut(&node) {
            regions.remove(&id);
            if regions.is_empty() {
                self.routes.remove(&node);
            }
        }
    }

    /// Every record that is held, by what it stands for, with its mod revision.
    fn revisions(&self) -> HashMap<Slot, i64> {
        let processes = self.processes.iter().map(|(node, held)| (Slot::Process(*node), held.revision));
        let leases = self.leases.iter().map(|(node, held)| (Slot::Lease(*node), held.revision));
        let routes = self.routes.values().flatten().map(|(id, region)| (Slot::Route(*id), region.revision));
        let sequence = self.sequence.iter().map(|held| (Slot::Sequence, held.revision));
        let orders = self.node_orders.iter().map(|(node, held)| (Slot::NodeOrder(*node), held.revision));
        let failover = self.failover_order.iter().map(|held| (Slot::FailoverOrder, held.revision));
        let procedures = self.procedures.iter().map(|(id, held)| (Slot::Procedure(*id), held.revision));
        let wanted = orders.chain(failover).chain(procedures);
        processes.chain(leases).chain(routes).chain(sequence).chain(wanted).collect()
    }
}

impl Event {
    /// The revision of the change.
    pub fn revision(&self) -> i64 {
        match self {
            Event::Put(record) => record.mod_revision,
            Event::Deleted { revision, .. } => *revision,
        }
    }
}

/// What a key stands for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Slot {
    Process(NodeKey),
    Lease(NodeKey),
    Route(RegionId),
    Sequence,
    NodeOrder(NodeKey),
    FailoverOrder,
    Procedure(ProcedureId),
    Fence,
    /// Under a prefix of ours, and not by its scheme.
    Unknown,
    /// Nothing that a leader begins with.
    Other,
}

impl Slot {
    fn of(keys: &Keys, key: &str) -> Slot {
        if key.starts_with(&keys.leases()) {
            keys.parse_lease(key).map_or(Slot::Unknown, Slot::Lease)
        } else if key.starts_with(&keys.regions()) {
            keys.parse_region(key).map_or(Slot::Unknown, Slot::Route)
        } else if key.starts_with(&keys.nodes()) {
            keys.parse_node(key).map_or(Slot::Unknown, Slot::Process)
        } else if key.starts_with(&keys.node_orders()) {
            keys.parse_node_order(key).map_or(Slot::Unknown, Slot::NodeOrder)
        } else if key.starts_with(&keys.procedures()) {
            keys.parse_procedure(key).map_or(Slot::Unknown, Slot::Procedure)
        } else if key == keys.failover_order() {
            Slot::FailoverOrder
        } else if key == keys.region_sequence() {
            Slot::Sequence
        } else if key.strip_prefix(&keys.election()).is_some_and(|rest| rest.starts_with('/')) {
            Slot::Fence
        } else {
            Slot::Other
        }
    }
}

/// Holds a record, or says why it cannot be read.
fn hold<K: Eq + std::hash::Hash, T: Message + Default>(
    map: &mut HashMap<K, Held<T>>,
    key: K,
    record: &Record,
) -> Option<Unreadable> {
    match record::decode(record) {
        Ok(value) => {
            map.insert(key, Held { value, revision: record.mod_revision });
            None
        }
        Err(error) => Some(Unreadable::Record(error)),
    }
}

/// Holds the one record of its kind, or says why it cannot be read.
fn hold_one<T: Message + Default>(place: &mut Option<Held<T>>, record: &Record) -> Option<Unreadable> {
    match record::decode(record) {
        Ok(value) => {
            *place = Some(Held { value, revision: record.mod_revision });
            None
        }
        Err(error) => Some(Unreadable::Record(error)),
    }
}
