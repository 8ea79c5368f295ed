//! Goal: what changes routes is told in the transaction that does it, observations are told once, and the history stays short.
//! Method: leaders with their control loop on a memory store, in virtual time; the history as it is stored.

use super::*;
use crate::control::timeline::KEPT;
use metasrv_proto::admin::{DirectoryLock, EventsRecord, StoredEvent};

/// The events of each entry, the oldest entry first.
async fn history(store: &MemoryStore) -> Vec<Vec<StoredEvent>> {
    let page = store.list(&keys().timeline()).await.unwrap();
    page.records.iter().map(|stored| decode::<EventsRecord>(stored).unwrap().events).collect()
}

async fn told(store: &MemoryStore, kind: &str) -> Vec<StoredEvent> {
    history(store).await.into_iter().flatten().filter(|event| event.kind == kind).collect()
}

async fn passes(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn each_raised_epoch_is_told_in_the_transaction_that_raises_it() {
    let store = Arc::new(MemoryStore::default());
    routes(&store, 1, 1..301).await;
    let (leader, _tasks) = lead(&store).await;
    assert_eq!(identify(&leader, 1, 7).await, Identity::Current);
    while identify(&leader, 1, 8).await != Identity::Current {
        passes(1).await;
    }
    let raised = told(&store, "region_epoch_raised").await;
    let regions: Vec<u64> = raised.iter().map(|event| event.region_id).collect();
    assert_eq!(regions, (1..301).collect::<Vec<u64>>());
    assert!(raised.iter().all(|event| (event.node_id, event.epoch) == (1, 4)), "{:?}", raised.first());
    let page = store.list(&keys().timeline()).await.unwrap();
    let revisions: Vec<i64> = page.records.iter().map(|entry| entry.mod_revision).collect();
    for region in [1, 300] {
        let route = store.get(&keys().region(RegionId(region))).await.unwrap().unwrap();
        assert!(revisions.contains(&route.mod_revision), "region {region} was raised without an entry");
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_process_is_told_once_however_often_it_is_certified() {
    let store = Arc::new(MemoryStore::default());
    let (leader, _tasks) = lead(&store).await;
    assert_eq!(identify(&leader, 1, 7).await, Identity::Current);
    for _ in 0..3 {
        assert!(leader.certify_end(&node(1), 7, "exit status: 9").await.unwrap().is_some());
        passes(1).await;
    }
    assert!(
        leader.certify_end(&node(1), 6, "exit status: 9").await.unwrap().is_none(),
        "not the recorded process"
    );
    passes(1).await;
    let told = told(&store, "process_ended").await;
    assert!(matches!(told.as_slice(), [event] if event.node_id == 1 && event.why.contains("exit status: 9")));
}

#[tokio::test(start_paused = true)]
async fn a_successor_that_holds_the_lock_and_asks_twice_is_told_of_once() {
    let store = Arc::new(MemoryStore::default());
    let (leader, _tasks) = lead(&store).await;
    let lock = DirectoryLock { directory_id: 5, boot_id: "boot".to_owned(), ..DirectoryLock::default() };
    let asks = |epoch: u64, patience: Duration| {
        let (leader, lock) = (Arc::clone(&leader), lock.clone());
        async move { leader.identify(&node(1), process(epoch), "h:1", Some(&lock), patience).await }
    };
    assert_eq!(asks(7, PATIENCE).await, Identity::Current);
    for _ in 0..2 {
        assert_eq!(asks(8, Duration::ZERO).await, Identity::Waiting, "the store has not answered yet");
    }
    passes(2).await;
    assert_eq!(asks(8, PATIENCE).await, Identity::Current);
    assert_eq!(told(&store, "process_ended").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_brake_is_told_when_it_engages_and_when_it_is_released() {
    let store = Arc::new(MemoryStore::default());
    let nodes = 1..=20_u64;
    for id in nodes.clone() {
        routes(&store, id, id..id + 1).await;
    }
    let (leader, _tasks) = lead(&store).await;
    passes(60).await;
    assert_eq!(told(&store, "brake_engaged").await.len(), 1, "everybody is silent");
    assert_eq!(told(&store, "brake_released").await.len(), 0);
    for _ in 0..120 {
        for id in nodes.clone() {
            let now = leader.clock().now();
            leader.heard_of(&node(id), Some(process(7)), "h:1", None, now, 0);
        }
        passes(1).await;
    }
    assert_eq!(told(&store, "brake_released").await.len(), 1);
    assert_eq!(told(&store, "brake_engaged").await.len(), 1);
    assert!(told(&store, "region_failed_over").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_oldest_entries_go_and_so_many_stay_as_are_to_be_kept() {
    let store = Arc::new(MemoryStore::default());
    let surplus = 300;
    let kept = u64::try_from(KEPT).unwrap();
    for id in 1..=kept + surplus {
        write(
            &store,
            Change::Put { key: keys().timeline_entry(id), value: encode(&EventsRecord::default()) },
        )
        .await;
    }
    let (leader, _tasks) = lead(&store).await;
    passes(30).await;
    let page = store.list(&keys().timeline()).await.unwrap();
    let ids: Vec<u64> =
        page.records.iter().filter_map(|stored| keys().parse_timeline_entry(&stored.key)).collect();
    assert_eq!((ids.len(), ids.first().copied()), (KEPT, Some(surplus + 1)));
    assert!(leader.leads(leader.clock().now()));
}
