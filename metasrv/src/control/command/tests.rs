//! Goal: what operators ask for is checked, committed with the history of it, in force, and known to the next leader.
//! Method: leaders with their control loop on a memory store, in virtual time; nodes that are heard of and hold nothing but
//! what the store gives them.

mod failovers;
mod nodes;
mod regions;

use std::sync::Arc;
use std::time::Duration;

use metasrv_core::id::{Fence, Incarnation, NodeId, NodeKey, RegionId};
use metasrv_core::lease::LeadershipLease;
use metasrv_core::time::{BootTime, Clock};
use metasrv_proto::admin::set_failover_request::Order;
use metasrv_proto::admin::{
    AnnounceRestartRequest, CandidateRecord, CordonNodeRequest, DecommissionNodeRequest, DrainNodeRequest,
    DropRegionRequest, EventsRecord, ExplainRegionRequest, FailoverOrderRecord, GetFailoverRequest,
    MigrateRegionRequest, NodeRecord, RebalanceRequest, RouteRecord, SetFailoverRequest,
    SetMaintenanceRequest, StoredEvent,
};
use tokio::task::JoinSet;

use crate::clock::Virtual;
use crate::control::{Command, ControlError};
use crate::keys::Keys;
use crate::leader::{Candidate, CreateError, Identity, Leader, Wanted, take_over};
use crate::mailbox::HeartbeatMailbox;
use crate::pusher::{Pushers, Replaced, ResponseSender};
use crate::record::{decode, encode};
use crate::store::memory::MemoryStore;
use crate::store::{Change, Outcome, Store, Txn};

/// A store, one leader after another, and nodes.
struct World {
    store: Arc<MemoryStore>,
    pushers: Arc<Pushers>,
    /// Streams of the nodes that are connected, which nobody reads.
    streams: Vec<(tokio::sync::mpsc::Receiver<StreamItem>, Replaced)>,
    clock: Arc<dyn Clock>,
    leader: Arc<Leader>,
    _tasks: JoinSet<()>,
}

type StreamItem = Result<Box<metasrv_proto::meta::HeartbeatResponse>, tonic::Status>;

fn keys() -> Keys {
    Keys::new("/test")
}

fn node(id: u64) -> NodeKey {
    NodeKey::datanode(metasrv_core::id::ClusterId(0), NodeId(id))
}

fn process(id: u64) -> Incarnation {
    Incarnation { epoch: 7, nonce: id }
}

async fn put(store: &MemoryStore, key: String, value: Vec<u8>) -> i64 {
    let txn = Txn { compares: vec![], changes: vec![Change::Put { key, value }] };
    match store.commit(txn).await {
        Ok(Outcome::Done { revision }) => revision,
        other => panic!("{other:?}"),
    }
}

/// Wins in the place of any leader before.
async fn lead(
    store: &Arc<MemoryStore>,
    pushers: &Arc<Pushers>,
    clock: &Arc<dyn Clock>,
) -> (Arc<Leader>, JoinSet<()>) {
    let key = keys().embedded_fence();
    let delete = Txn { compares: vec![], changes: vec![Change::Delete { key: key.clone() }] };
    store.commit(delete).await.unwrap();
    let record = CandidateRecord {
        name: "one".to_owned(),
        election_ttl_ms: 5_000,
        region_lease_ms: 5_000,
        ..CandidateRecord::default()
    };
    let create_revision = put(store, key.clone(), encode(&record)).await;
    let candidate = Candidate {
        clock: clock.clone(),
        mailbox: Arc::new(HeartbeatMailbox::new(pushers.clone())),
        ..Candidate::fresh(record, store.clone(), keys())
    };
    let now = clock.now();
    let lease = Arc::new(LeadershipLease::new(BootTime::MAX, Duration::from_secs(5)));
    let prepared = take_over(candidate, Fence { key, create_revision }, lease, None).await;
    prepared.unwrap_or_else(|error| panic!("{error}")).lead(now)
}

impl World {
    /// With nodes 1..=`nodes`, each of which has so many regions, and is heard and connected.
    async fn new(nodes: u64, regions: u64) -> World {
        let store = Arc::new(MemoryStore::default());
        for id in 1..=nodes {
            let record = NodeRecord {
                node_epoch: process(id).epoch,
                incarnation_nonce: id,
                addr: "h:1".to_owned(),
                ..NodeRecord::default()
            };
            put(&store, keys().node(&node(id)), encode(&record)).await;
            for region in 1..=regions {
                let route = RouteRecord { node_id: id, epoch: 3, term: 1, ..RouteRecord::default() };
                put(&store, keys().region(RegionId(id * 100 + region)), encode(&route)).await;
            }
        }
        let pushers = Arc::new(Pushers::default());
        let clock: Arc<dyn Clock> = Arc::new(Virtual(tokio::time::Instant::now()));
        let (leader, tasks) = lead(&store, &pushers, &clock).await;
        let mut world = World { store, pushers, streams: Vec::new(), clock, leader, _tasks: tasks };
        for id in 1..=nodes {
            world.connect(id);
        }
        world.hear(1..=nodes).await;
        world
    }

    fn connect(&mut self, id: u64) -> crate::pusher::PusherId {
        let (sender, responses): (ResponseSender, _) = tokio::sync::mpsc::channel(8);
        let (registered, replaced) = self.pushers.register(node(id), process(id), sender);
        self.streams.push((responses, replaced));
        registered
    }

    async fn hear(&self, ids: impl IntoIterator<Item = u64>) {
        for id in ids {
            let (leader, patience) = (&self.leader, Duration::from_secs(1));
            let identity = leader.identify(&node(id), process(id), "h:1", None, patience).await;
            assert_eq!(identity, Identity::Current);
            leader.heard_of(&node(id), Some(process(id)), "h:1", None, self.clock.now(), 1);
        }
    }

    /// Lets time pass in which only these nodes are heard, twice a second.
    async fn pass(&self, seconds: u64, ids: impl IntoIterator<Item = u64> + Clone) {
        for _ in 0..seconds * 2 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            self.hear(ids.clone()).await;
        }
    }

    async fn change_leader(&mut self) {
        self.leader.end();
        (self.leader, self._tasks) = lead(&self.store, &self.pushers, &self.clock).await;
    }

    async fn cordon(&self, id: u64, cordoned: bool) -> Result<(), ControlError> {
        let request =
            CordonNodeRequest { node_id: id, cordoned, reason: "a test".to_owned(), ..Default::default() };
        self.leader.control().ask(|reply| Command::CordonNode(request, reply)).await.map(drop)
    }

    async fn decommission(&self, id: u64) -> Result<(), ControlError> {
        let request = DecommissionNodeRequest { node_id: id, ..Default::default() };
        self.leader.control().ask(|reply| Command::DecommissionNode(request, reply)).await.map(drop)
    }

    async fn drop_region(&self, region_id: u64) -> Result<u64, ControlError> {
        let request = DropRegionRequest { region_id, reason: "unused".to_owned() };
        let dropped = self.leader.control().ask(|reply| Command::DropRegion(request, reply)).await;
        dropped.map(|dropped| dropped.epoch)
    }

    async fn verdict(&self, region_id: u64) -> String {
        let request = ExplainRegionRequest { region_id };
        let explained = self.leader.control().ask(|reply| Command::ExplainRegion(request, reply)).await;
        explained.unwrap().verdict
    }

    async fn migrate(&self, region_id: u64, to_node: Option<u64>) -> Result<u64, ControlError> {
        let request = MigrateRegionRequest { region_id, to_node, ..Default::default() };
        let begun = self.leader.control().ask(|reply| Command::MigrateRegion(request, reply)).await;
        begun.map(|begun| begun.to_node)
    }

    async fn set_failover(
        &self,
        order: Option<Order>,
    ) -> Result<metasrv_proto::admin::GetFailoverResponse, ControlError> {
        let request = SetFailoverRequest { order, reason: "a test".to_owned() };
        self.leader.control().ask(|reply| Command::SetFailover(request, reply)).await
    }

    async fn failover(&self) -> metasrv_proto::admin::GetFailoverResponse {
        let request = GetFailoverRequest::default();
        self.leader.control().ask(|reply| Command::GetFailover(request, reply)).await.unwrap()
    }

    async fn create(&self, wanted: Wanted<'_>) -> Result<Vec<NodeKey>, CreateError> {
        let created = self.leader.create_regions(&self.pushers, &wanted).await?;
        Ok(created.into_iter().flat_map(|(node, regions)| vec![node; regions.len()]).collect())
    }

    /// All that was told, in the order of their ids.
    async fn history(&self) -> Vec<StoredEvent> {
        let page = self.store.list(&keys().timeline()).await.unwrap();
        page.records.iter().flat_map(|stored| decode::<EventsRecord>(stored).unwrap().events).collect()
    }

    async fn kinds(&self) -> Vec<String> {
        self.history().await.into_iter().map(|event| event.kind).collect()
    }
}

fn wanted(count: usize) -> Wanted<'static> {
    Wanted { cluster: metasrv_core::id::ClusterId(0), on: None, count, group: "", reason: "a test" }
}

fn refused<T: std::fmt::Debug>(result: Result<T, ControlError>, why: &str) {
    match result {
        Err(ControlError::Refused(words)) => assert!(words.contains(why), "{words:?} does not say {why:?}"),
        other => panic!("{other:?} is no refusal"),
    }
}
