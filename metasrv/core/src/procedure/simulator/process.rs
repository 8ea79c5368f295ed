//! One process of a datanode in the simulation, with the one region. It does what design 02 says of instructions, except
//! that it does not look whether it is the process that is meant: the leader must not rely on it.

use super::{HEARTBEAT, Message, Mutation, USABLE};
use crate::id::{Epoch, Incarnation, NodeId, Term};
use crate::procedure::instruction::{Answer, Held, HeldAs, Instruction, Reply};
use crate::time::BootTime;

#[derive(Clone, Debug)]
pub struct Process {
    pub node: NodeId,
    pub id: Incarnation,
    pub alive: bool,
    pub held: Option<Held>,
    /// It answers no instruction of a kind that takes work, though it is heard.
    pub is_stuck: bool,
    until: BootTime,
    /// Grants for this epoch and older ones are refused.
    refused: Epoch,
    seen_epoch: Epoch,
    seen_term: Term,
    next_heartbeat: BootTime,
}

impl Process {
    pub fn new(node: NodeId, id: Incarnation, held: Option<Held>) -> Process {
        let seen_epoch = held.map_or(Epoch(0), |held| held.epoch);
        Process {
            node,
            id,
            alive: true,
            held,
            is_stuck: false,
            until: BootTime::ZERO,
            refused: Epoch(0),
            seen_epoch,
            seen_term: Term(0),
            next_heartbeat: BootTime::ZERO,
        }
    }

    /// Under which epoch it writes at this instant.
    pub fn writes(&self, now: BootTime) -> Option<Epoch> {
        let held = self.held.filter(|held| held.role == HeldAs::Leader)?;
        (self.alive && now < self.until).then_some(held.epoch)
    }

    pub fn has_lease(&self, now: BootTime) -> bool {
        now < self.until
    }

    pub fn heartbeat(&mut self, now: BootTime) -> Option<Message> {
        if !self.alive || now < self.next_heartbeat {
            return None;
        }
        self.next_heartbeat = now + HEARTBEAT;
        Some(Message::Heartbeat { node: self.node, process: self.id, sent_at: now, held: self.held })
    }

    pub fn receive(&mut self, message: Message, mutation: Option<Mutation>) -> Option<Message> {
        let term = match message {
            Message::Grant { term, .. } | Message::Open { term, .. } | Message::Tell { term, .. } => term,
            Message::Heartbeat { .. } | Message::Reply(_) => return None,
        };
        if term < self.seen_term {
            return None;
        }
        self.seen_term = term;
        let before = self.held;
        let reply = match message {
            Message::Grant { epoch, sent_at, .. } => {
                if self.held == Some(Held { role: HeldAs::Leader, epoch }) && epoch > self.refused {
                    self.until = self.until.max(sent_at + USABLE);
                }
                None
            }
            Message::Open { epoch, .. } => {
                self.lead(epoch);
                None
            }
            Message::Tell { tell, .. } => self.obey(tell.instruction, mutation),
            Message::Heartbeat { .. } | Message::Reply(_) => None,
        };
        if self.held != before {
            self.next_heartbeat = BootTime::ZERO;
        }
        reply
    }

    fn obey(&mut self, instruction: Instruction, mutation: Option<Mutation>) -> Option<Message> {
        if self.is_stuck && !matches!(instruction, Instruction::Close { .. }) {
            return None;
        }
        let held_epoch = self.held.map(|held| held.epoch);
        let (epoch, answer) = match instruction {
            Instruction::OpenCandidate { epoch, .. } => {
                if self.held.is_none() && epoch >= self.seen_epoch {
                    self.hold(HeldAs::Candidate, epoch);
                }
                return None;
            }
            Instruction::Flush { epoch, .. } => (epoch, Answer::Flushed),
            Instruction::Downgrade { epoch, .. } => {
                if held_epoch.is_some_and(|held| held > epoch) {
                    return None;
                }
                self.refused = self.refused.max(epoch);
                // Also where it leads under an older epoch still: its lease may run on.
                let leads = self.held.filter(|held| held.role == HeldAs::Leader).map(|held| held.epoch);
                let is_meant = leads == Some(epoch) || mutation != Some(Mutation::StopsOnlyThisEpoch);
                if leads.is_some() && is_meant {
                    self.hold(HeldAs::Downgraded, epoch);
                }
                (epoch, Answer::Stopped { position: Some(7) })
            }
            Instruction::CatchUp { epoch, .. } => {
                let is_candidate = self.held == Some(Held { role: HeldAs::Candidate, epoch });
                (epoch, if is_candidate { Answer::CaughtUp } else { Answer::CannotCatchUp })
            }
            Instruction::Upgrade { epoch, .. } => {
                if self.held.is_some_and(|held| held.role == HeldAs::Candidate) {
                    self.lead(epoch);
                }
                return None;
            }
            Instruction::Close { epoch, .. } => {
                if held_epoch.is_some_and(|held| held <= epoch) {
                    self.held = None;
                    self.until = BootTime::ZERO;
                }
                return None;
            }
        };
        Some(Message::Reply(Reply { node: self.node, process: self.id, epoch, answer }))
    }

    /// Leads under a newer epoch than any before; without a lease it does not write.
    fn lead(&mut self, epoch: Epoch) {
        if epoch > self.refused
            && epoch >= self.seen_epoch
            && self.held != Some(Held { role: HeldAs::Leader, epoch })
        {
            self.hold(HeldAs::Leader, epoch);
        }
    }

    fn hold(&mut self, role: HeldAs, epoch: Epoch) {
        self.held = Some(Held { role, epoch });
        self.seen_epoch = self.seen_epoch.max(epoch);
        self.until = BootTime::ZERO;
    }
}
