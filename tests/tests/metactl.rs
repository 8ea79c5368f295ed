//! `metactl` as an operator and a script meet it: what it prints, and its exit codes.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::Stdio;
use std::time::Duration;

use metasrv_proto::admin::GetStatusRequest;
use metasrv_tests::binaries::binary;
use metasrv_tests::cluster::Cluster;
use metasrv_tests::fleet::Fleet;
use metasrv_tests::metactl::{assert_hex, assert_time, bare, command, fields, on, sorted};
use metasrv_tests::node::{FakeNode, Identity};
use metasrv_tests::ports::free_port;
use metasrv_tests::process::Process;
use metasrv_tests::wait::{eventually, within};
use rustix::process::Signal;
use serde_json::Value;

const LONG: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(200);

/// Goal: a mistake on the command line is exit code 2 and nothing is asked; where nobody listens it is 3.
/// Method: commands and values that do not exist; then a port that is free.
#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_2_and_nobody_there_is_3() {
    for (line, part) in [
        ("node drain", "NODE"),
        ("region create", "--count"),
        ("region create --count 0", "--count"),
        ("region create --count 1 --on x", "--on"),
        ("--timeout 0s status", "--timeout"),
        ("-o yaml status", "--output"),
        ("--metasrv 127.0.0.1:3002,nonsense status", "\"nonsense\" is not host:port"),
    ] {
        bare(line).await.fails(2, &[part]);
    }
    let help = bare("--help").await;
    assert_eq!(help.code, 0, "{help:?}");
    assert!(help.data.contains("METACTL_METASRV") && help.data.contains("10 unhealthy"), "{help:?}");

    let nobody = format!("127.0.0.1:{}", free_port());
    for line in
        ["status", "member list", "leader show", "leader transfer", "node list", "region create --count 1"]
    {
        let tried = bare(&format!("{line} --metasrv {nobody} --timeout 2s")).await;
        tried.fails(3, &[&nobody, "--metasrv"]);
    }
}

/// Goal: regions are created, waited for and listed; the names in JSON are those that are documented; what does not
/// exist is exit code 4. Method: a replica with two nodes; every list in every format.
#[tokio::test(flavor = "multi_thread")]
async fn lists_have_the_names_that_are_documented() {
    let cluster = Cluster::builder().start().await;
    let fleet = Fleet::start(1..=2, &cluster.addrs(), INTERVAL);
    cluster.connected(&[1, 2]).await;

    let created = on(&cluster, "region create --count 5 --wait --reason growth -o json").await.rows();
    assert_eq!(created.len(), 5);
    let names = sorted(
        "region_id cluster_id node_id node_addr epoch writable state created_at reason group revision as_of_ms_ago",
    );
    for region in &created {
        assert_eq!(fields(region), names);
        assert_eq!(
            (&region["writable"], &region["reason"]),
            (&Value::Bool(true), &"growth".into()),
            "{region}"
        );
        assert_time(&region["created_at"]);
    }
    let on_second = on(&cluster, "region create --count 2 --on 2 -o json").await.rows();
    assert!(on_second.iter().all(|region| region["node_id"] == 2), "{on_second:?}");
    cluster.all_writable(7, LONG).await;

    let all = on(&cluster, "region list -o json").await.rows();
    let of = |id: u64| all.iter().filter(|region| region["node_id"] == id).count();
    assert_eq!((all.len(), of(1) + of(2)), (7, 7), "{all:?}");
    let of_second = on(&cluster, "-o json region list --node 2").await.rows();
    assert_eq!(of_second.len(), of(2));
    let lines = on(&cluster, "region list -o jsonl").await;
    let parsed: Vec<Value> = lines.data.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(parsed.len(), 7, "{lines:?}");
    assert_eq!(fields(&parsed[0]), names);
    let (table, wide) = (on(&cluster, "region list").await, on(&cluster, "region list -o wide").await);
    assert_eq!((table.data.lines().count(), wide.data.lines().count()), (8, 8), "{table:?} {wide:?}");
    assert!(!table.data.contains("growth") && wide.data.contains("growth"), "{table:?} {wide:?}");
    assert!(table.data.contains("s ago") && !table.data.contains('\u{1b}'), "{table:?}");

    let nodes = on(&cluster, "node list -o json").await.rows();
    let names = sorted(
        "node_id cluster_id role addr node_epoch incarnation_nonce connected last_activity regions regions_writable persisted_stats persisted_term version hostname zone host weight health duty restarting_ms revision as_of_ms_ago",
    );
    assert_eq!(nodes.len(), 2, "metactl asks, and does not register: {nodes:?}");
    for node in &nodes {
        assert_eq!(fields(node), names);
        assert_eq!((&node["connected"], &node["hostname"]), (&Value::Bool(true), &"test".into()), "{node}");
        assert_time(&node["last_activity"]);
        assert_hex(&node["incarnation_nonce"]);
    }
    let members = on(&cluster, "member list -o json").await.rows();
    assert_eq!(fields(&members[0]), sorted("name addr role term version started_at"));
    assert_eq!(
        (&members[0]["name"], &members[0]["role"]),
        (&"metasrv-0".into(), &"leader".into()),
        "{members:?}"
    );
    assert_time(&members[0]["started_at"]);
    let leader = on(&cluster, "leader show -o json").await.json();
    assert_eq!(fields(&leader), sorted("name addr term confirmed"));

    let status = on(&cluster, "status -o json").await.json();
    assert_eq!((&status["healthy"], &status["leader"]), (&Value::Bool(true), &leader), "{status}");
    assert_eq!((&status["regions"], &status["regions_writable"]), (&7.into(), &7.into()), "{status}");
    assert_eq!((&status["nodes"], &status["nodes_connected"]), (&2.into(), &2.into()), "{status}");
    assert_hex(&status["installation"]);
    let screen = on(&cluster, "status").await;
    assert!(screen.data.contains("7, 7 writable") && screen.data.contains("metasrv-0"), "{screen:?}");

    on(&cluster, "region create --count 1 --on 99").await.fails(4, &["datanode-99"]);
    on(&cluster, "region list --node 99").await.fails(4, &["datanode 99", "metactl node list"]);
    // There is nobody to hand over to.
    on(&cluster, "leader transfer").await.fails(1, &["no other replica"]);
    drop(fleet);
}

/// Goal: a reader that closes its end early is no error. Method: stdout is a pipe that nobody reads any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_pipe_is_no_error() {
    let cluster = Cluster::builder().etcd(0).start().await;
    let mut command = command("status");
    command.env("METACTL_METASRV", cluster.addrs().join(","));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = within(LONG, "metactl ends", child.wait_with_output()).await.unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));

    on(&cluster, "leader transfer").await.fails(5, &["one replica"]);
    on(&cluster, "region create --count 1").await.fails(5, &["datanode"]);
}

/// Goal: a transfer names the leader of a higher term, and the new leader knows every node's lease and stats.
/// Method: three replicas, three nodes with regions; one address is enough to see all replicas.
#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_names_the_next_leader_which_knows_every_lease() {
    let cluster = Cluster::builder().replicas(3).start().await;
    let fleet = Fleet::start(1..=3, &cluster.addrs(), INTERVAL);
    cluster.connected(&[1, 2, 3]).await;
    on(&cluster, "region create --count 6 --wait -o json").await.json();
    let before = on(&cluster, "leader show -o json").await.json();

    let after = on(&cluster, "leader transfer --reason exercise -o json").await.json();
    assert_eq!(fields(&after), sorted("name addr term ended_term"));
    assert_eq!(after["ended_term"], before["term"]);
    assert!(after["term"].as_u64() > before["term"].as_u64(), "{after} after {before}");
    assert_ne!(after["name"], before["name"], "the one that handed over stands at the end of the queue");
    let seen = cluster.leader().await;
    assert_eq!(after["addr"], cluster.replicas[seen.replica].addr());
    assert_eq!(after["term"], seen.term);

    eventually(LONG, "the new leader lists the persisted lease and stats of every node", async || {
        let nodes = on(&cluster, "node list -o json").await.rows();
        let done = nodes.iter().filter(|node| {
            node["persisted_term"] == after["term"]
                && node["persisted_stats"].as_u64() > Some(0)
                && node["connected"] == true
                && node["regions_writable"] == 2
        });
        if done.count() == 3 && nodes.len() == 3 { Ok(()) } else { Err(format!("{nodes:?}")) }
    })
    .await;

    let follower = (0..3).find(|index| *index != seen.replica).unwrap();
    let addr = cluster.replicas[follower].addr();
    let what = "the old leader stands in the queue again, and one address shows all three";
    eventually(LONG, what, async || {
        let status = bare(&format!("status -o json --metasrv {addr}")).await.json();
        assert_eq!(status["leader"]["name"], after["name"]);
        let replicas = status["replicas"].as_array().unwrap();
        let answers = replicas.iter().filter(|replica| replica["answers"] == true).count();
        let members = bare(&format!("member list -o json --metasrv {addr}")).await.rows();
        let leading: Vec<_> = members.iter().filter(|member| member["role"] == "leader").collect();
        assert_eq!((leading.len(), &leading[0]["name"]), (1, &after["name"]), "{members:?}");
        if (answers, members.len()) == (3, 3) { Ok(()) } else { Err(format!("{status} {members:?}")) }
    })
    .await;
    drop(fleet);
}

/// Goal: without a leader, status shows what the replicas know and exits with 10.
/// Method: etcd is stopped so that nobody can be elected, and then the leader, so that it does not answer.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_leader_status_shows_what_followers_know() {
    let cluster = Cluster::builder().replicas(2).timing("2s", "2s", "200ms").start().await;
    let first = cluster.leader().await;
    let _fleet = Fleet::start(1..=2, &cluster.addrs(), INTERVAL);
    cluster.connected(&[1, 2]).await;
    cluster.create_regions(4, None).await;
    cluster.all_writable(4, LONG).await;
    let request = || GetStatusRequest { allow_follower: true };
    eventually(LONG, "the follower has seen the nodes and the regions", async || {
        let seen = cluster.replicas[1 - first.replica].admin().get_status(request()).await;
        match seen.map_err(|status| status.to_string())?.into_inner() {
            status if (status.nodes, status.regions) == (2, 4) => Ok(()),
            status => Err(format!("{status:?}")),
        }
    })
    .await;
    let healthy = on(&cluster, "status").await;
    assert_eq!(healthy.code, 0, "{healthy:?}");
    let name = cluster.replicas[first.replica].name.clone();
    eventually(LONG, "the follower sees the leader", async || {
        let status = on(&cluster, "status -o json").await.json();
        let seen =
            status["replicas"].as_array().unwrap().iter().all(|replica| replica["leader_name"] == name);
        if seen { Ok(()) } else { Err(status.to_string()) }
    })
    .await;

    cluster.etcd.as_ref().unwrap().pause_member(0);
    cluster.replicas[first.replica].process().signal(Signal::STOP);
    let status = on(&cluster, "status -o json").await;
    assert_eq!(status.code, 10, "{status:?}");
    assert!(status.said.contains("unhealthy") && status.said.contains(&name), "{status:?}");
    let document = status.document();
    assert_eq!(document["healthy"], false);
    assert_eq!(
        (&document["leader"]["name"], &document["leader"]["confirmed"]),
        (&name.into(), &false.into())
    );
    assert_eq!((&document["nodes"], &document["regions"]), (&2.into(), &4.into()), "{document}");
    assert!(document["regions_writable"].is_null(), "only a leader knows: {document}");
    assert!(document["revision"].as_u64() > Some(0) && document["as_of_ms_ago"].is_u64(), "{document}");
    let leader = on(&cluster, "leader show").await;
    assert_eq!(leader.code, 10, "{leader:?}");
    assert_eq!(leader.data.lines().count(), 2, "whom the others name is shown: {leader:?}");
    let nodes = on(&cluster, "node list --timeout 4s -o json").await;
    assert!(nodes.said.contains("no leader answers") && nodes.said.contains("ago at revision"), "{nodes:?}");
    let regions = on(&cluster, "region list --node 2 --timeout 4s -o json").await.rows();
    let nodes = nodes.rows();
    assert_eq!((nodes.len(), regions.len()), (2, 2), "{nodes:?} {regions:?}");
    for row in nodes.iter().chain(&regions) {
        assert!(row["revision"].as_u64() > Some(0) && row["as_of_ms_ago"].is_u64(), "{row}");
        assert!(row["connected"].is_null() && row["writable"].is_null(), "only a leader knows: {row}");
    }
    assert!(regions.iter().all(|region| region["state"] == "unknown"), "{regions:?}");

    cluster.replicas[first.replica].process().signal(Signal::CONT);
    cluster.etcd.as_ref().unwrap().resume_member(0);
}

/// Goal: a wait that does not come to its end is exit code 6, or at Ctrl-C a word on what goes on; in both cases the
/// regions that exist now are printed. Method: a node that is connected and never reports its regions.
#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_at_its_deadline_or_with_ctrl_c() {
    let cluster = Cluster::builder().etcd(0).start().await;
    let mut node = FakeNode::new(Identity::datanode(1));
    node.connect(&cluster.replicas[0].addr()).await.unwrap();
    let waited = on(&cluster, "region create --count 2 --wait --timeout 2s -o json").await;
    assert_eq!(waited.code, 6, "{waited:?}");
    assert_eq!(waited.document().as_array().map(Vec::len), Some(2), "{waited:?}");
    for part in ["waiting: 0 of 2 are writable", "within 2s", "go on opening", "metactl region list"] {
        assert!(waited.said.contains(part), "{part:?} is not said: {waited:?}");
    }
    let status = on(&cluster, "status").await;
    assert_eq!(status.code, 10, "regions that nobody may write to: {status:?}");

    let addr = cluster.replicas[0].addr();
    let arguments = ["region", "create", "--count", "3", "--wait", "-o", "jsonl", "--metasrv", &addr];
    let mut waiting = Process::start("waiting", &binary("metactl"), arguments, cluster.directory());
    eventually(LONG, "it waits", async || {
        let log = waiting.log();
        if log.contains("waiting: 0 of 3") { Ok(()) } else { Err(log) }
    })
    .await;
    waiting.signal(Signal::INT);
    let status = waiting.ended(LONG).await;
    let log = waiting.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert_eq!(log.lines().filter(|line| line.starts_with("{\"region_id\":")).count(), 3, "{log}");
    assert!(log.contains("interrupted: 0 of 3 are writable") && log.contains("go on opening"), "{log}");
}
