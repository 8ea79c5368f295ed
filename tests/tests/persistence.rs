//! What is acknowledged stays, and what is written behind arrives, without a write for every heartbeat.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use metasrv_proto::admin::{CreateRegionsRequest, Region};
use metasrv_proto::code;
use metasrv_tests::cluster::Cluster;
use metasrv_tests::fleet::Fleet;
use metasrv_tests::node::{FakeNode, Identity};
use metasrv_tests::replica::http_get;
use metasrv_tests::wait::{eventually, throughout};
use tokio::task::JoinHandle;

const LONG: Duration = Duration::from_secs(30);

/// Goal: heartbeats are not writes: their number does not depend on how often nodes beat.
/// Method: 20 nodes beat every 50 ms for 5 s; etcd counts its puts.
#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_are_never_one_write_each() {
    let cluster = Cluster::builder().start().await;
    let fleet = Fleet::start(1..=20, &cluster.addrs(), Duration::from_millis(50));
    cluster.connected(&Vec::from_iter(1..=20)).await;
    cluster.create_regions(40, None).await;
    eventually(LONG, "every node is leased", async || match fleet.leased(2, 1) {
        20 => Ok(()),
        leased => Err(format!("{leased} are")),
    })
    .await;
    let puts = async || {
        let endpoint = cluster.etcd.as_ref().unwrap().endpoints().remove(0);
        let port = endpoint.rsplit(':').next().unwrap().parse().unwrap();
        let page = http_get(port, "/metrics").await.unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix("etcd_debugging_mvcc_put_total "));
        line.expect("etcd counts its puts").parse::<f64>().unwrap()
    };
    let (puts_before, beats_before) = (puts().await, fleet.heartbeats());
    throughout::<String>(Duration::from_secs(5), "nodes beat", async || Ok(())).await;
    let written = puts().await - puts_before;
    let beats = fleet.heartbeats() - beats_before;
    assert!(beats > 500, "only {beats} heartbeats: this proves nothing");
    assert!(written * 5.0 < beats as f64, "{written} puts for {beats} heartbeats");
}

/// Goal: a node that was heard of just before the leader ends is known to the next leader: what is queued is written
/// before the resignation. Method: a node connects, the leader is told to end at once.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_queued_is_written_before_a_resignation() {
    let mut cluster = Cluster::builder().replicas(2).start().await;
    let first = cluster.leader().await;
    let mut node = FakeNode::new(Identity::datanode(11));
    node.connect(&cluster.replicas[first.replica].addr()).await.unwrap();
    for _ in 0..3 {
        node.beat().await.unwrap();
    }
    assert!(cluster.replicas[first.replica].terminate(LONG).await.success());
    let second = cluster.leader_after(first.term).await;
    let nodes = cluster.nodes(second.replica).await.unwrap();
    assert_eq!(nodes.len(), 1, "the node was forgotten");
    assert_eq!(nodes[0].addr, node.identity.addr);
    assert_eq!(nodes[0].persisted_term, first.term);
}

/// Creates regions, a few at a time, until that is refused or has no answer; yields those that were acknowledged.
fn create_until_refused(cluster: &Cluster, replica: usize) -> JoinHandle<Vec<Region>> {
    let mut admin = cluster.replicas[replica].admin();
    tokio::spawn(async move {
        let mut created = Vec::new();
        let request = CreateRegionsRequest { count: 7, ..CreateRegionsRequest::default() };
        while let Ok(Ok(response)) =
            tokio::time::timeout(Duration::from_secs(2), admin.create_regions(request.clone())).await
        {
            created.extend(response.into_inner().regions);
        }
        created
    })
}

/// Goal: no acknowledged region is lost, and none is there twice, whatever dies.
/// Method: regions are created while the leader is killed, then etcd; at the end everything acknowledged is listed.
#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_regions_survive_the_death_of_everything() {
    let mut cluster = Cluster::builder().replicas(2).timing("2s", "2s", "200ms").start().await;
    let fleet = Fleet::start(1..=2, &cluster.addrs(), Duration::from_millis(200));
    cluster.connected(&[1, 2]).await;
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let mut leader = cluster.leader().await;
        cluster.connected(&[1, 2]).await;
        let mut creating = create_until_refused(&cluster, leader.replica);
        eventually(LONG, "regions are being created", async || {
            if creating.is_finished() {
                // The leader has changed by itself, on a machine under load; the next one goes on.
                leader = cluster.leader().await;
                let refused =
                    std::mem::replace(&mut creating, create_until_refused(&cluster, leader.replica));
                acknowledged.extend(refused.await.unwrap());
            }
            let regions = cluster.regions(leader.replica).await.map_err(|status| status.to_string())?;
            if regions.len() > acknowledged.len() + 50 { Ok(()) } else { Err(format!("{}", regions.len())) }
        })
        .await;
        match round {
            0 => cluster.replicas[leader.replica].kill(),
            1 => cluster.etcd.as_mut().unwrap().kill_member(0),
            _ => {
                cluster.replicas.iter_mut().for_each(|replica| replica.kill());
                cluster.etcd.as_mut().unwrap().kill_member(0);
            }
        }
        acknowledged.extend(creating.await.unwrap());
        if round > 0 {
            cluster.etcd.as_mut().unwrap().start_member(0);
            cluster.etcd.as_ref().unwrap().ready().await;
        }
        for index in 0..2 {
            if cluster.replicas[index].process.is_none() {
                cluster.start_replica(index);
            }
        }
        cluster.leader_after(leader.term).await;
    }
    let leader = cluster.leader().await;
    let listed = cluster.regions(leader.replica).await.unwrap();
    assert!(acknowledged.len() > 100, "only {} regions: this proves little", acknowledged.len());
    for region in &acknowledged {
        let found: Vec<_> = listed.iter().filter(|listed| listed.region_id == region.region_id).collect();
        assert_eq!(found.len(), 1, "region {} is listed {} times", region.region_id, found.len());
        assert_eq!(found[0].node_id, region.node_id);
        assert!(found[0].epoch >= region.epoch);
    }
    drop(fleet);
}

/// Goal: a caller that goes away in the middle of creating regions leaves the leader knowing exactly what the store
/// has. Method: calls are cancelled at different moments; afterwards regions can be created, and after a restart, when
/// all that is known comes from the store, the same ones are listed.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_leaves_nothing_half_known() {
    let mut cluster = Cluster::builder().start().await;
    let mut node = FakeNode::new(Identity::datanode(1));
    node.connect(&cluster.replicas[0].addr()).await.unwrap();
    for patience_ms in 1..=25 {
        let mut admin = cluster.replicas[0].admin();
        let request = CreateRegionsRequest { count: 130, ..CreateRegionsRequest::default() };
        // Whoever gives up drops the call.
        let _ = tokio::time::timeout(Duration::from_millis(patience_ms), admin.create_regions(request)).await;
    }
    let last = cluster.create_regions(3, None).await;
    let places = async |cluster: &Cluster| {
        let regions = cluster.regions(0).await.unwrap();
        regions.iter().map(|region| (region.region_id, region.node_id, region.epoch)).collect::<Vec<_>>()
    };
    let before = places(&cluster).await;
    assert!(last.iter().all(|last| before.iter().any(|(region, ..)| *region == last.region_id)));
    cluster.replicas[0].kill();
    cluster.start_replica(0);
    cluster.leader_after(1).await;
    assert_eq!(places(&cluster).await, before, "the leader and the store knew different regions");
}

/// Goal: several clusters share one etcd by their prefixes and never see each other; a node of one is refused by the
/// other. Method: two clusters with prefixes of which one begins like the other.
#[tokio::test(flavor = "multi_thread")]
async fn several_clusters_share_one_etcd_by_prefix() {
    let first = Cluster::builder().prefix("/metasrv").start().await;
    let second = Cluster::builder().etcd(0).prefix("/metasrv2").start_beside(&first).await;
    for cluster in [&first, &second] {
        assert_eq!(cluster.leader().await.term, 1, "each has elections of its own");
    }
    let mut node = FakeNode::new(Identity::datanode(1));
    node.connect(&first.replicas[0].addr()).await.unwrap();
    first.create_regions(3, None).await;
    assert_eq!(first.regions(0).await.unwrap().len(), 3);
    assert_eq!(second.regions(0).await.unwrap(), [], "the clusters see each other's regions");
    assert_eq!(second.nodes(0).await.unwrap(), [], "the clusters see each other's nodes");
    let installations = [
        first.replicas[0].status().await.unwrap().installation,
        second.replicas[0].status().await.unwrap().installation,
    ];
    assert_ne!(installations[0], installations[1]);
    assert_eq!(node.installation, installations[0]);

    let answer = node.connect(&second.replicas[0].addr()).await.unwrap();
    assert_eq!(answer.error_code(), code::OTHER_INSTALLATION);
    assert!(node.pushed().await.unwrap().is_none(), "then the stream ends");
    assert_eq!(second.nodes(0).await.unwrap(), [], "a refused node was taken note of");
}
