//! Who leads?

use std::time::Duration;

use metasrv_proto::meta::Role;

use super::{client, client_with};
use crate::fake::{FakeMetasrv, Silent, nobody, within};
use crate::{ClientError, Leader, MetaClient, MetaClientConfig};

fn leader(addr: &str, term: u64) -> Leader {
    Leader { addr: addr.to_owned(), term }
}

#[tokio::test]
async fn a_peer_that_does_not_parse_is_an_error_that_names_the_field() {
    let config = MetaClientConfig::new(["127.0.0.1:3002", "nonsense"], Role::Datanode, 1);
    let error = MetaClient::try_new(config).err().expect("refused").to_string();
    assert!(error.contains("peers: \"nonsense\" is not host:port"), "{error}");
}

/// Goal: the leader that a replica names is remembered, and not asked for again.
#[tokio::test]
async fn the_leader_is_asked_for_once_and_remembered() {
    let fake = FakeMetasrv::start().await;
    let client = client([fake.addr.as_str()]);
    assert_eq!(client.leader(), None);
    assert_eq!(client.ask_leader().await.expect("a leader"), leader(&fake.addr, 1));
    assert_eq!(client.leader(), Some(leader(&fake.addr, 1)));
    assert_eq!(client.find_leader(Duration::from_secs(1)).await.expect("a leader"), leader(&fake.addr, 1));
    assert_eq!((fake.asked(), client.highest_term()), (1, 1));
}

/// Goal: neither a dead nor a silent replica costs more than a moment. Method: two of three never answer, and the
/// deadline of one answer is far longer than what the race may take.
#[tokio::test]
async fn dead_and_silent_peers_delay_the_race_by_a_stagger_only() {
    let fake = FakeMetasrv::start().await;
    let (silent, dead) = (Silent::start(), nobody());
    for _ in 0..5 {
        let client = client_with([silent.addr.as_str(), &dead, &fake.addr], Role::Datanode, |config| {
            config.timeouts.ask = Duration::from_secs(15);
        });
        let asked = tokio::time::timeout(Duration::from_secs(5), client.ask_leader()).await;
        assert_eq!(asked.expect("no waiting for the silent one").expect("a leader"), leader(&fake.addr, 1));
    }
}

/// Goal: all peers are used, in changing order.
#[tokio::test]
async fn peers_are_asked_in_shuffled_order() {
    let (a, b) = (FakeMetasrv::start().await, FakeMetasrv::start().await);
    for fake in [&a, &b] {
        fake.names(Some((&a.addr, 3)));
    }
    for round in 0.. {
        assert!(round < 200, "one of two peers was never asked first");
        client([a.addr.as_str(), &b.addr]).ask_leader().await.expect("a leader");
        if a.asked() > 0 && b.asked() > 0 {
            return;
        }
    }
}

/// Goal: a replica that lags behind does not send anybody to an old leader.
#[tokio::test]
async fn an_answer_of_a_lower_term_is_refused() {
    let (old, new) = (FakeMetasrv::start().await, FakeMetasrv::start().await);
    new.names(Some((&new.addr, 5)));
    let client = client([old.addr.as_str(), &new.addr]);
    while client.highest_term() < 5 {
        client.ask_leader().await.expect("a leader");
    }
    client.forget_leader(&client.leader().expect("known"));
    assert_eq!(client.ask_leader().await.expect("a leader"), leader(&new.addr, 5));
    let new_addr = new.addr.clone();
    new.kill();
    client.forget_leader(&leader(&new_addr, 5));
    let error = client.ask_leader().await.expect_err("only term 1 is named");
    assert!(matches!(error, ClientError::NoLeader { .. }), "{error}");
    assert!(client.lower_terms_refused() > 0);
}

/// Goal: a node is not bound to the replica that it happened to ask first. Method: one that lags behind has its only
/// connection; after as many questions as chance cannot explain away, the other one was heard.
#[tokio::test]
async fn a_replica_that_was_asked_before_is_not_always_asked_first() {
    let (old, new) = (FakeMetasrv::start().await, FakeMetasrv::start().await);
    new.names(Some((&new.addr, 5)));
    let client = client([old.addr.as_str(), &new.addr]);
    client.channels().get(&old.addr).expect("a connection");
    for _ in 0..64 {
        client.ask_leader().await.expect("a leader");
    }
    assert_eq!(client.highest_term(), 5);
}

/// Goal: a leader that just failed is not believed as long as anybody knows another one, in whatever order they answer.
#[tokio::test]
async fn a_leader_that_failed_wins_only_if_nobody_names_another_one() {
    let (old, stale, new) = (nobody(), FakeMetasrv::start().await, FakeMetasrv::start().await);
    for fake in [&stale, &new] {
        fake.names(Some((&old, 1)));
    }
    let client = client([stale.addr.as_str(), &new.addr]);
    assert_eq!(client.ask_leader().await.expect("the only one"), leader(&old, 1));
    assert_eq!((stale.failed_term(), new.failed_term()), (0, 0));
    client.forget_leader(&leader(&old, 1));
    assert_eq!(client.ask_leader().await.expect("still the only one"), leader(&old, 1));
    assert_eq!((stale.failed_term(), new.failed_term()), (1, 1), "a replica may wait for a later term");
    client.forget_leader(&leader(&old, 1));
    new.names(Some((&new.addr, 2)));
    new.answers_after(Duration::from_millis(100));
    assert_eq!(client.ask_leader().await.expect("the new one"), leader(&new.addr, 2));
}

#[tokio::test]
async fn nobody_reachable_and_no_leader_are_told_apart() {
    let (dead, silent) = (nobody(), Silent::start());
    let error = client([dead.as_str(), &silent.addr]).ask_leader().await.expect_err("nobody");
    assert!(matches!(&error, ClientError::NobodyReachable { why } if why.contains(&dead)), "{error}");
    let fake = FakeMetasrv::start().await;
    fake.names(None);
    let error = client([dead.as_str(), &fake.addr]).ask_leader().await.expect_err("no leader");
    assert!(matches!(error, ClientError::NoLeader { .. }), "{error}");
}

/// Goal: a leader that is elected while we search is found.
#[tokio::test]
async fn searching_goes_on_until_there_is_a_leader() {
    let fake = FakeMetasrv::start().await;
    fake.names(None);
    let client = client([fake.addr.as_str()]);
    let search = client.find_leader(Duration::from_secs(20));
    let election = async {
        crate::fake::eventually("asked three times", || fake.asked() >= 3).await;
        fake.names(Some((&fake.addr, 9)));
    };
    let (found, ()) = within("the search ends", async { tokio::join!(search, election) }).await;
    assert_eq!(found.expect("a leader"), leader(&fake.addr, 9));
}

#[tokio::test]
async fn hints_are_followed_unless_their_term_is_lower() {
    let client = client(["127.0.0.1:1"]);
    assert!(client.hint("10.0.0.1:3002", 4));
    assert_eq!(client.leader(), Some(leader("10.0.0.1:3002", 4)));
    assert!(!client.hint("10.0.0.2:3002", 3), "a lower term");
    assert!(!client.hint("nonsense", 9), "no address");
    assert_eq!(client.leader(), Some(leader("10.0.0.1:3002", 4)));
}

/// Goal: all clones keep to the installation that the first answer named.
#[tokio::test]
async fn another_installation_is_refused_by_all_clones() {
    let (ours, theirs) = (FakeMetasrv::start().await, FakeMetasrv::start().await);
    theirs.belongs_to(0xbad);
    theirs.names(Some((&theirs.addr, 99)));
    let client = client_with([theirs.addr.as_str()], Role::Datanode, |config| config.installation = 1);
    let error = client.clone().ask_leader().await.expect_err("refused");
    assert!(error.to_string().contains("another metasrv installation"), "{error}");
    assert_eq!(client.highest_term(), 0, "nothing was learned from it");
    let client = super::client([ours.addr.as_str(), &theirs.addr]);
    client.ask_leader().await.expect("the first one that answers");
    assert_ne!(client.clone().installation(), 0);
}
