//! The life of heartbeat streams: who is told what, and which stream counts.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use metasrv::etcd::store::EtcdStore;
use metasrv::store::Store as _;
use metasrv_proto::admin::{TransferLeadershipRequest, instruction};
use metasrv_proto::meta::{HeartbeatResponse, MailboxMessage, mailbox_message};
use metasrv_proto::{code, meta};
use metasrv_tests::cluster::Cluster;
use metasrv_tests::node::{FakeNode, HeartbeatStream, Identity, error_code};
use metasrv_tests::replica::channel;
use metasrv_tests::wait::{eventually, now, within};

/// Beats until exactly these regions are granted by one heartbeat.
async fn granted(node: &mut FakeNode, regions: &[u64], limit: Duration) {
    let what = format!("regions {regions:?} are granted to node {}", node.identity.node_id);
    eventually(limit, &what, async || {
        let answer = node.beat().await.map_err(|status| status.to_string())?;
        let mut granted = answer.granted();
        granted.sort_unstable();
        if granted == regions {
            Ok(())
        } else {
            Err(format!("granted {granted:?}, error {}", answer.error_code()))
        }
    })
    .await;
}

fn error(response: &HeartbeatResponse) -> meta::Error {
    response.header.clone().and_then(|header| header.error).expect("an error in the header")
}

/// Goal: a node knows who leads next, so that it can be connected to that replica before. Method: three replicas; the one that
/// the first answer names is next in the queue, by what happens: it is killed, and another answer names the third; then the
/// leader is killed, and the third leads.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_told_who_is_next_to_lead() {
    let mut cluster = Cluster::builder().replicas(3).timing("5s", "3s", "200ms").start().await;
    let leader = cluster.leader().await;
    let index = |cluster: &Cluster, addr: &str| {
        cluster.replicas.iter().position(|replica| replica.addr() == addr).expect("a replica of this cluster")
    };
    let told = |response: &HeartbeatResponse| {
        response.heartbeat_config.as_ref().and_then(|config| config.standby.clone()).map(|peer| peer.addr)
    };
    let mut node = FakeNode::new(Identity::datanode(1));
    let mut first = None;
    let addr = cluster.replicas[leader.replica].addr();
    // The last replica may enter the queue after the stream was opened.
    let mut answer = node.connect(&addr).await.unwrap();
    within(Duration::from_secs(10), "somebody is named", async {
        while first.is_none() {
            first = told(&answer.response);
            answer = node.beat().await.unwrap();
        }
    })
    .await;
    let second = index(&cluster, &first.expect("a standby"));
    assert_ne!(second, leader.replica);
    assert!(told(&node.beat().await.unwrap().response).is_none(), "it is said once");
    let third = (0..3).find(|index| ![second, leader.replica].contains(index)).expect("a third");
    cluster.replicas[second].kill();
    within(Duration::from_secs(15), "the third is named", async {
        loop {
            let named = told(&node.beat().await.unwrap().response);
            if named.is_some_and(|addr| index(&cluster, &addr) == third) {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    cluster.replicas[leader.replica].kill();
    assert_eq!(cluster.leader_after(leader.term).await.replica, third);
}

/// Goal: a follower helps a node on its way. Method: AskLeader and a stream to a follower; both name the leader.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_names_the_leader_and_closes_the_stream() {
    let cluster = Cluster::builder().replicas(3).start().await;
    let leader = cluster.leader().await;
    let leader_addr = cluster.replicas[leader.replica].addr();
    for follower in cluster.replicas.iter().filter(|replica| replica.addr() != leader_addr) {
        eventually(Duration::from_secs(5), "the follower names the leader", async || {
            let answer = follower.ask_leader().await.map_err(|status| status.to_string())?;
            let term = answer.header.map_or(0, |header| header.term);
            match answer.leader {
                Some(peer) if peer.addr == leader_addr && term == leader.term => Ok(()),
                other => Err(format!("{other:?} of term {term}")),
            }
        })
        .await;
        let mut node = FakeNode::new(Identity::datanode(1));
        let answer = node.connect(&follower.addr()).await.unwrap();
        assert_eq!(answer.error_code(), code::NOT_LEADER);
        let header = answer.response.header.clone().expect("a header");
        assert_eq!(header.leader.expect("a hint").addr, leader_addr);
        assert_eq!(header.term, leader.term);
        assert!(answer.response.region_lease.is_none(), "a follower grants nothing");
        assert!(node.pushed().await.unwrap().is_none(), "then the stream ends, without error");
    }
}

/// Goal: frontends get an id from metasrv, unique across leaders, and keep it where they bring it back.
/// Method: two frontends, a transfer of leadership, two more; the first returns with its id.
#[tokio::test(flavor = "multi_thread")]
async fn a_frontend_is_given_an_id_that_is_unique_across_leaders() {
    let cluster = Cluster::builder().replicas(2).start().await;
    let mut ids = Vec::new();
    let mut first_frontend = None;
    for _ in 0..2 {
        let leader = cluster.leader().await;
        let addr = cluster.replicas[leader.replica].addr();
        for _ in 0..2 {
            let mut frontend = FakeNode::new(Identity::frontend());
            let answer = frontend.connect(&addr).await.unwrap();
            assert_eq!(answer.error_code(), 0);
            assert!(answer.response.region_lease.is_none(), "a frontend hosts no regions");
            assert_ne!(frontend.identity.node_id, 0, "the response tells the id");
            // A later heartbeat may repeat the id that was given.
            frontend.beat().await.unwrap();
            ids.push(frontend.identity.node_id);
            first_frontend.get_or_insert(frontend);
        }
        let request = TransferLeadershipRequest::default();
        transfer(&cluster, request).await;
        cluster.leader_after(leader.term).await;
    }
    let mut unique = ids.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), ids.len(), "an id was given twice: {ids:?}");

    let mut frontend = first_frontend.expect("there were frontends");
    let leader = cluster.leader().await;
    frontend.connect(&cluster.replicas[leader.replica].addr()).await.unwrap();
    assert_eq!(frontend.identity.node_id, ids[0], "a frontend that brings its id keeps it");
    let mut stranger = FakeNode::new(Identity { node_id: 77, ..Identity::frontend() });
    let refusal =
        stranger.connect(&cluster.replicas[leader.replica].addr()).await.expect_err("not given by metasrv");
    assert_eq!(refusal.code(), tonic::Code::InvalidArgument);
}

/// Goal: a frontend that left leaves nothing behind, in the leader or in the store, however often one comes and goes.
/// Method: frontends without an id connect and go, again and again; nodes and leases are listed.
#[tokio::test(flavor = "multi_thread")]
async fn a_frontend_that_left_is_forgotten() {
    let cluster = Cluster::builder().start().await;
    let listed = async |expected: usize| {
        eventually(Duration::from_secs(10), "frontends are listed", async || {
            let nodes = cluster.nodes(0).await.map_err(|status| status.to_string())?;
            let persisted = nodes.iter().filter(|node| node.persisted_term == 1).count();
            if nodes.len() == expected && persisted == expected { Ok(()) } else { Err(format!("{nodes:?}")) }
        })
        .await;
    };
    let mut stays = FakeNode::new(Identity::frontend());
    stays.connect(&cluster.replicas[0].addr()).await.unwrap();
    for _ in 0..3 {
        let mut frontend = FakeNode::new(Identity::frontend());
        frontend.connect(&cluster.replicas[0].addr()).await.unwrap();
        listed(2).await;
        frontend.disconnect();
        listed(1).await;
    }
    let store = EtcdStore::new(&cluster.etcd.as_ref().unwrap().endpoints()).unwrap();
    eventually(Duration::from_secs(10), "one lease is left", async || {
        match store.list("/metasrv/v1/lease/frontend/").await.unwrap().records.len() {
            1 => Ok(()),
            leases => Err(format!("{leases} are")),
        }
    })
    .await;
    stays.beat().await.unwrap();
}

/// Transfers leadership as soon as there is somebody to transfer it to.
async fn transfer(cluster: &Cluster, request: TransferLeadershipRequest) {
    eventually(Duration::from_secs(20), "leadership is transferred", async || {
        let leader = cluster.leader().await;
        let mut admin = cluster.replicas[leader.replica].admin();
        admin.transfer_leadership(request.clone()).await.map(|_| ()).map_err(|status| status.to_string())
    })
    .await;
}

/// Goal: of two live processes with one id, the one with the higher node_epoch wins; the other is told why, is
/// granted nothing any more, and cannot come back. Method: both stream at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_processes_with_one_id_the_newer_one_wins() {
    let cluster = Cluster::builder().timing("2s", "1s", "200ms").start().await;
    let addr = cluster.replicas[0].addr();
    let mut older = FakeNode::new(Identity::datanode(4));
    older.connect(&addr).await.unwrap();
    let region = cluster.create_regions(1, Some(4)).await[0].region_id;
    granted(&mut older, &[region], Duration::from_secs(10)).await;
    let old_epoch = older.regions[&region];

    let mut newer = FakeNode::new(Identity::datanode(4));
    newer.identity.node_epoch = older.identity.node_epoch + 10;
    let granted_at = now();
    newer.connect(&addr).await.unwrap();
    let told = within(Duration::from_secs(5), "the older process is told", async {
        loop {
            match older.beat().await {
                Ok(answer) if answer.error_code() != 0 => break answer.response,
                Ok(answer) => assert_eq!(answer.granted(), [0; 0], "the older process was granted a lease"),
                Err(status) => panic!("the stream ended without a reason: {status}"),
            }
        }
    })
    .await;
    assert_eq!(error(&told).code, code::SUPERSEDED);
    assert_eq!(error(&told).known_node_epoch, newer.identity.node_epoch);
    assert!(older.pushed().await.unwrap().is_none(), "then the stream ends");

    // The newer one is an incarnation of its own: it waits for the lease of the older one, and gets a raised epoch.
    granted(&mut newer, &[region], Duration::from_secs(10)).await;
    assert!(
        now().since(granted_at) >= Duration::from_millis(900),
        "granted while the older one still had its lease"
    );
    assert!(newer.regions[&region] > old_epoch, "the region changed hands under the same epoch");

    let answer = older.connect(&addr).await.unwrap();
    assert_eq!(answer.error_code(), code::STALE_INCARNATION, "the older one has no way back");
    assert_eq!(error(&answer.response).known_node_epoch, newer.identity.node_epoch);
    granted(&mut newer, &[region], Duration::from_secs(5)).await;
}

/// Goal: a process with an older node_epoch than one that is known is refused, changes nothing, and is told which
/// epoch stands, so that it can continue above it. Method: an older one and one of the same instant knock.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_node_epoch_is_refused_and_changes_nothing() {
    let cluster = Cluster::builder().timing("2s", "1s", "200ms").start().await;
    let addr = cluster.replicas[0].addr();
    let mut node = FakeNode::new(Identity::datanode(4));
    node.connect(&addr).await.unwrap();
    let region = cluster.create_regions(1, Some(4)).await[0].region_id;
    granted(&mut node, &[region], Duration::from_secs(10)).await;
    for earlier in [1_000, 0] {
        let mut other = FakeNode::new(Identity::datanode(4));
        other.identity.node_epoch = node.identity.node_epoch - earlier;
        let answer = other.connect(&addr).await.unwrap();
        assert_eq!(answer.error_code(), code::STALE_INCARNATION, "{earlier} ms earlier");
        assert_eq!(error(&answer.response).known_node_epoch, node.identity.node_epoch);
        assert!(answer.response.region_lease.is_none());
        assert!(other.pushed().await.unwrap().is_none(), "then the stream ends");
        assert_eq!(
            node.beat().await.unwrap().granted(),
            [region],
            "the process that stands is not disturbed"
        );
    }
    // Told which epoch stands, a process that never had a session goes on above it.
    let mut next = FakeNode::new(Identity::datanode(4));
    next.identity.node_epoch = node.identity.node_epoch + 1;
    assert_eq!(next.connect(&addr).await.unwrap().error_code(), 0);
    granted(&mut next, &[region], Duration::from_secs(10)).await;
}

/// Goal: the end of an old stream never takes the newer stream of the same process with it.
/// Method: a second stream of one process, then the first ends; a push must arrive on the second without a request.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_an_old_stream_does_not_unregister_a_newer_one() {
    let cluster = Cluster::builder().start().await;
    let addr = cluster.replicas[0].addr();
    let mut node = FakeNode::new(Identity::datanode(4));
    node.connect(&addr).await.unwrap();
    // A stream whose end the server has not noticed yet: its requests stay open on a connection of its own.
    let (request, _) = node.next_request();
    let mut old = HeartbeatStream::open_on(channel(&addr), request).await.unwrap();
    old.next().await.unwrap();
    node.connect(&addr).await.unwrap();
    // The server ends the old one, with a reason; and then this side ends it as well.
    let end = old.next().await;
    assert!(
        !matches!(&end, Ok(Some(response)) if error_code(response) == 0),
        "the old stream goes on: {end:?}"
    );
    drop(old);
    let created = cluster.create_regions(1, Some(4)).await[0].region_id;
    let pushed = node.pushed().await.unwrap().expect("a push on the newer stream");
    assert_eq!(pushed.sequence, 0, "a push answers no request");
    assert!(node.regions.contains_key(&created), "the instruction did not arrive on the newer stream");
    cluster.connected(&[4]).await;
}

/// Goal: a stream that ended without an error, from whichever side, is followed by another one, and heartbeats go on.
/// Method: the node ends its half, again and again; then the server ends the stream because its term is over.
#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_go_on_after_streams_that_ended_without_error() {
    let cluster = Cluster::builder().replicas(2).timing("2s", "2s", "200ms").start().await;
    let mut node = FakeNode::new(Identity::datanode(4));
    let mut leader = cluster.leader().await;
    node.connect(&cluster.replicas[leader.replica].addr()).await.unwrap();
    let region = cluster.create_regions(1, Some(4)).await[0].region_id;
    for _ in 0..3 {
        granted(&mut node, &[region], Duration::from_secs(10)).await;
        node.disconnect();
        node.connect(&cluster.replicas[leader.replica].addr()).await.unwrap();
    }
    for _ in 0..2 {
        granted(&mut node, &[region], Duration::from_secs(10)).await;
        transfer(&cluster, TransferLeadershipRequest::default()).await;
        let told = node.pushed().await.unwrap().expect("a last word");
        assert_eq!(error_code(&told), code::NOT_LEADER);
        assert!(node.pushed().await.unwrap().is_none(), "then the stream ends, without error");
        leader = cluster.leader_after(leader.term).await;
        node.connect(&cluster.replicas[leader.replica].addr()).await.unwrap();
    }
    granted(&mut node, &[region], Duration::from_secs(10)).await;
    cluster.connected(&[4]).await;
}

/// Goal: instructions are pushed at once and not with the next heartbeat; a reply to one, late or repeated, changes
/// nothing. Method: regions are created while the node sends nothing.
#[tokio::test(flavor = "multi_thread")]
async fn instructions_are_pushed_between_heartbeats() {
    let cluster = Cluster::builder().start().await;
    let mut node = FakeNode::new(Identity::datanode(4));
    node.connect(&cluster.replicas[0].addr()).await.unwrap();
    let created = cluster.create_regions(5, Some(4)).await;
    let pushed = node.pushed().await.unwrap().expect("a push");
    let message = pushed.mailbox_message.expect("an instruction");
    assert_eq!((message.from.as_str(), message.to.as_str()), ("metasrv", "datanode-4"));
    let action = node.instructions.last().and_then(|instruction| instruction.action.clone());
    let Some(instruction::Action::OpenRegions(open)) = action else {
        panic!("another instruction: {action:?}")
    };
    assert_eq!(open.regions.len(), created.len());
    assert!(open.regions.iter().all(|region| region.epoch > 0));
    assert!(
        node.instructions.iter().all(|instruction| instruction.term > 0),
        "an instruction carries its term"
    );

    let ids: Vec<u64> = created.iter().map(|region| region.region_id).collect();
    granted(&mut node, &ids, Duration::from_secs(5)).await;
    for id in [message.id, message.id, 12_345] {
        let payload = Some(mailbox_message::Payload::InstructionReply(Default::default()));
        let reply = MailboxMessage { id, payload, ..MailboxMessage::default() };
        let request = meta::HeartbeatRequest { mailbox_message: Some(reply), ..node.identity.request() };
        node.stream().unwrap().send(request).await.unwrap();
    }
    granted(&mut node, &ids, Duration::from_secs(5)).await;
}

/// Goal: a node that does not read its responses delays nobody. Method: a node sends large heartbeats and reads
/// nothing, until its stream takes no more; another node's heartbeats are answered all the while.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_blocks_nobody_else() {
    let cluster = Cluster::builder().start().await;
    let addr = cluster.replicas[0].addr();
    let mut good = FakeNode::new(Identity::datanode(1));
    good.connect(&addr).await.unwrap();
    let slow = Identity::datanode(2);
    // Regions that no route knows: each answer lists them all as closeable.
    let regions =
        (1_000_000..1_020_000).map(|region| (region, 1)).collect::<std::collections::BTreeMap<u64, u64>>();
    let stream = HeartbeatStream::open(&addr, slow.heartbeat(&regions)).await.unwrap();
    let flood = tokio::spawn(async move {
        while stream.send(slow.heartbeat(&regions)).await.is_ok() {}
        stream
    });
    let created_before = [cluster.create_regions(1, Some(1)).await[0].region_id];
    let mut slowest = Duration::ZERO;
    let started = now();
    while now().since(started) < Duration::from_secs(4) {
        let asked = now();
        good.beat().await.unwrap();
        slowest = slowest.max(now().since(asked));
    }
    assert!(
        slowest < Duration::from_secs(2),
        "a heartbeat took {slowest:?} beside a node that does not read"
    );
    granted(&mut good, &created_before, Duration::from_secs(5)).await;
    // To the slow one itself nothing can be pushed for ever: it loses its stream or stays, but creation ends.
    let created = within(Duration::from_secs(10), "creating ends", cluster.create_regions(1, Some(1))).await;
    assert_eq!(created.len(), 1);
    eventually(Duration::from_secs(20), "the slow reader loses its stream", async || {
        let page = cluster.replicas[0].http("/metrics").await?;
        let lost = page.contains(r#"metasrv_heartbeat_refused_total{reason="too_slow"} 1"#);
        if lost { Ok(()) } else { Err("it is open".to_owned()) }
    })
    .await;
    granted(&mut good, &[created_before[0], created[0].region_id], Duration::from_secs(5)).await;
    flood.abort();
}
