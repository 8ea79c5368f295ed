//! A leader whose process is gone is replaced at once, by any other replica; one that merely hangs by a majority
//! (`deposition.rs`), and of two replicas by its TTL alone.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use metasrv_tests::cluster::Cluster;
use metasrv_tests::fleet::Fleet;
use metasrv_tests::wait::throughout;
use rustix::process::Signal;

const INTERVAL: Duration = Duration::from_millis(200);

/// Goal: nobody waits for the TTL of a leader that is dead, and nothing but time is saved: every region stays where it
/// is, under its epoch. Method: a TTL of a minute, kill -9 twice; the next leader comes within the test's patience,
/// which is a third of that.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_leader_is_replaced_long_before_its_ttl_is_over() {
    let mut cluster = Cluster::builder().replicas(3).timing("60s", "3s", "200ms").start().await;
    let fleet = Fleet::start(1..=4, &cluster.addrs(), INTERVAL);
    cluster.connected(&[1, 2, 3, 4]).await;
    cluster.create_regions(8, None).await;
    let mut leader = cluster.leader().await;
    fleet.wait_leased(2, leader.term).await;
    let before = cluster.regions(leader.replica).await.unwrap();
    for _ in 0..2 {
        cluster.replicas[leader.replica].kill();
        let next = cluster.leader_after(leader.term).await;
        fleet.wait_leased(2, next.term).await;
        let place = |region: &metasrv_proto::admin::Region| (region.region_id, region.node_id, region.epoch);
        let after = cluster.regions(next.replica).await.unwrap();
        assert_eq!(after.iter().map(place).collect::<Vec<_>>(), before.iter().map(place).collect::<Vec<_>>());
        assert!(
            cluster.replicas[next.replica].process().log().contains("settled_in=63.03s"),
            "the whole wait stands"
        );
        leader = next;
    }
    assert_eq!(fleet.missed_leases(), 0, "the change took less than a lease");
}

/// Goal: of two replicas neither deposes the other: where the leader hangs, its TTL decides. Method: SIGSTOP for a while
/// that is shorter than the TTL; the same term goes on.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_replicas_neither_deposes_the_other_before_its_ttl_is_over() {
    let cluster = Cluster::builder().replicas(2).timing("20s", "2s", "200ms").start().await;
    let leader = cluster.leader().await;
    cluster.replicas[leader.replica].process().signal(Signal::STOP);
    throughout(Duration::from_secs(4), "nobody else leads", async || {
        let status =
            cluster.replicas[1 - leader.replica].status().await.map_err(|status| status.to_string())?;
        if status.role == "leader" { Err(format!("it leads term {}", status.term)) } else { Ok(()) }
    })
    .await;
    cluster.replicas[leader.replica].process().signal(Signal::CONT);
    assert_eq!(cluster.leader().await, leader);
}
