//! Goal: an end that was certified is known to the next leader too, and is said again where it could not be stored. Method:
//! leaders with their control loop on a memory store, in virtual time.

use super::*;
use metasrv_proto::admin::RouteRecord;

async fn route(store: &MemoryStore, region: u64) -> (u64, u64) {
    let route: RouteRecord = stored(store, keys().region(RegionId(region))).await;
    (route.node_id, route.epoch)
}

#[tokio::test(start_paused = true)]
async fn the_next_leader_does_not_wait_for_the_leases_of_a_process_that_was_reaped() {
    let store = Arc::new(MemoryStore::default());
    routes(&store, 1, 1..4).await;
    let (leader, tasks) = lead(&store).await;
    assert_eq!(identify(&leader, 1, 7).await, Identity::Current);
    assert!(leader.grant(&node(1), process(7), reported(1..4, 3)).is_some());
    // There is nobody yet who could take its regions.
    assert_eq!(leader.certify_end(&node(1), 7, "signal 9").await, Ok(Some(process(7))));
    drop((leader, tasks));
    assert_eq!(route(&store, 1).await, (1, 3));

    let (next, _tasks) = lead(&store).await;
    let began = next.clock().now();
    assert_eq!(identify(&next, 1, 7).await, Identity::Current, "it is the recorded process still");
    assert!(next.grant(&node(1), process(7), reported(1..4, 3)).is_none(), "the dead are granted nothing");
    assert_eq!(identify(&next, 2, 7).await, Identity::Current);
    next.heard_of(&node(2), Some(process(7)), "127.0.0.1:1", None, next.clock().now(), 0);
    while route(&store, 3).await != (2, 4) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(next.clock().now().since(began) < Duration::from_secs(2), "somebody waits for a lease");
    }
    assert_eq!(identify(&next, 1, 8).await, Identity::Current, "its successor need not wait either");
    assert!(next.certify_end(&node(1), 7, "signal 9").await.is_ok_and(|ended| ended.is_none()), "too late");
}

#[tokio::test(start_paused = true)]
async fn an_end_that_could_not_be_stored_is_to_be_said_again() {
    let store = Arc::new(MemoryStore::default());
    let (leader, _tasks) = lead(&store).await;
    assert_eq!(identify(&leader, 1, 7).await, Identity::Current);
    // Somebody else writes the record.
    let meddled = NodeRecord { node_epoch: 7, incarnation_nonce: 7, ..NodeRecord::default() };
    write(&store, Change::Put { key: keys().node(&node(1)), value: encode(&meddled) }).await;
    assert_eq!(leader.certify_end(&node(1), 7, "signal 9").await, Err(NotStored));
    assert_eq!(leader.certify_end(&node(1), 7, "signal 9").await, Ok(Some(process(7))));
    let record: NodeRecord = stored(&store, keys().node(&node(1))).await;
    assert_eq!(record.ended, "signal 9");
}
