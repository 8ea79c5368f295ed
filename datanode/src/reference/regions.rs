//! All open regions of this process, as the SDK's [`RegionServer`].

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use async_trait::async_trait;
use datanode::{
    Clock as _, Epoch, NotWritable, OpenAs, OpenOptions, RegionError, RegionId, RegionRole, RegionServer,
    RegionStat, SystemClock, WriteGuard,
};
use tokio::sync::Semaphore;

use super::kept_rights::KeptRights;
use super::record::Owner;
use super::region::{KeyValueError, RegionStore, Scanned};
use super::write_intervals::WriteIntervals;

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
}

/// See the module.
pub struct Regions {
    files: Arc<Files>,
    open: RwLock<BTreeMap<RegionId, Arc<Region>>>,
    at_work: Semaphore,
    intervals: Option<Arc<WriteIntervals>>,
    /// Those of a node that is faulty on purpose.
    kept_rights: Option<KeptRights>,
}

/// The regions' stores. There is one for each region: a request may still use it when its region was closed meanwhile.
struct Files {
    shared: PathBuf,
    owner: Owner,
    in_use: Mutex<HashMap<RegionId, Weak<RegionStore>>>,
}

impl Regions {
    /// No region is open; they are on this directory, and written in the name of this owner. What is acknowledged is
    /// noted in `intervals`. A faulty node writes without a right.
    pub fn new(shared: PathBuf, owner: Owner, intervals: Option<WriteIntervals>, faulty: bool) -> Regions {
        let files = Arc::new(Files { shared, owner, in_use: Mutex::default() });
        let intervals = intervals.map(Arc::new);
        let kept_rights = faulty.then(KeptRights::default);
        Regions { files, open: RwLock::default(), at_work: Semaphore::new(AT_WORK), intervals, kept_rights }
    }

    /// Writes one pair.
    ///
    /// # Errors
    /// [`KeyValueError`].
    pub async fn put(&self, guard: WriteGuard, key: Vec<u8>, value: Vec<u8>) -> Result<(), KeyValueError> {
        let (id, epoch, from) = (guard.region(), guard.epoch(), SystemClock.now());
        let region = self.region(id)?;
        region.writes.fetch_add(1, Ordering::Relaxed);
        let intervals = self.intervals.clone();
        let faulty = self.kept_rights.as_ref().inspect(|kept| kept.keep(&guard)).is_some();
        // The guard ends with the write, also where nobody waits for the answer any more.
        self.on_store(&region, move |store| {
            match faulty {
                false => store.put(&guard, &key, &value)?,
                true => store.put_without_right(&key, &value)?,
            }
            let Some(intervals) = intervals else { return Ok(()) };
            // The right was there at some moment before now, and never later than its end.
            let now = SystemClock.now();
            let until = if faulty { now } else { now.min(guard.until()) };
            let noted = intervals.note(id, epoch, from, until);
            noted.map_err(|error| KeyValueError::Storage(format!("--write-intervals: {error}")))
        })
        .await
    }

    /// A right to a region that has ended, on a node that is faulty on purpose.
    pub fn kept_right(&self, region: RegionId) -> Option<WriteGuard> {
        self.kept_rights.as_ref()?.of(region)
    }

    /// Reads one value, as far as this node has read the region.
    ///
    /// # Errors
    /// [`KeyValueError`].
    pub fn get(&self, region: RegionId, key: &[u8]) -> Result<Option<Vec<u8>>, KeyValueError> {
        let region = self.region(region)?;
        region.reads.fetch_add(1, Ordering::Relaxed);
        Ok(region.store.get(key))
    }

    /// Reads pairs in the order of keys, as far as this node has read the region.
    ///
    /// # Errors
    /// [`KeyValueError`].
    pub fn scan(&self, region: RegionId, start: &[u8], limit: usize) -> Result<Scanned, KeyValueError> {
        let region = self.region(region)?;
        region.reads.fetch_add(1, Ordering::Relaxed);
        Ok(region.store.scan(start, limit))
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
    /// The region's store, opened as it is asked for.
    fn open(&self, region: RegionId, options: OpenOptions) -> Result<Arc<RegionStore>, KeyValueError> {
        let store = self.store(region)?;
        match options.kind {
            OpenAs::Leader => store.lead(options.epoch)?,
            OpenAs::Candidate => {
                store.rest();
                store.follow()?;
            }
        }
        Ok(store)
    }

    fn store(&self, region: RegionId) -> Result<Arc<RegionStore>, KeyValueError> {
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = in_use.get(&region).and_then(Weak::upgrade) {
            return Ok(store);
        }
        in_use.retain(|_, store| store.strong_count() > 0);
        let store = Arc::new(RegionStore::open(&self.shared, region, self.owner)?);
        in_use.insert(region, Arc::downgrade(&store));
        Ok(store)
    }
}

fn refused(error: KeyValueError) -> RegionError {
    let storage_epoch = match &error {
        KeyValueError::Fenced { stored, .. } => Some(*stored),
        _ => None,
    };
    RegionError { message: error.to_string(), storage_epoch }
}

#[async_trait]
impl RegionServer for Regions {
    async fn open(&self, region: RegionId, options: OpenOptions) -> Result<(), RegionError> {
        let files = Arc::clone(&self.files);
        let store = self.on_thread(move || files.open(region, options)).await.map_err(refused)?;
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.entry(region).or_insert_with(|| {
            Arc::new(Region { store, reads: AtomicI64::new(0), writes: AtomicI64::new(0) })
        });
        Ok(())
    }

    async fn close(&self, region: RegionId) -> Result<(), RegionError> {
        let closed = self.open.write().unwrap_or_else(PoisonError::into_inner).remove(&region);
        if let Some(closed) = closed {
            self.on_store(&closed, |store| Ok(store.rest())).await.map_err(refused)?;
        }
        Ok(())
    }

    async fn set_role(&self, _: RegionId, _: Epoch, _: RegionRole) {
        // Whether a put is accepted is decided by its guard, and there is no work in the background.
    }

    async fn flush(&self, region: RegionId) -> Result<(), RegionError> {
        // Every put is durable before it is acknowledged.
        self.region(region).map(drop).map_err(refused)
    }

    async fn downgrade(&self, region: RegionId, _: Epoch) -> Result<u64, RegionError> {
        let region = self.region(region).map_err(refused)?;
        self.on_store(&region, |store| Ok(store.rest())).await.map_err(refused)
    }

    async fn catch_up(&self, region: RegionId, _: u64) -> Result<u64, RegionError> {
        // What was acknowledged is on the shared directory: the end is never before the position.
        let region = self.region(region).map_err(refused)?;
        self.on_store(&region, RegionStore::follow).await.map_err(refused)
    }

    fn stats(&self) -> Vec<RegionStat> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.iter()
            .map(|(id, region)| RegionStat {
                region: *id,
                rcus: region.reads.swap(0, Ordering::Relaxed),
                wcus: region.writes.swap(0, Ordering::Relaxed),
                approximate_bytes: i64::try_from(region.store.bytes()).unwrap_or(i64::MAX),
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
        let owner = Owner { node: 1, directory: 1 };
        let regions = Regions::new(place.path().to_owned(), owner, None, false);
        let region = RegionId(1);
        regions.open(region, OpenOptions::leader(Epoch(1))).await.unwrap();
        regions.open(region, OpenOptions::leader(Epoch(2))).await.expect("a higher epoch of an open region");
        assert!(regions.open(region, OpenOptions::leader(Epoch(1))).await.is_err(), "a lower one");
        let in_use = regions.region(region).unwrap();
        regions.close(region).await.unwrap();
        regions.close(region).await.expect("closing twice is a success");
        assert!(regions.get(region, b"k").is_err());
        regions.open(region, OpenOptions::leader(Epoch(3))).await.expect("a request still holds the file");
        drop(in_use);
        assert_eq!(regions.get(region, b"k").unwrap(), None);
        assert_eq!(regions.stats().len(), 1);
        assert_eq!(regions.stats()[0].engine, ENGINE);
    }
    /// Goal: a region moves between two nodes on one shared directory, in the order of a migration. Method: the calls that
    /// the SDK makes, and puts without a lease, which only the storage judges.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_region_moves_from_one_node_to_another() {
        let place = tempfile::tempdir().unwrap();
        let node = |node| Regions::new(place.path().to_owned(), Owner { node, directory: node }, None, false);
        let (from, to) = (node(1), node(2));
        let region = RegionId(1);
        from.open(region, OpenOptions::leader(Epoch(5))).await.unwrap();
        to.open(region, OpenOptions::candidate(Epoch(5))).await.unwrap();
        let position = from.downgrade(region, Epoch(5)).await.unwrap();
        assert_eq!(to.catch_up(region, position).await.unwrap(), position);
        to.upgrade(region, Epoch(6)).await.unwrap();
        let refused = from.open(region, OpenOptions::leader(Epoch(5))).await.unwrap_err();
        assert_eq!(refused.storage_epoch, Some(Epoch(6)), "{refused}");
        from.close(region).await.unwrap();
        assert_eq!((from.stats().len(), to.stats().len()), (0, 1));
    }
}
