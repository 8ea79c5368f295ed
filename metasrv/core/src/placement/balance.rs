//! Which moves make loads more even, where that is worth a move.
//!
//! One region after another, from the node with the highest load to the one that would have the lowest with it, as long as
//! the one would still be lower than the other by more than the tolerance. Each move lowers the sum over all nodes of the
//! loads that their regions found when they came, so it ends, and what it has done it never undoes: asked again, with these
//! moves done or under way, it finds none.

use super::{Candidate, Duty, Load, Reach};
use crate::id::NodeId;

/// How much rebalancing may do, and what it leaves alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The most moves.
    pub at_most: usize,
    /// Differences of load up to this share (in percent) of the mean load are left alone, as is one region in any case.
    pub tolerance_percent: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            // Each move is a short gap for a writer; a few at once keep it a background affair.
            at_most: 10,
            // Nobody notices a tenth, and every new region would cause a move without it.
            tolerance_percent: 10,
        }
    }
}

/// One region is to leave a node for another. Which of its regions is not decided here: all count the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Move {
    /// The node with more.
    pub from: NodeId,
    /// The node with less.
    pub to: NodeId,
}

/// A node with what it will hold.
struct Pan<'a> {
    candidate: &'a Candidate,
    /// With all moves that are under way or planned.
    holds: usize,
    /// What may still leave it: regions that are there, and not on their way already.
    movable: usize,
}

impl Pan<'_> {
    fn load(&self) -> Load {
        Load::of(self.holds, u64::from(self.candidate.weight))
    }

    fn load_with_one_more(&self) -> Load {
        Load::of(self.holds.saturating_add(1), u64::from(self.candidate.weight))
    }

    /// Nodes that are silent are the failover's, nodes that drain the drain's.
    fn may_give(&self) -> bool {
        self.movable > 0 && self.candidate.reach == Reach::Heard && self.candidate.duty != Duty::Draining
    }
}

/// The moves that make the loads of these nodes more even.
pub fn rebalance(candidates: &[Candidate], limits: &Limits) -> Vec<Move> {
    let mut pans: Vec<Pan<'_>> = candidates
        .iter()
        .map(|candidate| Pan {
            candidate,
            holds: candidate.expected(),
            movable: candidate.regions.saturating_sub(candidate.outgoing),
        })
        .collect();
    let tolerance = tolerance(&pans, limits.tolerance_percent);
    let mut moves = Vec::new();
    while moves.len() < limits.at_most {
        let from = pans
            .iter()
            .enumerate()
            .filter(|(_, pan)| pan.may_give())
            .map(|(index, pan)| (pan.load(), index))
            .max_by_key(|(load, index)| (*load, std::cmp::Reverse(*index)));
        let to = pans
            .iter()
            .enumerate()
            .filter(|(_, pan)| pan.candidate.exclusion(None).is_none())
            .map(|(index, pan)| (pan.load_with_one_more(), index))
            .min();
        let (Some((high, from)), Some((low, to))) = (from, to) else { break };
        if high.0 <= low.0.saturating_add(tolerance) {
            break;
        }
        moves.push(Move { from: transfer(&mut pans, from, Way::Out), to: transfer(&mut pans, to, Way::In) });
    }
    moves
}

enum Way {
    Out,
    In,
}

/// Counts a planned move on one of its sides.
fn transfer(pans: &mut [Pan<'_>], index: usize, way: Way) -> NodeId {
    let pan = &mut pans[index];
    match way {
        Way::Out => {
            pan.holds = pan.holds.saturating_sub(1);
            pan.movable = pan.movable.saturating_sub(1);
        }
        Way::In => pan.holds = pan.holds.saturating_add(1),
    }
    pan.candidate.node
}

/// The difference of loads that is left alone.
fn tolerance(pans: &[Pan<'_>], percent: u32) -> u64 {
    let sharing = || pans.iter().filter(|pan| pan.candidate.reach == Reach::Heard);
    let regions = sharing().fold(0_usize, |sum, pan| sum.saturating_add(pan.holds));
    let weight = sharing().fold(0_u64, |sum, pan| sum.saturating_add(u64::from(pan.candidate.weight)));
    let Load(mean) = Load::of(regions, weight);
    mean.saturating_mul(u64::from(percent)) / 100
}
