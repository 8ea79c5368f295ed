//! The rows of docs/etcd.md that no other file shows: what etcd's own upkeep costs, and a short loss of its quorum.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use metasrv::store::{Change, Store as _, Txn};
use metasrv_tests::cluster::Cluster;
use metasrv_tests::fleet::Fleet;
use metasrv_tests::space;

const INTERVAL: Duration = Duration::from_millis(500);

/// Goal: compaction under everybody's watches, and the pause of a defragmentation, are noticed by nobody; what happens
/// afterwards is seen by all. Method: rounds of writes, compaction up to the present and defragmentation, under a
/// streaming fleet; then a new leader, and a region created under it.
#[tokio::test(flavor = "multi_thread")]
async fn compaction_and_defragmentation_are_noticed_by_nobody() {
    let mut cluster = Cluster::builder().replicas(3).start().await;
    let fleet = Fleet::start(1..=3, &cluster.addrs(), INTERVAL);
    cluster.connected(&[1, 2, 3]).await;
    cluster.create_regions(6, None).await;
    let leader = cluster.leader().await;
    fleet.wait_leased(2, leader.term).await;
    fleet.reset();
    let store = space::store(cluster.etcd.as_ref().unwrap());
    for _ in 0..3 {
        for value in 0..50_u8 {
            let change = Change::Put { key: "/filler".to_owned(), value: vec![value; 64 << 10] };
            store.commit(Txn { compares: vec![], changes: vec![change] }).await.unwrap();
        }
        space::compact(cluster.etcd.as_ref().unwrap()).await;
        cluster.undisturbed(leader, &fleet, 2, Duration::from_secs(2)).await;
    }
    assert_eq!((fleet.missed_leases(), fleet.streams()), (0, 3), "a lease or a stream was lost");
    cluster.replicas[leader.replica].kill();
    let next = cluster.leader_after(leader.term).await;
    fleet.wait_leased(2, next.term).await;
    cluster.create_regions(3, None).await;
    fleet.wait_leased(3, next.term).await;
}

/// Goal: a loss of etcd's quorum that is over, its election included, before the leader's lease is, changes nothing.
/// Method: two of three members, etcd's leader among them in one of the rounds, are stopped for a second under a TTL of
/// 10 s.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_loss_of_quorum_is_noticed_by_nobody() {
    let cluster = Cluster::builder().etcd(3).replicas(2).timing("10s", "10s", "500ms").start().await;
    let fleet = Fleet::start(1..=3, &cluster.addrs(), INTERVAL);
    cluster.connected(&[1, 2, 3]).await;
    cluster.create_regions(6, None).await;
    let leader = cluster.leader().await;
    fleet.wait_leased(2, leader.term).await;
    fleet.reset();
    let etcd = cluster.etcd.as_ref().unwrap();
    for (first, second) in [(0, 1), (1, 2)] {
        etcd.pause_member(first);
        etcd.pause_member(second);
        cluster.undisturbed(leader, &fleet, 2, Duration::from_secs(1)).await;
        etcd.resume_member(first);
        etcd.resume_member(second);
        etcd.ready().await;
        cluster.undisturbed(leader, &fleet, 2, Duration::from_secs(4)).await;
    }
    assert_eq!(cluster.leader().await, leader);
    assert_eq!(fleet.missed_leases(), 0);
}
