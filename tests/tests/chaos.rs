//! What `make chaos` concludes from what it saw: names, percentiles, two leaders at once, lost writes. Its world of
//! namespaces is not needed for that, and not made here.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use metasrv_core::time::BootTime;
use metasrv_proto::admin::Region;
use metasrv_tests::chaos::fault::Fault;
use metasrv_tests::chaos::ledger::Ledger;
use metasrv_tests::chaos::network::owner;
use metasrv_tests::chaos::round::{Measured, Rounds};
use metasrv_tests::chaos::summary::{COLUMNS, Safety, percentile, rows, target};
use metasrv_tests::chaos::world::Scale;
use metasrv_tests::chaos::writer::{History, Outcome, lost_writes};
use metasrv_tests::chaos::{network, page};

const LEADERSHIP: Duration = Duration::from_millis(4_900);

fn at(millis: u64) -> BootTime {
    BootTime::from_millis(millis)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A round in which nothing went wrong.
fn quiet(fault: Fault) -> Measured {
    Measured {
        fault,
        gap: ms(1_010),
        serving: None,
        leaderless: None,
        leased_again: None,
        read_only: 0,
        moved: 0,
        leader_changes: 0,
        refused: false,
    }
}

/// Goal: FAULT= takes a name, the beginning of names, or nothing. Method: each kind, and one that is none.
#[test]
fn faults_are_chosen_by_name_or_by_its_beginning() {
    assert_eq!(Fault::select("").unwrap(), Fault::ALL);
    // A name that other names begin with means itself.
    assert_eq!(Fault::select("leader-blackhole").unwrap(), [Fault::LeaderBlackhole]);
    assert_eq!(Fault::select("leader-").unwrap().len(), 8);
    assert_eq!(Fault::select("etcd-").unwrap().len(), 6);
    let error = Fault::select("leader-sleep").unwrap_err();
    assert!(error.contains("leader-kill") && error.contains("etcd-nospace"), "{error}");
    for fault in Fault::ALL {
        assert_eq!(Fault::select(fault.name()).unwrap(), [fault], "every name means one fault");
    }
}

/// Goal: percentiles by nearest rank. Method: known sequences.
#[test]
fn percentiles_are_values_that_were_measured() {
    let hundred: Vec<_> = (1..=100).rev().map(ms).collect();
    assert_eq!(percentile(&hundred, 50), ms(50));
    assert_eq!(percentile(&hundred, 99), ms(99));
    assert_eq!(percentile(&hundred, 100), ms(100));
    let three = [ms(30), ms(10), ms(20)];
    assert_eq!(percentile(&three, 50), ms(20));
    assert_eq!(percentile(&three, 99), ms(30));
    assert_eq!(percentile(&[], 99), Duration::ZERO);
}

/// Goal: gaps are those of single nodes, and one that is open counts. Method: two nodes, one of which falls silent.
#[test]
fn the_longest_gap_is_of_one_node_and_may_be_open() {
    let mut ledger = Ledger::new(2, LEADERSHIP);
    for millis in [0, 1_000, 2_000] {
        ledger.accept(0, 1, at(millis));
        ledger.accept(1, 1, at(millis + 500));
    }
    assert_eq!(ledger.longest_gap(at(2_600)), ms(1_000));
    ledger.begin_round(false);
    assert_eq!(
        ledger.longest_gap(at(2_600)),
        ms(600),
        "what was open when the round began counts from its beginning"
    );
    ledger.accept(0, 2, at(3_700));
    assert_eq!(ledger.longest_gap(at(3_700)), ms(1_700));
    assert_eq!(ledger.longest_gap(at(5_000)), ms(2_500), "node 1 is still silent");
    assert_eq!(ledger.accepted_since(2, at(3_000)), 1);
}

/// Goal: when a term began and ended is known, and how many there were. Method: three terms, the last two of a round.
#[test]
fn terms_are_known_by_their_first_and_last_answers() {
    let mut ledger = Ledger::new(1, LEADERSHIP);
    ledger.accept(0, 4, at(1_000));
    ledger.witness(4, at(1_005), at(1_006));
    ledger.witness(6, at(1_030), at(1_031));
    ledger.accept(0, 6, at(1_040));
    ledger.accept(0, 7, at(1_100));
    let ended = ledger.term(4).unwrap();
    let (next, begun) = ledger.term_after(4).unwrap();
    assert_eq!((next, begun.first.since(ended.last)), (6, ms(25)));
    assert_eq!(ledger.terms_after(4), 2);
    assert_eq!(ledger.highest_term(), 7);
    assert_eq!(ledger.double_leader_instants(), 0);
}

/// Goal: a node that accepts a lower term than before has two leaders. Method: one such answer.
#[test]
fn an_accepted_lower_term_is_a_second_leader() {
    let mut ledger = Ledger::new(2, LEADERSHIP);
    ledger.accept(0, 5, at(100));
    ledger.accept(1, 4, at(110));
    assert_eq!(ledger.double_leader_instants(), 0, "node 1 had not heard of the higher term");
    ledger.accept(0, 4, at(120));
    assert_eq!(ledger.double_leader_instants(), 1);
}

/// Goal: a grant that can only have been computed after a higher term began is one of a second leader. Method: late
/// answers to requests from before and from after that.
#[test]
fn a_grant_asked_for_after_a_higher_term_is_a_second_leader() {
    let mut ledger = Ledger::new(1, LEADERSHIP);
    ledger.witness(5, at(90), at(100));
    ledger.witness(4, at(95), at(5_000));
    assert_eq!(
        ledger.double_leader_instants(),
        0,
        "it may have been computed before, and been long on its way"
    );
    ledger.witness(4, at(101), at(102));
    assert_eq!(ledger.double_leader_instants(), 1);
    assert_eq!(ledger.overlapping(), (0, Duration::ZERO), "only a leader that was deposed alive may overlap");
}

/// Goal: a leader that was deposed while it lives may grant until its own deadline, and not later. Method: grants on both
/// sides of the bound.
#[test]
fn a_deposed_leader_overlaps_within_its_own_deadline_only() {
    let mut ledger = Ledger::new(1, LEADERSHIP);
    ledger.witness(4, at(80), at(81));
    ledger.begin_round(true);
    ledger.witness(5, at(90), at(100));
    // What was long on its way arrives in a later round.
    ledger.begin_round(false);
    ledger.witness(4, at(3_100), at(9_000));
    ledger.witness(4, at(5_000), at(9_000));
    assert_eq!(ledger.overlapping(), (2, LEADERSHIP));
    assert_eq!(ledger.double_leader_instants(), 0);
    ledger.witness(4, at(5_001), at(9_000));
    assert_eq!(ledger.double_leader_instants(), 1);
    ledger.accept(0, 5, at(9_100));
    ledger.accept(0, 4, at(9_200));
    assert_eq!(ledger.double_leader_instants(), 2, "a node never accepts it, whenever it was computed");
}

/// Goal: lost and repeated writes are found. Method: a history with every outcome, against what is there.
#[test]
fn acknowledged_writes_are_there_once_and_unknown_ones_at_most_once() {
    let region = |region_id, node_id, epoch, reason: &str| Region {
        region_id,
        node_id,
        epoch,
        reason: reason.to_owned(),
        ..Region::default()
    };
    let acknowledged = Outcome::Acknowledged { region: 7, node: 2, epoch: 3 };
    let lost = |outcome: &Outcome, there: &[Region]| {
        let history = History::from([("w".to_owned(), outcome.clone())]);
        lost_writes(&history, there).len()
    };
    assert_eq!(lost(&acknowledged, &[region(7, 2, 3, "w")]), 0);
    assert_eq!(lost(&acknowledged, &[region(7, 2, 4, "w"), region(8, 2, 1, "other")]), 0, "epochs may rise");
    assert_eq!(lost(&acknowledged, &[]), 1);
    assert_eq!(lost(&acknowledged, &[region(7, 2, 2, "w")]), 1, "its epoch went back");
    assert_eq!(lost(&acknowledged, &[region(7, 3, 3, "w")]), 1, "it moved");
    assert_eq!(lost(&acknowledged, &[region(7, 2, 3, "w"), region(9, 2, 1, "w")]), 1, "it was done twice");
    assert_eq!(lost(&Outcome::Unknown, &[]), 0);
    assert_eq!(lost(&Outcome::Unknown, &[region(7, 2, 3, "w")]), 0);
    assert_eq!(lost(&Outcome::Unknown, &[region(7, 2, 3, "w"), region(9, 2, 1, "w")]), 1);
}

/// Goal: each target is met by what it asks for and missed by less. Method: rounds on both sides.
#[test]
fn targets_are_met_or_missed() {
    let met = |round: &Measured| target(round.fault, std::slice::from_ref(round)).1;
    let kill = Measured { serving: Some(ms(40)), leader_changes: 1, ..quiet(Fault::LeaderKill) };
    assert!(met(&kill));
    assert!(!met(&Measured { serving: Some(ms(60)), ..kill.clone() }));
    assert!(!met(&Measured { serving: None, ..kill.clone() }), "nobody served");
    assert!(!met(&Measured { gap: ms(1_060), ..kill.clone() }));
    assert!(!met(&Measured { read_only: 1, ..kill }));
    let transfer = Measured { leaderless: Some(ms(15)), gap: ms(1_090), ..quiet(Fault::LeaderTransfer) };
    assert!(met(&transfer));
    assert!(!met(&Measured { leaderless: Some(ms(21)), ..transfer }));
    assert!(met(&quiet(Fault::EtcdLeaderKill)));
    assert!(!met(&Measured { leader_changes: 1, ..quiet(Fault::EtcdLeaderKill) }));
    let hang = Measured { serving: Some(ms(1_400)), leader_changes: 1, ..quiet(Fault::LeaderHang) };
    assert!(met(&hang));
    assert!(!met(&Measured { leader_changes: 2, ..hang }), "the old one must not come back");
    let quorum = Measured { leased_again: Some(ms(1_900)), ..quiet(Fault::EtcdQuorumLoss) };
    assert!(met(&quorum));
    assert!(!met(&quiet(Fault::EtcdQuorumLoss)));
}

/// Goal: the page's table has a row for each fault and a cell for each column. Method: a page of every fault.
#[test]
fn the_page_has_a_row_for_each_fault() {
    let rounds: Rounds = Fault::ALL.into_iter().map(|fault| (fault, vec![quiet(fault)])).collect();
    let scale = Scale { nodes: 3, regions: 2 };
    let text = page::page(&rows(&rounds), &Safety::default(), scale, "a machine");
    for fault in Fault::ALL {
        let row = text.lines().find(|line| line.starts_with(&format!("| {} |", fault.name()))).unwrap();
        assert_eq!(row.split('|').count(), COLUMNS.len() + 2, "{row}");
    }
    let broken = Safety { moved: 1, ..Safety::default() };
    assert!(Safety::default().holds() && !broken.holds());
}

/// Goal: only what a run of ours left behind is removed. Method: names of ours and of others.
#[test]
fn namespaces_are_known_by_their_owner() {
    assert_eq!(owner("mchaos1234-hub"), Some(1_234));
    for other in ["mchaos-hub", "mchaos12", "chaos12-hub", "docker", ""] {
        assert_eq!(owner(other), None, "{other:?}");
    }
    // It may be run anywhere, and says what is missing instead of failing in the middle.
    if let Err(missing) = network::check_tools() {
        assert!(missing.starts_with("missing: "), "{missing}");
    }
}
