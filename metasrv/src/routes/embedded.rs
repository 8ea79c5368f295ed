//! The board's source in embedded mode: the store itself tells what was committed, in its order.
//!
//! There is one reader. It listens before it lists, so that nothing falls between the list and the watch; what the list
//! has already is left out. A reader that is 64 transactions behind lists again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast::{self, error::RecvError};

use crate::mirror::follow::{Heard, Source, Watch, WatchEnd};
use crate::mirror::state::Event;
use crate::store::embedded::{Committed, EmbeddedStore};
use crate::store::{Page, StoreError};

/// Time between two signs of life where nothing is committed.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

type Commits = broadcast::Receiver<Arc<Committed>>;

/// A range of the keys of the embedded store.
pub struct EmbeddedSource {
    store: Arc<EmbeddedStore>,
    range: (String, String),
    /// Since before the last list.
    listening: Mutex<Option<Commits>>,
}

impl EmbeddedSource {
    /// The keys from the first one up to, and without, the second.
    pub fn new(store: Arc<EmbeddedStore>, range: (String, String)) -> EmbeddedSource {
        EmbeddedSource { store, range, listening: Mutex::new(None) }
    }

    fn listening(&self) -> std::sync::MutexGuard<'_, Option<Commits>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Source for EmbeddedSource {
    async fn list(&self) -> Result<Page, StoreError> {
        *self.listening() = Some(self.store.commits());
        self.store.range(self.range.0.clone(), self.range.1.clone()).await
    }

    async fn watch(&self, after: i64) -> Result<Box<dyn Watch>, StoreError> {
        let why = "it was not listed before".to_owned();
        let commits = self.listening().take().ok_or(StoreError::Unavailable { operation: "watch", why })?;
        Ok(Box::new(EmbeddedWatch { commits, range: self.range.clone(), after }))
    }

    async fn revision(&self) -> Result<i64, StoreError> {
        self.store.revision().await
    }

    fn move_on(&self) {}
}

struct EmbeddedWatch {
    commits: Commits,
    range: (String, String),
    after: i64,
}

impl EmbeddedWatch {
    fn heard(&mut self, committed: &Committed) -> Heard {
        let (from, end) = &self.range;
        let is_inside = |key: &str| from.as_str() <= key && key < end.as_str();
        let mut events = Vec::new();
        if committed.revision > self.after {
            self.after = committed.revision;
            let puts = committed.puts.iter().filter(|record| is_inside(&record.key)).cloned();
            events.extend(puts.map(Event::Put));
            let deleted = committed.deletes.iter().filter(|key| is_inside(key)).cloned();
            events.extend(deleted.map(|key| Event::Deleted { key, revision: committed.revision }));
        }
        Heard { member_revision: self.after, events }
    }
}

#[async_trait]
impl Watch for EmbeddedWatch {
    async fn next(&mut self) -> Result<Heard, WatchEnd> {
        match tokio::time::timeout(SIGN_OF_LIFE, self.commits.recv()).await {
            Ok(Ok(committed)) => Ok(self.heard(&committed)),
            Ok(Err(RecvError::Lagged(_))) => Err(WatchEnd::Compacted),
            Ok(Err(RecvError::Closed)) => {
                let why = "the store is closed".to_owned();
                Err(StoreError::Unavailable { operation: "watch", why }.into())
            }
            Err(_) => Ok(Heard { member_revision: self.after, events: Vec::new() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Keys;
    use crate::store::{Change, Store as _, Txn};
    use metasrv_core::id::RegionId;

    fn source() -> (tempfile::TempDir, Arc<EmbeddedStore>, EmbeddedSource) {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(EmbeddedStore::open(directory.path()).unwrap());
        let source = EmbeddedSource::new(Arc::clone(&store), Keys::new("/m").routed());
        (directory, store, source)
    }

    async fn put(store: &EmbeddedStore, key: String) {
        let changes = vec![Change::Put { key, value: vec![1] }];
        store.commit(Txn { compares: vec![], changes }).await.unwrap();
    }

    fn region(id: u64) -> String {
        Keys::new("/m").region(RegionId(id))
    }

    #[tokio::test]
    async fn nothing_falls_between_the_list_and_the_watch() {
        let (_directory, store, source) = source();
        put(&store, region(1)).await;
        put(&store, Keys::new("/m").region_sequence()).await;
        let page = source.list().await.unwrap();
        assert_eq!((page.records.len(), page.revision), (1, 2), "nothing but the range");
        put(&store, region(2)).await;
        let mut watch = source.watch(page.revision).await.unwrap();
        let heard = watch.next().await.unwrap();
        assert!(matches!(heard.events.as_slice(), [Event::Put(record)] if record.key == region(2)));
        let delete = Change::Delete { key: region(1) };
        store.commit(Txn { compares: vec![], changes: vec![delete] }).await.unwrap();
        let heard = watch.next().await.unwrap();
        assert_eq!(heard.events, [Event::Deleted { key: region(1), revision: 4 }]);
        assert_eq!(source.revision().await, Ok(4));
        assert!(source.watch(4).await.is_err(), "it was not listed again");
    }

    /// Goal: transactions that are committed at the same time are told in the order of their revisions.
    #[tokio::test(flavor = "multi_thread")]
    async fn commits_are_told_in_their_order_and_all_of_them() {
        let (_directory, store, source) = source();
        let after = source.list().await.unwrap().revision;
        let mut watch = source.watch(after).await.unwrap();
        let writers: Vec<_> = (1..=8)
            .map(|writer| {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    for round in 0..5 {
                        put(&store, region(writer * 100 + round)).await;
                    }
                })
            })
            .collect();
        let mut revisions = Vec::new();
        while revisions.len() < 40 {
            revisions.extend(watch.next().await.unwrap().events.iter().map(Event::revision));
        }
        assert_eq!(revisions, Vec::from_iter(1..=40));
        for writer in writers {
            writer.await.unwrap();
        }
    }

    #[tokio::test]
    async fn whoever_lags_behind_lists_again_and_silence_is_a_sign_of_life() {
        let (_directory, store, source) = source();
        let after = source.list().await.unwrap().revision;
        let mut watch = source.watch(after).await.unwrap();
        assert_eq!(watch.next().await, Ok(Heard { member_revision: 0, events: vec![] }));
        for id in 0..100 {
            put(&store, region(id)).await;
        }
        assert_eq!(watch.next().await, Err(WatchEnd::Compacted));
        assert_eq!(source.list().await.unwrap().records.len(), 100);
    }
}
