//! Goal: the nodes of an earlier leader cost the next one no burst of writes, and none of them is forgotten. Method: the
//! leases that two leaders on one store hand to the write-behind, with virtual time.

use super::*;

const NODES: u64 = 1_000;

fn hear(leader: &Leader, id: u64, addr: &str) {
    leader.heard_of(&node(id), Some(process(7)), addr, None, leader.clock().now(), 1);
}

/// How many of the nodes' leases the store has of a leader's own term.
async fn of_its_term(store: &MemoryStore, leader: &Leader) -> usize {
    let page = store.list(&keys().leases()).await.unwrap();
    let leases = page.records.iter().map(|record| decode::<NodeLeaseRecord>(record).unwrap());
    leases.filter(|lease| lease.term == leader.term().0).count()
}

#[tokio::test(start_paused = true)]
async fn inherited_leases_are_written_over_a_region_lease() {
    let store = Arc::new(MemoryStore::default());
    let (first, _tasks) = lead(&store).await;
    for id in 1..=NODES {
        assert_eq!(identify(&first, id, 7).await, Identity::Current);
        hear(&first, id, "h:1");
    }
    first.drain(PATIENCE).await;
    assert_eq!(of_its_term(&store, &first).await, 1_000, "nodes that nobody knew are written at once");

    let (second, _tasks) = lead(&store).await;
    let mut written = Vec::new();
    for _ in 0..6 {
        (1..=NODES).for_each(|id| hear(&second, id, if id == 17 { "h:2" } else { "h:1" }));
        tokio::time::sleep(Duration::from_secs(1)).await;
        written.push(of_its_term(&store, &second).await);
    }
    assert!((1..50).contains(&written[0]), "in the first second the one that moved, and few: {written:?}");
    assert!(written.windows(2).all(|pair| pair[1] - pair[0] < 300), "in one later second: {written:?}");
    assert_eq!(written[5], 1_000, "after a region lease all of them: {written:?}");
    let moved: NodeLeaseRecord = stored(&store, keys().lease(&node(17))).await;
    assert_eq!(moved.addr, "h:2");
}
