//! Goal: what a leader decides in the presence of the store: who is recorded, who waits, what is raised, what a
//! successor finds. Method: leaders on a memory store, with virtual time as their clock.

mod certificate;
mod history;
mod inherited;
mod opening;
mod steady;

use super::*;
use crate::record::{decode, encode};
use crate::store::memory::MemoryStore;
use crate::store::{Change, Compare, Outcome, Record, Store, Txn};
use metasrv_core::grant::Reported;
use metasrv_core::id::{ClusterId, Epoch, RegionId, Role};
use metasrv_proto::admin::{CandidateRecord, NodeLeaseRecord, NodeRecord, RouteRecord, TermRecord};
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(1);

fn keys() -> Keys {
    Keys::new("/test")
}

fn candidate(store: &Arc<MemoryStore>) -> Candidate {
    let record = CandidateRecord {
        name: "one".to_owned(),
        election_ttl_ms: 5_000,
        region_lease_ms: 5_000,
        ..CandidateRecord::default()
    };
    Candidate::fresh(record, store.clone(), keys())
}

async fn write(store: &MemoryStore, change: Change) -> i64 {
    match store.commit(Txn { compares: vec![], changes: vec![change] }).await {
        Ok(Outcome::Done { revision }) => revision,
        other => panic!("{other:?}"),
    }
}

/// Wins: a new fence, in the place of any before it.
async fn win(store: &Arc<MemoryStore>, candidate: Candidate) -> Result<Prepared, TakeoverError> {
    let key = keys().embedded_fence();
    write(store, Change::Delete { key: key.clone() }).await;
    let value = encode(&candidate.record);
    let create_revision = write(store, Change::Put { key: key.clone(), value }).await;
    let lease = Arc::new(LeadershipLease::new(BootTime::MAX, Duration::from_secs(5)));
    take_over(candidate, Fence { key, create_revision }, lease, None).await
}

async fn lead(store: &Arc<MemoryStore>) -> (Arc<Leader>, JoinSet<()>) {
    let candidate = candidate(store);
    let now = candidate.clock.now();
    win(store, candidate).await.unwrap_or_else(|error| panic!("{error}")).lead(now)
}

fn node(id: u64) -> NodeKey {
    NodeKey::datanode(ClusterId(0), NodeId(id))
}

fn process(epoch: u64) -> Incarnation {
    Incarnation { epoch, nonce: epoch }
}

async fn identify(leader: &Leader, id: u64, epoch: u64) -> Identity {
    leader.identify(&node(id), process(epoch), "127.0.0.1:1", None, PATIENCE).await
}

/// Routes of a node, as an earlier leader left them.
async fn routes(store: &MemoryStore, id: u64, regions: std::ops::Range<u64>) {
    for region in regions {
        let route = RouteRecord { node_id: id, epoch: 3, term: 1, ..RouteRecord::default() };
        write(store, Change::Put { key: keys().region(RegionId(region)), value: encode(&route) }).await;
    }
}

async fn stored<M: prost::Message + Default>(store: &MemoryStore, key: String) -> M {
    decode(&store.get(&key).await.unwrap().unwrap()).unwrap()
}

fn reported(regions: std::ops::Range<u64>, epoch: u64) -> Vec<Reported> {
    regions.map(|region| Reported { region: RegionId(region), epoch: Epoch(epoch) }).collect()
}

#[tokio::test(start_paused = true)]
async fn a_process_is_recorded_before_it_is_granted_anything() {
    let store = Arc::new(MemoryStore::default());
    routes(&store, 1, 1..4).await;
    let (leader, _tasks) = lead(&store).await;
    assert!(
        leader.grant(&node(1), process(7), reported(1..4, 3)).is_none(),
        "granted before it was recorded"
    );
    assert_eq!(identify(&leader, 1, 7).await, Identity::Current);
    let record: NodeRecord = stored(&store, keys().node(&node(1))).await;
    assert_eq!((record.node_epoch, record.incarnation_nonce), (7, 7));
    let granted = leader.grant(&node(1), process(7), reported(1..4, 3)).unwrap();
    assert_eq!(granted.renewed, reported(1..4, 3));
    assert!(leader.grant(&node(1), process(8), reported(1..4, 3)).is_none(), "another process");
    leader.stop_granting();
    assert!(leader.grant(&node(1), process(7), reported(1..4, 3)).is_none(), "granted after it had stopped");
}

#[tokio::test(start_paused = true)]
async fn a_successor_waits_for_the_lease_and_gets_raised_epochs() {
    let store = Arc::new(MemoryStore::default());
    routes(&store, 1, 1..301).await;
    let (leader, _tasks) = lead(&store).await;
    assert_eq!(identify(&leader, 1, 7).await, Identity::Current);
    assert!(leader.grant(&node(1), process(7), reported(1..301, 3)).is_some());
    let granted_at = leader.clock().now();
    assert_eq!(identify(&leader, 1, 8).await, Identity::Waiting);
    assert!(leader.grant(&node(1), process(7), reported(1..301, 3)).is_none(), "the predecessor is done");
    assert_eq!(identify(&leader, 1, 7).await, Identity::Stale(8));
    while identify(&leader, 1, 8).await != Identity::Current {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(leader.clock().now().since(granted_at) >= leader.timing().grant_wait());
    for region in 1..301 {
        let route: RouteRecord = stored(&store, keys().region(RegionId(region))).await;
        assert_eq!(route.epoch, 4);
    }
    let granted = leader.grant(&node(1), process(8), reported(1..301, 3)).unwrap();
    assert_eq!((granted.renewed, granted.to_open), (vec![], reported(1..301, 4)), "opened anew, not renewed");
}

#[tokio::test(start_paused = true)]
async fn many_nodes_are_recorded_and_one_with_a_meddled_record_holds_nobody_up() {
    let store = Arc::new(MemoryStore::default());
    let (leader, _tasks) = lead(&store).await;
    // Somebody writes a record that only the leader should write, of a process that is newer than the node's.
    let meddled = NodeRecord { node_epoch: 9, incarnation_nonce: 9, ..NodeRecord::default() };
    write(&store, Change::Put { key: keys().node(&node(5)), value: encode(&meddled) }).await;
    let all = async || {
        let asked = (1..=300).map(|id| identify(&leader, id, 7));
        futures_util::future::join_all(asked).await
    };
    let first = all().await;
    assert!(first.contains(&Identity::Current), "nobody at all was recorded");
    let second = all().await;
    for (id, identity) in (1..=300).zip(second) {
        let expected = if id == 5 { Identity::Stale(9) } else { Identity::Current };
        assert_eq!(identity, expected, "node {id}");
    }
}

#[tokio::test(start_paused = true)]
async fn routes_that_were_set_back_are_raised_above_what_the_node_holds() {
    let store = Arc::new(MemoryStore::default());
    routes(&store, 1, 1..3).await;
    let (leader, _tasks) = lead(&store).await;
    assert_eq!(identify(&leader, 1, 7).await, Identity::Current);
    let granted = leader.grant(&node(1), process(7), reported(1..3, 10)).unwrap();
    assert_eq!(granted.renewed, [], "renewed under an epoch that is not committed");
    while leader.nodes().get(&node(1)).unwrap().recording {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let granted = leader.grant(&node(1), process(7), reported(1..3, 10)).unwrap();
    assert_eq!(granted.to_open, reported(1..3, 11));
    let granted = leader.grant(&node(1), process(7), reported(1..3, 11)).unwrap();
    assert_eq!(granted.renewed, reported(1..3, 11));
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_fence_is_gone_records_nobody_and_ends() {
    let store = Arc::new(MemoryStore::default());
    let (leader, _tasks) = lead(&store).await;
    write(&store, Change::Delete { key: keys().embedded_fence() }).await;
    assert_eq!(identify(&leader, 1, 7).await, Identity::Waiting);
    assert!(!leader.leads(leader.clock().now()));
    assert_eq!(store.get(&keys().node(&node(1))).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn a_successor_waits_by_how_its_predecessor_ended() {
    let store = Arc::new(MemoryStore::default());
    let waits = |leader: &Leader| leader.settled_at.since(leader.clock().now());
    let (first, _tasks) = lead(&store).await;
    assert_eq!(waits(&first), Duration::ZERO);
    first.end();
    let (second, _tasks) = lead(&store).await;
    assert_eq!((second.term(), waits(&second)), (Term(2), first.timing().takeover_wait()));
    // It resigns before that is over; what the first may have granted is still not over.
    second.end();
    let (fence, record, revision) = second.last_will().await;
    let resigned = resign(store.as_ref(), &keys(), &fence, Some((record, revision)), None).await;
    assert!(matches!(resigned, Resignation::Done), "{resigned:?}");
    let (third, _tasks) = lead(&store).await;
    assert_eq!(waits(&third), first.timing().takeover_wait());
    tokio::time::sleep(first.timing().takeover_wait() + Duration::from_millis(100)).await;
    let record: TermRecord = stored(&store, keys().term_record(Term(3))).await;
    assert_eq!(record.settled_below, 3, "it is recorded that earlier terms are over");
    third.end();
    let (fence, record, revision) = third.last_will().await;
    resign(store.as_ref(), &keys(), &fence, Some((record, revision)), None).await;
    let (fourth, _tasks) = lead(&store).await;
    assert_eq!(waits(&fourth), first.timing().grant_wait(), "only what the third granted");
    let resigned_twice = resign(store.as_ref(), &keys(), &fence, None, None).await;
    assert!(matches!(resigned_twice, Resignation::FenceGone), "{resigned_twice:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_known_from_its_lease_alone_is_known_but_holds_nothing() {
    let store = Arc::new(MemoryStore::default());
    let lease =
        NodeLeaseRecord { addr: "h:1".to_owned(), node_epoch: 7, term: 1, ..NodeLeaseRecord::default() };
    write(&store, Change::Put { key: keys().lease(&node(1)), value: encode(&lease) }).await;
    write(&store, Change::Put { key: keys().lease(&node(2)), value: b"garbage".to_vec() }).await;
    let (leader, _tasks) = lead(&store).await;
    {
        let known = leader.nodes().get(&node(1)).unwrap();
        assert_eq!((known.addr.as_str(), known.process.map(|process| process.epoch)), ("h:1", Some(7)));
        assert_eq!(known.holder.current(), None, "nothing may be granted to it before it is recorded");
    }
    // Both are heard of, and their leases, readable or not, are replaced.
    for id in [1, 2] {
        leader.heard_of(&node(id), Some(process(7)), "h:2", None, leader.clock().now(), 1);
    }
    leader.drain(PATIENCE).await;
    for id in [1, 2] {
        let record: NodeLeaseRecord = stored(&store, keys().lease(&node(id))).await;
        assert_eq!((record.addr.as_str(), record.term), ("h:2", 1));
    }
}

#[tokio::test(start_paused = true)]
async fn frontends_are_known_to_the_next_leader_and_forgotten_when_they_left_or_did_not_come_back() {
    let store = Arc::new(MemoryStore::default());
    let frontend = |id| NodeKey { role: Role::Frontend, ..node(id) };
    let heard =
        |leader: &Leader, key: NodeKey| leader.heard_of(&key, None, "h:1", None, leader.clock().now(), 1);
    let leased = async || store.list(&keys().leases()).await.unwrap().records.len();
    let (first, _tasks) = lead(&store).await;
    let ids: Vec<NodeKey> = (0..4).map(|_| frontend(first.frontend_id().0)).collect();
    for key in ids.iter().chain([&node(1)]) {
        heard(&first, *key);
    }
    first.drain(PATIENCE).await;
    assert_eq!(leased().await, 5);
    for key in [ids[3], node(1)] {
        first.left(&key);
    }
    first.drain(PATIENCE).await;
    assert_eq!(leased().await, 4, "the frontend that left is forgotten, the datanode is not");
    first.end();
    first.left(&ids[2]);
    let (second, _tasks) = lead(&store).await;
    assert_eq!(second.nodes().len(), 4, "streams that ended with the term are no reason to forget");
    heard(&second, ids[0]);
    tokio::time::sleep(second.timing().takeover_wait() + Duration::from_secs(1)).await;
    assert_eq!(second.nodes().len(), 2, "those that did not come back are forgotten");
    assert!(second.nodes().contains_key(&ids[0]) && second.nodes().contains_key(&node(1)));
    assert_eq!(leased().await, 2);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_understood_is_not_led() {
    let garbage = b"\xffgarbage".to_vec();
    let route = |key: String| Change::Put { key, value: garbage.clone() };
    for change in [
        route(keys().region(RegionId(1))),
        route(keys().node(&node(1))),
        route(keys().term_current()),
        route(keys().installation()),
        route(keys().region_sequence()),
        route(format!("{}zzz", keys().regions())),
        route(format!("{}zzz", keys().nodes())),
    ] {
        let store = Arc::new(MemoryStore::default());
        write(&store, change.clone()).await;
        assert!(win(&store, candidate(&store)).await.is_err(), "led in spite of {change:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_is_given_once_also_where_the_counter_was_meddled_with() {
    let store = Arc::new(MemoryStore::default());
    let pushers = crate::pusher::Pushers::default();
    let (leader, _tasks) = lead(&store).await;
    assert_eq!(identify(&leader, 1, 7).await, Identity::Current);
    let (sender, _responses) = mpsc::channel(1);
    let _registered = pushers.register(node(1), process(7), sender);
    let wanted = Wanted { cluster: ClusterId(0), on: None, count: 3, group: "", reason: "for a test" };
    let create = async || leader.create_regions(&pushers, &wanted).await;
    let ids = |created: std::collections::BTreeMap<NodeKey, Vec<Reported>>| {
        created.into_values().flatten().map(|region| region.region.0).collect::<Vec<_>>()
    };
    assert_eq!(ids(create().await.unwrap()), [1, 2, 3]);
    let counter = metasrv_proto::admin::CounterRecord { value: 1 };
    write(&store, Change::Put { key: keys().region_sequence(), value: encode(&counter) }).await;
    assert!(create().await.is_err(), "written over what somebody else had changed");
    assert_eq!(ids(create().await.unwrap()), [4, 5, 6], "never back");
}

#[tokio::test(start_paused = true)]
async fn taking_over_publishes_the_term_in_the_key_and_keeps_the_fence() {
    let store = Arc::new(MemoryStore::default());
    let (leader, _tasks) = lead(&store).await;
    let compare =
        Compare::CreateRevision { key: leader.fence.key.clone(), revision: leader.fence.create_revision };
    let found: Option<Record> = store.get(&leader.fence.key).await.unwrap();
    assert!(compare.holds(found.as_ref()), "taking over changed the fence itself");
    let published: CandidateRecord = decode(&found.unwrap()).unwrap();
    assert_eq!(published.term, leader.term().0, "the key says which term is led");
}
