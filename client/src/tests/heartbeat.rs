//! One stream, from the handshake to its end.

use std::time::Duration;

use metasrv_proto::code;
use metasrv_proto::meta::{
    GrantedRegion, HeartbeatRequest, HeartbeatResponse, RegionLease, RegionStat, Role,
};
use tonic::Status;

use super::{client, client_with};
use crate::fake::{FakeMetasrv, INSTALLATION, Silent, Wire, answer, error, header, within};
use crate::{ClientError, HeartbeatSender, HeartbeatStream, MetaClient};

/// Opens a stream to a replica that welcomes it in this term.
pub(super) async fn opened(
    client: &MetaClient,
    fake: &mut FakeMetasrv,
    term: u64,
) -> (HeartbeatSender, HeartbeatStream, crate::fake::FakeStream) {
    let serve = async {
        let mut stream = fake.stream().await;
        stream.welcome(term).await;
        stream
    };
    let (ours, theirs) = tokio::join!(client.heartbeat(HeartbeatRequest::default()), serve);
    let (sender, stream) = ours.expect("opened");
    (sender, stream, theirs)
}

/// What a handshake comes to when the replica answers it by `refuse`.
async fn refused(
    client: &MetaClient,
    fake: &mut FakeMetasrv,
    refuse: impl AsyncFnOnce(crate::fake::FakeStream),
) -> ClientError {
    let serve = async {
        let mut stream = fake.stream().await;
        stream.request().await;
        refuse(stream).await;
    };
    let (ours, ()) = tokio::join!(client.heartbeat(HeartbeatRequest::default()), serve);
    ours.err().expect("refused")
}

/// Goal: the first request is the handshake with a complete header, the first response is yielded first, and requests
/// are numbered from 1.
#[tokio::test]
async fn the_handshake_comes_first_and_requests_are_numbered() {
    let mut fake = FakeMetasrv::start().await;
    let client = client([fake.addr.as_str()]);
    let serve = async {
        let mut stream = fake.stream().await;
        let handshake = stream.welcome(4).await;
        let second = stream.request().await;
        stream.acknowledge(&second, 4).await;
        (handshake, second)
    };
    let own = async {
        let handshake = HeartbeatRequest { node_epoch: 42, ..Default::default() };
        let (mut sender, mut stream) = client.heartbeat(handshake).await.expect("opened");
        assert_eq!(sender.sequence(), 1);
        assert_eq!(stream.next().await.expect("the handshake's response").sequence, 1);
        assert_eq!(sender.send(HeartbeatRequest::default()).await.expect("sent"), 2);
        assert_eq!(stream.next().await.expect("the second response").sequence, 2);
        assert_eq!(stream.leader().term, 4);
    };
    let ((handshake, second), ()) = within("both sides are done", async { tokio::join!(serve, own) }).await;
    let header = handshake.header.expect("a header");
    assert_eq!((header.protocol_version, header.member_id, header.role), (1, 7, Role::Datanode as i32));
    assert_eq!((header.term, header.installation), (1, INSTALLATION), "as learned from AskLeader");
    assert_eq!((handshake.node_epoch, handshake.sequence), (42, 1));
    assert_eq!(
        (second.header.expect("a header").term, second.sequence),
        (4, 2),
        "the highest term is reported upwards"
    );
}

/// Goal: an answer that the replica does not lead is a typed error at once, and its hint is followed.
#[tokio::test]
async fn not_leader_is_an_error_and_its_hint_is_followed() {
    let (mut old, mut new) = (FakeMetasrv::start().await, FakeMetasrv::start().await);
    let client = client([old.addr.as_str()]);
    let hint = new.addr.clone();
    let error = refused(&client, &mut old, async |stream| {
        stream.refuse(2, error(code::NOT_LEADER, 0), Some(&hint)).await
    })
    .await;
    assert!(
        matches!(&error, ClientError::NotLeader { leader: Some(leader), term: 2, .. } if *leader == hint),
        "{error}"
    );
    assert!(error.names_leader() && error.is_retryable());
    let (_, stream, _) = opened(&client, &mut new, 2).await;
    assert_eq!(stream.leader().addr, new.addr);
    assert_eq!(old.asked(), 1, "the hint made asking unnecessary");
}

/// Goal: a hint that leads nowhere costs one attempt; then everybody is asked again.
#[tokio::test]
async fn a_hint_that_fails_leads_to_asking_again() {
    let mut fake = FakeMetasrv::start().await;
    let client = client([fake.addr.as_str()]);
    let dead = crate::fake::nobody();
    refused(&client, &mut fake, async |stream| {
        stream.refuse(1, error(code::NOT_LEADER, 0), Some(&dead)).await
    })
    .await;
    assert!(client.heartbeat(HeartbeatRequest::default()).await.is_err(), "nobody is there");
    opened(&client, &mut fake, 1).await;
    assert_eq!(fake.asked(), 2);
}

#[tokio::test]
async fn errors_about_incarnations_and_installations_are_typed() {
    let mut fake = FakeMetasrv::start().await;
    let client = client([fake.addr.as_str()]);
    let stale = refused(&client, &mut fake, async |stream| {
        stream.refuse(1, error(code::STALE_INCARNATION, 77), None).await
    })
    .await;
    assert!(matches!(stale, ClientError::StaleIncarnation { known: 77, .. }), "{stale}");
    let superseded =
        refused(&client, &mut fake, async |stream| stream.refuse(1, error(code::SUPERSEDED, 0), None).await)
            .await;
    assert!(matches!(superseded, ClientError::Superseded { .. }), "{superseded}");
    let other = refused(&client, &mut fake, async |stream| {
        stream.refuse(1, error(code::OTHER_INSTALLATION, 0), None).await
    })
    .await;
    assert!(matches!(other, ClientError::OtherInstallation { .. }), "{other}");
    let foreign = refused(&client, &mut fake, async |stream| {
        let mut response = HeartbeatResponse { header: Some(header(1)), ..Default::default() };
        response.header.as_mut().expect("set").installation = 5;
        stream.respond(response).await;
    })
    .await;
    assert!(matches!(foreign, ClientError::OtherInstallation { theirs: 5, .. }), "{foreign}");
}

/// Goal: an end without an error is reported as an end, errors of whatever code as a loss; both lead to asking again.
#[tokio::test]
async fn every_end_of_a_stream_is_reported_and_leads_to_asking_again() {
    let mut fake = FakeMetasrv::start().await;
    let client = client([fake.addr.as_str()]);
    for round in 1..=4_usize {
        let (_sender, mut stream, theirs) = opened(&client, &mut fake, 1).await;
        assert_eq!(fake.asked(), round);
        stream.next().await.expect("the handshake's response");
        match round {
            1 => drop(theirs),
            2 => theirs.fail(Status::ok("")).await,
            3 => theirs.fail(Status::internal("broken")).await,
            _ => theirs.fail(Status::cancelled("cancelled")).await,
        }
        let error = within("the end is seen", stream.next()).await.expect_err("it ended");
        match round {
            1 | 2 => assert!(matches!(error, ClientError::Ended { .. }), "{error}"),
            _ => assert!(matches!(error, ClientError::Transport { .. }), "{error}"),
        }
        assert_eq!(client.leader(), None, "after {error}");
        assert!(matches!(stream.next().await, Err(ClientError::Ended { .. })), "given up for good");
    }
}

/// Goal: a leader of a lower term is not listened to, and counted.
#[tokio::test]
async fn a_response_of_a_lower_term_ends_the_stream() {
    let mut fake = FakeMetasrv::start().await;
    let client = client([fake.addr.as_str()]);
    let (_sender, mut stream, theirs) = opened(&client, &mut fake, 6).await;
    stream.next().await.expect("the handshake's response");
    theirs.acknowledge(&HeartbeatRequest::default(), 5).await;
    let error = within("the response comes", stream.next()).await.expect_err("refused");
    assert!(matches!(error, ClientError::LowerTerm { term: 5, highest: 6, .. }), "{error}");
    assert_eq!((client.lower_terms_refused(), client.leader()), (1, None));
    // The replica goes on naming itself, in term 1: nobody opens a stream to it any more.
    let error = client.heartbeat(HeartbeatRequest::default()).await.err().expect("refused");
    assert!(matches!(error, ClientError::NoLeader { .. }), "{error}");
}

/// Goal: a leader that takes connections but never answers costs the handshake's deadline, not for ever.
#[tokio::test]
async fn a_silent_leader_fails_by_the_deadline() {
    let silent = Silent::start();
    let client = client(["127.0.0.1:1"]);
    client.hint(&silent.addr, 1);
    let error = within("the deadline passes", client.heartbeat(HeartbeatRequest::default()))
        .await
        .err()
        .expect("no answer");
    assert!(matches!(error, ClientError::Transport { .. }), "{error}");
    assert_eq!(client.leader(), None);
}

/// Goal: while a hung leader keeps us waiting, a newer one is found. Method: the deadline of the handshake is longer
/// than this test may take.
#[tokio::test]
async fn a_hung_leader_is_left_as_soon_as_there_is_another_one() {
    let (silent, fake) = (Silent::start(), FakeMetasrv::start().await);
    let client = client_with([fake.addr.as_str()], Role::Datanode, |config| {
        config.timeouts.handshake = Duration::from_secs(60);
    });
    client.hint(&silent.addr, 1);
    fake.names(Some((&fake.addr, 2)));
    let error = within("the new leader is found", client.heartbeat(HeartbeatRequest::default()))
        .await
        .err()
        .expect("changed");
    assert!(matches!(&error, ClientError::LeaderChanged { addr, term: 2 } if *addr == fake.addr), "{error}");
    assert_eq!(client.leader().map(|leader| leader.addr), Some(fake.addr.clone()));
}

/// Goal: HTTP/2 keep-alive finds a peer that fell silent without a reset, while nobody sends anything.
#[tokio::test]
async fn a_peer_that_falls_silent_is_found_by_keep_alive() {
    let mut fake = FakeMetasrv::start().await;
    let wire = Wire::to(&fake.addr).await;
    fake.names(Some((&wire.addr, 1)));
    let client = client_with([fake.addr.as_str()], Role::Datanode, |config| {
        config.keep_alive.interval = Duration::from_millis(100);
        config.keep_alive.timeout = Duration::from_millis(200);
    });
    let (_sender, mut stream, _theirs) = opened(&client, &mut fake, 1).await;
    stream.next().await.expect("the handshake's response");
    wire.cut();
    let error = within("silence is found", stream.next()).await.expect_err("cut");
    assert!(matches!(error, ClientError::Transport { .. }), "{error}");
    assert!(
        crate::KeepAlive::default().interval + crate::KeepAlive::default().timeout < Duration::from_secs(5)
    );
}

/// Goal: a peer that does not read delays a sender by its deadline, not for ever. Method: requests larger than all
/// windows on the way.
#[tokio::test]
async fn sending_to_a_peer_that_does_not_read_fails_by_the_deadline() {
    let mut fake = FakeMetasrv::start().await;
    let client = client_with([fake.addr.as_str()], Role::Datanode, |config| {
        config.timeouts.send = Duration::from_millis(100);
    });
    let (mut sender, _stream, _theirs) = opened(&client, &mut fake, 1).await;
    let large = HeartbeatRequest { region_stats: vec![RegionStat::default(); 100_000], ..Default::default() };
    let error = within("the queue is full", async {
        loop {
            if let Err(error) = sender.send(large.clone()).await {
                return error;
            }
        }
    })
    .await;
    assert!(error.to_string().contains("does not read"), "{error}");
}

/// Goal: messages of 4 MiB and more, in both directions, do not break the stream.
#[tokio::test]
async fn large_messages_pass() {
    let mut fake = FakeMetasrv::start().await;
    let client = client([fake.addr.as_str()]);
    let (mut sender, mut stream, mut theirs) = opened(&client, &mut fake, 1).await;
    stream.next().await.expect("the handshake's response");
    let stats =
        (0..100_000).map(|id| RegionStat { region_id: id, engine: "x".repeat(64), ..Default::default() });
    let request = HeartbeatRequest { region_stats: stats.collect(), ..Default::default() };
    let reply = async {
        let request = theirs.request().await;
        let regions = request.region_stats.iter().map(|stat| GrantedRegion {
            region_id: stat.region_id,
            extensions: [("x".repeat(64), Vec::new())].into(),
            ..Default::default()
        });
        let lease = RegionLease { regions: regions.collect(), ..Default::default() };
        theirs.respond(HeartbeatResponse { region_lease: Some(lease), ..answer(&request, 1) }).await;
    };
    let (sent, (), received) =
        within("both pass", async { tokio::join!(sender.send(request), reply, stream.next()) }).await;
    sent.expect("sent");
    assert_eq!(received.expect("received").region_lease.expect("a lease").regions.len(), 100_000);
}
