//! The only thing a leader writes with: every transaction compares the leader's fence, and the mod revision of each
//! record that it changes.
//!
//! The second makes a lost answer harmless: the very same transaction is sent again. If the first attempt had
//! happened, the second finds what it wanted to write; if not, the second happens, and the first, should it still be
//! under way, finds other revisions than it expects. Either way the outcome is certain (design 03, rule 2).

use std::sync::Arc;
use std::time::Duration;

use metasrv_core::id::Fence;
use metasrv_core::lease::LeadershipLease;
use metasrv_core::time::Clock;
use tokio::sync::Notify;

use super::{Change, Compare, Outcome, Record, Store, StoreError, Txn};

/// Least and most time between two attempts.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// A change, and the revision of the record that it is made to. 0: the record must be absent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    /// The change.
    pub change: Change,
    /// The revision.
    pub expected_mod_revision: i64,
}

/// Why a leader's write is not done.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CommitError {
    /// The fence is gone: somebody else leads, or may. Leadership is over.
    #[error("the write was refused by the fence: this term is over")]
    FenceLost,
    /// Leadership ended before the outcome was certain.
    #[error("leadership ended; whether the write was done is unknown")]
    LeadershipEnded,
    /// A record was changed by somebody else; nothing was changed.
    #[error("a record was changed by somebody else")]
    Conflict {
        /// What was found, write by write.
        found: Vec<Option<Record>>,
    },
    /// Certainly not done.
    #[error("{0}")]
    Refused(StoreError),
}

/// A store behind a fence.
#[derive(Clone)]
pub struct FencedStore {
    store: Arc<dyn Store>,
    fence: Fence,
    lease: Arc<LeadershipLease>,
    clock: Arc<dyn Clock>,
    /// Told when a write was refused by the fence.
    lost: Arc<Notify>,
}

impl FencedStore {
    /// A leader's way to the store, as long as its lease holds.
    pub fn new(
        store: Arc<dyn Store>,
        fence: Fence,
        lease: Arc<LeadershipLease>,
        clock: Arc<dyn Clock>,
    ) -> FencedStore {
        FencedStore { store, fence, lease, clock, lost: Arc::new(Notify::new()) }
    }

    /// The store, to be read.
    pub fn reader(&self) -> &dyn Store {
        self.store.as_ref()
    }

    /// Resolves once a write was refused by the fence, to one who waits for it.
    pub async fn lost(&self) {
        self.lost.notified().await;
    }

    /// Commits all writes or none; repeats what had no answer until the answer is certain or leadership ends.
    /// Returns the revision at which the records stand now.
    ///
    /// # Errors
    /// [`CommitError`]; all but [`CommitError::LeadershipEnded`] are certain.
    pub async fn commit(&self, writes: Vec<Write>) -> Result<i64, CommitError> {
        if writes.is_empty() {
            return Ok(0);
        }
        let txn = self.transaction(&writes);
        let (mut pause, longest) = BACK_OFF;
        let mut unanswered = false;
        loop {
            if !self.lease.holds(self.clock.now()) {
                return Err(CommitError::LeadershipEnded);
            }
            match self.store.commit(txn.clone()).await {
                Ok(Outcome::Done { revision }) => return Ok(revision),
                Ok(Outcome::Refused { found, .. }) => return self.refused(&writes, found, unanswered),
                Err(StoreError::Unknown { why, .. }) => {
                    unanswered = true;
                    tracing::warn!(why, "a fenced write had no answer; sending it again settles it");
                }
                Err(StoreError::Unavailable { why, .. }) => {
                    tracing::debug!(why, "a fenced write could not be sent yet")
                }
                // An earlier attempt may still land: nothing is certain before the fence or the records say so.
                Err(error) if unanswered && error.is_retryable() => {}
                Err(error) => return Err(CommitError::Refused(error)),
            }
            let jitter = pause.mul_f64(rand::random_range(0.5..1.0));
            tokio::time::sleep(jitter).await;
            pause = pause.saturating_mul(2).min(longest);
        }
    }

    fn transaction(&self, writes: &[Write]) -> Txn {
        let fence =
            Compare::CreateRevision { key: self.fence.key.clone(), revision: self.fence.create_revision };
        let compares = writes.iter().map(|write| Compare::ModRevision {
            key: write.change.key().to_owned(),
            revision: write.expected_mod_revision,
        });
        Txn {
            compares: std::iter::once(fence).chain(compares).collect(),
            changes: writes.iter().map(|write| write.change.clone()).collect(),
        }
    }

    fn refused(
        &self,
        writes: &[Write],
        mut found: Vec<Option<Record>>,
        unanswered: bool,
    ) -> Result<i64, CommitError> {
        let fence = if found.is_empty() { None } else { found.remove(0) };
        if fence.is_none_or(|fence| fence.create_revision != self.fence.create_revision) {
            self.lease.end();
            self.lost.notify_one();
            tracing::warn!(
                key = self.fence.key,
                create_revision = self.fence.create_revision,
                "fenced write refused: the key is gone, this term is over"
            );
            return Err(CommitError::FenceLost);
        }
        match already_done(writes, &found) {
            Some(revision) if unanswered => Ok(revision),
            _ => Err(CommitError::Conflict { found }),
        }
    }
}

/// The revision at which all of these writes were done, if that is what the records show.
fn already_done(writes: &[Write], found: &[Option<Record>]) -> Option<i64> {
    let mut at: Option<i64> = None;
    for (write, found) in writes.iter().zip(found) {
        match (&write.change, found) {
            (Change::Put { value, .. } | Change::Update { value, .. }, Some(record))
                if record.value == *value =>
            {
                if at.is_some_and(|at| at != record.mod_revision)
                    || record.mod_revision == write.expected_mod_revision
                {
                    return None;
                }
                at = Some(record.mod_revision);
            }
            (Change::Delete { .. }, None) => {}
            _ => return None,
        }
    }
    // Deletes alone leave no revision behind; zero says that nothing is there.
    Some(at.unwrap_or(0))
}

#[cfg(test)]
#[path = "fenced_tests.rs"]
mod tests;
