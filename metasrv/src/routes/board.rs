//! What is on the board: every route at one revision, and the last changes. No I/O and no clock here.
//!
//! | the store | the board |
//! | --- | --- |
//! | a route was written | a change, unless datanode, epoch and label stay |
//! | a route was deleted | a change: the region is gone |
//! | a datanode's address changed, its process has ended | a change of each of its regions |
//! | a migration begins, or is over | a change of its region |
//! | it was listed again | the difference as changes; who comes then with an older revision gets a snapshot |
//! | it was set back: a lower revision, a lower epoch, another installation | another era: everybody gets a snapshot |
//!
//! **Revisions.** `revision` is what readers are told: that of the last change in the watched range, so that each board
//! comes to it by itself, sooner or later. `held` is where the watch goes on, which after a list is the store's own
//! revision and may be higher: what `held` covers is known, though no other board need ever come to that number.
//!
//! A route takes 24 bytes and its key 8; rows of them are nearly full: 33 to 40 bytes a region.

use std::collections::{BTreeMap, BTreeSet};

use metasrv_core::id::{ClusterId, NodeId, NodeKey, RegionId, Role};
use metasrv_core::region_map::RegionMap;
use metasrv_proto::admin::procedure_record::Kind;
use metasrv_proto::admin::{
    InstallationRecord, NodeLeaseRecord, NodeRecord, ProcedureRecord, Route, RouteFollower, RouteRecord,
    RouteState,
};
use prost::Message;

use super::addresses::{Addresses, NodeNumber};
use super::labels::{Label, Labels};
use super::moves::Moves;
use super::ring::{Change, KEPT, Ring};
use crate::keys::Keys;
use crate::mirror::state::{Event, OutOfOrder};
use crate::record;
use crate::store::{Page, Record};

/// One route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The region's epoch.
    pub epoch: u64,
    /// The revision of the change that made it so.
    pub revision: i64,
    /// Its datanode.
    pub node: NodeNumber,
    /// Its label.
    pub label: Label,
}

const _: () = assert!(size_of::<Entry>() <= 24, "docs/routes.md says what a region takes");

/// See the module.
pub struct Board {
    pub(super) held: i64,
    pub(super) revision: i64,
    pub(super) installation: u64,
    /// Raised whenever nothing of what was told before counts any more.
    pub(super) era: u64,
    pub(super) routes: RegionMap<Entry>,
    pub(super) ring: Ring,
    /// Revisions below this one have come twice, since the store was set back: nobody goes on from one.
    ambiguous: i64,
    addresses: Addresses,
    labels: Labels,
    moves: Moves,
}

impl Default for Board {
    fn default() -> Board {
        Board::keeping(KEPT)
    }
}

impl Board {
    /// An empty board that keeps so many changes.
    pub fn keeping(changes: usize) -> Board {
        Board {
            held: 0,
            revision: 0,
            installation: 0,
            era: 0,
            routes: RegionMap::new(),
            ring: Ring::new(changes),
            ambiguous: 0,
            addresses: Addresses::default(),
            labels: Labels::default(),
            moves: Moves::default(),
        }
    }

    /// Takes over changes that follow what is held; a batch holds whole revisions. Returns how many routes changed.
    ///
    /// # Errors
    /// [`OutOfOrder`] where they do not follow.
    pub fn apply(&mut self, keys: &Keys, events: &[Event]) -> Result<usize, OutOfOrder> {
        let (mut last, head) = (None, self.ring.head());
        for event in events {
            let revision = event.revision();
            if !last.map_or(revision > self.held, |last| revision >= last) {
                return Err(OutOfOrder { held: last.unwrap_or(self.held), event: revision });
            }
            last = Some(revision);
            match event {
                Event::Put(record) => self.put(keys, record),
                Event::Deleted { key, .. } => {
                    if let Some(region) = keys.parse_region(key) {
                        self.drop_route(region.0, revision);
                    } else if let Some(procedure) = keys.parse_procedure(key) {
                        let region = self.moves.end(procedure.0);
                        self.touch(region, revision);
                    }
                }
            }
        }
        self.held = last.unwrap_or(self.held);
        self.revision = self.revision.max(self.held);
        Ok(usize::try_from(self.ring.head().saturating_sub(head)).unwrap_or(usize::MAX))
    }

    /// Takes what was listed: the difference becomes changes, or another era begins. Says whether one does.
    pub fn install(&mut self, keys: &Keys, page: &Page) -> bool {
        let listed = Listed::of(keys, page);
        let began = self.held == 0;
        let set_back = page.revision < self.held
            || (self.installation != 0 && listed.installation != self.installation)
            || listed.routes.iter().any(|(region, (route, _))| {
                self.routes.get(&RegionId(*region)).is_some_and(|entry| route.epoch < entry.epoch)
            });
        if set_back {
            self.ambiguous = self.ambiguous.max(self.held.saturating_add(1));
        }
        if began || set_back {
            self.start_over(&listed);
        } else {
            self.revision = self.revision.max(listed.revision);
            self.difference(&listed);
        }
        self.held = page.revision;
        self.installation = listed.installation;
        self.ring.raise_floor(page.revision.max(self.ambiguous));
        set_back
    }

    fn start_over(&mut self, listed: &Listed) {
        self.era = self.era.saturating_add(1);
        self.revision = listed.revision;
        self.ring.clear();
        (self.addresses, self.labels) = (Addresses::default(), Labels::default());
        for heard in &listed.addresses {
            self.addresses.hear(heard.node, &heard.addr, heard.at);
            if let Some(ended) = heard.ended {
                self.addresses.hear_end(heard.node, ended);
            }
        }
        self.moves = self.listed_moves(listed);
        let entries = listed.routes.iter().map(|(region, (route, revision))| {
            let node = self.addresses.number(node_of(route));
            let label = self.labels.take(&route.group, 0);
            (RegionId(*region), Entry { epoch: route.epoch, revision: *revision, node, label })
        });
        self.routes = entries.collect();
    }

    fn difference(&mut self, listed: &Listed) {
        let at = self.revision;
        for heard in &listed.addresses {
            self.hear_node(heard, at);
        }
        let is_there =
            |region: &u64| listed.routes.contains_key(region) || listed.unreadable.contains(region);
        let gone: Vec<u64> =
            self.routes.keys().map(|region| region.0).filter(|region| !is_there(region)).collect();
        for region in gone {
            self.drop_route(region, at);
        }
        for (region, (route, _)) in &listed.routes {
            self.route(*region, route, at);
        }
        let moves = self.listed_moves(listed);
        let otherwise = self.moves.difference(&moves);
        self.moves = moves;
        for region in otherwise {
            self.touch(Some(region), at);
        }
    }

    fn listed_moves(&mut self, listed: &Listed) -> Moves {
        let mut moves = Moves::default();
        for (procedure, record) in &listed.procedures {
            if let Some((region, to)) = moved_by(record) {
                moves.begin(*procedure, region, self.addresses.number(to));
            }
        }
        moves
    }

    fn put(&mut self, keys: &Keys, record: &Record) {
        let at = record.mod_revision;
        if let Some(region) = keys.parse_region(&record.key) {
            if let Some(route) = read::<RouteRecord>(record) {
                self.route(region.0, &route, at);
            }
        } else if let Some(heard) = heard_in(keys, record) {
            self.hear_node(&heard, at);
        } else if let Some(procedure) = keys.parse_procedure(&record.key) {
            let region = match read::<ProcedureRecord>(record).as_ref().and_then(moved_by) {
                Some((region, to)) => {
                    let to = self.addresses.number(to);
                    self.moves.begin(procedure.0, region, to)
                }
                None => self.moves.end(procedure.0),
            };
            self.touch(region, at);
        } else if record.key == keys.installation()
            && let Some(installation) = read::<InstallationRecord>(record)
        {
            self.installation = installation.installation;
        }
    }

    fn hear_node(&mut self, heard: &Heard, at: i64) {
        let moved = self.addresses.hear(heard.node, &heard.addr, heard.at);
        let ended = heard.ended.and_then(|ended| self.addresses.hear_end(heard.node, ended));
        let Some(number) = moved.or(ended) else { return };
        for (region, entry) in self.routes.iter_mut().filter(|(_, entry)| entry.node == number) {
            entry.revision = at;
            self.ring.push(changed(region.0, entry));
        }
    }

    /// A region's state is another one from this revision on.
    fn touch(&mut self, region: Option<u64>, at: i64) {
        if let Some((region, entry)) =
            region.and_then(|region| Some((region, self.routes.get_mut(&RegionId(region))?)))
        {
            entry.revision = at;
            self.ring.push(changed(region, entry));
        }
    }

    fn route(&mut self, region: u64, route: &RouteRecord, at: i64) {
        let node = self.addresses.number(node_of(route));
        let before = self.routes.get(&RegionId(region)).copied();
        if before.is_some_and(|before| {
            before.node == node
                && before.epoch == route.epoch
                && self.labels.text(before.label) == route.group
        }) {
            return;
        }
        // Before the old one is given back: mostly they are the same.
        let label = self.labels.take(&route.group, self.ring.first());
        let entry = Entry { epoch: route.epoch, revision: at, node, label };
        self.routes.insert(RegionId(region), entry);
        self.ring.push(changed(region, &entry));
        if let Some(before) = before {
            self.labels.release(before.label, self.ring.head());
        }
    }

    fn drop_route(&mut self, region: u64, at: i64) {
        let Some(entry) = self.routes.remove(&RegionId(region)) else { return };
        self.ring.push(Change { dropped: true, ..changed(region, &Entry { revision: at, ..entry }) });
        self.labels.release(entry.label, self.ring.head());
    }

    /// A route of a cluster on the wire; nothing, where it is another cluster's.
    pub(super) fn on_wire(&self, cluster: ClusterId, region: u64, entry: &Entry) -> Option<Route> {
        let node = self.addresses.node(entry.node).filter(|node| node.cluster == cluster)?;
        // With the route, the move is over for those who write.
        let target = self.moves.target(region).filter(|target| *target != entry.node);
        let state = match target {
            _ if self.addresses.has_ended(entry.node) => RouteState::LeaderEnded,
            Some(_) => RouteState::Moving,
            None => RouteState::Serving,
        };
        let follower = target.and_then(|target| {
            let node_addr = self.addresses.addr(target).to_owned();
            Some(RouteFollower { node_id: self.addresses.node(target)?.id.0, node_addr })
        });
        Some(Route {
            region_id: region,
            node_id: node.id.0,
            node_addr: self.addresses.addr(entry.node).to_owned(),
            epoch: entry.epoch,
            group: self.labels.text(entry.label).to_owned(),
            revision: unsigned(entry.revision),
            state: state.into(),
            followers: follower.into_iter().collect(),
        })
    }

    /// Whether a change is about a region of this cluster.
    pub(super) fn is_of(&self, cluster: ClusterId, change: &Change) -> bool {
        self.addresses.node(change.node).is_some_and(|node| node.cluster == cluster)
    }
}

/// What a list says, decoded.
#[derive(Default)]
struct Listed {
    /// The highest revision of a record.
    revision: i64,
    installation: u64,
    routes: BTreeMap<u64, (RouteRecord, i64)>,
    /// Regions whose routes are there, and say nothing.
    unreadable: BTreeSet<u64>,
    addresses: Vec<Heard>,
    procedures: Vec<(u64, ProcedureRecord)>,
}

/// What a record says of a datanode.
struct Heard {
    node: NodeKey,
    addr: String,
    at: i64,
    /// Absent: that record does not say.
    ended: Option<bool>,
}

impl Listed {
    fn of(keys: &Keys, page: &Page) -> Listed {
        let mut listed = Listed::default();
        for record in &page.records {
            listed.revision = listed.revision.max(record.mod_revision);
            if let Some(region) = keys.parse_region(&record.key) {
                match read::<RouteRecord>(record) {
                    Some(route) => drop(listed.routes.insert(region.0, (route, record.mod_revision))),
                    None => drop(listed.unreadable.insert(region.0)),
                }
            } else if let Some(heard) = heard_in(keys, record) {
                listed.addresses.push(heard);
            } else if let Some(procedure) = keys.parse_procedure(&record.key) {
                listed.procedures.extend(read::<ProcedureRecord>(record).map(|record| (procedure.0, record)));
            } else if record.key == keys.installation()
                && let Some(installation) = read::<InstallationRecord>(record)
            {
                listed.installation = installation.installation;
            }
        }
        listed
    }
}

fn changed(region: u64, entry: &Entry) -> Change {
    let Entry { epoch, revision, node, label } = *entry;
    Change { revision, region, epoch, node, label, dropped: false }
}

fn node_of(route: &RouteRecord) -> NodeKey {
    NodeKey::datanode(ClusterId(route.cluster_id), NodeId(route.node_id))
}

fn heard_in(keys: &Keys, record: &Record) -> Option<Heard> {
    let (is_datanode, at) = (|node: &NodeKey| node.role == Role::Datanode, record.mod_revision);
    if let Some(node) = keys.parse_lease(&record.key).filter(is_datanode) {
        return read::<NodeLeaseRecord>(record).map(|lease| Heard {
            node,
            addr: lease.addr,
            at,
            ended: None,
        });
    }
    let node = keys.parse_node(&record.key).filter(is_datanode)?;
    let process = read::<NodeRecord>(record)?;
    Some(Heard { node, addr: process.addr, at, ended: Some(!process.ended.is_empty()) })
}

/// The region that a procedure moves, and where to.
fn moved_by(record: &ProcedureRecord) -> Option<(u64, NodeKey)> {
    match &record.kind {
        Some(Kind::Migration(migration)) => {
            let to = NodeKey::datanode(ClusterId(record.cluster_id), NodeId(migration.to_node));
            Some((migration.region_id, to))
        }
        _ => None,
    }
}

/// A record of a newer format leaves the board as it is: a new leader would refuse to lead over it, and say so.
fn read<M: Message + Default>(record: &Record) -> Option<M> {
    record::decode(record)
        .inspect_err(|error| tracing::error!(%error, "the board of routes leaves a record aside"))
        .ok()
}

/// A revision on the wire.
pub(super) fn unsigned(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}
