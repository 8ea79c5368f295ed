//! One contract, four stores: what the server relies on, asked of the memory store (the model), of the embedded store, of a
//! real etcd, and of the simulation's model of one. Whatever one of them cannot do is not in the contract, and whatever is in
//! it, all of them do. What is asked of etcd only (leases, campaigns, watches) is in `etcd_model.rs`.
//!
//! | file | what |
//! | --- | --- |
//! | `store_contract.rs` | the stores, what only one of them has, and the table of clauses |
//! | `store_contract/reads.rs` | clauses about get and list |
//! | `store_contract/changes.rs` | clauses about transactions |
//! | `store_contract/random.rs` | random operations, the same outcomes everywhere |

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "store_contract/changes.rs"]
mod changes;
#[path = "store_contract/random.rs"]
mod random;
#[path = "store_contract/reads.rs"]
mod reads;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use metasrv::etcd::election::{EtcdElection, Revoked};
use metasrv::etcd::store::EtcdStore;
use metasrv::store::embedded::EmbeddedStore;
use metasrv::store::memory::MemoryStore;
use metasrv::store::{Change, Compare, Outcome, Page, Record, Store, StoreError, Txn};
use metasrv_sim::etcd::served::Served;
use metasrv_tests::etcd::Etcd;
use metasrv_tests::wait::eventually;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A clause of the contract. It gets a prefix of its own and must not mind what stands under others.
type Clause = fn(Arc<dyn Store>, String) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// The contract.
const CLAUSES: [(&str, Clause); 15] = [
    ("absent keys", |store, at| Box::pin(reads::what_is_absent_is_no_error(store, at))),
    ("order", |store, at| {
        Box::pin(reads::lists_are_in_the_order_of_bytes_and_end_with_the_prefix(store, at))
    }),
    ("many pages", |store, at| Box::pin(reads::a_list_of_many_pages_is_whole(store, at))),
    ("parts", |store, at| Box::pin(reads::parts_come_from_either_end_and_are_the_whole(store, at))),
    ("one revision", |store, at| Box::pin(reads::a_list_shows_one_revision_while_writes_go_on(store, at))),
    ("large values", |store, at| Box::pin(reads::a_list_may_be_larger_than_a_message(store, at))),
    ("revisions", |store, at| Box::pin(changes::each_change_is_one_revision(store, at))),
    ("create revision", |store, at| Box::pin(changes::a_create_revision_lasts_until_the_delete(store, at))),
    ("compares", |store, at| {
        Box::pin(changes::compares_hold_for_what_is_there_and_for_what_is_absent(store, at))
    }),
    ("refusals", |store, at| Box::pin(changes::a_refusal_changes_nothing_and_says_what_was_found(store, at))),
    ("update", |store, at| Box::pin(changes::an_update_needs_its_key(store, at))),
    ("no change", |store, at| Box::pin(changes::what_changes_nothing_costs_no_revision(store, at))),
    ("limits", |store, at| Box::pin(changes::limits_are_the_same_everywhere(store, at))),
    ("conflicts", |store, at| Box::pin(changes::of_conflicting_transactions_one_wins(store, at))),
    ("values", |store, at| Box::pin(changes::any_bytes_are_a_value(store, at))),
];

async fn holds(store: Arc<dyn Store>) {
    for (number, (name, clause)) in CLAUSES.iter().enumerate() {
        println!("clause: {name}");
        clause(Arc::clone(&store), format!("/contract/{number:02}/")).await;
    }
}

/// An etcd of its own, and a store on it.
async fn etcd() -> (TempDir, Etcd, Arc<dyn Store>) {
    let directory = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(1, directory.path()).await;
    let store = Arc::new(EtcdStore::new(&etcd.endpoints()).unwrap());
    (directory, etcd, store)
}

fn put(key: &str, value: &str) -> Change {
    Change::Put { key: key.to_owned(), value: value.as_bytes().to_vec() }
}

fn update(key: &str, value: &str) -> Change {
    Change::Update { key: key.to_owned(), value: value.as_bytes().to_vec() }
}

fn delete(key: &str) -> Change {
    Change::Delete { key: key.to_owned() }
}

fn created_at(key: &str, revision: i64) -> Compare {
    Compare::CreateRevision { key: key.to_owned(), revision }
}

fn changed_at(key: &str, revision: i64) -> Compare {
    Compare::ModRevision { key: key.to_owned(), revision }
}

/// Commits what must be done; returns its revision.
async fn done(store: &dyn Store, compares: Vec<Compare>, changes: Vec<Change>) -> i64 {
    match store.commit(Txn { compares, changes }).await {
        Ok(Outcome::Done { revision }) => revision,
        other => panic!("not done: {other:?}"),
    }
}

/// Commits what must be refused by a compare; returns what was found.
async fn refused(store: &dyn Store, compares: Vec<Compare>, changes: Vec<Change>) -> Vec<Option<Record>> {
    match store.commit(Txn { compares, changes }).await {
        Ok(Outcome::Refused { found, .. }) => found,
        other => panic!("not refused: {other:?}"),
    }
}

async fn list(store: &dyn Store, prefix: &str) -> Page {
    store.list(prefix).await.unwrap()
}

/// Goal: the model keeps the contract. Method: every clause.
#[tokio::test(flavor = "multi_thread")]
async fn the_memory_store_keeps_the_contract() {
    holds(Arc::new(MemoryStore::default())).await;
}

/// Goal: embedded mode can rely on what replicas rely on. Method: every clause, on a file.
#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_store_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    holds(Arc::new(EmbeddedStore::open(directory.path()).unwrap())).await;
}

/// Goal: what the contract says is what the real etcd does. Method: every clause, on a member of its own.
#[tokio::test(flavor = "multi_thread")]
async fn etcd_keeps_the_contract() {
    let (_directory, _etcd, store) = etcd().await;
    holds(store).await;
}

/// Goal: the simulation's etcd is no easier to live with than the real one. Method: every clause, through the same client.
#[tokio::test(flavor = "multi_thread")]
async fn the_model_etcd_keeps_the_contract() {
    let served = Served::start().await.unwrap();
    holds(Arc::new(EtcdStore::new(&served.endpoints()).unwrap())).await;
}

/// Goal: what the embedded store acknowledged is there after a restart, and revisions go on where they were; two
/// processes never have one store. Method: open, write, close, open again; and open twice.
#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_store_keeps_what_it_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).unwrap();
    done(&store, vec![], vec![put("/a", "1"), put("/b", "1")]).await;
    let last = done(&store, vec![], vec![put("/b", "2"), delete("/a")]).await;
    let before = list(&store, "/").await;
    let second = EmbeddedStore::open(directory.path()).err();
    assert!(matches!(second, Some(StoreError::Unavailable { .. })), "{second:?}");
    drop(store);
    let store = EmbeddedStore::open(directory.path()).unwrap();
    assert_eq!(list(&store, "/").await, before);
    assert_eq!(done(&store, vec![], vec![put("/c", "1")]).await, last + 1);
}

/// Goal: a file that is no store is an error, not a panic. Method: noise, and a store that was cut off.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_embedded_store_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("metadata.redb");
    std::fs::write(&file, [7_u8; 5_000]).unwrap();
    let opened = EmbeddedStore::open(directory.path()).err();
    assert!(matches!(opened, Some(StoreError::Corrupt { .. })), "{opened:?}");
    std::fs::remove_file(&file).unwrap();
    drop(EmbeddedStore::open(directory.path()).unwrap());
    let length = std::fs::metadata(&file).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(length / 3).unwrap();
    let opened = EmbeddedStore::open(directory.path()).err();
    assert!(opened.is_some(), "a store that was cut off was opened");
}

/// Goal: an update leaves a key on the lease that it hangs on, so that a leader can write into its election key; a put
/// takes it off. Method: a campaign makes a key with a lease; it is updated, or put; the lease is revoked.
#[tokio::test(flavor = "multi_thread")]
async fn an_updated_key_stays_on_its_lease_and_a_put_one_does_not() {
    let (_directory, etcd, store) = etcd().await;
    let election = EtcdElection::new(&etcd.endpoints()).unwrap();
    for (name, keeps) in [("/update", true), ("/put", false)] {
        let (lease, _) = election.grant(Duration::from_secs(60)).await.unwrap();
        let fence = election.campaign(name, lease, b"first".to_vec()).await.unwrap();
        assert_eq!(fence.key, format!("{name}/{lease:x}"), "a candidate knows its key before it has won");
        let change = if keeps { update(&fence.key, "second") } else { put(&fence.key, "second") };
        done(store.as_ref(), vec![created_at(&fence.key, fence.create_revision)], vec![change]).await;
        let found = store.get(&fence.key).await.unwrap().unwrap();
        assert_eq!((found.value.as_slice(), found.create_revision), (&b"second"[..], fence.create_revision));
        assert_eq!(election.revoke(lease).await.unwrap(), Revoked::Done);
        let left = store.get(&fence.key).await.unwrap();
        assert_eq!(left.is_none(), keeps, "{name}: {left:?}");
        assert_eq!(election.revoke(lease).await.unwrap(), Revoked::NotFound);
    }
}

/// Goal: an etcd that does not answer is an error by a deadline: for a read certainly nothing, for a write unknown; and
/// a write of unknown outcome happened at most once. Method: etcd is stopped in its tracks during both, then goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_etcd_leaves_a_write_unknown_and_a_read_unavailable() {
    let (_directory, etcd, store) = etcd().await;
    let before = done(store.as_ref(), vec![], vec![put("/k", "1")]).await;
    etcd.pause_member(0);
    let read = store.get("/k").await;
    assert!(matches!(read, Err(StoreError::Unavailable { .. })), "{read:?}");
    let txn = Txn { compares: vec![changed_at("/k", before)], changes: vec![put("/k", "2")] };
    let written = store.commit(txn.clone()).await;
    assert!(matches!(written, Err(StoreError::Unknown { .. })), "{written:?}");
    etcd.resume_member(0);
    // Sending the same transaction again settles it: either it happens now, or it is found to have happened.
    let again =
        eventually(Duration::from_secs(20), "an answer", async || store.commit(txn.clone()).await).await;
    let found = store.get("/k").await.unwrap().unwrap();
    assert_eq!(found.value, b"2");
    match again {
        Outcome::Done { revision } => assert_eq!(found.mod_revision, revision),
        Outcome::Refused { found: seen, .. } => assert_eq!(seen, [Some(found)]),
    }
}

/// Goal: a list of many pages that is overtaken by a compaction is begun again, and is whole. Method: many lists, each
/// beside a change and a compaction up to it, through etcd's HTTP gateway.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_overtaken_by_a_compaction_is_begun_again() {
    let (_directory, etcd, store) = etcd().await;
    let keys: Vec<String> = (0..3_500).map(|number| format!("/list/{number:05}")).collect();
    for chunk in keys.chunks(100) {
        done(store.as_ref(), vec![], chunk.iter().map(|key| put(key, "x")).collect()).await;
    }
    let endpoint = etcd.endpoints().remove(0);
    let gateway = endpoint.strip_prefix("http://").unwrap();
    for round in 0..20 {
        let compact = async {
            let revision = done(store.as_ref(), vec![], vec![put("/other", &round.to_string())]).await;
            let body = format!(r#"{{"revision":"{revision}"}}"#);
            let request = format!(
                "POST /v3/kv/compaction HTTP/1.1\r\nHost: {gateway}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let mut socket = TcpStream::connect(gateway).await.unwrap();
            socket.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        };
        let (listed, ()) = tokio::join!(store.list("/list/"), compact);
        let listed: Vec<String> = listed.unwrap().records.into_iter().map(|record| record.key).collect();
        assert!(listed == keys, "round {round}: {} records", listed.len());
    }
}
