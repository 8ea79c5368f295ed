//! A leader that falls silent, or is gone, as a datanode meets it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use metasrv_client::{MetaClient, MetaClientConfig};
use metasrv_core::id::{Epoch, RegionId};
use metasrv_core::time::BootTime;
use metasrv_proto::meta::{HeartbeatRequest, Role};

use super::fake::{FakeMetasrv, FakeStream, Wire, eventually, within};
use super::{Memory, SELDOM, renewal};
use crate::{
    HandleControl, HandlerError, HeartbeatResponseHandler, HeartbeatTask, HeartbeatTaskOptions,
    RegionEventSender, RegionServerEvent, ResponseContext,
};

/// The term and the send time of a response, as an embedder can note them.
type Noted = (u64, Option<BootTime>);

#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Noted>>>);

impl HeartbeatResponseHandler for Heard {
    fn name(&self) -> &'static str {
        "Heard"
    }

    fn handle(&self, context: &mut ResponseContext<'_>) -> Result<HandleControl, HandlerError> {
        self.0.lock().unwrap().push((context.term(), context.sent_at));
        Ok(HandleControl::Continue)
    }
}

/// A datanode between two replicas, with a region that metasrv may lease. Its regular heartbeats are minutes apart, so
/// that no stream is given up for silence alone.
struct Between {
    old: FakeMetasrv,
    new: FakeMetasrv,
    task: HeartbeatTask,
    client: MetaClient,
    events: RegionEventSender,
    heard: Heard,
}

impl Between {
    /// Started; its stream to the old replica, in term 1, and a request on it that waits for its answer.
    async fn start() -> (Between, FakeStream, HeartbeatRequest) {
        let (mut old, new) = (FakeMetasrv::start().await, FakeMetasrv::start().await);
        new.names(Some((&old.addr, 1)));
        let peers = [old.addr.clone(), new.addr.clone()];
        let mut config = MetaClientConfig::new(peers, Role::Datanode, 7);
        config.timeouts.response = Duration::from_millis(50);
        config.timeouts.handshake = Duration::from_secs(10);
        let client = MetaClient::try_new(config).unwrap();
        let mut options =
            HeartbeatTaskOptions::new(client.clone(), "127.0.0.1:4007", Arc::new(Memory::default()));
        options.interval = SELDOM;
        let events = options.events.0.clone();
        let heard = Heard::default();
        options.handlers.push(Arc::new(heard.clone()));
        let task = HeartbeatTask::try_new(options).unwrap();
        task.start();
        let mut stream = old.stream().await;
        stream.welcome(1).await;
        eventually("the handshake's answer is heard", || task.responses() == 1).await;
        events.send(RegionServerEvent::Registered(RegionId(5), Epoch(2))).await.unwrap();
        let request = stream.request().await;
        assert_eq!(request.region_stats.len(), 1, "the change is reported");
        (Between { old, new, task, client, events, heard }, stream, request)
    }

    fn writable(&self) -> bool {
        self.task.keeper().write_guard(RegionId(5)).is_ok()
    }
}

/// Goal: a silent leader is left for one of a higher term, with its stream open until that one has accepted another, and
/// what it still says is not heard. Method: two replicas; the new one takes its time with the handshake, and the old
/// one answers meanwhile.
#[tokio::test]
async fn a_silent_leader_is_left_for_a_successor_and_not_heard_any_more() {
    let (mut node, mut old, request) = Between::start().await;
    // It is asked while the handshake waits; only what comes on its stream shall be counted.
    node.old.names(None);
    node.new.names(Some((&node.new.addr, 2)));
    let mut new = node.new.stream().await;
    let handshake = new.request().await;
    let ends = tokio::time::timeout(Duration::from_millis(300), old.requests.message()).await;
    assert!(ends.is_err(), "the old stream was dropped before there was a new one: {ends:?}");
    old.respond(renewal(&request, 1)).await;
    eventually("the late answer is refused", || node.client.lower_terms_refused() == 1).await;
    assert!(!node.writable());
    new.respond(renewal(&handshake, 2)).await;
    old.ended().await;
    eventually("the new leader's lease counts", || node.writable()).await;
    assert_eq!((node.task.streams(), node.client.suspicions()), (2, 1));
    let heard = node.heard.0.lock().unwrap().clone();
    assert_eq!(heard.iter().map(|(term, _)| *term).collect::<Vec<_>>(), [1, 2]);
    assert!(heard[1].1.is_some(), "the send time of what was leased is known");
}

/// Goal: a leader that answers late, before there is a successor, is kept. Method: an answer after the suspicion began,
/// and one more request and answer on the same stream.
#[tokio::test]
async fn a_leader_that_answers_late_is_kept() {
    let (mut node, mut old, request) = Between::start().await;
    eventually("it is suspected", || node.client.suspicions() == 1).await;
    old.respond(renewal(&request, 1)).await;
    eventually("the late answer counts", || node.writable()).await;
    let leased = old.request().await;
    old.respond(renewal(&leased, 1)).await;
    node.events.send(RegionServerEvent::Deregistered(RegionId(5))).await.unwrap();
    let report = old.request().await;
    assert!(report.region_stats.is_empty(), "the same stream goes on");
    old.acknowledge(&report, 1).await;
    eventually("all answers are heard", || node.task.responses() == 4).await;
    assert!(node.new.stream_within(Duration::from_millis(300)).await.is_none());
    assert_eq!(node.task.streams(), 1);
}

/// Goal: a replica that leads in an equal or a lower term is no reason to leave. Method: the other one names itself in
/// the term of the stream, and is asked about it several times.
#[tokio::test]
async fn a_silent_leader_is_not_left_for_an_equal_term() {
    let (mut node, old, request) = Between::start().await;
    node.new.names(Some((&node.new.addr, 1)));
    let asked = node.new.asked();
    eventually("it is asked", || node.new.asked() >= asked + 3).await;
    assert!(node.new.stream_within(Duration::from_millis(100)).await.is_none());
    assert!(node.old.stream_within(Duration::from_millis(100)).await.is_none());
    old.respond(renewal(&request, 1)).await;
    eventually("the old one is heard", || node.writable()).await;
    assert_eq!(node.task.streams(), 1);
}

/// Goal: a connection that is dead without a reset is given up after the last limit, and the next stream to the same
/// leader takes a connection of its own. Method: a wire that is cut, and works for new connections; every other deadline
/// is longer than this test may take.
#[tokio::test]
async fn an_unchanged_leader_is_reached_on_a_fresh_connection() {
    let mut fake = FakeMetasrv::start().await;
    let wire = Wire::to(&fake.addr).await;
    fake.names(Some((&wire.addr, 1)));
    let mut config = MetaClientConfig::new([fake.addr.clone()], Role::Datanode, 7);
    config.timeouts.handshake = Duration::from_secs(60);
    config.keep_alive.interval = Duration::from_secs(60);
    let client = MetaClient::try_new(config).unwrap();
    let mut options =
        HeartbeatTaskOptions::new(client.clone(), "127.0.0.1:4007", Arc::new(Memory::default()));
    options.interval = Duration::from_millis(200);
    let task = HeartbeatTask::try_new(options).unwrap();
    task.start();
    let mut dead = fake.stream().await;
    dead.welcome(1).await;
    eventually("the handshake's answer is heard", || task.responses() == 1).await;
    wire.cut();
    eventually("the silence is noticed", || client.suspicions() > 0).await;
    wire.heal();
    let mut stream = fake.stream().await;
    stream.welcome(1).await;
    within("heartbeats go on", async { while stream.request().await.sequence < 2 {} }).await;
}

/// Goal: a node whose stream is reset, and whose heartbeat waits for its answer, comes to the next leader at once.
/// Method: regular heartbeats are minutes apart; the leader dies, and the successor is named.
#[tokio::test]
async fn a_node_comes_back_after_a_reset() {
    let (mut node, old, _) = Between::start().await;
    node.new.names(Some((&node.new.addr, 2)));
    drop(old);
    node.old.kill();
    let mut new = node.new.stream().await;
    let handshake = new.welcome(2).await;
    assert_eq!(handshake.region_stats.len(), 1);
    eventually("it is followed", || node.task.streams() == 2).await;
}
