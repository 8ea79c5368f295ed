//! A node is to be empty: its regions are migrated away, a few at a time.
//!
//! | condition | what is done | why |
//! | --- | --- | --- |
//! | routes give it a region, limits leave room, a target is there | the region's migration begins | |
//! | the limits are reached | wait for a migration to end | a drain must not slow down what the nodes are there for |
//! | no target for a region, or its migration was undone | that region waits, longer each time; others go on | one region must not hold up the rest |
//! | routes give it nothing and none of its migrations is at work | Empty | also where failover moved the rest |
//! | an operator cancels | Cancelled; migrations at work go on to their own end | |
//!
//! What is stored never changes: every leader finds out from the routes what is left. The rate is measured anew by each.
//! The same values plan a drain without doing it ([`plan`]).

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Claim, InFlight, Kind, Limits, Procedure, ProcedureId, Refusal, Running};
use crate::id::{NodeId, RegionId};
use crate::time::BootTime;

/// Blocked regions named at once. More would hide the reason, not show it.
const MOST_BLOCKED: usize = 16;

/// Regions with a busy target that are passed over in one step. With ten thousand of them, choosing a target for each in
/// every step would cost more than the moves.
const MOST_CROWDED: usize = 16;

/// What is stored of a drain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Drain {
    /// Its name.
    pub id: ProcedureId,
    /// The node that is to be empty.
    pub node: NodeId,
    /// When it began, in milliseconds since 1970: for people, nothing is decided by it.
    pub started_ms: u64,
    /// Why, for people.
    pub reason: String,
    /// Regions that the routes gave it at the begin.
    pub total: usize,
}

/// How long a region waits after it could not be moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackOff {
    /// After the first failure; twice as long after each further one.
    pub first: Duration,
    /// Never longer than this.
    pub longest: Duration,
}

impl Default for BackOff {
    /// A target that was lost is noticed within some seconds; an operator who made room should not wait for minutes.
    fn default() -> BackOff {
        BackOff { first: Duration::from_secs(2), longest: Duration::from_secs(30) }
    }
}

/// How a drain ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// No route names the node.
    Empty,
    /// An operator said so.
    Cancelled,
}

/// One migration to begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Move {
    /// The region.
    pub region: RegionId,
    /// Its new node.
    pub to: NodeId,
}

/// A region that does not move now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Blocked {
    /// The region.
    pub region: RegionId,
    /// Why not.
    pub why: String,
    /// When it is tried again.
    pub again_at: BootTime,
}

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Progress {
    /// Regions that left the node.
    pub done: usize,
    /// Regions that routes still give it, those in flight included.
    pub left: usize,
    /// Regions with a migration at work.
    pub in_flight: usize,
    /// The time that the rest takes, by the rate so far. `None`: nothing is known to tell it from, or nothing is left and only
    /// the last copies are being closed.
    pub eta: Option<Duration>,
}

/// What the leader knows of the node's regions.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// Regions that routes give the node, in the order of ids.
    pub regions: &'a [RegionId],
    /// All procedures at work.
    pub running: &'a Running,
    /// How long a migration takes, measured. `None`: none was measured.
    pub typical: Option<Duration>,
}

/// What is to be done now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// It goes on.
    Continue {
        /// Migrations to begin.
        begin: Vec<Move>,
        /// How far it is.
        progress: Progress,
        /// Regions that do not move, a bounded number of them.
        blocked: Vec<Blocked>,
        /// Why no further migration begins now, where the limits are the reason.
        full: Option<Refusal>,
    },
    /// Take the record away, in a fenced transaction with the event that says how it ended.
    Finish(End),
}

/// A region that could not be moved.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Waiting {
    failures: u32,
    why: String,
    again_at: BootTime,
}

/// A drain at work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Draining {
    stored: Drain,
    back_off: BackOff,
    /// When this leader took it up, and how many regions were left then. The rate is counted from there.
    begun: Option<(BootTime, usize)>,
    /// Never more than the regions of the node.
    waiting: BTreeMap<RegionId, Waiting>,
}

impl Procedure for Draining {
    type Stored = Drain;
    type Settings = BackOff;
    const KIND: Kind = Kind::Drain;

    fn on_leader_change(stored: Drain, back_off: BackOff, _now: BootTime) -> Draining {
        Draining { stored, back_off, begun: None, waiting: BTreeMap::new() }
    }

    fn stored(&self) -> &Drain {
        &self.stored
    }

    fn claim(&self) -> Claim {
        Claim::Node(self.stored.node)
    }
}

impl Draining {
    /// What is to be done now. `target` chooses a node for a region, or says why there is none; the moves chosen
    /// before in the same step have begun as far as it is concerned.
    pub fn step(
        &mut self,
        seen: &Observed<'_>,
        limits: &Limits,
        mut target: impl FnMut(RegionId) -> Result<NodeId, String>,
        now: BootTime,
    ) -> Next {
        let node = self.stored.node;
        self.waiting.retain(|region, _| seen.regions.binary_search(region).is_ok());
        if seen.regions.is_empty() && seen.running.load(node) == 0 {
            return Next::Finish(End::Empty);
        }
        let mut trial = seen.running.clone();
        let mut begin = Vec::new();
        let mut full = None;
        let mut crowded: usize = 0;
        for region in seen.regions {
            if seen.running.of_region(*region).next().is_some() {
                continue;
            }
            if self.waiting.get(region).is_some_and(|waiting| now < waiting.again_at) {
                continue;
            }
            // Asked before a target is chosen: where the node itself is busy enough, no target would help.
            if let Err(refusal) = trial.admits(&migration(*region, vec![node]), limits) {
                full = Some(refusal);
                break;
            }
            let to = match target(*region) {
                Ok(to) => to,
                Err(why) => {
                    self.failed(*region, why, now);
                    continue;
                }
            };
            let wanted = migration(*region, vec![node, to]);
            if let Err(refusal) = trial.admits(&wanted, limits) {
                // Its target is busy, which is no failure; the next region's may not be.
                full = Some(refusal);
                crowded = crowded.saturating_add(1);
                if crowded == MOST_CROWDED {
                    break;
                }
                continue;
            }
            // Named by its place in this step: above all names that are in use.
            trial.insert(ProcedureId(u64::MAX.saturating_sub(begin.len() as u64)), wanted);
            begin.push(Move { region: *region, to });
        }
        Next::Continue { progress: self.progress(seen, limits, now), begin, blocked: self.blocked(now), full }
    }

    /// The migration of this region was undone, or could not begin.
    pub fn failed(&mut self, region: RegionId, why: String, now: BootTime) {
        let failures = self.waiting.get(&region).map_or(0, |waiting| waiting.failures);
        let doubled = self.back_off.first.saturating_mul(2_u32.saturating_pow(failures));
        let again_at = now + doubled.min(self.back_off.longest);
        self.waiting.insert(region, Waiting { failures: failures.saturating_add(1), why, again_at });
    }

    /// An operator ends it.
    pub fn cancel(&self) -> Next {
        Next::Finish(End::Cancelled)
    }

    /// The regions that wait, those that wait longest first.
    fn blocked(&self, now: BootTime) -> Vec<Blocked> {
        let mut waiting: Vec<_> = self.waiting.iter().filter(|(_, waiting)| now < waiting.again_at).collect();
        waiting.sort_by_key(|(region, waiting)| (std::cmp::Reverse(waiting.failures), **region));
        waiting.truncate(MOST_BLOCKED);
        let named = waiting.into_iter();
        named
            .map(|(region, waiting)| Blocked {
                region: *region,
                why: waiting.why.clone(),
                again_at: waiting.again_at,
            })
            .collect()
    }

    fn progress(&mut self, seen: &Observed<'_>, limits: &Limits, now: BootTime) -> Progress {
        let left = seen.regions.len();
        let (begun, at_begin) = *self.begun.get_or_insert((now, left));
        let moved = at_begin.saturating_sub(left);
        let eta = if left == 0 {
            None
        } else if moved > 0 {
            Some(proportional(now.since(begun), left, moved))
        } else {
            seen.typical.map(|typical| in_rounds(left, at_once(limits), typical))
        };
        let in_flight =
            seen.regions.iter().filter(|region| seen.running.of_region(**region).next().is_some()).count();
        Progress { done: self.stored.total.saturating_sub(left), left, in_flight, eta }
    }
}

/// What a drain would do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Where each region would go.
    pub moves: Vec<Move>,
    /// Regions without a target, with the reason.
    pub blocked: Vec<(RegionId, String)>,
    /// The time it would take. `None`: no migration was measured yet.
    pub eta: Option<Duration>,
}

/// A dry run: what a drain with these limits would do if nothing changed meanwhile, and how long it would take with
/// migrations as long as `typical`. `target` as in [`Draining::step`].
pub fn plan(
    regions: &[RegionId],
    limits: &Limits,
    typical: Option<Duration>,
    mut target: impl FnMut(RegionId) -> Result<NodeId, String>,
) -> Plan {
    let mut moves = Vec::new();
    let mut blocked = Vec::new();
    for region in regions {
        match target(*region) {
            Ok(to) => moves.push(Move { region: *region, to }),
            Err(why) => blocked.push((*region, why)),
        }
    }
    let eta = typical.map(|typical| in_rounds(moves.len(), at_once(limits), typical));
    Plan { moves, blocked, eta }
}

fn migration(region: RegionId, nodes: Vec<NodeId>) -> InFlight {
    InFlight { kind: Kind::Migration, claim: Claim::Route(region), nodes, in_gap: false }
}

/// Migrations of one node at the same time.
fn at_once(limits: &Limits) -> usize {
    limits.migrations.min(limits.migrations_per_node).max(1)
}

/// `count` things, `at_once` of them at the same time, each as long as `each`.
fn in_rounds(count: usize, at_once: usize, each: Duration) -> Duration {
    each.saturating_mul(u32::try_from(count.div_ceil(at_once)).unwrap_or(u32::MAX))
}

/// `spent` was needed for `done`: what `left` needs. `done` is not 0.
fn proportional(spent: Duration, left: usize, done: usize) -> Duration {
    let nanos = spent.as_nanos().saturating_mul(left as u128).checked_div(done as u128).unwrap_or_default();
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
