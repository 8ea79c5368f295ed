//! Goal: a mirror is what the store has, whatever its watch does.
//! Method: a memory store, a watch on it that can be told to misbehave, and virtual time.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use async_trait::async_trait;
use metasrv_core::id::{ClusterId, NodeId, NodeKey, RegionId};
use metasrv_proto::admin::RouteRecord;
use tokio::task::JoinHandle;

use super::follow::{Heard, Source, Watch, WatchEnd, follow};
use super::*;
use crate::clock::Virtual;
use crate::leader::Leader;
use crate::record::encode;
use crate::store::memory::MemoryStore;
use crate::store::{Change, Outcome, Page, Record, Store, StoreError, Txn};

pub(super) fn keys() -> Keys {
    Keys::new("/m")
}

pub(super) fn node(id: u64) -> NodeKey {
    NodeKey::datanode(ClusterId(0), NodeId(id))
}

fn route(node_id: u64, epoch: u64) -> Vec<u8> {
    encode(&RouteRecord { node_id, epoch, ..RouteRecord::default() })
}

/// A watch that can misbehave.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Manner {
    Good,
    /// Says nothing at all.
    Silent,
    /// Says that it lives, and keeps every change to itself.
    Deaf,
    /// The same, on a member that has not heard of any change either.
    Stuck,
    /// Its changes were compacted away.
    Compacted,
    /// No member answers, and another one does not either.
    Down,
}

/// A memory store and a watch on it.
pub(super) struct Watched {
    pub(super) store: Mutex<Arc<MemoryStore>>,
    manner: AtomicU8,
    pub(super) lists: AtomicUsize,
    moves: AtomicUsize,
}

impl Watched {
    pub(super) fn store(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.store.lock().unwrap())
    }

    pub(super) fn behave(&self, manner: Manner) {
        self.manner.store(manner as u8, Ordering::SeqCst);
    }

    fn manner(&self) -> u8 {
        self.manner.load(Ordering::SeqCst)
    }

    pub(super) async fn write(&self, change: Change) -> i64 {
        match self.store().commit(Txn { compares: vec![], changes: vec![change] }).await {
            Ok(Outcome::Done { revision }) => revision,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn route(&self, region: u64) -> i64 {
        self.write(Change::Put { key: keys().region(RegionId(region)), value: route(region, 1) }).await
    }
}

#[async_trait]
impl Source for Arc<Watched> {
    async fn list(&self) -> Result<Page, StoreError> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        if self.manner() == Manner::Down as u8 {
            return Err(StoreError::Unavailable { operation: "list", why: "nobody answers".to_owned() });
        }
        self.store().list("/m/v1/").await
    }

    async fn watch(&self, after: i64) -> Result<Box<dyn Watch>, StoreError> {
        let seen = self.store().list("/m/v1/").await?;
        Ok(Box::new(Polled { watched: Arc::clone(self), after, seen }))
    }

    async fn revision(&self) -> Result<i64, StoreError> {
        Ok(self.store().list("/m/v1/").await?.revision)
    }

    fn move_on(&self) {
        self.moves.fetch_add(1, Ordering::SeqCst);
        if self.manner() != Manner::Down as u8 {
            self.behave(Manner::Good);
        }
    }
}

/// Looks what has changed.
struct Polled {
    watched: Arc<Watched>,
    after: i64,
    seen: Page,
}

#[async_trait]
impl Watch for Polled {
    async fn next(&mut self) -> Result<Heard, WatchEnd> {
        for round in 1_u64.. {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let manner = self.watched.manner();
            let alive = round.is_multiple_of(200);
            if manner == Manner::Down as u8 {
                self.watched.list().await?;
            }
            if manner == Manner::Compacted as u8 {
                return Err(WatchEnd::Compacted);
            }
            let now = self.watched.store().list("/m/v1/").await?;
            let deaf = manner == Manner::Deaf as u8;
            if alive && (deaf || manner == Manner::Stuck as u8) {
                let member_revision = if deaf { now.revision } else { self.after };
                return Ok(Heard { member_revision, events: vec![] });
            }
            if manner == Manner::Good as u8 && (alive || now.revision > self.after) {
                if now.revision <= self.after {
                    return Ok(Heard { member_revision: now.revision, events: vec![] });
                }
                let mut puts: Vec<Record> = now.records.clone();
                puts.retain(|record| record.mod_revision > self.after);
                puts.sort_by_key(|record| record.mod_revision);
                let gone = self
                    .seen
                    .records
                    .iter()
                    .filter(|before| now.records.iter().all(|record| record.key != before.key));
                let gone =
                    gone.map(|before| Event::Deleted { key: before.key.clone(), revision: now.revision });
                let events = puts.into_iter().map(Event::Put).chain(gone).collect();
                let member_revision = now.revision;
                (self.after, self.seen) = (now.revision, now);
                return Ok(Heard { member_revision, events });
            }
        }
        unreachable!("there are enough numbers")
    }
}

pub(super) struct Followed {
    pub(super) watched: Arc<Watched>,
    pub(super) mirror: Mirror,
    pub(super) leader: watch::Sender<Option<Arc<Leader>>>,
    pub(super) running: JoinHandle<()>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Followed {
    pub(super) fn new() -> Followed {
        let watched = Arc::new(Watched {
            store: Mutex::default(),
            manner: AtomicU8::new(Manner::Good as u8),
            lists: AtomicUsize::new(0),
            moves: AtomicUsize::new(0),
        });
        let clock = Arc::new(Virtual(tokio::time::Instant::now()));
        let mirror = Mirror::new(keys(), clock, Arc::new(Metrics::new()));
        let (sender, leader) = watch::channel(None);
        let source: Arc<dyn Source> = Arc::new(Arc::clone(&watched));
        let running = tokio::spawn(follow(mirror.clone(), source, leader));
        Followed { watched, mirror, leader: sender, running }
    }

    pub(super) fn restarts(&self, reason: &str) -> u64 {
        self.mirror.shared.metrics.mirror_restarts.with_label_values(&[reason]).get()
    }

    pub(super) fn routes(&self) -> Option<usize> {
        self.mirror.read().map(|(state, _)| state.regions())
    }

    /// Waits until the mirror has so many routes, in virtual time; returns how long that took.
    pub(super) async fn has(&self, routes: usize) -> Duration {
        let since = tokio::time::Instant::now();
        while self.routes() != Some(routes) {
            assert!(since.elapsed() < Duration::from_secs(60), "{:?} routes, not {routes}", self.routes());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        since.elapsed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_falls_silent_is_replaced_and_misses_nothing() {
    let followed = Followed::new();
    followed.watched.route(1).await;
    followed.has(1).await;
    for (manner, reason, limit) in [(Manner::Silent, "silent", 4), (Manner::Stuck, "behind", 6)] {
        followed.watched.behave(manner);
        let routes = followed.routes().unwrap() + 1;
        followed.watched.route(u64::try_from(routes).unwrap()).await;
        let took = followed.has(routes).await;
        assert!(took < Duration::from_secs(limit), "{reason}: {took:?}");
        assert_eq!(followed.restarts(reason), 1, "{reason}");
    }
    assert_eq!(followed.watched.moves.load(Ordering::SeqCst), 2, "another member was asked each time");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_lives_and_delivers_nothing_is_found_out() {
    let followed = Followed::new();
    followed.watched.route(1).await;
    followed.has(1).await;
    followed.watched.behave(Manner::Deaf);
    followed.watched.route(2).await;
    let took = followed.has(2).await;
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert_eq!(followed.restarts("quiet"), 1);
}

#[tokio::test(start_paused = true)]
async fn deletes_that_were_compacted_away_are_not_missed() {
    let followed = Followed::new();
    for region in 1..=3 {
        followed.watched.route(region).await;
    }
    followed.has(3).await;
    followed.watched.behave(Manner::Compacted);
    let delete = Change::Delete { key: keys().region(RegionId(2)) };
    followed.watched.write(delete).await;
    followed.has(2).await;
    assert!(followed.restarts("compacted") >= 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_set_back_is_read_again() {
    let followed = Followed::new();
    for region in 1..=9 {
        followed.watched.route(region).await;
    }
    followed.has(9).await;
    *followed.watched.store.lock().unwrap() = Arc::default();
    followed.watched.route(1).await;
    followed.has(1).await;
    assert_eq!(followed.restarts("set_back"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_mirror_says_where_it_stands_and_how_old_that_is() {
    let followed = Followed::new();
    assert_eq!(followed.mirror.standing(), None, "nothing was read yet");
    let revision = followed.watched.route(1).await;
    followed.has(1).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let standing = followed.mirror.standing().unwrap();
    assert_eq!(i64::try_from(standing.revision).unwrap(), revision);
    assert!(standing.as_of_ms_ago <= 1_100, "confirmed every second: {standing:?}");
    followed.running.abort();
    tokio::time::sleep(Duration::from_secs(30)).await;
    let standing = followed.mirror.standing().unwrap();
    assert!((30_000..32_000).contains(&standing.as_of_ms_ago), "{standing:?}");
}
