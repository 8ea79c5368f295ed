//! Which node a region goes to, and why to no other.
//!
//! First the rules that exclude a node ([`Exclusion`]), then the score. The order of the fields of [`Score`] is the policy:
//! the derived order compares them one after another, the lower the better, and the last one is there so that equal nodes
//! are chosen the same way every time. Regions of one group (of a table, say) are spread over zones, hosts and nodes before
//! loads are compared, so that one fault takes as few of them as can be. Moves that are under way count as if they were
//! done: who is about to get many regions is not empty.

mod balance;
mod explain;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

pub use balance::{Limits, Move, rebalance};
pub use explain::{Explanation, Outcome, Rule, explain};

use crate::detector::Health;
use crate::id::NodeId;

/// The weight of a usual node. One of twice the weight gets twice the regions.
pub const USUAL_WEIGHT: u32 = 100;

/// A node that may be chosen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// The node.
    pub node: NodeId,
    /// Regions that the routes give it.
    pub regions: usize,
    /// Regions on their way to it.
    pub incoming: usize,
    /// Those of its regions that are on their way to another node.
    pub outgoing: usize,
    /// Its capacity, compared with [`USUAL_WEIGHT`]. One of 0 gets nothing.
    pub weight: u32,
    /// The label of its zone. Nodes without one form a zone together.
    pub zone: String,
    /// The label of its host. A node without one is a host of its own.
    pub host: String,
    /// Whether it can be heard.
    pub reach: Reach,
    /// What an operator wants of it.
    pub duty: Duty,
    /// Its restart is announced: what it got now would be without a writer soon.
    pub is_restarting: bool,
}

/// Whether a node can be heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// As its rhythm lets expect.
    Heard,
    /// Not for improbably long.
    Suspect,
    /// Not for a whole lease.
    Lost,
}

impl From<&Health> for Reach {
    fn from(health: &Health) -> Reach {
        match health {
            Health::Alive => Reach::Heard,
            Health::Suspect { .. } => Reach::Suspect,
            Health::Lost { .. } => Reach::Lost,
        }
    }
}

/// What an operator wants of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Duty {
    /// It takes regions.
    Open,
    /// It keeps what it has, and takes no more.
    Cordoned,
    /// It gives away what it has.
    Draining,
}

/// Why a node cannot be chosen, the gravest reason first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Exclusion {
    /// The region is to leave it, or is there already.
    Excepted,
    /// It was silent for a whole lease.
    Lost,
    /// It is silent for improbably long.
    Suspect,
    /// It gives its regions away.
    Draining,
    /// It takes no more regions.
    Cordoned,
    /// Its restart is announced.
    Restarting,
    /// Its weight is 0.
    NoCapacity,
}

/// How good a node is for a region. The lower, the better; the order of the fields is the policy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Score {
    /// Regions of the same group in its zone.
    pub in_zone: usize,
    /// Regions of the same group on its host.
    pub on_host: usize,
    /// Regions of the same group on itself.
    pub on_node: usize,
    /// What it would hold with this region.
    pub load: Load,
    /// Nothing speaks for the lower id, but one must be chosen.
    pub node: NodeId,
}

/// Regions in proportion to the weight: millionths of a region on a node of [`USUAL_WEIGHT`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Load(pub u64);

impl Load {
    /// Of so many regions on a node (or nodes together) of this weight.
    pub fn of(regions: usize, weight: u64) -> Load {
        let regions = u64::try_from(regions).unwrap_or(u64::MAX);
        let scaled = regions.saturating_mul(u64::from(USUAL_WEIGHT)).saturating_mul(1_000_000);
        Load(scaled.checked_div(weight).unwrap_or(if regions == 0 { 0 } else { u64::MAX }))
    }
}

/// How many regions of one group each node holds, those on their way to it included.
pub type Group = BTreeMap<NodeId, usize>;

/// There is no node to choose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotEnough;

impl Candidate {
    /// A usual node with so many regions: heard, open, without labels.
    pub fn new(node: NodeId, regions: usize) -> Candidate {
        Candidate {
            node,
            regions,
            incoming: 0,
            outgoing: 0,
            weight: USUAL_WEIGHT,
            zone: String::new(),
            host: String::new(),
            reach: Reach::Heard,
            duty: Duty::Open,
            is_restarting: false,
        }
    }

    /// The gravest rule that excludes it, if one does.
    pub fn exclusion(&self, except: Option<NodeId>) -> Option<Exclusion> {
        match (self.reach, self.duty) {
            _ if except == Some(self.node) => Some(Exclusion::Excepted),
            (Reach::Lost, _) => Some(Exclusion::Lost),
            (Reach::Suspect, _) => Some(Exclusion::Suspect),
            (Reach::Heard, Duty::Draining) => Some(Exclusion::Draining),
            (Reach::Heard, Duty::Cordoned) => Some(Exclusion::Cordoned),
            (Reach::Heard, Duty::Open) if self.is_restarting => Some(Exclusion::Restarting),
            (Reach::Heard, Duty::Open) => (self.weight == 0).then_some(Exclusion::NoCapacity),
        }
    }

    /// What it holds once all moves that are under way are done.
    fn expected(&self) -> usize {
        self.regions.saturating_add(self.incoming).saturating_sub(self.outgoing)
    }

    /// Its score for one more region, `placed` regions after what is known of it.
    fn score(&self, placed: usize, spread: &Spread<'_>) -> Score {
        let on_node = spread.nodes.get(&self.node).copied().unwrap_or(0);
        Score {
            in_zone: spread.zones.get(self.zone.as_str()).copied().unwrap_or(0),
            on_host: spread.hosts.get(self.host.as_str()).copied().unwrap_or(on_node),
            on_node,
            load: Load::of(self.expected().saturating_add(placed).saturating_add(1), u64::from(self.weight)),
            node: self.node,
        }
    }
}

/// Where the regions of one group are. Excluded nodes count: what they hold is in their zone all the same.
#[derive(Default)]
struct Spread<'a> {
    zones: BTreeMap<&'a str, usize>,
    hosts: BTreeMap<&'a str, usize>,
    nodes: BTreeMap<NodeId, usize>,
}

impl<'a> Spread<'a> {
    fn of(group: &Group, candidates: &'a [Candidate]) -> Spread<'a> {
        let mut spread = Spread::default();
        for candidate in candidates {
            let Some(&held) = group.get(&candidate.node) else { continue };
            let add = |counts: &mut BTreeMap<&'a str, usize>, label: &'a str| {
                let count = counts.entry(label).or_default();
                *count = count.saturating_add(held);
            };
            add(&mut spread.zones, &candidate.zone);
            if !candidate.host.is_empty() {
                add(&mut spread.hosts, &candidate.host);
            }
            spread.nodes.insert(candidate.node, held);
        }
        spread
    }
}

/// Places many regions, one after another, counting those it has placed.
pub struct Placer<'a> {
    candidates: &'a [Candidate],
    /// Regions placed on each candidate.
    placed: Vec<usize>,
    /// The candidates that may be chosen, by their score outside any group. Scores only rise; one that has risen
    /// meanwhile is corrected when it comes to the top.
    best: BinaryHeap<Reverse<(Score, usize)>>,
}

impl<'a> Placer<'a> {
    /// For these candidates, each of which stands for another node.
    pub fn new(candidates: &'a [Candidate]) -> Placer<'a> {
        let best = candidates
            .iter()
            .enumerate()
            .filter(|(_, candidate)| candidate.exclusion(None).is_none())
            .map(|(index, candidate)| Reverse((candidate.score(0, &Spread::default()), index)))
            .collect();
        Placer { candidates, placed: vec![0; candidates.len()], best }
    }

    /// Places one region of no group, on any node but `except`. `None`: there is no node. Costs the logarithm of the
    /// number of candidates.
    pub fn place(&mut self, except: Option<NodeId>) -> Option<NodeId> {
        let mut excepted = Vec::new();
        let mut chosen = None;
        while let Some(Reverse((known, index))) = self.best.pop() {
            let score = self.score(index, &Spread::default())?;
            if score != known {
                self.best.push(Reverse((score, index)));
            } else if except == Some(score.node) {
                excepted.push(Reverse((score, index)));
            } else {
                chosen = Some((score.node, index));
                break;
            }
        }
        self.best.extend(excepted);
        let (node, index) = chosen?;
        self.add(index);
        self.best.push(Reverse((self.score(index, &Spread::default())?, index)));
        Some(node)
    }

    /// Places one region of this group, on any node but `except`, and counts it in the group. `None`: there is no node.
    /// Looks at every candidate.
    pub fn place_in_group(&mut self, group: &mut Group, except: Option<NodeId>) -> Option<NodeId> {
        let spread = Spread::of(group, self.candidates);
        let eligible = self.candidates.iter().zip(&self.placed).enumerate();
        let (score, index) = eligible
            .filter(|(_, (candidate, _))| candidate.exclusion(except).is_none())
            .map(|(index, (candidate, placed))| (candidate.score(*placed, &spread), index))
            .min()?;
        self.add(index);
        let held = group.entry(score.node).or_default();
        *held = held.saturating_add(1);
        Some(score.node)
    }

    fn score(&self, index: usize, spread: &Spread<'_>) -> Option<Score> {
        Some(self.candidates.get(index)?.score(*self.placed.get(index)?, spread))
    }

    fn add(&mut self, index: usize) {
        if let Some(placed) = self.placed.get_mut(index) {
            *placed = placed.saturating_add(1);
        }
    }
}

/// Chooses a node for each of `count` regions of no group, one by one, those just placed included.
///
/// # Errors
/// [`NotEnough`] where no candidate may be chosen.
pub fn choose(candidates: &[Candidate], count: usize) -> Result<Vec<NodeId>, NotEnough> {
    let mut placer = Placer::new(candidates);
    (0..count).map(|_| placer.place(None).ok_or(NotEnough)).collect()
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;
