//! Drains.

use std::collections::BTreeMap;

use metasrv_core::id::RegionId;
use metasrv_core::procedure::Limits;
use metasrv_proto::admin::{DrainNodeRequest, DrainNodeResponse};

use super::world::World;
use super::{FIRST, REGION, keys, millis, node, refused};
use crate::control::{Command, ControlError};

const REGIONS: u64 = 20;

async fn drain(world: &World, dry_run: bool) -> Result<DrainNodeResponse, ControlError> {
    let request =
        DrainNodeRequest { node_id: 1, reason: "a test".to_owned(), dry_run, ..DrainNodeRequest::default() };
    world.ask(|reply| Command::DrainNode(request, reply)).await
}

/// How many regions each node has, by what is stored.
async fn spread(world: &World) -> BTreeMap<u64, usize> {
    let mut spread = BTreeMap::new();
    for region in 1..=REGIONS {
        let (node, epoch) = world.route(RegionId(100 + region)).await;
        assert_eq!(epoch, if node == 1 { FIRST } else { FIRST + 1 }, "region {region}");
        *spread.entry(node).or_default() += 1;
    }
    spread
}

async fn count(world: &World, kind: &str) -> usize {
    world.kinds().await.iter().filter(|one| *one == kind).count()
}

/// Who writes to [`REGION`] is who has it by now.
async fn check(world: &mut World) {
    let (writer, _) = world.route(REGION).await;
    world.check(writer).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_with_an_empty_cordoned_node_and_never_more_migrations_than_allowed() {
    let mut world = World::new(4, REGIONS).await;
    let begun = drain(&world, false).await.unwrap();
    assert_eq!((begun.moves.len(), begun.stuck.len()), (20, 0));
    assert!(world.stored(&keys().node_order(&node(1))).await, "the node is not cordoned");
    assert_eq!(world.kinds().await[..2], ["drain_begun", "node_cordoned"]);
    refused(drain(&world, false).await.map(drop), "being drained already");
    world.all_ended().await;
    let spread = spread(&world).await;
    assert_eq!(spread.values().sum::<usize>(), 20);
    assert!(!spread.contains_key(&1) && spread.values().all(|held| [6, 7].contains(held)), "{spread:?}");
    assert_eq!(world.most_at_once(), Limits::default().migrations_per_node);
    assert_eq!(world.kinds().await.last().map(String::as_str), Some("drain_done"));
    assert_eq!((count(&world, "migration_begun").await, count(&world, "migration_done").await), (20, 20));
    assert_eq!(count(&world, "migration_undone").await, 0);
    assert!(world.datanode(1, |node| node.regions.is_empty()), "copies are left on the drained node");
    // It gets nothing back.
    refused(world.try_migrate(REGION, Some(1)).await, "cordoned");
    check(&mut world).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_its_next_look_when_a_migration_has_ended() {
    let mut world = World::new(4, REGIONS).await;
    let before = world.now();
    drain(&world, false).await.unwrap();
    world.all_ended().await;
    let took = world.now().since(before);
    assert!(took < millis(1_000), "20 regions took {took:?}");
    check(&mut world).await;
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_says_what_would_be_moved_and_moves_nothing() {
    let mut world = World::new(4, REGIONS).await;
    let planned = drain(&world, true).await.unwrap();
    assert_eq!((planned.procedure_id, planned.moves.len()), (0, 20));
    tokio::time::sleep(millis(2_000)).await;
    assert_eq!(world.kinds().await, Vec::<String>::new());
    assert_eq!(spread(&world).await, BTreeMap::from([(1, 20)]));
    check(&mut world).await;
}

#[tokio::test(start_paused = true)]
async fn another_leader_goes_on_with_a_drain() {
    let mut world = World::new(4, REGIONS).await;
    world.ignore("flush");
    let begun = drain(&world, false).await.unwrap();
    world.reaches("flushing").await;
    world.change_leader().await;
    let listed = world.listed().await;
    let drains: Vec<u64> = listed.iter().filter(|view| view.kind == "drain").map(|view| view.id).collect();
    assert_eq!(drains, [begun.procedure_id]);
    assert_eq!(listed.iter().filter(|view| view.drain_id == begun.procedure_id).count(), 4);
    world.ignore_nothing();
    world.all_ended().await;
    assert!(!spread(&world).await.contains_key(&1));
    assert_eq!(world.most_at_once(), Limits::default().migrations_per_node);
    assert_eq!(world.kinds().await.last().map(String::as_str), Some("drain_done"));
    check(&mut world).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_drain_begins_nothing_more_and_what_it_began_goes_on() {
    let mut world = World::new(4, REGIONS).await;
    world.ignore("flush");
    let begun = drain(&world, false).await.unwrap();
    world.reaches("flushing").await;
    assert_eq!(world.cancel(begun.procedure_id).await, Ok(()));
    assert_eq!(world.kinds().await.last().map(String::as_str), Some("drain_cancelled"));
    world.ignore_nothing();
    world.all_ended().await;
    assert_eq!(spread(&world).await.get(&1), Some(&16));
    assert_eq!((count(&world, "migration_begun").await, count(&world, "migration_done").await), (4, 4));
    check(&mut world).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_tries_regions_again_whose_migration_was_undone() {
    let mut world = World::new(4, REGIONS).await;
    // Every target fails until then.
    for id in 2..=4 {
        world.datanode(id, |node| node.refuses.insert("catch_up"));
    }
    drain(&world, false).await.unwrap();
    while count(&world, "migration_undone").await == 0 {
        tokio::time::sleep(millis(10)).await;
    }
    (2..=4).for_each(|id| world.datanode(id, |node| node.refuses.clear()));
    world.all_ended().await;
    for region in 1..=REGIONS {
        assert_ne!(world.route(RegionId(100 + region)).await.0, 1, "region {region} is left");
    }
    assert_eq!(world.kinds().await.last().map(String::as_str), Some("drain_done"));
    check(&mut world).await;
}

/// Goal: of the regions of one node few are without a writer at a time, however many are on their way. Method: a store that takes
/// its time, so that migrations that run beside each other are in each state together.
#[tokio::test(start_paused = true)]
async fn a_drain_opens_no_more_gaps_at_a_time_than_allowed() {
    let mut world = World::new(4, REGIONS).await;
    world.store().slow_down(20);
    drain(&world, false).await.unwrap();
    world.all_ended().await;
    let limits = Limits::default();
    assert_eq!((world.most_at_once(), world.most_gaps()), (limits.migrations_per_node, limits.gaps_per_node));
    world.store().slow_down(0);
    check(&mut world).await;
}

/// Goal: the first time that a drain tells is that of the regions which are left then. Method: in a term in which no migration was
/// measured, everything that is told until the end is read.
#[tokio::test(start_paused = true)]
async fn a_drain_tells_no_time_for_no_regions() {
    let mut world = World::new(4, REGIONS).await;
    world.store().slow_down(20);
    let id = drain(&world, false).await.unwrap().procedure_id;
    let mut told = Vec::new();
    while let Some(view) = world.listed().await.into_iter().find(|view| view.id == id) {
        assert_eq!(view.done + view.left, REGIONS, "{view:?}");
        told.extend(view.eta_ms.map(|eta| (eta, view.left)));
        tokio::time::sleep(millis(1)).await;
    }
    let first = told.first().copied().unwrap_or_default();
    assert!(first.0 > 0 && first.1 > REGIONS / 2, "{first:?}");
    assert!(told.iter().all(|(eta, left)| *eta > 0 && *left > 0), "{told:?}");
    world.store().slow_down(0);
    check(&mut world).await;
}
