//! Goal: a heartbeat without a list renews, opens, closes and accounts for exactly what the whole list would. Method: by hand,
//! and random scripts of routes and processes that change, against [`decide`] on whole lists.

use super::*;
use proptest::prelude::*;

/// A route as the tests need it.
#[derive(Clone, PartialEq, Debug)]
struct Plain {
    epoch: Epoch,
    granted: Option<BootTime>,
}

impl Route for Plain {
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn own_grant(&self) -> Option<BootTime> {
        self.granted
    }

    fn grant(&mut self, at: BootTime) {
        self.granted = Some(at);
    }
}

const PROCESS: Incarnation = Incarnation { epoch: 1, nonce: 1 };

fn route(epoch: u64) -> Plain {
    Plain { epoch: Epoch(epoch), granted: None }
}

fn at(millis: u64) -> BootTime {
    BootTime::from_millis(millis)
}

fn leads(epoch: u64) -> Held {
    Held { role: HeldAs::Leader, epoch: Epoch(epoch) }
}

fn ids(ids: impl IntoIterator<Item = u64>) -> Vec<RegionId> {
    ids.into_iter().map(RegionId).collect()
}

/// A node as it sees itself, and the leader's view of it.
struct Pair {
    holdings: Holdings<Plain>,
    held: BTreeMap<RegionId, Held>,
    unsaid: BTreeSet<RegionId>,
    kept_open: BTreeSet<RegionId>,
}

impl Pair {
    fn new(regions: std::ops::Range<u64>) -> Pair {
        let mut holdings = Holdings::default();
        let mut held = BTreeMap::new();
        for region in regions {
            holdings.insert(RegionId(region), route(1));
            held.insert(RegionId(region), leads(1));
        }
        let mut pair = Pair { holdings, held, unsaid: BTreeSet::new(), kept_open: BTreeSet::new() };
        assert!(pair.list());
        pair
    }

    fn hold(&mut self, region: u64, held: Option<Held>) {
        match held {
            Some(held) => self.held.insert(RegionId(region), held),
            None => self.held.remove(&RegionId(region)),
        };
        self.unsaid.insert(RegionId(region));
    }

    fn list(&mut self) -> bool {
        self.unsaid.clear();
        let digest = Digest::of(self.held.clone());
        self.holdings.listed(PROCESS, self.held.clone(), digest)
    }

    fn say(&mut self) -> bool {
        let unsaid = std::mem::take(&mut self.unsaid);
        let changes: Vec<_> = unsaid.iter().map(|region| (*region, self.held.get(region).copied())).collect();
        self.holdings.changed(PROCESS, changes, Digest::of(self.held.clone()))
    }

    fn grant(&mut self, now: u64) -> SetDecision {
        assert!(self.say(), "the digest does not fit");
        self.holdings.grant_set(&self.kept_open, at(now)).expect("it is known")
    }

    /// What the node renews by this decision.
    fn renewed(&self, decision: &SetDecision) -> Vec<Reported> {
        let renewed = self
            .held
            .iter()
            .filter(|(region, held)| held.role == HeldAs::Leader && !decision.except.contains(region));
        renewed.map(|(region, held)| Reported { region: *region, epoch: held.epoch }).collect()
    }
}

#[test]
fn a_steady_heartbeat_renews_all_and_finds_nothing_to_do() {
    let mut pair = Pair::new(1..1_001);
    for beat in 1..4 {
        let revision = pair.holdings.revision();
        let decision = pair.grant(beat * 1_000);
        assert_eq!(decision, SetDecision { renewed: 1_000, revision, ..SetDecision::default() });
        assert_eq!(pair.holdings.granted_at(&RegionId(7)), Some(at(beat * 1_000)));
        assert!(pair.holdings.apart.is_empty(), "the work would grow with the regions");
    }
}

#[test]
fn a_withheld_region_is_left_out_and_becomes_free_though_the_others_are_renewed() {
    let mut pair = Pair::new(1..4);
    pair.grant(1_000);
    let before = pair.holdings.revision();
    pair.holdings.withhold(RegionId(2));
    assert_eq!(pair.holdings.granted_at(&RegionId(2)), Some(at(1_000)), "what was granted counts");
    let decision = pair.grant(2_000);
    assert_eq!((decision.renewed, &decision.except), (2, &ids([2])));
    assert!(decision.revision > before, "the exclusion has a revision of its own");
    pair.grant(9_000);
    assert_eq!(pair.holdings.granted_at(&RegionId(2)), Some(at(1_000)));
    assert_eq!(pair.holdings.granted_at(&RegionId(3)), Some(at(9_000)));
    pair.holdings.release(&RegionId(2));
    assert_eq!(pair.holdings.granted_at(&RegionId(2)), Some(at(1_000)), "not before the next grant");
    assert_eq!(pair.grant(10_000).renewed, 3);
    assert_eq!(pair.holdings.granted_at(&RegionId(2)), Some(at(10_000)));
}

#[test]
fn a_new_or_raised_route_is_granted_only_once_the_process_holds_it() {
    let mut pair = Pair::new(1..3);
    pair.grant(1_000);
    pair.holdings.insert(RegionId(9), route(4));
    pair.holdings.change(RegionId(1), |known| *known = route(2));
    let opened = |region, epoch| Reported { region: RegionId(region), epoch: Epoch(epoch) };
    let decision = pair.grant(2_000);
    assert_eq!(decision.open, [opened(1, 2), opened(9, 4)]);
    assert_eq!((decision.renewed, &decision.except), (1, &ids([1])), "the old epoch is not renewed");
    assert_eq!(pair.holdings.granted_at(&RegionId(9)), None);
    assert_eq!(pair.holdings.granted_at(&RegionId(1)), None, "never under this route");
    pair.hold(9, Some(leads(4)));
    pair.hold(1, Some(leads(2)));
    assert_eq!(pair.grant(3_000).renewed, 3);
    assert_eq!(pair.holdings.granted_at(&RegionId(9)), Some(at(3_000)));
    pair.hold(9, None);
    assert_eq!(pair.grant(4_000).open, [opened(9, 4)]);
    assert_eq!(pair.holdings.granted_at(&RegionId(9)), Some(at(3_000)), "it may still write until then");
}

#[test]
fn what_no_route_names_is_closed_unless_it_is_kept_and_what_is_ahead_is_named() {
    let mut pair = Pair::new(1..3);
    pair.hold(5, Some(leads(1)));
    pair.hold(6, Some(Held { role: HeldAs::Candidate, epoch: Epoch(8) }));
    pair.hold(2, Some(leads(9)));
    pair.kept_open.insert(RegionId(6));
    let decision = pair.grant(1_000);
    assert_eq!(decision.close, ids([5]));
    assert_eq!(decision.ahead, [Reported { region: RegionId(2), epoch: Epoch(9) }]);
    assert_eq!((decision.renewed, decision.except), (1, ids([2, 5, 6])));
    assert_eq!(decision.open, [], "a lower epoch would be refused");
    pair.holdings.remove(&RegionId(1));
    let decision = pair.grant(2_000);
    assert_eq!((decision.renewed, decision.close), (0, ids([1, 5])));
}

#[test]
fn a_digest_that_does_not_fit_is_answered_by_asking_for_the_list() {
    let mut pair = Pair::new(1..3);
    assert!(!pair.holdings.changed(PROCESS, [], Digest { sum: 1, count: 2 }));
    assert_eq!(pair.holdings.grant_set(&BTreeSet::new(), at(1)), None);
    assert!(!pair.say(), "what is right now was wrong before");
    assert!(pair.list());
    let other = Incarnation { epoch: 2, nonce: 2 };
    let digest = Digest::of(pair.held.clone());
    assert!(!pair.holdings.changed(other, [], digest), "another process has not said what it holds");
    assert!(!pair.holdings.listed(PROCESS, [], digest), "a list that is not what it says");
}

/// Something that happens between two heartbeats, or one.
#[derive(Clone, Copy, Debug)]
enum Step {
    Route(u64, u64),
    Unroute(u64),
    Raise(u64),
    Withhold(u64, bool),
    KeepOpen(u64, bool),
    Hold(u64, Option<Held>),
    List,
    Beat,
}

fn any_step(stops: bool) -> impl Strategy<Value = Step> {
    let region = || 0_u64..8;
    let roles = match stops {
        true => vec![HeldAs::Leader, HeldAs::Leader, HeldAs::Candidate, HeldAs::Downgraded],
        false => vec![HeldAs::Leader],
    };
    let held = (prop::sample::select(roles), 1_u64..4);
    let held = held.prop_map(|(role, epoch)| Held { role, epoch: Epoch(epoch) });
    prop_oneof![
        (region(), 1_u64..4).prop_map(|(region, epoch)| Step::Route(region, epoch)),
        region().prop_map(Step::Unroute),
        region().prop_map(Step::Raise),
        (region(), any::<bool>()).prop_map(|(region, is)| Step::Withhold(region, is)),
        (region(), any::<bool>()).prop_map(|(region, is)| Step::KeepOpen(region, is)),
        (region(), prop::option::of(held)).prop_map(|(region, held)| Step::Hold(region, held)),
        Just(Step::List),
        Just(Step::Beat),
        Just(Step::Beat),
        Just(Step::Beat),
    ]
}

/// Runs a script on both: one that is told of sets, one that is told of lists.
fn compare(script: Vec<Step>, stops: bool) -> Result<(), TestCaseError> {
    let mut pair = Pair::new(0..4);
    let mut listed = pair.holdings.clone();
    for (number, step) in script.into_iter().enumerate() {
        match step {
            Step::Route(region, epoch) => {
                pair.holdings.insert(RegionId(region), route(epoch));
                listed.insert(RegionId(region), route(epoch));
            }
            Step::Unroute(region) => {
                pair.holdings.remove(&RegionId(region));
                listed.remove(&RegionId(region));
            }
            Step::Raise(region) => {
                let raise = |known: &mut Plain| *known = route(known.epoch.0 + 1);
                pair.holdings.change(RegionId(region), raise);
                listed.change(RegionId(region), raise);
            }
            Step::Withhold(region, true) => {
                pair.holdings.withhold(RegionId(region));
                listed.withhold(RegionId(region));
            }
            Step::Withhold(region, false) => {
                pair.holdings.release(&RegionId(region));
                listed.release(&RegionId(region));
            }
            Step::KeepOpen(region, true) => {
                pair.kept_open.insert(RegionId(region));
            }
            Step::KeepOpen(region, false) => {
                pair.kept_open.remove(&RegionId(region));
            }
            Step::Hold(region, held) => pair.hold(region, held),
            Step::List => prop_assert!(pair.list()),
            Step::Beat => {
                let now = u64::try_from(number).unwrap_or(0) + 1;
                let decision = pair.grant(now);
                let list =
                    pair.held.iter().map(|(region, held)| Reported { region: *region, epoch: held.epoch });
                let mut oracle = listed.grant_list(list.collect(), &pair.kept_open, at(now));
                // What is stopped or a candidate takes no lease, whatever it is told.
                oracle.renew.retain(|renewed| pair.held[&renewed.region].role == HeldAs::Leader);
                prop_assert_eq!(&pair.renewed(&decision), &oracle.renew, "{:?}", decision);
                prop_assert_eq!(decision.renewed, oracle.renew.len());
                prop_assert_eq!(&decision.close, &oracle.close);
                prop_assert_eq!(&decision.ahead, &oracle.ahead);
                prop_assert_eq!(&decision.open, &oracle.open);
                for renewed in &oracle.renew {
                    prop_assert_eq!(pair.holdings.granted_at(&renewed.region), Some(at(now)), "accounts");
                }
            }
        }
        prop_assert_eq!(Vec::from_iter(pair.holdings.keys()), Vec::from_iter(listed.keys()));
        for (region, known) in listed.iter() {
            let (granted, oracle) = (pair.holdings.granted_at(region), listed.granted_at(region));
            prop_assert_eq!(pair.holdings.get(region).map(|known| known.epoch), Some(known.epoch));
            // The list also accounts for what was told to a region that takes nothing.
            prop_assert!(if stops { granted <= oracle } else { granted == oracle }, "{granted:?} {oracle:?}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_set_comes_to_what_its_list_would(script in prop::collection::vec(any_step(false), 0..80)) {
        compare(script, false)?;
    }

    #[test]
    fn also_where_regions_are_moving(script in prop::collection::vec(any_step(true), 0..80)) {
        compare(script, true)?;
    }
}
