//! Goal: whatever is lost, repeated, late, restarted or crashed, every procedure ends exactly once, at most one node may
//! write at any instant, epochs only grow, and nobody is told to write under an epoch that is not committed.
//! Method: the real step functions in a simulated world ([`super::simulator`]), over many seeds, and with a fault planned
//! at each single call. Mistakes put in on purpose must be found, or the checks prove nothing. Drains move nothing
//! themselves; `drain_tests.rs` has their property.

use std::collections::BTreeSet;

use super::migrate::{End, Why};
use super::simulator::{Fate, Faults, Mutation, Script, World};

/// Two mistakes of the simulation's own shell were found by one seed in a thousand.
const SEEDS: u64 = 2_000;

/// Calls of a migration without faults: its creation, the stop of its source, the commit, its removal.
const CALLS: u64 = 4;

const STATES: [&str; 6] = ["Preparing", "Flushing", "Downgrading", "CatchingUp", "Upgrading", "Closing"];

/// The mix of faults of one seed.
fn mix(seed: u64) -> Faults {
    let pick = |at: u64, choices: &[u64]| {
        let mixed = (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(at);
        choices[((mixed.wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 33) % choices.len() as u64) as usize]
    };
    Faults {
        loss: pick(1, &[0, 20, 150, 400]),
        repeat: pick(2, &[0, 100, 300]),
        longest_delay_ms: pick(3, &[10, 60, 400, 1_500]),
        call: pick(4, &[0, 50, 300]),
        leader: pick(5, &[0, 2, 8]),
        process: pick(6, &[0, 3, 12]),
        cancel: pick(7, &[0, 0, 10]),
        stuck: pick(8, &[0, 0, 2]),
        cut: pick(9, &[0, 3, 10]),
    }
}

fn world(seed: u64, mutation: Option<Mutation>) -> World {
    let mut world = World::new(seed, mix(seed), None, mutation);
    world.wanted = 3;
    world
}

#[test]
fn every_migration_ends_once_with_one_writer_throughout() {
    let mut ends = Vec::new();
    let mut crashed_in = BTreeSet::new();
    for seed in 0..SEEDS {
        let mut world = world(seed, None);
        ends.extend(world.run().unwrap_or_else(|broken| panic!("seed {seed}, {:?}: {broken}", mix(seed))));
        crashed_in.extend(world.crashed_in);
    }
    // What never happened was not tested.
    let undone = [
        Why::Cancelled("test".to_owned()),
        Why::RouteChanged,
        Why::SourceLost,
        Why::SourceSilent,
        Why::TargetLost,
        Why::TargetRestarted,
        Why::TargetLeft,
        Why::TargetSlow,
        Why::TargetBehind,
        Why::TargetFailed,
    ];
    assert!(ends.contains(&End::Done));
    for why in undone {
        assert!(ends.contains(&End::Undone(why.clone())), "none was undone because of {why:?}");
    }
    for state in STATES.iter().chain(&["Undoing"]) {
        assert!(crashed_in.contains(state), "no leader ended in {state}");
    }
}

/// Each call to the store, lost, done without an answer, done too late; each with a leader that goes on or crashes.
#[test]
fn a_fault_at_any_single_call_costs_nothing_but_time() {
    let mut crashed_in = BTreeSet::new();
    for call in 0..CALLS {
        for fate in [Fate::Answered, Fate::Lost, Fate::AnswerLost, Fate::Late] {
            for crash in [false, true] {
                let script = Script { call, fate, crash };
                let mut world = World::new(call, Faults::default(), Some(script), None);
                let ends = world.run().unwrap_or_else(|broken| panic!("{script:?}: {broken}"));
                assert_eq!(ends, [End::Done], "{script:?}");
                assert!(world.called() > call, "{script:?}: there are fewer calls, this proves nothing");
                if crash {
                    crashed_in.extend(world.crashed_in);
                }
            }
        }
    }
    // Those in which it calls the store. In the others leaders end above.
    for state in ["none", "Flushing", "CatchingUp", "Closing"] {
        assert!(crashed_in.contains(state), "no leader crashed in {state}");
    }
}

/// Some seed breaks the invariant that the mistake is about.
fn is_found(mutation: Mutation, broken: &str) {
    let found = (0..SEEDS).filter_map(|seed| world(seed, Some(mutation)).run().err());
    assert!(
        found.into_iter().any(|found| found.contains(broken)),
        "{mutation:?} breaks nothing in {SEEDS} seeds"
    );
}

#[test]
fn an_upgrade_before_the_commit_is_found() {
    is_found(Mutation::UpgradeBeforeCommit, "told to lead under an epoch that is not committed");
}

#[test]
fn an_undoing_that_raises_no_epoch_is_found() {
    is_found(Mutation::UndoWithoutEpoch, "no writer");
}

#[test]
fn a_stop_confirmed_by_another_process_is_found() {
    is_found(Mutation::AnyProcessConfirms, "two writers");
}

#[test]
fn a_stop_confirmed_for_another_epoch_is_found() {
    is_found(Mutation::AnyEpochConfirms, "two writers");
}

#[test]
fn a_move_that_waits_for_no_lease_is_found() {
    is_found(Mutation::WaitsForNothing, "two writers");
}

#[test]
fn grants_that_go_on_in_the_gap_are_found() {
    is_found(Mutation::GrantsInGap, "two writers");
}

#[test]
fn writes_that_compare_no_revision_are_found() {
    is_found(Mutation::Unguarded, "ended twice");
    is_found(Mutation::Unguarded, "the epoch went");
}

#[test]
fn a_procedure_without_patience_is_found() {
    is_found(Mutation::NeverGivesUp, "no end");
}

/// Found by these properties once: in the simulation's own failover, and in its node.
#[test]
fn mistakes_found_before_are_found_again() {
    is_found(Mutation::ForgetsUnknown, "two writers");
    is_found(Mutation::StopsOnlyThisEpoch, "two writers");
}
