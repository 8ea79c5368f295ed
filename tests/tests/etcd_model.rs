//! What is relied on of etcd beside keys and transactions: leases, the queue of a campaign, watches, compaction, and what is
//! refused without space. Asked of a real etcd and of the simulation's model in the same words, through the same client.
//!
//! Where the two differ and it matters stands in docs/proof.md.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use metasrv::clock::SystemClock;
use metasrv::etcd::election::{EtcdElection, KeptAlive, Revoked};
use metasrv::etcd::store::EtcdStore;
use metasrv::etcd::watch::EtcdSource;
use metasrv::mirror::follow::{Source as _, Watch, WatchEnd};
use metasrv::mirror::state::Event;
use metasrv::store::{Change, Compare, Outcome, Store as _, StoreError, Txn};
use metasrv_core::time::Clock as _;
use metasrv_sim::etcd::served::Served;
use metasrv_tests::etcd::Etcd;
use metasrv_tests::place::Place;
use metasrv_tests::space;
use metasrv_tests::wait::eventually;
use tempfile::TempDir;

/// Anything that is waited for comes within this time.
const LIMIT: Duration = Duration::from_secs(20);

/// The least TTL that etcd grants.
const TTL: Duration = Duration::from_secs(2);

/// One of the two.
enum Subject {
    Real { etcd: Etcd, _directory: TempDir },
    Model(Served),
}

impl Subject {
    /// A real etcd that can be filled, and a model.
    async fn both() -> [Subject; 2] {
        let directory = tempfile::tempdir().unwrap();
        let arguments = space::QUOTA.iter().map(|argument| (*argument).to_owned()).collect();
        let etcd = Etcd::start_at(vec![Place::here()], arguments, directory.path()).await;
        [Subject::Real { etcd, _directory: directory }, Subject::Model(Served::start().await.unwrap())]
    }

    fn endpoints(&self) -> Vec<String> {
        match self {
            Subject::Real { etcd, .. } => etcd.endpoints(),
            Subject::Model(served) => served.endpoints(),
        }
    }

    fn election(&self) -> Arc<EtcdElection> {
        Arc::new(EtcdElection::new(&self.endpoints()).unwrap())
    }

    fn store(&self) -> EtcdStore {
        EtcdStore::new(&self.endpoints()).unwrap()
    }

    async fn compact(&self) {
        match self {
            Subject::Real { etcd, .. } => space::compact(etcd).await,
            Subject::Model(served) => served.etcd.compact(),
        }
    }

    async fn fill(&self) {
        match self {
            Subject::Real { etcd, .. } => space::fill(etcd).await,
            Subject::Model(served) => served.etcd.out_of_space(true),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Subject::Real { .. } => "etcd",
            Subject::Model(_) => "the model",
        }
    }
}

fn put(key: &str, value: &str) -> Change {
    Change::Put { key: key.to_owned(), value: value.as_bytes().to_vec() }
}

async fn done(store: &EtcdStore, changes: Vec<Change>) -> i64 {
    match store.commit(Txn { compares: vec![], changes }).await {
        Ok(Outcome::Done { revision }) => revision,
        other => panic!("not done: {other:?}"),
    }
}

async fn is_gone(store: &EtcdStore, key: &str) {
    eventually(LIMIT, &format!("{key} is gone"), async || match store.get(key).await {
        Ok(None) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

/// Goal: a lease that nobody keeps expires, with its key, not before its time and soon after; one that is kept does not.
/// Method: two candidates of one TTL, one of which is kept alive.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_expires_unless_it_is_kept() {
    for subject in Subject::both().await {
        let (election, store) = (subject.election(), subject.store());
        let began = SystemClock.now();
        let (left, ttl) = election.grant(TTL).await.unwrap();
        assert_eq!(ttl, TTL, "{}", subject.name());
        let (kept, _) = election.grant(Duration::from_secs(1)).await.unwrap();
        let leaves = election.campaign("/left", left, b"x".to_vec()).await.unwrap();
        let stays = election.campaign("/kept", kept, b"x".to_vec()).await.unwrap();
        eventually(LIMIT, "the lease is over", async || {
            assert_eq!(election.keep_alive_once(kept, TTL).await.unwrap(), KeptAlive::Yes);
            match store.get(&leaves.key).await.unwrap() {
                None => Ok(()),
                Some(_) => Err("its key is there"),
            }
        })
        .await;
        let lasted = SystemClock.now().since(began);
        assert!(lasted >= TTL, "{}: over after {lasted:?}", subject.name());
        assert!(store.get(&stays.key).await.unwrap().is_some());
        assert_eq!(election.keep_alive_once(left, TTL).await.unwrap(), KeptAlive::Gone);
        assert_eq!(election.revoke(left).await.unwrap(), Revoked::NotFound);
        assert_eq!(election.revoke(kept).await.unwrap(), Revoked::Done);
        assert_eq!(store.get(&stays.key).await.unwrap(), None);
    }
}

/// Goal: candidates lead in the order of their keys, whoever leaves. Method: three campaigns; the second's lease is revoked,
/// which changes nothing for the third; then the first's.
#[tokio::test(flavor = "multi_thread")]
async fn candidates_lead_in_the_order_of_the_queue() {
    for subject in Subject::both().await {
        let election = subject.election();
        let mut leases = Vec::new();
        let mut campaigns = Vec::new();
        for place in 1..=3_usize {
            let (lease, _) = election.grant(Duration::from_secs(60)).await.unwrap();
            leases.push(lease);
            let api = Arc::clone(&election);
            campaigns.push(tokio::spawn(async move { api.campaign("/queue", lease, b"x".to_vec()).await }));
            eventually(LIMIT, "it queues", async || {
                match election.candidates("/queue").await.unwrap().records.len() {
                    queued if queued == place => Ok(()),
                    queued => Err(queued),
                }
            })
            .await;
        }
        let queue = election.candidates("/queue").await.unwrap().records;
        let keys: Vec<String> = leases.iter().map(|lease| format!("/queue/{lease:x}")).collect();
        assert_eq!(queue.iter().map(|record| record.key.clone()).collect::<Vec<_>>(), keys);
        let first = campaigns.remove(0).await.unwrap().unwrap();
        assert_eq!((&first.key, first.create_revision), (&keys[0], queue[0].create_revision));
        // Who has won and asks again has won.
        let again = election.campaign("/queue", leases[0], b"x".to_vec()).await.unwrap();
        assert_eq!(again.create_revision, first.create_revision);
        assert_eq!(election.revoke(leases[1]).await.unwrap(), Revoked::Done);
        let third = campaigns.remove(1);
        // A read that is answered: whatever the revocation causes has been caused.
        assert_eq!(election.candidates("/queue").await.unwrap().records.len(), 2);
        assert!(!third.is_finished(), "{}: the third leads beside the first", subject.name());
        assert_eq!(election.revoke(leases[0]).await.unwrap(), Revoked::Done);
        let third = tokio::time::timeout(LIMIT, third).await.unwrap().unwrap().unwrap();
        assert_eq!(third.key, keys[2]);
    }
}

/// Goal: a campaign that is given up leaves the queue; one under a lease that is gone is refused. Method: the second in the
/// queue is dropped; a campaign under a revoked lease.
#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_that_is_given_up_leaves_the_queue() {
    for subject in Subject::both().await {
        let (election, store) = (subject.election(), subject.store());
        let (first, _) = election.grant(Duration::from_secs(60)).await.unwrap();
        let (second, _) = election.grant(Duration::from_secs(60)).await.unwrap();
        election.campaign("/given-up", first, b"x".to_vec()).await.unwrap();
        let api = Arc::clone(&election);
        let waiting = tokio::spawn(async move { api.campaign("/given-up", second, b"x".to_vec()).await });
        let key = format!("/given-up/{second:x}");
        eventually(LIMIT, "it queues", async || store.get(&key).await.unwrap().ok_or("it does not")).await;
        waiting.abort();
        is_gone(&store, &key).await;
        election.revoke(second).await.unwrap();
        let refused = election.campaign("/given-up", second, b"x".to_vec()).await;
        let says_so = |why: &str| why.contains("requested lease not found");
        let fits = matches!(&refused, Err(StoreError::Unknown { why, .. }) if says_so(why));
        assert!(fits, "{}: {refused:?}", subject.name());
    }
}

/// Goal: a put takes a key off its lease, and an update leaves it there; a revocation is one revision, whatever hangs on the
/// lease. Method: both, and the lease's end.
#[tokio::test(flavor = "multi_thread")]
async fn an_update_keeps_a_key_on_its_lease() {
    for subject in Subject::both().await {
        let (election, store) = (subject.election(), subject.store());
        let (lease, _) = election.grant(Duration::from_secs(60)).await.unwrap();
        let one = election.campaign("/one", lease, b"x".to_vec()).await.unwrap();
        let two = election.campaign("/two", lease, b"x".to_vec()).await.unwrap();
        let off = election.campaign("/off", lease, b"x".to_vec()).await.unwrap();
        let update = Change::Update { key: one.key.clone(), value: b"y".to_vec() };
        let revision = done(&store, vec![update, put(&off.key, "y")]).await;
        assert_eq!(election.revoke(lease).await.unwrap(), Revoked::Done);
        assert_eq!(store.get(&one.key).await.unwrap(), None);
        assert_eq!(store.get(&two.key).await.unwrap(), None);
        assert!(store.get(&off.key).await.unwrap().is_some());
        assert_eq!(store.list("/").await.unwrap().revision, revision + 1, "{}", subject.name());
    }
}

async fn next(watch: &mut Box<dyn Watch>) -> Vec<Event> {
    loop {
        let heard = tokio::time::timeout(LIMIT, watch.next()).await.unwrap().unwrap();
        if !heard.events.is_empty() {
            return heard.events;
        }
    }
}

/// Goal: a watch begins after a revision and tells everything once, in order, also what was before it began; and one from
/// before a compaction is told that. Method: changes before and after; a compaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_everything_once_from_where_it_begins() {
    for subject in Subject::both().await {
        let store = subject.store();
        let source = EtcdSource::over(&subject.endpoints(), ("/w/".to_owned(), "/w0".to_owned())).unwrap();
        let begin = done(&store, vec![put("/w/a", "1")]).await;
        done(&store, vec![put("/w/b", "1"), put("/elsewhere", "1")]).await;
        let mut watch = source.watch(begin).await.unwrap();
        let deleted = done(&store, vec![Change::Delete { key: "/w/a".to_owned() }, put("/w/c", "1")]).await;
        let mut events = Vec::new();
        while events.len() < 3 {
            events.extend(next(&mut watch).await);
        }
        let told: Vec<(String, i64, bool)> = events
            .into_iter()
            .map(|event| match event {
                Event::Put(record) => (record.key, record.mod_revision, true),
                Event::Deleted { key, revision } => (key, revision, false),
            })
            .collect();
        let expected = [("/w/b", begin + 1, true), ("/w/a", deleted, false), ("/w/c", deleted, true)];
        let expected: Vec<_> = expected.iter().map(|(key, at, put)| ((*key).to_owned(), *at, *put)).collect();
        assert_eq!(told, expected, "{}", subject.name());
        subject.compact().await;
        let ended = match source.watch(begin).await {
            Ok(mut late) => loop {
                match tokio::time::timeout(LIMIT, late.next()).await.unwrap() {
                    Ok(heard) => assert!(heard.events.is_empty(), "{:?}", heard.events),
                    Err(end) => break end,
                }
            },
            Err(error) => panic!("{}: {error}", subject.name()),
        };
        assert!(matches!(ended, WatchEnd::Compacted), "{}", subject.name());
        // One that has heard everything is not touched.
        done(&store, vec![put("/w/d", "1")]).await;
        assert_eq!(next(&mut watch).await.len(), 1);
    }
}

/// Goal: without space puts, updates and leases are refused as such; reads, deletes, keep-alives and revocations are not. A
/// transaction that is refused changes nothing. Method: each of them, on a full store.
#[tokio::test(flavor = "multi_thread")]
async fn without_space_only_what_needs_none_is_done() {
    for subject in Subject::both().await {
        let (election, store) = (subject.election(), subject.store());
        let (lease, _) = election.grant(Duration::from_secs(60)).await.unwrap();
        let fence = election.campaign("/full", lease, b"x".to_vec()).await.unwrap();
        done(&store, vec![put("/a", "1"), put("/b", "1")]).await;
        subject.fill().await;
        let guard = Compare::CreateRevision { key: fence.key.clone(), revision: fence.create_revision };
        let refused = [
            vec![put("/c", "1")],
            vec![Change::Update { key: fence.key.clone(), value: b"y".to_vec() }],
            vec![Change::Delete { key: "/a".to_owned() }, put("/c", "1")],
        ];
        for changes in refused {
            let outcome = store.commit(Txn { compares: vec![guard.clone()], changes }).await;
            assert_eq!(outcome, Err(StoreError::OutOfSpace), "{}", subject.name());
        }
        assert!(store.get("/a").await.unwrap().is_some(), "{}: half a transaction", subject.name());
        let granted = election.grant(TTL).await;
        assert_eq!(granted.err(), Some(StoreError::OutOfSpace), "{}", subject.name());
        assert_eq!(election.keep_alive_once(lease, TTL).await.unwrap(), KeptAlive::Yes);
        let delete = Txn { compares: vec![guard], changes: vec![Change::Delete { key: "/a".to_owned() }] };
        assert!(matches!(store.commit(delete).await, Ok(Outcome::Done { .. })), "{}", subject.name());
        assert_eq!(election.revoke(lease).await.unwrap(), Revoked::Done);
        assert_eq!(store.get(&fence.key).await.unwrap(), None);
    }
}
