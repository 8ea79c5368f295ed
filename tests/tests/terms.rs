//! Terms never go backwards, as seen by any node, also where the store was set back to an old backup.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use metasrv_proto::meta::{AskLeaderRequest, RequestHeader};
use metasrv_tests::cluster::Cluster;
use metasrv_tests::node::{FakeNode, Identity};
use metasrv_tests::wait::eventually;
use tonic::Code;

const LONG: Duration = Duration::from_secs(30);

/// A question for the leader by a node that has seen this term.
fn question(node: &FakeNode, term: u64) -> AskLeaderRequest {
    let installation = node.installation;
    let header =
        RequestHeader { protocol_version: 1, member_id: 1, term, installation, ..RequestHeader::default() };
    AskLeaderRequest { header: Some(header), failed_term: 0 }
}

/// Goal: a leader that hears of a higher term than its own ends its term, and the next one leads above what was heard;
/// nodes keep their regions. Method: a node reports a term from the future, once on its stream and once in AskLeader;
/// with two replicas, and with one.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_hears_of_a_higher_term_leads_above_it() {
    for replicas in [2, 1] {
        let cluster = Cluster::builder().replicas(replicas).timing("2s", "2s", "200ms").start().await;
        let first = cluster.leader().await;
        let mut node = FakeNode::new(Identity::datanode(1));
        node.connect(&cluster.replicas[first.replica].addr()).await.unwrap();
        cluster.create_regions(2, None).await;

        node.term = 500;
        // Whatever becomes of this answer: the node would refuse it, because its term is too low.
        let _ = node.beat().await;
        let second = cluster.leader_after(500).await;
        assert_eq!(second.term, 501);
        assert!(cluster.replicas[first.replica].process().log().contains("the store was set back"));

        cluster.replicas[second.replica].heartbeat().ask_leader(question(&node, 700)).await.unwrap();
        let third = cluster.leader_after(700).await;
        assert_eq!(third.term, 701);

        node.disconnect();
        let addr = cluster.replicas[third.replica].addr();
        eventually(LONG, "the node is leased what it held", async || {
            let answer = node.connect(&addr).await.map_err(|status| status.to_string())?;
            if answer.granted() == [1, 2] { Ok(()) } else { Err(format!("{:?}", answer.response)) }
        })
        .await;
        assert_eq!(node.term, 701);
    }
}

/// Goal: a term that no backup explains, and one that another installation's node has seen, change nothing.
/// Method: the largest number, and a node of another installation.
#[tokio::test(flavor = "multi_thread")]
async fn a_term_that_cannot_be_is_refused_and_anothers_is_not_heard() {
    let cluster = Cluster::builder().start().await;
    let first = cluster.leader().await;
    let replica = &cluster.replicas[first.replica];
    let mut node = FakeNode::new(Identity::datanode(1));
    node.connect(&replica.addr()).await.unwrap();

    let refused = replica.heartbeat().ask_leader(question(&node, u64::MAX)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().starts_with("header.term"), "{refused}");
    node.term = u64::MAX;
    let refused = node.beat().await.unwrap_err();
    assert!(
        refused.code() == Code::InvalidArgument && refused.message().starts_with("header.term"),
        "{refused}"
    );

    let mut stranger = FakeNode::new(Identity::datanode(2));
    stranger.installation = node.installation ^ 1;
    replica.heartbeat().ask_leader(question(&stranger, 500)).await.unwrap();
    let mut unaffiliated = FakeNode::new(Identity::datanode(3));
    unaffiliated.term = 500;
    unaffiliated.connect(&replica.addr()).await.unwrap();
    assert_eq!(cluster.leader().await, first);
    assert_eq!(replica.metric("metasrv_term").await.unwrap(), 1.0);
}

/// Goal: the same without etcd: the replica says what to do, and leads above the term after it was started again.
/// Method: embedded mode, a term from the future, a start.
#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_replica_leads_above_it_after_a_start() {
    let mut cluster = Cluster::builder().etcd(0).start().await;
    let mut node = FakeNode::new(Identity::datanode(1));
    node.connect(&cluster.replicas[0].addr()).await.unwrap();
    node.term = 500;
    let _ = node.beat().await;
    let mut process = cluster.replicas[0].process.take().unwrap();
    let status = process.ended(LONG).await;
    assert_eq!(status.code(), Some(1));
    assert!(process.log().contains("start again"), "{}", process.log());
    cluster.start_replica(0);
    assert_eq!(cluster.leader_after(500).await.term, 501);
}
