//! A term of one's own: begun in the first fenced transaction, made known, settled.
//!
//! | the store | how a term begins |
//! | --- | --- |
//! | shows one in the winner's own key | whoever ended the term before has begun it (`metasrv_core::handover`): nothing is written |
//! | has space | the term after the last that may have been led: its record, the counter, and the election key are put |
//! | has none | a term that this candidate reserved before: its spare is deleted, with all below it; nothing is put |
//!
//! What the last way cannot put is put as soon as there is space again. It and the one before compare the revisions of what they
//! change, and reservations of other candidates change some of it: a conflict is read again and repeated.

use std::time::Duration;

use metasrv_core::handover;
use metasrv_core::id::{Fence, Term};
use metasrv_core::settlement::takeover_wait;
use metasrv_core::time::BootTime;
use metasrv_proto::admin::{CandidateRecord, InstallationRecord, TermRecord};

use super::Leader;
use super::inheritance::Early;
use super::takeover::{Candidate, TakeoverError};
use crate::clock::wall_clock_ms;
use crate::record;
use crate::store::fenced::{CommitError, FencedStore, Write};
use crate::store::{Change, Record, StoreError};
use crate::terms::StoredTerms;

/// Attempts to begin a term. Each conflict is a reservation by another candidate, and each makes one in its time.
const ATTEMPTS: usize = 8;

/// Between two attempts to write what is known, where the store refuses them.
const RETRY: Duration = Duration::from_secs(1);

/// The record of our own term, and its revision.
#[derive(Clone, Debug)]
pub struct OwnTerm {
    /// As it was last written.
    pub record: TermRecord,
    /// Mod revision of that.
    pub revision: i64,
}

/// A term that has begun.
pub struct Begun {
    /// Its record.
    pub own: OwnTerm,
    /// The revision of its first transaction.
    pub revision: i64,
    /// Whose installation it is.
    pub installation: u64,
    /// How long earlier terms may have granted from its beginning on.
    pub wait: Duration,
    /// The state, where it was made ready already.
    pub early: Option<Early>,
}

/// What a term is begun on, read after its election was won: no earlier leader writes any more then, and what candidates
/// write conflicts with the first transaction, or is no hindrance to it.
pub struct Ground {
    own_key: Record,
    stored: StoredTerms,
    installed: Option<u64>,
    early: Option<Early>,
}

impl Ground {
    /// Reads it, all at once: each trip to the store is time without a leader.
    ///
    /// # Errors
    /// [`TakeoverError`]: what cannot be read or understood.
    pub async fn read(candidate: &Candidate, fence: &Fence) -> Result<Ground, TakeoverError> {
        let Candidate { store, keys, .. } = candidate;
        let own_key = async { store.get(&fence.key).await?.ok_or(TakeoverError::KeyGone) };
        let stored = async { Ok(StoredTerms::read(store.as_ref(), keys).await?) };
        let installation = keys.installation();
        let installed = async {
            let found = store.get(&installation).await?;
            Ok(found.as_ref().map(record::decode::<InstallationRecord>).transpose()?)
        };
        // Polled last: the reads are under way meanwhile.
        let early = async { Ok(Early::of(candidate, fence)) };
        let (own_key, stored, installed, early) = tokio::try_join!(own_key, stored, installed, early)?;
        Ok(Ground { own_key, stored, installed: installed.map(|it| it.installation), early })
    }
}

/// Begins a term under the fence. What was read before, once the election was won, may be given as `ground`.
///
/// # Errors
/// Any [`TakeoverError`] means that no term has begun, or one that nobody may lead.
pub async fn begin(
    candidate: &Candidate,
    fence: &Fence,
    fenced: &FencedStore,
    mut ground: Option<Ground>,
) -> Result<Begun, TakeoverError> {
    let mut attempt = 1;
    loop {
        let on = match ground.take() {
            Some(ground) => ground,
            None => Ground::read(candidate, fence).await?,
        };
        match begin_on(on, candidate, fence, fenced).await {
            Err(TakeoverError::Raise(CommitError::Conflict { .. })) if attempt < ATTEMPTS => attempt += 1,
            result => return result,
        }
    }
}

async fn begin_on(
    ground: Ground,
    candidate: &Candidate,
    fence: &Fence,
    fenced: &FencedStore,
) -> Result<Begun, TakeoverError> {
    let Candidate { keys, timing, .. } = candidate;
    let Ground { own_key, stored, installed, early } = ground;
    // Zero means "not told yet" on the wire.
    let installation = installed.unwrap_or_else(|| rand::random::<u64>().max(1));

    let wait = |term: Term| takeover_wait(&stored.numbers(), Term(term.0.saturating_sub(1)), timing);
    if let Some((record, installation)) = begun_before(&own_key, &stored, candidate).zip(installed) {
        let term = Term(record.record.term);
        tracing::info!(%term, "this term has begun in the transaction that ended the one before");
        let revision = own_key.mod_revision;
        return Ok(Begun { own: record, revision, installation, wait: wait(term), early });
    }

    let term = stored.last().next();
    let record = TermRecord { began_at_ms: wall_clock_ms(), ..numbers(candidate, term) };
    let published = CandidateRecord { term: term.0, reserved_term: 0, ..candidate.record.clone() };
    let mut writes = vec![
        stored.put_record(term, &record),
        Write {
            change: Change::Update { key: fence.key.clone(), value: record::encode(&published) },
            expected_mod_revision: own_key.mod_revision,
        },
    ];
    writes.extend(stored.raise_counter(term));
    writes.extend(stored.end_spares(term));
    if installed.is_none() {
        let value = InstallationRecord { installation, created_at_ms: wall_clock_ms() };
        let change = Change::Put { key: keys.installation(), value: record::encode(&value) };
        writes.push(Write { change, expected_mod_revision: 0 });
    }
    match fenced.commit(writes).await {
        Ok(revision) => {
            candidate.metrics.store_out_of_space.set(0);
            let own = OwnTerm { record, revision };
            Ok(Begun { own, revision, installation, wait: wait(term), early: None })
        }
        Err(CommitError::Refused(StoreError::OutOfSpace)) => {
            candidate.metrics.store_out_of_space.set(1);
            // Nothing was put, and nothing of it is under way: this answer is certain.
            let installation = installed.ok_or(TakeoverError::NothingReserved)?;
            let term = stored.spare_of(&fence.key).ok_or(TakeoverError::NothingReserved)?;
            let (record, record_revision) = stored.record(term)?.ok_or(TakeoverError::NothingReserved)?;
            // A successor will wait by that record; it must say what is granted from now on.
            if numbers(candidate, term) != (TermRecord { reserved: false, began_at_ms: 0, ..record.clone() })
            {
                return Err(TakeoverError::NothingReserved);
            }
            let revision = fenced.commit(stored.end_spares(term)).await?;
            tracing::warn!(%term, "the store is out of space; leading a term that was reserved before");
            let own = OwnTerm { record, revision: record_revision };
            Ok(Begun { own, revision, installation, wait: wait(term), early: None })
        }
        Err(error) => Err(error.into()),
    }
}

/// The record of the term that was begun for this winner, if one was. A record that cannot be understood is
/// none: the winner begins a higher term then.
fn begun_before(own_key: &Record, stored: &StoredTerms, candidate: &Candidate) -> Option<OwnTerm> {
    let published = Term(record::decode::<CandidateRecord>(own_key).ok()?.term);
    let (record, revision) = stored.record(published).ok().flatten()?;
    // A successor will wait by that record; it must say what is granted from now on.
    let is_own = numbers(candidate, published) == TermRecord { began_at_ms: 0, ..record.clone() };
    handover::begun(published, stored.last(), is_own)?;
    Some(OwnTerm { record, revision })
}

/// The record of a term that this candidate leads, or would lead.
pub fn numbers(candidate: &Candidate, term: Term) -> TermRecord {
    TermRecord {
        term: term.0,
        election_ttl_ms: candidate.record.election_ttl_ms,
        region_lease_ms: candidate.record.region_lease_ms,
        name: candidate.record.name.clone(),
        addr: candidate.record.addr.clone(),
        resigned: false,
        settled_below: 0,
        began_at_ms: 0,
        reserved: false,
    }
}

impl Leader {
    /// How long it takes from now until nothing that earlier terms granted is valid any more.
    pub fn settled_in(&self, now: BootTime) -> Duration {
        self.settled_at.since(now)
    }

    /// Makes a term known that began without a put, once there is space: in its record and in the election key.
    pub(super) async fn publish(&self, candidate: CandidateRecord) {
        if !self.term_revision.lock().await.record.reserved {
            return;
        }
        let mut conflicts = 0;
        while let Err(error) = self.try_to_publish(&candidate).await {
            // A late reservation of this very candidate may change the election key once more.
            conflicts += usize::from(matches!(error, CommitError::Conflict { .. }));
            let repeat = matches!(error, CommitError::Conflict { .. }) && conflicts < ATTEMPTS;
            if !repeat && !self.goes_on_after(&error).await {
                tracing::warn!(term = %self.term, %error, "the term could not be published in the election key");
                return;
            }
        }
        tracing::info!(term = %self.term, "published: there is space again");
    }

    async fn try_to_publish(&self, candidate: &CandidateRecord) -> Result<(), CommitError> {
        let read = self.fenced.reader().get(&self.fence.key).await.map_err(CommitError::Refused)?;
        let key_revision = read.map_or(0, |key| key.mod_revision);
        let published = CandidateRecord { term: self.term.0, reserved_term: 0, ..candidate.clone() };
        let mut own = self.term_revision.lock().await;
        let record = TermRecord { reserved: false, began_at_ms: wall_clock_ms(), ..own.record.clone() };
        let writes = vec![
            self.put_own(&record, own.revision),
            Write {
                change: Change::Update { key: self.fence.key.clone(), value: record::encode(&published) },
                expected_mod_revision: key_revision,
            },
        ];
        let revision = self.commit(writes).await?;
        *own = OwnTerm { record, revision };
        Ok(())
    }

    /// Records, once it is so, that nothing granted in earlier terms can still be valid, so that successors need not
    /// wait for them again.
    pub(super) async fn settle(&self) {
        loop {
            let left = self.settled_at.since(self.clock.now());
            if left.is_zero() {
                break;
            }
            tokio::select! {
                biased;
                () = self.ended() => return,
                () = tokio::time::sleep(left) => {}
            }
        }
        // Whoever streamed to an earlier leader has had the time to come back.
        self.forget_lost_frontends();
        while let Err(error) = self.try_to_settle().await {
            if !self.goes_on_after(&error).await {
                tracing::warn!(term = %self.term, %error, "could not record that earlier terms are settled");
                return;
            }
        }
        tracing::info!(term = %self.term, "settled: nothing granted in earlier terms is valid any more");
    }

    async fn try_to_settle(&self) -> Result<(), CommitError> {
        let mut own = self.term_revision.lock().await;
        let record = TermRecord { settled_below: self.term.0, ..own.record.clone() };
        let revision = self.commit(vec![self.put_own(&record, own.revision)]).await?;
        *own = OwnTerm { record, revision };
        Ok(())
    }

    fn put_own(&self, record: &TermRecord, expected_mod_revision: i64) -> Write {
        let change = Change::Put { key: self.keys.term_record(self.term), value: record::encode(record) };
        Write { change, expected_mod_revision }
    }

    /// Waits, where the store may take the same write later; says whether to try it again.
    async fn goes_on_after(&self, error: &CommitError) -> bool {
        match error {
            CommitError::Refused(error) if error.is_retryable() => {}
            _ => return false,
        }
        tokio::select! {
            biased;
            () = self.ended() => false,
            () = tokio::time::sleep(RETRY) => true,
        }
    }

    /// Fence and term record, for the resignation.
    pub async fn last_will(&self) -> (Fence, TermRecord, i64) {
        let own = self.term_revision.lock().await;
        (self.fence.clone(), own.record.clone(), own.revision)
    }
}
