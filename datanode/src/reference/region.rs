//! One region: an ordered key-value store in one file, which keeps the highest epoch it was opened under.
//!
//! The epoch is the part of the safety argument that a lease cannot give: it is raised before the region may be written
//! to, and each write compares its own with it in the same transaction. A writer that slept through its lease finds a
//! higher one and is refused.

use std::path::Path;

use datanode::{Epoch, NotWritable, WriteGuard};
use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, TableDefinition,
};

const PAIRS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("pairs-v1");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta-v1");
const EPOCH: &str = "epoch";

/// Regions are small: what is read often fits into this.
const CACHE_BYTES: usize = 1 << 20;

/// Pairs of one scan, and their bytes.
const SCAN: (usize, usize) = (1_000, 1 << 20);

/// Why a region did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum KeyValueError {
    /// The right to write was gone, or never there. Nothing was written.
    #[error(transparent)]
    NotWritable(#[from] NotWritable),
    /// The region was opened under a higher epoch since. Nothing was written.
    #[error("the region has epoch {stored}, which is higher than {offered}")]
    Fenced {
        /// The region's epoch.
        stored: Epoch,
        /// The writer's.
        offered: Epoch,
    },
    /// The right ended while the storage was at work.
    #[error("the lease ended while the storage was at work: whether it was written is unknown")]
    Unknown,
    /// The file does not work.
    #[error("the region's file: {0}")]
    Storage(String),
}

fn storage(error: impl std::fmt::Display) -> KeyValueError {
    KeyValueError::Storage(error.to_string())
}

/// A part of a region, in the order of keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scanned {
    /// The pairs.
    pub pairs: Vec<(Vec<u8>, Vec<u8>)>,
    /// There are more after them.
    pub more: bool,
}

/// An open file. Its calls block: they belong on a thread of their own.
#[derive(Debug)]
pub struct RegionStore {
    database: Database,
}

impl RegionStore {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// [`KeyValueError::Storage`].
    pub fn open(path: &Path) -> Result<RegionStore, KeyValueError> {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        Ok(RegionStore { database: builder.create(path).map_err(storage)? })
    }

    /// Raises the region's epoch; from now on writers of lower ones are refused.
    ///
    /// # Errors
    /// [`KeyValueError::Fenced`] where it is higher already.
    pub fn raise(&self, epoch: Epoch) -> Result<(), KeyValueError> {
        let write = self.database.begin_write().map_err(storage)?;
        {
            // Made here, so that readers find it.
            write.open_table(PAIRS).map_err(storage)?;
            let mut meta = write.open_table(META).map_err(storage)?;
            let stored = Epoch(meta.get(EPOCH).map_err(storage)?.map_or(0, |stored| stored.value()));
            if stored > epoch {
                return Err(KeyValueError::Fenced { stored, offered: epoch });
            }
            meta.insert(EPOCH, epoch.0).map_err(storage)?;
        }
        write.commit().map_err(storage)
    }

    /// Writes one pair, durably, if the guard and the region's epoch allow it.
    ///
    /// # Errors
    /// [`KeyValueError`]; only [`KeyValueError::Unknown`] leaves open whether it was written.
    pub fn put(&self, guard: &WriteGuard, key: &[u8], value: &[u8]) -> Result<(), KeyValueError> {
        let write = self.database.begin_write().map_err(storage)?;
        {
            let meta = write.open_table(META).map_err(storage)?;
            let stored = Epoch(meta.get(EPOCH).map_err(storage)?.map_or(0, |stored| stored.value()));
            if stored != guard.epoch() {
                return Err(KeyValueError::Fenced { stored, offered: guard.epoch() });
            }
            write.open_table(PAIRS).map_err(storage)?.insert(key, value).map_err(storage)?;
        }
        // It waited for the writer before it: the right is compared with the clock at the last moment.
        guard.check()?;
        write.commit().map_err(storage)?;
        guard.check().map_err(|_| KeyValueError::Unknown)
    }

    /// Reads one value.
    ///
    /// # Errors
    /// [`KeyValueError::Storage`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KeyValueError> {
        let read = self.database.begin_read().map_err(storage)?;
        let pairs = read.open_table(PAIRS).map_err(storage)?;
        Ok(pairs.get(key).map_err(storage)?.map(|value| value.value().to_vec()))
    }

    /// Reads pairs from `start` on, up to `limit` (0: as many as are allowed).
    ///
    /// # Errors
    /// [`KeyValueError::Storage`].
    pub fn scan(&self, start: &[u8], limit: usize) -> Result<Scanned, KeyValueError> {
        let (most_pairs, most_bytes) = SCAN;
        let limit = if limit == 0 { most_pairs } else { limit.min(most_pairs) };
        let read = self.database.begin_read().map_err(storage)?;
        let table = read.open_table(PAIRS).map_err(storage)?;
        let mut scanned = Scanned { pairs: Vec::new(), more: false };
        let mut bytes = 0_usize;
        for pair in table.range(start..).map_err(storage)? {
            let (key, value) = pair.map_err(storage)?;
            if scanned.pairs.len() >= limit || bytes >= most_bytes {
                scanned.more = true;
                break;
            }
            bytes = bytes.saturating_add(key.value().len()).saturating_add(value.value().len());
            scanned.pairs.push((key.value().to_vec(), value.value().to_vec()));
        }
        Ok(scanned)
    }

    /// Bytes of keys and values, about.
    ///
    /// # Errors
    /// [`KeyValueError::Storage`].
    pub fn bytes(&self) -> Result<u64, KeyValueError> {
        let read = self.database.begin_read().map_err(storage)?;
        let stats = read.open_table(PAIRS).and_then(|pairs| Ok(pairs.stats()?)).map_err(storage)?;
        Ok(stats.stored_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(place: &tempfile::TempDir) -> RegionStore {
        RegionStore::open(&place.path().join("1.redb")).unwrap()
    }

    #[test]
    fn an_epoch_is_raised_and_never_lowered_also_over_a_restart() {
        let place = tempfile::tempdir().unwrap();
        let region = store(&place);
        region.raise(Epoch(3)).unwrap();
        region.raise(Epoch(3)).unwrap();
        drop(region);
        let region = store(&place);
        let refused = region.raise(Epoch(2)).unwrap_err();
        assert!(
            matches!(refused, KeyValueError::Fenced { stored: Epoch(3), offered: Epoch(2) }),
            "{refused}"
        );
        region.raise(Epoch(4)).unwrap();
    }

    #[test]
    fn a_scan_is_ordered_and_says_whether_there_is_more() {
        let place = tempfile::tempdir().unwrap();
        let region = store(&place);
        region.raise(Epoch(1)).unwrap();
        assert_eq!(region.scan(b"", 0).unwrap(), Scanned { pairs: vec![], more: false });
        let write = region.database.begin_write().unwrap();
        for key in ["c", "a", "b"] {
            write.open_table(PAIRS).unwrap().insert(key.as_bytes(), &b"v"[..]).unwrap();
        }
        write.commit().unwrap();
        let keys = |scanned: &Scanned| scanned.pairs.iter().map(|(key, _)| key[0]).collect::<Vec<_>>();
        let all = region.scan(b"", 0).unwrap();
        assert_eq!((keys(&all), all.more), (b"abc".to_vec(), false));
        let some = region.scan(b"b", 1).unwrap();
        assert_eq!((keys(&some), some.more), (b"b".to_vec(), true));
        assert_eq!(region.get(b"c").unwrap().unwrap(), b"v");
        assert_eq!(region.get(b"d").unwrap(), None);
    }
}
