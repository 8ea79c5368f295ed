//! Sizes: what is large and allowed works; what is larger is refused by field, and hurts nobody.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use metasrv_proto::admin::{CreateRegionsRequest, DirectoryLock};
use metasrv_proto::meta::{HeartbeatRequest, MailboxMessage, NodeInfo, mailbox_message};
use metasrv_tests::cluster::Cluster;
use metasrv_tests::node::{FakeNode, HeartbeatStream, Identity};
use metasrv_tests::wait::eventually;
use prost::Message as _;
use tonic::Code;

/// Goal: a heartbeat of more than 4 MiB, the default limit of gRPC libraries, works and is answered in full.
/// Method: a node with 70,000 regions, of which the routes give it 200.
#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_of_more_than_four_mebibytes_works() {
    let cluster = Cluster::builder().start().await;
    let addr = cluster.replicas[0].addr();
    let mut node = FakeNode::new(Identity::datanode(1));
    node.connect(&addr).await.unwrap();
    let created: Vec<u64> =
        cluster.create_regions(200, Some(1)).await.iter().map(|region| region.region_id).collect();
    let what = "the regions are granted";
    eventually(Duration::from_secs(10), what, async || {
        let granted = node.beat().await.map_err(|status| status.to_string())?.granted().len();
        if granted == 200 { Ok(()) } else { Err(format!("{granted} are")) }
    })
    .await;
    let foreign = 1_000_000..1_070_000_u64;
    node.regions.extend(foreign.clone().map(|region| (region, 1)));
    let (mut request, _) = node.next_request();
    for stat in &mut request.region_stats {
        stat.engine = "an engine with a name of some length, as they are".to_owned();
    }
    let size = request.encoded_len();
    assert!(size > 4 << 20, "this test is about large messages; this one has {size} bytes");
    let sequence = request.sequence;
    node.stream().unwrap().send(request).await.unwrap();
    let response = node.pushed().await.unwrap().expect("an answer");
    assert_eq!(response.sequence, sequence);
    let lease = response.region_lease.expect("a lease");
    let mut granted: Vec<u64> = lease.regions.iter().map(|region| region.region_id).collect();
    granted.sort_unstable();
    assert_eq!(granted, created);
    let mut closeable = lease.closeable_region_ids;
    closeable.sort_unstable();
    assert_eq!(closeable, foreign.collect::<Vec<_>>());
}

/// A request made too large in one way, and the field that its refusal names.
type TooLarge = (&'static str, fn(&mut HeartbeatRequest), &'static str);

const TOO_LARGE: [TooLarge; 10] = [
    ("an engine's name", |r| r.region_stats[0].engine = "x".repeat(10_000), "region_stats.engine"),
    (
        "the list of regions",
        |r| {
            let stat = r.region_stats[0].clone();
            r.region_stats = vec![stat; 100_001];
        },
        "region_stats",
    ),
    ("an address", |r| r.peer.as_mut().unwrap().addr = format!("{}:1", "x".repeat(10_000)), "peer.addr"),
    (
        "a version",
        |r| r.info = Some(NodeInfo { version: "x".repeat(10_000), ..NodeInfo::default() }),
        "info.version",
    ),
    (
        "a host name",
        |r| r.info = Some(NodeInfo { hostname: "x".repeat(10_000), ..NodeInfo::default() }),
        "info.hostname",
    ),
    ("a zone", |r| r.info = Some(NodeInfo { zone: "x".repeat(10_000), ..NodeInfo::default() }), "info.zone"),
    (
        "a boot id",
        |r| {
            let boot_id = "x".repeat(10_000);
            r.directory_lock = Some(DirectoryLock { boot_id, ..DirectoryLock::default() });
        },
        "directory_lock.boot_id",
    ),
    (
        "the extensions",
        |r| r.extensions = (0..1_000).map(|key| (key.to_string(), Vec::new())).collect(),
        "extensions",
    ),
    (
        "the tracing context",
        |r| {
            let header = r.header.as_mut().unwrap();
            header.tracing_context = (0..1_000).map(|key| (key.to_string(), String::new())).collect();
        },
        "header.tracing_context",
    ),
    (
        "a mailbox message",
        |r| {
            let payload = Some(mailbox_message::Payload::Json("x".repeat(2 << 20)));
            r.mailbox_message = Some(MailboxMessage { payload, ..MailboxMessage::default() });
        },
        "mailbox_message.json",
    ),
];

/// Goal: what is too large ends its stream with RESOURCE_EXHAUSTED naming the field, and changes nothing.
/// Method: a table of requests, each too large in one way, and one message beyond the limit in bytes.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_by_field() {
    let cluster = Cluster::builder().start().await;
    let addr = cluster.replicas[0].addr();
    for (name, enlarge, field) in TOO_LARGE {
        let mut request = Identity::datanode(1).heartbeat(&BTreeMap::from([(1, 1)]));
        enlarge(&mut request);
        let status = refusal(&addr, request).await;
        assert_eq!(status.code(), Code::ResourceExhausted, "{name}: {status}");
        assert!(
            status.message().starts_with(field),
            "{name}: {:?} does not begin with {field}",
            status.message()
        );
    }
    let huge = HeartbeatRequest {
        extensions: [("key".to_owned(), vec![0; 20 << 20])].into(),
        ..Identity::datanode(1).request()
    };
    let status = refusal(&addr, huge).await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().starts_with("message"), "{status}");
    assert_eq!(cluster.nodes(0).await.unwrap(), [], "a refused request left a node behind");
}

/// Opens a stream with a request that must be refused; returns the refusal.
async fn refusal(addr: &str, request: HeartbeatRequest) -> tonic::Status {
    match HeartbeatStream::open(addr, request).await {
        Ok(mut stream) => stream.next().await.expect_err("it was not refused"),
        Err(status) => status,
    }
}

/// Goal: creating regions is bounded, and what is refused creates nothing. Method: each wrong request there is, and
/// then as many regions as are allowed in one call, which take many transactions.
#[tokio::test(flavor = "multi_thread")]
async fn creating_regions_has_limits_and_ten_thousand_are_within_them() {
    let cluster = Cluster::builder().start().await;
    let mut admin = cluster.admin().await;
    let mut refused = async |request: CreateRegionsRequest| {
        admin.create_regions(request).await.expect_err("it was not refused")
    };
    let good = CreateRegionsRequest { count: 1, ..CreateRegionsRequest::default() };
    assert_eq!(refused(good.clone()).await.code(), Code::ResourceExhausted, "there is no datanode yet");
    let mut node = FakeNode::new(Identity::datanode(1));
    node.connect(&cluster.replicas[0].addr()).await.unwrap();
    for count in [0, 10_001, u32::MAX] {
        let status = refused(CreateRegionsRequest { count, ..good.clone() }).await;
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with("count"), "{status}");
    }
    let status = refused(CreateRegionsRequest { node_id: Some(9), ..good.clone() }).await;
    assert_eq!(status.code(), Code::NotFound, "{status}");
    let status = refused(CreateRegionsRequest { node_id: Some(0), ..good.clone() }).await;
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let status = refused(CreateRegionsRequest { reason: "x".repeat(100_000), ..good.clone() }).await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    let status = refused(CreateRegionsRequest { cluster_id: 5, ..good }).await;
    assert_eq!(status.code(), Code::ResourceExhausted, "that cluster has no datanode: {status}");
    assert_eq!(cluster.regions(0).await.unwrap(), [], "a refused request created regions");

    let created = cluster.create_regions(10_000, None).await;
    assert_eq!(created.len(), 10_000);
    let listed = cluster.regions(0).await.unwrap();
    let ids =
        |regions: &[metasrv_proto::admin::Region]| regions.iter().map(|r| r.region_id).collect::<Vec<_>>();
    assert_eq!(ids(&listed), ids(&created));
    assert!(ids(&listed).is_sorted_by(|a, b| a < b), "regions are listed by id, each once");
}

/// Goal: a replica that does not lead changes nothing and names the leader. Method: every leader's call of the admin
/// service is sent to a follower.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_refuses_admin_calls_and_names_the_leader() {
    let cluster = Cluster::builder().replicas(2).start().await;
    let leader = cluster.leader().await;
    let leader_addr = cluster.replicas[leader.replica].addr();
    let follower = &cluster.replicas[1 - leader.replica];
    eventually(Duration::from_secs(10), "the follower knows the leader", async || {
        let status = follower.status().await.map_err(|status| status.to_string())?;
        if status.leader_addr == leader_addr { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    let mut admin = follower.admin();
    let refusals = [
        admin
            .create_regions(CreateRegionsRequest { count: 1, ..Default::default() })
            .await
            .expect_err("create"),
        admin
            .list_regions(metasrv_proto::admin::ListRegionsRequest::default())
            .await
            .expect_err("list regions"),
        admin.list_nodes(metasrv_proto::admin::ListNodesRequest::default()).await.expect_err("list nodes"),
        admin
            .transfer_leadership(metasrv_proto::admin::TransferLeadershipRequest::default())
            .await
            .expect_err("transfer"),
    ];
    for status in refusals {
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        let hint = status.metadata().get("metasrv-leader").and_then(|addr| addr.to_str().ok());
        assert_eq!(hint, Some(leader_addr.as_str()));
    }
    assert_eq!(cluster.leader().await, leader);
}
