//! What `make chaos FAULT=region-…` concludes from what it saw, and that it works: an overlap and a lost put are found, and
//! two of the faults are tried in a small world, where network namespaces can be made.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use metasrv_core::time::BootTime;
use metasrv_tests::chaos::fault::Fault;
use metasrv_tests::chaos::network;
use metasrv_tests::chaos::region::fault::{PREFIX, RegionFault};
use metasrv_tests::chaos::region::intervals::Intervals;
use metasrv_tests::chaos::region::keys::Keys;
use metasrv_tests::chaos::region::page;
use metasrv_tests::chaos::region::round::{Measured, Rounds, moved};
use metasrv_tests::chaos::region::storage::{Told, missing};
use metasrv_tests::chaos::region::summary::{COLUMNS, Safety, rows, target};
use metasrv_tests::chaos::region::track::{Acknowledged, Track};
use metasrv_tests::chaos::servers::Routes;
use metasrv_tests::chaos::world::Scale;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Goal: FAULT= takes a name or its beginning, and no fault of regions is mistaken for another. Method: each kind.
#[test]
fn faults_of_regions_are_chosen_by_name_or_by_its_beginning() {
    assert_eq!(RegionFault::select("region-").unwrap(), RegionFault::ALL);
    assert_eq!(RegionFault::select("region-node-").unwrap().len(), 3);
    for fault in RegionFault::ALL {
        assert_eq!(RegionFault::select(fault.name()).unwrap(), [fault]);
        assert!(fault.name().starts_with(PREFIX) && Fault::select(fault.name()).is_err());
    }
    let error = RegionFault::select("region-sleep").unwrap_err();
    assert!(error.contains("region-migrate"), "{error}");
    // Faults of one world stand together, or there would be more worlds than two.
    let kinds: Vec<bool> = RegionFault::ALL.iter().map(|fault| fault.is_supervised()).collect();
    assert!(kinds.is_sorted_by(|a, b| a >= b), "{kinds:?}");
}

fn line(node: u64, process: u64, epoch: u64, from: u64, until: u64) -> String {
    format!(
        r#"{{"node":{node},"process":{process},"region":7,"epoch":{epoch},"from":{from},"until":{until}}}"#
    )
}

fn overlapping(lines: &[String]) -> usize {
    let mut intervals = Intervals::default();
    lines.iter().for_each(|line| intervals.note(line).unwrap());
    intervals.overlapping().len()
}

/// Goal: two that wrote to one region at the same time are found, also where their writes took turns; one after another
/// is no overlap. Method: notes of each kind.
#[test]
fn two_writers_at_the_same_time_are_found() {
    let first = [line(1, 10, 3, 100, 110), line(1, 10, 3, 190, 200)];
    let with = |more: String| overlapping(&[&first[..], &[more]].concat());
    assert_eq!(overlapping(&first), 0);
    assert_eq!(with(line(2, 20, 4, 200, 210)), 0, "it began when the other one ended");
    assert_eq!(with(line(2, 20, 4, 195, 210)), 1, "in the middle of a write");
    assert_eq!(with(line(2, 20, 4, 150, 160)), 1, "between two writes of another one, which went on");
    assert_eq!(with(line(2, 20, 4, 50, 300)), 1, "all around");
    assert_eq!(with(line(1, 11, 4, 150, 160)), 1, "another process of the same node");
    assert_eq!(with(line(1, 10, 4, 150, 160)), 0, "the same process, under a raised epoch");
    assert_eq!(with(line(2, 20, 3, 300, 310)), 1, "one epoch belongs to one process");
    let elsewhere = line(2, 20, 4, 150, 160).replace("\"region\":7", "\"region\":8");
    assert_eq!(with(elsewhere), 0, "another region");
}

/// Goal: files are read on from where they were read before, and only whole lines. Method: a file that grows.
#[test]
fn notes_are_read_as_they_grow() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("intervals");
    let append = |text: &str| {
        let mut file = std::fs::File::options().create(true).append(true).open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    let mut intervals = Intervals::default();
    let files = [path.clone()];
    append(&format!("{}\n", line(1, 10, 3, 100, 200)));
    append(&line(2, 20, 4, 150, 160)[..20]);
    intervals.read(&files).unwrap();
    assert_eq!((intervals.writes(), intervals.overlapping().len()), (1, 0));
    append(&format!("{}\n", &line(2, 20, 4, 150, 160)[20..]));
    intervals.read(&files).unwrap();
    intervals.read(&files).unwrap();
    assert_eq!((intervals.writes(), intervals.overlapping().len()), (2, 1));
    append("nonsense\n");
    assert!(intervals.read(&files).unwrap_err().contains("nonsense"));
}

fn found(pairs: &[(&str, &str)]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    pairs.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

/// Goal: a put that was acknowledged and is not there is lost; so is one whose key has an older value. Method: one key,
/// every state that it can be found in.
#[test]
fn a_lost_put_is_found() {
    let mut keys = Keys::default();
    let key = keys.due().key;
    assert!(keys.lost(&found(&[])).is_empty(), "it was not acknowledged");
    assert!(keys.lost(&found(&[(&key, "1")])).is_empty(), "it may be there");
    keys.acknowledge();
    assert!(keys.lost(&found(&[(&key, "1")])).is_empty());
    assert_eq!(keys.lost(&found(&[])).len(), 1, "lost");
    assert_eq!(keys.lost(&found(&[(&key, "0")])).len(), 1, "overwritten by something older");
    assert_eq!(keys.lost(&found(&[(&key, "1"), ("99.000000", "7")])).len(), 1, "nobody put that");
}

/// Goal: a late copy of a put whose outcome was unknown is no lost put, and hides none. Method: a doubtful put, whose key
/// is not used again when the ring comes round.
#[test]
fn the_key_of_a_doubtful_put_is_retired() {
    let mut keys = Keys::default();
    let doubtful = keys.due();
    keys.doubt();
    assert_eq!(keys.due().number, doubtful.number, "the same number again, until it is acknowledged");
    keys.acknowledge();
    let mut there = vec![(doubtful.key.clone(), doubtful.number)];
    for _ in 0..64 {
        let next = keys.due();
        assert_ne!(next.key, doubtful.key);
        keys.acknowledge();
        there.push((next.key, next.number));
    }
    assert_eq!(keys.acknowledged(), 65);
    let there: BTreeMap<Vec<u8>, Vec<u8>> = there
        .iter()
        .map(|(key, number)| (key.clone().into_bytes(), number.to_string().into_bytes()))
        .collect();
    assert!(keys.lost(&there).is_empty());
    let again = keys.due();
    assert!(there.contains_key(again.key.as_bytes()), "a key of the ring is used again");
    let old = keys.lost(&there);
    assert!(old.is_empty(), "the put that is under way may not be there yet: {old:?}");
}

/// Goal: the gap of a round is the longest time between two acknowledged puts, with what was open when it began and what
/// is open now. Method: known instants.
#[test]
fn a_gap_counts_from_the_last_acknowledged_put() {
    let mut track = Track::default();
    let at = |track: &mut Track, millis| {
        track.sent();
        track.acknowledge(Acknowledged { at: BootTime::from_millis(millis), node: 1, epoch: 1 });
    };
    for millis in [0, 900, 910] {
        at(&mut track, millis);
    }
    assert_eq!(track.gap(BootTime::from_millis(920)), ms(900));
    track.begin_round();
    assert_eq!(track.gap(BootTime::from_millis(960)), ms(50));
    track.sent();
    at(&mut track, 1_000);
    assert_eq!(track.gap(BootTime::from_millis(1_010)), ms(90));
    assert_eq!((track.acknowledged(), track.attempts()), (4, 5));
}

/// Goal: the storage has at least what was acknowledged, and at most what was sent. Method: lines of `datanode inspect`.
#[test]
fn the_storage_is_counted_against_what_the_writers_were_told() {
    let inspected = "{\"region\":1,\"epoch\":1,\"counted\":2}\n{\"region\":1,\"epoch\":2,\"counted\":null}\n\
                     {\"region\":1,\"epoch\":3,\"counted\":1}\n";
    let wrong = |acknowledged, attempts| {
        let told = BTreeMap::from([(1, Told { acknowledged, attempts })]);
        missing(inspected, &told).unwrap().len()
    };
    assert_eq!((wrong(3, 3), wrong(2, 3)), (0, 0));
    assert_eq!(wrong(4, 5), 1, "one is missing");
    assert_eq!(wrong(1, 2), 1, "one was never sent");
    let nowhere = BTreeMap::from([(2, Told { acknowledged: 1, attempts: 1 })]);
    assert_eq!(missing(inspected, &nowhere).unwrap().len(), 1, "a region without any file");
    assert!(missing("nonsense", &nowhere).is_err());
}

/// Goal: only what had no reason to move counts as moved. Method: routes before and after.
#[test]
fn regions_that_had_no_reason_to_move_are_counted() {
    let before = Routes::from([(1, (1, 1)), (2, (1, 1)), (3, (2, 1)), (4, (2, 1))]);
    let after = Routes::from([(1, (2, 2)), (2, (1, 2)), (3, (3, 2))]);
    assert_eq!(moved(&before, &after, |_| false), 3, "one of them is gone");
    assert_eq!(moved(&before, &after, |region| region == 1), 2);
    assert_eq!(moved(&before, &after, |_| true), 0);
}

/// A round in which nothing went wrong.
fn quiet(fault: RegionFault) -> Measured {
    Measured { gaps: vec![ms(20), ms(40)], said: Some("so".to_owned()), ..Measured::new(fault) }
}

/// Goal: each target is met by what it asks for and missed by less. Method: rounds on both sides.
#[test]
fn targets_of_regions_are_met_or_missed() {
    let met = |round: &Measured| target(round.fault, std::slice::from_ref(round)).1;
    for (fault, limit) in [
        (RegionFault::WorkerKill, 500),
        (RegionFault::NodeKill, 6_500),
        (RegionFault::NodeBlackhole, 6_500),
        (RegionFault::NodeAndLeaderKill, 11_000),
        (RegionFault::Migrate, 50),
        (RegionFault::Drain, 50),
    ] {
        assert!(met(&Measured { gaps: vec![ms(1), ms(limit)], ..quiet(fault) }), "{fault:?}");
        assert!(!met(&Measured { gaps: vec![ms(1), ms(limit + 1)], ..quiet(fault) }), "{fault:?}");
        assert!(!met(&Measured { gaps: Vec::new(), ..quiet(fault) }), "nothing was measured");
    }
    for fault in RegionFault::ALL {
        assert!(met(&quiet(fault)), "{fault:?}");
        assert!(!met(&Measured { moved: 1, ..quiet(fault) }), "{fault:?}");
        assert!(!met(&Measured { unfinished: 1, ..quiet(fault) }), "{fault:?}");
        assert!(!met(&Measured { findings: vec!["wrong".to_owned()], ..quiet(fault) }), "{fault:?}");
    }
    for fault in [RegionFault::Drain, RegionFault::HalfBlackhole] {
        assert!(!met(&Measured { said: None, ..quiet(fault) }), "{fault:?}: it has to say so");
    }
}

/// Goal: the page has a row for each fault and a cell for each column, and safety is nothing at all. Method: a page of
/// every fault.
#[test]
fn the_page_of_regions_has_a_row_for_each_fault() {
    let rounds: Rounds = RegionFault::ALL.into_iter().map(|fault| (fault, vec![quiet(fault)])).collect();
    let scale = Scale { nodes: 3, regions: 2 };
    let text = page::page(&rows(&rounds), &Safety::default(), scale, "a machine");
    for fault in RegionFault::ALL {
        let row = text.lines().find(|line| line.starts_with(&format!("| {} |", fault.name()))).unwrap();
        assert_eq!(row.split('|').count(), COLUMNS.len() + 2, "{row}");
    }
    assert!(Safety { writes: 7, ..Safety::default() }.holds());
    for broken in [
        Safety { overlapping_writers: 1, ..Safety::default() },
        Safety { lost_puts: 1, ..Safety::default() },
        Safety { procedures_unfinished: 1, ..Safety::default() },
        Safety { findings: 1, ..Safety::default() },
        Safety { routes_missed: 1, ..Safety::default() },
    ] {
        assert!(!broken.holds(), "{broken:?}");
    }
}

/// Tries one fault once in a small world. Not where no namespaces can be made: it says so, and proves nothing.
async fn quick(fault: RegionFault, figure: &str) {
    if let Err(missing) = network::check_tools() {
        eprintln!("{} is not tried here: {missing}", fault.name());
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    // Asking for a program builds what is missing, so that the command does not.
    metasrv_tests::binaries::binary("metasrv");
    let chaos = Path::new(env!("CARGO_BIN_EXE_chaos"));
    let arguments = ["--quick", "--fault", fault.name()];
    let mut process =
        metasrv_tests::process::Process::start(fault.name(), chaos, arguments, directory.path());
    let status = process.ended(Duration::from_secs(100)).await;
    let printed = process.log();
    assert!(status.success(), "{printed}");
    for figure in [figure, "procedures_unfinished", "overlapping_writers", "lost_puts"] {
        assert!(printed.contains(&format!("figure {figure} ")), "{figure} is not printed:\n{printed}");
    }
    assert!(printed.contains("safety held"), "{printed}");
}

/// Goal: regions of a worker that was killed are written to elsewhere, and nothing is lost. Method: the command.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_loses_nothing() {
    quick(RegionFault::WorkerKill, "failover_supervised_p99_ms").await;
}

/// Goal: a region is moved under constant writes, and nothing is lost. Method: the command.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_loses_nothing() {
    quick(RegionFault::Migrate, "migration_write_gap_p99_ms").await;
}
