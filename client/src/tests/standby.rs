//! The replica that is next to lead: a connection to it is made before it leads, and used when it does.

use metasrv_proto::meta::{HeartbeatConfig, HeartbeatRequest, HeartbeatResponse, Peer, Role};

use super::client;
use crate::fake::{FakeMetasrv, answer, eventually};

fn naming(request: &HeartbeatRequest, term: u64, standby: &str) -> HeartbeatResponse {
    let standby = Some(Peer { id: 0, addr: standby.to_owned() });
    HeartbeatResponse {
        heartbeat_config: Some(HeartbeatConfig {
            heartbeat_interval_ms: 1_000,
            standby,
            ..Default::default()
        }),
        ..answer(request, term)
    }
}

/// Goal: what a change of leader needs is there before it. Method: a leader names a standby that the client was not
/// configured with, twice; the standby is asked once, which makes the connection, and no connection but those two is kept.
/// An address that does not parse changes nothing.
#[tokio::test]
async fn a_connection_to_the_replica_that_is_next_is_there_before_it_leads() {
    let (mut leader, standby) = (FakeMetasrv::start().await, FakeMetasrv::start().await);
    let other = FakeMetasrv::start().await;
    leader.names(Some((&leader.addr, 1)));
    standby.names(Some((&leader.addr, 1)));
    let client = client([leader.addr.as_str()]);
    assert!(client.channels().get(&other.addr).is_ok());
    let opening = tokio::spawn({
        let client = client.clone();
        async move { client.heartbeat(HeartbeatRequest::default()).await }
    });
    let mut stream = leader.stream().await;
    let first = stream.request().await;
    stream.respond(naming(&first, 1, "nonsense")).await;
    let (mut sender, mut responses) = opening.await.unwrap().expect("a stream");
    responses.next().await.expect("the first response");
    assert_eq!(client.standby(), None);
    for _ in 0..2 {
        sender.send(HeartbeatRequest::default()).await.expect("sent");
        let request = stream.request().await;
        stream.respond(naming(&request, 1, &standby.addr)).await;
        responses.next().await.expect("a response");
    }
    assert_eq!(client.standby().as_deref(), Some(standby.addr.as_str()));
    eventually("the standby is asked", || standby.asked() == 1).await;
    eventually("other connections are given up", || !client.channels().has(&other.addr)).await;
    assert!(client.channels().has(&standby.addr) && client.channels().has(&leader.addr));
    assert_eq!(client.leader().map(|leader| leader.addr), Some(leader.addr.clone()), "the leader leads on");
    assert_eq!(client.config().role, Role::Datanode);
}
