//! The term of whoever is next, made ready to be begun in the transaction that ends the one before: by a leader that resigns,
//! while it still leads, or by a standby that deposes one (`crate::standby`).
//!
//! Whose it is, and why that is safe, says `metasrv_core::handover`. Here is what is read for it, and what it adds to the
//! transaction (`resign.rs`): the successor's key with the term in it, the term's record, the counter, and the ends of the
//! spares, each with the revision that was read. If one of them has changed by then, the transaction is made without.

use std::time::Duration;

use metasrv_core::handover::{self, Nobody, Says, Standing};
use metasrv_core::id::{Fence, Term};
use metasrv_proto::admin::{CandidateRecord, TermRecord};
use prost::Message as _;

use crate::clock::wall_clock_ms;
use crate::keys::Keys;
use crate::record::{self, RecordError};
use crate::store::fenced::Write;
use crate::store::{Change, Compare, Record, Store, StoreError, Txn};
use crate::terms::{StoredTerms, TermsError};

/// What the end of a leadership adds for its successor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Succession {
    /// Whose leadership ends with it, as the queue showed it.
    pub ends: Fence,
    /// Whose key it is.
    pub name: String,
    /// The term that begins.
    pub term: Term,
    fence: Fence,
    writes: Vec<Write>,
}

/// Why there is none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoSuccession {
    /// Nobody can be given a term.
    #[error("{0}")]
    Nobody(Nobody),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] StoreError),
    /// The terms make no sense.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl From<TermsError> for NoSuccession {
    fn from(error: TermsError) -> NoSuccession {
        match error {
            TermsError::Read(error) => NoSuccession::Read(error),
            TermsError::Record(error) => NoSuccession::Record(error),
        }
    }
}

impl Succession {
    /// Reads who is next behind the leader with this key, and which term is.
    ///
    /// # Errors
    /// [`NoSuccession`]: then that one's leadership ends without, and whoever is next begins a term itself.
    pub async fn prepare(store: &dyn Store, keys: &Keys, leader: &str) -> Result<Succession, NoSuccession> {
        let prefix = format!("{}/", keys.election());
        let (queue, stored) = tokio::join!(store.list(&prefix), StoredTerms::read(store, keys));
        let (queue, stored) = (queue?.records, stored?);
        let standings: Vec<Standing> = queue.iter().map(standing).collect();
        let ends = standings.iter().find(|standing| standing.fence.key == leader);
        let ends = ends.ok_or(NoSuccession::Nobody(Nobody::NotFirst))?.fence.clone();
        let (next, _) = handover::successor(&ends, &standings).map_err(NoSuccession::Nobody)?;
        let key = queue.iter().find(|key| key.key == next.fence.key);
        let key = key.ok_or(NoSuccession::Nobody(Nobody::Unreadable))?;
        let candidate: CandidateRecord = record::decode(key)?;
        let term = stored.last().next();
        let begun = TermRecord {
            term: term.0,
            election_ttl_ms: candidate.election_ttl_ms,
            region_lease_ms: candidate.region_lease_ms,
            name: candidate.name.clone(),
            addr: candidate.addr,
            began_at_ms: wall_clock_ms(),
            ..TermRecord::default()
        };
        let published = Change::Update { key: key.key.clone(), value: with_term(&key.value, term) };
        let mut writes = vec![
            Write { change: published, expected_mod_revision: key.mod_revision },
            stored.put_record(term, &begun),
        ];
        writes.extend(stored.raise_counter(term));
        writes.extend(stored.end_spares(term));
        Ok(Succession { ends, name: candidate.name, term, fence: next.fence.clone(), writes })
    }

    /// Adds it to the transaction that ends the leadership before it.
    pub fn add_to(&self, txn: &mut Txn) {
        let Fence { key, create_revision } = self.fence.clone();
        txn.compares.push(Compare::CreateRevision { key, revision: create_revision });
        for Write { change, expected_mod_revision } in self.writes.clone() {
            let key = change.key().to_owned();
            txn.compares.push(Compare::ModRevision { key, revision: expected_mod_revision });
            txn.changes.push(change);
        }
    }
}

fn standing(stored: &Record) -> Standing {
    let says = record::decode::<CandidateRecord>(stored).ok().map(|candidate| Says {
        term: Term(candidate.term),
        election_ttl: Duration::from_millis(candidate.election_ttl_ms),
        region_lease: Duration::from_millis(candidate.region_lease_ms),
        takes_begun_term: candidate.takes_begun_term,
    });
    Standing { fence: Fence { key: stored.key.clone(), create_revision: stored.create_revision }, says }
}

/// The record of a candidate with a term in it, and with all else that it says: it may be of a newer version than this one,
/// and have fields that are unknown here. In protobuf a message that follows another is merged into it.
fn with_term(record: &[u8], term: Term) -> Vec<u8> {
    let mut value = record.to_vec();
    value.extend(CandidateRecord { term: term.0, ..CandidateRecord::default() }.encode_to_vec());
    value
}

#[cfg(test)]
#[path = "succession_tests.rs"]
mod tests;
