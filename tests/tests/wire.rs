//! The public protocol, spoken by a peer that knows nothing of our extensions, and by peers that speak it badly.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use metasrv_proto::meta::{AskLeaderRequest, HeartbeatRequest, RequestHeader, Role};
use metasrv_tests::cluster::Cluster;
use metasrv_tests::node::{Dialect, FakeNode, HeartbeatStream, Identity, error_code};
use metasrv_tests::wait::{eventually, throughout, within};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use tonic::Code;

/// Goal: a client generated from the public schema works unchanged: leader, stream, full lists, leases, closeable
/// regions. Method: a peer that fills only public fields goes through all of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_public_client_finds_the_leader_and_is_leased() {
    let cluster = Cluster::builder().replicas(2).start().await;
    let leader = cluster.leader().await;
    let leader_addr = cluster.replicas[leader.replica].addr();
    for replica in &cluster.replicas {
        let what = format!("{} names the leader", replica.name);
        eventually(Duration::from_secs(10), &what, async || {
            let answer = replica.ask_leader().await.map_err(|status| status.to_string())?;
            match answer.leader {
                Some(peer) if peer.addr == leader_addr => Ok(()),
                other => Err(format!("it names {other:?}")),
            }
        })
        .await;
    }

    let mut node = FakeNode::new(Identity::public_datanode(7));
    let first = node.connect(&leader_addr).await.unwrap();
    assert_eq!(first.error_code(), 0);
    let config = first.response.heartbeat_config.expect("the first answer dictates the interval");
    assert_eq!(config.heartbeat_interval_ms, 1000);

    let created = cluster.create_regions(3, Some(7)).await;
    // A public node learns of its regions by its own ways; it reports them, and one that is not its own.
    let foreign = 999_999;
    node.regions = created.iter().map(|region| (region.region_id, 0)).chain([(foreign, 0)]).collect();
    let (request, _) = node.next_request();
    assert_eq!(request.incarnation_nonce, 0, "this test is about the public protocol");
    let answer = node.beat().await.unwrap();
    let lease =
        answer.response.region_lease.clone().expect("a datanode's heartbeat is answered with a lease");
    let mut granted = answer.granted();
    granted.sort_unstable();
    assert_eq!(granted, created.iter().map(|region| region.region_id).collect::<Vec<_>>());
    assert_eq!(lease.closeable_region_ids, [foreign]);
    assert_eq!(lease.lease_seconds, 5);
    assert!(lease.duration_since_epoch > 0, "the sender's own time comes back");
    assert!(
        answer.response.mailbox_message.is_none(),
        "a public peer gets no instruction that it cannot read"
    );
    for region in &lease.regions {
        assert_eq!(region.role, 0, "granted as leader");
    }
}

/// Goal: the lease counts from the sender's own clock. Method: the number sent comes back, request by request.
#[tokio::test(flavor = "multi_thread")]
async fn the_duration_of_each_request_comes_back_in_its_lease() {
    let cluster = Cluster::builder().start().await;
    let identity = Identity::public_datanode(1);
    let with_duration =
        |duration_since_epoch| HeartbeatRequest { duration_since_epoch, ..identity.request() };
    let addr = cluster.replicas[0].addr();
    let mut stream = HeartbeatStream::open(&addr, with_duration(5)).await.unwrap();
    for duration in [5, 6, 1_000, 1_000, 70_000_000] {
        if duration != 5 {
            stream.send(with_duration(duration)).await.unwrap();
        }
        let response = stream.next().await.unwrap().expect("an answer");
        assert_eq!(response.region_lease.expect("a lease").duration_since_epoch, duration);
    }
}

/// How a request is spoiled, what the refusal must begin with, and under which code.
type Spoiled = (&'static str, fn(&mut HeartbeatRequest), &'static str, Code);

fn header(request: &mut HeartbeatRequest) -> &mut metasrv_proto::meta::RequestHeader {
    request.header.as_mut().expect("a request of a test has a header")
}

const SPOILED: [Spoiled; 14] = [
    ("header-less", |request| request.header = None, "header", Code::InvalidArgument),
    (
        "another protocol",
        |request| header(request).protocol_version = 2,
        "header.protocol_version",
        Code::InvalidArgument,
    ),
    (
        "no protocol",
        |request| header(request).protocol_version = 0,
        "header.protocol_version",
        Code::InvalidArgument,
    ),
    ("unknown role", |request| header(request).role = 9, "header.role", Code::InvalidArgument),
    ("negative role", |request| header(request).role = -1, "header.role", Code::InvalidArgument),
    (
        "zero id",
        |request| {
            header(request).member_id = 0;
            request.peer.as_mut().expect("a peer").id = 0;
        },
        "header.member_id",
        Code::InvalidArgument,
    ),
    (
        "another id in peer",
        |request| request.peer.as_mut().expect("a peer").id = 77,
        "peer.id",
        Code::InvalidArgument,
    ),
    (
        "no address",
        |request| request.peer.as_mut().expect("a peer").addr.clear(),
        "peer.addr",
        Code::InvalidArgument,
    ),
    (
        "an address that does not parse",
        |request| request.peer.as_mut().expect("a peer").addr = "not an address".to_owned(),
        "peer.addr",
        Code::InvalidArgument,
    ),
    (
        "an address without port",
        |request| request.peer.as_mut().expect("a peer").addr = "127.0.0.1".to_owned(),
        "peer.addr",
        Code::InvalidArgument,
    ),
    (
        "a node_epoch that no clock shows",
        |request| request.node_epoch = u64::MAX,
        "node_epoch",
        Code::InvalidArgument,
    ),
    (
        "an epoch that was never given",
        |request| request.region_stats[0].epoch = u64::MAX,
        "region_stats.epoch",
        Code::InvalidArgument,
    ),
    ("stats of nobody", |request| request.peer = None, "peer", Code::InvalidArgument),
    (
        "a frontend with regions",
        |request| {
            header(request).role = Role::Frontend.into();
            header(request).member_id = 0;
            request.peer.as_mut().expect("a peer").id = 0;
        },
        "region_stats",
        Code::InvalidArgument,
    ),
];

/// Goal: a malformed first request ends its stream with a status that names the field, and changes nothing.
/// Method: a table of requests, each spoiled in one way; afterwards the leader knows of no node.
#[tokio::test(flavor = "multi_thread")]
async fn malformed_first_requests_are_refused_by_field_and_change_nothing() {
    let cluster = Cluster::builder().start().await;
    let addr = cluster.replicas[0].addr();
    for (name, spoil, field, code) in SPOILED {
        let mut request = Identity::datanode(5).heartbeat(&BTreeMap::from([(1, 1)]));
        spoil(&mut request);
        let refusal = match HeartbeatStream::open(&addr, request).await {
            Ok(mut stream) => stream.next().await,
            Err(status) => Err(status),
        };
        let status = refusal.expect_err(name);
        assert_eq!(status.code(), code, "{name}: {status}");
        assert!(
            status.message().starts_with(field),
            "{name}: {:?} does not begin with {field}",
            status.message()
        );
    }
    assert_eq!(cluster.nodes(0).await.unwrap(), [], "a refused request left a node behind");
}

/// Goal: a malformed request on a stream that was good until then ends that stream, not the node's standing.
/// Method: each spoiled request follows a good one; the node connects again and is granted the same region again.
#[tokio::test(flavor = "multi_thread")]
async fn malformed_later_requests_end_the_stream_and_nothing_else() {
    let cluster = Cluster::builder().start().await;
    let addr = cluster.replicas[0].addr();
    let mut node = FakeNode::new(Identity::datanode(5));
    node.connect(&addr).await.unwrap();
    let region = cluster.create_regions(1, Some(5)).await[0].region_id;
    let mut spoiled: Vec<Spoiled> = SPOILED.into();
    spoiled.extend::<[Spoiled; 3]>([
        ("another node", |request| header(request).member_id = 6, "", Code::InvalidArgument),
        ("another process", |request| request.node_epoch += 1, "node_epoch", Code::InvalidArgument),
        (
            "time runs backwards",
            |request| request.duration_since_epoch = 0,
            "duration_since_epoch",
            Code::InvalidArgument,
        ),
    ]);
    for (name, spoil, field, code) in spoiled {
        node.connect(&addr).await.unwrap();
        let what = format!("the region is granted before the request: {name}");
        eventually(Duration::from_secs(5), &what, async || {
            let granted = node.beat().await.map_err(|status| status.to_string())?.granted();
            if granted == [region] { Ok(()) } else { Err(format!("granted: {granted:?}")) }
        })
        .await;
        let (mut request, _) = node.next_request();
        spoil(&mut request);
        node.stream().unwrap().send(request).await.unwrap();
        let status = node.pushed().await.expect_err(name);
        assert_eq!(status.code(), code, "{name}: {status}");
        assert!(
            status.message().starts_with(field),
            "{name}: {:?} does not begin with {field}",
            status.message()
        );
    }
    let nodes = cluster.nodes(0).await.unwrap();
    assert_eq!(nodes.len(), 1, "a refused request left a node behind: {nodes:?}");
    assert_eq!(nodes[0].node_epoch, node.identity.node_epoch);
}

/// Goal: a datanode that turns up under the role of a frontend, on the same stream, is not believed.
/// Method: the role changes with the second request.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_keeps_its_role() {
    let cluster = Cluster::builder().start().await;
    let mut node = FakeNode::new(Identity::datanode(5));
    node.connect(&cluster.replicas[0].addr()).await.unwrap();
    for role in [Role::Frontend, Role::Flownode] {
        node.connect(&cluster.replicas[0].addr()).await.unwrap();
        let (mut request, _) = node.next_request();
        header(&mut request).role = role.into();
        node.stream().unwrap().send(request).await.unwrap();
        assert_eq!(node.pushed().await.expect_err("a new role").code(), Code::InvalidArgument);
    }
}

/// Goal: a question for the leader is checked as a heartbeat is. Method: each header that is refused there.
#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_question_for_the_leader_is_refused_by_field() {
    let cluster = Cluster::builder().etcd(0).start().await;
    let good = RequestHeader { protocol_version: 1, ..RequestHeader::default() };
    let headers = [
        (None, "header"),
        (Some(RequestHeader { protocol_version: 7, ..good.clone() }), "header.protocol_version"),
        (Some(RequestHeader { role: 77, ..good.clone() }), "header.role"),
    ];
    for (header, field) in headers {
        let refused =
            cluster.replicas[0].heartbeat().ask_leader(AskLeaderRequest { header, failed_term: 0 }).await;
        let status = refused.expect_err(field);
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().starts_with(field), "{status}");
    }
    let question = AskLeaderRequest { header: Some(good), failed_term: 0 };
    let answer = cluster.replicas[0].heartbeat().ask_leader(question).await.unwrap().into_inner();
    assert_eq!(answer.leader.map(|leader| leader.addr), Some(cluster.replicas[0].addr()));
}

/// Goal: whoever opens a stream and says nothing does not keep it. Method: a stream without a first request, beside
/// one of a node that beats; the server ends the silent one with a reason and leaves the other alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_a_first_request_is_closed() {
    let cluster = Cluster::builder().etcd(0).start().await;
    let replica = &cluster.replicas[0];
    let mut node = FakeNode::new(Identity::datanode(1));
    node.connect(&replica.addr()).await.unwrap();
    let (_silent, requests) = tokio::sync::mpsc::channel::<HeartbeatRequest>(1);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut responses = replica.heartbeat().heartbeat(requests).await.unwrap().into_inner();
    let ended = within(Duration::from_secs(10), "the silent stream is closed", responses.message()).await;
    assert_eq!(ended.expect_err("a reason").code(), Code::DeadlineExceeded);
    node.beat().await.unwrap();
    eventually(Duration::from_secs(5), "one stream is left", async || {
        match replica.metric("metasrv_streams").await {
            Ok(1.0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// Any request that the schema can express, most of them nonsense.
fn any_request() -> impl Strategy<Value = HeartbeatRequest> {
    let small = prop_oneof![Just(0u64), 1..5u64, any::<u64>()];
    (
        (
            small.clone(),
            small.clone(),
            prop_oneof![0..4i32, any::<i32>()],
            prop_oneof![Just(1u64), small.clone()],
        ),
        (any::<bool>(), any::<bool>(), "[a-z0-9.:]{0,16}"),
        (small.clone(), small.clone(), small.clone(), small.clone(), any::<u64>()),
        prop::collection::btree_map(small.clone(), small, 0..5),
    )
        .prop_map(
            |((cluster_id, id, role, version), (with_header, with_peer, addr), numbers, regions)| {
                let identity = Identity { cluster_id, addr, ..Identity::datanode(id) };
                let mut request = identity.heartbeat(&regions);
                header(&mut request).role = role;
                header(&mut request).protocol_version = version;
                header(&mut request).term = numbers.4;
                if !with_header {
                    request.header = None;
                }
                if !with_peer {
                    request.peer = None;
                }
                request.node_epoch = numbers.0;
                request.incarnation_nonce = numbers.1;
                request.duration_since_epoch = numbers.2;
                request.sequence = numbers.3;
                request
            },
        )
}

/// Goal: no request, however odd, hurts a server or another node. Method: streams of random requests, while a
/// well-behaved node must be granted its region by every heartbeat.
#[tokio::test(flavor = "multi_thread")]
async fn random_requests_hurt_nobody_else() {
    let cluster = Cluster::builder().start().await;
    let addr = cluster.replicas[0].addr();
    let mut node = FakeNode::new(Identity::datanode(1_000_001));
    node.connect(&addr).await.unwrap();
    let region = cluster.create_regions(1, Some(1_000_001)).await[0].region_id;
    eventually(Duration::from_secs(10), "the region is granted", async || {
        let granted = node.beat().await.map_err(|status| status.to_string())?.granted();
        if granted == [region] { Ok(()) } else { Err(format!("granted: {granted:?}")) }
    })
    .await;
    let mut runner = TestRunner::default();
    let requests = prop::collection::vec(any_request(), 1..5);
    for _ in 0..150 {
        let mut requests =
            requests.new_tree(&mut runner).expect("a strategy without filters").current().into_iter();
        let first = requests.next().expect("at least one");
        if let Ok(mut stream) = HeartbeatStream::open(&addr, first.clone()).await {
            let mut sent = vec![first];
            for request in requests {
                sent.push(request.clone());
                if stream.send(request).await.is_err() {
                    break;
                }
            }
            // It ends, or it answers; it does not hang.
            let answer = stream.next().await;
            let hung = answer.as_ref().err().is_some_and(|status| status.code() == Code::DeadlineExceeded);
            assert!(!hung, "neither an answer nor an end for {sent:?}");
        }
        assert_eq!(node.beat().await.unwrap().granted(), [region]);
    }
}

/// Goal: the public error for a replica that does not lead. Method: a public peer opens a stream to a follower.
#[tokio::test(flavor = "multi_thread")]
async fn a_public_client_is_told_by_a_follower_that_it_does_not_lead() {
    let cluster = Cluster::builder().replicas(2).start().await;
    let leader = cluster.leader().await;
    let follower = &cluster.replicas[1 - leader.replica];
    let mut node = FakeNode::new(Identity::public_datanode(3));
    assert_eq!(node.identity.dialect, Dialect::Public);
    let answer = node.connect(&follower.addr()).await.unwrap();
    assert_eq!(answer.error_code(), 2);
    assert!(node.pushed().await.unwrap().is_none(), "then the stream ends");
    throughout(Duration::from_secs(1), "the leader does not know the node", async || {
        match cluster.nodes(leader.replica).await {
            Ok(nodes) if nodes.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(error_code(&answer.response), 2);
}
