//! Followers hold the state: what they answer without leading, what they miss (nothing), and what a new leader begins
//! with.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use metasrv::clock::SystemClock;
use metasrv::etcd::store::EtcdStore;
use metasrv::etcd::watch::EtcdSource;
use metasrv::keys::Keys;
use metasrv::metrics::Metrics;
use metasrv::mirror::Mirror;
use metasrv::mirror::follow::{Source as _, WatchEnd, follow};
use metasrv::mirror::state::{Event, State};
use metasrv::record::encode;
use metasrv::store::{Change, Outcome, Store as _, Txn};
use metasrv_core::id::RegionId;
use metasrv_proto::admin::{
    FollowerView, GetStatusRequest, ListNodesRequest, ListRegionsRequest, Node, Region, RouteRecord,
};
use metasrv_tests::cluster::Cluster;
use metasrv_tests::etcd::Etcd;
use metasrv_tests::fleet::Fleet;
use metasrv_tests::replica::http_exchange;
use metasrv_tests::wait::{eventually, within};
use tokio::sync::watch;
use tonic::Code;

const LONG: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(200);

/// The regions as a replica has seen them, and where it stands.
async fn seen_regions(
    cluster: &Cluster,
    replica: usize,
) -> Result<(Vec<Region>, Option<FollowerView>), String> {
    let request = ListRegionsRequest { node_id: None, allow_follower: true };
    let answer = cluster.replicas[replica].admin().list_regions(request).await;
    let mut chunks = answer.map_err(|status| status.to_string())?.into_inner();
    let (mut regions, mut view) = (Vec::new(), None);
    while let Some(chunk) = chunks.message().await.map_err(|status| status.to_string())? {
        view = chunk.follower;
        regions.extend(chunk.regions);
    }
    Ok((regions, view))
}

async fn seen_nodes(cluster: &Cluster, replica: usize) -> Result<Vec<Node>, String> {
    let answer =
        cluster.replicas[replica].admin().list_nodes(ListNodesRequest { allow_follower: true }).await;
    let mut chunks = answer.map_err(|status| status.to_string())?.into_inner();
    let mut nodes = Vec::new();
    while let Some(chunk) = chunks.message().await.map_err(|status| status.to_string())? {
        nodes.extend(chunk.nodes);
    }
    Ok(nodes)
}

/// What leader and follower know alike of a region.
fn route(region: &Region) -> (u64, u64, String, u64, u64, String) {
    let (addr, reason) = (region.node_addr.clone(), region.reason.clone());
    (region.region_id, region.node_id, addr, region.epoch, region.created_at_ms, reason)
}

/// What leader and follower know alike of a node.
fn identity(node: &Node) -> (u64, String, String, u64, u64, u64, String) {
    let (role, addr, host) = (node.role.clone(), node.addr.clone(), node.hostname.clone());
    (node.node_id, role, addr, node.node_epoch, node.incarnation_nonce, node.regions, host)
}

/// Waits until every follower has seen exactly what the leader lists.
async fn followers_agree(cluster: &Cluster, regions: usize, nodes: usize) {
    eventually(LONG, "followers have seen what the leader lists", async || {
        let leader = cluster.leader().await.replica;
        let text = |status: tonic::Status| status.to_string();
        let (mut expected, known) =
            (cluster.regions(leader).await.map_err(text)?, cluster.nodes(leader).await.map_err(text)?);
        expected.sort_by_key(|region| region.region_id);
        for follower in (0..cluster.replicas.len()).filter(|replica| *replica != leader) {
            let (seen, view) = seen_regions(cluster, follower).await?;
            let same = seen.len() == regions && seen.iter().map(route).eq(expected.iter().map(route));
            let names = seen_nodes(cluster, follower).await?;
            let alike = names.len() == nodes && names.iter().map(identity).eq(known.iter().map(identity));
            if !same || !alike || view.is_none() {
                return Err(format!("{} regions, {} nodes, {view:?}", seen.len(), names.len()));
            }
        }
        Ok(())
    })
    .await;
}

/// Goal: a follower lists what the leader does, as far as the store has it, and says that it is a follower; who did not
/// allow that is sent to the leader. Method: 300 regions in ten calls, node leases under way; the lists are compared.
#[tokio::test(flavor = "multi_thread")]
async fn followers_list_what_the_leader_lists() {
    let cluster = Cluster::builder().replicas(3).timing("5s", "3s", "200ms").start().await;
    let _fleet = Fleet::start(1..=6, &cluster.addrs(), INTERVAL);
    cluster.connected(&Vec::from_iter(1..=6)).await;
    for _ in 0..10 {
        cluster.create_regions(30, None).await;
    }
    followers_agree(&cluster, 300, 6).await;
    let leader = cluster.leader().await.replica;
    let (_, view) = seen_regions(&cluster, leader).await.unwrap();
    assert_eq!(view, None, "the leader answers as a leader, whatever is allowed");
    assert_eq!(cluster.replicas[leader].ask_leader().await.unwrap().revision, 0);
    for follower in (0..3).filter(|replica| *replica != leader) {
        let replica = &cluster.replicas[follower];
        let (regions, view) = seen_regions(&cluster, follower).await.unwrap();
        assert!(regions.iter().all(|region| region.state == "unknown" && !region.writable));
        let revision = view.unwrap().revision;
        let refused = cluster.regions(follower).await.expect_err("it was not allowed");
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.metadata().contains_key("metasrv-leader"), "{refused}");
        assert!(replica.ask_leader().await.unwrap().revision >= revision, "revisions do not go back");
        let request = GetStatusRequest { allow_follower: true };
        let status = replica.admin().get_status(request).await.unwrap().into_inner();
        assert_eq!((status.nodes, status.regions), (6, 300), "{status:?}");
        assert!(status.follower.unwrap().revision >= revision);
        let bare = replica.status().await.unwrap();
        assert_eq!((bare.nodes, bare.regions), (0, 0), "{bare:?}");
        let ready = replica.http("/readyz?verbose").await.unwrap();
        assert!(ready.contains("mirror") && ready.contains("at revision"), "{ready}");
    }
}

/// Goal: without a leader a follower still says what it knows, and how old that is. Method: etcd falls silent and the
/// leader with it; the follower's list stays, and its age grows.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_leader_a_follower_says_how_old_its_view_is() {
    let cluster = Cluster::builder().replicas(2).timing("2s", "2s", "200ms").start().await;
    let _fleet = Fleet::start(1..=2, &cluster.addrs(), INTERVAL);
    cluster.connected(&[1, 2]).await;
    cluster.create_regions(8, None).await;
    followers_agree(&cluster, 8, 2).await;
    let leader = cluster.leader().await.replica;
    let follower = 1 - leader;
    let (before, _) = seen_regions(&cluster, follower).await.unwrap();
    cluster.etcd.as_ref().unwrap().pause_member(0);
    let view = eventually(LONG, "the view is seconds old, and there is no leader", async || {
        let status = cluster.replicas[leader].status().await.map_err(|status| status.to_string())?;
        let (regions, view) = seen_regions(&cluster, follower).await?;
        assert_eq!(regions, before, "what was known is forgotten");
        let view = view.ok_or("it leads")?;
        if view.as_of_ms_ago >= 3_000 && status.role != "leader" {
            return Ok(view);
        }
        Err(format!("{view:?}, {}", status.role))
    })
    .await;
    cluster.etcd.as_ref().unwrap().resume_member(0);
    cluster.leader_after(1).await;
    eventually(LONG, "whoever follows is current again", async || {
        let follower = 1 - cluster.leader().await.replica;
        match seen_regions(&cluster, follower).await? {
            (regions, Some(now)) if now.as_of_ms_ago < 2_000 && regions.len() == 8 => {
                if now.revision > view.revision { Ok(()) } else { Err(format!("{now:?} after {view:?}")) }
            }
            (regions, view) => Err(format!("{} regions, {view:?}", regions.len())),
        }
    })
    .await;
}

/// Goal: what was created right before the leader was killed is served by the next one, which has it from its mirror; and
/// a replica that led has a mirror again afterwards. Method: kill -9 at once after the answer; then a transfer.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_begins_with_its_mirror_and_misses_nothing() {
    let mut cluster = Cluster::builder().replicas(3).timing("10s", "3s", "200ms").start().await;
    let fleet = Fleet::start(1..=4, &cluster.addrs(), INTERVAL);
    cluster.connected(&[1, 2, 3, 4]).await;
    cluster.create_regions(40, None).await;
    followers_agree(&cluster, 40, 4).await;
    let first = cluster.leader().await;
    let last = cluster.create_regions(4, None).await;
    cluster.replicas[first.replica].kill();
    let second = cluster.leader_after(first.term).await;
    let regions = cluster.regions(second.replica).await.unwrap();
    assert_eq!(regions.len(), 44);
    for created in &last {
        assert!(regions.iter().any(|region| region.region_id == created.region_id), "{created:?} is lost");
    }
    fleet.wait_leased(11, second.term).await;
    let from = async |replica: usize, state: &str| {
        let name = format!("metasrv_takeovers_total{{state=\"{state}\"}}");
        cluster.replicas[replica].metric(&name).await.unwrap_or_default()
    };
    assert_eq!(from(second.replica, "mirror").await, 1.0);
    assert_eq!(from(second.replica, "list").await, 0.0);

    let (mut admin, request) = (cluster.replicas[second.replica].admin(), Default::default());
    within(LONG, "the transfer", admin.transfer_leadership(tonic::Request::new(request))).await.unwrap();
    let third = cluster.leader_after(second.term).await;
    assert_eq!(from(third.replica, "mirror").await, 1.0);
    fleet.wait_leased(11, third.term).await;
    eventually(LONG, "the replica that led has a mirror again", async || {
        match seen_regions(&cluster, second.replica).await? {
            (regions, Some(_)) if regions.len() == 44 => Ok(()),
            (regions, view) => Err(format!("{} regions, {view:?}", regions.len())),
        }
    })
    .await;
}

/// A mirror in this process.
struct Mirrored {
    mirror: Mirror,
    metrics: Arc<Metrics>,
    store: EtcdStore,
    keys: Keys,
    _leader: watch::Sender<Option<Arc<metasrv::leader::Leader>>>,
    running: tokio::task::JoinHandle<()>,
}

impl Drop for Mirrored {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Mirrored {
    fn on(etcd: &Etcd) -> Mirrored {
        let keys = Keys::new("/mirror");
        let metrics = Arc::new(Metrics::new());
        let mirror = Mirror::new(keys.clone(), Arc::new(SystemClock), Arc::clone(&metrics));
        let source = Arc::new(EtcdSource::new(&etcd.endpoints(), &keys).unwrap());
        let (leader, seen) = watch::channel(None);
        let running = tokio::spawn(follow(mirror.clone(), source, seen));
        let store = EtcdStore::new(&etcd.endpoints()).unwrap();
        Mirrored { mirror, metrics, store, keys, _leader: leader, running }
    }

    /// Commits, and once more as long as the answer is lost; the changes may be made twice.
    async fn commit(&self, changes: Vec<Change>) -> i64 {
        let outcome = eventually(LONG, "the store takes a change", async || {
            self.store.commit(Txn { compares: vec![], changes: changes.clone() }).await
        })
        .await;
        match outcome {
            Outcome::Done { revision } | Outcome::Refused { revision, .. } => revision,
        }
    }

    fn put(&self, region: u64) -> Change {
        let value = encode(&RouteRecord { node_id: region, ..RouteRecord::default() });
        Change::Put { key: self.keys.region(RegionId(region)), value }
    }

    fn delete(&self, region: u64) -> Change {
        Change::Delete { key: self.keys.region(RegionId(region)) }
    }

    /// Waits until the mirror is what a list shows; returns how long that took.
    async fn agrees(&self) -> Duration {
        let since = tokio::time::Instant::now();
        eventually(LONG, "the mirror is what the store has", async || {
            let page = self.store.list("/mirror/v1/").await.map_err(|error| error.to_string())?;
            let Some((mirrored, _)) = self.mirror.read() else { return Err("it holds nothing".to_owned()) };
            let listed = State::of(&self.keys, mirrored.revision, &page.records);
            if mirrored == listed { Ok(()) } else { Err(format!("{:?}", mirrored.difference(&listed))) }
        })
        .await;
        since.elapsed()
    }
}

async fn compact(etcd: &Etcd, revision: i64) {
    let endpoint = etcd.endpoints().remove(0);
    let addr = endpoint.strip_prefix("http://").unwrap();
    let body = format!(r#"{{"revision":"{revision}"}}"#);
    let answer = http_exchange(addr, "POST", "/v3/kv/compaction", &body).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// Goal: what a watch can deliver no more is not missed, deletes above all. Method: the mirror's task is ended while it
/// is current; what happens next is compacted away; another task goes on with what the mirror holds. And etcd's answer to
/// a watch on what is compacted is understood.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_compacted_away_is_not_missed() {
    let directory = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(1, directory.path()).await;
    let mirrored = Mirrored::on(&etcd);
    let old = mirrored.commit((1..=100).map(|region| mirrored.put(region)).collect()).await;
    mirrored.agrees().await;
    mirrored.running.abort();
    let stopped_at = mirrored.mirror.standing().unwrap().revision;
    mirrored.commit((1..=50).map(|region| mirrored.delete(region)).collect()).await;
    let last = mirrored.commit(vec![mirrored.put(101), mirrored.put(60)]).await;
    compact(&etcd, last).await;
    assert_eq!(mirrored.mirror.standing().unwrap().revision, stopped_at, "it had not been stopped");

    let source = EtcdSource::new(&etcd.endpoints(), &mirrored.keys).unwrap();
    let mut lost = source.watch(old).await.unwrap();
    let ended = within(LONG, "etcd says that it is compacted", async {
        loop {
            if let Err(end) = lost.next().await {
                return end;
            }
        }
    });
    assert_eq!(ended.await, WatchEnd::Compacted);

    let source = Arc::new(EtcdSource::new(&etcd.endpoints(), &mirrored.keys).unwrap());
    let (_leader, seen) = watch::channel(None);
    let again = tokio::spawn(follow(mirrored.mirror.clone(), source, seen));
    mirrored.agrees().await;
    assert_eq!(mirrored.mirror.read().unwrap().0.routes.len(), 51);
    again.abort();
}

/// Goal: a watch begins after the revision of its list, tells puts from deletes, gives each change its revision, and says
/// now and then that it lives. Method: a watch on a real etcd, from a revision in the past.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_delivers_each_change_after_its_revision() {
    let directory = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(1, directory.path()).await;
    let mirrored = Mirrored::on(&etcd);
    let first = mirrored.commit(vec![mirrored.put(1)]).await;
    let second = mirrored.commit(vec![mirrored.put(2), mirrored.delete(1)]).await;
    let stats = Change::Put { key: "/mirror/v1/stats/1".to_owned(), value: vec![0; 1_000] };
    let third = mirrored.commit(vec![stats]).await;
    let source = EtcdSource::new(&etcd.endpoints(), &mirrored.keys).unwrap();
    assert_eq!(source.revision().await.unwrap(), third);
    let mut watch = source.watch(first).await.unwrap();
    let (mut events, mut alive) = (Vec::new(), 0);
    within(LONG, "two events and two signs of life", async {
        while events.len() < 2 || alive < 2 {
            let heard = watch.next().await.unwrap();
            alive += usize::from(heard.events.is_empty() && heard.member_revision == third);
            events.extend(heard.events);
        }
    })
    .await;
    let deleted = Event::Deleted { key: mirrored.keys.region(RegionId(1)), revision: second };
    assert_eq!(events.len(), 2, "neither what was before nor what is not mirrored: {events:?}");
    assert!(events.contains(&deleted), "{events:?}");
    assert!(events.iter().all(|event| event.revision() == second), "{events:?}");
}

/// Goal: a mirror whose etcd member falls silent goes on with another one, within seconds. Method: three members, each
/// stopped in its turn while the state changes.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_member_is_left_for_another_one() {
    let directory = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(3, directory.path()).await;
    let mirrored = Mirrored::on(&etcd);
    mirrored.commit((1..=20).map(|region| mirrored.put(region)).collect()).await;
    mirrored.agrees().await;
    for member in 0..3 {
        etcd.pause_member(member);
        let region = 100 + u64::try_from(member).unwrap();
        let change = u64::try_from(member).unwrap() + 1;
        mirrored.commit(vec![mirrored.put(region), mirrored.delete(change)]).await;
        // Three seconds of silence, and a connection; the list beside it goes through the same outage.
        let took = mirrored.agrees().await;
        assert!(took < Duration::from_secs(8), "member {member}: {took:?}");
        etcd.resume_member(member);
        etcd.ready().await;
    }
    let silent = mirrored.metrics.mirror_restarts.with_label_values(&["silent"]).get();
    assert!(silent >= 1, "no watch was ever at a stopped member");
}
