//! Goal: a leader's write is done once or not at all, and never under a fence that is gone, whatever answers are lost.
//! Method: a memory store behind a wrapper that loses answers before or after it did what was asked; virtual time.

use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;
use metasrv_core::time::BootTime;
use proptest::prelude::*;

use super::*;
use crate::clock::Virtual;
use crate::store::Page;
use crate::store::memory::MemoryStore;

/// What becomes of one call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Answered,
    /// Lost on the way there: not done.
    RequestLost,
    /// Lost on the way back: done.
    AnswerLost,
    /// Known not to be done.
    NotSent,
    Full,
}

/// A store whose next calls fare as it is told; afterwards all is well.
#[derive(Default)]
struct Lossy {
    inner: MemoryStore,
    fates: Mutex<VecDeque<Fate>>,
    /// The fence is deleted before the call with this number is carried out.
    deposed_before: Mutex<Option<usize>>,
    calls: Mutex<usize>,
}

#[async_trait]
impl Store for Lossy {
    async fn get(&self, key: &str) -> Result<Option<Record>, StoreError> {
        self.inner.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Page, StoreError> {
        self.inner.list(prefix).await
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        let call = {
            let mut calls = self.calls.lock().unwrap();
            *calls += 1;
            *calls
        };
        if *self.deposed_before.lock().unwrap() == Some(call) {
            let delete = Change::Delete { key: FENCE.to_owned() };
            self.inner.commit(Txn { compares: vec![], changes: vec![delete] }).await?;
        }
        let unknown = || StoreError::Unknown { operation: "commit", why: "lost".to_owned() };
        let fate = self.fates.lock().unwrap().pop_front().unwrap_or(Fate::Answered);
        match fate {
            Fate::Answered => self.inner.commit(txn).await,
            Fate::RequestLost => Err(unknown()),
            Fate::AnswerLost => self.inner.commit(txn).await.and(Err(unknown())),
            Fate::NotSent => Err(StoreError::Unavailable { operation: "commit", why: "refused".to_owned() }),
            Fate::Full => Err(StoreError::OutOfSpace),
        }
    }
}

const FENCE: &str = "/fence";
const TTL: Duration = Duration::from_secs(5);

async fn setup(fates: &[Fate]) -> (Arc<Lossy>, Arc<LeadershipLease>, FencedStore) {
    let store = Arc::new(Lossy::default());
    store.inner.commit(Txn { compares: vec![], changes: vec![put(FENCE, "us").change] }).await.unwrap();
    store.fates.lock().unwrap().extend(fates);
    let lease = Arc::new(LeadershipLease::new(BootTime::ZERO, TTL));
    let fence = Fence { key: FENCE.to_owned(), create_revision: 1 };
    let clock = Arc::new(Virtual(tokio::time::Instant::now()));
    let fenced = FencedStore::new(store.clone(), fence, Arc::clone(&lease), clock);
    (store, lease, fenced)
}

/// A put of what must be absent.
fn put(key: &str, value: &str) -> Write {
    Write {
        change: Change::Put { key: key.to_owned(), value: value.as_bytes().to_vec() },
        expected_mod_revision: 0,
    }
}

fn runs<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test());
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_settled_by_sending_the_same_again() {
    for lost in [Fate::RequestLost, Fate::AnswerLost] {
        let (store, _, fenced) = setup(&[lost, lost, Fate::NotSent, Fate::Full]).await;
        let revision = fenced.commit(vec![put("/a", "1"), put("/b", "1")]).await.unwrap();
        for key in ["/a", "/b"] {
            let found = store.get(key).await.unwrap().unwrap();
            assert_eq!(
                (found.create_revision, found.mod_revision),
                (revision, revision),
                "{lost:?}: done twice"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_somebody_else_changed_is_a_conflict_and_nothing_is_changed() {
    for fates in [&[][..], &[Fate::RequestLost]] {
        let (store, lease, fenced) = setup(fates).await;
        store
            .inner
            .commit(Txn { compares: vec![], changes: vec![put("/b", "theirs").change] })
            .await
            .unwrap();
        let refused = fenced.commit(vec![put("/a", "1"), put("/b", "1")]).await;
        let Err(CommitError::Conflict { found }) = refused else { panic!("{refused:?}") };
        assert_eq!(found[0], None);
        assert_eq!(found[1].as_ref().map(|found| found.value.as_slice()), Some(&b"theirs"[..]));
        assert_eq!(store.get("/a").await, Ok(None));
        assert!(lease.holds(BootTime::ZERO), "a conflict is no loss of the fence");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_fence_ends_leadership_at_once_and_for_good() {
    for fates in [&[][..], &[Fate::RequestLost], &[Fate::NotSent]] {
        let (store, lease, fenced) = setup(fates).await;
        *store.deposed_before.lock().unwrap() = Some(fates.len() + 1);
        assert_eq!(fenced.commit(vec![put("/a", "1")]).await, Err(CommitError::FenceLost));
        assert_eq!(store.get("/a").await, Ok(None), "written after the fence was gone");
        assert!(!lease.holds(BootTime::ZERO));
        fenced.lost().await;
        assert_eq!(fenced.commit(vec![put("/a", "1")]).await, Err(CommitError::LeadershipEnded));
    }
}

#[tokio::test(start_paused = true)]
async fn a_fence_that_was_made_again_is_another_ones() {
    let (store, lease, fenced) = setup(&[]).await;
    for changes in [vec![Change::Delete { key: FENCE.to_owned() }], vec![put(FENCE, "them").change]] {
        store.inner.commit(Txn { compares: vec![], changes }).await.unwrap();
    }
    assert_eq!(fenced.commit(vec![put("/a", "1")]).await, Err(CommitError::FenceLost));
    assert!(!lease.holds(BootTime::ZERO));
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_it_ends_with_leadership() {
    let (_, lease, fenced) = setup(&[Fate::RequestLost; 1_000]).await;
    assert_eq!(fenced.commit(vec![put("/a", "1")]).await, Err(CommitError::LeadershipEnded));
    assert!(!lease.holds(BootTime::ZERO + TTL));
}

#[tokio::test(start_paused = true)]
async fn what_can_never_be_done_is_refused_and_changes_nothing() {
    let (store, _, fenced) = setup(&[]).await;
    let twice = fenced.commit(vec![put("/a", "1"), put("/a", "2")]).await;
    assert!(matches!(twice, Err(CommitError::Refused(StoreError::Invalid { .. }))), "{twice:?}");
    let full = setup(&[Fate::Full]).await.2.commit(vec![put("/a", "1")]).await;
    assert_eq!(full, Err(CommitError::Refused(StoreError::OutOfSpace)));
    assert_eq!(store.get("/a").await, Ok(None));
    assert_eq!(fenced.commit(vec![]).await, Ok(0));
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        Just(Fate::Answered),
        Just(Fate::RequestLost),
        Just(Fate::AnswerLost),
        Just(Fate::NotSent),
        Just(Fate::Full),
    ]
}

proptest! {
    /// Goal: done once, or certainly not done. Method: any fates, the fence lost before any call; a counter that is
    /// written again and again never skips a value and never has one twice.
    #[test]
    fn any_loss_leaves_a_write_done_once_or_not_at_all(
        fates in prop::collection::vec(fate(), 0..20),
        deposed_before in prop::option::of(1_usize..20),
    ) {
        runs(async || {
            let (store, lease, fenced) = setup(&fates).await;
            *store.deposed_before.lock().unwrap() = deposed_before;
            let (mut revision, mut count) = (0, 0_u32);
            for _ in 0..8 {
                let change = Change::Put { key: "/count".to_owned(), value: (count + 1).to_string().into_bytes() };
                let result = fenced.commit(vec![Write { change, expected_mod_revision: revision }]).await;
                let found = store.get("/count").await.unwrap();
                match result {
                    Ok(done) => {
                        count += 1;
                        revision = done;
                        let found = found.unwrap();
                        assert_eq!((found.value, found.mod_revision), (count.to_string().into_bytes(), done));
                    }
                    Err(CommitError::Refused(StoreError::OutOfSpace)) => {
                        assert_eq!(found.map_or(0, |found| found.mod_revision), revision, "refused, and done");
                    }
                    Err(CommitError::FenceLost | CommitError::LeadershipEnded) => {
                        assert!(!lease.holds(fenced.clock.now()));
                        break;
                    }
                    Err(other) => panic!("nobody else writes here: {other}"),
                }
            }
        });
    }
}
