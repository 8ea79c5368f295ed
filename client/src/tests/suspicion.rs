//! A leader that falls silent while its connection lives.

use std::pin::pin;
use std::time::Duration;

use metasrv_proto::meta::{HeartbeatRequest, Role};
use tokio::time::Instant;

use super::client_with;
use super::heartbeat::opened;
use crate::fake::{FakeMetasrv, eventually, nobody, within};
use crate::suspicion::Suspicion;
use crate::unanswered::Unanswered;
use crate::{ClientError, Leader, MetaClient};

/// So long that no stream is given up for silence alone within a test.
const SELDOM: Duration = Duration::from_secs(300);

/// A client of these replicas that suspects a leader soon.
fn client<'a>(peers: impl IntoIterator<Item = &'a str>) -> MetaClient {
    client_with(peers, Role::Datanode, |config| config.timeouts.response = Duration::from_millis(50))
}

/// Goal: a silent leader is left for one of a higher term as soon as somebody names one, with its stream still open;
/// what it says from then on is not heard. Method: a leader that reads and does not answer, and a second replica that
/// names itself after the suspicion began.
#[tokio::test]
async fn a_silent_leader_is_left_for_one_of_a_higher_term() {
    let (mut old, new) = (FakeMetasrv::start().await, FakeMetasrv::start().await);
    new.names(Some((&old.addr, 1)));
    let client = client([old.addr.as_str(), &new.addr]);
    let (mut sender, mut stream, mut theirs) = opened(&client, &mut old, 1).await;
    stream.next().await.expect("the handshake's response");
    let suspicion = stream.suspicion();
    let mut left = pin!(suspicion.confirmed(SELDOM));
    sender.send(HeartbeatRequest::default()).await.expect("sent");
    let request = theirs.request().await;
    let asked = new.asked();
    let successor = async {
        eventually("the other replica is asked", || new.asked() > asked + 1).await;
        new.names(Some((&new.addr, 2)));
    };
    let (error, ()) = within("it is left", async { tokio::join!(&mut left, successor) }).await;
    assert!(matches!(&error, ClientError::LeaderChanged { addr, term: 2 } if *addr == new.addr), "{error}");
    assert_eq!(client.leader(), Some(Leader { addr: new.addr.clone(), term: 2 }));
    assert_eq!(client.suspicions(), 1);
    theirs.acknowledge(&request, 1).await;
    let error = within("the late answer comes", stream.next()).await.expect_err("refused");
    assert!(matches!(error, ClientError::LowerTerm { term: 1, highest: 2, .. }), "{error}");
    assert_eq!(client.lower_terms_refused(), 1);
    assert_eq!(client.leader(), Some(Leader { addr: new.addr.clone(), term: 2 }), "it is followed on");
}

/// Goal: a leader that answers late, before there is a successor, is trusted again, and nobody else is asked any more.
/// Method: a late answer; then a second leader that is not looked for until a request waits again.
#[tokio::test]
async fn a_late_answer_ends_the_suspicion() {
    let (mut old, other) = (FakeMetasrv::start().await, FakeMetasrv::start().await);
    other.names(Some((&old.addr, 1)));
    let client = client([old.addr.as_str(), &other.addr]);
    let (mut sender, mut stream, mut theirs) = opened(&client, &mut old, 1).await;
    stream.next().await.expect("the handshake's response");
    let suspicion = stream.suspicion();
    let mut left = pin!(suspicion.confirmed(SELDOM));
    sender.send(HeartbeatRequest::default()).await.expect("sent");
    let request = theirs.request().await;
    let answered = async {
        eventually("it is suspected", || client.suspicions() == 1).await;
        theirs.acknowledge(&request, 1).await;
        stream.next().await.expect("the late answer is heard");
    };
    tokio::select! {
        error = &mut left => panic!("left: {error}"),
        () = within("it answers", answered) => {}
    }
    other.names(Some((&other.addr, 2)));
    let asked = other.asked();
    let trusted = tokio::time::timeout(Duration::from_secs(1), &mut left).await;
    assert!(trusted.is_err(), "it was left though it owed nothing: {trusted:?}");
    assert!(other.asked() <= asked + 1, "a question that was under way is the last one");
    assert_eq!((client.suspicions(), client.highest_term()), (1, 1));
    sender.send(HeartbeatRequest::default()).await.expect("sent");
    let error = within("it is left", left).await;
    assert!(matches!(error, ClientError::LeaderChanged { term: 2, .. }), "{error}");
}

/// Goal: nobody of an equal or a lower term is followed. Method: a replica that names another one in either.
#[tokio::test]
async fn equal_and_lower_terms_are_not_followed() {
    for named in [4, 5] {
        let (mut old, other) = (FakeMetasrv::start().await, FakeMetasrv::start().await);
        old.names(Some((&old.addr, 5)));
        other.names(Some((&other.addr, named)));
        let client = client([old.addr.as_str(), &other.addr]);
        client.hint(&old.addr, 5);
        let (mut sender, mut stream, mut theirs) = opened(&client, &mut old, 5).await;
        stream.next().await.expect("the handshake's response");
        let suspicion = stream.suspicion();
        let mut left = pin!(suspicion.confirmed(SELDOM));
        sender.send(HeartbeatRequest::default()).await.expect("sent");
        let request = theirs.request().await;
        tokio::select! {
            error = &mut left => panic!("left for term {named}: {error}"),
            () = eventually("it was asked three times", || other.asked() >= 3) => {}
        }
        assert_eq!(client.leader(), Some(Leader { addr: old.addr.clone(), term: 5 }));
        theirs.acknowledge(&request, 5).await;
        within("the answer comes", stream.next()).await.expect("it is heard");
    }
}

/// Goal: the deadline and the last limit pass by a timer, each exactly, counted from the oldest request that waits.
/// Method: a paused clock; nobody else can be reached; more requests follow the first.
#[tokio::test(start_paused = true)]
async fn deadline_and_limit_count_from_the_oldest_unanswered_request() {
    let client = client_with([nobody().as_str()], Role::Datanode, |_| {});
    let unanswered = Unanswered::new();
    let leader = Leader { addr: "127.0.0.1:9".to_owned(), term: 3 };
    let lent = client.channels().get(&leader.addr).expect("an address");
    client.hint(&leader.addr, 3);
    let suspicion = Suspicion::new(client.clone(), leader, lent, unanswered.clone());
    let second = Duration::from_secs(1);
    let task = tokio::spawn(async move { suspicion.confirmed(second).await });
    let requests = async {
        unanswered.send(1);
        let sent = Instant::now();
        let deadline = client.config().timeouts.response;
        tokio::time::sleep(deadline - Duration::from_millis(2)).await;
        assert_eq!(client.suspicions(), 0);
        unanswered.send(2);
        tokio::time::sleep(Duration::from_millis(4)).await;
        assert_eq!(client.suspicions(), 1);
        sent
    };
    let sent = requests.await;
    let error = task.await.expect("no panic");
    assert!(matches!(error, ClientError::Transport { .. }), "{error}");
    let after = sent.elapsed();
    assert!(after >= 2 * second && after < 2 * second + Duration::from_millis(10), "{after:?}");
    assert_eq!((client.suspicions(), client.leader()), (1, None), "who leads is asked anew");
}
