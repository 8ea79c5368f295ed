//! A leader that does not do its work any more is replaced, long before its TTL is over, and awake again it changes
//! nothing. Leaders here have a TTL of a minute, so that it is never the TTL that replaces them.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use metasrv_proto::admin::{CreateRegionsRequest, ListMembersRequest, TransferLeadershipRequest};
use metasrv_tests::cluster::{Cluster, Leadership};
use metasrv_tests::fleet::Fleet;
use metasrv_tests::wait::{eventually, throughout};
use rustix::process::Signal;
use tonic::Code;

const LONG: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(200);

/// Three replicas, three nodes with two regions each, all leased.
async fn started() -> (Cluster, Fleet, Leadership) {
    let builder = Cluster::builder().replicas(3).timing("60s", "3s", "200ms").fault_injection();
    let cluster = builder.start().await;
    let fleet = Fleet::start(1..=3, &cluster.addrs(), INTERVAL);
    cluster.connected(&[1, 2, 3]).await;
    cluster.create_regions(6, None).await;
    let leader = cluster.leader().await;
    fleet.wait_leased(2, leader.term).await;
    queued(&cluster, leader, 3).await;
    (cluster, fleet, leader)
}

/// Waits until so many replicas stand in the queue; returns their names in its order.
async fn queued(cluster: &Cluster, leader: Leadership, count: usize) -> Vec<String> {
    eventually(LONG, "every replica stands in the queue", async || {
        let mut admin = cluster.replicas[leader.replica].admin();
        let members = admin.list_members(ListMembersRequest {}).await.map_err(|status| status.to_string())?;
        let names: Vec<String> = members.into_inner().members.into_iter().map(|member| member.name).collect();
        if names.len() == count { Ok(names) } else { Err(format!("{names:?} do")) }
    })
    .await
}

/// What all replicas but this one have deposed for want of an answer.
async fn depositions(cluster: &Cluster, but: usize) -> usize {
    let mut sum = 0;
    for (index, replica) in cluster.replicas.iter().enumerate().filter(|(index, _)| *index != but) {
        let page = replica.http("/metrics").await.unwrap_or_else(|why| panic!("replica {index}: {why}"));
        sum += page.matches("metasrv_depositions_total{evidence=\"silent\"}").count();
    }
    sum
}

/// A deposed leader that is awake again: nothing it does is done, it says so, and it follows.
async fn changes_nothing(cluster: &Cluster, old: Leadership, next: Leadership) {
    let replica = &cluster.replicas[old.replica];
    eventually(LONG, "the old leader says that its write was refused", async || {
        let log = replica.process().log();
        if log.contains("fenced write refused") {
            Ok(())
        } else {
            Err(log.lines().last().unwrap_or("").to_owned())
        }
    })
    .await;
    eventually(LONG, "the old leader follows", async || match replica.status().await {
        Ok(status) if status.role == "follower" && status.term == next.term => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let request = CreateRegionsRequest { count: 1, ..CreateRegionsRequest::default() };
    let refused = replica.admin().create_regions(request).await.expect_err("it does not lead");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(cluster.leader().await, next, "it took nothing back");
}

fn places(regions: &[metasrv_proto::admin::Region]) -> Vec<(u64, u64, u64)> {
    regions.iter().map(|region| (region.region_id, region.node_id, region.epoch)).collect()
}

/// Goal: a leader that hangs is deposed by the others, and awake again changes nothing. Method: SIGSTOP, wait for the
/// next leader and all leases, SIGCONT.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_hangs_is_deposed_by_a_majority() {
    let (cluster, fleet, leader) = started().await;
    let before = cluster.regions(leader.replica).await.unwrap();
    cluster.replicas[leader.replica].process().signal(Signal::STOP);
    let next = cluster.leader_after(leader.term).await;
    fleet.wait_leased(2, next.term).await;
    assert!(depositions(&cluster, leader.replica).await > 0);
    cluster.replicas[leader.replica].process().signal(Signal::CONT);
    changes_nothing(&cluster, leader, next).await;
    let after = cluster.regions(next.replica).await.unwrap();
    assert_eq!(places(&after), places(&before));
}

/// Goal: a leader whose control loop stands still, while the rest of it goes on answering, is deposed just so. Method:
/// the loop is blocked for longer than everything else takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_loop_stands_still_is_deposed_though_it_answers() {
    let (cluster, fleet, leader) = started().await;
    cluster.replicas[leader.replica].suffer("block-loop", Duration::from_secs(8)).await;
    let next = cluster.leader_after(leader.term).await;
    assert!(cluster.replicas[leader.replica].status().await.is_ok(), "the rest of it goes on");
    fleet.wait_leased(2, next.term).await;
    assert!(depositions(&cluster, leader.replica).await > 0);
    changes_nothing(&cluster, leader, next).await;
}

/// Goal: renewal is earned: a leader that serves no heartbeat gives its place up though nobody deposes it. Method: of two
/// replicas, the leader's heartbeats are held; its loop, and all of etcd, go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_serves_no_heartbeat_makes_room() {
    let builder = Cluster::builder().replicas(2).timing("5s", "3s", "200ms").fault_injection();
    let cluster = builder.start().await;
    let leader = cluster.leader().await;
    queued(&cluster, leader, 2).await;
    cluster.replicas[leader.replica].suffer("hold-heartbeats", Duration::from_secs(20)).await;
    let next = cluster.leader_after(leader.term).await;
    assert_ne!(next.replica, leader.replica);
    let metrics = cluster.replicas[leader.replica].http("/metrics").await.unwrap();
    assert!(metrics.contains("metasrv_step_downs_total{reason=\"unproved\"} 1"), "{metrics}");
}

/// Goal: a broken self-test does not cost the only replica its leadership: there is nobody to make room for. Method: one
/// replica, its heartbeats held for longer than its TTL.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_rivals_goes_on_whatever_its_probes_say() {
    let cluster = Cluster::builder().timing("2s", "2s", "200ms").fault_injection().start().await;
    let leader = cluster.leader().await;
    cluster.replicas[0].suffer("hold-heartbeats", Duration::from_secs(5)).await;
    throughout(Duration::from_secs(6), "the same term goes on", async || {
        let status = cluster.replicas[0].status().await.map_err(|status| status.to_string())?;
        if status.role == "leader" && status.term == leader.term {
            Ok(())
        } else {
            Err(format!("{status:?}"))
        }
    })
    .await;
}

/// Goal: an operator says who leads next, also where others stand before it. Method: the last in the queue is named;
/// then one that is not there, and the one that leads.
#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_transferred_to_the_replica_that_is_named() {
    let (cluster, fleet, leader) = started().await;
    let names = queued(&cluster, leader, 3).await;
    let transfer = |to: &str| {
        let mut admin = cluster.replicas[leader.replica].admin();
        let request = TransferLeadershipRequest { to: to.to_owned(), ..TransferLeadershipRequest::default() };
        async move { admin.transfer_leadership(request).await }
    };
    for (to, code) in [("nobody", Code::NotFound), (&names[0], Code::InvalidArgument)] {
        let refused = transfer(to).await.expect_err("refused");
        assert_eq!(refused.code(), code);
        assert!(refused.message().contains("to: "), "{refused}");
    }
    transfer(&names[2]).await.unwrap();
    let next = cluster.leader_after(leader.term).await;
    assert_eq!(cluster.replicas[next.replica].name, names[2]);
    fleet.wait_leased(2, next.term).await;
    assert_eq!(fleet.missed_leases(), 0);
}
