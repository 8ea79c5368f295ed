//! What goes wrong in the simulation: the mix of faults of a seed, a fault planned at one call, mistakes put in on purpose;
//! and the coming and going of leaders and processes.

use std::time::Duration;

use super::leader::Leader;
use super::process::Process;
use super::{GRANT_WAIT, NODES, TTL, Way, World, name};
use crate::id::{Incarnation, NodeId};

/// A mistake, put in on purpose: the invariants must find it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutation {
    UpgradeBeforeCommit,
    UndoWithoutEpoch,
    AnyProcessConfirms,
    AnyEpochConfirms,
    WaitsForNothing,
    GrantsInGap,
    Unguarded,
    NeverGivesUp,
    /// A failover of unknown outcome is forgotten, and its node granted again.
    ForgetsUnknown,
    /// A node that leads under an older epoch says that it stopped, and goes on.
    StopsOnlyThisEpoch,
}

/// What happens to a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Answered,
    Lost,
    AnswerLost,
    /// It does its work after it was given up.
    Late,
}

/// What is planned for one call, instead of being drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Script {
    /// The number of the call, from 0.
    pub call: u64,
    pub fate: Fate,
    /// Whether the leader crashes just after sending it.
    pub crash: bool,
}

/// The mix of faults of one seed, each in thousandths.
#[derive(Clone, Copy, Default, Debug)]
pub struct Faults {
    pub loss: u64,
    pub repeat: u64,
    pub longest_delay_ms: u64,
    pub call: u64,
    pub leader: u64,
    pub process: u64,
    pub cancel: u64,
    pub stuck: u64,
    pub cut: u64,
}

impl World {
    /// Processes and leaders come and go.
    pub fn break_things(&mut self) {
        let leads = self.leaders.iter().any(|leader| leader.term == self.store.term);
        if !leads && self.now >= self.next_leader_at {
            self.store.term = self.store.term.next();
            let settled_at = self.now + TTL + GRANT_WAIT;
            self.leaders.push(Leader::new(self.store.term, self.now, settled_at));
        }
        if self.happens(self.faults.leader) {
            let forgotten = self.draw(2) == 0;
            if forgotten && let Some(leader) = self.leaders.pop() {
                self.crashed_in.insert(leader.state().map_or("none", name));
                self.next_leader_at = self.now + Duration::from_millis(self.draw(500));
            } else {
                // Deposed without knowing it: the fence stops what it stores, not what it grants.
                let stops_at = self.now + Duration::from_millis(self.draw(1_000));
                self.leaders.iter_mut().for_each(|leader| leader.stops_at = leader.stops_at.min(stops_at));
                self.store.term = self.store.term.next();
                let settled_at = self.now + TTL + GRANT_WAIT;
                self.leaders.push(Leader::new(self.store.term, self.now, settled_at));
            }
        }
        if self.happens(self.faults.process) {
            let at = self.draw(self.processes.len() as u64) as usize;
            let node = self.processes[at].node;
            match self.draw(3) {
                0 => self.kill(at),
                1 => self.start(node),
                _ => {
                    self.kill(at);
                    self.start(node);
                }
            }
        }
        if self.happens(self.faults.stuck) {
            let at = self.draw(self.processes.len() as u64) as usize;
            self.processes[at].is_stuck = true;
        }
        if self.happens(self.faults.cut) {
            let node = NODES[self.draw(2) as usize];
            let until = (self.now + Duration::from_millis(self.draw(3_000))).min(self.heal_at);
            let ways = [&[Way::In, Way::Out][..], &[Way::In], &[Way::Out]][self.draw(3) as usize];
            self.cut.extend(ways.iter().map(|way| ((node, *way), until)));
        }
        if self.now >= self.heal_at {
            self.heal();
        }
    }

    /// A superseded process is told so and ends; a node without a process gets one.
    fn heal(&mut self) {
        for node in NODES {
            let of_node = |process: &&mut Process| process.node == node;
            let newest = self.processes.iter_mut().filter(of_node).map(|process| process.id).max();
            let mut is_served = false;
            for process in self.processes.iter_mut().filter(of_node) {
                process.alive &= Some(process.id) == newest || process.has_lease(self.now);
                is_served |= process.alive;
            }
            if !is_served {
                self.start(node);
            }
        }
    }

    fn kill(&mut self, at: usize) {
        self.processes[at].alive = false;
        if self.draw(2) == 0 {
            self.certified.insert(self.processes[at].id);
        }
    }

    fn start(&mut self, node: NodeId) {
        self.born += 1;
        self.processes.push(Process::new(node, Incarnation { epoch: self.born, nonce: node.0 }, None));
    }
}
