//! Why a region goes to this node, and what was against each other one.

use std::fmt;

use super::{Candidate, Exclusion, Group, Score, Spread};
use crate::id::NodeId;

/// What became of one candidate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// The candidate.
    pub node: NodeId,
    /// Whether it was chosen, or what was against it.
    pub outcome: Outcome,
}

/// Whether a candidate was chosen, or what was against it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It has the lowest score.
    Chosen {
        /// Its score.
        score: Score,
    },
    /// Another one has a lower score.
    Behind {
        /// Its own score.
        score: Score,
        /// The first field of the score in which it is worse than the chosen one.
        by: Rule,
    },
    /// A rule forbids it, whatever its score.
    Excluded {
        /// The gravest of them.
        by: Exclusion,
    },
}

/// The fields of a [`Score`], in its order: the rules of which one decides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rule {
    /// Fewest regions of the same group in a zone.
    Zone,
    /// Fewest regions of the same group on a host.
    Host,
    /// Fewest regions of the same group on a node.
    Node,
    /// Fewest regions in proportion to the weight.
    Load,
    /// The lowest id.
    Tie,
}

impl Score {
    /// The first field in which the two differ; the last one if they do not.
    pub fn rule_against(&self, other: &Score) -> Rule {
        if self.in_zone != other.in_zone {
            Rule::Zone
        } else if self.on_host != other.on_host {
            Rule::Host
        } else if self.on_node != other.on_node {
            Rule::Node
        } else if self.load != other.load {
            Rule::Load
        } else {
            Rule::Tie
        }
    }
}

/// Explains what one more region (of this group; of none where it is empty) would meet, placed on any node but `except`: first
/// the one that is chosen, then the others from best to worst, then those that are excluded in the order of their ids.
pub fn explain(candidates: &[Candidate], group: &Group, except: Option<NodeId>) -> Vec<Explanation> {
    let spread = Spread::of(group, candidates);
    let mut scores: Vec<Score> = candidates
        .iter()
        .filter(|candidate| candidate.exclusion(except).is_none())
        .map(|candidate| candidate.score(0, &spread))
        .collect();
    scores.sort_unstable();
    let chosen = scores.first().copied();
    let ranked = scores.into_iter().enumerate().map(|(place, score)| {
        let outcome = match chosen {
            Some(chosen) if place > 0 => Outcome::Behind { score, by: score.rule_against(&chosen) },
            _ => Outcome::Chosen { score },
        };
        Explanation { node: score.node, outcome }
    });
    let mut excluded: Vec<Explanation> = candidates
        .iter()
        .filter_map(|candidate| {
            let by = candidate.exclusion(except)?;
            Some(Explanation { node: candidate.node, outcome: Outcome::Excluded { by } })
        })
        .collect();
    excluded.sort_unstable_by_key(|explanation| explanation.node);
    ranked.chain(excluded).collect()
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Exclusion::Excepted => "the region is to leave it, or is there already",
            Exclusion::Lost => "it is lost",
            Exclusion::Suspect => "it is suspect",
            Exclusion::Draining => "it is being drained",
            Exclusion::Cordoned => "it is cordoned",
            Exclusion::Restarting => "its restart is announced",
            Exclusion::NoCapacity => "its weight is 0",
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rule::Zone => "fewest regions of the group in a zone",
            Rule::Host => "fewest regions of the group on a host",
            Rule::Node => "fewest regions of the group on a node",
            Rule::Load => "fewest regions in proportion to the weight",
            Rule::Tie => "the lowest id among equals",
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Chosen { .. } => f.write_str("chosen"),
            Outcome::Behind { by, .. } => write!(f, "behind by: {by}"),
            Outcome::Excluded { by } => write!(f, "excluded: {by}"),
        }
    }
}
