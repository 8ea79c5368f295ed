//! A fixed set of seeds, some fresh ones, that a seed is one run and no other, and that planted mistakes are found.
//!
//! A debug build simulates many times slower than a release build, so these are few; `make sim` runs as many as one likes.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::{Command, Output};

fn sim(arguments: &[&str]) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sim")).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, said)
}

/// So many seeds: as the environment says, or few.
fn seeds(few: &str) -> String {
    std::env::var("METASRV_SIM_SEEDS").unwrap_or_else(|_| few.to_owned())
}

/// Goal: a failing seed fails again. Method: two runs of one seed, in processes of their own; the hash takes in every chunk
/// that arrived, with its bytes and its time, and every line that was logged.
#[test]
fn the_same_seed_is_the_same_run() {
    let (_, first) = sim(&["--seed", "1", "--json"]);
    let (_, second) = sim(&["--seed", "1", "--json"]);
    assert!(first.contains("\"hash\""), "{first}");
    assert_eq!(first, second);
    let (_, other) = sim(&["--seed", "7", "--json"]);
    assert_ne!(first, other);
}

/// Goal: what is known to hold goes on holding. Method: a fixed set of seeds.
#[test]
fn fixed_seeds_hold() {
    let (output, said) = sim(&["--from", "1", "--seeds", "4"]);
    assert!(output.status.success(), "{said}");
}

/// Goal: a leader whose lease has ended does not turn without a pause. Method: the seed that found it, in which failovers were
/// begun again and again.
#[test]
fn seed_179_a_leader_whose_lease_has_ended_begins_nothing() {
    let (output, said) = sim(&["--seed", "179"]);
    assert!(output.status.success(), "{said}");
}

/// Goal: to find what nobody has thought of. Method: seeds that are others each time; the output names them.
#[test]
fn fresh_seeds_hold() {
    let (output, said) = sim(&["--seeds", &seeds("4")]);
    println!("{said}");
    assert!(output.status.success(), "{said}");
}

/// Goal: the simulation finds what it is there for. Method: a store that compares no fence; in one of a few seeds an
/// older leader writes after a newer one.
#[test]
fn a_planted_mistake_is_found() {
    let (output, said) = sim(&["--from", "1", "--seeds", "4", "--plant", "unfenced", "--fail-fast"]);
    assert!(!output.status.success(), "nothing was found: {said}");
}
