//! Goal: a resignation that begins the successor's term does both or neither, and whoever leads next does so under one term
//! and after the right wait, whatever becomes of the successor, the queue, and the answer.
//! Method: candidates on a memory store that loses answers and interferes when it is told to, with virtual time as their
//! clock.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use metasrv_core::lease::LeadershipLease;
use metasrv_core::time::BootTime;
use metasrv_core::timing::{Timing, grant_wait};
use tokio::task::JoinSet;

use super::*;
use crate::leader::{Candidate, Leader, Resignation, resign, take_over};
use crate::store::memory::MemoryStore;
use crate::store::{Outcome, Page};

const L: Duration = Duration::from_secs(5);

/// What becomes of the next transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Fate {
    /// Lost on the way there: not done.
    RequestLost,
    /// Lost on the way back: done.
    AnswerLost,
    /// Not done: there is no space.
    Full,
}

/// A store whose next transaction fares as it is told; all others do well.
#[derive(Default)]
struct Told {
    inner: MemoryStore,
    fate: Mutex<Option<Fate>>,
}

#[async_trait]
impl Store for Told {
    async fn get(&self, key: &str) -> Result<Option<Record>, StoreError> {
        self.inner.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Page, StoreError> {
        self.inner.list(prefix).await
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        let unknown = || StoreError::Unknown { operation: "commit", why: "lost".to_owned() };
        let fate = self.fate.lock().unwrap().take();
        match fate {
            None => self.inner.commit(txn).await,
            Some(Fate::RequestLost) => Err(unknown()),
            Some(Fate::AnswerLost) => self.inner.commit(txn).await.and(Err(unknown())),
            Some(Fate::Full) => Err(StoreError::OutOfSpace),
        }
    }
}

fn keys() -> Keys {
    Keys::new("/test")
}

/// A candidate with a key in the queue.
struct Queued {
    candidate: Candidate,
    fence: Fence,
}

async fn change(store: &Told, change: Change) -> i64 {
    match store.inner.commit(Txn { compares: vec![], changes: vec![change] }).await {
        Ok(Outcome::Done { revision }) => revision,
        other => panic!("{other:?}"),
    }
}

/// Three replicas, in this order.
async fn three(store: &Arc<Told>) -> [Queued; 3] {
    [Queued::stand(store, "a").await, Queued::stand(store, "b").await, Queued::stand(store, "c").await]
}

impl Queued {
    async fn stand(store: &Arc<Told>, name: &str) -> Queued {
        Queued::stand_as(store, name, |_| {}).await
    }

    async fn stand_as(store: &Arc<Told>, name: &str, alter: impl FnOnce(&mut CandidateRecord)) -> Queued {
        let mut record = CandidateRecord {
            name: name.to_owned(),
            addr: format!("{name}:1"),
            election_ttl_ms: 5_000,
            region_lease_ms: 5_000,
            takes_begun_term: true,
            ..CandidateRecord::default()
        };
        alter(&mut record);
        let key = format!("{}/{name}", keys().election());
        let put = Change::Put { key: key.clone(), value: record::encode(&record) };
        let create_revision = change(store, put).await;
        let candidate = Candidate::fresh(record, store.clone(), keys());
        Queued { candidate, fence: Fence { key, create_revision } }
    }

    async fn leave(&self, store: &Told) {
        change(store, Change::Delete { key: self.fence.key.clone() }).await;
    }

    async fn lead(&self) -> (Arc<Leader>, JoinSet<()>) {
        let lease = Arc::new(LeadershipLease::new(BootTime::MAX, L));
        let prepared = take_over(self.candidate.clone(), self.fence.clone(), lease, None).await;
        prepared.unwrap_or_else(|error| panic!("{error}")).lead(self.candidate.clock.now())
    }

    async fn prepare(&self) -> Result<Succession, NoSuccession> {
        Succession::prepare(self.candidate.store.as_ref(), &keys(), &self.fence.key).await
    }

    async fn resign(&self, leader: &Leader, next: Option<&Succession>) -> Resignation {
        leader.stop_granting();
        let (fence, record, revision) = leader.last_will().await;
        leader.end();
        resign(self.candidate.store.as_ref(), &keys(), &fence, Some((record, revision)), next).await
    }
}

async fn record_of(store: &Told, term: u64) -> (TermRecord, i64) {
    let stored = store.get(&keys().term_record(Term(term))).await.unwrap().unwrap();
    (record::decode(&stored).unwrap(), stored.mod_revision)
}

fn waits(leader: &Leader) -> Duration {
    leader.settled_in(leader.clock().now())
}

fn longest() -> Duration {
    Timing::default().takeover_wait()
}

#[tokio::test(start_paused = true)]
async fn the_successors_term_begins_in_the_transaction_that_ends_its_predecessors() {
    let store = Arc::new(Told::default());
    let (a, b) = (Queued::stand(&store, "a").await, Queued::stand(&store, "b").await);
    let _c = Queued::stand(&store, "c").await;
    let (first, _tasks) = a.lead().await;
    let next = a.prepare().await.unwrap();
    assert_eq!((next.name.as_str(), next.term), ("b", Term(2)));
    assert!(matches!(a.resign(&first, Some(&next)).await, Resignation::HandedOver));

    let queue = store.list(&keys().election()).await.unwrap();
    let (ended, begun) = (record_of(&store, 1).await, record_of(&store, 2).await);
    assert!(ended.0.resigned && !begun.0.resigned && !begun.0.reserved);
    assert_eq!(
        (begun.0.name.as_str(), begun.0.election_ttl_ms, begun.0.region_lease_ms),
        ("b", 5_000, 5_000)
    );
    let [key_of_b, key_of_c] = &queue.records[..] else { panic!("{queue:?}") };
    let (in_b, in_c): (CandidateRecord, CandidateRecord) =
        (record::decode(key_of_b).unwrap(), record::decode(key_of_c).unwrap());
    assert_eq!((in_b.term, in_b.name.as_str(), in_c.term), (2, "b", 0));
    assert_eq!((ended.1, begun.1, key_of_b.mod_revision), (queue.revision, queue.revision, queue.revision));

    let (second, _tasks) = b.lead().await;
    assert_eq!((second.term(), waits(&second)), (Term(2), grant_wait(L)), "the first resigned");
    assert_eq!(store.list("").await.unwrap().revision, queue.revision, "nothing had to be written to lead");
}

#[tokio::test(start_paused = true)]
async fn a_successor_that_dies_then_costs_its_term_and_holds_nobody_up() {
    let store = Arc::new(Told::default());
    let [a, b, c] = three(&store).await;
    let (first, _tasks) = a.lead().await;
    let next = a.prepare().await.unwrap();
    assert!(matches!(a.resign(&first, Some(&next)).await, Resignation::HandedOver));
    b.leave(&store).await;
    let (third, _tasks) = c.lead().await;
    assert_eq!((third.term(), waits(&third)), (Term(3), longest()), "the second may have been led");
}

#[tokio::test(start_paused = true)]
async fn a_queue_or_terms_that_changed_meanwhile_cost_the_succession_and_not_the_resignation() {
    for case in ["gone", "again", "reserved", "counted"] {
        let store = Arc::new(Told::default());
        let [a, b, c] = three(&store).await;
        let (first, _tasks) = a.lead().await;
        let next = a.prepare().await.unwrap();
        let successor = match case {
            "gone" => {
                b.leave(&store).await;
                c
            }
            "again" => {
                // The same lease may campaign again; it is another place in the queue.
                b.leave(&store).await;
                drop(Queued::stand(&store, "b").await);
                c
            }
            "reserved" => {
                let value =
                    record::encode(&CandidateRecord { reserved_term: 2, ..b.candidate.record.clone() });
                change(&store, Change::Update { key: b.fence.key.clone(), value }).await;
                b
            }
            _ => {
                let value = record::encode(&metasrv_proto::admin::CounterRecord { value: 7 });
                change(&store, Change::Put { key: keys().term_current(), value }).await;
                b
            }
        };
        assert!(matches!(a.resign(&first, Some(&next)).await, Resignation::Done), "{case}");
        assert!(store.get(&a.fence.key).await.unwrap().is_none(), "{case}: it is still there");
        assert!(record_of(&store, 1).await.0.resigned, "{case}");
        let (second, _tasks) = successor.lead().await;
        let expected = if case == "counted" { (Term(8), longest()) } else { (Term(2), grant_wait(L)) };
        assert_eq!((second.term(), waits(&second)), expected, "{case}");
    }
}

/// Goal: a lost answer leaves no term without a leader and gives none to two. Method: the transaction is done, or is not;
/// then the leader's lease is revoked, as after every resignation.
#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_leads_to_one_term_either_way() {
    for (fate, in_key, wait) in [(Fate::AnswerLost, 2, grant_wait(L)), (Fate::RequestLost, 0, longest())] {
        let store = Arc::new(Told::default());
        let (a, b) = (Queued::stand(&store, "a").await, Queued::stand(&store, "b").await);
        let (first, _tasks) = a.lead().await;
        let next = a.prepare().await.unwrap();
        *store.fate.lock().unwrap() = Some(fate.clone());
        assert!(matches!(a.resign(&first, Some(&next)).await, Resignation::Unknown(_)), "{fate:?}");
        a.leave(&store).await;
        let key = store.get(&b.fence.key).await.unwrap().unwrap();
        assert_eq!(record::decode::<CandidateRecord>(&key).unwrap().term, in_key, "{fate:?}");
        // Sent once more after the revocation, as a request that was long under way: it changes nothing any more.
        let mut late = Txn::default();
        late.compares
            .push(Compare::CreateRevision { key: a.fence.key.clone(), revision: a.fence.create_revision });
        next.add_to(&mut late);
        assert!(matches!(store.commit(late).await, Ok(Outcome::Refused { .. })), "{fate:?}");
        let (second, _tasks) = b.lead().await;
        assert_eq!((second.term(), waits(&second)), (Term(2), wait), "{fate:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_look_for_a_begun_term_begins_its_own() {
    let store = Arc::new(Told::default());
    let a = Queued::stand(&store, "a").await;
    let b = Queued::stand_as(&store, "b", |record| record.takes_begun_term = false).await;
    let (first, _tasks) = a.lead().await;
    let none = a.prepare().await.unwrap_err();
    assert_eq!(none, NoSuccession::Nobody(Nobody::Older));
    assert!(matches!(a.resign(&first, None).await, Resignation::Done));
    let (second, _tasks) = b.lead().await;
    assert_eq!((second.term(), waits(&second)), (Term(2), grant_wait(L)));
}

/// Goal: a term that was begun is led only by the numbers in its record. Method: a winner that grants for longer than its key
/// said, and one whose term was passed by a higher one, begin terms above it.
#[tokio::test(start_paused = true)]
async fn a_begun_term_that_does_not_fit_is_passed_over() {
    for passed in [false, true] {
        let store = Arc::new(Told::default());
        let (a, mut b) = (Queued::stand(&store, "a").await, Queued::stand(&store, "b").await);
        let (first, _tasks) = a.lead().await;
        let next = a.prepare().await.unwrap();
        assert!(matches!(a.resign(&first, Some(&next)).await, Resignation::HandedOver));
        if passed {
            let value = record::encode(&metasrv_proto::admin::CounterRecord { value: 3 });
            change(&store, Change::Put { key: keys().term_current(), value }).await;
        } else {
            b.candidate.record.region_lease_ms = 60_000;
        }
        let (second, _tasks) = b.lead().await;
        assert_eq!(second.term(), Term(if passed { 4 } else { 3 }));
        assert_eq!(waits(&second), longest(), "the term in between may have been led");
        let last = record_of(&store, second.term().0).await.0;
        assert_eq!(last.region_lease_ms, b.candidate.record.region_lease_ms);
    }
}

#[tokio::test(start_paused = true)]
async fn without_space_a_successor_has_its_reserved_term_and_no_other() {
    let store = Arc::new(Told::default());
    let (a, b) = (Queued::stand(&store, "a").await, Queued::stand(&store, "b").await);
    let (first, _tasks) = a.lead().await;
    let next = a.prepare().await.unwrap();
    *store.fate.lock().unwrap() = Some(Fate::Full);
    assert!(matches!(a.resign(&first, Some(&next)).await, Resignation::Unknown(StoreError::OutOfSpace)));
    assert!(store.get(&a.fence.key).await.unwrap().is_some(), "its release is what ends it");
    let key = store.get(&b.fence.key).await.unwrap().unwrap();
    assert_eq!(record::decode::<CandidateRecord>(&key).unwrap().term, 0);
}

/// Goal: a successor's record may have fields that its predecessor does not know, and keeps them. Method: a record with such
/// a field, as bytes.
#[test]
fn a_term_is_added_to_a_record_and_nothing_of_it_is_lost() {
    let known = CandidateRecord { name: "b".to_owned(), reserved_term: 7, term: 0, ..Default::default() };
    // Field 100, a varint.
    let unknown = [0xa0, 0x06, 0x2a];
    let stored = [record::encode(&known), unknown.to_vec()].concat();
    let value = with_term(&stored, Term(300));
    assert!(value.starts_with(&stored));
    let key = Record { key: "/test".to_owned(), value, create_revision: 1, mod_revision: 1 };
    assert_eq!(record::decode(&key), Ok(CandidateRecord { term: 300, ..known }));
}
