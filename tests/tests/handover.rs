//! A planned change of leader on a real etcd: one transaction ends a term and begins the next, and what happens where the
//! successor does not come to know of it, or nobody knows whether it was done.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use metasrv::etcd::election::{EtcdElection, Revoked};
use metasrv::etcd::store::EtcdStore;
use metasrv::keys::Keys;
use metasrv::leader::{NoSuccession, Resignation, Succession, resign};
use metasrv::record;
use metasrv::store::{Change, Outcome, Record, Store as _, StoreError, Txn};
use metasrv_core::handover::Nobody;
use metasrv_core::id::{Fence, Term};
use metasrv_proto::admin::{CandidateRecord, ListMembersRequest, TermRecord, TransferLeadershipRequest};
use metasrv_tests::cluster::{Cluster, Leadership};
use metasrv_tests::etcd::Etcd;
use metasrv_tests::fleet::Fleet;
use metasrv_tests::space;
use metasrv_tests::wait::eventually;
use rustix::process::Signal;

const LONG: Duration = Duration::from_secs(30);

/// What the log of a successor says that was given its term.
const BEGUN: &str = "this term has begun in the transaction that ended the one before";

fn keys() -> Keys {
    Keys::new("/metasrv")
}

/// The queue, the oldest key first.
async fn queue(store: &EtcdStore) -> Vec<(Record, CandidateRecord)> {
    let mut queue = store.list(&format!("{}/", keys().election())).await.unwrap().records;
    queue.sort_unstable_by_key(|key| key.create_revision);
    queue.into_iter().map(|key| (key.clone(), record::decode(&key).unwrap())).collect()
}

async fn term(store: &EtcdStore, term: u64) -> (TermRecord, i64) {
    let stored = store.get(&keys().term_record(Term(term))).await.unwrap().unwrap();
    (record::decode(&stored).unwrap(), stored.mod_revision)
}

/// Waits until so many stand in the queue, and returns the place of the next one among the replicas.
async fn next(cluster: &Cluster, leader: Leadership, members: usize) -> usize {
    let names = eventually(LONG, "all stand in the queue", async || {
        let answer = cluster.replicas[leader.replica].admin().list_members(ListMembersRequest {}).await;
        let listed = answer.map_err(|status| status.to_string())?.into_inner().members;
        let names: Vec<String> = listed.into_iter().map(|member| member.name).collect();
        if names.len() == members { Ok(names) } else { Err(format!("{names:?}")) }
    })
    .await;
    cluster.replicas.iter().position(|replica| replica.name == names[1]).unwrap()
}

async fn transfer(cluster: &Cluster, leader: Leadership) {
    let request = TransferLeadershipRequest::default();
    cluster.replicas[leader.replica].admin().transfer_leadership(request).await.unwrap();
}

/// Goal: a leader that is told to hand over, or to end, ends its term in the transaction that begins its successor's; no
/// lease is lost. Method: three replicas under a streaming fleet; the revisions of what was written, compared with each other.
#[tokio::test(flavor = "multi_thread")]
async fn one_transaction_ends_a_term_and_begins_the_next() {
    let mut cluster = Cluster::builder().replicas(3).start().await;
    let fleet = Fleet::start(1..=3, &cluster.addrs(), Duration::from_millis(500));
    cluster.connected(&[1, 2, 3]).await;
    cluster.create_regions(6, None).await;
    let mut leader = cluster.leader().await;
    fleet.wait_leased(2, leader.term).await;
    fleet.reset();
    let store = space::store(cluster.etcd.as_ref().unwrap());
    for (told_to_end, members) in [(false, 3), (true, 3)] {
        let expected = next(&cluster, leader, members).await;
        if told_to_end {
            assert!(cluster.replicas[leader.replica].terminate(LONG).await.success());
        } else {
            transfer(&cluster, leader).await;
        }
        let second = cluster.leader_after(leader.term).await;
        assert_eq!(second, Leadership { replica: expected, term: leader.term + 1 });
        let (first_in_queue, published) = queue(&store).await.swap_remove(0);
        let (ended, ended_at) = term(&store, leader.term).await;
        assert!(ended.resigned, "{ended:?}");
        assert_eq!(published.term, second.term);
        assert_eq!(published.name, cluster.replicas[second.replica].name);
        assert_eq!(first_in_queue.mod_revision, ended_at, "not in one transaction");
        let log = cluster.replicas[second.replica].process().log();
        assert!(log.contains(BEGUN), "{log}");
        fleet.wait_leased(2, second.term).await;
        leader = second;
    }
    assert_eq!(fleet.missed_leases(), 0);
}

/// Goal: a leader that died is deposed in the transaction that begins the next term, and is not taken for one that resigned.
/// Method: three replicas; the leader is killed; what was written.
#[tokio::test(flavor = "multi_thread")]
async fn a_deposition_begins_the_next_term_too() {
    let mut cluster = Cluster::builder().replicas(3).start().await;
    let leader = cluster.leader().await;
    let store = space::store(cluster.etcd.as_ref().unwrap());
    let expected = next(&cluster, leader, 3).await;
    cluster.replicas[leader.replica].kill();
    let second = cluster.leader_after(leader.term).await;
    assert_eq!(second, Leadership { replica: expected, term: leader.term + 1 });
    assert!(!term(&store, leader.term).await.0.resigned);
    let (begun, published) = (term(&store, second.term).await.0, queue(&store).await.swap_remove(0).1);
    assert_eq!((begun.name.as_str(), published.term), (published.name.as_str(), second.term));
    let log = cluster.replicas[second.replica].process().log();
    assert!(log.contains(BEGUN), "{log}");
}

/// Goal: a successor that hangs at the moment at which its term begins costs that term, and no operator; when it wakes up it
/// does not lead it. Method: the next in the queue is stopped, with its key there, and the leader hands over; the third one
/// leads; the stopped one goes on. (One that is killed has no key any more: etcd ends a campaign with its connection.)
#[tokio::test(flavor = "multi_thread")]
async fn a_successor_that_hangs_by_then_is_passed_over() {
    let cluster = Cluster::builder().replicas(3).start().await;
    let leader = cluster.leader().await;
    let store = space::store(cluster.etcd.as_ref().unwrap());
    let hung = next(&cluster, leader, 3).await;
    let process = cluster.replicas[hung].process();
    process.signal(Signal::STOP);
    transfer(&cluster, leader).await;
    let (begun, _) = term(&store, leader.term + 1).await;
    assert_eq!((begun.name.as_str(), begun.resigned), (cluster.replicas[hung].name.as_str(), false));
    // The old leader comes to stand behind the third one.
    let third = Leadership { replica: 3 - hung - leader.replica, term: leader.term + 2 };
    eventually(LONG, "the third one leads, and the term of the one that hangs is passed over", async || {
        let status = cluster.replicas[third.replica].status().await.map_err(|status| status.to_string())?;
        if status.role == "leader" && status.term == third.term { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    process.signal(Signal::CONT);
    next(&cluster, third, 3).await;
    assert!(!process.log().contains(BEGUN), "it led a term that was over");
    assert_eq!(cluster.leader().await, third);
}

/// A candidate of an etcd without replicas.
struct Candidate {
    lease: i64,
    fence: Fence,
    record: CandidateRecord,
}

/// Stands in the queue, as another program would: its key is all that there is of it.
async fn stand(
    election: &Arc<EtcdElection>,
    store: &EtcdStore,
    name: &str,
    takes_begun_term: bool,
) -> Candidate {
    let (lease, _) = election.grant(LONG).await.unwrap();
    let record = CandidateRecord {
        name: name.to_owned(),
        addr: "127.0.0.1:1".to_owned(),
        election_ttl_ms: 5_000,
        region_lease_ms: 5_000,
        takes_begun_term,
        ..CandidateRecord::default()
    };
    let (campaigner, value) = (Arc::clone(election), record::encode(&record));
    tokio::spawn(async move { campaigner.campaign(&keys().election(), lease, value).await });
    let key = format!("{}/{lease:x}", keys().election());
    let found = eventually(LONG, "it stands in the queue", async || {
        store.get(&key).await.map_err(|error| error.to_string())?.ok_or_else(|| "it does not".to_owned())
    })
    .await;
    Candidate { lease, fence: Fence { key, create_revision: found.create_revision }, record }
}

/// Begins a first term for this one, with no more than a hand-over looks at.
async fn leads(store: &EtcdStore, candidate: &Candidate) -> (TermRecord, i64) {
    let own = TermRecord { term: 1, election_ttl_ms: 5_000, region_lease_ms: 5_000, ..TermRecord::default() };
    let published = CandidateRecord { term: 1, ..candidate.record.clone() };
    let changes = vec![
        Change::Put { key: keys().term_record(Term(1)), value: record::encode(&own) },
        Change::Update { key: candidate.fence.key.clone(), value: record::encode(&published) },
    ];
    match store.commit(Txn { compares: vec![], changes }).await.unwrap() {
        Outcome::Done { revision } => (own, revision),
        refused => panic!("{refused:?}"),
    }
}

/// Goal: a successor of a version that does not look for a begun term wins by the queue as ever, and begins its term itself;
/// one that is given a term keeps its key, its lease and its place. Method: candidates that are nothing but their keys.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_successor_wins_by_the_queue_alone() {
    let directory = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(1, directory.path()).await;
    let store = space::store(&etcd);
    let election = Arc::new(EtcdElection::new(&etcd.endpoints()).unwrap());
    for takes_begun_term in [false, true] {
        let first = stand(&election, &store, "first", true).await;
        let second = stand(&election, &store, "second", takes_begun_term).await;
        let own = leads(&store, &first).await;
        let next = Succession::prepare(&store, &keys(), &first.fence.key).await;
        assert_eq!(next.is_ok(), takes_begun_term);
        if let Err(why) = &next {
            assert_eq!(*why, NoSuccession::Nobody(Nobody::Older));
        }
        let next = next.ok();
        let resigned = resign(&store, &keys(), &first.fence, Some(own), next.as_ref()).await;
        let (done, in_key) = match takes_begun_term {
            true => (matches!(resigned, Resignation::HandedOver), 2),
            false => (matches!(resigned, Resignation::Done), 0),
        };
        assert!(done, "{resigned:?}");
        let queue = queue(&store).await;
        let [(key, says)] = &queue[..] else { panic!("{queue:?}") };
        assert_eq!((key.create_revision, says.term), (second.fence.create_revision, in_key));
        // The key still hangs on its lease.
        for lease in [first.lease, second.lease] {
            assert_eq!(election.revoke(lease).await, Ok(Revoked::Done));
        }
        assert_eq!(store.list(&keys().election()).await.unwrap().records, []);
        let forget = vec![Change::Delete { key: keys().term_record(Term(1)) }];
        store.commit(Txn { compares: vec![], changes: forget }).await.unwrap();
    }
}

/// Goal: where nobody knows whether a hand-over was done, it was done whole or not at all, and cannot be done any more once
/// the leader's lease is revoked. Method: etcd is stopped while the transaction is under way.
#[tokio::test(flavor = "multi_thread")]
async fn a_hand_over_of_unknown_outcome_is_whole_or_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(1, directory.path()).await;
    let store = space::store(&etcd);
    let election = Arc::new(EtcdElection::new(&etcd.endpoints()).unwrap());
    let first = stand(&election, &store, "first", true).await;
    let second = stand(&election, &store, "second", true).await;
    let own = leads(&store, &first).await;
    let next = Succession::prepare(&store, &keys(), &first.fence.key).await.unwrap();
    etcd.pause_member(0);
    let resigned = resign(&store, &keys(), &first.fence, Some(own.clone()), Some(&next)).await;
    assert!(matches!(resigned, Resignation::Unknown(StoreError::Unknown { .. })), "{resigned:?}");
    etcd.resume_member(0);
    etcd.ready().await;
    eventually(LONG, "the leader's lease is gone", async || match election.revoke(first.lease).await {
        Ok(Revoked::Done | Revoked::NotFound) => Ok(()),
        Err(error) => Err(error.to_string()),
    })
    .await;
    let (ended, _) = term(&store, 1).await;
    let queue = queue(&store).await;
    let [(key, says)] = &queue[..] else { panic!("{queue:?}") };
    let begun = store.get(&keys().term_record(Term(2))).await.unwrap();
    assert_eq!(key.create_revision, second.fence.create_revision);
    assert_eq!(
        (ended.resigned, begun.is_some()),
        (says.term == 2, says.term == 2),
        "half of it was done: {says:?}"
    );
    let late = resign(&store, &keys(), &first.fence, Some(own), Some(&next)).await;
    assert!(matches!(late, Resignation::FenceGone), "{late:?}");
}
