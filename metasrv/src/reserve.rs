//! A standby reserves the term that it would lead where the store is out of space by then.
//!
//! The reservation is one transaction, guarded by the standby's own election key: the record of a term with the numbers
//! that it would lead by, the term's spare, and the election key again, which names the term to those who look for the
//! leader. It gives no right to anything (`metasrv_core::spare`, `crate::leader`): leading is what ends the spare, under
//! the fence. So a reservation may fail, come late, or be lost at any time, and is looked after again when the leader
//! changes.

use std::time::Duration;

use metasrv_core::id::Term;
use metasrv_core::spare::Reserve;
use metasrv_proto::admin::{CandidateRecord, TermRecord};
use tokio::sync::watch;

use crate::leader::{Candidate, term_numbers};
use crate::observer::View;
use crate::record::{self, RecordError};
use crate::store::{Change, Compare, Outcome, StoreError, Txn};
use crate::terms::{StoredTerms, TermsError};

/// After a change of leaders everybody is busy; a reservation is in no hurry.
const PAUSE: Duration = Duration::from_millis(200);

/// A term that is led ends all that is reserved below it, so candidates reserve in the order of the queue. So many pauses
/// are made for one ahead that has nothing reserved: it may be of a version that does not do so.
const PATIENCE: u32 = 10;

/// Before another attempt where the store did not answer.
const RETRY: Duration = Duration::from_secs(1);

/// Before another attempt where the store is out of space: nothing changes before somebody makes room.
const RETRY_WITHOUT_SPACE: Duration = Duration::from_secs(5);

/// A candidacy that should have a term reserved, under the present leader.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Standing {
    key: String,
    create_revision: i64,
    leader: Term,
}

/// What came of an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reserved {
    /// Reserved now.
    Now(Term),
    /// Nothing was to be done: it has a term, or does not stand in the queue any more.
    Already,
    /// Somebody ahead in the queue has nothing reserved yet.
    NotYet,
    /// Somebody else changed the terms meanwhile.
    Conflict,
}

#[derive(Debug, thiserror::Error)]
enum ReserveError {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Record(#[from] RecordError),
}

impl From<TermsError> for ReserveError {
    fn from(error: TermsError) -> ReserveError {
        match error {
            TermsError::Read(error) => ReserveError::Store(error),
            TermsError::Record(error) => ReserveError::Record(error),
        }
    }
}

/// Keeps a term reserved while this replica stands in the queue, until the process ends.
pub async fn keep(candidate: Candidate, mut view: watch::Receiver<View>) {
    let mut kept: Option<Standing> = None;
    let mut patience = PATIENCE;
    loop {
        let wanted = view.wait_for(|view| standing(view).is_some_and(|now| kept.as_ref() != Some(&now)));
        let found = match wanted.await {
            Ok(view) => standing(&view),
            // The observer ends with the process.
            Err(_) => return,
        };
        let Some(standing) = found else { continue };
        tokio::time::sleep(PAUSE.mul_f64(rand::random_range(0.5..1.0))).await;
        let pause = match reserve(&candidate, &standing, patience).await {
            Ok(Reserved::Conflict) => continue,
            Ok(Reserved::NotYet) => {
                patience = patience.saturating_sub(1);
                continue;
            }
            Ok(Reserved::Now(term)) => {
                candidate.metrics.store_out_of_space.set(0);
                tracing::info!(%term, leader = %standing.leader, "reserved, to be led where the store is out of space");
                Duration::ZERO
            }
            Ok(Reserved::Already) => Duration::ZERO,
            Err(ReserveError::Store(StoreError::OutOfSpace)) => {
                candidate.metrics.store_out_of_space.set(1);
                tracing::warn!("no term can be reserved: the store is out of space");
                RETRY_WITHOUT_SPACE
            }
            Err(error) => {
                tracing::debug!(%error, "no term could be reserved yet");
                RETRY
            }
        };
        patience = PATIENCE;
        if pause.is_zero() {
            kept = Some(standing);
        } else {
            tokio::time::sleep(pause.mul_f64(rand::random_range(1.0..1.5))).await;
        }
    }
}

/// This replica's place in the queue behind the leader. The first has its turn, and reserves nothing any more.
fn standing(view: &View) -> Option<Standing> {
    let (leader, own) = (view.leader.as_ref()?, view.own.as_ref().filter(|own| own.place > 0)?);
    Some(Standing { key: own.key.clone(), create_revision: own.create_revision, leader: leader.term })
}

async fn reserve(
    candidate: &Candidate,
    standing: &Standing,
    patience: u32,
) -> Result<Reserved, ReserveError> {
    let Candidate { store, keys, .. } = candidate;
    let found = store.get(&standing.key).await?;
    let Some(own_key) = found.filter(|key| key.create_revision == standing.create_revision) else {
        return Ok(Reserved::Already);
    };
    let own: CandidateRecord = record::decode(&own_key)?;
    // Another process at this address, or one that leads meanwhile.
    if own.started_at_ms != candidate.record.started_at_ms || own.term > 0 {
        return Ok(Reserved::Already);
    }
    let stored = StoredTerms::read(store.as_ref(), keys).await?;
    let mut queue = store.list(&format!("{}/", keys.election())).await?.records;
    queue.sort_unstable_by_key(|key| key.create_revision);
    let queue: Vec<String> = queue.into_iter().map(|key| key.key).collect();
    // The first leads, and needs no other term.
    let ahead: Vec<String> = queue.iter().take_while(|key| **key != standing.key).skip(1).cloned().collect();
    if stored.lasting_spare_of(&standing.key, &ahead).is_some() {
        return Ok(Reserved::Already);
    }
    if patience > 0 && ahead.iter().any(|key| stored.spare_of(key).is_none()) {
        return Ok(Reserved::NotYet);
    }
    let (term, owner) = match stored.reserve(|owner| queue.iter().any(|key| key == owner)) {
        Reserve::New(term) => (term, String::new()),
        Reserve::Orphan(term) if stored.spare_of(&standing.key).is_some_and(|own| own > term) => {
            // There are many already; what it has may last.
            return Ok(Reserved::Already);
        }
        Reserve::Orphan(term) => (term, stored.owner_of(term)),
    };
    let record = TermRecord { reserved: true, ..term_numbers(candidate, term) };
    let published = CandidateRecord { reserved_term: term.0, ..own };
    let writes = [stored.put_record(term, &record), stored.put_spare(term, &standing.key)];
    let mut compares = vec![
        Compare::CreateRevision { key: standing.key.clone(), revision: standing.create_revision },
        Compare::ModRevision { key: standing.key.clone(), revision: own_key.mod_revision },
        Compare::ModRevision { key: keys.term_current(), revision: stored.counter_revision() },
    ];
    if !owner.is_empty() {
        // It has left the queue, and so will never lead.
        compares.push(Compare::CreateRevision { key: owner, revision: 0 });
    }
    let mut changes = vec![Change::Update { key: standing.key.clone(), value: record::encode(&published) }];
    changes.extend(stored.raise_counter(term).map(|write| write.change));
    for write in writes {
        let key = write.change.key().to_owned();
        compares.push(Compare::ModRevision { key, revision: write.expected_mod_revision });
        changes.push(write.change);
    }
    match store.commit(Txn { compares, changes }).await? {
        Outcome::Done { .. } => Ok(Reserved::Now(term)),
        Outcome::Refused { .. } => Ok(Reserved::Conflict),
    }
}

#[cfg(test)]
#[path = "reserve_tests.rs"]
mod tests;
