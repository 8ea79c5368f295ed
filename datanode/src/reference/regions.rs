//! All open regions of this process, as the SDK's [`RegionServer`].

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use async_trait::async_trait;
use datanode::{Epoch, NotWritable, RegionError, RegionId, RegionRole, RegionServer, RegionStat, WriteGuard};
use tokio::sync::Semaphore;

use super::region::{KeyValueError, RegionStore, Scanned};

/// Calls that block a thread at the same time: puts wait for the disk.
const AT_WORK: usize = 32;

/// Name of the engine, as the heartbeat reports it.
const ENGINE: &str = "kv";

/// One open region.
#[derive(Debug)]
struct Region {
    store: Arc<RegionStore>,
    reads: AtomicI64,
    writes: AtomicI64,
    bytes: AtomicI64,
}

/// See the module.
pub struct Regions {
    files: Arc<Files>,
    open: RwLock<BTreeMap<RegionId, Arc<Region>>>,
    at_work: Semaphore,
}

/// The regions' files. Each is opened once: a request may still use one whose region was closed meanwhile.
struct Files {
    directory: PathBuf,
    in_use: Mutex<HashMap<RegionId, Weak<RegionStore>>>,
}

impl Regions {
    /// No region is open; their files are in this directory.
    pub fn new(directory: PathBuf) -> Regions {
        let files = Arc::new(Files { directory, in_use: Mutex::default() });
        Regions { files, open: RwLock::default(), at_work: Semaphore::new(AT_WORK) }
    }

    /// Writes one pair.
    ///
    /// # Errors
    /// [`KeyValueError`].
    pub async fn put(&self, guard: WriteGuard, key: Vec<u8>, value: Vec<u8>) -> Result<(), KeyValueError> {
        let region = self.region(guard.region())?;
        region.writes.fetch_add(1, Ordering::Relaxed);
        self.on_store(&region, move |store| store.put(&guard, &key, &value)).await
    }

    /// Reads one value.
    ///
    /// # Errors
    /// [`KeyValueError`].
    pub async fn get(&self, region: RegionId, key: Vec<u8>) -> Result<Option<Vec<u8>>, KeyValueError> {
        let region = self.region(region)?;
        region.reads.fetch_add(1, Ordering::Relaxed);
        self.on_store(&region, move |store| store.get(&key)).await
    }

    /// Reads pairs in the order of keys.
    ///
    /// # Errors
    /// [`KeyValueError`].
    pub async fn scan(
        &self,
        region: RegionId,
        start: Vec<u8>,
        limit: usize,
    ) -> Result<Scanned, KeyValueError> {
        let region = self.region(region)?;
        region.reads.fetch_add(1, Ordering::Relaxed);
        self.on_store(&region, move |store| store.scan(&start, limit)).await
    }

    fn region(&self, region: RegionId) -> Result<Arc<Region>, KeyValueError> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(&region).cloned().ok_or(KeyValueError::NotWritable(NotWritable::NotOpen(region)))
    }

    async fn on_store<T: Send + 'static>(
        &self,
        region: &Region,
        work: impl FnOnce(&RegionStore) -> Result<T, KeyValueError> + Send + 'static,
    ) -> Result<T, KeyValueError> {
        let store = Arc::clone(&region.store);
        self.on_thread(move || work(&store)).await
    }

    /// Runs blocking work off the runtime's threads.
    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, KeyValueError> + Send + 'static,
    ) -> Result<T, KeyValueError> {
        let failed = |error: &dyn std::fmt::Display| KeyValueError::Storage(error.to_string());
        let _at_work = self.at_work.acquire().await.map_err(|error| failed(&error))?;
        tokio::task::spawn_blocking(work).await.map_err(|error| failed(&error))?
    }
}

impl Files {
    /// The region's file under this epoch, and how many bytes it holds.
    fn open(&self, region: RegionId, epoch: Epoch) -> Result<(Arc<RegionStore>, i64), KeyValueError> {
        let store = self.file(region)?;
        store.raise(epoch)?;
        let bytes = i64::try_from(store.bytes()?).unwrap_or(i64::MAX);
        Ok((store, bytes))
    }

    fn file(&self, region: RegionId) -> Result<Arc<RegionStore>, KeyValueError> {
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = in_use.get(&region).and_then(Weak::upgrade) {
            return Ok(store);
        }
        in_use.retain(|_, store| store.strong_count() > 0);
        let store = Arc::new(RegionStore::open(&self.directory.join(format!("{region}.redb")))?);
        in_use.insert(region, Arc::downgrade(&store));
        Ok(store)
    }
}

#[async_trait]
impl RegionServer for Regions {
    async fn open(&self, region: RegionId, epoch: Epoch) -> Result<(), RegionError> {
        let files = Arc::clone(&self.files);
        let opened = self.on_thread(move || files.open(region, epoch)).await;
        let (store, bytes) = opened.map_err(|error| RegionError(error.to_string()))?;
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.entry(region).or_insert_with(|| {
            Arc::new(Region {
                store,
                reads: AtomicI64::new(0),
                writes: AtomicI64::new(0),
                bytes: AtomicI64::new(bytes),
            })
        });
        Ok(())
    }

    async fn close(&self, region: RegionId) -> Result<(), RegionError> {
        self.open.write().unwrap_or_else(PoisonError::into_inner).remove(&region);
        Ok(())
    }

    async fn set_role(&self, region: RegionId, _: Epoch, role: RegionRole) {
        let Ok(region) = self.region(region) else { return };
        // Whether a put is accepted is decided by its guard; here is merely the time to look at the size.
        if role == RegionRole::Leader
            && let Ok(bytes) = self.on_store(&region, RegionStore::bytes).await
        {
            region.bytes.store(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::Relaxed);
        }
    }

    async fn flush(&self, region: RegionId) -> Result<(), RegionError> {
        // Every put is durable before it is acknowledged.
        self.region(region).map(drop).map_err(|error| RegionError(error.to_string()))
    }

    fn stats(&self) -> Vec<RegionStat> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.iter()
            .map(|(id, region)| RegionStat {
                region: *id,
                rcus: region.reads.swap(0, Ordering::Relaxed),
                wcus: region.writes.swap(0, Ordering::Relaxed),
                approximate_bytes: region.bytes.load(Ordering::Relaxed),
                engine: ENGINE.to_owned(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_region_is_opened_closed_and_opened_again_also_while_its_file_is_in_use() {
        let place = tempfile::tempdir().unwrap();
        let regions = Regions::new(place.path().to_owned());
        let region = RegionId(1);
        regions.open(region, Epoch(1)).await.unwrap();
        regions.open(region, Epoch(2)).await.expect("a higher epoch of an open region");
        assert!(regions.open(region, Epoch(1)).await.is_err(), "a lower one");
        let in_use = regions.region(region).unwrap();
        regions.close(region).await.unwrap();
        regions.close(region).await.expect("closing twice is a success");
        assert!(regions.get(region, b"k".to_vec()).await.is_err());
        regions.open(region, Epoch(3)).await.expect("a request still holds the file");
        drop(in_use);
        assert_eq!(regions.get(region, b"k".to_vec()).await.unwrap(), None);
        assert_eq!(regions.stats().len(), 1);
        assert_eq!(regions.stats()[0].engine, ENGINE);
    }
}
