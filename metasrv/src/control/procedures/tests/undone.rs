//! Migrations that are undone: by what happens, by what somebody else wrote, or by an operator.

use metasrv_core::id::RegionId;
use metasrv_proto::admin::procedure_record::Kind;
use metasrv_proto::admin::{MigrationRecord, ProcedureRecord, RouteRecord};

use super::world::World;
use super::{FIRST, REGION, keys, node, process, refused};
use crate::control::ControlError;
use crate::record::encode;

/// The region stays with node 1, under this epoch, and the history says why.
async fn undone(world: &mut World, epoch: u64, why: &str) {
    world.all_ended().await;
    assert_eq!(world.route(REGION).await, (1, epoch));
    let history = world.history().await;
    let last = history.last().unwrap();
    assert_eq!(last.kind, "migration_undone");
    assert!(last.why.contains(why), "{:?} does not say {why:?}", last.why);
    let raised: Vec<u64> = history
        .iter()
        .filter(|event| event.kind == "region_epoch_raised" && event.node_id == 1)
        .map(|event| event.epoch)
        .collect();
    assert_eq!(raised, if epoch == FIRST + 1 { vec![epoch] } else { vec![] });
}

fn with(record: ProcedureRecord, change: impl FnOnce(&mut MigrationRecord)) -> ProcedureRecord {
    let Some(Kind::Migration(mut migration)) = record.kind.clone() else { panic!("{record:?}") };
    change(&mut migration);
    ProcedureRecord { kind: Some(Kind::Migration(migration)), ..record }
}

#[tokio::test(start_paused = true)]
async fn a_silent_source_keeps_its_region_under_a_raised_epoch() {
    let mut world = World::new(3, 2).await;
    world.ignore("downgrade");
    world.migrate().await;
    undone(&mut world, FIRST + 1, "did not confirm in time").await;
    world.check(1).await;
    assert!(world.datanode(2, |node| node.regions.is_empty()), "the candidate's copy is left");
}

#[tokio::test(start_paused = true)]
async fn a_target_that_cannot_catch_up_gets_nothing_and_the_source_writes_at_once() {
    let mut world = World::new(3, 2).await;
    world.datanode(2, |node| node.refuses.insert("catch_up"));
    world.migrate().await;
    undone(&mut world, FIRST + 1, "cannot catch up").await;
    let stopped = world.told(1, "downgrade").unwrap();
    assert_eq!(world.told(1, "open"), Some(stopped), "it was told late that it leads again");
    world.check(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_lost_before_it_opened_the_region_costs_the_source_nothing() {
    let mut world = World::new(4, 2).await;
    world.ignore("open_candidate");
    world.migrate().await;
    world.reaches("preparing").await;
    world.datanode(2, |node| node.is_silent = true);
    undone(&mut world, FIRST, "the target was lost").await;
    assert_eq!(world.told(1, "downgrade"), None);
    world.check(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_lost_in_the_gap_gives_the_region_back_under_a_raised_epoch() {
    let mut world = World::new(4, 2).await;
    world.ignore("catch_up");
    world.migrate().await;
    world.reaches("catching_up").await;
    world.datanode(2, |node| node.is_silent = true);
    assert!(world.leader().certify_end(&node(2), process(2).nonce, "a test").await.unwrap().is_some());
    undone(&mut world, FIRST + 1, "the target was lost").await;
    world.check(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_target_that_never_opens_the_region_is_given_up() {
    let mut world = World::new(3, 2).await;
    world.ignore("open_candidate");
    world.migrate().await;
    undone(&mut world, FIRST, "did not open the region in time").await;
    world.check(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_target_that_restarts_has_nothing_to_catch_up_with() {
    for (state, instruction, epoch) in [("flushing", "flush", FIRST), ("catching_up", "catch_up", FIRST + 1)]
    {
        let mut world = World::new(3, 2).await;
        world.ignore(instruction);
        world.migrate().await;
        world.reaches(state).await;
        world.restart(2);
        undone(&mut world, epoch, "the target restarted").await;
        world.check(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_restarts_leads_under_a_raised_epoch_and_the_migration_is_undone() {
    let mut world = World::new(3, 2).await;
    world.ignore("flush");
    world.migrate().await;
    world.reaches("flushing").await;
    world.restart(1);
    world.datanode(1, |node| node.ignores.insert("flush"));
    world.all_ended().await;
    assert_eq!(world.route(REGION).await, (1, FIRST + 1));
    let history = world.history().await;
    let last = history.last().unwrap();
    assert_eq!(last.kind, "migration_undone");
    assert!(last.why.contains("restarted") || last.why.contains("route was changed"), "{:?}", last.why);
    assert_eq!(world.told(1, "downgrade"), None);
    world.check(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_migration_is_undone_in_every_state_before_the_commit() {
    let states = [
        ("preparing", "open_candidate", FIRST),
        ("flushing", "flush", FIRST),
        ("downgrading", "downgrade", FIRST + 1),
        ("catching_up", "catch_up", FIRST + 1),
    ];
    for (state, instruction, epoch) in states {
        let mut world = World::new(3, 2).await;
        world.ignore(instruction);
        let id = world.migrate().await;
        world.reaches(state).await;
        assert_eq!(world.cancel(id).await, Ok(()), "{state}");
        undone(&mut world, epoch, "cancelled: no more").await;
        world.check(1).await;
        assert!(world.datanode(2, |node| node.regions.is_empty()), "{state}: the candidate's copy is left");
    }
}

#[tokio::test(start_paused = true)]
async fn a_migration_cannot_be_cancelled_after_the_commit_nor_twice() {
    for (state, instruction) in [("upgrading", "upgrade"), ("closing", "close")] {
        let mut world = World::new(3, 2).await;
        world.ignore(instruction);
        let id = world.migrate().await;
        world.reaches(state).await;
        refused(world.cancel(id).await, "given to the target already");
        world.all_ended().await;
        assert_eq!(world.route(REGION).await, (2, FIRST + 1));
        world.check(2).await;
    }
    let mut world = World::new(3, 2).await;
    world.ignore("flush");
    world.ignore("close");
    let id = world.migrate().await;
    world.reaches("flushing").await;
    assert_eq!(world.cancel(id).await, Ok(()));
    refused(world.cancel(id).await, "being undone already");
    undone(&mut world, FIRST, "cancelled").await;
    assert!(matches!(world.cancel(id).await, Err(ControlError::NotFound(_))));
    world.check(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_record_that_somebody_else_changed_is_read_again_and_counts() {
    let mut world = World::new(3, 2).await;
    world.ignore("flush");
    world.migrate().await;
    world.reaches("flushing").await;
    let (key, record) = world.record().await;
    world.meddle(key, encode(&with(record, |of| of.reason = "another".to_owned()))).await;
    world.ignore_nothing();
    world.all_ended().await;
    assert_eq!(world.route(REGION).await, (2, FIRST + 1));
    let history = world.history().await;
    let migrated = history.iter().find(|event| event.kind == "region_migrated").unwrap();
    assert_eq!(migrated.why, "another", "it went on from what it knew");
    world.check(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_migration_that_somebody_else_began_to_undo_is_undone() {
    let mut world = World::new(3, 2).await;
    world.ignore("catch_up");
    world.migrate().await;
    world.reaches("catching_up").await;
    let (key, record) = world.record().await;
    let undoing = with(record, |of| {
        (of.state, of.why) = ("undoing".to_owned(), "target_behind".to_owned());
        (of.owes_epoch, of.position) = (true, None);
    });
    world.meddle(key, encode(&undoing)).await;
    world.ignore_nothing();
    undone(&mut world, FIRST + 1, "did not catch up in time").await;
    world.check(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_route_that_somebody_else_changed_is_learnt_and_the_migration_undone() {
    let mut world = World::new(3, 2).await;
    world.ignore("catch_up");
    world.migrate().await;
    world.reaches("catching_up").await;
    let route = RouteRecord { node_id: 1, epoch: 9, term: 1, ..RouteRecord::default() };
    world.meddle(keys().region(REGION), encode(&route)).await;
    world.ignore_nothing();
    undone(&mut world, 9, "the route was changed").await;
    world.check(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_region_that_is_being_moved_is_moved_by_nobody_else() {
    let mut world = World::new(3, 2).await;
    world.ignore("flush");
    world.migrate().await;
    world.reaches("flushing").await;
    refused(world.try_migrate(REGION, Some(3)).await, "at work on this region");
    refused(world.try_migrate(RegionId(102), Some(1)).await, "already");
    world.ignore_nothing();
    world.all_ended().await;
    world.check(2).await;
}
