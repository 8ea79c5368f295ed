//! A store that can be full, slow, or lose answers; and what becomes of migrations then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use metasrv_core::grant::Reported;
use metasrv_core::id::Epoch;

use super::world::World;
use super::{FIRST, REGION, millis, node, process};
use crate::store::memory::MemoryStore;
use crate::store::{Outcome, Page, Record, Store, StoreError, Txn};

/// See the module.
#[derive(Default)]
pub(super) struct Faulty {
    pub(super) inner: MemoryStore,
    is_full: AtomicBool,
    /// Every other transaction takes effect, and nobody hears of it.
    loses_answers: AtomicBool,
    lost_the_last: AtomicBool,
    /// Milliseconds before a transaction takes effect.
    delay: AtomicU64,
}

impl Faulty {
    /// From now on a transaction takes effect after so many milliseconds.
    pub(super) fn slow_down(&self, ms: u64) {
        self.delay.store(ms, Ordering::Relaxed);
    }
}

#[async_trait]
impl Store for Faulty {
    async fn get(&self, key: &str) -> Result<Option<Record>, StoreError> {
        self.inner.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Page, StoreError> {
        self.inner.list(prefix).await
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err(StoreError::OutOfSpace);
        }
        let delay = self.delay.load(Ordering::Relaxed);
        if delay > 0 {
            tokio::time::sleep(millis(delay)).await;
        }
        let outcome = self.inner.commit(txn).await;
        let loses = self.loses_answers.load(Ordering::Relaxed);
        if loses && !self.lost_the_last.fetch_xor(true, Ordering::Relaxed) {
            return Err(StoreError::Unknown { operation: "commit", why: "a test".to_owned() });
        }
        outcome
    }
}

/// A world whose migration is flushing, and its store.
async fn flushing() -> (World, Arc<Faulty>) {
    let world = World::new(3, 2).await;
    world.ignore("flush");
    world.migrate().await;
    world.reaches("flushing").await;
    let store = world.store();
    (world, store)
}

fn is_renewed(world: &World) -> bool {
    let held = Reported { region: REGION, epoch: Epoch(FIRST) };
    let granted = world.leader().grant(&node(1), process(1), vec![held]).unwrap();
    granted.renewed == [held]
}

/// Goal: where it is certain that the source was not stored to stop, it goes on writing, and the migration goes on later.
#[tokio::test(start_paused = true)]
async fn a_source_goes_on_writing_while_the_store_has_no_space_for_its_stop() {
    let (mut world, store) = flushing().await;
    store.is_full.store(true, Ordering::Relaxed);
    world.ignore_nothing();
    for _ in 0..40 {
        tokio::time::sleep(millis(250)).await;
        let now = world.now();
        assert!(world.datanode(1, |node| node.writes(REGION, now)), "it lost its lease for nothing");
    }
    assert!(is_renewed(&world));
    assert_eq!(world.told(1, "downgrade"), None, "told to stop before that was stored");
    store.is_full.store(false, Ordering::Relaxed);
    world.all_ended().await;
    assert_eq!(world.route(REGION).await, (2, FIRST + 1));
    world.check(2).await;
}

/// Goal: a grant between the sending of a transaction and its effect would be one that nobody waits for.
#[tokio::test(start_paused = true)]
async fn nothing_is_granted_from_when_the_stop_of_the_source_is_sent_to_the_store() {
    let (mut world, store) = flushing().await;
    store.delay.store(400, Ordering::Relaxed);
    assert!(is_renewed(&world));
    world.ignore_nothing();
    while is_renewed(&world) {
        tokio::time::sleep(millis(5)).await;
    }
    // It is on its way only.
    world.reaches("flushing").await;
    let begun = world.now();
    while world.told(1, "downgrade").is_none() {
        assert!(!is_renewed(&world), "granted after it was sent");
        tokio::time::sleep(millis(5)).await;
    }
    assert!(world.now().since(begun) >= millis(300));
    world.all_ended().await;
    assert_eq!(world.route(REGION).await, (2, FIRST + 1));
    world.check(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_migration_goes_on_where_the_store_loses_every_other_answer() {
    let (mut world, store) = flushing().await;
    store.loses_answers.store(true, Ordering::Relaxed);
    world.ignore_nothing();
    world.all_ended().await;
    let kinds = world.kinds().await;
    assert_eq!(kinds, ["migration_begun", "region_migrated", "migration_done"], "each of them once");
    assert_eq!(world.route(REGION).await, (2, FIRST + 1));
    store.loses_answers.store(false, Ordering::Relaxed);
    world.check(2).await;
}
