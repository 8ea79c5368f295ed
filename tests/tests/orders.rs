//! What operators order, over the wire: who may take an order, what is refused and how, what others see of it.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use metasrv_proto::admin::operations_client::OperationsClient;
use metasrv_proto::admin::set_failover_request::Order;
use metasrv_proto::admin::{
    AnnounceRestartRequest, CordonNodeRequest, CreateRegionsRequest, DecommissionNodeRequest,
    DropRegionRequest, ExplainRegionRequest, GetFailoverRequest, ListProceduresRequest, MigrateRegionRequest,
    Node, SetFailoverRequest,
};
use metasrv_tests::cluster::Cluster;
use metasrv_tests::replica::channel;
use metasrv_tests::wait::eventually;
use tonic::transport::Channel;
use tonic::{Code, Status};

const LONG: Duration = Duration::from_secs(20);

async fn operations(cluster: &Cluster) -> OperationsClient<Channel> {
    OperationsClient::new(channel(&cluster.replicas[cluster.leader().await.replica].addr()))
}

async fn node(cluster: &Cluster, id: u64) -> Node {
    let nodes = cluster.nodes(cluster.leader().await.replica).await.unwrap();
    nodes.into_iter().find(|node| node.node_id == id && node.role == "datanode").unwrap()
}

fn cordon(node_id: u64, cordoned: bool) -> CordonNodeRequest {
    CordonNodeRequest { node_id, cordoned, reason: "a test".to_owned(), ..Default::default() }
}

/// Goal: a replica that does not lead takes no order and names the one that does; a safety check's refusal has the same code
/// and names nobody, so that no tool goes looking for another leader. Method: the same calls to both.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_takes_no_orders_and_a_refusal_of_the_leader_names_no_other_one() {
    let cluster = Cluster::builder().replicas(2).datanodes(1).start().await;
    cluster.connected(&[1]).await;
    let leader = cluster.leader().await;
    let leader_addr = cluster.replicas[leader.replica].addr();
    let follower = &cluster.replicas[1 - leader.replica];
    eventually(LONG, "the follower knows the leader", async || {
        let status = follower.status().await.map_err(|status| status.to_string())?;
        if status.leader_addr == leader_addr { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    let hint = |status: &Status| {
        status.metadata().get("metasrv-leader").and_then(|addr| addr.to_str().ok()).map(str::to_owned)
    };
    let mut at_follower = OperationsClient::new(channel(&follower.addr()));
    let refusals = [
        at_follower.cordon_node(cordon(1, true)).await.expect_err("cordon"),
        at_follower.get_failover(GetFailoverRequest::default()).await.expect_err("failover"),
        at_follower.list_procedures(ListProceduresRequest {}).await.expect_err("procedures"),
        at_follower.explain_region(ExplainRegionRequest { region_id: 1 }).await.expect_err("explain"),
    ];
    for status in refusals {
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        assert_eq!(hint(&status), Some(leader_addr.clone()), "{status}");
    }

    let mut at_leader = operations(&cluster).await;
    let forget = DecommissionNodeRequest { node_id: 1, ..Default::default() };
    let status = at_leader.decommission_node(forget).await.expect_err("it is not cordoned");
    assert_eq!((status.code(), hint(&status)), (Code::FailedPrecondition, None), "{status}");
    let status = at_leader.cordon_node(cordon(9, true)).await.expect_err("there is no node 9");
    assert_eq!(status.code(), Code::NotFound, "{status}");
    let status = at_leader.cordon_node(cordon(0, true)).await.expect_err("0 is no node");
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().starts_with("node_id"), "{status}");
    let nowhere = MigrateRegionRequest { region_id: 77, ..Default::default() };
    let status = at_leader.migrate_region(nowhere).await.expect_err("there is no region 77");
    assert_eq!(status.code(), Code::NotFound, "{status}");
}

/// Goal: what was ordered is seen by everybody, counts for new regions, and is there under the next leader. Method: a node is
/// cordoned and its restart announced, then the leader is killed.
#[tokio::test(flavor = "multi_thread")]
async fn orders_are_listed_obeyed_and_outlive_the_leader() {
    let mut cluster = Cluster::builder().replicas(2).datanodes(3).timing("2s", "2s", "200ms").start().await;
    cluster.connected(&[1, 2, 3]).await;
    let mut operations_of = operations(&cluster).await;
    operations_of.cordon_node(cordon(2, true)).await.unwrap();
    let restart = AnnounceRestartRequest { node_id: 3, for_ms: 600_000, ..Default::default() };
    let until = operations_of.announce_restart(restart).await.unwrap().into_inner().until_ms;
    assert!(until > 1_700_000_000_000, "{until}");
    let pause = SetFailoverRequest { order: Some(Order::PauseMs(600_000)), reason: "a test".to_owned() };
    assert_eq!(operations_of.set_failover(pause).await.unwrap().into_inner().verdict, "hold");

    let before = cluster.leader().await;
    cluster.replicas[before.replica].kill();
    cluster.leader_after(before.term).await;
    cluster.connected(&[1, 2, 3]).await;
    let (second, third) = (node(&cluster, 2).await, node(&cluster, 3).await);
    assert_eq!((second.duty.as_str(), third.duty.as_str()), ("cordoned", "open"));
    assert!(third.restarting_ms > 500_000 && third.restarting_ms <= 600_000, "{third:?}");
    assert_eq!((second.health.as_str(), second.weight, second.restarting_ms), ("alive", 100, 0));
    let failover = operations(&cluster).await.get_failover(GetFailoverRequest::default()).await.unwrap();
    assert!(failover.get_ref().why.contains("a test"), "{failover:?}");

    let created = cluster.create_regions(12, None).await;
    assert!(created.iter().all(|region| region.node_id != 2), "placed on a cordoned node: {created:?}");
    let named = CreateRegionsRequest { count: 1, node_id: Some(2), ..Default::default() };
    let status = cluster.admin().await.create_regions(named).await.expect_err("it is cordoned");
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
}

/// Goal: a region is explained, and dropped for good: its node closes it, and nobody opens it again. Method: a region of a real
/// datanode, explained while it is leased, then dropped.
#[tokio::test(flavor = "multi_thread")]
async fn a_region_is_explained_and_a_dropped_one_is_closed_by_its_node() {
    let cluster = Cluster::builder().datanodes(2).timing("2s", "2s", "200ms").start().await;
    cluster.connected(&[1, 2]).await;
    cluster.create_regions(2, Some(1)).await;
    cluster.all_writable(2, LONG).await;
    let mut operations_of = operations(&cluster).await;
    let explained =
        operations_of.explain_region(ExplainRegionRequest { region_id: 1 }).await.unwrap().into_inner();
    assert!(explained.verdict.contains("datanode-1 leads it under epoch 1"), "{explained:?}");
    assert_eq!((explained.node_id, explained.node_health.as_str()), (1, "alive"));
    let outcomes: Vec<(u64, &str)> =
        explained.placement.iter().map(|opinion| (opinion.node_id, opinion.outcome.as_str())).collect();
    assert_eq!(outcomes, [(2, "best"), (1, "holds")]);

    let drop = DropRegionRequest { region_id: 1, reason: "unused".to_owned() };
    assert_eq!(operations_of.drop_region(drop.clone()).await.unwrap().into_inner().epoch, 1);
    let status = operations_of.drop_region(drop).await.expect_err("it is dropped");
    assert_eq!(status.code(), Code::NotFound, "{status}");
    let regions = cluster.regions(0).await.unwrap();
    assert_eq!(regions.iter().map(|region| region.region_id).collect::<Vec<_>>(), [2]);
    // What a node reports beyond its routes is counted each time: it stops once the region is closed.
    eventually(LONG, "the node closes what was dropped", async || {
        let before = cluster.replicas[0].metric("metasrv_regions_closeable_total").await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let after = cluster.replicas[0].metric("metasrv_regions_closeable_total").await?;
        if before > 0.0 && before == after { Ok(()) } else { Err(format!("{before} then {after}")) }
    })
    .await;
}
