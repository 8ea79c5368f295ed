//! A world for the tests of the lease of all regions: two keepers that live through the same, one of which states digests while
//! the other lists its regions, and two views of one leader.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use metasrv_core::digest::Digest;
use metasrv_core::grant::Reported;
use metasrv_core::holdings::{Holdings, Route};
use metasrv_core::id::{Epoch, Incarnation, RegionId};
use metasrv_core::procedure::instruction::{Held, HeldAs};
use metasrv_core::time::{BootTime, Clock as _};
use metasrv_core::timing::usable_lease;
use metasrv_proto::admin::{RegionSet, RenewedSet};
use metasrv_proto::meta::{self, GrantedRegion, HeartbeatResponse, RegionLease, ResponseHeader};
use proptest::prelude::*;

use crate::alive_keeper::RegionAliveKeeper;
use crate::clock::ManualClock;
use crate::region_server::{
    OpenOptions, RegionError, RegionRole, RegionServer, RegionServerEvent, RegionStat,
};
use crate::response::{HeartbeatResponseHandler as _, ResponseContext};

pub(super) const L: Duration = Duration::from_millis(1_000);
pub(super) const PROCESS: Incarnation = Incarnation { epoch: 1, nonce: 1 };

/// Regions that nobody reads or writes.
pub(super) struct Idle;

#[async_trait]
impl RegionServer for Idle {
    async fn open(&self, _: RegionId, _: OpenOptions) -> Result<(), RegionError> {
        Ok(())
    }

    async fn close(&self, _: RegionId) -> Result<(), RegionError> {
        Ok(())
    }

    async fn set_role(&self, _: RegionId, _: Epoch, _: RegionRole) {}

    async fn flush(&self, _: RegionId) -> Result<(), RegionError> {
        Ok(())
    }

    fn stats(&self) -> Vec<RegionStat> {
        Vec::new()
    }
}

#[derive(Clone, Debug)]
pub(super) struct Plain(Epoch, Option<BootTime>);

impl Route for Plain {
    fn epoch(&self) -> Epoch {
        self.0
    }

    fn own_grant(&self) -> Option<BootTime> {
        self.1
    }

    fn grant(&mut self, at: BootTime) {
        self.1 = Some(at);
    }
}

type Request = (u64, (Vec<meta::RegionStat>, RegionSet));

/// One way of asking and answering.
pub(super) struct Side {
    pub(super) keeper: RegionAliveKeeper,
    pub(super) states_digests: bool,
    pub(super) holdings: Holdings<Plain>,
    pub(super) requests: VecDeque<Request>,
    pub(super) answers: VecDeque<HeartbeatResponse>,
    pub(super) delivered: Vec<HeartbeatResponse>,
}

pub(super) fn held(stat: &meta::RegionStat) -> Held {
    let role = match (stat.candidate, stat.role()) {
        (true, _) => HeldAs::Candidate,
        (false, meta::RegionRole::DowngradingLeader) => HeldAs::Downgraded,
        (false, _) => HeldAs::Leader,
    };
    Held { role, epoch: Epoch(stat.epoch) }
}

impl Side {
    pub(super) fn new(clock: &Arc<ManualClock>, states_digests: bool) -> Side {
        let keeper = RegionAliveKeeper::new(Arc::new(Idle), clock.clone(), Duration::from_secs(600));
        let (requests, answers, delivered) = Default::default();
        Side { keeper, states_digests, holdings: Holdings::default(), requests, answers, delivered }
    }

    pub(super) fn send(&mut self, handshake: bool) {
        let request = self.keeper.report(handshake, self.states_digests);
        self.requests.push_back(request);
    }

    /// Answers the next request; says whether there was one, and whether the leader understood it.
    pub(super) fn serve(&mut self, term: u64, now: BootTime) -> Option<bool> {
        let (duration_since_epoch, (stats, set)) = self.requests.pop_front()?;
        let header = Some(ResponseHeader { term, ..ResponseHeader::default() });
        let mut lease = RegionLease { duration_since_epoch, lease_ms: 1_000, ..RegionLease::default() };
        let mut list_regions = false;
        if self.states_digests {
            match self.take(&set, &stats, now) {
                Some(renewed) => lease.renewed_set = Some(renewed),
                None => list_regions = true,
            }
        } else {
            let reported = stats
                .iter()
                .map(|stat| Reported { region: RegionId(stat.region_id), epoch: Epoch(stat.epoch) });
            let decision = self.holdings.grant_list(reported.collect(), &BTreeSet::new(), now);
            let granted = decision.renew.iter().map(|region| GrantedRegion {
                region_id: region.region.0,
                epoch: region.epoch.0,
                ..GrantedRegion::default()
            });
            lease.regions = granted.collect();
        }
        let region_lease = Some(lease).filter(|_| !list_regions);
        let response =
            HeartbeatResponse { header, region_lease, list_regions, ..HeartbeatResponse::default() };
        self.answers.push_back(response);
        Some(!list_regions)
    }

    pub(super) fn take(
        &mut self,
        set: &RegionSet,
        stats: &[meta::RegionStat],
        now: BootTime,
    ) -> Option<RenewedSet> {
        let stated = Digest { sum: set.digest, count: set.count };
        let said = stats.iter().map(|stat| (RegionId(stat.region_id), held(stat)));
        let closed = set.closed_region_ids.iter().map(|region| (RegionId(*region), None));
        let known = match set.complete {
            true => self.holdings.listed(PROCESS, said, stated),
            false => {
                let changes = closed.chain(said.map(|(region, held)| (region, Some(held))));
                self.holdings.changed(PROCESS, changes, stated)
            }
        };
        let decision = self.holdings.grant_set(&BTreeSet::new(), now).filter(|_| known)?;
        Some(RenewedSet {
            digest: set.digest,
            count: set.count,
            version: set.version,
            revision: decision.revision,
            except_region_ids: decision.except.iter().map(|region| region.0).collect(),
        })
    }

    pub(super) fn hand_over(&self, response: &HeartbeatResponse) {
        self.keeper.handle(&mut ResponseContext { response, sent_at: None }).expect("it is taken");
    }

    /// Delivers the answer that stands so far behind the next one, or once more one that was delivered.
    pub(super) fn deliver(&mut self, at: usize, again: Option<usize>) {
        if let Some(again) = again {
            if let Some(response) = self.delivered.iter().rev().nth(again) {
                self.hand_over(response);
            }
            return;
        }
        let at = at.min(self.answers.len().saturating_sub(1));
        let Some(response) = self.answers.remove(at) else { return };
        self.hand_over(&response);
        self.delivered.push(response);
    }

    /// Until when the node believes that it may write.
    pub(super) fn believes(&self, region: u64) -> BootTime {
        let open = self.keeper.region(RegionId(region));
        let open = open.filter(|open| open.held().role == HeldAs::Leader);
        open.map_or(BootTime::ZERO, |open| open.until())
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Route(u64),
    Unroute(u64),
    Withhold(u64, bool),
    Open(u64),
    OpenOld(u64),
    Candidate(u64),
    Close(u64),
    Stop(u64),
    Send,
    Serve,
    Deliver(usize),
    Again(usize),
    Elect,
    Pass(u64),
}

pub(super) fn any_step(reorders: bool) -> impl Strategy<Value = Step> {
    let region = || 0_u64..5;
    let farthest = if reorders { 3_usize } else { 1 };
    prop_oneof![
        3 => region().prop_map(Step::Route),
        1 => region().prop_map(Step::Unroute),
        2 => (region(), any::<bool>()).prop_map(|(region, is)| Step::Withhold(region, is)),
        4 => region().prop_map(Step::Open),
        1 => region().prop_map(Step::OpenOld),
        1 => region().prop_map(Step::Candidate),
        1 => region().prop_map(Step::Close),
        1 => region().prop_map(Step::Stop),
        6 => Just(Step::Send),
        6 => Just(Step::Serve),
        6 => (0..farthest).prop_map(Step::Deliver),
        2 => (0_usize..4).prop_map(Step::Again),
        1 => Just(Step::Elect),
        2 => (1_u64..400).prop_map(Step::Pass),
    ]
}

/// Both sides, and what all leaders have granted so far.
pub(super) struct World {
    pub(super) clock: Arc<ManualClock>,
    pub(super) millis: u64,
    pub(super) sides: [Side; 2],
    pub(super) routes: BTreeMap<u64, u64>,
    pub(super) epochs: u64,
    pub(super) term: u64,
    /// The latest grant of each region under each epoch.
    pub(super) accounts: BTreeMap<(u64, u64), BootTime>,
    /// The same by the present leader alone.
    pub(super) own_accounts: BTreeMap<(u64, u64), BootTime>,
}

impl World {
    pub(super) fn new() -> World {
        let clock = Arc::new(ManualClock::default());
        clock.set(1_000);
        let sides = [Side::new(&clock, true), Side::new(&clock, false)];
        let (routes, accounts, own_accounts) = Default::default();
        let mut world =
            World { clock, millis: 1_000, sides, routes, epochs: 0, term: 1, accounts, own_accounts };
        world.sides.iter_mut().for_each(|side| side.send(true));
        world
    }

    pub(super) fn event(&self, event: RegionServerEvent) {
        self.sides.iter().for_each(|side| side.keeper.take(event));
    }

    pub(super) fn step(&mut self, step: Step) {
        self.millis += 1;
        self.clock.set(self.millis);
        let sides = &mut self.sides;
        match step {
            Step::Route(region) => {
                self.epochs += 1;
                self.routes.insert(region, self.epochs);
                let route = Plain(Epoch(self.epochs), None);
                sides.iter_mut().for_each(|side| side.holdings.insert(RegionId(region), route.clone()));
            }
            Step::Unroute(region) => {
                self.routes.remove(&region);
                sides.iter_mut().for_each(|side| side.holdings.remove(&RegionId(region)));
            }
            Step::Withhold(region, true) => {
                sides.iter_mut().for_each(|side| side.holdings.withhold(RegionId(region)));
            }
            Step::Withhold(region, false) => {
                sides.iter_mut().for_each(|side| side.holdings.release(&RegionId(region)));
            }
            Step::Open(region) => {
                if let Some(epoch) = self.routes.get(&region) {
                    self.event(RegionServerEvent::Registered(RegionId(region), Epoch(*epoch)));
                }
            }
            Step::OpenOld(region) => {
                self.event(RegionServerEvent::Registered(RegionId(region), Epoch(self.epochs.max(2) - 1)));
            }
            Step::Candidate(region) => {
                self.event(RegionServerEvent::RegisteredCandidate(
                    RegionId(region),
                    Epoch(self.epochs.max(1)),
                ));
            }
            Step::Close(region) => self.event(RegionServerEvent::Deregistered(RegionId(region))),
            Step::Stop(region) => {
                for side in &self.sides {
                    if let Some(open) = side.keeper.region(RegionId(region)) {
                        side.keeper.stop(RegionId(region), open.epoch());
                    }
                }
            }
            Step::Send => sides.iter_mut().for_each(|side| side.send(false)),
            Step::Serve => self.serve(),
            Step::Deliver(at) => sides.iter_mut().for_each(|side| side.deliver(at, None)),
            Step::Again(again) => sides.iter_mut().for_each(|side| side.deliver(0, Some(again))),
            Step::Elect => self.elect(),
            Step::Pass(millis) => {
                self.millis += millis;
                self.clock.set(self.millis);
            }
        }
    }

    pub(super) fn serve(&mut self) {
        let now = self.clock.now();
        for side in &mut self.sides {
            assert_ne!(side.serve(self.term, now), Some(false), "a list was wanted though nothing was lost");
        }
        for (region, epoch) in &self.routes {
            if let Some(granted) = self.sides[0].holdings.granted_at(&RegionId(*region)) {
                for accounts in [&mut self.accounts, &mut self.own_accounts] {
                    let known = accounts.entry((*region, *epoch)).or_default();
                    *known = granted.max(*known);
                }
            }
        }
    }

    /// Another leader: it knows the routes, and nothing of what is held. What was on its way is not heard any more.
    pub(super) fn elect(&mut self) {
        self.term += 1;
        self.own_accounts.clear();
        for side in &mut self.sides {
            let mut holdings = Holdings::default();
            for (region, epoch) in &self.routes {
                holdings.insert(RegionId(*region), Plain(Epoch(*epoch), None));
            }
            side.holdings = holdings;
            side.requests.clear();
            side.answers.clear();
            side.delivered.clear();
            side.send(true);
        }
    }

    pub(super) fn check(&self, exactly: bool) -> Result<(), TestCaseError> {
        for region in 0..5 {
            let [digests, lists] = [0, 1].map(|side: usize| self.sides[side].believes(region));
            prop_assert!(digests <= lists, "region {}: {:?} by digest, {:?} by list", region, digests, lists);
            prop_assert!(!exactly || digests == lists, "region {region}: {digests:?} is less than {lists:?}");
            let Some(open) = self.sides[0].keeper.region(RegionId(region)) else { continue };
            if digests > BootTime::ZERO {
                let accounted = self.accounts.get(&(region, open.epoch().0)).copied().unwrap_or_default();
                prop_assert!(
                    digests <= accounted + usable_lease(L),
                    "region {region} believes what nobody granted"
                );
            }
        }
        for (region, epoch) in &self.routes {
            let known = self.own_accounts.get(&(*region, *epoch)).copied();
            prop_assert!(
                self.sides[0].holdings.granted_at(&RegionId(*region)) >= known,
                "accounts went back"
            );
        }
        Ok(())
    }
}

/// A node with regions under epoch 1 that the routes give it, its first list answered.
pub(super) fn leased(regions: u64) -> World {
    let mut world = World::new();
    world.epochs = 1;
    for region in 0..regions {
        world.routes.insert(region, 1);
        for side in &mut world.sides {
            side.holdings.insert(RegionId(region), Plain(Epoch(1), None));
        }
        world.event(RegionServerEvent::Registered(RegionId(region), Epoch(1)));
    }
    world.beat();
    world
}

impl World {
    /// A heartbeat and its answer.
    pub(super) fn beat(&mut self) {
        for step in [Step::Send, Step::Serve, Step::Serve, Step::Deliver(0), Step::Deliver(0)] {
            self.step(step);
        }
    }

    pub(super) fn until(&self, region: u64) -> u64 {
        self.sides[0].believes(region).as_nanos() / 1_000_000
    }
}
