//! Embedded mode: one replica, no election, a store in one file.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use metasrv_proto::admin::TransferLeadershipRequest;
use metasrv_tests::cluster::Cluster;
use metasrv_tests::node::{FakeNode, Identity};
use metasrv_tests::ports::free_port;
use metasrv_tests::process::Process;
use metasrv_tests::wait::eventually;

const LONG: Duration = Duration::from_secs(20);

async fn embedded(datanodes: usize) -> Cluster {
    Cluster::builder().etcd(0).datanodes(datanodes).timing("2s", "2s", "200ms").start().await
}

async fn granted(node: &mut FakeNode, regions: &[u64]) {
    eventually(LONG, "the regions are granted", async || {
        let mut granted = node.beat().await.map_err(|status| status.to_string())?.granted();
        granted.sort_unstable();
        if granted == regions { Ok(()) } else { Err(format!("{granted:?}")) }
    })
    .await;
}

/// Goal: a restart keeps everything: regions, epochs, nodes, the installation; and it is a new term.
/// Method: killed without warning and started again; then told to end and started again.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_the_data() {
    let mut cluster = embedded(0).await;
    let addr = cluster.replicas[0].addr();
    let mut node = FakeNode::new(Identity::datanode(1));
    node.connect(&addr).await.unwrap();
    let ids: Vec<u64> = cluster.create_regions(4, None).await.iter().map(|region| region.region_id).collect();
    granted(&mut node, &ids).await;
    let before = cluster.regions(0).await.unwrap();
    let mut status = cluster.replicas[0].status().await.unwrap();
    assert_eq!((status.role.as_str(), status.term), ("leader", 1));
    assert_ne!(status.installation, 0);

    for graceful in [false, true] {
        if graceful {
            assert!(cluster.replicas[0].terminate(LONG).await.success());
        } else {
            cluster.replicas[0].kill();
        }
        cluster.start_replica(0);
        let leader = cluster.leader_after(status.term).await;
        assert_eq!(leader.term, status.term + 1, "a start is a new term");
        let after = cluster.regions(0).await.unwrap();
        let place = |region: &metasrv_proto::admin::Region| {
            (region.region_id, region.node_id, region.epoch, region.created_at_ms, region.reason.clone())
        };
        assert_eq!(after.iter().map(place).collect::<Vec<_>>(), before.iter().map(place).collect::<Vec<_>>());
        let nodes = cluster.nodes(0).await.unwrap();
        assert_eq!(nodes.len(), 1);
        assert_eq!(nodes[0].addr, node.identity.addr);
        assert_eq!(nodes[0].node_epoch, node.identity.node_epoch);
        let now = cluster.replicas[0].status().await.unwrap();
        assert_eq!(now.installation, status.installation, "it is the same installation");
        status = now;
        // The node goes on where it was: same process, same epochs.
        node.connect(&addr).await.unwrap();
        granted(&mut node, &ids).await;
    }
    let next = cluster.create_regions(1, None).await[0].region_id;
    assert!(!ids.contains(&next), "an id was given twice");
}

/// Goal: the whole system works without etcd. Method: real datanodes, regions, every region writable.
#[tokio::test(flavor = "multi_thread")]
async fn the_whole_system_works_without_etcd() {
    let cluster = embedded(2).await;
    cluster.connected(&[1, 2]).await;
    cluster.create_regions(6, None).await;
    cluster.all_writable(6, LONG).await;
    let ready = cluster.replicas[0].http("/readyz").await.unwrap();
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    let request = TransferLeadershipRequest::default();
    let refused = cluster.admin().await.transfer_leadership(request).await.expect_err("there is nobody else");
    assert!(!refused.message().is_empty());
    cluster.all_writable(6, LONG).await;
}

/// Goal: two processes never use one store. Method: a second replica on the same directory.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_directory_is_refused() {
    let cluster = embedded(0).await;
    let arguments = [
        "serve".to_owned(),
        "--name".to_owned(),
        "second".to_owned(),
        "--grpc-addr".to_owned(),
        format!("127.0.0.1:{}", free_port()),
        "--http-addr".to_owned(),
        format!("127.0.0.1:{}", free_port()),
        "--embedded".to_owned(),
        cluster.directory().join("embedded").display().to_string(),
    ];
    let program = metasrv_tests::binaries::binary("metasrv");
    let mut second = Process::start("second", &program, arguments, cluster.directory());
    let status = second.ended(LONG).await;
    assert!(!status.success(), "it did not say that it failed");
    assert!(second.log().contains("embedded"), "its output does not name the store:\n{}", second.log());
    assert_eq!(cluster.replicas[0].status().await.unwrap().role, "leader", "the first one is not disturbed");
}
