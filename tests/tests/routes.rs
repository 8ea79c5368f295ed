//! Routes as frontends watch them: from any replica, through a change of leader, without a gap and never back.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use metasrv::etcd::store::EtcdStore;
use metasrv::keys::Keys;
use metasrv::record;
use metasrv::store::Store as _;
use metasrv_client::{MetaClient, MetaClientConfig, RouteCache};
use metasrv_proto::admin::routes_client::RoutesClient;
use metasrv_proto::admin::{RouteRecord, WatchRoutesRequest, WatchRoutesResponse};
use metasrv_proto::meta::Role;
use metasrv_tests::binaries::binary;
use metasrv_tests::chaos::route_watch::RouteWatch;
use metasrv_tests::cluster::Cluster;
use metasrv_tests::fleet::Fleet;
use metasrv_tests::node::{FakeNode, Identity};
use metasrv_tests::replica::channel;
use metasrv_tests::wait::{eventually, within};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tonic::{Code, Streaming};

const LONG: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(200);

fn cache(addrs: &[String]) -> RouteCache {
    MetaClient::try_new(MetaClientConfig::new(addrs, Role::Frontend, 0)).unwrap().route_cache(0)
}

/// Node and epoch of each region, as the store has it.
async fn stored(cluster: &Cluster) -> BTreeMap<u64, (u64, u64)> {
    let keys = Keys::new("/metasrv");
    let store = EtcdStore::new(&cluster.etcd.as_ref().unwrap().endpoints()).unwrap();
    let page = store.list(&keys.regions()).await.unwrap();
    let routes = page.records.iter().map(|stored| {
        let route: RouteRecord = record::decode(stored).unwrap();
        (keys.parse_region(&stored.key).unwrap().0, (route.node_id, route.epoch))
    });
    routes.collect()
}

/// The same, as a cache has it.
fn cached(cache: &RouteCache) -> BTreeMap<u64, (u64, u64)> {
    cache.all().iter().map(|route| (route.region_id, (route.node_id, route.epoch))).collect()
}

async fn agrees(cluster: &Cluster, cache: &RouteCache) {
    eventually(LONG, "a cache has what the store has", async || {
        let (expected, found) = (stored(cluster).await, cached(cache));
        if found == expected {
            Ok(())
        } else {
            Err(format!("{found:?}, not {expected:?}: {:?}", cache.counts()))
        }
    })
    .await;
}

/// Goal: frontends see every change soon after its commit, on whichever replica, and lose nothing when the leader dies,
/// also those that listened to it. Method: regions are created and raised (their nodes restart) before, during and after a
/// kill -9 of the leader; a watch on etcd says what was committed, and when. Then the dead replica comes back.
#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_seen_across_the_death_of_the_leader() {
    let mut cluster = Cluster::builder().replicas(3).timing("2s", "2s", "200ms").start().await;
    let etcd = cluster.etcd.as_ref().unwrap().endpoints();
    let fleet = Fleet::start(1..=3, &cluster.addrs(), INTERVAL);
    cluster.connected(&[1, 2, 3]).await;
    cluster.create_regions(10, None).await;
    let watch = RouteWatch::start(8, &cluster.addrs(), &etcd, "/metasrv");
    for cache in watch.frontends() {
        cache.ready(LONG).await.unwrap();
        assert_eq!(cache.len(), 10, "all that was there is in the first snapshot");
    }
    for replica in 0..3 {
        watch.replica(replica).ready(LONG).await.unwrap();
    }
    watch.hears_commits().await;
    let leader = cluster.leader().await;
    let killed = cluster.replicas[leader.replica].addr();
    // By chance none of eight listens to the leader in one of 25 runs: then one more is needed that does.
    let listener = loop {
        let listener = cache(&cluster.addrs());
        listener.ready(LONG).await.unwrap();
        if listener.replica().as_ref() == Some(&killed) {
            break listener;
        }
    };
    for _ in 0..5 {
        cluster.create_regions(20, None).await;
    }
    cluster.replicas[leader.replica].kill();
    // New processes of the nodes: the next leader raises every epoch.
    drop(fleet);
    let _fleet = Fleet::start(1..=3, &cluster.addrs(), INTERVAL);
    cluster.leader_after(leader.term).await;
    cluster.connected(&[1, 2, 3]).await;
    for _ in 0..5 {
        cluster.create_regions(20, None).await;
    }
    eventually(LONG, "every region is there, and those from before the fall are raised", async || {
        let stored = stored(&cluster).await;
        let raised = stored.values().filter(|(_, epoch)| *epoch >= 2).count();
        if stored.len() == 210 && raised >= 110 { Ok(()) } else { Err(format!("{}, {raised}", stored.len())) }
    })
    .await;
    for cache in watch.frontends().iter().chain([&listener]) {
        agrees(&cluster, cache).await;
        assert!(cache.age().is_some());
        let counts = cache.counts();
        assert_eq!((counts.snapshots, counts.refused, counts.set_backs), (1, 0, 0), "it resumed: {counts:?}");
    }
    assert!(listener.counts().streams >= 2 && listener.replica().is_some_and(|replica| replica != killed));
    // Who writes down what a frontend saw may be a moment behind the frontend.
    eventually(LONG, "every commit was seen by every frontend", async || {
        let figures = watch.figures();
        let complete = figures.commits >= 310 && figures.unseen.is_empty();
        if complete { Ok(()) } else { Err(format!("200 created, 110 raised: {figures:?}")) }
    })
    .await;
    let figures = watch.figures();
    assert_eq!(figures.went_back, 0, "{figures:?}");
    println!("routes seen: {figures:?}");

    cluster.start_replica(leader.replica);
    agrees(&cluster, watch.replica(leader.replica)).await;
    for replica in 0..3 {
        agrees(&cluster, watch.replica(replica)).await;
    }
    assert_eq!(watch.figures().went_back, 0);
}

/// Goal: a route has its node's address, also after the node has moved.
#[tokio::test(flavor = "multi_thread")]
async fn routes_follow_the_address_of_their_node() {
    let cluster = Cluster::builder().timing("5s", "3s", "200ms").start().await;
    let addr = cluster.replicas[0].addr();
    let mut node = FakeNode::new(Identity::datanode(1));
    node.connect(&addr).await.unwrap();
    let region = cluster.create_regions(1, None).await[0].region_id;
    let cache = cache(&cluster.addrs());
    let has = |addr: String| {
        move |route: Option<&metasrv_client::Route>| route.is_some_and(|it| *it.node_addr == *addr)
    };
    cache.wait_for(region, LONG, has(node.identity.addr.clone())).await.unwrap();
    node.disconnect();
    let mut moved = FakeNode::new(Identity { addr: "127.0.0.1:4711".to_owned(), ..Identity::datanode(1) });
    moved.connect(&addr).await.unwrap();
    let route = cache.wait_for(region, LONG, has("127.0.0.1:4711".to_owned())).await.unwrap().unwrap();
    assert_eq!(route.node_id, 1);
}

/// Goal: a replica that does not hear of changes says nothing rather than something old; what is known stays known.
/// Method: etcd's only member is stopped in its tracks, and goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_does_not_hear_of_changes_sends_its_watchers_away() {
    let cluster = Cluster::builder().replicas(2).timing("5s", "3s", "200ms").start().await;
    let _fleet = Fleet::start(1..=1, &cluster.addrs(), INTERVAL);
    cluster.connected(&[1]).await;
    cluster.create_regions(3, None).await;
    let cache = cache(&cluster.addrs());
    cache.ready(LONG).await.unwrap();
    let etcd = cluster.etcd.as_ref().unwrap();
    etcd.pause_member(0);
    eventually(LONG, "no replica is listened to", async || match cache.replica() {
        None if cache.age().is_some_and(|age| age > Duration::from_secs(2)) => Ok(()),
        replica => Err(format!("{replica:?} {:?}", cache.age())),
    })
    .await;
    assert_eq!(cache.len(), 3);
    etcd.resume_member(0);
    eventually(LONG, "a replica is listened to", async || match cache.age() {
        Some(age) if age < Duration::from_secs(2) && cache.replica().is_some() => Ok(()),
        age => Err(format!("{age:?} {:?}", cache.replica())),
    })
    .await;
    cluster.leader().await;
    cluster.connected(&[1]).await;
    cluster.create_regions(2, None).await;
    agrees(&cluster, &cache).await;
}

/// Goal: embedded mode tells routes too, and a restart is nothing but a pause. Method: killed, and started again.
#[tokio::test(flavor = "multi_thread")]
async fn embedded_mode_tells_routes_as_well() {
    let mut cluster = Cluster::builder().etcd(0).timing("2s", "2s", "200ms").start().await;
    let fleet = Fleet::start(1..=2, &cluster.addrs(), INTERVAL);
    cluster.connected(&[1, 2]).await;
    let cache = cache(&cluster.addrs());
    cache.ready(LONG).await.unwrap();
    assert!(cache.is_empty());
    for count in 1..=10 {
        cluster.create_regions(20, None).await;
        let last = count * 20;
        within(LONG, "the last one is seen", cache.wait_for(last, LONG, |route| route.is_some()))
            .await
            .unwrap();
    }
    assert_eq!((cache.len(), cache.counts().snapshots), (200, 1), "one after another");
    let before = cache.revision();
    cluster.replicas[0].kill();
    cluster.start_replica(0);
    cluster.leader().await;
    drop(fleet);
    let _fleet = Fleet::start(1..=2, &cluster.addrs(), INTERVAL);
    let raised = |route: Option<&metasrv_client::Route>| route.is_some_and(|route| route.epoch >= 2);
    for region in 1..=200 {
        cache.wait_for(region, LONG, raised).await.unwrap();
    }
    assert!(cache.revision() > before);
    assert_eq!(cache.counts().refused, 0);
}

async fn open(addr: &str, streams: usize) -> Result<Vec<Streaming<WatchRoutesResponse>>, tonic::Status> {
    let mut client = RoutesClient::new(channel(addr));
    let mut opened = Vec::new();
    for _ in 0..streams {
        opened.push(client.watch(WatchRoutesRequest::default()).await?.into_inner());
    }
    Ok(opened)
}

/// Goal: a crowd of watchers is bounded, whoever does not read costs nobody else anything, and places come back.
/// Method: 1,024 streams of which none is read, and one more.
#[tokio::test(flavor = "multi_thread")]
async fn watchers_beyond_the_limit_are_refused_and_places_come_back() {
    let cluster = Cluster::builder().etcd(0).timing("5s", "3s", "200ms").start().await;
    let addr = cluster.replicas[0].addr();
    let mut crowd = Vec::new();
    for _ in 0..16 {
        crowd.push(open(&addr, 64).await.unwrap());
    }
    let refused = open(&addr, 1).await.expect_err("there is no place");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert_eq!(cluster.replicas[0].metric("metasrv_route_watchers").await, Ok(1_024.0));
    assert_eq!(cluster.replicas[0].status().await.unwrap().role, "leader");
    drop(crowd);
    eventually(LONG, "there is a place", async || open(&addr, 1).await.map(drop)).await;
}

/// Goal: an operator sees what frontends see. Method: the lines of `route watch` while regions are created.
#[tokio::test(flavor = "multi_thread")]
async fn metactl_lists_routes_and_watches_them() {
    let cluster = Cluster::builder().etcd(0).timing("5s", "3s", "200ms").start().await;
    let mut node = FakeNode::new(Identity::datanode(1));
    node.connect(&cluster.replicas[0].addr()).await.unwrap();
    cluster.create_regions(2, None).await;
    let metactl = |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(binary("metactl"));
        command.args(["--metasrv", &cluster.addrs().join(",")]).args(arguments).kill_on_drop(true);
        command
    };
    let listed =
        within(LONG, "metactl ends", metactl(&["route", "list", "-o", "json"]).output()).await.unwrap();
    let rows: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(rows.as_array().map(Vec::len), Some(2), "{rows}");
    assert_eq!((rows[1]["region_id"].as_u64(), rows[1]["node_id"].as_u64()), (Some(2), Some(1)));
    assert_eq!(rows[1]["node_addr"].as_str(), Some(node.identity.addr.as_str()));
    let missing =
        within(LONG, "metactl ends", metactl(&["route", "list", "--region", "9"]).output()).await.unwrap();
    assert_eq!(missing.status.code(), Some(4), "{missing:?}");

    let mut watching = metactl(&["route", "watch", "-o", "jsonl"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = within(LONG, "a line", lines.next_line()).await.unwrap().unwrap();
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        (line["change"].as_str().unwrap().to_owned(), line["region_id"].as_u64().unwrap())
    };
    assert_eq!(next().await, ("known".to_owned(), 1));
    assert_eq!(next().await, ("known".to_owned(), 2));
    cluster.create_regions(1, None).await;
    assert_eq!(next().await, ("changed".to_owned(), 3));
}
