//! Goal: what is planned is safe and wanted, and what is not taken is explained. Method: the table of `plan.rs`, row by row,
//! as transcripts; random situations.

use proptest::prelude::*;

use super::super::tests::{EPOCH, WAIT, allowed, any_evidence, at, process, reaped};
use super::*;
use crate::placement::Duty;

fn held(region: u64) -> Held<'static> {
    Held {
        region: RegionId(region),
        epoch: EPOCH,
        group: None,
        last_grant: Some(at(3_000)),
        stopped: None,
        fenced: None,
    }
}

fn lost<'a>(node: u64, regions: &'a [Held<'a>]) -> Gone<'a> {
    let health = Health::Lost { since: at(3_000) };
    Gone { node: NodeId(node), health, holder: Some(process(10)), certificate: None, regions }
}

/// Node 1 is lost and node 2 is full, 3 is empty.
struct World {
    verdict: Verdict,
    restarting: BTreeMap<NodeId, BootTime>,
    candidates: Vec<Candidate>,
    groups: BTreeMap<String, Group>,
}

impl World {
    fn new() -> World {
        World {
            verdict: Verdict::Proceed { at_most: 9 },
            restarting: BTreeMap::new(),
            candidates: [(1, 0), (2, 5), (3, 0)]
                .map(|(node, held)| Candidate::new(NodeId(node), held))
                .to_vec(),
            groups: BTreeMap::new(),
        }
    }

    fn situation<'a>(&'a self, gone: &'a [Gone<'a>]) -> Situation<'a> {
        Situation {
            gone,
            grant_wait: WAIT,
            settled_at: at(2_000),
            verdict: &self.verdict,
            restarting: &self.restarting,
            candidates: &self.candidates,
            groups: &self.groups,
        }
    }

    /// The plan as a transcript.
    fn plan(&self, gone: &[Gone<'_>], now: u64) -> Vec<String> {
        let situation = self.situation(gone);
        let plan = plan(&situation, at(now));
        let takeovers = plan.takeovers.iter().map(|takeover| {
            let Takeover { region, from, to, epoch, by } = takeover;
            format!("{region}: {from} -> {to} under {epoch}: {by}")
        });
        let stays = plan.stays.iter();
        let stays =
            stays.map(|stay| format!("{} on {}: {}", stay.region, stay.node, stay.why.describe(at(now))));
        takeovers.chain(stays).collect()
    }
}

const RAN_OUT: &str = "all leases that its node may have had are over";

#[test]
fn the_regions_of_a_lost_node_move_under_the_next_epoch() {
    let regions = [held(1), Held { epoch: Epoch(8), last_grant: None, ..held(2) }];
    assert_eq!(
        World::new().plan(&[lost(1, &regions)], 8_050),
        [format!("1: 1 -> 3 under 5: {RAN_OUT}"), format!("2: 1 -> 3 under 9: {RAN_OUT}")],
        "never back to node 1, though it is empty and was heard of again"
    );
    assert_eq!(
        World::new().plan(&[lost(1, &regions)], 7_550),
        [
            format!("2: 1 -> 3 under 9: {RAN_OUT}"),
            "1 on 1: its node may write to it for another 0.5 s: the last lease of this term must be over"
                .to_owned(),
        ],
    );
}

#[test]
fn only_a_lost_or_reaped_node_loses_regions() {
    let regions = [held(1)];
    let lock = Some(Certificate { ended: process(10), proof: Proof::LockTaken { by: process(11) } });
    for health in [Health::Alive, Health::Suspect { phi: 99.0 }] {
        let node = Gone { health, ..lost(1, &regions) };
        let stays = ["1 on 1: its node is not lost: it was heard of within a lease of this term"];
        for certificate in [None, lock, reaped(9)] {
            assert_eq!(World::new().plan(&[Gone { certificate, ..node }], 90_000), stays, "{certificate:?}");
        }
        let dead = Gone { certificate: reaped(10), ..node };
        assert_eq!(
            World::new().plan(&[dead], 3_000),
            ["1: 1 -> 3 under 5: its node's process was reaped by its supervisor"],
        );
        let unrecorded = Gone { holder: None, ..dead };
        assert_eq!(World::new().plan(&[unrecorded], 3_000), stays, "of whom is that certificate?");
    }
    assert_eq!(
        World::new().plan(&[Gone { certificate: lock, ..lost(1, &regions) }], 3_000),
        ["1: 1 -> 3 under 5: a newer process has the lock of its node's process"],
    );
}

#[test]
fn a_planned_restart_is_waited_for() {
    let regions = [held(1)];
    let mut world = World::new();
    world.restarting.insert(NodeId(1), at(60_000));
    let gone = [Gone { certificate: reaped(10), ..lost(1, &regions) }];
    assert_eq!(
        world.plan(&gone, 59_999),
        ["1 on 1: its node restarts as planned, and is waited for another 0.0 s"],
    );
    assert_eq!(world.plan(&gone, 60_000).len(), 1);
    assert!(world.plan(&gone, 60_000)[0].starts_with("1: 1 -> 3"));
    world.restarting = BTreeMap::from([(NodeId(2), at(60_000))]);
    assert!(world.plan(&gone, 9_000)[0].starts_with("1: 1 -> 3"), "another node's restart");
}

#[test]
fn the_brake_holds_all_or_all_that_nobody_reaped() {
    let regions = [held(1)];
    let gone = [lost(1, &regions), Gone { certificate: reaped(10), ..lost(2, &regions) }];
    let mut world = World::new();
    world.verdict = Verdict::Hold { why: Hold::Paused { until: at(69_000), reason: "no".to_owned() } };
    let said = "failovers stand still: paused by an operator for another 60.0 s: no";
    assert_eq!(world.plan(&gone, 9_000), [format!("1 on 1: {said}"), format!("1 on 2: {said}")]);
    let why = Hold::Stalled { late: Duration::from_secs(1), until: at(12_000) };
    world.verdict = Verdict::ReapedOnly { at_most: 1, why };
    let plan = world.plan(&gone, 9_000);
    assert_eq!(plan[0], "1: 2 -> 1 under 5: its node's process was reaped by its supervisor");
    assert!(
        plan[1].starts_with("1 on 1: failovers stand still: this leader's own loop was late"),
        "{plan:?}"
    );
}

#[test]
fn no_more_are_begun_than_may_be() {
    let regions = [held(1), held(2), held(3)];
    for at_most in 0..4 {
        let mut world = World::new();
        world.verdict = Verdict::Proceed { at_most };
        let gone = [lost(1, &regions)];
        let situation = world.situation(&gone);
        let plan = plan(&situation, at(9_000));
        assert_eq!((plan.takeovers.len(), plan.stays.len()), (at_most, 3 - at_most));
        assert!(plan.stays.iter().all(|stay| stay.why == Why::AtMost));
    }
}

#[test]
fn without_a_node_or_an_epoch_it_stays() {
    let regions = [Held { epoch: Epoch(u64::MAX), ..held(1) }, held(2)];
    let mut world = World::new();
    let gone = [lost(1, &regions)];
    assert_eq!(
        world.plan(&gone, 9_000),
        [format!("2: 1 -> 3 under 5: {RAN_OUT}"), "1 on 1: there is no epoch above its own".to_owned()],
    );
    for candidate in &mut world.candidates {
        candidate.duty = Duty::Cordoned;
    }
    assert_eq!(world.plan(&gone, 9_000)[1], "2 on 1: no other node may be chosen");
}

#[test]
fn groups_are_spread_and_what_leaves_a_zone_does_not_count_in_it() {
    let mut world = World::new();
    for (candidate, zone) in world.candidates.iter_mut().zip(["a", "a", "b"]) {
        candidate.zone = zone.to_owned();
    }
    world.groups.insert("t".to_owned(), BTreeMap::from([(NodeId(1), 2), (NodeId(3), 2)]));
    let regions = [1, 2, 3].map(|region| Held { group: Some("t"), ..held(region) });
    let to = |world: &World, regions: &[Held<'_>]| -> Vec<u64> {
        let gone = [lost(1, regions)];
        let situation = world.situation(&gone);
        plan(&situation, at(9_000)).takeovers.iter().map(|takeover| takeover.to.0).collect()
    };
    assert_eq!(to(&world, &regions), [2, 2, 3], "a zone with 1 before one with 2, then both have 2");
    let unknown = regions.map(|held| Held { group: Some("u"), ..held });
    assert_eq!(to(&world, &unknown), [3, 2, 3], "by load first, then spread");
}

proptest! {
    /// Each region is in exactly one list, and what moves may move: to another node that is not excluded, upwards, within
    /// the limit.
    #[test]
    fn a_plan_forgets_and_invents_nothing(
        regions in proptest::collection::vec((any_evidence(), 1_u64..6, any::<bool>()), 0..20),
        health in 0..3, at_most in 0_usize..20, now in 0_u64..30_000, cordoned in 0_usize..4,
    ) {
        let mut world = World::new();
        world.verdict = Verdict::Proceed { at_most };
        if let Some(candidate) = world.candidates.get_mut(cordoned) {
            candidate.duty = Duty::Cordoned;
        }
        let held: Vec<_> = regions.iter().zip(1..).map(|((evidence, epoch, grouped), region)| Held {
            region: RegionId(region),
            epoch: Epoch(*epoch),
            group: grouped.then_some("t"),
            last_grant: evidence.last_grant,
            stopped: evidence.stopped,
            fenced: evidence.fenced,
        }).collect();
        let health = [Health::Alive, Health::Suspect { phi: 9.0 }, Health::Lost { since: at(0) }][health as usize];
        let certificate = regions.first().and_then(|(evidence, ..)| evidence.certificate);
        let gone = [Gone { health, certificate, ..lost(1, &held) }];
        let situation = world.situation(&gone);
        let plan = plan(&situation, at(now));
        let mut seen: Vec<_> = plan.takeovers.iter().map(|takeover| takeover.region).collect();
        seen.extend(plan.stays.iter().map(|stay| stay.region));
        seen.sort_unstable();
        prop_assert_eq!(seen, held.iter().map(|held| held.region).collect::<Vec<_>>());
        prop_assert!(plan.takeovers.len() <= at_most);
        for takeover in &plan.takeovers {
            let held = held.iter().find(|held| held.region == takeover.region).unwrap();
            let lost = matches!(health, Health::Lost { .. });
            prop_assert!(lost || takeover.by == Ground::Ended(Proof::Reaped));
            prop_assert_eq!(takeover.epoch, held.epoch.next());
            let to = world.candidates.iter().find(|candidate| candidate.node == takeover.to).unwrap();
            prop_assert_eq!(to.exclusion(Some(takeover.from)), None);
            let evidence = Evidence {
                last_grant: held.last_grant, grant_wait: WAIT, settled_at: at(2_000), certificate,
                stopped: held.stopped, fenced: held.fenced,
            };
            let release = release(Some(process(10)), held.region, held.epoch, &evidence, at(now));
            prop_assert_eq!(release, allowed(takeover.by));
        }
    }
}
