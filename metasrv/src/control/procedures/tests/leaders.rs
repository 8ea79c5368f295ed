//! Migrations that another leader takes up.

use metasrv_core::grant::Reported;
use metasrv_core::id::{Epoch, RegionId};
use metasrv_proto::admin::RouteRecord;
use metasrv_proto::admin::procedure_record::Kind;

use super::world::World;
use super::{FIRST, REGION, keys, millis, node, process};
use crate::record::encode;

#[tokio::test(start_paused = true)]
async fn a_migration_goes_on_to_its_end_whichever_state_another_leader_finds_it_in() {
    let states = [
        ("preparing", "open_candidate"),
        ("flushing", "flush"),
        ("downgrading", "downgrade"),
        ("catching_up", "catch_up"),
        ("upgrading", "upgrade"),
        ("closing", "close"),
    ];
    for (state, instruction) in states {
        let mut world = World::new(3, 2).await;
        world.ignore(instruction);
        let id = world.migrate().await;
        world.reaches(state).await;
        world.change_leader().await;
        world.ignore_nothing();
        let before = world.now();
        world.all_ended().await;
        let took = world.now().since(before);
        assert!(took < millis(1_000), "{state}: it took {took:?} under another leader");
        assert_eq!(world.route(REGION).await, (2, FIRST + 1), "{state}");
        let history = world.history().await;
        let kinds: Vec<&str> = history
            .iter()
            .filter(|event| event.procedure_id == id)
            .map(|event| event.kind.as_str())
            .collect();
        assert_eq!(kinds, ["migration_begun", "region_migrated", "migration_done"], "{state}");
        world.check(2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_undoing_goes_on_under_another_leader_whether_the_epoch_is_raised_already_or_not() {
    for owes_epoch in [true, false] {
        let mut world = World::new(3, 2).await;
        world.ignore("downgrade");
        world.ignore("close");
        let id = world.migrate().await;
        world.reaches("downgrading").await;
        if owes_epoch {
            // In between there is no moment at which the leader waits for anything.
            let (key, mut record) = world.record().await;
            let Some(Kind::Migration(of)) = &mut record.kind else { panic!("{record:?}") };
            (of.state, of.why, of.owes_epoch) = ("undoing".to_owned(), "source_silent".to_owned(), true);
            world.meddle(key, encode(&record)).await;
        } else {
            assert_eq!(world.cancel(id).await, Ok(()));
        }
        assert_eq!(world.stored_states().await, ["undoing"]);
        world.change_leader().await;
        world.all_ended().await;
        assert_eq!(world.route(REGION).await, (1, FIRST + 1));
        assert_eq!(world.kinds().await.last().map(String::as_str), Some("migration_undone"));
        world.check(1).await;
    }
}

/// Goal: what earlier terms were about to take away is not renewed by the first grant of a term. Method: the grants are asked
/// for before any task of the new leader had its turn.
#[tokio::test(start_paused = true)]
async fn the_first_grant_of_a_term_renews_nothing_that_is_about_to_be_taken_away() {
    for (state, instruction) in [("downgrading", "downgrade"), ("catching_up", "catch_up")] {
        let mut world = World::new(3, 2).await;
        world.ignore(instruction);
        world.migrate().await;
        world.reaches(state).await;
        world.change_leader().await;
        let held = |region| Reported { region, epoch: Epoch(FIRST) };
        let other = RegionId(102);
        let first = world.leader().grant(&node(1), process(1), vec![held(REGION), held(other)]).unwrap();
        assert_eq!((first.renewed, first.to_open), (vec![held(other)], vec![]), "{state}");
        let first = world.leader().grant(&node(1), process(1), vec![held(other)]).unwrap();
        assert_eq!(first.to_open, [], "{state}: told to open what it shall lose");
        let first = world.leader().grant(&node(2), process(2), vec![held(REGION)]).unwrap();
        assert_eq!((first.renewed, first.closeable), (vec![], vec![]), "{state}: the candidate's copy");
        world.ignore_nothing();
        world.all_ended().await;
        world.check(2).await;
    }
}

/// Goal: what was marked before the first grant does not outlive its ground. Method: the route changes between the marking
/// and the first turn of the new leader's loop.
#[tokio::test(start_paused = true)]
async fn what_a_new_leader_held_back_is_granted_again_where_the_route_changed_before_its_first_turn() {
    let mut world = World::new(3, 2).await;
    world.ignore("catch_up");
    world.migrate().await;
    world.reaches("catching_up").await;
    world.change_leader().await;
    let route = RouteRecord { node_id: 1, epoch: 9, term: 1, ..RouteRecord::default() };
    let revision = world.meddle(keys().region(REGION), encode(&route)).await;
    let leader = world.leader();
    {
        let mut entry = leader.nodes().get_mut(&node(1)).unwrap();
        assert!(entry.regions.is_withheld(&REGION));
        let meddled = |region: &mut crate::leader::Region| {
            (region.epoch, region.revision) = (Epoch(9), revision);
        };
        entry.regions.change(REGION, meddled);
    }
    world.all_ended().await;
    assert_eq!(world.route(REGION).await, (1, 9));
    world.check(1).await;
}

#[tokio::test(start_paused = true)]
async fn three_leaders_in_a_row_end_one_migration() {
    let mut world = World::new(3, 2).await;
    world.ignore("flush");
    world.ignore("catch_up");
    world.migrate().await;
    world.reaches("flushing").await;
    world.change_leader().await;
    world.datanode(1, |node| node.ignores.clear());
    world.reaches("catching_up").await;
    world.change_leader().await;
    world.ignore_nothing();
    world.all_ended().await;
    assert_eq!(world.route(REGION).await, (2, FIRST + 1));
    world.check(2).await;
}

/// Goal: a procedure goes on in the moment in which a node that it waits for has a stream again, in every state, whatever was
/// told in vain before. Method: neither node can be reached when another leader takes the migration up; they come at no
/// moment of a tick, and in virtual time only ticks and patience take time.
#[tokio::test(start_paused = true)]
async fn a_migration_goes_on_in_the_moment_in_which_its_nodes_are_back() {
    let states = [
        ("preparing", "open_candidate", 2),
        ("flushing", "flush", 1),
        ("downgrading", "downgrade", 1),
        ("catching_up", "catch_up", 2),
        ("upgrading", "upgrade", 2),
        ("closing", "close", 1),
    ];
    for (state, instruction, of) in states {
        let mut world = World::new(3, 2).await;
        world.ignore(instruction);
        world.migrate().await;
        world.reaches(state).await;
        world.ignore_nothing();
        [1, 2].into_iter().for_each(|id| world.disconnect(id));
        world.change_leader().await;
        tokio::time::sleep(millis(437)).await;
        world.datanode(of, |node| node.told.clear());
        [1, 2].into_iter().for_each(|id| world.connect(id));
        let back = world.now();
        world.all_ended().await;
        assert_eq!(world.told(of, instruction), Some(back), "{state}");
        let took = world.now().since(back);
        assert!(took < millis(20), "{state}: it took {took:?}");
        assert_eq!(world.route(REGION).await, (2, FIRST + 1), "{state}");
        world.check(2).await;
    }
}

/// Goal: what is stored and cannot be carried out ends, or is left alone; it keeps nobody from leading. Method: another leader
/// finds a migration to a node that nobody has heard of, one past a commit that never was, and one of a state that it does
/// not know, beside one that it can carry out.
#[tokio::test(start_paused = true)]
async fn a_record_that_makes_no_sense_is_not_carried_out_and_stops_no_leader() {
    type Spoil = fn(&mut metasrv_proto::admin::MigrationRecord);
    let spoilt: [(&str, Spoil, &str); 3] = [
        ("a node without a record", |of| of.to_node = 9, "migration_undone"),
        (
            "past a commit that never was",
            |of| (of.state, of.to_epoch, of.to_nonce) = ("upgrading".to_owned(), 7, 2),
            "migration_done",
        ),
        ("an unknown state", |of| of.state = "flying".to_owned(), ""),
    ];
    for (what, spoil, end) in spoilt {
        let mut world = World::new(3, 2).await;
        world.ignore("open_candidate");
        world.migrate().await;
        world.reaches("preparing").await;
        let (key, mut record) = world.record().await;
        let Some(Kind::Migration(of)) = &mut record.kind else { panic!("{record:?}") };
        spoil(of);
        world.meddle(key.clone(), encode(&record)).await;
        world.change_leader().await;
        world.ignore_nothing();
        world.try_migrate(RegionId(102), Some(3)).await.unwrap();
        let is_over = async {
            while world.route(RegionId(102)).await.0 != 3
                || world.kinds().await.iter().filter(|kind| *kind == "migration_done").count() == 0
                || (!end.is_empty() && world.stored(&key).await)
            {
                tokio::time::sleep(millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(millis(30_000), is_over).await;
        assert!(in_time.is_ok(), "{what}: {:?}", world.listed().await);
        assert_eq!(world.route(REGION).await, (1, FIRST), "{what}: its region stays");
        assert_eq!(world.stored(&key).await, end.is_empty(), "{what}");
        assert!(world.kinds().await.iter().any(|kind| end.is_empty() || kind == end), "{what}");
        let now = world.now();
        assert!(world.datanode(1, |node| node.writes(REGION, now)), "{what}: nobody writes to its region");
    }
}
