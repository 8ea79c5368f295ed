//! Goal: a takeover gets nothing from a mirror that is not whole, and does not need one.
//! Method: as in `tests.rs`; what the new leader knows is compared with what the store has.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use metasrv_core::id::{Fence, RegionId};
use metasrv_core::lease::LeadershipLease;
use metasrv_core::time::BootTime;
use metasrv_proto::admin::CandidateRecord;

use super::tests::{Followed, Manner, keys, node};
use crate::leader::{Candidate, Leader, take_over};
use crate::record::encode;
use crate::store::Change;

impl Followed {
    fn candidate(&self) -> Candidate {
        let record = CandidateRecord { name: "one".to_owned(), ..CandidateRecord::default() };
        Candidate {
            clock: Arc::clone(&self.mirror.shared.clock),
            metrics: Arc::clone(&self.mirror.shared.metrics),
            mirror: Some(self.mirror.clone()),
            ..Candidate::fresh(record, self.watched.store(), keys())
        }
    }

    /// Wins and takes over.
    async fn lead(&self) -> Arc<Leader> {
        let candidate = self.candidate();
        let key = format!("{}/1f", keys().election());
        let value = encode(&candidate.record);
        let create_revision = self.watched.write(Change::Put { key: key.clone(), value }).await;
        let lease = Arc::new(LeadershipLease::new(BootTime::MAX, Duration::from_secs(5)));
        let now = candidate.clock.now();
        let prepared = take_over(candidate, Fence { key, create_revision }, lease, None).await;
        prepared.unwrap_or_else(|error| panic!("{error}")).lead(now).0
    }

    fn takeovers(&self, state: &str) -> u64 {
        self.mirror.shared.metrics.takeovers.with_label_values(&[state]).get()
    }
}

fn regions(leader: &Leader) -> usize {
    leader.nodes().iter().map(|node| node.regions.len()).sum()
}

#[tokio::test(start_paused = true)]
async fn a_takeover_gets_the_state_from_its_mirror_and_the_mirror_begins_again() {
    let followed = Followed::new();
    followed.watched.route(1).await;
    followed.has(1).await;
    // Written right before the win: the mirror has not heard of it yet.
    followed.watched.route(2).await;
    let lists = followed.watched.lists.load(Ordering::SeqCst);
    let leader = followed.lead().await;
    assert_eq!((followed.takeovers("mirror"), followed.takeovers("list")), (1, 0));
    assert_eq!(regions(&leader), 2);
    assert_eq!(followed.watched.lists.load(Ordering::SeqCst), lists, "nothing was listed");
    assert_eq!(followed.routes(), None, "the state was moved out");
    // Nobody published that it leads, as after a takeover that failed: the mirror is there again.
    followed.has(2).await;
    assert_eq!(followed.restarts("taken"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_has_no_mirror_and_has_one_again_when_it_leads_no_longer() {
    let followed = Followed::new();
    followed.watched.route(1).await;
    followed.has(1).await;
    let leader = followed.lead().await;
    followed.leader.send_replace(Some(leader));
    let lists = followed.watched.lists.load(Ordering::SeqCst);
    followed.watched.route(2).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(followed.mirror.standing(), None);
    assert_eq!(followed.watched.lists.load(Ordering::SeqCst), lists, "the store was read for nothing");
    followed.leader.send_replace(None);
    assert!(followed.has(2).await < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_takeover_lists_where_the_mirror_lags_or_holds_nothing() {
    for manner in [Manner::Deaf, Manner::Silent] {
        let followed = Followed::new();
        followed.watched.route(1).await;
        followed.has(1).await;
        followed.watched.behave(manner);
        followed.watched.route(2).await;
        let since = tokio::time::Instant::now();
        let leader = followed.lead().await;
        assert!(since.elapsed() < Duration::from_millis(200), "{:?}", since.elapsed());
        assert_eq!((followed.takeovers("mirror"), followed.takeovers("list")), (0, 1));
        assert_eq!(regions(&leader), 2, "led with what the mirror had");
    }
    let followed = Followed::new();
    followed.running.abort();
    followed.watched.route(1).await;
    assert_eq!(regions(followed.lead().await.as_ref()), 1);
    assert_eq!(followed.takeovers("list"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_higher_revision_alone_is_not_enough_for_a_takeover() {
    let followed = Followed::new();
    for region in 1..=50 {
        followed.watched.route(region).await;
    }
    followed.has(50).await;
    // A backup of long ago: the mirror stands at a revision that the store is far from.
    followed.running.abort();
    *followed.watched.store.lock().unwrap() = Arc::default();
    followed.watched.route(1).await;
    let leader = followed.lead().await;
    assert_eq!(regions(&leader), 1, "led with regions that the store does not have");
    assert_eq!(followed.takeovers("list"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_held_before_the_store_was_set_back_is_not_led_with_though_the_revisions_agree() {
    let followed = Followed::new();
    followed.watched.route(1).await;
    let key = format!("{}/1f", keys().election());
    // In its former life the store had another change of this key where the takeover's first transaction will be.
    let value = encode(&followed.candidate().record);
    assert_eq!(followed.watched.write(Change::Put { key, value }).await, 2);
    tokio::time::sleep(Duration::from_secs(1)).await;
    followed.has(1).await;
    followed.watched.behave(Manner::Down);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(followed.mirror.standing().is_some_and(|standing| standing.revision == 2), "it is still held");
    *followed.watched.store.lock().unwrap() = Arc::default();
    let leader = followed.lead().await;
    assert_eq!(regions(&leader), 0, "led with regions that the store does not have");
    assert_eq!(followed.takeovers("list"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_understood_stops_a_takeover_from_a_mirror_too() {
    let garbage = b"\xffgarbage".to_vec();
    for (key, stops) in [
        (keys().region(RegionId(7)), true),
        (keys().node(&node(7)), true),
        (keys().region_sequence(), true),
        (format!("{}zzz", keys().regions()), true),
        (keys().lease(&node(7)), false),
    ] {
        let followed = Followed::new();
        followed.watched.route(1).await;
        followed.has(1).await;
        followed.watched.write(Change::Put { key: key.clone(), value: garbage.clone() }).await;
        let candidate = followed.candidate();
        let fence = format!("{}/1f", keys().election());
        let put = Change::Put { key: fence.clone(), value: encode(&candidate.record) };
        let create_revision = followed.watched.write(put).await;
        let lease = Arc::new(LeadershipLease::new(BootTime::MAX, Duration::from_secs(5)));
        let taken = take_over(candidate, Fence { key: fence, create_revision }, lease, None).await;
        assert_eq!(followed.takeovers("mirror"), 1);
        assert_eq!(taken.is_err(), stops, "{key}");
        if let Err(error) = taken {
            assert!(error.to_string().contains(&key), "{error}");
        }
    }
}
