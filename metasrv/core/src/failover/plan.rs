//! Which regions of lost nodes go where now, and why the others do not.
//!
//! A question of availability: the brake, planned restarts, the limit and the candidates decide, and [`release`] whether it
//! is safe. Silence takes nothing but from a node that was silent for a whole lease of this term (design 03, rule 5).
//!
//! | condition, the first that holds | the region |
//! | --- | --- |
//! | its node is neither lost nor reaped | stays: [`Why::NotLost`] |
//! | its node restarts as planned | waits for it: [`Why::Restarting`] |
//! | the brake holds | waits: [`Why::Braked`] |
//! | rule 4 does not allow it yet | waits: [`Why::MayBeWritten`] |
//! | enough are under way | waits: [`Why::AtMost`] |
//! | its epoch is the highest there is | stays: [`Why::EpochsSpent`] |
//! | no node may be chosen | waits: [`Why::NoNode`] |
//! | else | moves, under the next epoch |

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Certificate, Evidence, Ground, Proof, Release, Tenure, Wait, proof_of_end, release};
use crate::brake::{Hold, Verdict};
use crate::detector::Health;
use crate::guard::{Rule, carried};
use crate::id::{Epoch, Incarnation, NodeId, RegionId};
use crate::placement::{Candidate, Group, Placer};
use crate::time::BootTime;

/// A node that may have to lose its regions.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Gone<'a> {
    /// The node.
    pub node: NodeId,
    /// How it is, as far as one can hear.
    pub health: Health,
    /// The process of it that is recorded; only this one was granted leases.
    pub holder: Option<Incarnation>,
    /// Proof of a process's end.
    pub certificate: Option<Certificate>,
    /// Its regions, without those that are being moved already.
    pub regions: &'a [Held<'a>],
}

/// A region as its route gives it to a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held<'a> {
    /// The region.
    pub region: RegionId,
    /// The epoch of its route.
    pub epoch: Epoch,
    /// The group to be spread that it belongs to.
    pub group: Option<&'a str>,
    /// See [`Evidence::last_grant`].
    pub last_grant: Option<BootTime>,
    /// See [`Evidence::stopped`].
    pub stopped: Option<Tenure>,
    /// See [`Evidence::fenced`].
    pub fenced: Option<Tenure>,
}

/// All that the plan depends on.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The nodes whose regions are looked at, in the order in which they are served.
    pub gone: &'a [Gone<'a>],
    /// See [`Evidence::grant_wait`].
    pub grant_wait: Duration,
    /// See [`Evidence::settled_at`].
    pub settled_at: BootTime,
    /// What the brake says.
    pub verdict: &'a Verdict,
    /// Until when the regions of a node that restarts as planned wait for it.
    pub restarting: &'a BTreeMap<NodeId, BootTime>,
    /// The nodes that may get regions, and those that may not, with what excludes them.
    pub candidates: &'a [Candidate],
    /// Where the regions of each group are, by its label.
    pub groups: &'a BTreeMap<String, Group>,
}

/// What is to be done now: each region of the situation is in exactly one list.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Plan<'a> {
    /// Regions to be given to another node.
    pub takeovers: Vec<Takeover>,
    /// Regions that stay, and why.
    pub stays: Vec<Stay<'a>>,
}

/// A region is to be given to another node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Takeover {
    /// The region.
    pub region: RegionId,
    /// The node that had it.
    pub from: NodeId,
    /// The node that gets it.
    pub to: NodeId,
    /// The epoch that it gets it under. Nobody is told to write under it before it is committed.
    pub epoch: Epoch,
    /// What allows it.
    pub by: Ground,
}

/// A region stays where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stay<'a> {
    /// The region.
    pub region: RegionId,
    /// The node that has it.
    pub node: NodeId,
    /// Why.
    pub why: Why<'a>,
}

/// Why a region is not given to another node now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why<'a> {
    /// Its node was not silent for a whole lease of this term, and nobody reaped it.
    NotLost,
    /// Its node restarts as planned.
    Restarting {
        /// For so long its regions wait for it.
        until: BootTime,
    },
    /// Failovers stand still.
    Braked {
        /// Why.
        why: &'a Hold,
    },
    /// Its node may still write to it.
    MayBeWritten {
        /// Until then, unless there is proof before.
        until: BootTime,
        /// What is waited for.
        why: Wait,
    },
    /// As many regions as may be are being failed over.
    AtMost,
    /// No higher epoch is left to give it to anybody under.
    EpochsSpent,
    /// Every other node is excluded: [`crate::placement::explain`] says why.
    NoNode,
}

/// Which regions go where now, and why the others do not. See the table above.
pub fn plan<'a>(situation: &Situation<'a>, now: BootTime) -> Plan<'a> {
    let mut plan = Plan::default();
    let mut placer = Placer::new(situation.candidates);
    let mut groups: BTreeMap<&str, Group> = BTreeMap::new();
    for gone in situation.gone {
        let refusal = refusal(situation, gone, now);
        for held in gone.regions {
            let begun = plan.takeovers.len();
            let decision = match refusal {
                Some(why) => Err(why),
                None => permission(situation, gone, held, begun, now),
            };
            let placed = decision.and_then(|by| {
                let to = match held.group {
                    None => placer.place(Some(gone.node)),
                    Some(label) => {
                        let known = || situation.groups.get(label).cloned().unwrap_or_default();
                        place_in_group(&mut placer, groups.entry(label).or_insert_with(known), gone.node)
                    }
                };
                to.map(|to| (to, by)).ok_or(Why::NoNode)
            });
            let region = held.region;
            match placed {
                Ok((to, by)) => {
                    let epoch = carried(Rule::MoveRaisesEpoch, held.epoch.next(), || held.epoch);
                    plan.takeovers.push(Takeover { region, from: gone.node, to, epoch, by });
                }
                Err(why) => plan.stays.push(Stay { region, node: gone.node, why }),
            }
        }
    }
    plan
}

/// What keeps all regions of a node where they are.
fn refusal<'a>(situation: &Situation<'a>, gone: &Gone<'_>, now: BootTime) -> Option<Why<'a>> {
    // A lock that was taken proves that one process ended, and that another one is there.
    let reaped = gone
        .holder
        .is_some_and(|holder| matches!(proof_of_end(holder, gone.certificate), Some(Proof::Reaped)));
    if !reaped && !matches!(gone.health, Health::Lost { .. }) {
        return Some(Why::NotLost);
    }
    if let Some(&until) = situation.restarting.get(&gone.node).filter(|until| now < **until) {
        return Some(Why::Restarting { until });
    }
    match situation.verdict {
        Verdict::Hold { why } => Some(Why::Braked { why }),
        Verdict::ReapedOnly { why, .. } if !reaped => Some(Why::Braked { why }),
        Verdict::ReapedOnly { .. } | Verdict::Proceed { .. } => None,
    }
}

/// What allows this region to be taken now, with so many takeovers planned before it.
fn permission<'a>(
    situation: &Situation<'a>,
    gone: &Gone<'_>,
    held: &Held<'_>,
    begun: usize,
    now: BootTime,
) -> Result<Ground, Why<'a>> {
    let evidence = Evidence {
        last_grant: held.last_grant,
        grant_wait: situation.grant_wait,
        settled_at: situation.settled_at,
        certificate: gone.certificate,
        stopped: held.stopped,
        fenced: held.fenced,
    };
    let by = match release(gone.holder, held.region, held.epoch, &evidence, now) {
        Release::Allowed { by } => by,
        Release::NotBefore { at, why } => return Err(Why::MayBeWritten { until: at, why }),
    };
    match situation.verdict {
        Verdict::Proceed { at_most } | Verdict::ReapedOnly { at_most, .. } if begun < *at_most => {}
        _ => return Err(Why::AtMost),
    }
    if held.epoch.next() > held.epoch { Ok(by) } else { Err(Why::EpochsSpent) }
}

/// Places a region of a group, of which its old node does not count as holding it any more.
fn place_in_group(placer: &mut Placer<'_>, group: &mut Group, from: NodeId) -> Option<NodeId> {
    if let Some(held) = group.get_mut(&from) {
        *held = held.saturating_sub(1);
    }
    placer.place_in_group(group, Some(from))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
