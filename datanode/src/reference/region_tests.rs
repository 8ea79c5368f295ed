//! A region under every order of events: what was acknowledged is found, and what an old writer does later is not.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::*;

const REGION: RegionId = RegionId(1);

fn store(place: &Path, node: u64) -> RegionStore {
    RegionStore::open(place, REGION, Owner { node, directory: node * 100 }).unwrap()
}

fn put(store: &RegionStore, epoch: u64, key: &str) -> Result<(), KeyValueError> {
    store.append(Epoch(epoch), key.as_bytes(), b"v", || Ok(()))
}

/// The keys that a new leader finds.
fn found(place: &Path, epoch: u64) -> BTreeSet<String> {
    let reader = store(place, 9);
    reader.lead(Epoch(epoch)).unwrap();
    let pairs = reader.scan(b"", 0).pairs;
    pairs.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect()
}

#[test]
fn an_epoch_is_raised_and_never_lowered_and_belongs_to_one_node() {
    let place = tempfile::tempdir().unwrap();
    let region = store(place.path(), 1);
    region.lead(Epoch(3)).unwrap();
    region.lead(Epoch(3)).unwrap();
    drop(region);
    let again = store(place.path(), 1);
    let refused = again.lead(Epoch(2)).unwrap_err();
    assert!(matches!(refused, KeyValueError::Fenced { stored: Epoch(3), offered: Epoch(2) }), "{refused}");
    again.lead(Epoch(3)).expect("a new process on the same directory");
    let other = store(place.path(), 2);
    assert!(matches!(other.lead(Epoch(3)), Err(KeyValueError::Fenced { .. })));
    other.lead(Epoch(4)).unwrap();
}

#[test]
fn a_scan_is_ordered_and_says_whether_there_is_more() {
    let place = tempfile::tempdir().unwrap();
    let region = store(place.path(), 1);
    assert!(put(&region, 1, "a").is_err(), "nobody leads");
    region.lead(Epoch(1)).unwrap();
    assert_eq!(region.scan(b"", 0), Scanned { pairs: vec![], more: false });
    for key in ["c", "a", "b", "a"] {
        put(&region, 1, key).unwrap();
    }
    assert_eq!(region.bytes(), 6);
    let keys = |scanned: &Scanned| scanned.pairs.iter().map(|(key, _)| key[0]).collect::<Vec<_>>();
    let all = region.scan(b"", 0);
    assert_eq!((keys(&all), all.more), (b"abc".to_vec(), false));
    let some = region.scan(b"b", 1);
    assert_eq!((keys(&some), some.more), (b"b".to_vec(), true));
    assert_eq!(region.get(b"c").unwrap(), b"v");
    assert_eq!(region.get(b"d"), None);
}

/// Goal: a right that ends while the storage is at work leaves the outcome open, and the store usable. Method: a right
/// that holds once; then one that never did.
#[test]
fn a_right_that_ends_during_the_write_is_an_unknown_outcome() {
    let place = tempfile::tempdir().unwrap();
    let region = store(place.path(), 1);
    region.lead(Epoch(1)).unwrap();
    let asked = std::cell::Cell::new(0);
    let gone = NotWritable::NotLeased(REGION);
    let right = || if asked.replace(asked.get() + 1) == 0 { Ok(()) } else { Err(gone) };
    let outcome = region.append(Epoch(1), b"first", b"v", right).unwrap_err();
    assert!(matches!(outcome, KeyValueError::Unknown), "{outcome}");
    let refused = region.append(Epoch(1), b"never", b"v", || Err(gone)).unwrap_err();
    assert!(matches!(refused, KeyValueError::NotWritable(_)), "{refused}");
    put(&region, 1, "second").unwrap();
    assert_eq!(found(place.path(), 2), ["first", "second"].map(str::to_owned).into());
}

/// Goal: a put that was torn by the end of its process is not there, what was before it is, and the region goes on behind
/// it. Method: bytes are cut off and added at the end of the segment; the same node, and another one, take over.
#[test]
fn a_torn_tail_is_cut() {
    let place = tempfile::tempdir().unwrap();
    let region = store(place.path(), 1);
    region.lead(Epoch(1)).unwrap();
    put(&region, 1, "whole").unwrap();
    put(&region, 1, "torn").unwrap();
    drop(region);
    let file = place.path().join("1").join(format!("{:020}.log", 1));
    let length = std::fs::metadata(&file).unwrap().len();
    File::options().write(true).open(&file).unwrap().set_len(length - 1).unwrap();
    let again = store(place.path(), 1);
    again.lead(Epoch(1)).unwrap();
    assert_eq!((again.get(b"torn"), again.rest()), (None, 1));
    again.lead(Epoch(1)).unwrap();
    put(&again, 1, "behind").unwrap();
    File::options().append(true).open(&file).unwrap().write_all(&[1, 2, 3]).unwrap();
    assert_eq!(found(place.path(), 2), ["behind", "whole"].map(str::to_owned).into());
}

/// Goal: a candidate follows its leader, takes over with what is left to read, and drops what it read but nobody counts.
/// Method: two stores, one leading, one following; then a third that claims while the first is stopped.
#[test]
fn a_candidate_follows_and_takes_over() {
    let place = tempfile::tempdir().unwrap();
    let (leader, candidate) = (store(place.path(), 1), store(place.path(), 2));
    assert_eq!(candidate.follow().unwrap(), 0, "there is nothing yet");
    leader.lead(Epoch(1)).unwrap();
    put(&leader, 1, "a").unwrap();
    assert_eq!(candidate.follow().unwrap(), 1);
    assert!(put(&candidate, 1, "x").is_err());
    put(&leader, 1, "b").unwrap();
    assert_eq!((leader.rest(), candidate.follow().unwrap()), (2, 2));
    candidate.lead(Epoch(2)).unwrap();
    put(&candidate, 2, "c").unwrap();
    assert_eq!(leader.follow().unwrap(), 3, "they change places");
    assert_eq!(leader.get(b"c").unwrap(), b"v");

    // Node 3 claims epoch 3 and reads; what node 2 then appends a candidate may see, but nobody counts.
    let third = store(place.path(), 3);
    third.claim(Epoch(3)).unwrap();
    third.read_before(&mut third.log(), Epoch(3)).unwrap();
    candidate.write(&mut candidate.log(), b"uncounted", b"v").unwrap();
    assert_eq!(leader.follow().unwrap(), 4);
    assert!(leader.get(b"uncounted").is_some());
    third.begin(&mut third.log(), Epoch(3)).unwrap();
    put(&third, 3, "d").unwrap();
    assert_eq!(leader.follow().unwrap(), 4);
    assert_eq!((leader.get(b"uncounted"), leader.get(b"d")), (None, Some(b"v".to_vec())));
    leader.lead(Epoch(4)).unwrap();
    assert_eq!(leader.scan(b"", 0).pairs.len(), 4);
}

/// Goal: a write that fails whole is as if it had not been, and one that fails in an unknown way is the last one of its
/// epoch. Method: a device that takes nothing, and one that cannot be synced, in the place of the segment.
#[test]
fn a_failed_write_is_never_built_upon() {
    let place = tempfile::tempdir().unwrap();
    let region = store(place.path(), 1);
    region.lead(Epoch(1)).unwrap();
    put(&region, 1, "before").unwrap();
    let swap = |device: &str| {
        let segment = File::options().write(true).open(device).unwrap();
        region.log().writer.as_mut().unwrap().segment = segment;
    };
    swap("/dev/full");
    assert!(matches!(put(&region, 1, "full"), Err(KeyValueError::Storage(_))));
    put(&region, 1, "after").expect("there is room again");
    swap("/dev/null");
    assert!(matches!(put(&region, 1, "unknown"), Err(KeyValueError::Storage(_))));
    let refused = put(&region, 1, "later").unwrap_err().to_string();
    assert!(refused.contains("an earlier write failed"), "{refused}");
    assert!(region.lead(Epoch(1)).is_err());
    region.lead(Epoch(2)).unwrap();
    put(&region, 2, "anew").unwrap();
    assert_eq!(found(place.path(), 3), ["before", "after", "anew"].map(str::to_owned).into());
}

/// One writer on its way: what it does next.
struct Run<'a> {
    store: &'a RegionStore,
    epoch: Epoch,
    key: &'static str,
    steps: Vec<Step>,
    failed: bool,
    acknowledged: bool,
}

#[derive(Clone, Copy)]
enum Step {
    Claim,
    Read,
    Begin,
    Admit,
    Write,
    Confirm,
}

impl Run<'_> {
    /// Does one step, unless one before it failed.
    fn step(&mut self, number: usize) {
        if self.failed {
            return;
        }
        let (store, epoch) = (self.store, self.epoch);
        let mut log = store.log();
        let done = match self.steps[number] {
            Step::Claim => store.claim(epoch),
            Step::Read => store.read_before(&mut log, epoch),
            Step::Begin => store.begin(&mut log, epoch),
            Step::Admit => store.admit(&log, epoch),
            Step::Write => store.write(&mut log, self.key.as_bytes(), b"v").map(drop),
            Step::Confirm => store.confirm(&mut log, epoch).map(|()| self.acknowledged = true),
        };
        self.failed = done.is_err();
    }
}

/// Every order of `a` steps of one and `b` steps of another; `true`: the first one's turn.
fn orders(a: usize, b: usize) -> Vec<Vec<bool>> {
    let lists = 0_u32..1 << (a + b);
    let list = |bits: u32| (0..a + b).map(|at| bits >> at & 1 == 1).collect::<Vec<_>>();
    lists.filter(|bits| bits.count_ones() as usize == a).map(list).collect()
}

/// Runs two writers in every order; returns how often each was acknowledged.
fn every_order(first: (u64, &[Step]), second: (u64, &[Step])) -> (usize, usize) {
    let mut acknowledged = (0, 0);
    for order in orders(first.1.len(), second.1.len()) {
        let place = tempfile::tempdir().unwrap();
        let (a, b) = (store(place.path(), 1), store(place.path(), 2));
        a.lead(Epoch(1)).unwrap();
        put(&a, 1, "before").unwrap();
        let run = |store, (epoch, steps): (u64, &[Step]), key| Run {
            store,
            epoch: Epoch(epoch),
            key,
            steps: steps.to_vec(),
            failed: false,
            acknowledged: false,
        };
        let (mut a, mut b) = (run(&a, first, "a"), run(&b, second, "b"));
        let mut done = (0, 0);
        for is_first in &order {
            if *is_first {
                a.step(done.0);
                done.0 += 1;
            } else {
                b.step(done.1);
                done.1 += 1;
            }
        }
        let found = found(place.path(), 9);
        assert!(found.contains("before"), "{order:?}");
        for run in [&a, &b] {
            assert!(
                !run.acknowledged || found.contains(run.key),
                "{} is lost in the order {order:?}",
                run.key
            );
        }
        acknowledged.0 += usize::from(a.acknowledged);
        acknowledged.1 += usize::from(b.acknowledged);
    }
    acknowledged
}

/// Goal: whatever the order of the steps of an old writer and of whoever takes over, what was acknowledged is found.
/// Method: all 84 orders of three steps of a put and six of a takeover with a put of its own.
#[test]
fn in_every_order_of_a_put_and_a_takeover_nothing_acknowledged_is_lost() {
    use Step::{Admit, Begin, Claim, Confirm, Read, Write};
    let takeover = [Claim, Read, Begin, Admit, Write, Confirm];
    let (old, new) = every_order((1, &[Admit, Write, Confirm]), (2, &takeover));
    assert_eq!(new, 84, "the newer one is never refused");
    // It is acknowledged exactly where its confirmation came before the claim.
    assert_eq!(old, 1);
}

/// Goal: the same with two that take over, of which the lower one is slow. Method: all orders of two takeovers.
#[test]
fn in_every_order_of_two_takeovers_nothing_acknowledged_is_lost() {
    use Step::{Admit, Begin, Claim, Confirm, Read, Write};
    let takeover = [Claim, Read, Begin, Admit, Write, Confirm];
    let (lower, higher) = every_order((2, &takeover), (3, &[Claim, Read, Begin]));
    assert_eq!(higher, 0, "it puts nothing");
    assert_eq!(lower, 1);
}

/// The other process of the test below: it leads and writes as fast as it can, and says what was acknowledged.
#[test]
#[ignore = "a part of the test below, which starts it"]
fn writer_process() {
    let place = std::env::var_os("REGION_TEST_PLACE").expect("started by the test");
    let epoch: u64 = std::env::var("REGION_TEST_EPOCH").unwrap().parse().unwrap();
    let region = store(Path::new(&place), epoch);
    region.lead(Epoch(epoch)).unwrap();
    for number in 0.. {
        let key = format!("{epoch}-{number:06}");
        match put(&region, epoch, &key) {
            Ok(()) => println!("acknowledged {key}"),
            Err(error) => return println!("refused {error}"),
        }
    }
}

/// A writer of its own process, and its output.
struct Writing {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    acknowledged: BTreeSet<String>,
}

impl Writing {
    fn start(place: &Path, epoch: u64) -> Writing {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "reference::region::tests::writer_process", "--ignored", "--nocapture"])
            .env("REGION_TEST_PLACE", place)
            .env("REGION_TEST_EPOCH", epoch.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Writing { child, output, acknowledged: BTreeSet::new() }
    }

    /// Reads on until `most` puts were acknowledged, or it ended; returns why it was refused.
    fn read(&mut self, most: usize) -> Option<String> {
        let mut refused = None;
        let mut line = String::new();
        while self.acknowledged.len() < most {
            line.clear();
            if self.output.read_line(&mut line).unwrap() == 0 {
                break;
            }
            // A line that its process did not finish says nothing.
            let Some(line) = line.strip_suffix('\n') else { break };
            match line.split_once(' ') {
                Some(("acknowledged", key)) => drop(self.acknowledged.insert(key.to_owned())),
                Some(("refused", why)) => refused = Some(why.to_owned()),
                _ => {}
            }
        }
        refused
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Goal: what a process acknowledged is found by the next one, however the first one ended, and a process that was
/// stopped acknowledges nothing after it was overtaken. Method: real processes that are stopped or killed with -9 while
/// they write, one epoch after another; those that were stopped go on when the next one writes.
#[test]
fn processes_that_are_killed_or_stopped_lose_nothing_and_overtake_nobody() {
    const ROUNDS: u64 = 12;
    let place = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    let mut stopped: Option<Writing> = None;
    for epoch in 1..=ROUNDS {
        let mut writing = Writing::start(place.path(), epoch);
        assert_eq!(writing.read(3 + epoch as usize), None, "epoch {epoch} is refused");
        if let Some(mut old) = stopped.take() {
            old.signal(Signal::CONT);
            let refused = old.read(usize::MAX);
            assert!(refused.is_some(), "a writer that was overtaken goes on");
            acknowledged.append(&mut old.acknowledged);
        }
        // It writes while this goes on: the moment is any.
        if epoch % 2 == 0 {
            writing.signal(Signal::KILL);
            assert_eq!(writing.read(usize::MAX), None);
            acknowledged.append(&mut writing.acknowledged);
        } else {
            writing.signal(Signal::STOP);
            stopped = Some(writing);
        }
    }
    drop(stopped);
    assert!(acknowledged.len() > ROUNDS as usize);
    let reader = store(place.path(), 99);
    reader.lead(Epoch(99)).unwrap();
    let lost: Vec<_> = acknowledged.iter().filter(|key| reader.get(key.as_bytes()).is_none()).collect();
    assert!(lost.is_empty(), "{lost:?}");
}
