//! Failovers, paused and resumed, and maintenance.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_pause_and_maintenance_survive_a_change_of_leader_and_a_pause_ends_by_itself() {
    let mut world = World::new(2, 0).await;
    assert_eq!(world.failover().await.verdict, "proceed");
    let paused = world.set_failover(Some(Order::PauseMs(60_000))).await.unwrap();
    assert_eq!(paused.verdict, "hold", "the answer shows what was ordered");
    assert!(paused.why.contains("a test") && paused.paused_until_ms > 0, "{paused:?}");
    let stored = world.store.get(&keys().failover_order()).await.unwrap().unwrap();
    let stored: FailoverOrderRecord = decode(&stored).unwrap();
    assert_eq!(stored.paused_until_ms, paused.paused_until_ms);
    world.change_leader().await;
    world.hear(1..=2).await;
    assert_eq!(world.failover().await.verdict, "hold", "the next leader does not know");
    world.pass(61, 1..=2).await;
    assert_eq!(world.failover().await.verdict, "proceed");

    let maintenance = async |world: &World, on| {
        let request = SetMaintenanceRequest { on, reason: "racks".to_owned() };
        world.leader.control().ask(|reply| Command::SetMaintenance(request, reply)).await.unwrap()
    };
    assert!(maintenance(&world, true).await.why.contains("racks"));
    world.change_leader().await;
    assert!(world.failover().await.maintenance);
    let rebalance = RebalanceRequest::default();
    let moved = world.leader.control().ask(|reply| Command::Rebalance(rebalance, reply)).await;
    refused(moved, "maintenance");
    assert!(!maintenance(&world, false).await.maintenance);
    assert_eq!(
        world.kinds().await,
        ["failover_paused", "maintenance_on", "maintenance_off"],
        "a pause that ended by itself is no decision"
    );
}

#[tokio::test(start_paused = true)]
async fn a_pause_beyond_a_day_is_refused_and_an_order_without_a_choice_is_invalid() {
    let world = World::new(1, 0).await;
    refused(world.set_failover(Some(Order::PauseMs(25 * 3_600_000))).await, "longer than");
    let none = world.set_failover(None).await;
    assert!(matches!(none, Err(ControlError::Invalid { field: "order", .. })), "{none:?}");
    assert!(world.kinds().await.is_empty());
}

/// Goal: who is known to have ended is counted at once, though nodes are not counted with every turn of the loop. Method: a
/// certificate just after they were counted; virtual time, in which the next count is far away.
#[tokio::test(start_paused = true)]
async fn a_certificate_is_acted_upon_without_waiting_for_the_next_count() {
    let world = World::new(3, 1).await;
    // What earlier terms may have granted is over.
    world.pass(21, 1..=3).await;
    for _ in 0..5 {
        world.leader.control().wake_procedures();
        tokio::time::sleep(Duration::from_millis(13)).await;
    }
    let before = world.clock.now();
    assert!(world.leader.certify_end(&node(1), process(1).nonce, "a test").await.unwrap().is_some());
    while world.leader.route_of(RegionId(101)).unwrap().0 == node(1) {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let waited = world.clock.now().since(before);
        assert!(waited < Duration::from_millis(5), "it waits for the next count: {waited:?}");
    }
}
