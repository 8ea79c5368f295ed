//! The store, one leader after another, and datanodes that live beside them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use metasrv_core::id::{Fence, Incarnation, RegionId};
use metasrv_core::lease::LeadershipLease;
use metasrv_core::time::{BootTime, Clock};
use metasrv_proto::admin::{
    CancelProcedureRequest, CandidateRecord, EventsRecord, ListProceduresRequest, MigrateRegionRequest,
    NodeRecord, ProcedureRecord, ProcedureView, RouteRecord, StoredEvent,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::datanode::Datanode;
use super::shared::{HEARTBEAT, Shared, live, lock};
use super::store::Faulty;
use super::{FIRST, REGION, keys, millis, node, process};
use crate::clock::Virtual;
use crate::control::{Command, ControlError};
use crate::leader::{Candidate, Leader, take_over};
use crate::mailbox::HeartbeatMailbox;
use crate::pusher::{Pushers, Replaced};
use crate::record::{decode, encode};
use crate::store::{Change, Outcome, Store, Txn};

/// Longer than any migration of these tests may take.
const LONG: Duration = Duration::from_secs(150);

/// See the module.
pub(super) struct World {
    shared: Arc<Shared>,
    pushers: Arc<Pushers>,
    _leader_tasks: JoinSet<()>,
    node_tasks: JoinSet<()>,
    _replaced: Vec<Replaced>,
}

async fn put(store: &Faulty, key: String, value: Vec<u8>) -> i64 {
    let txn = Txn { compares: vec![], changes: vec![Change::Put { key, value }] };
    match store.inner.commit(txn).await {
        Ok(Outcome::Done { revision }) => revision,
        other => panic!("{other:?}"),
    }
}

/// Wins in the place of any leader before.
async fn lead(
    store: &Arc<Faulty>,
    mailbox: &Arc<HeartbeatMailbox>,
    clock: &Arc<dyn Clock>,
) -> (Arc<Leader>, JoinSet<()>) {
    let key = keys().embedded_fence();
    let delete = Txn { compares: vec![], changes: vec![Change::Delete { key: key.clone() }] };
    store.inner.commit(delete).await.unwrap();
    let record = CandidateRecord {
        name: "one".to_owned(),
        election_ttl_ms: 5_000,
        region_lease_ms: 5_000,
        ..CandidateRecord::default()
    };
    let create_revision = put(store, key.clone(), encode(&record)).await;
    let candidate = Candidate {
        clock: clock.clone(),
        mailbox: Arc::clone(mailbox),
        ..Candidate::fresh(record, store.clone(), keys())
    };
    let now = clock.now();
    let lease = Arc::new(LeadershipLease::new(BootTime::MAX, Duration::from_secs(5)));
    let prepared = take_over(candidate, Fence { key, create_revision }, lease, None).await;
    prepared.unwrap_or_else(|error| panic!("{error}")).lead(now)
}

impl World {
    /// With nodes 1..=`nodes`, of which the first has regions 101..=100 + `regions`.
    pub(super) async fn new(nodes: u64, regions: u64) -> World {
        let store = Arc::new(Faulty::default());
        for id in 1..=nodes {
            let record = NodeRecord {
                node_epoch: process(id).epoch,
                incarnation_nonce: process(id).nonce,
                addr: "h:1".to_owned(),
                ..NodeRecord::default()
            };
            put(&store, keys().node(&node(id)), encode(&record)).await;
        }
        let of_first = (1..=regions).map(|region| RegionId(100 + region));
        for region in of_first.clone() {
            let route = RouteRecord { node_id: 1, epoch: FIRST, term: 1, ..RouteRecord::default() };
            put(&store, keys().region(region), encode(&route)).await;
        }
        let pushers = Arc::new(Pushers::default());
        let mailbox = Arc::new(HeartbeatMailbox::new(Arc::clone(&pushers)));
        let clock: Arc<dyn Clock> = Arc::new(Virtual(tokio::time::Instant::now()));
        let (leader, leader_tasks) = lead(&store, &mailbox, &clock).await;
        let of = |id| of_first.clone().filter(move |_| id == 1);
        let datanodes = (1..=nodes).map(|id| (id, Datanode::leading(of(id), process(id)))).collect();
        let shared = Arc::new(Shared {
            store,
            clock,
            leading: Mutex::new((leader, mailbox)),
            nodes: Mutex::new(datanodes),
            broken: Mutex::default(),
            in_gap: Mutex::default(),
            most: Mutex::default(),
            most_gaps: Mutex::default(),
        });
        let (mut node_tasks, mut replaced) = (JoinSet::new(), Vec::new());
        for id in 1..=nodes {
            let (sender, responses) = mpsc::channel(64);
            replaced.push(pushers.register(node(id), process(id), sender).1);
            node_tasks.spawn(live(Arc::clone(&shared), id, responses));
        }
        let world = World { shared, pushers, _leader_tasks: leader_tasks, node_tasks, _replaced: replaced };
        // What earlier terms may have granted is over, and everybody was heard, at other moments than those of the test.
        tokio::time::sleep(millis(20_050)).await;
        world
    }

    pub(super) fn leader(&self) -> Arc<Leader> {
        self.shared.leading().0
    }

    pub(super) fn now(&self) -> BootTime {
        self.shared.clock.now()
    }

    pub(super) fn store(&self) -> Arc<Faulty> {
        Arc::clone(&self.shared.store)
    }

    /// Another process takes the place of a datanode's, and has nothing open.
    pub(super) fn restart(&mut self, id: u64) {
        let process = Incarnation { epoch: 8, nonce: 100 + id };
        let (sender, responses) = mpsc::channel(64);
        self._replaced.push(self.pushers.register(node(id), process, sender).1);
        self.datanode(id, |node| *node = Datanode::leading(std::iter::empty(), process));
        self.node_tasks.spawn(live(Arc::clone(&self.shared), id, responses));
    }

    /// Another leader goes on from what is stored.
    pub(super) async fn change_leader(&mut self) {
        self.leader().end();
        let mailbox = Arc::new(HeartbeatMailbox::new(Arc::clone(&self.pushers)));
        let (leader, tasks) = lead(&self.shared.store, &mailbox, &self.shared.clock).await;
        self._leader_tasks = tasks;
        *lock(&self.shared.leading) = (leader, mailbox);
    }

    /// Changes how a datanode behaves.
    pub(super) fn datanode<T>(&self, id: u64, change: impl FnOnce(&mut Datanode) -> T) -> T {
        change(lock(&self.shared.nodes).get_mut(&id).unwrap())
    }

    /// No datanode carries out or answers this.
    pub(super) fn ignore(&self, instruction: &'static str) {
        for node in lock(&self.shared.nodes).values_mut() {
            node.ignores.insert(instruction);
        }
    }

    /// All datanodes carry out everything again.
    pub(super) fn ignore_nothing(&self) {
        lock(&self.shared.nodes).values_mut().for_each(|node| node.ignores.clear());
    }

    pub(super) async fn ask<T>(
        &self,
        make: impl FnOnce(crate::control::Reply<T>) -> Command,
    ) -> Result<T, ControlError> {
        self.leader().control().ask(make).await
    }

    /// Begins to move [`REGION`] from node 1 to node 2.
    pub(super) async fn migrate(&self) -> u64 {
        let request =
            MigrateRegionRequest { region_id: REGION.0, to_node: Some(2), reason: "a test".to_owned() };
        let begun = self.ask(|reply| Command::MigrateRegion(request, reply)).await.unwrap();
        assert_eq!((begun.from_node, begun.to_node), (1, 2));
        begun.procedure_id
    }

    /// Whether this would begin.
    pub(super) async fn try_migrate(
        &self,
        region: RegionId,
        to_node: Option<u64>,
    ) -> Result<(), ControlError> {
        let request =
            MigrateRegionRequest { region_id: region.0, to_node, ..MigrateRegionRequest::default() };
        self.ask(|reply| Command::MigrateRegion(request, reply)).await.map(drop)
    }

    pub(super) async fn cancel(&self, id: u64) -> Result<(), ControlError> {
        let request = CancelProcedureRequest { id, reason: "no more".to_owned() };
        self.ask(|reply| Command::CancelProcedure(request, reply)).await.map(drop)
    }

    pub(super) async fn listed(&self) -> Vec<ProcedureView> {
        let request = ListProceduresRequest::default();
        self.ask(|reply| Command::ListProcedures(request, reply)).await.unwrap().procedures
    }

    /// Waits until the leader has a migration in this state.
    pub(super) async fn reaches(&self, state: &str) {
        let is_there = |view: &ProcedureView| view.kind == "migration" && view.state == state;
        let reached = async {
            while !self.listed().await.iter().any(is_there) {
                tokio::time::sleep(millis(1)).await;
            }
        };
        let reached = tokio::time::timeout(LONG, reached).await;
        assert!(reached.is_ok(), "{state} was not reached: {:?}", self.shared.procedures().await);
    }

    /// The states in which migrations are stored.
    pub(super) async fn stored_states(&self) -> Vec<String> {
        self.shared.migrations().await.into_iter().map(|migration| migration.state).collect()
    }

    /// The stream of a datanode ends; it is heard all the same.
    pub(super) fn disconnect(&self, id: u64) {
        let (sender, _) = mpsc::channel(1);
        let (pusher, _) = self.pushers.register(node(id), process(id), sender);
        assert!(self.pushers.unregister(&node(id), pusher));
    }

    /// A datanode has a stream again.
    pub(super) fn connect(&mut self, id: u64) {
        let (sender, responses) = mpsc::channel(64);
        self._replaced.push(self.pushers.register(node(id), process(id), sender).1);
        self.node_tasks.spawn(live(Arc::clone(&self.shared), id, responses));
        self.leader().connected(&node(id));
    }

    /// Waits until no procedure is stored any more.
    pub(super) async fn all_ended(&self) {
        let ended = async {
            while !self.shared.procedures().await.is_empty() {
                tokio::time::sleep(millis(5)).await;
            }
        };
        let stored = tokio::time::timeout(LONG, ended).await;
        assert!(stored.is_ok(), "not ended: {:?}", self.shared.procedures().await);
    }

    /// Node and epoch, by what is stored.
    pub(super) async fn route(&self, region: RegionId) -> (u64, u64) {
        self.shared.route(region).await
    }

    /// The record of the one procedure that there is, with its key.
    pub(super) async fn record(&self) -> (String, ProcedureRecord) {
        let page = self.shared.store.list(&keys().procedures()).await.unwrap();
        let [stored] = page.records.as_slice() else { panic!("{:?}", page.records) };
        (stored.key.clone(), decode(stored).unwrap())
    }

    /// Somebody else than the leader writes this. Returns its revision.
    pub(super) async fn meddle(&self, key: String, value: Vec<u8>) -> i64 {
        put(&self.shared.store, key, value).await
    }

    pub(super) async fn stored(&self, key: &str) -> bool {
        self.shared.store.get(key).await.unwrap().is_some()
    }

    /// All that was told, in the order of their ids.
    pub(super) async fn history(&self) -> Vec<StoredEvent> {
        let page = self.shared.store.list(&keys().timeline()).await.unwrap();
        page.records.iter().flat_map(|stored| decode::<EventsRecord>(stored).unwrap().events).collect()
    }

    pub(super) async fn kinds(&self) -> Vec<String> {
        self.history().await.into_iter().map(|event| event.kind).collect()
    }

    /// When this was first told to a node.
    pub(super) fn told(&self, id: u64, instruction: &str) -> Option<BootTime> {
        let of = |told: &&(BootTime, &'static str, RegionId)| told.1 == instruction;
        lock(&self.shared.nodes)[&id].told.iter().find(of).map(|told| told.0)
    }

    /// Heartbeats that were answered while a region had no writer.
    pub(super) fn heartbeats_in_gap(&self) -> usize {
        *lock(&self.shared.in_gap)
    }

    /// Most migrations that one node took part in at a time.
    pub(super) fn most_at_once(&self) -> usize {
        *lock(&self.shared.most)
    }

    /// Most regions of one node that were without a writer at a time.
    pub(super) fn most_gaps(&self) -> usize {
        *lock(&self.shared.most_gaps)
    }

    /// Lets two heartbeats pass. Then this node, and nobody else, writes to [`REGION`]; nothing was ever granted that should
    /// not be, and nothing is held back any more.
    pub(super) async fn check(&mut self, writer: u64) {
        tokio::time::sleep(HEARTBEAT * 3).await;
        let now = self.now();
        let nodes = lock(&self.shared.nodes);
        let writers: Vec<u64> =
            nodes.iter().filter(|(_, node)| node.writes(REGION, now)).map(|(id, _)| *id).collect();
        drop(nodes);
        assert_eq!(writers, [writer], "who writes");
        assert_eq!(*lock(&self.shared.broken), Vec::<String>::new());
        for entry in self.leader().nodes() {
            let held = (entry.regions.withheld(), &entry.kept_open, entry.watched.keys().collect::<Vec<_>>());
            assert!(held.0.is_empty() && held.1.is_empty() && held.2.is_empty(), "{}: {held:?}", entry.key());
        }
        assert!(self.node_tasks.try_join_next().is_none(), "a datanode of this test has ended");
    }
}
