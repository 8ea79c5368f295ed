//! For tests: a reader that does what docs/routes.md asks of one, and nothing more, and a store that is made of events.

use std::collections::BTreeMap;

use metasrv_core::id::{ClusterId, NodeId, NodeKey, RegionId};
use metasrv_core::procedure::ProcedureId;
use metasrv_proto::admin::procedure_record::Kind;
use metasrv_proto::admin::{
    InstallationRecord, MigrationRecord, NodeRecord, ProcedureRecord, RouteRecord, RouteState,
    WatchRoutesResponse,
};
use prost::Message;

use super::board::Board;
use super::cursor::{Cursor, Next};
use crate::keys::Keys;
use crate::mirror::state::Event;
use crate::record::encode;
use crate::store::{Page, Record};

/// The installation of every test.
pub const INSTALLATION: u64 = 7;

pub fn keys() -> Keys {
    Keys::new("/m")
}

/// What a reader knows of a region: its node, the address, the epoch, the label, how it stands, where it is being moved to.
pub type Known = (u64, String, u64, String, RouteState, Option<u64>);

/// A store whose changes are kept as events.
#[derive(Clone, Default)]
pub struct Events {
    pub revision: i64,
    records: BTreeMap<String, Record>,
    pub log: Vec<Event>,
}

impl Events {
    pub fn new() -> Events {
        let mut events = Events::default();
        events
            .put(keys().installation(), &InstallationRecord { installation: INSTALLATION, created_at_ms: 0 });
        events
    }

    pub fn put<M: Message>(&mut self, key: String, value: &M) {
        self.revision += 1;
        let record = Record { key, value: encode(value), create_revision: 1, mod_revision: self.revision };
        self.records.insert(record.key.clone(), record.clone());
        self.log.push(Event::Put(record));
    }

    /// What happened before, once more.
    pub fn replay(&mut self, log: &[Event]) {
        for event in log {
            match event {
                Event::Put(record) => drop(self.records.insert(record.key.clone(), record.clone())),
                Event::Deleted { key, .. } => drop(self.records.remove(key)),
            }
            self.revision = event.revision();
            self.log.push(event.clone());
        }
    }

    /// A route of cluster 0.
    pub fn route(&mut self, region: u64, node_id: u64, epoch: u64, group: &str) {
        let route = RouteRecord { node_id, epoch, group: group.to_owned(), ..RouteRecord::default() };
        self.put(keys().region(RegionId(region)), &route);
    }

    pub fn drop_route(&mut self, region: u64) {
        self.delete(keys().region(RegionId(region)));
    }

    fn delete(&mut self, key: String) {
        self.revision += 1;
        self.records.remove(&key);
        self.log.push(Event::Deleted { key, revision: self.revision });
    }

    /// A process of a node is at this address.
    pub fn address(&mut self, node: u64, addr: &str) {
        let node = NodeKey::datanode(ClusterId(0), NodeId(node));
        self.put(keys().node(&node), &NodeRecord { addr: addr.to_owned(), ..NodeRecord::default() });
    }

    /// The process of a node has ended.
    pub fn end(&mut self, node: u64) {
        let key = keys().node(&NodeKey::datanode(ClusterId(0), NodeId(node)));
        let record = self.records.get(&key).map(|record| crate::record::decode(record).unwrap());
        self.put(key, &NodeRecord { ended: "signal 9".to_owned(), ..record.unwrap_or_default() });
    }

    /// A migration of a region, which has the region's number, stands there.
    pub fn migrate(&mut self, region_id: u64, to_node: u64) {
        let migration = MigrationRecord { region_id, to_node, ..Default::default() };
        let record = ProcedureRecord { kind: Some(Kind::Migration(migration)), ..Default::default() };
        self.put(keys().procedure(ProcedureId(region_id)), &record);
    }

    /// It is over.
    pub fn migrated(&mut self, region: u64) {
        self.delete(keys().procedure(ProcedureId(region)));
    }

    pub fn page(&self) -> Page {
        Page { records: self.records.values().cloned().collect(), revision: self.revision }
    }

    /// The events after a revision.
    pub fn after(&self, revision: i64) -> &[Event] {
        &self.log[self.log.partition_point(|event| event.revision() <= revision)..]
    }

    /// Every route, as a reader should know it.
    pub fn truth(&self) -> BTreeMap<u64, Known> {
        let (mut nodes, mut moves) = (BTreeMap::new(), BTreeMap::new());
        for record in self.records.values() {
            if let Some(node) = keys().parse_node(&record.key) {
                let process: NodeRecord = crate::record::decode(record).unwrap();
                nodes.insert(node.id.0, process);
            } else if keys().parse_procedure(&record.key).is_some() {
                let record: ProcedureRecord = crate::record::decode(record).unwrap();
                let Some(Kind::Migration(migration)) = record.kind else { continue };
                moves.insert(migration.region_id, migration.to_node);
            }
        }
        let routes = self.records.values().filter_map(|record| {
            let region = keys().parse_region(&record.key)?;
            let route: RouteRecord = crate::record::decode(record).unwrap();
            let node = nodes.get(&route.node_id).cloned().unwrap_or_default();
            let target = moves.get(&region.0).copied().filter(|target| *target != route.node_id);
            let state = match target {
                _ if !node.ended.is_empty() => RouteState::LeaderEnded,
                Some(_) => RouteState::Moving,
                None => RouteState::Serving,
            };
            Some((region.0, (route.node_id, node.addr, route.epoch, route.group, state, target)))
        });
        routes.collect()
    }

    /// Brings a board up to date with every change since it was.
    pub fn tell(&self, board: &mut Board) {
        board.apply(&keys(), self.after(board.held)).unwrap();
    }
}

/// See the module.
#[derive(Default)]
pub struct Reader {
    pub routes: BTreeMap<u64, Known>,
    pub revision: u64,
    /// What a snapshot has brought so far.
    staged: Option<BTreeMap<u64, Known>>,
    pub complete: bool,
    pub snapshots: usize,
    /// Every (region, epoch) in the order in which it was told.
    pub told: Vec<(u64, u64)>,
}

impl Reader {
    pub fn take(&mut self, message: &WatchRoutesResponse) {
        assert_eq!(message.installation, INSTALLATION);
        if message.snapshot && self.staged.is_none() {
            self.staged = Some(BTreeMap::new());
            self.snapshots += 1;
        }
        assert!(message.snapshot || self.staged.is_none(), "a snapshot goes on to its end");
        let routes = self.staged.as_mut().unwrap_or(&mut self.routes);
        for route in &message.changed {
            let follower = route.followers.first().map(|follower| follower.node_id);
            let (addr, group) = (route.node_addr.clone(), route.group.clone());
            let known = (route.node_id, addr, route.epoch, group, route.state(), follower);
            let before = routes.insert(route.region_id, known);
            assert!(before.is_none_or(|before| before.2 <= route.epoch), "an epoch went back: {route:?}");
            self.told.push((route.region_id, route.epoch));
        }
        for region in &message.dropped_region_ids {
            routes.remove(region);
        }
        self.complete = message.complete;
        if message.complete
            && let Some(staged) = self.staged.take()
        {
            self.routes = staged;
        }
        assert!(self.staged.is_none() || message.revision == 0, "half a snapshot has no revision");
        if message.revision > 0 {
            self.revision = message.revision;
        }
    }

    /// The stream broke.
    pub fn disconnect(&mut self) {
        self.staged = None;
    }

    /// Reads until there is nothing more, or the snapshot cannot be finished.
    pub fn drain(&mut self, board: &Board, cursor: &mut Cursor) -> Next {
        loop {
            match board.advance(cursor) {
                Next::Message(message) => self.take(&message),
                other => return other,
            }
        }
    }

    /// Begins where it was.
    pub fn connect(&mut self, board: &Board) -> Cursor {
        self.disconnect();
        board.begin(ClusterId(0), i64::try_from(self.revision).unwrap(), INSTALLATION).0
    }
}
