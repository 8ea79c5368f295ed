//! Goal: a drain begins as many moves as the limits leave room for, names what holds it up, tells how long it takes, and
//! ends once the node is empty, whoever leads.
//! Method: single steps over a list of regions; then random drains whose migrations fail, whose targets come and go, and
//! whose leader changes.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::drain::{BackOff, Blocked, Drain, Draining, End, Move, Next, Observed, Progress, plan};
use super::{Claim, InFlight, Kind, Limits, Procedure, ProcedureId, Refusal, Running};
use crate::id::{NodeId, RegionId};
use crate::time::BootTime;

const NODE: NodeId = NodeId(1);
const TARGET: NodeId = NodeId(2);
const LIMITS: Limits = Limits { migrations: 3, migrations_per_node: 2, gaps_per_node: 1, drains: 1 };
const BACK_OFF: BackOff = BackOff { first: Duration::from_secs(2), longest: Duration::from_secs(5) };

fn stored(total: usize) -> Drain {
    Drain { id: ProcedureId(9), node: NODE, started_ms: 0, reason: "test".to_owned(), total }
}

fn draining(total: usize) -> Draining {
    Draining::on_leader_change(stored(total), BACK_OFF, at(0))
}

fn at(seconds: u64) -> BootTime {
    BootTime::from_millis(seconds * 1_000)
}

fn regions(ids: std::ops::RangeInclusive<u64>) -> Vec<RegionId> {
    ids.map(RegionId).collect()
}

fn migration(region: RegionId, nodes: [NodeId; 2]) -> InFlight {
    InFlight { kind: Kind::Migration, claim: Claim::Route(region), nodes: nodes.to_vec(), in_gap: false }
}

/// One step with a target for all but these regions.
fn step_without(
    draining: &mut Draining,
    left: &[RegionId],
    running: &Running,
    full: &[u64],
    now: u64,
) -> Next {
    let seen = Observed { regions: left, running, typical: Some(Duration::from_secs(10)) };
    let target =
        |region: RegionId| if full.contains(&region.0) { Err("no room".to_owned()) } else { Ok(TARGET) };
    draining.step(&seen, &LIMITS, target, at(now))
}

fn step(draining: &mut Draining, left: &[RegionId], running: &Running, now: u64) -> Next {
    step_without(draining, left, running, &[], now)
}

fn begun(next: Next) -> (Vec<u64>, Progress, Vec<Blocked>, Option<Refusal>) {
    match next {
        Next::Continue { begin, progress, blocked, full } => {
            (begin.into_iter().map(|moved| moved.region.0).collect(), progress, blocked, full)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn as_many_moves_begin_as_the_node_has_room_for() {
    let full = Some(Refusal::NodeFull { node: NODE, at_most: 2 });
    let mut running = Running::default();
    let (moves, progress, blocked, why) = begun(step(&mut draining(5), &regions(1..=5), &running, 0));
    assert_eq!((moves, blocked, why), (vec![1, 2], vec![], full));
    let eta = Some(Duration::from_secs(30));
    assert_eq!(progress, Progress { done: 0, left: 5, in_flight: 0, eta }, "three rounds of two");

    running.insert(ProcedureId(1), migration(RegionId(1), [NODE, TARGET]));
    let (moves, progress, ..) = begun(step(&mut draining(5), &regions(1..=5), &running, 0));
    assert_eq!((moves, progress.in_flight), (vec![2], 1));
}

#[test]
fn a_target_with_enough_to_do_is_waited_for_and_not_counted_as_a_failure() {
    let mut running = Running::default();
    for id in 1..=2 {
        running.insert(ProcedureId(id), migration(RegionId(100 + id), [NodeId(3), TARGET]));
    }
    let (moves, _, blocked, full) = begun(step(&mut draining(5), &regions(1..=5), &running, 0));
    assert_eq!((moves, blocked), (vec![], vec![]));
    assert_eq!(full, Some(Refusal::NodeFull { node: TARGET, at_most: 2 }));
    let free = NodeId(5);
    let limits = Limits { migrations: 9, ..LIMITS };
    let regions_left = regions(1..=50);
    let seen = Observed { regions: &regions_left, running: &running, typical: None };
    let mut asked: u64 = 0;
    let target = |region: RegionId| {
        asked += 1;
        Ok(if region.0 == 2 { free } else { TARGET })
    };
    let (moves, ..) = begun(draining(50).step(&seen, &limits, target, at(0)));
    assert_eq!(
        (moves, asked),
        (vec![2], 17),
        "the busy target of one does not hold up the next; sixteen are enough"
    );
    running.insert(ProcedureId(3), migration(RegionId(103), [NodeId(3), NodeId(4)]));
    let (_, _, _, full) = begun(step(&mut draining(5), &regions(1..=5), &running, 0));
    assert_eq!(full, Some(Refusal::Full { kind: Kind::Migration, at_most: 3 }));
}

#[test]
fn a_region_that_cannot_move_waits_longer_each_time_and_others_go_on() {
    let mut draining = draining(4);
    let running = Running::default();
    let left = regions(1..=4);
    let waits =
        |seconds| vec![Blocked { region: RegionId(1), why: "no room".to_owned(), again_at: at(seconds) }];
    let (moves, _, blocked, _) = begun(step_without(&mut draining, &left, &running, &[1], 0));
    assert_eq!((moves, blocked), (vec![2, 3], waits(2)));
    let (moves, ..) = begun(step(&mut draining, &left, &running, 1));
    assert_eq!(moves, [2, 3], "it waits though there is room now");
    let (_, _, blocked, _) = begun(step_without(&mut draining, &left, &running, &[1], 2));
    assert_eq!(blocked, waits(6));
    let (_, _, blocked, _) = begun(step_without(&mut draining, &left, &running, &[1], 6));
    assert_eq!(blocked, waits(11), "never longer than the longest");
    let (moves, _, blocked, _) = begun(step(&mut draining, &left, &running, 11));
    assert_eq!((moves, blocked), (vec![1, 2], vec![]));

    draining.failed(RegionId(2), "the target was lost".to_owned(), at(20));
    let (moves, _, blocked, _) = begun(step(&mut draining, &left, &running, 20));
    assert_eq!((moves, blocked[0].why.as_str()), (vec![1, 3], "the target was lost"));
}

#[test]
fn the_blocked_are_named_up_to_a_bound_those_that_failed_most_first() {
    let mut draining = draining(40);
    for region in 1..=40 {
        draining.failed(RegionId(region), String::new(), at(0));
    }
    draining.failed(RegionId(40), String::new(), at(0));
    let (moves, _, blocked, _) = begun(step(&mut draining, &regions(1..=40), &Running::default(), 1));
    assert_eq!(moves, []);
    assert_eq!((blocked.len(), blocked[0].region, blocked[1].region), (16, RegionId(40), RegionId(1)));
}

#[test]
fn the_rate_so_far_tells_how_long_the_rest_takes() {
    let mut draining = draining(10);
    let running = Running::default();
    begun(step(&mut draining, &regions(1..=8), &running, 100));
    let (_, progress, ..) = begun(step(&mut draining, &regions(3..=8), &running, 110));
    let eta = Some(Duration::from_secs(30));
    assert_eq!(
        progress,
        Progress { done: 4, left: 6, in_flight: 0, eta },
        "two in ten seconds, six are left"
    );
    let seen = Observed { regions: &regions(1..=2), running: &running, typical: None };
    let next =
        Draining::on_leader_change(stored(10), BACK_OFF, at(0)).step(&seen, &LIMITS, |_| Ok(TARGET), at(0));
    assert_eq!(begun(next).1.eta, None, "nothing was measured");
}

#[test]
fn it_ends_when_no_route_names_the_node_and_its_last_migration_is_over() {
    let mut running = Running::default();
    let cleaning = InFlight { claim: Claim::Remains(RegionId(1)), ..migration(RegionId(1), [NODE, TARGET]) };
    running.insert(ProcedureId(1), cleaning);
    let (moves, progress, ..) = begun(step(&mut draining(3), &[], &running, 0));
    assert_eq!((moves, progress.done, progress.left), (vec![], 3, 0));
    assert_eq!(progress.eta, None, "no time for no regions: it would be taken for that of the drain");
    running.remove(ProcedureId(1));
    assert_eq!(step(&mut draining(3), &[], &running, 0), Next::Finish(End::Empty));
    assert_eq!(draining(3).cancel(), Next::Finish(End::Cancelled));
}

#[test]
fn a_plan_names_every_move_and_every_obstacle() {
    let target = |region: RegionId| if region.0 == 3 { Err("no room".to_owned()) } else { Ok(TARGET) };
    let plan = plan(&regions(1..=4), &LIMITS, Some(Duration::from_secs(10)), target);
    let moved = |region| Move { region: RegionId(region), to: TARGET };
    assert_eq!(plan.moves, [moved(1), moved(2), moved(4)]);
    assert_eq!(plan.blocked, [(RegionId(3), "no room".to_owned())]);
    assert_eq!(plan.eta, Some(Duration::from_secs(20)), "two at a time");
}

/// What happens between two steps of a random drain.
#[derive(Clone, Copy, Debug)]
struct Moment {
    /// The migration at work that ends now, if there are so many.
    ends: usize,
    undone: bool,
    leader_changes: bool,
    /// No node may be chosen.
    no_target: bool,
}

fn moment() -> impl Strategy<Value = Moment> {
    (0_usize..4, prop::bool::weighted(0.4), prop::bool::weighted(0.1), prop::bool::weighted(0.2)).prop_map(
        |(ends, undone, leader_changes, no_target)| Moment { ends, undone, leader_changes, no_target },
    )
}

proptest! {
    #[test]
    fn every_drain_ends_once_empty_within_its_limits(
        total in 0_u64..30,
        moments in prop::collection::vec(moment(), 0..60),
    ) {
        let limits = Limits { migrations: 5, migrations_per_node: 3, gaps_per_node: 1, drains: 1 };
        let healed = Moment { ends: 0, undone: false, leader_changes: false, no_target: false };
        let mut draining = draining(total as usize);
        let mut left = regions(1..=total);
        let mut running = Running::default();
        let mut at_work: BTreeMap<u64, RegionId> = BTreeMap::new();
        let mut named = 100;
        let mut ends = 0;
        let steps = moments.len() + 30 * 4;
        for second in 0..steps {
            let moment = moments.get(second).copied().unwrap_or(healed);
            let now = at(second as u64);
            if let Some((&id, &region)) = at_work.iter().nth(moment.ends) {
                at_work.remove(&id);
                running.remove(ProcedureId(id));
                if moment.undone {
                    draining.failed(region, "undone".to_owned(), now);
                } else {
                    left.retain(|other| *other != region);
                }
            }
            if moment.leader_changes {
                draining = Draining::on_leader_change(draining.stored().clone(), BACK_OFF, now);
            }
            let seen = Observed { regions: &left, running: &running, typical: None };
            let target = |region: RegionId| {
                if moment.no_target { Err("none".to_owned()) } else { Ok(NodeId(2 + region.0 % 2)) }
            };
            match draining.step(&seen, &limits, target, now) {
                Next::Finish(end) => {
                    prop_assert_eq!((end, left.len(), at_work.len()), (End::Empty, 0, 0));
                    ends += 1;
                    break;
                }
                Next::Continue { begin, progress, blocked, .. } => {
                    prop_assert_eq!(progress.done + progress.left, total as usize);
                    prop_assert!(blocked.iter().all(|blocked| blocked.again_at > now));
                    for Move { region, to } in begin {
                        prop_assert!(left.contains(&region) && !at_work.values().any(|other| *other == region));
                        let wanted = migration(region, [NODE, to]);
                        prop_assert_eq!(running.admits(&wanted, &limits), Ok(()));
                        named += 1;
                        running.insert(ProcedureId(named), wanted);
                        at_work.insert(named, region);
                    }
                }
            }
        }
        prop_assert_eq!(ends, 1, "left {:?}, at work {:?}", left, at_work);
    }
}
