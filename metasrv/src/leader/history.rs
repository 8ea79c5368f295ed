//! The history beside the decisions: what no transaction of its own changes, and what is old enough to go.
//!
//! Most events are written with what they tell of ([`Leader::timeline_entry`]). Some are observations (a process has ended,
//! failovers stand still): they are left here by whoever made them, and the control loop writes them within a turn or two. Such
//! an event is lost where the term ends before that; nothing is decided by it.

use std::sync::PoisonError;

use metasrv_proto::admin::StoredEvent;

use super::Leader;
use crate::store::fenced::{CommitError, Write};
use crate::store::{Change, MAX_CHANGES, Record, StoreError, each};

/// Observations that wait to be written; more are not told.
const MOST_UNTOLD: usize = 1_024;

/// Entries that are held at the same time while the history is measured.
const AT_ONCE: usize = 256;

/// How much an entry of the history takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Its mod revision.
    pub revision: i64,
    /// Bytes of key and value.
    pub bytes: usize,
}

impl Leader {
    /// Leaves an observation for the control loop to write.
    pub fn tell(&self, event: StoredEvent) {
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        if untold.len() < MOST_UNTOLD {
            untold.push(event);
        }
        drop(untold);
        self.control.wake();
    }

    /// Takes the observations that wait.
    pub fn take_untold(&self) -> Vec<StoredEvent> {
        std::mem::take(&mut self.untold.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes observations, in a transaction that changes nothing else.
    ///
    /// # Errors
    /// [`CommitError`].
    pub async fn write_events(&self, events: Vec<StoredEvent>) -> Result<(), CommitError> {
        self.commit(self.timeline_entry(events).into_iter().collect()).await.map(drop)
    }

    /// Every entry of the history, the oldest first. They may take many times the memory of all regions, and are read a part
    /// at a time.
    ///
    /// # Errors
    /// [`StoreError`] where it cannot be read now.
    pub async fn measure_timeline(&self) -> Result<Vec<Entry>, StoreError> {
        let mut entries: Vec<Entry> = Vec::new();
        let see = |record: &Record| {
            entries.push(Entry {
                key: record.key.clone(),
                revision: record.mod_revision,
                bytes: record.key.len().saturating_add(record.value.len()),
            });
        };
        each(self.fenced.reader(), &self.keys.timeline(), AT_ONCE, see).await?;
        Ok(entries)
    }

    /// Deletes entries of the history, so many in a transaction as one takes.
    ///
    /// # Errors
    /// [`CommitError`]; what was deleted before the error stays deleted.
    pub async fn delete_entries(&self, entries: &[Entry]) -> Result<(), CommitError> {
        for chunk in entries.chunks(MAX_CHANGES) {
            let writes = chunk.iter().map(|entry| Write {
                change: Change::Delete { key: entry.key.clone() },
                expected_mod_revision: entry.revision,
            });
            self.commit(writes.collect()).await?;
        }
        Ok(())
    }
}
