//! A frontend that stays registered.

use std::time::Duration;

use metasrv_proto::meta::{HeartbeatConfig, HeartbeatResponse, NodeInfo, ResponseHeader, Role};

use super::{client, client_with};
use crate::fake::{FakeMetasrv, FakeStream, answer, header, within};
use crate::{FrontendOptions, FrontendTask, MetaClient};

fn options() -> FrontendOptions {
    FrontendOptions {
        addr: "127.0.0.1:5001".to_owned(),
        interval: Duration::from_millis(50),
        info: NodeInfo::default(),
    }
}

fn frontend(fake: &FakeMetasrv) -> (MetaClient, FrontendTask) {
    let client = client_with([fake.addr.as_str()], Role::Frontend, |_| {});
    let task = FrontendTask::start(client.clone(), options()).expect("valid options");
    (client, task)
}

/// Takes a handshake and gives the frontend this id; returns the id that it came with.
async fn assign(stream: &mut FakeStream, id: u64) -> u64 {
    let handshake = stream.request().await;
    let given = HeartbeatResponse {
        header: Some(ResponseHeader { member_id: id, ..header(1) }),
        heartbeat_config: Some(HeartbeatConfig { heartbeat_interval_ms: 50, ..HeartbeatConfig::default() }),
        ..answer(&handshake, 1)
    };
    stream.respond(given).await;
    handshake.header.expect("a header").member_id
}

/// Goal: metasrv chooses the id, and the frontend keeps it on later streams.
#[tokio::test]
async fn the_id_is_given_by_metasrv_and_kept() {
    let mut fake = FakeMetasrv::start().await;
    let (client, task) = frontend(&fake);
    let mut stream = fake.stream().await;
    assert_eq!(assign(&mut stream, 12).await, 0);
    assert_eq!(within("registered", task.registered()).await, Some(12));
    assert_eq!(stream.request().await.header.expect("a header").member_id, 12, "heartbeats go on under it");
    drop(stream);
    let mut stream = fake.stream().await;
    assert_eq!(assign(&mut stream, 12).await, 12);
    assert_eq!(within("registered again", task.registered()).await, Some(12));
    assert_eq!(client.member_id(), 12);
    within("stops", task.stop()).await;
    stream.ended().await;
}

/// Goal: a leader that stops answering is left.
#[tokio::test]
async fn silence_leads_to_another_stream() {
    let mut fake = FakeMetasrv::start().await;
    let (_client, task) = frontend(&fake);
    let mut silent = fake.stream().await;
    assign(&mut silent, 3).await;
    let mut next = fake.stream().await;
    assert_eq!(assign(&mut next, 3).await, 3);
    assert_eq!(within("registered", task.registered()).await, Some(3));
}

/// Goal: a silent leader is left for one of a higher term, with its stream open until that one has accepted another.
/// Method: a leader that does not answer the first heartbeat after the handshake, and a second one.
#[tokio::test]
async fn a_silent_leader_is_left_for_a_successor() {
    let (mut old, mut new) = (FakeMetasrv::start().await, FakeMetasrv::start().await);
    new.names(Some((&old.addr, 1)));
    let client = client_with([old.addr.as_str(), &new.addr], Role::Frontend, |config| {
        config.timeouts.response = Duration::from_millis(50);
        config.timeouts.handshake = Duration::from_secs(10);
    });
    let options = FrontendOptions { interval: Duration::from_secs(2), ..options() };
    let task = FrontendTask::start(client.clone(), options).expect("valid options");
    let mut silent = old.stream().await;
    silent.welcome(1).await;
    within("registered", task.registered()).await;
    new.names(Some((&new.addr, 2)));
    silent.request().await;
    let mut next = new.stream().await;
    let handshake = next.request().await;
    let ends = tokio::time::timeout(Duration::from_millis(300), silent.requests.message()).await;
    assert!(ends.is_err(), "the old stream was dropped before there was a new one: {ends:?}");
    next.acknowledge(&handshake, 2).await;
    silent.ended().await;
    assert_eq!(client.leader().map(|leader| leader.term), Some(2));
    assert_eq!(client.suspicions(), 1);
}

#[tokio::test]
async fn options_are_checked_at_once() {
    let options =
        FrontendOptions { addr: "x".to_owned(), interval: Duration::ZERO, info: NodeInfo::default() };
    let error = FrontendTask::start(client(["127.0.0.1:1"]), options).err().expect("three mistakes");
    let fields: Vec<_> = error.violations.iter().map(|violation| violation.field).collect();
    assert_eq!(fields, ["role", "addr", "interval"]);
}
