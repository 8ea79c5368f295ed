//! A store that fits together has no findings; each test spoils it in one way.

use metasrv_core::id::{ClusterId, Epoch, Incarnation, NodeId, NodeKey, RegionId, Term};
use metasrv_core::procedure::ProcedureId;
use metasrv_core::procedure::drain::Drain;
use metasrv_core::procedure::migrate::{Migration, State, Why};
use metasrv_proto::admin::{
    CandidateRecord, CounterRecord, EventsRecord, FailoverOrderRecord, InstallationRecord, NodeLeaseRecord,
    NodeOrderRecord, NodeRecord, RouteRecord, SpareRecord, StatsRecord, TermRecord,
};
use prost::Message;

use super::check_store;
use crate::control::procedures::record::{Stored, StoredDrain, StoredMigration};
use crate::keys::Keys;
use crate::record::encode;
use crate::store::memory::MemoryStore;
use crate::store::{Change, Store, Txn};

const CLUSTER: ClusterId = ClusterId(1);
const TERM: u64 = 3;

/// Terms 1 to 3, nodes 1 to 3, regions 1 to 3 on the nodes of the same number, a migration of region 2, a drain of node 3.
struct Stock {
    store: MemoryStore,
    keys: Keys,
}

fn node(id: u64) -> NodeKey {
    NodeKey::datanode(CLUSTER, NodeId(id))
}

fn migration(region: u64, state: State) -> Stored {
    Stored::Migration(StoredMigration {
        cluster: CLUSTER,
        started_ms: 1,
        drain: None,
        migration: Migration {
            id: ProcedureId(1),
            region: RegionId(region),
            from: NodeId(2),
            leader: Incarnation { epoch: 1, nonce: 2 },
            to: NodeId(3),
            candidate: Some(Incarnation { epoch: 1, nonce: 3 }),
            epoch: Epoch(5),
            state,
            reason: String::new(),
        },
    })
}

impl Stock {
    async fn sound() -> Stock {
        let stock = Stock { store: MemoryStore::default(), keys: Keys::new("/m") };
        let keys = stock.keys.clone();
        stock.put(keys.term_current(), &CounterRecord { value: TERM }).await;
        stock.put(keys.region_sequence(), &CounterRecord { value: 3 }).await;
        stock.put(keys.installation(), &InstallationRecord::default()).await;
        let candidate = CandidateRecord { term: TERM, ..Default::default() };
        stock.put(format!("{}/694d7c", keys.election()), &candidate).await;
        for term in 1..=TERM {
            stock.put(keys.term_record(Term(term)), &TermRecord { term, ..Default::default() }).await;
        }
        stock.put(keys.term_spare(Term(TERM)), &SpareRecord::default()).await;
        for id in 1..=3 {
            let record = NodeRecord { node_epoch: 1, term: TERM, ..Default::default() };
            stock.put(keys.node(&node(id)), &record).await;
            stock.route(id, id, 5).await;
        }
        let lease = NodeLeaseRecord { term: TERM, ..Default::default() };
        stock.put(keys.lease(&node(1)), &lease).await;
        stock.put(keys.stats(&node(1)), &StatsRecord { term: TERM, ..Default::default() }).await;
        let order = NodeOrderRecord { cordoned: true, term: TERM, ..Default::default() };
        stock.put(keys.node_order(&node(3)), &order).await;
        stock.put(keys.failover_order(), &FailoverOrderRecord { term: TERM, ..Default::default() }).await;
        stock.procedure(1, &migration(2, State::Flushing)).await;
        stock.procedure(2, &drain(3)).await;
        let entry = EventsRecord { term: TERM, ..Default::default() };
        stock.put(keys.timeline_entry((TERM << 32) | 1), &entry).await;
        stock
    }

    async fn put(&self, key: String, value: &impl Message) {
        self.put_bytes(key, encode(value)).await;
    }

    async fn put_bytes(&self, key: String, value: Vec<u8>) {
        self.change(Change::Put { key, value }).await;
    }

    async fn change(&self, change: Change) {
        self.store.commit(Txn { compares: Vec::new(), changes: vec![change] }).await.unwrap();
    }

    async fn route(&self, region: u64, node_id: u64, epoch: u64) {
        let route = RouteRecord { cluster_id: 1, node_id, epoch, term: TERM, ..Default::default() };
        self.put(self.keys.region(RegionId(region)), &route).await;
    }

    /// Numbers begin anew with each term.
    async fn procedure(&self, serial: u64, procedure: &Stored) {
        let id = (TERM << 32) | serial;
        let record = metasrv_proto::admin::ProcedureRecord { id, ..procedure.to_record(TERM) };
        self.put(self.keys.procedure(ProcedureId(id)), &record).await;
    }

    /// What is found, as `KEY: WHAT` without the prefix.
    async fn findings(&self) -> Vec<String> {
        let found = check_store(&self.store, &self.keys).await.unwrap().findings;
        found.iter().map(|it| format!("{}: {}", it.key.trim_start_matches("/m/v1/"), it.what)).collect()
    }

    /// Exactly one thing is found, and says these words.
    async fn has_one(&self, key: &str, words: &str) {
        let found = self.findings().await;
        let is_it = |it: &&String| it.starts_with(key) && it.contains(words);
        assert!(found.len() == 1 && found.iter().any(|it| is_it(&it)), "{key} … {words}: {found:#?}");
    }
}

fn drain(id: u64) -> Stored {
    let drain =
        Drain { id: ProcedureId(1), node: NodeId(id), started_ms: 1, reason: String::new(), total: 1 };
    Stored::Drain(StoredDrain { cluster: CLUSTER, drain })
}

#[tokio::test]
async fn a_sound_store_has_no_findings() {
    let stock = Stock::sound().await;
    assert_eq!(stock.findings().await, Vec::<String>::new());
    let answer = check_store(&stock.store, &stock.keys).await.unwrap();
    let page = stock.store.list("").await.unwrap();
    let records = u64::try_from(page.records.len()).unwrap();
    assert_eq!((answer.records, answer.revision), (records, u64::try_from(page.revision).unwrap()));
}

#[tokio::test]
async fn an_empty_store_has_no_findings() {
    let stock = Stock { store: MemoryStore::default(), keys: Keys::new("/m") };
    assert_eq!(stock.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn keys_of_no_scheme_are_found() {
    for key in ["region/7", "what", "election/leader", "timeline/1", "node/datanode/1/1"] {
        let stock = Stock::sound().await;
        stock.put_bytes(format!("/m/v1/{key}"), Vec::new()).await;
        stock.has_one(key, "no scheme").await;
    }
}

#[tokio::test]
async fn records_that_cannot_be_read_are_found() {
    let keys = Keys::new("/m");
    let id = (TERM << 32) | 1;
    for key in [keys.stats(&node(1)), keys.timeline_entry(id), keys.failover_order(), keys.term_current()] {
        let stock = Stock::sound().await;
        stock.put_bytes(key.clone(), vec![9, 1]).await;
        stock.has_one(key.trim_start_matches("/m/v1/"), "format 9").await;
    }
}

#[tokio::test]
async fn missing_counters_are_found() {
    let stock = Stock::sound().await;
    stock.change(Change::Delete { key: stock.keys.term_current() }).await;
    stock.has_one("term/current", "missing").await;
    let stock = Stock::sound().await;
    stock.change(Change::Delete { key: stock.keys.region_sequence() }).await;
    stock.has_one("sequence/region", "given twice").await;
}

#[tokio::test]
async fn records_of_terms_that_were_not_yet_are_found() {
    let stock = Stock::sound().await;
    let record = NodeRecord { node_epoch: 1, term: TERM + 1, ..Default::default() };
    stock.put(stock.keys.node(&node(1)), &record).await;
    stock.has_one("node/datanode/", "term 4").await;
    let stock = Stock::sound().await;
    stock.put(stock.keys.term_record(Term(4)), &TermRecord { term: 4, ..Default::default() }).await;
    stock.has_one("term/record/", "the highest term was 3").await;
    let stock = Stock::sound().await;
    stock.put(stock.keys.timeline_entry(4 << 32), &EventsRecord::default()).await;
    stock.has_one("timeline/", "term 4").await;
}

#[tokio::test]
async fn a_term_record_under_the_key_of_another_term_is_found() {
    let stock = Stock::sound().await;
    stock.put(stock.keys.term_record(Term(2)), &TermRecord { term: 1, ..Default::default() }).await;
    stock.has_one("term/record/", "record of term 1").await;
}

#[tokio::test]
async fn a_route_to_a_node_that_nobody_knows_is_found() {
    let stock = Stock::sound().await;
    stock.route(1, 9, 5).await;
    stock.has_one("region/", "led by").await;
}

#[tokio::test]
async fn a_node_that_only_has_a_lease_is_known() {
    let stock = Stock::sound().await;
    stock.change(Change::Delete { key: stock.keys.node(&node(1)) }).await;
    assert_eq!(stock.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn regions_beyond_the_counter_and_epochs_of_zero_are_found() {
    let stock = Stock::sound().await;
    stock.route(4, 1, 5).await;
    stock.has_one("region/", "the last id that was given is 3").await;
    let stock = Stock::sound().await;
    stock.route(1, 1, 0).await;
    stock.has_one("region/", "its epoch is 0").await;
}

#[tokio::test]
async fn an_order_for_a_node_that_nobody_knows_is_found() {
    let stock = Stock::sound().await;
    stock.put(stock.keys.node_order(&node(9)), &NodeOrderRecord::default()).await;
    stock.has_one("order/node/", "it is an order for").await;
}

#[tokio::test]
async fn a_procedure_that_makes_no_sense_is_found() {
    let stock = Stock::sound().await;
    let id = (TERM << 32) | 1;
    let empty = metasrv_proto::admin::ProcedureRecord { id, ..Default::default() };
    stock.put(stock.keys.procedure(ProcedureId(id)), &empty).await;
    stock.has_one("procedure/", "kind").await;
    let stock = Stock::sound().await;
    let record = migration(2, State::Flushing).to_record(TERM);
    stock.put(stock.keys.procedure(ProcedureId(id)), &record).await;
    stock.has_one("procedure/", "the record of procedure 1").await;
}

#[tokio::test]
async fn procedures_of_regions_and_nodes_that_are_not_there_are_found() {
    let stock = Stock::sound().await;
    stock.procedure(1, &migration(4, State::Flushing)).await;
    stock.has_one("procedure/", "region 4 was never created").await;
    let stock = Stock::sound().await;
    stock.change(Change::Delete { key: stock.keys.region(RegionId(2)) }).await;
    assert_eq!(
        stock.findings().await,
        Vec::<String>::new(),
        "it was dropped, and the procedure will see that"
    );
    stock.procedure(1, &migration(2, State::Downgrading)).await;
    stock.has_one("procedure/", "has no route").await;
    let stock = Stock::sound().await;
    stock.procedure(2, &drain(9)).await;
    stock.has_one("procedure/", "neither a record nor a lease").await;
}

/// Goal: the table at the top of `procedures.rs`. The migration began at epoch 5, from node 2 to node 3.
#[tokio::test]
async fn procedures_and_routes_that_disagree_are_found() {
    let undone = State::Undoing { why: Why::SourceSlow, owes_epoch: true };
    for (state, node_id, epoch, words) in [
        (State::Downgrading, 2, 4, "below the procedure's 5"),
        (State::Flushing, 1, 5, "is to be led by"),
        (undone.clone(), 3, 5, "is to be led by"),
        (State::Upgrading, 2, 5, "below the procedure's 6"),
        (State::Upgrading, 2, 6, "is to be led by"),
        (State::Closing, 2, 6, "is to be led by"),
    ] {
        let stock = Stock::sound().await;
        stock.procedure(1, &migration(2, state)).await;
        stock.route(2, node_id, epoch).await;
        stock.has_one("procedure/", words).await;
    }
    for (state, node_id, epoch) in
        [(State::Upgrading, 3, 6), (State::Closing, 1, 7), (undone, 2, 6), (State::Flushing, 1, 6)]
    {
        let stock = Stock::sound().await;
        stock.procedure(1, &migration(2, state.clone())).await;
        stock.route(2, node_id, epoch).await;
        assert_eq!(stock.findings().await, Vec::<String>::new(), "{state:?}");
    }
}

#[tokio::test]
async fn procedures_in_each_others_way_are_found() {
    let stock = Stock::sound().await;
    stock.procedure(3, &migration(2, State::Flushing)).await;
    stock.has_one("procedure/", "another procedure may change the route of region 2").await;
    let stock = Stock::sound().await;
    stock.procedure(3, &drain(3)).await;
    stock.has_one("procedure/", "another drain of").await;
}

#[tokio::test]
async fn more_findings_than_an_answer_holds_are_counted() {
    let stock = Stock::sound().await;
    for at in 0..super::MOST + 2 {
        stock.put_bytes(format!("/m/v1/x{at}"), Vec::new()).await;
    }
    let found = stock.findings().await;
    assert_eq!(found.len(), super::MOST + 1);
    assert!(found.last().unwrap().contains("2 more were found"), "{:?}", found.last());
}
