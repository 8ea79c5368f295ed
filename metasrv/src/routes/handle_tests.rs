//! Goal: a reader is told nothing old: it waits, gets proof, or is sent to another replica.
//! Method: a board that the test keeps by hand, in virtual time.

use super::reader::{Events, INSTALLATION, keys};
use super::*;
use crate::clock::Virtual;
use metasrv_proto::admin::InstallationRecord;

fn board() -> RouteBoard {
    RouteBoard::new(keys(), Arc::new(Virtual(tokio::time::Instant::now())), Arc::new(Metrics::new()))
}

fn kept(events: &Events) -> RouteBoard {
    let board = board();
    board.install(events.page(), BootTime::ZERO);
    board
}

async fn begin(board: &RouteBoard, after: i64) -> Result<Beginning, Unready> {
    let begun = board.begin(ClusterId(0), unsigned(after), INSTALLATION).await;
    begun.map(|(_, beginning)| beginning)
}

fn events() -> Events {
    let mut events = Events::new();
    events.route(1, 1, 1, "");
    events
}

#[tokio::test(start_paused = true)]
async fn a_reader_waits_for_a_board_that_has_not_come_as_far() {
    let mut events = events();
    let board = kept(&events);
    events.route(1, 2, 2, "");
    let waiting = tokio::spawn({
        let (board, after) = (board.clone(), events.revision);
        async move { begin(&board, after).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished());
    board.apply(events.after(2)).unwrap();
    assert_eq!(waiting.await.unwrap(), Ok(Beginning::Resumed));
}

#[tokio::test(start_paused = true)]
async fn a_board_that_lags_behind_sends_its_reader_away() {
    let events = events();
    let board = kept(&events);
    let began = tokio::time::Instant::now();
    assert_eq!(begin(&board, events.revision + 1).await, Err(Unready::Behind));
    assert_eq!(began.elapsed(), PATIENCE);
}

/// Goal: a lower revision is told only where the store has one. Method: what was read before the reader came says nothing.
#[tokio::test(start_paused = true)]
async fn a_revision_that_the_store_has_not_is_a_store_that_was_set_back() {
    let events = events();
    let board = kept(&events);
    let now = || board.shared.clock.now();
    tokio::time::sleep(Duration::from_secs(9)).await;
    board.confirm(events.revision, now());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let waiting = tokio::spawn({
        let (board, after) = (board.clone(), events.revision + 5);
        async move { begin(&board, after).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished(), "the store may have come further since it was read");
    board.confirm(events.revision + 5, now());
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!waiting.is_finished(), "it has: this board lags behind");
    board.confirm(events.revision, now());
    assert_eq!(waiting.await.unwrap(), Ok(Beginning::Snapshot));
}

#[tokio::test(start_paused = true)]
async fn a_board_that_nobody_keeps_sends_its_readers_away() {
    let events = events();
    let never_read = board();
    assert_eq!(begin(&never_read, 0).await, Err(Unready::Forsaken));
    let board = kept(&events);
    assert!(!board.is_forsaken());
    board.keep(false);
    assert!(!board.is_forsaken(), "a watch that breaks is replaced");
    tokio::time::sleep(FORSAKEN + Duration::from_millis(1)).await;
    assert!(board.is_forsaken());
    assert_eq!(begin(&board, 0).await, Err(Unready::Forsaken));
    board.install(events.page(), BootTime::ZERO);
    assert_eq!(begin(&board, 0).await, Ok(Beginning::Snapshot));
    assert!(!board.is_forsaken());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_before_the_first_leader_gave_the_installation_its_identity() {
    let board = board();
    board.install(Page { records: Vec::new(), revision: 4 }, BootTime::ZERO);
    let waiting = tokio::spawn({
        let board = board.clone();
        async move { begin(&board, 0).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished());
    let mut events = Events::default();
    events.revision = 4;
    let record = InstallationRecord { installation: INSTALLATION, created_at_ms: 0 };
    events.put(keys().installation(), &record);
    board.install(events.page(), BootTime::ZERO);
    assert_eq!(waiting.await.unwrap(), Ok(Beginning::Snapshot));
}

/// Goal: the leases of a thousand nodes wake no reader.
#[tokio::test]
async fn readers_are_woken_for_routes_and_nothing_else() {
    let mut events = events();
    events.address(1, "a:1");
    let board = kept(&events);
    let mut woken = board.subscribe();
    woken.borrow_and_update();
    events.address(1, "a:1");
    events.address(2, "b:1");
    board.apply(events.after(3)).unwrap();
    assert!(!woken.has_changed().unwrap(), "the same address, and one of a node without regions");
    events.route(1, 2, 2, "");
    board.apply(events.after(5)).unwrap();
    assert!(woken.has_changed().unwrap());
    assert_eq!(board.shared.metrics.route_changes.get(), 1);
    assert_eq!(board.shared.metrics.route_board_revision.get(), 6);
}
