//! Migrations that nothing disturbs.

use metasrv_core::grant::Reported;
use metasrv_core::id::Epoch;

use super::world::World;
use super::{FIRST, REGION, millis, node, process};

#[tokio::test(start_paused = true)]
async fn a_migration_runs_through_all_states_and_the_region_is_led_under_the_next_epoch() {
    let mut world = World::new(3, 2).await;
    let id = world.migrate().await;
    world.all_ended().await;
    assert_eq!(world.route(REGION).await, (2, FIRST + 1));
    let told = |of: u64| {
        let told = world.datanode(of, |node| node.told.clone());
        told.into_iter().map(|(_, name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(told(1), ["flush", "downgrade", "close"]);
    assert_eq!(told(2), ["open_candidate", "catch_up", "upgrade"]);
    let history = world.history().await;
    let of_it: Vec<_> = history
        .iter()
        .map(|event| {
            (event.kind.as_str(), event.from_node_id, event.node_id, event.epoch, event.procedure_id)
        })
        .collect();
    let expected = [
        ("migration_begun", 1, 2, FIRST, id),
        ("region_migrated", 1, 2, FIRST + 1, id),
        ("migration_done", 1, 2, FIRST + 1, id),
    ];
    assert_eq!(of_it, expected);
    assert!(world.datanode(1, |node| !node.regions.contains_key(&REGION)), "the source kept its copy");
    assert_eq!(world.listed().await, []);
    world.check(2).await;
}

/// Goal: the gap between the last write under the old epoch and the first lease under the new one needs no tick. Method: in
/// virtual time only ticks and patience take time, so that whatever is done without them happens at one instant.
#[tokio::test(start_paused = true)]
async fn nothing_waits_for_a_tick_while_a_region_has_no_writer() {
    let mut world = World::new(3, 2).await;
    // Not at the moment of a tick.
    tokio::time::sleep(millis(37)).await;
    world.migrate().await;
    world.all_ended().await;
    let stopped = world.told(1, "downgrade").unwrap();
    assert_eq!(world.told(2, "catch_up"), Some(stopped));
    assert_eq!(world.told(2, "upgrade"), Some(stopped));
    let granted = world.leader().nodes().get(&node(2)).unwrap().regions.granted_at(&REGION);
    assert!(granted.is_some());
    let lease_until = world.datanode(2, |node| node.regions[&REGION].writable_until);
    assert!(lease_until >= stopped + world.leader().timing().region_lease);
    world.check(2).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_granted_between_the_commits_of_the_downgrade_and_of_the_route() {
    let mut world = World::new(3, 2).await;
    world.ignore("downgrade");
    world.ignore("catch_up");
    world.migrate().await;
    world.reaches("downgrading").await;
    tokio::time::sleep(millis(800)).await;
    world.datanode(1, |node| node.ignores.clear());
    world.reaches("catching_up").await;
    let before = world.heartbeats_in_gap();
    assert!(before >= 3, "only {before} heartbeats while the source is to stop");
    tokio::time::sleep(millis(700)).await;
    let then = world.heartbeats_in_gap();
    assert!(then >= before + 3, "only {then} heartbeats until the target has caught up");
    assert_eq!(world.route(REGION).await, (1, FIRST));
    // Its other region is renewed all the time.
    let other = metasrv_core::id::RegionId(102);
    let now = world.now();
    assert!(world.datanode(1, |node| node.writes(other, now) && !node.writes(REGION, now)));
    world.ignore_nothing();
    world.all_ended().await;
    assert_eq!(world.route(REGION).await, (2, FIRST + 1));
    world.check(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_region_is_renewed_until_its_source_is_to_stop() {
    let mut world = World::new(3, 2).await;
    world.ignore("flush");
    world.migrate().await;
    world.reaches("flushing").await;
    let held = Reported { region: REGION, epoch: Epoch(FIRST) };
    let granted = world.leader().grant(&node(1), process(1), vec![held]).unwrap();
    assert_eq!(granted.renewed, [held]);
    let granted = world.leader().grant(&node(2), process(2), vec![held]).unwrap();
    assert_eq!((granted.renewed, granted.closeable), (vec![], vec![]), "the candidate's copy is in use");
    world.ignore_nothing();
    world.all_ended().await;
    world.check(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_never_flushes_is_waited_for_and_then_stopped() {
    let mut world = World::new(3, 2).await;
    world.ignore("flush");
    world.migrate().await;
    world.all_ended().await;
    let (flush, downgrade) = (world.told(1, "flush").unwrap(), world.told(1, "downgrade").unwrap());
    let waited = downgrade.since(flush);
    assert!(waited >= millis(10_000) && waited < millis(10_500), "{waited:?}");
    assert_eq!(world.route(REGION).await, (2, FIRST + 1));
    world.check(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_dies_in_the_gap_keeps_nobody_from_leading() {
    let mut world = World::new(3, 2).await;
    world.ignore("downgrade");
    world.migrate().await;
    world.reaches("downgrading").await;
    world.datanode(1, |node| node.is_silent = true);
    // Its process has ended: it writes to nothing.
    world.datanode(1, |node| node.regions.clear());
    assert!(world.leader().certify_end(&node(1), process(1).nonce, "a test").await.unwrap().is_some());
    world.all_ended().await;
    assert_eq!(world.route(REGION).await, (2, FIRST + 1));
    assert_eq!(world.told(1, "close"), None, "a process that has ended is told nothing");
    world.check(2).await;
}
