//! The reference datanode as a process: its regions can be written to exactly while their leases say so.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use metasrv_proto::admin::key_value_client::KeyValueClient;
use metasrv_proto::admin::{GetRequest, PutRequest, ScanRequest};
use metasrv_tests::cluster::Cluster;
use metasrv_tests::ports::free_port;
use metasrv_tests::process::Process;
use metasrv_tests::replica::channel;
use metasrv_tests::wait::{eventually, now};
use rustix::process::Signal;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

const LONG: Duration = Duration::from_secs(30);

/// Short leases, so that their end is not waited for long.
const TIMING: (&str, &str, &str) = ("2s", "2s", "200ms");

async fn cluster(replicas: usize, datanodes: usize) -> Cluster {
    let (ttl, lease, interval) = TIMING;
    let cluster =
        Cluster::builder().replicas(replicas).datanodes(datanodes).timing(ttl, lease, interval).start().await;
    let ids: Vec<u64> = (1..).take(datanodes).collect();
    cluster.connected(&ids).await;
    cluster
}

fn kv(addr: &str) -> KeyValueClient<Channel> {
    KeyValueClient::new(channel(addr))
}

async fn put(addr: &str, region_id: u64, key: &str, value: &str) -> Result<u64, Status> {
    let mut request = Request::new(PutRequest { region_id, key: key.into(), value: value.into() });
    request.set_timeout(Duration::from_secs(2));
    kv(addr).put(request).await.map(|response| response.into_inner().epoch)
}

async fn get(addr: &str, region_id: u64, key: &str) -> Result<Option<Vec<u8>>, Status> {
    let mut request = Request::new(GetRequest { region_id, key: key.into() });
    request.set_timeout(Duration::from_secs(2));
    kv(addr).get(request).await.map(|response| response.into_inner().value)
}

/// Waits until a put is accepted; returns the epoch under which it was.
async fn put_eventually(addr: &str, region: u64, key: &str, value: &str) -> u64 {
    eventually(LONG, "a put is accepted", async || put(addr, region, key, value).await).await
}

/// Waits until a put is refused because the region is read-only.
async fn refused_eventually(addr: &str, region: u64, limit: Duration) {
    eventually(limit, "a put is refused", async || match put(addr, region, "refused", "?").await {
        Err(status) if status.code() == Code::FailedPrecondition => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

/// Goal: regions are created, opened on datanodes, leased, and can be written and read; an unknown region cannot.
/// Method: two datanodes, regions spread by metasrv, a put, get and scan in each.
#[tokio::test(flavor = "multi_thread")]
async fn regions_are_opened_leased_and_written_to() {
    let mut cluster = cluster(1, 2).await;
    let regions = cluster.create_regions(6, None).await;
    cluster.all_writable(6, LONG).await;
    for region in &regions {
        let addr = cluster.datanode(region.node_id).addr();
        let epoch = put_eventually(&addr, region.region_id, "key", "value").await;
        assert_eq!(epoch, region.epoch, "a write carries the epoch of the route");
        assert_eq!(get(&addr, region.region_id, "key").await.unwrap().unwrap(), b"value");
        assert_eq!(get(&addr, region.region_id, "other").await.unwrap(), None);
        put(&addr, region.region_id, "later", "second").await.unwrap();
        let request = ScanRequest { region_id: region.region_id, start: b"l".to_vec(), limit: 0 };
        let scanned = kv(&addr).scan(request).await.unwrap().into_inner();
        assert_eq!(scanned.pairs.len(), 1);
        assert_eq!(scanned.pairs[0].value, b"second");
        assert!(!scanned.more);
    }
    let on_first = regions.iter().filter(|region| region.node_id == 1).count();
    assert_eq!(on_first, 3, "regions go to the node with the fewest");
    let first = cluster.datanode(1).addr();
    let foreign = regions.iter().find(|region| region.node_id == 2).unwrap().region_id;
    for region in [foreign, 424_242] {
        assert!(put(&first, region, "key", "value").await.is_err(), "region {region} is not on node 1");
    }
}

/// Goal: without metasrv a datanode stops writing when its lease ends, and not before; with metasrv back it writes
/// again without help. Method: the only replica is killed and started again.
#[tokio::test(flavor = "multi_thread")]
async fn without_metasrv_regions_turn_read_only_and_recover_by_themselves() {
    let mut cluster = cluster(1, 1).await;
    let region = cluster.create_regions(1, None).await[0].region_id;
    let addr = cluster.datanode(1).addr();
    let before = put_eventually(&addr, region, "key", "1").await;
    cluster.replicas[0].kill();
    let killed_at = now();
    put(&addr, region, "key", "2").await.expect("the lease is still good");
    refused_eventually(&addr, region, Duration::from_secs(5)).await;
    let took = now().since(killed_at);
    assert!(
        took < Duration::from_millis(2_500),
        "writes were accepted {took:?} after the last possible grant of 2 s"
    );
    assert_eq!(get(&addr, region, "key").await.unwrap().unwrap(), b"2", "it can still be read");
    cluster.start_replica(0);
    let after = put_eventually(&addr, region, "key", "3").await;
    assert_eq!(after, before, "the same process goes on under the same epoch");
}

/// Goal: a datanode that was stopped for longer than its lease does not write when it goes on, and recovers without
/// help. Method: SIGSTOP, SIGCONT, and a put that waits in its socket meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_datanode_does_not_write_on_an_old_lease() {
    let mut cluster = cluster(1, 1).await;
    let region = cluster.create_regions(1, None).await[0].region_id;
    let addr = cluster.datanode(1).addr();
    put_eventually(&addr, region, "key", "1").await;
    cluster.datanode(1).process().signal(Signal::STOP);
    eventually(LONG, "the leader counts the lease as over", async || {
        let regions = cluster.regions(0).await.map_err(|status| status.to_string())?;
        if regions[0].writable { Err("it is writable".to_owned()) } else { Ok(()) }
    })
    .await;
    let waiting = tokio::spawn({
        let addr = addr.clone();
        async move { kv(&addr).put(PutRequest { region_id: region, key: "late".into(), value: "2".into() }).await }
    });
    // The request has to be in the socket before the process goes on; connecting needs only the kernel.
    tokio::time::timeout(Duration::from_millis(300), std::future::pending::<()>()).await.unwrap_err();
    cluster.datanode(1).process().signal(Signal::CONT);
    // It is refused, or served under a lease that was renewed after the pause; the epoch is the same either way.
    let late = waiting.await.unwrap();
    if let Err(status) = &late {
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    }
    put_eventually(&addr, region, "key", "3").await;
    assert_eq!(
        get(&addr, region, "late").await.unwrap().is_some(),
        late.is_ok(),
        "a refused put left something behind"
    );
}

/// Goal: a datanode that is killed and started again gets its regions back with their data, under raised epochs, and
/// only when the lease of its predecessor is over. Method: kill -9, start, put.
#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_datanode_gets_its_regions_back_under_a_raised_epoch() {
    let mut cluster = cluster(1, 1).await;
    let regions = cluster.create_regions(3, None).await;
    let addr = cluster.datanode(1).addr();
    let mut before = Vec::new();
    for region in &regions {
        before.push(put_eventually(&addr, region.region_id, "key", "kept").await);
    }
    cluster.datanode(1).process.take().unwrap().kill();
    cluster.start_datanode(1);
    for (region, before) in regions.iter().zip(before) {
        let after = put_eventually(&addr, region.region_id, "key2", "new").await;
        assert!(after > before, "a new process wrote under the epoch of the old one");
        assert_eq!(get(&addr, region.region_id, "key").await.unwrap().unwrap(), b"kept");
    }
    cluster.all_writable(3, LONG).await;
}

/// Goal: a datanode told to end does so in good order. Method: SIGTERM, exit code, and its regions after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_datanode_told_to_end_ends_in_good_order() {
    let mut cluster = cluster(1, 1).await;
    let region = cluster.create_regions(1, None).await[0].region_id;
    let addr = cluster.datanode(1).addr();
    put_eventually(&addr, region, "key", "kept").await;
    let status = cluster.datanode(1).process.take().unwrap().terminate(Duration::from_secs(10)).await;
    assert!(status.success(), "{status}");
    cluster.connected(&[]).await;
    cluster.start_datanode(1);
    put_eventually(&addr, region, "key2", "new").await;
    assert_eq!(get(&addr, region, "key").await.unwrap().unwrap(), b"kept");
}

/// Goal: a node keeps to the installation that it belongs to, also over a restart. Method: a datanode's directory is
/// used again with the replicas of another installation.
#[tokio::test(flavor = "multi_thread")]
async fn a_datanode_refuses_another_installation() {
    let mut first = cluster(1, 1).await;
    let region = first.create_regions(1, None).await[0].region_id;
    let addr = first.datanode(1).addr();
    put_eventually(&addr, region, "key", "kept").await;
    let remembered = first.directory().join("datanode-1/installation");
    eventually(LONG, "the installation is written down", async || std::fs::read_to_string(&remembered)).await;
    assert!(first.datanode(1).process.take().unwrap().terminate(Duration::from_secs(10)).await.success());

    let second = Cluster::builder().etcd(0).start().await;
    let data = first.directory().join("datanode-1").display().to_string();
    let metasrv = second.addrs().join(",");
    let arguments = ["run", "--node-id", "1", "--metasrv", &metasrv, "--grpc-addr", &addr, "--data", &data]
        .map(str::to_owned);
    let program = metasrv_tests::binaries::binary("datanode");
    let strayed = Process::start("datanode-1-strayed", &program, arguments, second.directory());
    eventually(LONG, "it says why it does not connect", async || match strayed.log() {
        log if log.contains("another metasrv installation") => Ok(()),
        log => Err(log),
    })
    .await;
    assert!(second.nodes(0).await.unwrap().is_empty(), "it was let in");
    assert!(put(&addr, region, "key", "lost").await.is_err(), "without a lease nothing is written");
}

/// Goal: of two datanode processes with one id, one serves and the other ends; never do both accept writes.
/// Method: a second process on a directory of its own; every accepted put is counted by process.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_datanodes_with_one_id_one_ends() {
    let mut cluster = cluster(1, 1).await;
    let region = cluster.create_regions(1, None).await[0].region_id;
    let first = cluster.datanode(1).addr();
    let first_epoch = put_eventually(&first, region, "key", "first").await;
    let second = format!("127.0.0.1:{}", free_port());
    let data = cluster.directory().join("second-data").display().to_string();
    let metasrv = cluster.addrs().join(",");
    let arguments = ["run", "--node-id", "1", "--metasrv", &metasrv, "--grpc-addr", &second, "--data", &data]
        .map(str::to_owned);
    let program = metasrv_tests::binaries::binary("datanode");
    let newcomer = Process::start("datanode-1-again", &program, arguments, cluster.directory());

    let mut old = cluster.datanode(1).process.take().unwrap();
    let status = old.ended(LONG).await;
    assert!(!status.success(), "a superseded process says so by its exit code: {status}");
    assert!(old.log().contains("superseded"), "its log says why:\n{}", old.log());
    let second_epoch = put_eventually(&second, region, "key", "second").await;
    assert!(second_epoch > first_epoch);
    drop(newcomer);
}

/// Goal: the leader of three dies and no datanode loses a region: writes go on.
/// Method: real datanodes, kill -9 of the leader, a put in each region.
#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_after_the_leader_was_killed() {
    let mut cluster = cluster(3, 2).await;
    let regions = cluster.create_regions(8, None).await;
    cluster.all_writable(8, LONG).await;
    let first = cluster.leader().await;
    cluster.replicas[first.replica].kill();
    cluster.leader_after(first.term).await;
    cluster.all_writable(8, LONG).await;
    for region in &regions {
        let addr = cluster.datanode(region.node_id).addr();
        let epoch = put_eventually(&addr, region.region_id, "key", "value").await;
        assert_eq!(epoch, region.epoch, "a change of leader changes no epoch");
    }
}

/// Goal: a health check without a shell. Method: `datanode health` asks a datanode that runs, also by way of every address,
/// then one that does not; by flag and by the variable that the datanode itself takes.
#[tokio::test(flavor = "multi_thread")]
async fn health_says_whether_a_datanode_serves() {
    let mut cluster = cluster(1, 1).await;
    let addr = cluster.datanode(1).addr();
    let port = addr.rsplit(':').next().unwrap();
    let ask = |addr: &str| {
        let mut command = std::process::Command::new(metasrv_tests::binaries::binary("datanode"));
        command.arg("health").env("DATANODE_GRPC_ADDR", addr).output().unwrap()
    };
    assert!(ask(&addr).status.success());
    assert!(ask(&format!("0.0.0.0:{port}")).status.success());
    let nobody = ask(&format!("127.0.0.1:{}", free_port()));
    assert_eq!(nobody.status.code(), Some(1));
    let said = String::from_utf8_lossy(&nobody.stderr);
    assert!(said.contains("does the datanode run"), "{said}");
}
