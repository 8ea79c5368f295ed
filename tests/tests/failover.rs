//! The leader goes, the nodes stay: what a change of leader costs, and what the next leader knows.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use metasrv_proto::admin::Node;
use metasrv_tests::cluster::Cluster;
use metasrv_tests::fleet::Fleet;
use metasrv_tests::wait::{eventually, throughout};

const LONG: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(200);

async fn datanodes(cluster: &Cluster, replica: usize) -> Result<BTreeMap<u64, Node>, String> {
    let nodes = cluster.nodes(replica).await.map_err(|status| status.to_string())?;
    Ok(nodes.into_iter().filter(|node| node.role == "datanode").map(|node| (node.node_id, node)).collect())
}

/// Waits until the leader has persisted the lease of so many nodes under its term, and stats of each.
async fn persisted(cluster: &Cluster, count: usize) -> BTreeMap<u64, Node> {
    let leader = cluster.leader().await;
    eventually(LONG, "the lease and the stats of every node are persisted", async || {
        let nodes = datanodes(cluster, leader.replica).await?;
        let done = nodes
            .values()
            .filter(|node| node.persisted_term == leader.term && node.persisted_stats > 0)
            .count();
        if done == count && nodes.len() == count {
            Ok(nodes)
        } else {
            Err(format!("of {done} of {}", nodes.len()))
        }
    })
    .await
}

/// Goal: the leader is killed while nodes stream: every node is leased again by the new leader, no region is lost
/// from its node, and node leases and stats are there. Method: 10 nodes with 5 regions, kill -9, compare.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_costs_no_node_its_regions() {
    let mut cluster = Cluster::builder().replicas(3).timing("3s", "3s", "200ms").start().await;
    let fleet = Fleet::start(1..=10, &cluster.addrs(), INTERVAL);
    cluster.connected(&Vec::from_iter(1..=10)).await;
    cluster.create_regions(50, None).await;
    let first = cluster.leader().await;
    fleet.wait_leased(5, first.term).await;
    let regions_before = cluster.regions(first.replica).await.unwrap();
    let nodes_before = persisted(&cluster, 10).await;

    cluster.replicas[first.replica].kill();
    let second = cluster.leader_after(first.term).await;
    fleet.wait_leased(5, second.term).await;

    let regions_after = cluster.regions(second.replica).await.unwrap();
    let place = |region: &metasrv_proto::admin::Region| (region.region_id, region.node_id, region.epoch);
    assert_eq!(
        regions_after.iter().map(place).collect::<Vec<_>>(),
        regions_before.iter().map(place).collect::<Vec<_>>(),
        "a region was lost from its node"
    );
    let nodes_after = persisted(&cluster, 10).await;
    for (id, before) in nodes_before {
        let after = &nodes_after[&id];
        assert_eq!(after.addr, before.addr);
        assert_eq!(after.node_epoch, before.node_epoch);
        assert_eq!(after.incarnation_nonce, before.incarnation_nonce);
        assert_eq!(after.regions, 5);
        assert!(after.last_activity_ms >= before.last_activity_ms);
        assert!(after.connected);
    }
    cluster.all_writable(50, LONG).await;
}

/// Goal: a new leader knows every node also where none has reached it yet. Method: all nodes die with the leader;
/// what the next one lists can only come from the store.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_knows_every_node_from_the_store_alone() {
    let mut cluster = Cluster::builder().replicas(2).timing("2s", "2s", "200ms").start().await;
    let fleet = Fleet::start(1..=5, &cluster.addrs(), INTERVAL);
    cluster.connected(&[1, 2, 3, 4, 5]).await;
    cluster.create_regions(10, None).await;
    let first = cluster.leader().await;
    fleet.wait_leased(2, first.term).await;
    let before = persisted(&cluster, 5).await;
    drop(fleet);
    cluster.replicas[first.replica].kill();
    let second = cluster.leader_after(first.term).await;
    let after = datanodes(&cluster, second.replica).await.unwrap();
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    for (id, before) in before {
        let after = &after[&id];
        assert_eq!(after.addr, before.addr);
        assert_eq!(after.node_epoch, before.node_epoch);
        assert_eq!(after.regions, 2);
        assert_eq!(after.persisted_term, first.term);
        assert!(after.persisted_stats > 0, "no stats of node {id} were persisted");
        assert!(after.last_activity_ms > 0);
        assert!(!after.connected);
    }
    for region in cluster.regions(second.replica).await.unwrap() {
        assert!(!region.writable, "nobody holds {} now", region.region_id);
    }
}

/// Goal: a leader that is told to end hands over at once: no node waits longer than an interval and half a second
/// for its next accepted heartbeat, and no lease is missed. Method: SIGTERM under 20 streaming nodes.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_told_to_end_is_hardly_noticed() {
    let interval = Duration::from_secs(1);
    let mut cluster = Cluster::builder().replicas(3).start().await;
    let fleet = Fleet::start(1..=20, &cluster.addrs(), interval);
    cluster.connected(&Vec::from_iter(1..=20)).await;
    cluster.create_regions(100, None).await;
    let first = cluster.leader().await;
    fleet.wait_leased(5, first.term).await;
    // Beats that were in step with the creation of the regions have to be spread, or the gap says too little.
    throughout(interval * 2, "no lease is missed", async || match fleet.missed_leases() {
        0 => Ok(()),
        missed => Err(format!("{missed} are")),
    })
    .await;
    fleet.reset();
    let status = cluster.replicas[first.replica].terminate(Duration::from_secs(15)).await;
    assert!(status.success(), "SIGTERM is a request, not a failure: {status}");
    let second = cluster.leader_after(first.term).await;
    fleet.wait_leased(5, second.term).await;
    let gap = fleet.longest_gap();
    assert!(gap < interval + Duration::from_millis(500), "a node waited {gap:?} for an accepted heartbeat");
    assert_eq!(fleet.missed_leases(), 0);
}

/// Goal: the figures' command works. Method: `bench --quick`, and every figure of the list is printed and in the file.
#[tokio::test(flavor = "multi_thread")]
async fn the_benchmark_prints_its_figures() {
    let directory = tempfile::tempdir().unwrap();
    let bench = std::path::Path::new(env!("CARGO_BIN_EXE_bench"));
    // Asking for a program builds what is missing, so that the benchmark does not.
    metasrv_tests::binaries::binary("metasrv");
    let mut process = metasrv_tests::process::Process::start("bench", bench, ["--quick"], directory.path());
    let status = process.ended(Duration::from_secs(90)).await;
    let printed = process.log();
    assert!(status.success(), "{printed}");
    let file = metasrv_tests::binaries::target_directory().join("figures/bench.json");
    let figures: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    for name in ["held_streams", "missed_leases", "leader_kill_takeover_ms", "leader_term_gap_ms"] {
        assert!(printed.contains(&format!("figure {name} ")), "{name} is not printed:\n{printed}");
        assert!(figures[name].is_number(), "{name} is not in the file: {figures}");
    }
    assert_eq!(figures["held_streams"], 40);
    assert_eq!(figures["missed_leases"], 0);
}
