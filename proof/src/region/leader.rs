//! A leader: what it knows, and what the core makes it grant, admit, move and wait for.
//!
//! As much of metasrv's shell as carries one decision of the core to the next: `leader/hearing.rs` and `registrar.rs`
//! (which process is recorded), `leader/granting.rs` (what a heartbeat is answered), `control/failover.rs` (what is moved).

use std::collections::BTreeMap;

use metasrv_core_proof::brake::Verdict;
use metasrv_core_proof::detector::Health;
use metasrv_core_proof::failover::{Certificate, Gone, Held, Proof, Situation, Tenure, plan};
use metasrv_core_proof::grant::{Reported, decide};
use metasrv_core_proof::id::{Epoch, Incarnation, NodeId, RegionId, Term};
use metasrv_core_proof::incarnation::{Holder, Holds, Standing};
use metasrv_core_proof::lease::{LeadershipLease, Renewal};
use metasrv_core_proof::placement::Candidate;
use metasrv_core_proof::region_map::RegionMap;
use metasrv_core_proof::settlement::takeover_wait;
use metasrv_core_proof::timing::leadership;

use super::Region;
use super::process::{self, Says, incarnation};
use super::world::{Change, Fate, Flight, Route, Store};
use crate::clock::{NOW, Rate, Units, after, ago, left, timing, units};
use crate::slip::Slip;

/// Older than this is as good as never: as long as the wait for a grant.
const OLDEST: Units = 9;

/// The region.
const REGION: RegionId = RegionId(1);

/// What only a leader has.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Leader {
    /// Its term.
    pub term: u8,
    /// What is left of its leadership.
    until: Units,
    /// It grants nothing any more.
    pub closing: bool,
    /// What is left until all that earlier terms granted is over.
    settles_in: Units,
    /// The route, as it knows it.
    pub route: Route,
    /// Units since it last granted the region under this route.
    granted: Option<Units>,
    /// Nothing is granted for the region, nor is it told to be opened.
    pub withheld: bool,
    /// What it knows of each node.
    pub nodes: [Node; 2],
}

/// A node, as a leader knows it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Node {
    /// Which of its processes may be granted leases.
    pub holder: Holder,
    /// A process of it that has ended, as its supervisor says.
    pub certificate: Option<u8>,
    /// A process that confirmed to have stopped, and the epoch that it named.
    pub stopped: Option<(u8, u8)>,
    /// A process of it is being recorded: nothing is granted meanwhile.
    pub recording: bool,
}

impl Leader {
    /// The leader of the next term, from what the store has.
    pub fn begin(store: &Store) -> Leader {
        let last = store.term;
        let wait = takeover_wait(&store.term_records(), Term(u64::from(last)), &timing());
        Leader {
            term: last.saturating_add(1),
            until: left(LeadershipLease::new(NOW, timing().election_ttl).until()),
            closing: false,
            settles_in: left(NOW + wait),
            route: store.route,
            granted: None,
            withheld: false,
            nodes: store.recorded.map(Region::inherited),
        }
    }

    /// A tick of true time passes.
    pub fn tick(&mut self, rate: Rate) {
        let passed = rate.tick();
        self.until = self.until.saturating_sub(passed);
        self.settles_in = self.settles_in.saturating_sub(passed);
        self.granted = self.granted.map(|age| age.saturating_add(passed).min(OLDEST));
        for node in &mut self.nodes {
            node.holder = node.holder.aged(units(passed), ago(OLDEST));
        }
    }

    /// Whether it leads now.
    pub fn leads(&self) -> bool {
        self.lease().is_some_and(|lease| lease.holds(NOW)) && !self.closing
    }

    /// Leadership is over.
    pub fn end(&mut self) {
        self.until = 0;
    }

    /// It can do nothing any more.
    pub fn has_ended(&self) -> bool {
        self.until == 0
    }

    /// Nothing that earlier terms granted is valid any more.
    pub fn is_settled(&self) -> bool {
        self.settles_in == 0
    }

    /// A keep-alive was confirmed, and its key read, at this moment.
    pub fn renew(&mut self) {
        let Some(lease) = self.lease() else { return };
        self.until = match lease.renew(NOW, timing().election_ttl, NOW) {
            Renewal::Until(until) => left(until),
            Renewal::TooLate => 0,
        };
    }

    /// A heartbeat of this process came. The answer, and a process that is to be recorded.
    pub fn hear(
        &mut self,
        process: u8,
        node: u8,
        epoch: u8,
        slip: Option<Slip>,
    ) -> (Option<Says>, Option<Change>) {
        let settled_at = after(self.settles_in);
        let route = self.route;
        let Some(entry) = self.nodes.get_mut(usize::from(node)) else { return (None, None) };
        let holds = if route.node == node { Holds::Regions } else { Holds::Nothing };
        match entry.holder.offer(incarnation(process), holds, settled_at, timing().grant_wait(), NOW) {
            Standing::Current => (self.grant(process, node, epoch, slip), None),
            Standing::Admissible if !entry.recording => {
                entry.recording = true;
                (None, Some(self.admit(process, node, slip)))
            }
            Standing::Stale(_) if slip == Some(Slip::GrantsWhileRecording) => {
                (self.grant(process, node, epoch, slip), None)
            }
            Standing::Admissible | Standing::Waits(_) | Standing::Stale(_) => (None, None),
        }
    }

    /// What has to be written so that this process is the recorded one: first its regions' epochs are raised.
    fn admit(&self, process: u8, node: u8, slip: Option<Slip>) -> Change {
        let has_predecessor = self.recorded(node).is_some();
        if has_predecessor && self.route.node == node && slip != Some(Slip::SuccessorKeepsEpoch) {
            self.change_route(node, self.route.epoch.saturating_add(1), Some(process))
        } else {
            self.record(process, node)
        }
    }

    /// Makes this process the recorded one of its node.
    pub fn record(&self, process: u8, node: u8) -> Change {
        Change::Record { node, process, before: self.recorded(node) }
    }

    /// What a heartbeat of the recorded process is answered: the core's decision, without what is withheld.
    fn grant(&mut self, process: u8, node: u8, epoch: u8, slip: Option<Slip>) -> Option<Says> {
        let entry = self.nodes.get_mut(usize::from(node))?;
        let may = entry.holder.may_be_granted(incarnation(process)) && !entry.recording;
        if !may && slip != Some(Slip::GrantsWhileRecording) {
            return None;
        }
        let routes: RegionMap<Route> =
            (self.route.node == node).then_some((REGION, self.route)).into_iter().collect();
        let reported = (epoch > 0).then(|| Reported { region: REGION, epoch: core_epoch(epoch) });
        let decision = decide(&routes, |route| core_epoch(route.epoch), reported.into_iter().collect());
        if self.withheld && slip != Some(Slip::GrantsWhileMoving) {
            return None;
        }
        if let Some(renewed) = decision.renew.first() {
            self.granted = Some(0);
            entry.holder.granted(NOW);
            return Some(Says::Renewed(model_epoch(renewed.epoch)));
        }
        decision.open.first().map(|open| Says::Open(model_epoch(open.epoch)))
    }

    /// The core's plan, where the node of the region counts as lost: the route that shall be.
    pub fn plan_move(&self) -> Option<Change> {
        let from = self.route.node;
        let to = 1_u8.checked_sub(from)?;
        let entry = self.nodes.get(usize::from(from))?;
        let candidates = [from, to].map(|node| Candidate::new(node_id(node), usize::from(node == from)));
        let held = [Held {
            region: REGION,
            epoch: core_epoch(self.route.epoch),
            group: None,
            last_grant: self.granted.map(ago).or(entry.holder.last_grant()),
            stopped: entry.stopped.map(|(process, epoch)| tenure(process, epoch)),
            fenced: None,
        }];
        let certificate = |ended| Certificate { ended: incarnation(ended), proof: Proof::Reaped };
        let gone = [Gone {
            node: node_id(from),
            health: Health::Lost { since: NOW },
            holder: entry.holder.current(),
            certificate: entry.certificate.map(certificate),
            regions: &held,
        }];
        let situation = Situation {
            gone: &gone,
            grant_wait: timing().grant_wait(),
            settled_at: after(self.settles_in),
            verdict: &Verdict::Proceed { at_most: 1 },
            restarting: &BTreeMap::new(),
            candidates: &candidates,
            groups: &BTreeMap::new(),
        };
        let takeover = plan(&situation, NOW).takeovers.first().copied()?;
        Some(self.change_route(to, model_epoch(takeover.epoch), None))
    }

    /// A change of the route as this leader knows it.
    pub fn change_route(&self, node: u8, epoch: u8, then: Option<u8>) -> Change {
        let before = self.route.revision;
        Change::Route { to: Route { node, epoch, revision: before.saturating_add(1) }, before, then }
    }

    /// The answer to a transaction came. What is to be sent next, where it was the first of two.
    pub fn learn(&mut self, flight: Flight, store: &Store, slip: Option<Slip>) -> Option<Change> {
        let next = match (flight.change, flight.fate) {
            (Change::Route { to, then, .. }, Fate::Done) => {
                // A late answer speaks of a route that may have changed again.
                if to.revision > self.route.revision || slip == Some(Slip::LateAnswerGoesBack) {
                    self.route = to;
                    self.granted = None;
                }
                match then {
                    // The region may be about to move all the same: then this is in vain.
                    Some(process) => return Some(self.record(process, to.node)),
                    None => {
                        self.withheld = false;
                        return None;
                    }
                }
            }
            (Change::Route { then: None, .. }, _) => {
                self.withheld = false;
                None
            }
            (Change::Route { to, then: Some(_), .. }, _) => Some(to.node),
            (Change::Record { node, process, .. }, Fate::Done) => {
                if let Some(entry) = self.nodes.get_mut(usize::from(node)) {
                    entry.holder.record(incarnation(process));
                    entry.certificate = None;
                }
                Some(node)
            }
            (Change::Record { node, .. }, _) => Some(node),
        };
        if let Some(entry) = next.and_then(|node| self.nodes.get_mut(usize::from(node))) {
            entry.recording = false;
        }
        // A conflict shows what is there.
        if flight.fate == Fate::Refused && self.route.node == store.route.node {
            self.route = store.route;
        }
        None
    }

    /// The recorded process of a node.
    pub fn recorded(&self, node: u8) -> Option<u8> {
        let current = self.nodes.get(usize::from(node))?.holder.current()?;
        u8::try_from(current.epoch).ok()?.checked_sub(1)
    }

    /// The deadline as the core has it; none where leadership has ended.
    fn lease(&self) -> Option<LeadershipLease> {
        let ttl = timing().election_ttl;
        (self.until > 0).then(|| LeadershipLease::new(after(self.until).before(leadership(ttl)), ttl))
    }
}

fn core_epoch(epoch: u8) -> Epoch {
    Epoch(u64::from(epoch))
}

fn model_epoch(epoch: Epoch) -> u8 {
    u8::try_from(epoch.0).unwrap_or(u8::MAX)
}

fn node_id(node: u8) -> NodeId {
    NodeId(u64::from(node))
}

fn tenure(process: u8, epoch: u8) -> Tenure {
    let incarnation: Incarnation = process::incarnation(process);
    Tenure { incarnation, region: REGION, epoch: core_epoch(epoch) }
}
