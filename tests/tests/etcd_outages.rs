//! What an etcd in trouble costs: nothing where it is short, or where a majority is left; never a key that blocks the
//! queue; never a replica that names itself though it does not lead.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use metasrv::etcd::store::EtcdStore;
use metasrv::store::{Change, Store as _, Txn};
use metasrv_proto::admin::{CreateRegionsRequest, ListMembersRequest};
use metasrv_proto::code;
use metasrv_tests::cluster::Cluster;
use metasrv_tests::fleet::Fleet;
use metasrv_tests::node::{FakeNode, Identity, error_code};
use metasrv_tests::wait::{eventually, throughout};
use tonic::Code;

const LONG: Duration = Duration::from_secs(30);

/// The names in the queue, as this replica lists them.
async fn members(cluster: &Cluster, replica: usize) -> Result<Vec<String>, String> {
    let answer = cluster.replicas[replica].admin().list_members(ListMembersRequest {}).await;
    let mut members: Vec<String> = answer
        .map_err(|status| status.to_string())?
        .into_inner()
        .members
        .into_iter()
        .map(|member| member.name)
        .collect();
    members.sort_unstable();
    Ok(members)
}

/// Goal: a silence of etcd that is shorter than the leader's lease is noticed by nobody. Method: the only member is
/// stopped for half of the TTL, under a streaming fleet, several times.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_silence_of_etcd_is_noticed_by_nobody() {
    let cluster = Cluster::builder().replicas(2).start().await;
    let fleet = Fleet::start(1..=3, &cluster.addrs(), Duration::from_millis(500));
    cluster.connected(&[1, 2, 3]).await;
    cluster.create_regions(6, None).await;
    let leader = cluster.leader().await;
    fleet.wait_leased(2, leader.term).await;
    fleet.reset();
    let etcd = cluster.etcd.as_ref().unwrap();
    for _ in 0..3 {
        etcd.pause_member(0);
        cluster.undisturbed(leader, &fleet, 2, Duration::from_millis(2_500)).await;
        etcd.resume_member(0);
        etcd.ready().await;
        // Keep-alives and reads get through again before the next silence.
        throughout::<String>(Duration::from_millis(1_500), "etcd answers", async || Ok(())).await;
    }
    assert_eq!(cluster.leader().await, leader);
    assert_eq!((fleet.missed_leases(), fleet.streams()), (0, 3), "a lease or a stream was lost");
}

/// Goal: a member of three that falls silent, connections and all, is nothing to nodes, also where it is the one that a
/// replica talks to, or etcd's leader. When it goes on, no region moves, and no lease is lost either.
/// Method: each member in turn is stopped for longer than a ping takes to notice. The leader may change when a stopped
/// leader of etcd wakes: releases from before 2024 revoke leases then that ran out in its own eyes alone (etcd issue
/// 15247).
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_etcd_member_of_three_changes_nothing() {
    let cluster = Cluster::builder().etcd(3).replicas(2).start().await;
    let fleet = Fleet::start(1..=3, &cluster.addrs(), Duration::from_millis(500));
    cluster.connected(&[1, 2, 3]).await;
    let created = cluster.create_regions(6, None).await;
    let mut leader = cluster.leader().await;
    fleet.wait_leased(2, leader.term).await;
    fleet.reset();
    let etcd = cluster.etcd.as_ref().unwrap();
    for member in 0..3 {
        etcd.pause_member(member);
        cluster.undisturbed(leader, &fleet, 2, Duration::from_secs(9)).await;
        etcd.resume_member(member);
        etcd.ready().await;
        // Longer than a leader needs to find out that its key is gone.
        throughout(Duration::from_secs(3), "every lease is kept", async || match fleet.leased(2, 0) {
            3 => Ok(()),
            leased => Err(format!("{leased} nodes are leased")),
        })
        .await;
        leader = cluster.leader().await;
        fleet.wait_leased(2, leader.term).await;
    }
    assert_eq!(fleet.missed_leases(), 0);
    let place = |region: &metasrv_proto::admin::Region| (region.region_id, region.node_id, region.epoch);
    let listed = cluster.regions(leader.replica).await.unwrap();
    assert_eq!(listed.iter().map(place).collect::<Vec<_>>(), created.iter().map(place).collect::<Vec<_>>());
}

/// Goal: candidates that lose their leases in the queue leave no key behind that nobody owns, and are all back in the
/// queue. Method: etcd is stopped for longer than the TTL while one replica leads and two stand in the queue.
#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_falls_silent_during_campaigns_leaves_no_orphan_key() {
    let cluster = Cluster::builder().replicas(3).timing("2s", "2s", "200ms").start().await;
    let mut term = cluster.leader().await.term;
    let all: Vec<String> = cluster.replicas.iter().map(|replica| replica.name.clone()).collect();
    let etcd = cluster.etcd.as_ref().unwrap();
    for _ in 0..2 {
        etcd.pause_member(0);
        throughout::<String>(Duration::from_secs(5), "etcd is silent", async || Ok(())).await;
        etcd.resume_member(0);
        let next = cluster.leader_after(term).await;
        eventually(LONG, "each replica is in the queue once", async || match members(&cluster, 0).await {
            Ok(members) if members == all => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        throughout(Duration::from_secs(3), "the queue and the leader stay as they are", async || {
            let (now, members) = (cluster.leader().await, members(&cluster, next.replica).await?);
            if now == next && members == all { Ok(()) } else { Err(format!("{now:?}, {members:?}")) }
        })
        .await;
        term = next.term;
    }
}

/// Goal: a leader whose fence is gone finds out with its next write at the latest, changes nothing, and steps down at
/// once. Method: somebody deletes its key, which says nothing to its lease; then it is asked to create regions.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_key_was_deleted_steps_down_with_its_next_write() {
    let cluster = Cluster::builder().start().await;
    let mut node = FakeNode::new(Identity::datanode(1));
    node.connect(&cluster.replicas[0].addr()).await.unwrap();
    let store = EtcdStore::new(&cluster.etcd.as_ref().unwrap().endpoints()).unwrap();
    let queue = store.list("/metasrv/v1/election/").await.unwrap();
    let key = queue.records[0].key.clone();
    let mut admin = cluster.replicas[0].admin();
    store.commit(Txn { compares: vec![], changes: vec![Change::Delete { key }] }).await.unwrap();
    let request = CreateRegionsRequest { count: 1, ..CreateRegionsRequest::default() };
    let refused = admin.create_regions(request).await.expect_err("written without a fence");
    assert!([Code::Aborted, Code::FailedPrecondition].contains(&refused.code()), "{refused}");
    let told = loop {
        let response = node.pushed().await.unwrap().expect("a last word");
        if error_code(&response) != 0 {
            break error_code(&response);
        }
    };
    assert_eq!(told, code::NOT_LEADER);
    let second = cluster.leader_after(1).await;
    assert_eq!(second.term, 2);
    assert_eq!(cluster.regions(0).await.unwrap(), [], "written without a fence");
    let metrics = cluster.replicas[0].http("/metrics").await.unwrap();
    assert!(metrics.contains(r#"metasrv_step_downs_total{reason="fence_lost"} 1"#), "{metrics}");
}

/// Goal: a leader that stepped down for want of etcd does not send nodes to itself. Method: the last thing seen in etcd
/// is that it leads; etcd is stopped until it has stepped down; it is asked for the leader, and refuses as a follower.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stepped_down_does_not_name_itself() {
    let cluster = Cluster::builder().timing("2s", "2s", "200ms").start().await;
    let replica = &cluster.replicas[0];
    eventually(LONG, "it names itself while it leads", async || {
        match replica.ask_leader().await.map_err(|status| status.to_string())?.leader {
            Some(leader) if leader.addr == replica.addr() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let etcd = cluster.etcd.as_ref().unwrap();
    etcd.pause_member(0);
    eventually(LONG, "it names nobody", async || {
        match replica.ask_leader().await.map_err(|status| status.to_string())?.leader {
            None => Ok(()),
            Some(leader) => Err(leader.addr),
        }
    })
    .await;
    let status = replica.status().await.unwrap();
    assert_ne!(status.role, "leader");
    let request = metasrv_proto::admin::ListNodesRequest::default();
    let refused = replica.admin().list_nodes(request).await.expect_err("it leads");
    assert!(refused.metadata().get("metasrv-leader").is_none(), "it names itself: {refused}");
    etcd.resume_member(0);
    cluster.leader_after(1).await;
}
