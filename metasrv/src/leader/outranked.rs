//! A node has seen a higher term than this one: the store was set back, to a backup from before that term.
//!
//! Nodes refuse to be led by a term below the highest that they have seen. So the counter of terms is raised, under the
//! fence, to what was seen, and this term ends: whoever leads next leads above it. The terms in between left no records,
//! so the next leader waits for the longest that they may have granted (`metasrv_core::settlement`). What candidates have
//! reserved among them goes too, records and all: those say nothing of who led these terms before the store was set back.

use std::sync::atomic::{AtomicU64, Ordering};

use metasrv_core::id::Term;
use tokio::sync::Notify;

use super::Leader;
use super::registrar::Request;
use crate::store::StoreError;
use crate::store::fenced::CommitError;
use crate::terms::{StoredTerms, TermsError};

/// Attempts to raise the counter: a candidate that reserves a term raises it too.
const ATTEMPTS: usize = 4;

/// What a leader knows of terms above its own.
#[derive(Debug, Default)]
pub struct Counter {
    /// The highest term that a node has reported.
    reported: AtomicU64,
    raised: Notify,
}

impl Leader {
    /// A node of this installation says that it has seen this term. Asked with each heartbeat, so it is cheap where
    /// the term is not above our own.
    pub fn hear_of_term(&self, seen: Term) {
        if seen <= self.term || self.counter.reported.fetch_max(seen.0, Ordering::AcqRel) >= seen.0 {
            return;
        }
        tracing::warn!(
            term = %self.term, %seen,
            "a node has seen a higher term: the store was set back; this term ends, for one above it"
        );
        if self.registrar.try_send(Request::RaiseTerm(seen)).is_err() {
            // There was no room: the node says it again with its next heartbeat.
            self.counter.reported.store(0, Ordering::Release);
        }
    }

    /// Resolves once the counter of terms stands above this term: it has to end, and another one to begin.
    pub async fn outranked(&self) {
        self.counter.raised.notified().await;
    }

    pub(super) async fn raise_counter(&self, seen: Term) -> Result<(), CommitError> {
        let mut attempt = 1;
        let raised = loop {
            match self.try_to_raise_counter(seen).await {
                Err(CommitError::Conflict { .. }) if attempt < ATTEMPTS => attempt += 1,
                result => break result,
            }
        };
        raised.inspect_err(|_| {
            // To be tried again when the node says it again.
            self.counter.reported.store(0, Ordering::Release);
        })?;
        self.counter.raised.notify_one();
        Ok(())
    }

    async fn try_to_raise_counter(&self, seen: Term) -> Result<(), CommitError> {
        let stored = StoredTerms::read(self.fenced.reader(), &self.keys).await.map_err(|error| {
            CommitError::Refused(match error {
                TermsError::Read(error) => error,
                TermsError::Record(error) => StoreError::Corrupt { why: error.to_string() },
            })
        })?;
        let mut writes: Vec<_> = stored.raise_counter(seen).into_iter().collect();
        writes.extend(stored.end_spares(seen));
        writes.extend(stored.end_reserved_records(seen));
        self.commit(writes).await.map(drop)
    }
}
