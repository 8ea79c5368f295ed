//! Heartbeats that state a digest of their regions, as a stranger with the .proto files would send them.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use metasrv_core::digest::Digest;
use metasrv_core::id::{Epoch, RegionId};
use metasrv_core::procedure::instruction::{Held, HeldAs};
use metasrv_proto::admin::{Capability, RegionSet, RenewedSet};
use metasrv_proto::meta::{HeartbeatRequest, HeartbeatResponse};
use metasrv_tests::cluster::Cluster;
use metasrv_tests::node::{FakeNode, Identity};
use metasrv_tests::replica::http_get;
use metasrv_tests::wait::eventually;
use prost::Message as _;

const LONG: Duration = Duration::from_secs(30);

/// Bytes each way, of a steady heartbeat.
const STEADY: usize = 200;

/// A node with so many regions, opened by lists.
async fn node_with(cluster: &Cluster, id: u64, regions: u32) -> FakeNode {
    let mut node = FakeNode::new(Identity::datanode(id));
    node.connect(&cluster.replicas[0].addr()).await.unwrap();
    cluster.create_regions(regions, Some(id)).await;
    let wanted = usize::try_from(regions).unwrap();
    for _ in 0..100 {
        if node.beat().await.unwrap().granted().len() == wanted {
            return node;
        }
    }
    panic!("node {id} was not leased its {regions} regions");
}

/// All that a node holds.
fn set(node: &FakeNode, version: u64, complete: bool) -> RegionSet {
    let held = |epoch: &u64| Held { role: HeldAs::Leader, epoch: Epoch(*epoch) };
    let digest = Digest::of(node.regions.iter().map(|(region, epoch)| (RegionId(*region), held(epoch))));
    RegionSet { digest: digest.sum, count: digest.count, version, complete, ..RegionSet::default() }
}

/// The next heartbeat of a node, which states its set.
fn request(node: &mut FakeNode, version: u64, complete: bool) -> HeartbeatRequest {
    let (mut request, _) = node.next_request();
    if !complete {
        request.region_stats.clear();
    }
    HeartbeatRequest { region_set: Some(set(node, version, complete)), ..request }
}

/// Sends a heartbeat; returns its answer.
async fn answered(node: &mut FakeNode, request: HeartbeatRequest) -> HeartbeatResponse {
    let sequence = request.sequence;
    let stream = node.stream().unwrap();
    stream.send(request).await.unwrap();
    loop {
        let response = stream.next().await.unwrap().expect("the stream goes on");
        if response.sequence == sequence {
            return response;
        }
    }
}

fn renewed(response: &HeartbeatResponse) -> Option<&RenewedSet> {
    response.region_lease.as_ref().and_then(|lease| lease.renewed_set.as_ref())
}

/// Goal: what a steady heartbeat takes on the wire does not depend on the regions, and it renews them all. Method: two nodes of
/// which one has a hundred times as many; what the leader accounts for is listed.
#[tokio::test(flavor = "multi_thread")]
async fn a_steady_heartbeat_costs_the_same_bytes_for_any_number_of_regions() {
    let cluster = Cluster::builder().etcd(0).start().await;
    let mut sizes = Vec::new();
    for (id, regions) in [(1, 10), (2, 1_000)] {
        let mut node = node_with(&cluster, id, regions).await;
        let first = request(&mut node, 5, true);
        let first = answered(&mut node, first).await;
        assert_eq!(renewed(&first).map(|renewed| renewed.count), Some(u64::from(regions)), "{first:?}");
        for version in [6, 6, 7] {
            let steady = request(&mut node, version, false);
            let stated = steady.region_set.clone().unwrap();
            let duration = steady.duration_since_epoch;
            let response = answered(&mut node, steady.clone()).await;
            let lease = response.region_lease.as_ref().expect("it is renewed");
            assert_eq!(
                (lease.regions.len(), lease.duration_since_epoch, lease.lease_ms),
                (0, duration, 5_000)
            );
            let renewed = renewed(&response).unwrap();
            assert_eq!((renewed.digest, renewed.count), (stated.digest, stated.count));
            assert_eq!((renewed.version, renewed.except_region_ids.len()), (version, 0));
            sizes.push((steady.encoded_len(), response.encoded_len()));
        }
        let listed = cluster.nodes(0).await.unwrap();
        let listed = listed.iter().find(|listed| listed.node_id == id).unwrap();
        assert_eq!((listed.regions, listed.regions_writable), (u64::from(regions), u64::from(regions)));
    }
    let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
    // Numbers of different lengths, and nothing else.
    assert!(most.0 - least.0 <= 8 && most.1 - least.1 <= 8, "{sizes:?}");
    assert!(most.0 <= STEADY && most.1 <= STEADY, "{sizes:?}");
}

/// Goal: nothing is renewed by a digest that does not fit, and the peer is told what to do. Method: a peer that has closed a
/// region and does not say so; then it does; then it lists all.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_whose_digest_does_not_fit_is_asked_for_its_list() {
    let cluster = Cluster::builder().etcd(0).start().await;
    let mut node = node_with(&cluster, 1, 3).await;
    let without_list = request(&mut node, 1, false);
    let response = answered(&mut node, without_list).await;
    assert!(response.list_regions && response.region_lease.is_none(), "it has never said what it holds");
    let complete = request(&mut node, 1, true);
    assert!(renewed(&answered(&mut node, complete).await).is_some());

    let (lost, _) = node.regions.pop_first().unwrap();
    let unsaid = request(&mut node, 2, false);
    let response = answered(&mut node, unsaid).await;
    assert!(response.list_regions && response.region_lease.is_none(), "{response:?}");
    let mut said = request(&mut node, 2, true);
    said.capabilities = vec![Capability::RegionSets.into()];
    let response = answered(&mut node, said).await;
    assert_eq!(renewed(&response).map(|renewed| renewed.count), Some(2));
    let (region, epoch) = (lost, 1);
    node.regions.insert(region, epoch);
    let mut opened = request(&mut node, 3, false);
    opened.region_stats = node.next_request().0.region_stats;
    opened.region_stats.retain(|stat| stat.region_id == region);
    let response = answered(&mut node, opened).await;
    assert_eq!(
        renewed(&response).map(|renewed| renewed.count),
        Some(3),
        "one is listed, and all are renewed"
    );
}

/// Goal: a datanode and its leader agree on digests, and go on so: no list is asked for while regions come. Method: a real
/// datanode that opens hundreds; the leader's own count of lists.
#[tokio::test(flavor = "multi_thread")]
async fn a_datanode_and_its_leader_never_need_the_list_again() {
    let cluster = Cluster::builder().etcd(0).datanodes(1).start().await;
    cluster.connected(&[1]).await;
    for count in [1, 40, 200] {
        cluster.create_regions(count, Some(1)).await;
        eventually(LONG, "all are leased", async || {
            let nodes = cluster.nodes(0).await.map_err(|status| status.to_string())?;
            match nodes.first().map(|node| (node.regions, node.regions_writable)) {
                Some((all, leased)) if all == leased && all > 0 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
    let port = cluster.replicas[0].http_addr().rsplit(':').next().unwrap().parse().unwrap();
    let page = http_get(port, "/metrics").await.unwrap();
    let wanted = page.lines().find_map(|line| line.strip_prefix("metasrv_region_lists_wanted_total "));
    assert_eq!(wanted, Some("0"), "{page}");
}
