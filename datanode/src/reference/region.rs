//! One region: an ordered key-value store in memory, rebuilt from the append-only segments on the shared directory.
//!
//! # Why a put that was acknowledged is found after a failover
//!
//! A put under epoch e is acknowledged after, in this order: **(1)** no newer epoch than e is claimed; **(2)** the put is
//! written to segment e, durably; **(3)** once more no newer epoch is claimed. Whoever takes the region over under epoch
//! f > e does, in this order: **(a)** claims f, so that everybody sees it; **(b)** reads segment e to its end; **(c)** seals
//! f with the number of bytes that it found; then it writes.
//!
//! If (3) saw no claim, then it came before (a), so (2) came before (b): the put was whole when segment e was read, and
//! it is counted. It does not matter where either process was paused, or killed, or for how long: an old writer that was
//! stopped between (1) and (2) wakes up, appends behind the counted bytes, and is told so by (3). It acknowledges
//! nothing, and nobody reads what it appended. A put that fails at (3) may have been counted: its outcome is unknown.
//!
//! A claimant that is paused between (a) and (c) while a newer one does all of it is no danger either: it is not in the
//! newer one's chain unless its seal was there at the newer one's (b), and everything that it would acknowledge has to
//! pass (1), which sees the newer claim.
//!
//! The lease is what makes this rare; the segments are what makes it safe. Of the file system it needs what one machine
//! gives: a link that appears at once for all processes, and reads that see completed writes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use datanode::{Epoch, NotWritable, RegionId, WriteGuard};

use super::record::{Header, Owner, Put, Record, Seal};
use super::segment::{Part, Segments};

/// Pairs of one scan, and their bytes.
const SCAN: (usize, usize) = (1_000, 1 << 20);

/// Why a region did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum KeyValueError {
    /// The right to write was gone, or never there. Nothing was written.
    #[error(transparent)]
    NotWritable(#[from] NotWritable),
    /// The region was claimed under another epoch since, or by another node. Nothing was written.
    #[error("the region's storage is at epoch {stored}, which is not {offered} of this node")]
    Fenced {
        /// The storage's epoch.
        stored: Epoch,
        /// The writer's.
        offered: Epoch,
    },
    /// The right ended while the storage was at work.
    #[error("the right to write ended while the storage was at work: whether it was written is unknown")]
    Unknown,
    /// The files do not work.
    #[error("the region's files: {0}")]
    Storage(String),
}

const FAILED_BEFORE: &str = "an earlier write failed: the region is read-only until it gets another epoch";

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

/// An open region. Its calls block: they belong on a thread of their own.
#[derive(Debug)]
pub struct RegionStore {
    segments: Segments,
    region: RegionId,
    owner: Owner,
    log: Mutex<Log>,
    content: RwLock<Content>,
}

/// How far the segments were read, and the one that is written.
#[derive(Default, Debug)]
struct Log {
    /// The parts that were read, and up to where, the oldest first. While it leads, the last one is its own.
    read: Vec<(Epoch, u64)>,
    /// The last position that was read or written.
    position: u64,
    writer: Option<Writer>,
    /// A write under this epoch failed so that nobody knows what is on the disk: nothing is appended to its segment.
    failed: Option<Epoch>,
}

#[derive(Debug)]
struct Writer {
    epoch: Epoch,
    segment: File,
    /// Where the next put goes.
    end: u64,
}

#[derive(Default, Debug)]
struct Content {
    pairs: BTreeMap<Vec<u8>, Vec<u8>>,
    bytes: u64,
}

impl RegionStore {
    /// A region below the shared directory; nothing is read yet.
    ///
    /// # Errors
    /// [`KeyValueError::Storage`].
    pub fn open(shared: &Path, region: RegionId, owner: Owner) -> Result<RegionStore, KeyValueError> {
        let segments = Segments::open(shared, region).map_err(storage)?;
        Ok(RegionStore { segments, region, owner, log: Mutex::default(), content: RwLock::default() })
    }

    /// Claims this epoch, reads what was written under lower ones, and may write from now on; writers of lower epochs
    /// are acknowledged nothing any more.
    ///
    /// # Errors
    /// [`KeyValueError::Fenced`] where a higher one is claimed, or this one by another node.
    pub fn lead(&self, epoch: Epoch) -> Result<(), KeyValueError> {
        let mut log = self.log();
        if log.writer.as_ref().is_some_and(|writer| writer.epoch == epoch) {
            return Ok(());
        }
        log.writer = None;
        if log.failed == Some(epoch) {
            return Err(storage(FAILED_BEFORE));
        }
        self.claim(epoch)?;
        self.read_before(&mut log, epoch)?;
        self.begin(&mut log, epoch)
    }

    /// (a) of the module's argument.
    fn claim(&self, epoch: Epoch) -> Result<(), KeyValueError> {
        self.not_newer(epoch)?;
        let header = Header { region: self.region, epoch, owner: self.owner };
        let claimed = self.segments.claim(header).map_err(storage)?;
        if claimed.owner != self.owner {
            return Err(KeyValueError::Fenced { stored: epoch, offered: epoch });
        }
        Ok(())
    }

    /// (b). Where a former process of this node got as far as sealing its segment, that one is read as well.
    fn read_before(&self, log: &mut Log, epoch: Epoch) -> Result<(), KeyValueError> {
        let is_sealed = self.segments.beginning(epoch).map_err(storage)?.seal.is_some();
        self.read_to_end(log, if is_sealed { epoch.next() } else { epoch })
    }

    /// (c).
    fn begin(&self, log: &mut Log, epoch: Epoch) -> Result<(), KeyValueError> {
        let (previous, counted) = log.read.last().copied().unwrap_or_default();
        let (segment, end) = if previous == epoch {
            // The former process has ended: this one holds the lock on its directory.
            (self.segments.writable(epoch, counted).map_err(storage)?, counted)
        } else {
            // What is counted has to be on the disk: its writer may have ended before it was.
            self.segments.sync(previous).map_err(storage)?;
            let seal = Seal { previous, counted, position: log.position };
            let (segment, end) = self.segments.seal(epoch, seal).map_err(storage)?;
            log.read.push((epoch, end));
            (segment, end)
        };
        self.not_newer(epoch)?;
        log.writer = Some(Writer { epoch, segment, end });
        Ok(())
    }

    /// Reads what was written since the last time, without claiming anything. Returns the position it reached.
    ///
    /// # Errors
    /// [`KeyValueError::Storage`].
    pub fn follow(&self) -> Result<u64, KeyValueError> {
        let mut log = self.log();
        // What it writes itself it knows.
        if log.writer.is_none() {
            self.read_to_end(&mut log, Epoch(u64::MAX))?;
        }
        Ok(log.position)
    }

    /// Writes nothing any more before it is told to lead again. Returns the last position.
    pub fn rest(&self) -> u64 {
        let mut log = self.log();
        log.writer = None;
        log.position
    }

    /// Writes one pair, durably, if the guard and the region's epoch allow it.
    ///
    /// # Errors
    /// [`KeyValueError`]; only [`KeyValueError::Unknown`] and [`KeyValueError::Storage`] leave open whether it was written.
    pub fn put(&self, guard: &WriteGuard, key: &[u8], value: &[u8]) -> Result<(), KeyValueError> {
        self.append(guard.epoch(), key, value, || guard.check())
    }

    /// What no node may do: writes whoever leads and whatever the clock says. See `kept_rights.rs`.
    ///
    /// # Errors
    /// [`KeyValueError`].
    pub fn put_without_right(&self, key: &[u8], value: &[u8]) -> Result<(), KeyValueError> {
        self.write(&mut self.log(), key, value).map(|_| ())
    }

    fn append(
        &self,
        epoch: Epoch,
        key: &[u8],
        value: &[u8],
        right: impl Fn() -> Result<(), NotWritable>,
    ) -> Result<(), KeyValueError> {
        let mut log = self.log();
        self.admit(&log, epoch)?;
        // It waited for the writer before it: the right is compared with the clock at the last moment.
        right()?;
        let put = self.write(&mut log, key, value)?;
        self.confirm(&mut log, epoch)?;
        self.content.write().unwrap_or_else(PoisonError::into_inner).apply(put);
        right().map_err(|_| KeyValueError::Unknown)
    }

    /// (1) of the module's argument.
    fn admit(&self, log: &Log, epoch: Epoch) -> Result<(), KeyValueError> {
        self.not_newer(epoch)?;
        match &log.writer {
            Some(writer) if writer.epoch == epoch => Ok(()),
            Some(writer) => Err(KeyValueError::Fenced { stored: writer.epoch, offered: epoch }),
            None if log.failed == Some(epoch) => Err(storage(FAILED_BEFORE)),
            None => Err(KeyValueError::NotWritable(NotWritable::NotLeased(self.region))),
        }
    }

    /// (2): appends it, durably.
    fn write(&self, log: &mut Log, key: &[u8], value: &[u8]) -> Result<Put, KeyValueError> {
        let Some(mut writer) = log.writer.take() else {
            return Err(KeyValueError::NotWritable(NotWritable::NotLeased(self.region)));
        };
        let position = log.position + 1;
        let put = Put {
            epoch: writer.epoch,
            node: self.owner.node,
            position,
            key: key.to_vec(),
            value: value.to_vec(),
        };
        let frame = Record::Put(put.clone()).frame();
        if let Err(error) = writer.segment.write_all(&frame) {
            // A part of a frame is not whole, so it counts nowhere; but nothing may follow it.
            match self.segments.writable(writer.epoch, writer.end) {
                Ok(segment) => log.writer = Some(Writer { segment, ..writer }),
                Err(_) => log.failed = Some(writer.epoch),
            }
            return Err(storage(error));
        }
        if let Err(error) = writer.segment.sync_data() {
            log.failed = Some(writer.epoch);
            return Err(storage(error));
        }
        writer.end += u64::try_from(frame.len()).unwrap_or(u64::MAX);
        if let Some((_, end)) = log.read.last_mut() {
            *end = writer.end;
        }
        log.position = position;
        log.writer = Some(writer);
        Ok(put)
    }

    /// (3).
    fn confirm(&self, log: &mut Log, epoch: Epoch) -> Result<(), KeyValueError> {
        self.not_newer(epoch).map_err(|error| {
            tracing::warn!(region = %self.region, %epoch, %error, "a put was overtaken by another leader");
            // What it wrote may not be counted: it must not be built upon.
            *log = Log::default();
            KeyValueError::Unknown
        })
    }

    fn not_newer(&self, epoch: Epoch) -> Result<(), KeyValueError> {
        let stored = self.segments.newest().map_err(storage)?;
        if stored > epoch { Err(KeyValueError::Fenced { stored, offered: epoch }) } else { Ok(()) }
    }

    /// Reads what is new in the segments below this epoch; everything, where what was read is not a part of them.
    fn read_to_end(&self, log: &mut Log, below: Epoch) -> Result<(), KeyValueError> {
        let parts = self.segments.parts(below).map_err(storage)?;
        let anew = !is_beginning(&log.read, &parts);
        let (mut read, mut position) = match anew {
            true => (Vec::new(), 0),
            false => (log.read.clone(), log.position),
        };
        let done = read.len().saturating_sub(1);
        let mut found = Vec::new();
        for (index, part) in parts.iter().enumerate().skip(done) {
            let from = read.get(index).map_or(part.begin, |(_, end)| *end);
            if index >= read.len() && part.position != position {
                let why = format!("epoch {} begins after put {}, not {position}", part.epoch, part.position);
                return Err(storage(why));
            }
            let puts = self.segments.puts(part, from, position).map_err(storage)?;
            position += u64::try_from(puts.puts.len()).unwrap_or(u64::MAX);
            read.truncate(index);
            read.push((part.epoch, puts.end));
            found.extend(puts.puts);
        }
        let mut content = self.content.write().unwrap_or_else(PoisonError::into_inner);
        if anew {
            *content = Content::default();
        }
        found.into_iter().for_each(|put| content.apply(put));
        (log.read, log.position) = (read, position);
        Ok(())
    }

    /// Reads one value.
    pub fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.content().pairs.get(key).cloned()
    }

    /// Reads pairs from `start` on, up to `limit` (0: as many as are allowed).
    pub fn scan(&self, start: &[u8], limit: usize) -> Scanned {
        let (most_pairs, most_bytes) = SCAN;
        let limit = if limit == 0 { most_pairs } else { limit.min(most_pairs) };
        let mut scanned = Scanned { pairs: Vec::new(), more: false };
        let mut bytes = 0_usize;
        for (key, value) in self.content().pairs.range(start.to_vec()..) {
            if scanned.pairs.len() >= limit || bytes >= most_bytes {
                scanned.more = true;
                break;
            }
            bytes = bytes.saturating_add(key.len()).saturating_add(value.len());
            scanned.pairs.push((key.clone(), value.clone()));
        }
        scanned
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> u64 {
        self.content().bytes
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn content(&self) -> RwLockReadGuard<'_, Content> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether what was read is a beginning of these parts.
fn is_beginning(read: &[(Epoch, u64)], parts: &[Part]) -> bool {
    read.len() <= parts.len()
        && read.iter().zip(parts).enumerate().all(|(index, ((epoch, end), part))| {
            let is_last = index + 1 == read.len();
            let fits = match part.end {
                Some(counted) if is_last => *end <= counted,
                Some(counted) => *end == counted,
                None => is_last,
            };
            part.epoch == *epoch && fits
        })
}

impl Content {
    fn apply(&mut self, put: Put) {
        let added = put.key.len() + put.value.len();
        let key_bytes = put.key.len();
        let removed = self.pairs.insert(put.key, put.value).map_or(0, |old| old.len() + key_bytes);
        self.bytes = self.bytes.saturating_add(added as u64).saturating_sub(removed as u64);
    }
}

#[cfg(test)]
#[path = "region_tests.rs"]
mod tests;
