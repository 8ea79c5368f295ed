//! Goal of these tests: one region's deadline, grant by grant. The clock is set by hand.

use super::*;
use crate::clock::ManualClock;

const L: Duration = Duration::from_millis(1_000);
const REGION: RegionId = RegionId(7);

fn countdown() -> (Arc<ManualClock>, CountdownTaskHandle) {
    let clock = Arc::new(ManualClock::default());
    clock.set(5_000);
    let handle = opened(OpenOptions::leader(Epoch(2)), &clock);
    (clock, handle)
}

fn opened(options: OpenOptions, clock: &Arc<ManualClock>) -> CountdownTaskHandle {
    let opening = Opening { options, version: 1, stopped: Epoch(0), writes: Arc::default() };
    CountdownTaskHandle::new(REGION, opening, Arc::default(), clock.clone())
}

fn at(millis: u64) -> BootTime {
    BootTime::from_millis(millis)
}

#[test]
fn an_opened_region_is_read_only_until_a_grant_for_its_epoch() {
    let (clock, handle) = countdown();
    assert_eq!(handle.write_guard().unwrap_err(), NotWritable::NotLeased(REGION));
    assert_eq!(handle.grant(Epoch(1), at(5_000), L), Granted::Ignored);
    assert_eq!(handle.grant(Epoch(3), at(5_000), L), Granted::Ignored);
    assert_eq!(handle.grant(Epoch(2), at(5_000), L), Granted::Revived);
    assert_eq!(handle.role(), RegionRole::Leader);
    let guard = handle.write_guard().unwrap();
    assert_eq!(guard.epoch(), Epoch(2));
    clock.set(5_989);
    assert_eq!(guard.check(), Ok(()));
    clock.set(5_990);
    assert_eq!(guard.check(), Err(NotWritable::Expired { region: REGION, ago: Duration::ZERO }));
    assert!(handle.write_guard().is_err(), "the deadline alone ends it; no timer has to run");
}

#[test]
fn an_expired_region_is_writable_again_without_help() {
    let (clock, handle) = countdown();
    handle.grant(Epoch(2), at(5_000), L);
    clock.set(9_000);
    assert_eq!(handle.role(), RegionRole::Follower);
    assert_eq!(handle.grant(Epoch(2), at(8_900), L), Granted::Revived);
    assert!(handle.write_guard().is_ok());
}

#[test]
fn a_grant_that_comes_after_its_own_deadline_revives_nothing() {
    let (clock, handle) = countdown();
    clock.set(9_000);
    assert_eq!(handle.grant(Epoch(2), at(5_100), L), Granted::Ignored);
    assert!(handle.write_guard().is_err());
}

#[test]
fn an_answer_from_before_the_opening_says_nothing_about_it() {
    let (clock, handle) = countdown();
    assert_eq!(handle.grant(Epoch(2), at(4_999), L), Granted::Ignored);
    assert!(handle.is_newer_than(at(4_999)) && !handle.is_newer_than(at(5_000)));
    handle.grant(Epoch(2), at(5_000), L);
    clock.set(5_100);
    handle.raise(OpenOptions::leader(Epoch(3)), 2);
    assert!(handle.write_guard().is_err(), "a raised epoch takes the right away");
    assert_eq!(handle.grant(Epoch(3), at(5_050), L), Granted::Ignored);
    assert_eq!(handle.grant(Epoch(3), at(5_100), L), Granted::Revived);
}

#[test]
fn a_closed_region_stays_closed_and_its_roles_are_told_once() {
    let (clock, handle) = countdown();
    assert_eq!(handle.role_to_tell(), None, "read-only is what an opened region is");
    handle.grant(Epoch(2), at(5_000), L);
    assert_eq!(handle.role_to_tell(), Some((Epoch(2), RegionRole::Leader)));
    assert_eq!(handle.role_to_tell(), None);
    clock.set(6_000);
    assert_eq!(handle.role_to_tell(), Some((Epoch(2), RegionRole::Follower)));
    handle.close();
    assert_eq!(handle.grant(Epoch(2), at(6_000), L), Granted::Ignored);
    assert_eq!(handle.write_guard().unwrap_err(), NotWritable::NotOpen(REGION));
}
/// Goal: after a stop nothing that is granted for the epoch counts, also where it was under way; a raised epoch counts
/// again. Method: stop between a request and its answer, with a write under way.
#[tokio::test]
async fn a_stopped_region_refuses_its_epoch_for_good_and_waits_for_its_writes() {
    let (_, handle) = countdown();
    handle.grant(Epoch(2), at(5_000), L);
    let guard = handle.write_guard().unwrap();
    handle.stop(Epoch(2));
    assert_eq!(handle.write_guard().unwrap_err(), NotWritable::Downgraded(REGION));
    assert_eq!(handle.role(), RegionRole::Downgrading);
    assert_eq!(handle.grant(Epoch(2), at(5_000), L), Granted::Ignored, "a late answer");
    assert_eq!(guard.check(), Ok(()), "what was under way may end");
    let waits = tokio::time::timeout(Duration::from_millis(20), handle.writes.ended()).await;
    assert!(waits.is_err(), "a write is under way");
    drop(guard);
    tokio::time::timeout(Duration::from_secs(20), handle.writes.ended()).await.expect("none is left");
    handle.raise(OpenOptions::leader(Epoch(3)), 2);
    assert_eq!(handle.role(), RegionRole::Follower);
    assert_eq!(handle.grant(Epoch(3), at(5_000), L), Granted::Revived);
    assert!(handle.write_guard().is_ok());
}

#[test]
fn a_candidate_is_granted_nothing_until_it_leads_under_a_higher_epoch() {
    let clock = Arc::new(ManualClock::default());
    let handle = opened(OpenOptions::candidate(Epoch(2)), &clock);
    assert_eq!(handle.grant(Epoch(2), at(0), L), Granted::Ignored);
    assert_eq!(handle.write_guard().unwrap_err(), NotWritable::Candidate(REGION));
    handle.raise(OpenOptions::leader(Epoch(2)), 2);
    assert_eq!(handle.options(), OpenOptions::candidate(Epoch(2)), "the same epoch has another leader");
    handle.raise(OpenOptions::leader(Epoch(3)), 2);
    assert_eq!(handle.grant(Epoch(3), at(0), L), Granted::Revived);
}
