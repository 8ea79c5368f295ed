//! Streams: opened, fed at the interval, given up, opened again.

use std::sync::Arc;
use std::time::Duration;

use metasrv_proto::code;
use metasrv_proto::meta::{HeartbeatConfig, HeartbeatResponse};
use tokio::sync::Notify;
use tonic::Status;

use super::fake::{FakeMetasrv, answer, error, eventually, within};
use super::{Memory, Node, SELDOM};
use crate::{HeartbeatTask, HeartbeatTaskOptions, RegionEventSender, RegionServerEvent, TaskEnd};
use metasrv_client::{MetaClient, MetaClientConfig};
use metasrv_core::id::{Epoch, RegionId};
use metasrv_proto::meta::Role;

/// Goal: options that cannot work are refused as a whole. Method: all of them wrong.
#[test]
fn try_new_reports_everything_that_is_wrong() {
    let client = MetaClient::try_new(MetaClientConfig::new(["a:1"], Role::Frontend, 0)).unwrap();
    let mut options = HeartbeatTaskOptions::new(client, "nowhere", Arc::new(Memory::default()));
    options.interval = Duration::ZERO;
    let invalid = HeartbeatTask::try_new(options).err().expect("three mistakes");
    let fields: Vec<_> = invalid.violations.iter().map(|violation| violation.field).collect();
    assert_eq!(fields, ["client.role", "addr", "interval"]);
}

/// Goal: nothing is sent before the start, the second start changes nothing, and the first tick is at once: the
/// handshake names the node and its open regions. Method: start twice, count streams.
#[tokio::test]
async fn starting_twice_opens_one_stream_and_the_first_heartbeat_is_at_once() {
    let mut fake = FakeMetasrv::start().await;
    let client = MetaClient::try_new(MetaClientConfig::new([fake.addr.clone()], Role::Datanode, 7)).unwrap();
    let mut options = HeartbeatTaskOptions::new(client, "127.0.0.1:4007", Arc::new(Memory::default()));
    options.interval = SELDOM;
    options.info.version = "1.2.3".to_owned();
    let task = HeartbeatTask::try_new(options).unwrap();
    assert!(fake.stream_within(Duration::from_millis(200)).await.is_none(), "it was not started yet");
    task.start();
    task.start();
    let mut stream = fake.stream().await;
    let handshake = stream.welcome(1).await;
    let header = handshake.header.unwrap();
    assert_eq!((header.member_id, header.role(), header.protocol_version), (7, Role::Datanode, 1));
    assert_eq!(handshake.peer.unwrap().addr, "127.0.0.1:4007");
    assert_eq!(handshake.info.unwrap().version, "1.2.3");
    assert_eq!(handshake.node_epoch, task.node_epoch());
    assert_ne!(handshake.incarnation_nonce, 0);
    assert!(
        fake.stream_within(Duration::from_millis(200)).await.is_none(),
        "the second start opened a stream"
    );
    assert_eq!(task.streams(), 1);
    task.stop();
    stream.ended().await;
    assert_eq!(within("it ends", task.ended()).await, TaskEnd::Stopped);
}

/// Goal: the interval is kept, and metasrv may dictate another one. Method: a short one is dictated.
#[tokio::test]
async fn heartbeats_come_at_the_interval_that_metasrv_dictates() {
    let mut node = Node::start(|_| {}).await;
    let mut stream = node.fake.stream().await;
    let handshake = stream.request().await;
    for bad in [1, 10_000_000] {
        let heartbeat_config =
            Some(HeartbeatConfig { heartbeat_interval_ms: bad, ..HeartbeatConfig::default() });
        stream.respond(HeartbeatResponse { heartbeat_config, ..answer(&handshake, 1) }).await;
    }
    let heartbeat_config = Some(HeartbeatConfig { heartbeat_interval_ms: 50, ..HeartbeatConfig::default() });
    stream.respond(HeartbeatResponse { heartbeat_config, ..answer(&handshake, 1) }).await;
    let mut last = handshake;
    for _ in 0..3 {
        let next = stream.request().await;
        assert_eq!(next.sequence, last.sequence + 1);
        assert!(next.duration_since_epoch >= last.duration_since_epoch);
        assert_eq!((next.node_epoch, next.incarnation_nonce), (last.node_epoch, last.incarnation_nonce));
        assert!(next.info.is_none(), "who it is was said in the handshake");
        stream.acknowledge(&next, 1).await;
        last = next;
    }
}

/// Goal: an opening, a closing and a change of role are reported at once. Method: events of an embedder; the interval
/// is five minutes.
#[tokio::test]
async fn changes_of_regions_are_reported_at_once() {
    let (sender, receiver) = crate::region_events();
    let tell: RegionEventSender = sender.clone();
    let mut node = Node::start(move |options| options.events = (sender, receiver)).await;
    let (handshake, mut stream) = node.stream().await;
    assert!(handshake.region_stats.is_empty());
    tell.send(RegionServerEvent::Registered(RegionId(5), Epoch(2))).await.unwrap();
    let report = stream.request().await;
    assert_eq!((report.region_stats[0].region_id, report.region_stats[0].epoch), (5, 2));
    stream.respond(super::renewal(&report, 1)).await;
    let leased = stream.request().await;
    assert_eq!(leased.region_stats[0].role, 0, "it says that it may write");
    assert!(node.task.keeper().write_guard(RegionId(5)).is_ok());
    tell.send(RegionServerEvent::Deregistered(RegionId(5))).await.unwrap();
    assert!(stream.request().await.region_stats.is_empty());
}

/// Goal: however a stream ends, another one is opened, by the same process. Method: an end without error, an error of
/// the transport, and an error in the header.
#[tokio::test]
async fn every_end_of_a_stream_leads_to_another_one() {
    let mut node = Node::start(|_| {}).await;
    let (first, stream) = node.stream().await;
    drop(stream);
    let (second, stream) = node.stream().await;
    stream.fail(Status::internal("broken")).await;
    let (third, stream) = node.stream().await;
    stream.refuse(1, error(code::NOT_LEADER, 0), None).await;
    let (fourth, _stream) = node.stream().await;
    for handshake in [second, third, fourth] {
        assert_eq!(
            (handshake.node_epoch, handshake.incarnation_nonce),
            (first.node_epoch, first.incarnation_nonce)
        );
        assert_eq!(handshake.sequence, 1, "numbers begin anew with each stream");
    }
    eventually("each is counted", || node.task.streams() == 4).await;
}

/// Goal: a leader that answers nothing any more is left, though its connection lives. Method: a fake that reads on.
#[tokio::test]
async fn a_leader_that_falls_silent_is_left() {
    let mut node = Node::start(|options| options.interval = Duration::from_millis(100)).await;
    let (_, mut silent) = node.stream().await;
    let reads = tokio::spawn(async move { while let Ok(Some(_)) = silent.requests.message().await {} });
    let (_, _next) = node.stream().await;
    within("the silent stream is given up", reads).await.unwrap();
}

/// Goal: whoever waits for leases is woken after each response. Method: a notifier, a handshake, one more answer.
#[tokio::test]
async fn the_leases_notifier_is_woken_after_each_response() {
    let notifier = Arc::new(Notify::new());
    let theirs = Arc::clone(&notifier);
    let mut node = Node::start(move |options| {
        options.leases_notifier = Some(theirs);
        options.interval = Duration::from_millis(50);
    })
    .await;
    let (_, mut stream) = node.stream().await;
    within("the handshake's answer", notifier.notified()).await;
    let request = stream.request().await;
    stream.acknowledge(&request, 1).await;
    within("the heartbeat's answer", notifier.notified()).await;
    eventually("both are counted", || node.task.responses() == 2).await;
}

/// Goal: a process whose clock stepped back takes one more than what is known, as long as it never had a stream; one
/// that had a stream and is superseded ends. Method: stale at the first handshake, later again.
#[tokio::test]
async fn a_new_process_overtakes_a_stale_epoch_and_an_old_one_ends() {
    let mut node = Node::start(|_| {}).await;
    let known = node.task.node_epoch() + 1_000;
    let mut stream = node.fake.stream().await;
    stream.request().await;
    stream.refuse(1, error(code::STALE_INCARNATION, known), None).await;
    let (handshake, stream) = node.stream().await;
    assert_eq!(handshake.node_epoch, known + 1);
    assert_eq!(node.task.node_epoch(), known + 1);
    stream.refuse(1, error(code::STALE_INCARNATION, known + 50), None).await;
    let ended = within("it ends", node.task.ended()).await;
    assert!(matches!(ended, TaskEnd::Superseded(_)), "{ended:?}");
    assert!(node.fake.stream_within(Duration::from_millis(300)).await.is_none(), "two never fight for ever");
}
