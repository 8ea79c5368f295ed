//! Goal: whatever happens between, a reader ends with what the store has, and never goes back.
//! Method: events of a small store, a board with a short ring, a reader that checks each message as it comes.

use metasrv_core::id::ClusterId;

use super::board::Board;
use super::cursor::{Beginning, CHUNK, Next};
use super::reader::{Events, INSTALLATION, Reader, keys};
use metasrv_proto::admin::RouteState;

/// A board with a short memory that has read this store.
pub(super) fn board(events: &Events) -> Board {
    let mut board = Board::keeping(8);
    board.install(&keys(), &events.page());
    board
}

fn message(next: Next) -> metasrv_proto::admin::WatchRoutesResponse {
    match next {
        Next::Message(message) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reader_gets_a_snapshot_and_then_every_change_in_order() {
    let mut events = Events::new();
    events.address(1, "a:1");
    events.route(5, 1, 1, "t");
    let mut board = board(&events);
    let mut reader = Reader::default();
    let mut cursor = reader.connect(&board);
    assert_eq!(reader.drain(&board, &mut cursor), Next::Nothing);
    assert_eq!((reader.routes.clone(), reader.snapshots), (events.truth(), 1));
    assert_eq!(reader.revision, 3);
    for epoch in 2..=4 {
        events.route(5, epoch, epoch, "t");
        events.tell(&mut board);
    }
    reader.drain(&board, &mut cursor);
    assert_eq!(reader.told, [(5, 1), (5, 2), (5, 3), (5, 4)], "none is left out");
    assert_eq!((reader.routes, reader.revision), (events.truth(), 6));
}

#[test]
fn a_reader_is_told_that_a_region_is_moved_and_that_its_node_has_ended() {
    let mut events = Events::new();
    events.address(1, "a:1");
    events.address(2, "b:1");
    events.route(5, 1, 1, "");
    let mut board = board(&events);
    let mut reader = Reader::default();
    let mut cursor = reader.connect(&board);
    let mut stands = |events: &Events| {
        events.tell(&mut board);
        reader.drain(&board, &mut cursor);
        let (node, _, epoch, _, state, follower) = reader.routes[&5].clone();
        (node, epoch, state, follower)
    };
    assert_eq!(stands(&events), (1, 1, RouteState::Serving, None));
    events.migrate(5, 2);
    assert_eq!(stands(&events), (1, 1, RouteState::Moving, Some(2)));
    events.route(5, 2, 2, "");
    assert_eq!(stands(&events), (2, 2, RouteState::Serving, None));
    events.migrated(5);
    assert_eq!(stands(&events), (2, 2, RouteState::Serving, None));
    events.end(2);
    assert_eq!(stands(&events), (2, 2, RouteState::LeaderEnded, None));
    events.address(2, "b:2");
    assert_eq!(stands(&events), (2, 2, RouteState::Serving, None));
}

#[test]
fn an_empty_store_is_a_complete_snapshot_of_nothing() {
    let board = board(&Events::new());
    let mut cursor = board.begin(ClusterId(0), 0, 0).0;
    let first = message(board.advance(&mut cursor));
    assert!(first.snapshot && first.complete && first.changed.is_empty());
    assert_eq!(first.revision, 1);
    assert_eq!(board.advance(&mut cursor), Next::Nothing);
}

#[test]
fn a_large_snapshot_comes_in_parts_and_has_what_changed_meanwhile() {
    let mut events = Events::new();
    for region in 1..=(CHUNK as u64 * 2 + 500) {
        events.route(region, 1, 1, "");
    }
    let mut board = board(&events);
    let mut reader = Reader::default();
    let mut cursor = reader.connect(&board);
    let first = message(board.advance(&mut cursor));
    assert_eq!((first.changed.len(), first.revision, first.complete), (CHUNK, 0, false));
    reader.take(&first);
    // One that was told, one that was not, one that goes, one that comes behind and one that comes before.
    events.route(1, 2, 2, "");
    events.route(2_400, 2, 2, "");
    events.drop_route(3);
    events.drop_route(2_300);
    events.route(9_999, 2, 1, "");
    events.tell(&mut board);
    assert_eq!(reader.drain(&board, &mut cursor), Next::Nothing);
    assert_eq!((reader.routes, reader.snapshots), (events.truth(), 1));
    assert_eq!(reader.revision, u64::try_from(events.revision).unwrap());
}

#[test]
fn a_reader_resumes_on_another_board_without_a_snapshot() {
    let mut events = Events::new();
    events.route(1, 1, 1, "");
    let (mut one, mut other) = (board(&events), board(&events));
    let mut reader = Reader::default();
    let mut cursor = reader.connect(&one);
    reader.drain(&one, &mut cursor);
    events.route(1, 2, 2, "");
    events.tell(&mut one);
    reader.drain(&one, &mut cursor);
    events.route(1, 3, 3, "");
    events.drop_route(7);
    events.route(2, 3, 1, "");
    events.tell(&mut other);
    let after = i64::try_from(reader.revision).unwrap();
    let (mut cursor, beginning) = other.begin(ClusterId(0), after, INSTALLATION);
    assert_eq!(beginning, Beginning::Resumed);
    reader.drain(&other, &mut cursor);
    assert_eq!(reader.told, [(1, 1), (1, 2), (1, 3), (2, 1)], "nothing twice, nothing left out");
    assert_eq!((reader.routes, reader.snapshots), (events.truth(), 1));
}

#[test]
fn whoever_resumes_where_nothing_happened_is_told_so_at_once() {
    let events = Events::new();
    let board = board(&events);
    let mut cursor = board.begin(ClusterId(0), events.revision, INSTALLATION).0;
    let first = message(board.advance(&mut cursor));
    assert!(!first.snapshot && first.complete && first.changed.is_empty());
    assert_eq!(board.advance(&mut cursor), Next::Nothing);
}

#[test]
fn another_installation_and_a_revision_that_is_not_kept_begin_with_a_snapshot() {
    let mut events = Events::new();
    let mut board = board(&events);
    let early = events.revision;
    for region in 1..=9 {
        events.route(region, 1, 1, "");
        events.tell(&mut board);
    }
    for (after, installation, expected) in [
        (events.revision, INSTALLATION, Beginning::Resumed),
        (events.revision - 8, INSTALLATION, Beginning::Resumed),
        (early, INSTALLATION, Beginning::Snapshot),
        (events.revision, INSTALLATION + 1, Beginning::Snapshot),
        (events.revision + 1, INSTALLATION, Beginning::Snapshot),
        (0, INSTALLATION, Beginning::Snapshot),
    ] {
        assert_eq!(board.begin(ClusterId(0), after, installation).1, expected, "{after} {installation}");
    }
}

#[test]
fn a_reader_that_lags_behind_the_ring_gets_another_snapshot() {
    let mut events = Events::new();
    events.route(1, 1, 1, "");
    let mut board = board(&events);
    let mut reader = Reader::default();
    let mut cursor = reader.connect(&board);
    reader.drain(&board, &mut cursor);
    for epoch in 2..=20 {
        events.route(1, epoch, epoch, "");
        events.tell(&mut board);
    }
    assert_eq!(reader.drain(&board, &mut cursor), Next::Nothing);
    assert_eq!((reader.routes.clone(), reader.snapshots, cursor.again()), (events.truth(), 2, 1));
}

#[test]
fn a_snapshot_that_the_ring_cannot_finish_ends_its_stream() {
    let mut events = Events::new();
    for region in 1..=(CHUNK as u64 + 1) {
        events.route(region, 1, 1, "");
    }
    let mut board = board(&events);
    let mut cursor = board.begin(ClusterId(0), 0, 0).0;
    message(board.advance(&mut cursor));
    for epoch in 2..=20 {
        events.route(1, epoch, epoch, "");
    }
    events.tell(&mut board);
    assert_eq!(board.advance(&mut cursor), Next::FellBehind);
}

#[test]
fn a_store_that_was_set_back_is_a_snapshot_of_a_lower_revision() {
    let mut events = Events::new();
    events.route(1, 1, 1, "");
    let backup = events.clone();
    for epoch in 2..=5 {
        events.route(1, epoch, epoch, "");
    }
    let mut board = board(&events);
    let mut reader = Reader::default();
    let mut cursor = reader.connect(&board);
    reader.drain(&board, &mut cursor);
    assert!(board.install(&keys(), &backup.page()));
    assert_eq!(reader.drain(&board, &mut cursor), Next::Nothing);
    assert_eq!((reader.routes.clone(), reader.snapshots), (backup.truth(), 2));
    assert_eq!(reader.revision, u64::try_from(backup.revision).unwrap());
    // The same revisions come a second time, with other changes.
    let mut second = backup.clone();
    second.route(2, 1, 1, "");
    for region in 3..=9 {
        second.route(region, 1, 1, "");
    }
    second.tell(&mut board);
    let (_, beginning) = board.begin(ClusterId(0), events.revision, INSTALLATION);
    assert_eq!(beginning, Beginning::Snapshot, "who was told of the first ones begins anew");
}

/// Goal: a backup that is restored under a higher revision is found out by its lower epochs.
#[test]
fn lower_epochs_at_a_higher_revision_are_a_store_that_was_set_back_too() {
    let mut events = Events::new();
    events.route(1, 2, 2, "");
    let mut board = board(&events);
    let mut bumped = Events::new();
    bumped.route(1, 1, 1, "");
    bumped.revision = 1_000;
    assert!(board.install(&keys(), &bumped.page()));
}

#[test]
fn what_was_missed_is_told_as_changes_when_the_store_is_listed_again() {
    let mut events = Events::new();
    for region in 1..=4 {
        events.route(region, 1, 1, "");
    }
    let mut board = board(&events);
    let mut reader = Reader::default();
    let mut cursor = reader.connect(&board);
    reader.drain(&board, &mut cursor);
    let before = events.revision;
    events.drop_route(2);
    events.route(3, 2, 2, "");
    events.route(5, 2, 1, "x");
    events.address(1, "b:1");
    assert!(!board.install(&keys(), &events.page()));
    reader.drain(&board, &mut cursor);
    assert_eq!(
        (reader.routes.clone(), reader.snapshots),
        (events.truth(), 1),
        "no snapshot on a live stream"
    );
    assert_eq!(
        board.begin(ClusterId(0), before, INSTALLATION).1,
        Beginning::Snapshot,
        "for others it is a gap"
    );
}

#[test]
fn a_new_address_is_a_change_of_each_region_of_its_node() {
    let mut events = Events::new();
    events.address(1, "a:1");
    for region in 1..=3 {
        events.route(region, 1 + region % 2, 1, "");
    }
    let mut board = board(&events);
    let mut reader = Reader::default();
    let mut cursor = reader.connect(&board);
    reader.drain(&board, &mut cursor);
    reader.told.clear();
    events.address(1, "b:1");
    events.tell(&mut board);
    reader.drain(&board, &mut cursor);
    assert_eq!(reader.told, [(2, 1)]);
    assert_eq!(reader.routes, events.truth());
    events.address(1, "b:1");
    events.tell(&mut board);
    assert_eq!(reader.drain(&board, &mut cursor), Next::Nothing, "the same address is no news");
}

#[test]
fn a_region_that_goes_and_comes_again_is_told_in_two_messages() {
    let mut events = Events::new();
    events.route(1, 1, 1, "");
    let mut board = board(&events);
    let mut reader = Reader::default();
    let mut cursor = reader.connect(&board);
    reader.drain(&board, &mut cursor);
    events.drop_route(1);
    let dropped_at = u64::try_from(events.revision).unwrap();
    events.route(1, 2, 2, "");
    events.tell(&mut board);
    let first = message(board.advance(&mut cursor));
    assert_eq!((first.dropped_region_ids.as_slice(), first.changed.len()), ([1].as_slice(), 0));
    assert_eq!((first.revision, first.complete), (dropped_at, false));
    reader.take(&first);
    reader.drain(&board, &mut cursor);
    assert_eq!(reader.routes, events.truth());
}

#[test]
fn other_clusters_are_not_told() {
    let events = {
        let mut events = Events::new();
        events.route(1, 1, 1, "");
        events
    };
    let board = board(&events);
    let mut cursor = board.begin(ClusterId(9), 0, 0).0;
    let first = message(board.advance(&mut cursor));
    assert!(first.complete && first.changed.is_empty());
}

#[test]
fn a_change_that_does_not_follow_is_refused() {
    let mut events = Events::new();
    events.route(1, 1, 1, "");
    let mut board = board(&events);
    assert!(board.apply(&keys(), events.after(0)).is_err());
}
