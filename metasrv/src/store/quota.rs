//! A memory store that can be out of space as etcd is: puts are refused, reads and deletes are not. For tests.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;

use super::memory::MemoryStore;
use super::{Change, Outcome, Page, Record, Store, StoreError, Txn};

/// See the module.
#[derive(Default)]
pub struct QuotaStore {
    inner: MemoryStore,
    full: AtomicBool,
    /// Before so many of the next transactions, this key is changed by somebody else.
    interferences: AtomicUsize,
}

/// Changed by somebody else before a transaction that is to find a conflict.
pub const MEDDLED: &str = "/test/v1/term/current";

impl QuotaStore {
    /// From now on it is out of space.
    pub fn fill(&self) {
        self.full.store(true, Ordering::SeqCst);
    }

    /// From now on it has space again.
    pub fn make_room(&self) {
        self.full.store(false, Ordering::SeqCst);
    }

    /// Somebody else is faster before each of the next transactions.
    pub fn interfere(&self, times: usize) {
        self.interferences.store(times, Ordering::SeqCst);
    }

    async fn touch(&self) -> Result<(), StoreError> {
        let Some(found) = self.inner.get(MEDDLED).await? else { return Ok(()) };
        let change = Change::Put { key: found.key, value: found.value };
        self.inner.commit(Txn { compares: vec![], changes: vec![change] }).await.map(drop)
    }
}

#[async_trait]
impl Store for QuotaStore {
    async fn get(&self, key: &str) -> Result<Option<Record>, StoreError> {
        self.inner.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Page, StoreError> {
        self.inner.list(prefix).await
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        let puts = txn.changes.iter().any(|change| !matches!(change, Change::Delete { .. }));
        if puts && self.full.load(Ordering::SeqCst) {
            return Err(StoreError::OutOfSpace);
        }
        if self
            .interferences
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
            .is_ok()
        {
            self.touch().await?;
        }
        self.inner.commit(txn).await
    }
}
