//! A node has seen a higher term than this one: the store was set back, to a backup from before that term.
//!
//! Nodes refuse to be led by a term below the highest that they have seen. So the counter of terms is raised, under the
//! fence, to what was seen, and this term ends: whoever leads next leads above it. The terms in between left no records,
//! so the next leader waits for the longest that they may have granted (`metasrv_core::settlement`).

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use metasrv_core::id::Term;
use metasrv_proto::admin::CounterRecord;
use tokio::sync::Notify;

use super::Leader;
use super::registrar::Request;
use crate::record;
use crate::store::Change;
use crate::store::fenced::{CommitError, Write};

/// What a leader knows of the counter of terms, and of terms above its own.
#[derive(Debug, Default)]
pub struct Counter {
    /// Mod revision of the counter.
    revision: AtomicI64,
    /// The highest term that a node has reported.
    reported: AtomicU64,
    raised: Notify,
}

impl Counter {
    /// As the first transaction of the term left it.
    pub fn new(revision: i64) -> Counter {
        Counter { revision: AtomicI64::new(revision), ..Counter::default() }
    }
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
        let write = Write {
            change: Change::Put {
                key: self.keys.term_current(),
                value: record::encode(&CounterRecord { value: seen.0 }),
            },
            expected_mod_revision: self.counter.revision.load(Ordering::Acquire),
        };
        let revision = self.commit(vec![write]).await.inspect_err(|_| {
            // To be tried again when the node says it again.
            self.counter.reported.store(0, Ordering::Release);
        })?;
        self.counter.revision.store(revision, Ordering::Release);
        self.counter.raised.notify_one();
        Ok(())
    }
}
