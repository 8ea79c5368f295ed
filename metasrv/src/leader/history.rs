//! The history beside the decisions: what no transaction of its own changes, and what is old enough to go.
//!
//! Most events are written with what they tell of ([`Leader::timeline_entry`]). Some are observations (a process has ended,
//! failovers stand still): they are left here by whoever made them, and the control loop writes them within a turn or two. Such
//! an event is lost where the term ends before that; nothing is decided by it.

use std::sync::PoisonError;

use metasrv_proto::admin::StoredEvent;

use super::Leader;
use crate::store::fenced::{CommitError, Write};
use crate::store::{Change, MAX_CHANGES, Page, Record, StoreError};

/// Observations that wait to be written; more are not told.
const MOST_UNTOLD: usize = 1_024;

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

    /// The whole history, as it is kept.
    ///
    /// # Errors
    /// [`StoreError`] where it cannot be read now.
    pub async fn read_timeline(&self) -> Result<Page, StoreError> {
        self.fenced.reader().list(&self.keys.timeline()).await
    }

    /// Deletes entries of the history, so many in a transaction as one takes.
    ///
    /// # Errors
    /// [`CommitError`]; what was deleted before the error stays deleted.
    pub async fn delete_entries(&self, entries: &[Record]) -> Result<(), CommitError> {
        for chunk in entries.chunks(MAX_CHANGES) {
            let writes = chunk.iter().map(|entry| Write {
                change: Change::Delete { key: entry.key.clone() },
                expected_mod_revision: entry.mod_revision,
            });
            self.commit(writes.collect()).await?;
        }
        Ok(())
    }
}
