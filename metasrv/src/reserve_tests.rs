//! Goal: a term that was reserved while there was space is led without any, once, by whoever reserved it, and by nobody
//! where a later term was led. Method: candidates on a store whose space can end, with virtual time as their clock.

use std::sync::Arc;

use metasrv_core::id::Fence;
use metasrv_core::lease::LeadershipLease;
use metasrv_core::time::BootTime;
use tokio::task::JoinSet;

use super::*;
use crate::keys::Keys;
use crate::leader::{Leader, TakeoverError, take_over};
use crate::store::quota::QuotaStore;
use crate::store::{Record, Store};
use crate::terms::is_led_by_reservation;

fn keys() -> Keys {
    Keys::new("/test")
}

/// A candidate with a key in the queue.
struct Queued {
    candidate: Candidate,
    standing: Standing,
}

async fn change(store: &QuotaStore, change: Change) -> i64 {
    match store.commit(Txn { compares: vec![], changes: vec![change] }).await {
        Ok(Outcome::Done { revision }) => revision,
        other => panic!("{other:?}"),
    }
}

/// Three candidates, in the order of the queue.
async fn three(store: &Arc<QuotaStore>) -> [Queued; 3] {
    [Queued::stand(store, "a").await, Queued::stand(store, "b").await, Queued::stand(store, "c").await]
}

impl Queued {
    async fn stand(store: &Arc<QuotaStore>, name: &str) -> Queued {
        let record = CandidateRecord {
            name: name.to_owned(),
            addr: format!("{name}:1"),
            election_ttl_ms: 5_000,
            region_lease_ms: 5_000,
            ..CandidateRecord::default()
        };
        let key = format!("{}/{name}", keys().election());
        let put = Change::Put { key: key.clone(), value: record::encode(&record) };
        let create_revision = change(store, put).await;
        let candidate = Candidate::fresh(record, store.clone(), keys());
        Queued { candidate, standing: Standing { key, create_revision, leader: Term(0) } }
    }

    async fn reserve(&self) -> Reserved {
        self.reserve_with(0).await
    }

    async fn reserve_with(&self, patience: u32) -> Reserved {
        reserve(&self.candidate, &self.standing, patience).await.unwrap_or_else(|error| panic!("{error}"))
    }

    async fn leave(&self, store: &QuotaStore) {
        change(store, Change::Delete { key: self.standing.key.clone() }).await;
    }

    async fn lead(&self) -> Result<(Arc<Leader>, JoinSet<()>), TakeoverError> {
        let fence = Fence { key: self.standing.key.clone(), create_revision: self.standing.create_revision };
        let lease = Arc::new(LeadershipLease::new(BootTime::MAX, Duration::from_secs(5)));
        let prepared = take_over(self.candidate.clone(), fence, lease, None).await?;
        Ok(prepared.lead(self.candidate.clock.now()))
    }
}

async fn terms(store: &QuotaStore) -> StoredTerms {
    StoredTerms::read(store, &keys()).await.unwrap()
}

async fn stored<M: prost::Message + Default>(store: &QuotaStore, key: &str) -> M {
    let found: Option<Record> = store.get(key).await.unwrap();
    record::decode(&found.unwrap()).unwrap()
}

fn waits(leader: &Leader) -> Duration {
    leader.settled_in(leader.clock().now())
}

#[tokio::test(start_paused = true)]
async fn without_space_a_reserved_term_is_led_and_made_known_when_there_is_space_again() {
    let store = Arc::new(QuotaStore::default());
    let [a, b, c] = three(&store).await;
    let (first, _tasks) = a.lead().await.unwrap();
    assert_eq!((first.term(), waits(&first)), (Term(1), Duration::ZERO));
    assert_eq!((b.reserve().await, c.reserve().await), (Reserved::Now(Term(2)), Reserved::Now(Term(3))));
    assert_eq!(b.reserve().await, Reserved::Already);
    let named: CandidateRecord = stored(&store, &b.standing.key).await;
    assert_eq!((named.reserved_term, named.term), (2, 0));

    store.fill();
    first.end();
    a.leave(&store).await;
    let (second, mut tasks) = b.lead().await.unwrap();
    assert_eq!(second.term(), Term(2));
    assert_eq!(waits(&second), second.timing().takeover_wait(), "nothing is known of how the first ended");
    assert_eq!(b.candidate.metrics.store_out_of_space.get(), 1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let unchanged: CandidateRecord = stored(&store, &b.standing.key).await;
    assert_eq!(unchanged.term, 0, "nothing can be put");

    second.end();
    tasks.shutdown().await;
    b.leave(&store).await;
    let (third, _tasks) = c.lead().await.unwrap();
    assert_eq!((third.term(), waits(&third)), (Term(3), third.timing().takeover_wait()));
    store.make_room();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let published: CandidateRecord = stored(&store, &c.standing.key).await;
    assert_eq!(published.term, 3);
    let own: TermRecord = stored(&store, &keys().term_record(Term(3))).await;
    assert_eq!((own.reserved, own.settled_below, own.name.as_str()), (false, 3, "c"));
    assert_eq!(c.candidate.metrics.store_out_of_space.get(), 0);
    let d = Queued::stand(&store, "d").await;
    assert_eq!(d.reserve().await, Reserved::Now(Term(4)), "terms go on rising");
}

#[tokio::test(start_paused = true)]
async fn without_space_nobody_leads_who_has_nothing_reserved_or_whose_term_was_passed() {
    let store = Arc::new(QuotaStore::default());
    let [a, b, c] = three(&store).await;
    let (_first, _tasks) = a.lead().await.unwrap();
    assert_eq!((c.reserve().await, b.reserve().await), (Reserved::Now(Term(2)), Reserved::Now(Term(3))));
    store.fill();
    let (second, _tasks) = b.lead().await.unwrap();
    assert_eq!(second.term(), Term(3));
    let Err(refused) = c.lead().await else { panic!("a term below the last was led") };
    assert!(matches!(refused, TakeoverError::NothingReserved), "{refused}");
    assert!(
        refused.to_string().contains("compact, defragment, then disarm"),
        "the remedy is named: {refused}"
    );
    store.make_room();
    let (third, _tasks) = c.lead().await.unwrap();
    assert_eq!(third.term(), Term(4));
}

#[tokio::test(start_paused = true)]
async fn candidates_reserve_in_the_order_of_the_queue() {
    let store = Arc::new(QuotaStore::default());
    let [a, b, c] = three(&store).await;
    let (_first, _tasks) = a.lead().await.unwrap();
    assert_eq!(c.reserve_with(1).await, Reserved::NotYet, "the one ahead has nothing reserved");
    assert_eq!(c.reserve_with(0).await, Reserved::Now(Term(2)), "perhaps it never will");
    assert_eq!(b.reserve_with(1).await, Reserved::Now(Term(3)));
    assert_eq!(c.reserve_with(1).await, Reserved::Now(Term(4)), "the one ahead would end what it has");
    assert_eq!((b.reserve_with(1).await, c.reserve_with(1).await), (Reserved::Already, Reserved::Already));
    store.fill();
    assert_eq!(b.lead().await.unwrap().0.term(), Term(3));
    let named: CandidateRecord = stored(&store, &c.standing.key).await;
    assert_eq!((c.lead().await.unwrap().0.term(), named.reserved_term), (Term(4), 4));
}

#[tokio::test(start_paused = true)]
async fn with_space_the_next_term_is_led_whatever_was_reserved() {
    let store = Arc::new(QuotaStore::default());
    let [a, b, c] = three(&store).await;
    let (first, _tasks) = a.lead().await.unwrap();
    assert_eq!((b.reserve().await, c.reserve().await), (Reserved::Now(Term(2)), Reserved::Now(Term(3))));
    first.end();
    a.leave(&store).await;
    // Its turn comes before that of the one which reserved the next term.
    let (second, _tasks) = c.lead().await.unwrap();
    assert_eq!(second.term(), Term(2));
    let record: TermRecord = stored(&store, &keys().term_record(Term(2))).await;
    assert_eq!((record.name.as_str(), record.reserved), ("c", false));
    assert_eq!(b.reserve().await, Reserved::Now(Term(4)), "the term that was its own is led");
    c.leave(&store).await;
    let d = Queued::stand(&store, "d").await;
    assert_eq!(d.reserve().await, Reserved::Now(Term(5)), "what is left behind stands before a candidate's");
    b.leave(&store).await;
    d.leave(&store).await;
    let e = Queued::stand(&store, "e").await;
    assert_eq!(e.reserve().await, Reserved::Now(Term(3)), "what is left behind is used again");
}

#[tokio::test(start_paused = true)]
async fn a_reservation_that_is_faster_costs_a_takeover_an_attempt_and_not_the_win() {
    let store = Arc::new(QuotaStore::default());
    let [a, b] = [Queued::stand(&store, "a").await, Queued::stand(&store, "b").await];
    let (first, _tasks) = a.lead().await.unwrap();
    first.end();
    a.leave(&store).await;
    store.interfere(3);
    assert_eq!(b.lead().await.unwrap().0.term(), Term(2));
    store.interfere(1);
    let c = Queued::stand(&store, "c").await;
    store.interfere(1);
    assert_eq!(c.reserve().await, Reserved::Conflict);
    assert_eq!(c.reserve().await, Reserved::Now(Term(3)));
}

#[tokio::test(start_paused = true)]
async fn what_was_reserved_up_to_a_term_that_a_node_has_seen_is_void() {
    let store = Arc::new(QuotaStore::default());
    let [a, b, c, d] = [
        Queued::stand(&store, "a").await,
        Queued::stand(&store, "b").await,
        Queued::stand(&store, "c").await,
        Queued::stand(&store, "d").await,
    ];
    let (first, _tasks) = a.lead().await.unwrap();
    for queued in [&b, &c, &d] {
        queued.reserve().await;
    }
    // The counter stands at 4 already.
    first.hear_of_term(Term(3));
    first.outranked().await;
    let stored = terms(&store).await;
    assert_eq!((stored.last(), stored.spare_of(&d.standing.key)), (Term(3), Some(Term(4))));
    assert_eq!(stored.numbers().iter().map(|numbers| numbers.term).collect::<Vec<_>>(), [Term(1), Term(4)]);
    first.end();
    a.leave(&store).await;
    let (second, _tasks) = b.lead().await.unwrap();
    assert_eq!((second.term(), waits(&second)), (Term(4), second.timing().takeover_wait()));
}

#[tokio::test(start_paused = true)]
async fn who_leads_a_reserved_term_is_seen_by_its_spare() {
    let store = Arc::new(QuotaStore::default());
    let [a, b, c] = three(&store).await;
    let led = async |term| is_led_by_reservation(store.as_ref(), &keys(), Term(term)).await.unwrap();
    let (_first, _tasks) = a.lead().await.unwrap();
    b.reserve().await;
    c.reserve().await;
    assert!(!led(1).await && !led(2).await && !led(3).await, "reserved, and not led");
    store.fill();
    let (_second, _tasks) = b.lead().await.unwrap();
    assert!(led(2).await && !led(3).await);
    let (_third, _tasks) = c.lead().await.unwrap();
    assert!(!led(2).await && led(3).await, "a later one is led");
}
