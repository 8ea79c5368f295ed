//! The model in a few seconds: two small searches without a flaw, three mutations that must be found, and that
//! docs/proof.md says of all mutations what they are. `make model` is the whole of it.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::{Mutex, MutexGuard, PoisonError};

use metasrv_core_proof::guard::Rule;
use metasrv_proof::mutation::{Mutation, STOPS, exhaust};
use metasrv_proof::region::{Bounds, Happens, Region};
use metasrv_proof::search::{Effort, search};
use metasrv_proof::slip::Slip;

/// A rule is removed for the whole program, so that only one search runs at a time.
static ONE_SEARCH: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_SEARCH.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Goal: nothing that can happen within small bounds gives a region two writers, and what the bounds are for happens.
/// Method: every state of a model with one term in which a holder is asked to stop, and of one in which a process restarts.
#[test]
fn small_searches_find_nothing_broken() {
    let _alone = alone();
    let restarts = Bounds {
        terms: 1,
        routes: 2,
        processes: &[0, 0],
        happens: Happens { deaths: true, ..Happens::default() },
    };
    let outcomes = [
        exhaust(STOPS, 2),
        search(Region { bounds: restarts, slip: None }, None, Effort { threads: 2, most: None }),
    ];
    for outcome in outcomes {
        assert_eq!(outcome.broken, None);
        assert_eq!(outcome.unseen, Vec::<&str>::new());
        assert!(outcome.states > 5_000, "{} states prove little", outcome.states);
    }
}

/// Goal: the searches are able to find what they look for. Method: rules removed, and a mistake made, on purpose.
#[test]
fn removed_rules_are_missed() {
    let _alone = alone();
    for mutation in [
        Mutation::Without(Rule::MoveWaitsForGrants),
        Mutation::Without(Rule::SuccessorWaitsForGrants),
        Mutation::With(Slip::LeaseFromAnswer),
    ] {
        let broken = mutation.search().broken;
        assert!(broken.is_some(), "{} breaks nothing", mutation.name());
    }
}

/// Goal: the table of docs/proof.md names every mutation, what it says, and the search that finds it, and nothing else.
/// Method: the rows of the table, without the columns that only a search knows.
#[test]
fn the_book_lists_every_mutation() {
    let book = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/proof.md")).unwrap();
    let cells =
        |line: &str| line.split('|').skip(1).take(3).map(|it| it.trim().to_owned()).collect::<Vec<_>>();
    let (_, table) = book.split_once("| mutation |").expect("docs/proof.md has the table");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with("| `")).map(cells);
    let expected = Mutation::all().map(|mutation| {
        vec![format!("`{}`", mutation.name()), mutation.says().to_owned(), mutation.scope().name.to_owned()]
    });
    assert_eq!(rows.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
}
