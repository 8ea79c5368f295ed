//! What the store says of terms: the counter, the records, and the spares, read at one revision.
//!
//! `metasrv_core::spare` decides what they mean; here are their keys and the revisions that every write compares.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use metasrv_core::id::Term;
use metasrv_core::settlement::{TermEnd, TermNumbers};
use metasrv_core::spare::{Reserve, Terms};
use metasrv_proto::admin::{CounterRecord, SpareRecord, TermRecord};

use crate::keys::Keys;
use crate::record::{self, RecordError};
use crate::store::fenced::Write;
use crate::store::{Change, Record, Store, StoreError};

/// Spares that one transaction deletes at most, and records: both fit into one of 127 changes. What a leader has to delete
/// are the usable ones, of which there are fewer (`metasrv_core::spare::MANY`, and one for each candidate); stale ones
/// beyond that are left for the next leader.
const MOST_ENDED: usize = 60;

/// Why the terms cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum TermsError {
    /// The store could not be read.
    #[error("cannot read the terms: {0}")]
    Read(#[from] StoreError),
    /// The counter makes no sense.
    #[error("cannot understand the terms: {0}")]
    Record(#[from] RecordError),
}

/// See the module.
pub struct StoredTerms {
    keys: Keys,
    counter: Option<Record>,
    counted: Term,
    records: BTreeMap<Term, Record>,
    spares: BTreeMap<Term, Record>,
    terms: Terms<String>,
}

impl StoredTerms {
    /// Reads them.
    ///
    /// # Errors
    /// [`TermsError`]. A record or a spare that cannot be understood is no error: a term without a readable record costs
    /// the longest wait, a spare without an owner is nobody's.
    pub async fn read(store: &dyn Store, keys: &Keys) -> Result<StoredTerms, TermsError> {
        let page = store.list(&keys.terms()).await?;
        let (mut counter, mut records, mut spares) = (None, BTreeMap::new(), BTreeMap::new());
        for stored in page.records {
            if stored.key == keys.term_current() {
                counter = Some(stored);
            } else if let Some(term) = keys.parse_term_record(&stored.key) {
                records.insert(term, stored);
            } else if let Some(term) = keys.parse_term_spare(&stored.key) {
                spares.insert(term, stored);
            }
        }
        let counted = match &counter {
            Some(counter) => Term(record::decode::<CounterRecord>(counter)?.value),
            None => Term(0),
        };
        let recorded: BTreeSet<Term> = records.keys().copied().collect();
        let owners = spares.iter().map(|(term, spare)| (*term, owner_of(spare))).collect();
        let terms = Terms::new(counted, &recorded, owners);
        Ok(StoredTerms { keys: keys.clone(), counter, counted, records, spares, terms })
    }

    /// The highest term that may have been led.
    pub fn last(&self) -> Term {
        self.terms.last()
    }

    /// The usable spare of the candidate with this election key.
    pub fn spare_of(&self, election_key: &str) -> Option<Term> {
        self.terms.spare_of(&election_key.to_owned())
    }

    /// The usable spare of a candidate, if those who stand before it would leave it to it.
    pub fn lasting_spare_of(&self, election_key: &str, ahead: &[String]) -> Option<Term> {
        self.terms.lasting_spare_of(&election_key.to_owned(), ahead.iter())
    }

    /// What a candidate may reserve; `stands` says whether a candidate's election key is in the queue.
    pub fn reserve(&self, stands: impl Fn(&str) -> bool) -> Reserve {
        self.terms.reserve(|owner| stands(owner))
    }

    /// The election key of whoever reserved this term. Empty where that cannot be read.
    pub fn owner_of(&self, spare: Term) -> String {
        self.spares.get(&spare).map(owner_of).unwrap_or_default()
    }

    /// The numbers of all recorded terms that can be read.
    pub fn numbers(&self) -> Vec<TermNumbers> {
        self.records.iter().filter_map(|(term, stored)| numbers(*term, stored)).collect()
    }

    /// The record of a term, and its mod revision.
    ///
    /// # Errors
    /// Where it cannot be understood.
    pub fn record(&self, term: Term) -> Result<Option<(TermRecord, i64)>, RecordError> {
        let Some(stored) = self.records.get(&term) else { return Ok(None) };
        Ok(Some((record::decode(stored)?, stored.mod_revision)))
    }

    /// Puts the record of a term.
    pub fn put_record(&self, term: Term, value: &TermRecord) -> Write {
        put(self.keys.term_record(term), record::encode(value), revision(self.records.get(&term)))
    }

    /// Puts the spare of a term.
    pub fn put_spare(&self, term: Term, owner: &str) -> Write {
        let value = record::encode(&SpareRecord { key: owner.to_owned() });
        put(self.keys.term_spare(term), value, revision(self.spares.get(&term)))
    }

    /// Raises the counter, where it is below this term.
    pub fn raise_counter(&self, term: Term) -> Option<Write> {
        let value = record::encode(&CounterRecord { value: term.0 });
        (self.counted < term).then(|| put(self.keys.term_current(), value, revision(self.counter.as_ref())))
    }

    /// Deletes the spares that end when this term begins.
    pub fn end_spares(&self, term: Term) -> Vec<Write> {
        self.ended_by(term).map(|(term, spare)| delete(self.keys.term_spare(term), spare)).collect()
    }

    /// Deletes the records of the terms that were reserved and never led, and whose spares end when this term begins.
    pub fn end_reserved_records(&self, term: Term) -> Vec<Write> {
        let recorded = self.ended_by(term).filter_map(|(term, _)| Some((term, self.records.get(&term)?)));
        recorded.map(|(term, stored)| delete(self.keys.term_record(term), stored)).collect()
    }

    fn ended_by(&self, term: Term) -> impl Iterator<Item = (Term, &Record)> {
        self.terms.ended_by(term).filter_map(|term| Some((term, self.spares.get(&term)?))).take(MOST_ENDED)
    }

    /// The counter's mod revision, to be compared.
    pub fn counter_revision(&self) -> i64 {
        revision(self.counter.as_ref())
    }
}

/// Whether the candidate that reserved this term leads it, without having been able to say so in its election key: its
/// spare is gone, and nobody led a later term.
///
/// # Errors
/// Where the terms cannot be read.
pub async fn is_led_by_reservation(store: &dyn Store, keys: &Keys, term: Term) -> Result<bool, TermsError> {
    let stored = StoredTerms::read(store, keys).await?;
    let reserved = stored.record(term)?.is_some_and(|(record, _)| record.reserved);
    Ok(reserved && stored.last() == term)
}

fn owner_of(spare: &Record) -> String {
    match record::decode::<SpareRecord>(spare) {
        Ok(record) => record.key,
        Err(error) => {
            tracing::error!(%error, "whose spare this is cannot be read; it is nobody's");
            String::new()
        }
    }
}

/// The numbers of a stored term. One that cannot be read counts as missing, for which the longest wait stands.
fn numbers(term: Term, stored: &Record) -> Option<TermNumbers> {
    match record::decode::<TermRecord>(stored) {
        Ok(record) => Some(TermNumbers {
            term,
            election_ttl: Duration::from_millis(record.election_ttl_ms),
            region_lease: Duration::from_millis(record.region_lease_ms),
            end: if record.resigned { TermEnd::Resigned } else { TermEnd::Unknown },
            settled_below: Term(record.settled_below),
        }),
        Err(error) => {
            tracing::error!(%error, "the record of a term cannot be read; waiting as if it had not resigned");
            None
        }
    }
}

fn put(key: String, value: Vec<u8>, expected_mod_revision: i64) -> Write {
    Write { change: Change::Put { key, value }, expected_mod_revision }
}

fn delete(key: String, stored: &Record) -> Write {
    Write { change: Change::Delete { key }, expected_mod_revision: stored.mod_revision }
}

fn revision(stored: Option<&Record>) -> i64 {
    stored.map_or(0, |stored| stored.mod_revision)
}
