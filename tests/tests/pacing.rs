//! The heartbeat interval follows the size of the fleet, and says so.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use metasrv_tests::cluster::Cluster;
use metasrv_tests::node::{FakeNode, Identity};
use metasrv_tests::replica::http_get;
use metasrv_tests::wait::eventually;

const LONG: Duration = Duration::from_secs(30);

/// Goal: beyond the stated number of datanodes each is told a longer interval on the stream that it has, and an operator sees it;
/// not before. Method: two nodes where two are stated, then a third; what each is told, the status, the metric.
#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_beyond_its_stated_size_is_slowed_down_visibly() {
    let cluster = Cluster::builder().etcd(0).argument("--full-rate-nodes", "2").start().await;
    let addr = cluster.replicas[0].addr();
    let mut told = Vec::new();
    let mut nodes = Vec::new();
    for id in 1..=3 {
        let mut node = FakeNode::new(Identity::datanode(id));
        let first = node.connect(&addr).await.unwrap();
        told.push(first.response.heartbeat_config.unwrap().heartbeat_interval_ms);
        nodes.push(node);
        let expected = if id < 3 { 1_000 } else { 1_500 };
        eventually(LONG, "the leader has counted its nodes", async || {
            let status = cluster.replicas[0].status().await.map_err(|status| status.to_string())?;
            let shown = (status.nodes, status.heartbeat_interval_ms, status.configured_interval_ms);
            if shown == (id, expected, 1_000) { Ok(()) } else { Err(format!("{shown:?}")) }
        })
        .await;
    }
    assert_eq!(told, [1_000; 3], "the third was not counted yet when it came");
    for node in &mut nodes {
        let config = node.beat().await.unwrap().response.heartbeat_config.expect("it is told");
        assert_eq!(config.heartbeat_interval_ms, 1_500);
        assert_eq!(node.beat().await.unwrap().response.heartbeat_config, None, "and told once");
    }
    let port = cluster.replicas[0].http_addr().rsplit(':').next().unwrap().parse().unwrap();
    let page = http_get(port, "/metrics").await.unwrap();
    assert!(page.lines().any(|line| line == "metasrv_heartbeat_interval_seconds 1.5"), "{page}");
}
