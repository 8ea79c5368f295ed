//! Goal: what is offered reaches the store, in few transactions, in order, whatever the store does meanwhile.
//! Method: a memory store behind a wrapper that can refuse, and paused time.

use super::*;
use crate::store::memory::MemoryStore;
use crate::store::{Outcome, Page, Record, Store, StoreError, Txn};
use async_trait::async_trait;
use metasrv_core::id::Fence;
use metasrv_core::lease::LeadershipLease;
use metasrv_core::time::BootTime;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A memory store that counts transactions and may be out of space.
#[derive(Default)]
struct Moody {
    inner: MemoryStore,
    full: AtomicBool,
    transactions: AtomicUsize,
    largest: AtomicUsize,
    most_bytes: AtomicUsize,
}

#[async_trait]
impl Store for Moody {
    async fn get(&self, key: &str) -> Result<Option<Record>, StoreError> {
        self.inner.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Page, StoreError> {
        self.inner.list(prefix).await
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        if self.full.load(Ordering::Relaxed) {
            return Err(StoreError::OutOfSpace);
        }
        self.transactions.fetch_add(1, Ordering::Relaxed);
        self.largest.fetch_max(txn.changes.len(), Ordering::Relaxed);
        self.most_bytes.fetch_max(txn.changes.iter().map(Change::bytes).sum(), Ordering::Relaxed);
        self.inner.commit(txn).await
    }
}

struct Still;

impl Clock for Still {
    fn now(&self) -> BootTime {
        BootTime::ZERO
    }
}

struct Setup {
    store: Arc<Moody>,
    lease: Arc<LeadershipLease>,
    write_behind: WriteBehind,
}

async fn setup() -> Setup {
    let store = Arc::new(Moody::default());
    let put = Change::Put { key: "/fence".to_owned(), value: vec![] };
    store.inner.commit(Txn { compares: vec![], changes: vec![put] }).await.unwrap();
    let lease = Arc::new(LeadershipLease::new(BootTime::MAX, Duration::from_secs(5)));
    let fence = Fence { key: "/fence".to_owned(), create_revision: 1 };
    let fenced = FencedStore::new(store.clone(), fence, Arc::clone(&lease), Arc::new(Still));
    let (write_behind, work) =
        WriteBehind::new(fenced, HashMap::new(), Arc::new(Metrics::new()), Arc::new(Still));
    tokio::spawn(work);
    Setup { store, lease, write_behind }
}

async fn value(store: &Moody, key: &str) -> String {
    let found = store.get(key).await.unwrap();
    found.map(|found| String::from_utf8(found.value).unwrap()).unwrap_or_default()
}

fn offer(write_behind: &WriteBehind, key: &str, value: impl ToString) {
    write_behind.offer(key.to_owned(), value.to_string().into_bytes()).unwrap();
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_thousand_values_of_ten_keys_are_few_transactions_and_the_last_value_stands() {
    let Setup { store, write_behind, .. } = setup().await;
    for number in 0..1_000 {
        offer(&write_behind, &format!("/k{}", number % 10), number);
    }
    write_behind.drain(LONG).await.unwrap();
    for key in 0..10 {
        assert_eq!(value(&store, &format!("/k{key}")).await, (990 + key).to_string());
    }
    assert!(store.transactions.load(Ordering::Relaxed) <= 2);
}

#[tokio::test(start_paused = true)]
async fn many_keys_are_cut_into_transactions_that_etcd_takes() {
    let Setup { store, write_behind, .. } = setup().await;
    for number in 0..1_000 {
        offer(&write_behind, &format!("/k{number}"), number);
    }
    write_behind.drain(LONG).await.unwrap();
    assert_eq!(store.list("/k").await.unwrap().records.len(), 1_000);
    assert_eq!(store.largest.load(Ordering::Relaxed), MAX_CHANGES);
    assert_eq!(store.transactions.load(Ordering::Relaxed), 1_000_usize.div_ceil(MAX_CHANGES));
}

#[tokio::test(start_paused = true)]
async fn large_values_are_cut_into_transactions_of_a_mebibyte() {
    let Setup { store, write_behind, .. } = setup().await;
    let value = "v".repeat(300 * 1024);
    for number in 0..20 {
        offer(&write_behind, &format!("/k{number}"), &value);
    }
    write_behind.drain(LONG).await.unwrap();
    assert_eq!(store.list("/k").await.unwrap().records.len(), 20);
    assert!(store.most_bytes.load(Ordering::Relaxed) <= MAX_BYTES);
    assert_eq!(store.transactions.load(Ordering::Relaxed), 7, "three of them fit into a mebibyte");
    let too_large = write_behind.offer("/k".to_owned(), vec![0; MAX_BYTES]);
    assert_eq!(too_large, Err(Refused::TooLarge), "what fits into no transaction is refused at once");
}

#[tokio::test(start_paused = true)]
async fn a_removed_key_is_gone_and_may_come_back() {
    let Setup { store, write_behind, .. } = setup().await;
    for round in 0..2 {
        offer(&write_behind, "/k", round);
        offer(&write_behind, "/j", round);
        write_behind.drain(LONG).await.unwrap();
        assert_eq!(value(&store, "/k").await, round.to_string());
        write_behind.remove("/k".to_owned()).unwrap();
        write_behind.remove("/never".to_owned()).unwrap();
        write_behind.drain(LONG).await.unwrap();
        assert_eq!(store.get("/k").await, Ok(None));
    }
    assert_eq!(value(&store, "/j").await, "1");
}

#[tokio::test(start_paused = true)]
async fn keys_that_were_there_before_are_learnt_and_replaced() {
    let Setup { store, write_behind, .. } = setup().await;
    let put = Change::Put { key: "/k".to_owned(), value: b"old".to_vec() };
    store.commit(Txn { compares: vec![], changes: vec![put] }).await.unwrap();
    offer(&write_behind, "/k", "new");
    offer(&write_behind, "/other", "x");
    write_behind.drain(LONG).await.unwrap();
    assert_eq!(value(&store, "/k").await, "new");
    assert_eq!(value(&store, "/other").await, "x");
}

#[tokio::test(start_paused = true)]
async fn a_store_without_space_is_waited_for_and_nothing_is_lost() {
    let Setup { store, write_behind, .. } = setup().await;
    store.full.store(true, Ordering::Relaxed);
    offer(&write_behind, "/k", 1);
    tokio::time::sleep(LONG).await;
    offer(&write_behind, "/k", 2);
    offer(&write_behind, "/j", 1);
    assert_eq!(write_behind.drain(Duration::from_secs(1)).await, Err(NotDrained(2)));
    store.full.store(false, Ordering::Relaxed);
    write_behind.drain(LONG).await.unwrap();
    assert_eq!(value(&store, "/k").await, "2");
    assert_eq!(value(&store, "/j").await, "1");
}

#[tokio::test(start_paused = true)]
async fn a_lost_fence_ends_it_and_changes_nothing() {
    let Setup { store, lease, write_behind } = setup().await;
    let delete = Change::Delete { key: "/fence".to_owned() };
    store.commit(Txn { compares: vec![], changes: vec![delete] }).await.unwrap();
    offer(&write_behind, "/k", 1);
    assert_eq!(write_behind.drain(LONG).await, Err(NotDrained(1)));
    assert_eq!(value(&store, "/k").await, "");
    assert!(!lease.holds(BootTime::ZERO), "and leadership with it");
    assert_eq!(write_behind.offer("/k".to_owned(), vec![]), Err(Refused::Full));
}

#[tokio::test(start_paused = true)]
async fn a_last_drain_ends_though_more_is_offered_and_what_was_taken_is_written() {
    let Setup { store, write_behind, .. } = setup().await;
    offer(&write_behind, "/k", "taken");
    write_behind.take_no_more();
    assert!(write_behind.offer("/k".to_owned(), b"late".to_vec()).is_err());
    assert!(write_behind.remove("/k".to_owned()).is_err());
    write_behind.drain(LONG).await.unwrap();
    assert_eq!(value(&store, "/k").await, "taken");
}
