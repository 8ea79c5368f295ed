//! What operators do by `metactl` to a cluster that runs: regions move, nodes are emptied and forgotten, failovers are paused,
//! and all of it is found in the history.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use metasrv_tests::cluster::Cluster;
use metasrv_tests::metactl::{assert_time, fields, on, sorted};
use metasrv_tests::node::{FakeNode, Identity};
use metasrv_tests::wait::eventually;
use serde_json::Value;

const LONG: Duration = Duration::from_secs(30);

async fn cluster(datanodes: usize) -> Cluster {
    let cluster = Cluster::builder().datanodes(datanodes).timing("2s", "2s", "200ms").start().await;
    let ids: Vec<u64> = (1..=datanodes).map(|id| u64::try_from(id).unwrap()).collect();
    cluster.connected(&ids).await;
    cluster
}

fn number(row: &Value, field: &str) -> u64 {
    row[field].as_u64().unwrap_or_else(|| panic!("{field} is no number: {row}"))
}

async fn on_node(cluster: &Cluster, node: u64) -> Vec<u64> {
    let rows = on(cluster, &format!("region list --node {node} -o json")).await.rows();
    rows.iter().map(|row| number(row, "region_id")).collect()
}

async fn kinds(cluster: &Cluster, filter: &str) -> Vec<String> {
    let rows = on(cluster, &format!("events {filter} -o json")).await.rows();
    rows.iter().map(|row| row["kind"].as_str().unwrap_or_default().to_owned()).collect()
}

async fn nothing_is_wrong(cluster: &Cluster) {
    let check = on(cluster, "fsck -o json").await.json();
    assert_eq!(check["findings"], Value::Array(Vec::new()), "{check}");
    assert!(number(&check, "records") > 0, "{check}");
}

/// Goal: a region moves where it is told to, and its page, its explanation, the events and its history agree about it.
/// Method: three datanodes and a group of regions; one of them is moved.
#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_was_moved_is_shown_explained_and_in_the_history() {
    let cluster = cluster(3).await;
    let created = on(&cluster, "region create --count 6 --group orders --wait -o json").await.rows();
    let region = number(&created[0], "region_id");
    let from = number(&created[0], "node_id");
    let to = from % 3 + 1;
    let moved =
        on(&cluster, &format!("region migrate {region} --to {to} --reason closer --wait -o json")).await;
    let moved = moved.json();
    assert_eq!((number(&moved, "from_node_id"), number(&moved, "to_node_id")), (from, to));

    let shown = on(&cluster, &format!("region show {region} -o json")).await.json();
    assert_eq!((number(&shown, "node_id"), &shown["group"]), (to, &"orders".into()), "{shown}");
    assert!(number(&shown, "epoch") > number(&created[0], "epoch"), "{shown}");
    assert!(shown["procedure_id"].is_null(), "{shown}");

    let why = on(&cluster, &format!("why region {region} -o json")).await.json();
    let names = "region_id cluster_id node_id epoch group node_health verdict procedure_id placement events";
    assert_eq!(fields(&why), sorted(names));
    assert_ne!(why["verdict"], "", "{why}");
    let mut nodes: Vec<u64> =
        why["placement"].as_array().unwrap().iter().map(|opinion| number(opinion, "node_id")).collect();
    nodes.sort_unstable();
    assert_eq!(nodes, [1, 2, 3], "every datanode is judged: {why}");

    let told = kinds(&cluster, &format!("--region {region}")).await;
    let expected = ["region_created", "migration_begun", "region_migrated", "migration_done"];
    assert!(expected.iter().all(|kind| told.iter().any(|told| told == kind)), "{told:?}");
    let history = on(&cluster, &format!("history region {region} -o json")).await.rows();
    let held: Vec<u64> = history.iter().map(|tenure| number(tenure, "node_id")).collect();
    assert_eq!((held.first(), held.last()), (Some(&from), Some(&to)), "{history:?}");
    assert_time(&history[0]["until"]);
    let last = history.last().unwrap();
    assert!(last["until"].is_null(), "it holds it now: {history:?}");
    let then = history[0]["from"].as_str().unwrap();
    let holder = on(&cluster, &format!("history region {region} --at {then} -o json")).await.json();
    assert_eq!(number(&holder, "node_id"), from, "{holder}");

    on(&cluster, &format!("region migrate {region} --to {to}")).await.fails(5, &[&to.to_string()]);
    on(&cluster, "region migrate 999999").await.fails(4, &["999999"]);
    on(&cluster, "why region 999999").await.fails(4, &["999999", "metactl region list"]);
    assert_eq!(on(&cluster, "procedure list -o json").await.rows(), Vec::<Value>::new());
    nothing_is_wrong(&cluster).await;
}

/// Goal: a node is planned to be emptied, emptied, and forgotten; each step that would lose something is refused before.
/// Method: three datanodes; the third one goes.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_planned_cordoned_drained_and_forgotten() {
    let mut cluster = cluster(3).await;
    on(&cluster, "region create --count 9 --wait -o json").await.json();
    let before = on_node(&cluster, 3).await;
    assert!(!before.is_empty(), "placement gives each node some");

    let plan = on(&cluster, "plan drain 3 -o json").await.json();
    assert!(plan["procedure_id"].is_null(), "{plan}");
    let mut planned: Vec<u64> =
        plan["moves"].as_array().unwrap().iter().map(|moved| number(moved, "region_id")).collect();
    planned.sort_unstable();
    assert_eq!((planned, on_node(&cluster, 3).await), (before.clone(), before), "nothing was begun");

    on(&cluster, "node decommission 3 --yes").await.fails(5, &["3"]);
    let cordoned = on(&cluster, "node cordon 3 --reason disks -o json").await.json();
    assert_eq!(cordoned["cordoned"], true);
    let drained = on(&cluster, "node drain 3 --reason disks --wait --timeout 60s -o json").await;
    let id = number(&drained.json(), "procedure_id");
    assert_eq!(on_node(&cluster, 3).await, Vec::<u64>::new(), "{drained:?}");
    cluster.all_writable(9, LONG).await;
    on(&cluster, &format!("procedure show {id}")).await.fails(4, &[&id.to_string()]);
    let told = kinds(&cluster, "--node 3").await;
    assert!(told.iter().any(|kind| kind == "node_cordoned"), "{told:?}");
    let all = kinds(&cluster, "").await;
    assert!(all.iter().any(|kind| kind == "drain_done"), "{all:?}");

    on(&cluster, "node decommission 3 --yes").await.fails(5, &["connected"]);
    let process = cluster.datanode(3).process.take().unwrap();
    process.terminate(LONG).await;
    eventually(LONG, "it is forgotten once it is gone", async || {
        let gone = on(&cluster, "node decommission 3 --yes --reason disks").await;
        if gone.code == 0 { Ok(()) } else { Err(format!("{gone:?}")) }
    })
    .await;
    on(&cluster, "node show 3").await.fails(4, &["datanode 3", "metactl node list"]);
    nothing_is_wrong(&cluster).await;
}

/// Goal: orders about failovers and restarts hold, are shown, and end. Method: each is given and taken back.
#[tokio::test(flavor = "multi_thread")]
async fn orders_are_shown_and_taken_back() {
    let cluster = cluster(2).await;
    let paused = on(&cluster, "failover pause --for 30m --reason switch -o json").await.json();
    assert_time(&paused["paused_until"]);
    assert_eq!((&paused["verdict"], &paused["reason"]), (&"hold".into(), &"switch".into()), "{paused}");
    let screen = on(&cluster, "failover show").await;
    assert!(screen.data.contains("for 29m") || screen.data.contains("for 30m"), "{screen:?}");
    let resumed = on(&cluster, "failover resume -o json").await.json();
    assert!(resumed["paused_until"].is_null() && resumed["verdict"] == "proceed", "{resumed}");
    let held = on(&cluster, "maintenance on --reason restore -o json").await.json();
    assert_eq!((&held["maintenance"], &held["verdict"]), (&true.into(), &"hold".into()), "{held}");
    let off = on(&cluster, "maintenance off -o json").await.json();
    assert_eq!((&off["maintenance"], &off["verdict"]), (&false.into(), &"proceed".into()), "{off}");

    let announced = on(&cluster, "node restarting 1 --for 60s --reason kernel -o json").await.json();
    assert_time(&announced["restarting_until"]);
    let node = on(&cluster, "node show 1 -o json").await.json();
    assert!((1..=60_000).contains(&number(&node, "restarting_ms")), "{node}");
    let withdrawn = on(&cluster, "node restarting 1 --cancel -o json").await.json();
    assert!(withdrawn["restarting_until"].is_null(), "{withdrawn}");
    let node = on(&cluster, "node show 1 -o json").await.json();
    assert!(node["restarting_ms"].is_null(), "{node}");

    on(&cluster, "node cordon 2 -o json").await.json();
    let node = on(&cluster, "node show 2 -o json").await.json();
    assert_eq!(node["duty"], "cordoned", "{node}");
    on(&cluster, "node uncordon 2 -o json").await.json();
    let node = on(&cluster, "node show 2 -o json").await.json();
    assert_eq!(node["duty"], "open", "{node}");
    on(&cluster, "node cordon 99").await.fails(4, &["99"]);

    let told = kinds(&cluster, "").await;
    for kind in [
        "failover_paused",
        "failover_resumed",
        "maintenance_on",
        "maintenance_off",
        "restart_announced",
        "restart_withdrawn",
        "node_cordoned",
        "node_uncordoned",
    ] {
        assert!(told.iter().any(|told| told == kind), "{kind} is not in {told:?}");
    }
    let moves = on(&cluster, "rebalance --dry-run -o json").await;
    assert_eq!(moves.rows(), Vec::<Value>::new(), "there is nothing to even out");
    nothing_is_wrong(&cluster).await;
}

/// Goal: a region that is dropped is gone from the lists, and stays in the history. Method: one of four.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_region_is_found_in_the_history_alone() {
    let cluster = cluster(2).await;
    let created = on(&cluster, "region create --count 4 --wait -o json").await.rows();
    let region = number(&created[0], "region_id");
    on(&cluster, &format!("region drop {region}")).await.fails(2, &["--yes"]);
    let dropped = on(&cluster, &format!("region drop {region} --yes --reason test -o json")).await.json();
    assert_eq!(dropped["epoch"], created[0]["epoch"], "{dropped}");
    assert_eq!(on(&cluster, "region list -o json").await.rows().len(), 3);
    on(&cluster, &format!("region show {region}")).await.fails(4, &["metactl history region"]);
    on(&cluster, &format!("region drop {region} --yes")).await.fails(4, &[&region.to_string()]);
    let history = on(&cluster, &format!("history region {region} -o json")).await.rows();
    assert_eq!(history.len(), 1, "{history:?}");
    assert_time(&history[0]["until"]);
    let healthy = on(&cluster, "wait --for healthy -o json").await.json();
    assert_eq!((&healthy["healthy"], number(&healthy, "regions")), (&true.into(), 3), "{healthy}");
    nothing_is_wrong(&cluster).await;
}

/// Goal: waiting until all is well ends when it is, or at the deadline with what is missing.
/// Method: a node that is connected and never reports its regions; then a cluster without regions.
#[tokio::test(flavor = "multi_thread")]
async fn wait_ends_when_all_is_well_or_at_the_deadline() {
    let cluster = Cluster::builder().etcd(0).start().await;
    let healthy = on(&cluster, "wait --for healthy -o json").await.json();
    assert_eq!(healthy["healthy"], true, "{healthy}");
    let leader = on(&cluster, "wait --for leader -o json").await.json();
    assert_eq!((&leader["name"], &leader["confirmed"]), (&"metasrv-0".into(), &true.into()), "{leader}");
    let mut node = FakeNode::new(Identity::datanode(1));
    node.connect(&cluster.replicas[0].addr()).await.unwrap();
    on(&cluster, "region create --count 2").await;
    let late = on(&cluster, "wait --for healthy --timeout 1s").await;
    late.fails(6, &["waiting: 2 of 2 regions are not writable", "not healthy within 1s", "metactl status"]);
}
