//! Procedures: what takes several steps over several nodes, and ends exactly once whoever leads meanwhile.
//!
//! A procedure is a small value that is stored under the fence before each step, so that any later leader goes on from
//! where it stands (design 03, rule 8). What is told to nodes may be lost or told twice; what counts is what they report.
//! Instants are not stored: they belong to one boot of one machine, so a new leader begins with fresh patience.
//!
//! | file | what it is |
//! | --- | --- |
//! | [`migrate`] | a live region moves from one node to another |
//! | [`drain`] | all regions of a node are migrated away |
//! | [`instruction`] | what nodes are told, and what they answer and report |
//!
//! | at the same time | allowed? | why |
//! | --- | --- | --- |
//! | two that may change one region's route | no | each would decide from what the other is about to change |
//! | a failover, and the clean-up after a migration of that region | yes | a region without writer must not wait for a clean-up; its close names the old epoch and is refused under the new one |
//! | two drains of one node | no | each would count the other's moves as its own |
//! | more migrations than the limits | no | each costs its nodes opening, flushing and catching up |
//! | more regions of one node without a writer than the limits | no | each would wait for the others' share of the node |

pub mod drain;
pub mod instruction;
pub mod migrate;

#[cfg(test)]
mod drain_tests;
#[cfg(test)]
mod migrate_tests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod running_tests;
#[cfg(test)]
mod simulator;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::id::{NodeId, RegionId};
use crate::time::BootTime;

/// Name of one procedure. Never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ProcedureId(pub u64);

impl fmt::Display for ProcedureId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for ProcedureId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProcedureId({})", self.0)
    }
}

/// What a procedure is there for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// A region leaves a node that is lost.
    Failover,
    /// A region leaves a node that works.
    Migration,
    /// All regions leave a node.
    Drain,
}

impl Kind {
    /// The kind's name in keys, logs and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Failover => "failover",
            Kind::Migration => "migration",
            Kind::Drain => "drain",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What all procedures have in common.
pub trait Procedure: Sized {
    /// What is stored.
    type Stored;
    /// How long it is patient, and the like: the settings of this leader.
    type Settings;
    /// What it is there for.
    const KIND: Kind;

    /// Goes on from what another leader (or this one, before it stored the first state) left in the store, with fresh
    /// patience. Nothing that was told or answered before counts.
    fn on_leader_change(stored: Self::Stored, settings: Self::Settings, now: BootTime) -> Self;

    /// As the store has it, as far as this leader knows.
    fn stored(&self) -> &Self::Stored;

    /// What it keeps others from.
    fn claim(&self) -> Claim;
}

/// What a procedure keeps others from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Claim {
    /// It may change this region's route: no other procedure for the region.
    Route(RegionId),
    /// It only cleans up after a change of this region's route: a failover may begin, nothing else.
    Remains(RegionId),
    /// It empties this node: no other drain of it.
    Node(NodeId),
}

/// How many at once. Failovers are limited by the brake, not here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Migrations overall.
    pub migrations: usize,
    /// Migrations that one node takes part in, on either side.
    pub migrations_per_node: usize,
    /// Regions of those migrations that may be without a writer at the same time, on either side of one node. The others
    /// open, flush and wait meanwhile.
    pub gaps_per_node: usize,
    /// Drains overall.
    pub drains: usize,
}

impl Default for Limits {
    /// Few enough per node that its own clients hardly notice; enough overall that eight drains are not slower than one. Of
    /// what a node works on, opening and flushing take most of the time: one gap after another hides behind them.
    fn default() -> Limits {
        Limits { migrations: 32, migrations_per_node: 4, gaps_per_node: 1, drains: 8 }
    }
}

/// A procedure as others see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InFlight {
    /// What it is there for.
    pub kind: Kind,
    /// What it keeps others from.
    pub claim: Claim,
    /// The nodes that have work with it.
    pub nodes: Vec<NodeId>,
    /// Nobody writes to its region for its sake.
    pub in_gap: bool,
}

/// Why a procedure may not begin now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// This procedure is at work on the same region.
    RegionBusy(ProcedureId),
    /// This procedure is emptying the same node.
    NodeBusy(ProcedureId),
    /// As many of this kind as are allowed are at work.
    Full {
        /// The kind.
        kind: Kind,
        /// How many are allowed.
        at_most: usize,
    },
    /// As many migrations as are allowed are at work on this node.
    NodeFull {
        /// The node.
        node: NodeId,
        /// How many are allowed.
        at_most: usize,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::RegionBusy(id) => write!(f, "procedure {id} is at work on this region"),
            Refusal::NodeBusy(id) => write!(f, "procedure {id} is draining this node"),
            Refusal::Full { kind, at_most } => {
                write!(f, "{at_most} procedures of kind {kind} are at work, the limit")
            }
            Refusal::NodeFull { node, at_most } => {
                write!(f, "{at_most} migrations are at work on node {node}, the limit")
            }
        }
    }
}

/// The procedures at work. Holds the exclusions and the limits.
#[derive(Clone, Default, Debug)]
pub struct Running {
    by_id: BTreeMap<ProcedureId, InFlight>,
    by_region: BTreeMap<RegionId, BTreeSet<ProcedureId>>,
    by_kind: BTreeMap<Kind, usize>,
    /// Migrations by the nodes that take part.
    load: BTreeMap<NodeId, usize>,
    /// Those of them whose region has no writer.
    gaps: BTreeMap<NodeId, usize>,
}

impl Running {
    /// Whether one like this may begin now.
    ///
    /// # Errors
    /// Why it may not.
    pub fn admits(&self, wanted: &InFlight, limits: &Limits) -> Result<(), Refusal> {
        match wanted.claim {
            Claim::Route(region) | Claim::Remains(region) => {
                let passes = |other: &InFlight| {
                    wanted.kind == Kind::Failover && matches!(other.claim, Claim::Remains(_))
                };
                let mut others = self.of_region(region);
                if let Some((id, _)) = others.find(|(_, other)| !passes(other)) {
                    return Err(Refusal::RegionBusy(id));
                }
            }
            Claim::Node(_) => {
                if let Some((id, _)) = self.by_id.iter().find(|(_, other)| other.claim == wanted.claim) {
                    return Err(Refusal::NodeBusy(*id));
                }
            }
        }
        let at_most = match wanted.kind {
            Kind::Failover => return Ok(()),
            Kind::Migration => limits.migrations,
            Kind::Drain => limits.drains,
        };
        if self.count(wanted.kind) >= at_most {
            return Err(Refusal::Full { kind: wanted.kind, at_most });
        }
        if wanted.kind == Kind::Migration
            && let Some(node) =
                wanted.nodes.iter().find(|node| self.load(**node) >= limits.migrations_per_node)
        {
            return Err(Refusal::NodeFull { node: *node, at_most: limits.migrations_per_node });
        }
        Ok(())
    }

    /// It is at work, or its claim changed. Nothing is checked: one that was stored goes on whatever the limits say.
    pub fn insert(&mut self, id: ProcedureId, procedure: InFlight) {
        self.remove(id);
        if let Claim::Route(region) | Claim::Remains(region) = procedure.claim {
            self.by_region.entry(region).or_default().insert(id);
        }
        if procedure.kind == Kind::Migration {
            for node in &procedure.nodes {
                raise(&mut self.load, *node);
                if procedure.in_gap {
                    raise(&mut self.gaps, *node);
                }
            }
        }
        raise(&mut self.by_kind, procedure.kind);
        self.by_id.insert(id, procedure);
    }

    /// It ended.
    pub fn remove(&mut self, id: ProcedureId) {
        let Some(procedure) = self.by_id.remove(&id) else { return };
        if let Claim::Route(region) | Claim::Remains(region) = procedure.claim
            && let Some(ids) = self.by_region.get_mut(&region)
        {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_region.remove(&region);
            }
        }
        if procedure.kind == Kind::Migration {
            for node in &procedure.nodes {
                lower(&mut self.load, node);
                if procedure.in_gap {
                    lower(&mut self.gaps, node);
                }
            }
        }
        lower(&mut self.by_kind, &procedure.kind);
    }

    /// How many of this kind are at work.
    pub fn count(&self, kind: Kind) -> usize {
        self.by_kind.get(&kind).copied().unwrap_or_default()
    }

    /// How many migrations this node takes part in.
    pub fn load(&self, node: NodeId) -> usize {
        self.load.get(&node).copied().unwrap_or_default()
    }

    /// Whether the region of one more migration between these nodes may lose its writer now.
    pub fn has_room_for_gap(&self, nodes: &[NodeId], limits: &Limits) -> bool {
        let gaps = |node| self.gaps.get(node).copied().unwrap_or_default();
        nodes.iter().all(|node| gaps(node) < limits.gaps_per_node.max(1))
    }

    /// Those at work on this region, in the order of their ids.
    pub fn of_region(&self, region: RegionId) -> impl Iterator<Item = (ProcedureId, &InFlight)> {
        let ids = self.by_region.get(&region).into_iter().flatten();
        ids.filter_map(|id| self.by_id.get(id).map(|procedure| (*id, procedure)))
    }
}

fn raise<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
    let count = counts.entry(key).or_default();
    *count = count.saturating_add(1);
}

fn lower<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}
