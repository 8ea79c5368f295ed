//! A small deterministic world for the properties: two nodes, one region, a store, leaders that come and go.
//!
//! Every message may be lost, repeated or late; every call to the store may do nothing, or do its work without an answer,
//! or do it long after it was given up; leaders crash, or are deposed and go on for a while; processes die, restart (the old
//! one may go on) or hang. All of it is drawn from the seed. At `heal_at` faults stop. Invariants are checked at every instant.

mod faults;
mod leader;
mod process;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::instruction::{Held, HeldAs, Instruction, Led, Reply, Tell};
use super::migrate::{End, Patience, State};
use crate::id::{Epoch, Incarnation, NodeId, RegionId, Term};
use crate::time::BootTime;
use leader::Leader;
use process::Process;
use store::{Guard, Store, Transaction};

pub use faults::{Fate, Faults, Mutation, Script};

pub const REGION: RegionId = RegionId(1);
pub const NODES: [NodeId; 2] = [NodeId(1), NodeId(2)];
const TICK: Duration = Duration::from_millis(10);
const HEARTBEAT: Duration = Duration::from_millis(100);
const LEASE: Duration = Duration::from_millis(1_000);
const USABLE: Duration = Duration::from_millis(990);
const GRANT_WAIT: Duration = Duration::from_millis(1_010);
const TTL: Duration = Duration::from_millis(1_000);
const CALL: Duration = Duration::from_millis(150);
/// From the end of the faults to the end of the last procedure, and to a writer: taking over, three migrations with all
/// their patience, a failover.
const BOUND: Duration = Duration::from_secs(25);
const PATIENCE: Patience = Patience {
    overall: Duration::from_millis(2_000),
    flush: Duration::from_millis(300),
    gap: Duration::from_millis(500),
    cleanup: Duration::from_millis(800),
    repeat: Duration::from_millis(150),
    repeat_in_gap: Duration::from_millis(50),
};

/// Who gets a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum To {
    /// All that lead, or believe so.
    Leaders,
    /// The process whose request is answered.
    Process(Incarnation),
    /// Any process of the node: an instruction may reach one that is not meant.
    Node(NodeId),
}

/// One direction of a node's network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Way {
    In,
    Out,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message {
    Heartbeat { node: NodeId, process: Incarnation, sent_at: BootTime, held: Option<Held> },
    Grant { term: Term, epoch: Epoch, sent_at: BootTime },
    Open { term: Term, epoch: Epoch },
    Tell { term: Term, tell: Tell },
    Reply(Reply),
}

#[derive(Debug)]
pub struct World {
    pub now: BootTime,
    pub store: Store,
    pub mutation: Option<Mutation>,
    pub patience: Patience,
    /// Migrations to be begun at least, one after another; more are begun while there are faults.
    pub wanted: u64,
    /// Processes that are proved to have ended.
    pub certified: BTreeSet<Incarnation>,
    /// Names of states that a leader was in when it ended.
    pub crashed_in: BTreeSet<&'static str>,
    /// Until when nothing passes from or to a node.
    cut: BTreeMap<(NodeId, Way), BootTime>,
    faults: Faults,
    script: Option<Script>,
    heal_at: BootTime,
    dice: u64,
    processes: Vec<Process>,
    leaders: Vec<Leader>,
    next_leader_at: BootTime,
    network: Vec<(BootTime, To, Message)>,
    calls: Vec<(BootTime, Transaction)>,
    answers: Vec<(BootTime, u64)>,
    called: u64,
    born: u64,
    crash: bool,
}

impl World {
    pub fn new(seed: u64, faults: Faults, script: Option<Script>, mutation: Option<Mutation>) -> World {
        let processes = NODES.map(|node| Incarnation { epoch: 1, nonce: node.0 });
        let route = Led { node: NODES[0], epoch: Epoch(1) };
        let held = [Some(Held { role: HeldAs::Leader, epoch: route.epoch }), None];
        let forever = Duration::from_secs(3_600);
        let patience = match mutation {
            Some(Mutation::NeverGivesUp) => {
                Patience { overall: forever, gap: forever, cleanup: forever, ..PATIENCE }
            }
            // Longer than a lease: then rule 4 decides, where the source does not answer.
            _ if seed.is_multiple_of(3) => Patience { gap: LEASE * 3 / 2, ..PATIENCE },
            _ => PATIENCE,
        };
        World {
            now: BootTime::from_millis(10_000),
            store: Store::new(route, NODES.into_iter().zip(processes).collect::<BTreeMap<_, _>>()),
            mutation,
            patience,
            wanted: 1,
            certified: BTreeSet::new(),
            crashed_in: BTreeSet::new(),
            cut: BTreeMap::new(),
            faults,
            script,
            heal_at: BootTime::from_millis(14_000),
            dice: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            processes: (0..2).map(|at| Process::new(NODES[at], processes[at], held[at])).collect(),
            leaders: Vec::new(),
            next_leader_at: BootTime::ZERO,
            network: Vec::new(),
            calls: Vec::new(),
            answers: Vec::new(),
            called: 0,
            born: 1,
            crash: false,
        }
    }

    /// Runs to the end of all that is wanted. An error is a broken invariant.
    pub fn run(&mut self) -> Result<Vec<End>, String> {
        let end = self.heal_at + BOUND;
        let mut written_since = None;
        while self.now < end {
            self.now = self.now + TICK;
            self.tick()?;
            let writers = self.check()?;
            written_since = if writers == 1 { written_since.or(Some(self.now)) } else { None };
            let is_over = self.store.record.value.is_none() && !self.wants_more(self.store.created);
            let is_written = written_since.is_some_and(|since| self.now.since(since) > LEASE * 2);
            if is_over && is_written && self.now > self.heal_at {
                return Ok(self.store.ends.iter().map(|(_, end)| end.clone()).collect());
            }
        }
        Err(format!(
            "no end, or no writer: {:?}, route {:?}",
            self.store.record.value, self.store.route.value
        ))
    }

    fn check(&self) -> Result<usize, String> {
        let writes = |process: &Process| process.writes(self.now).map(|epoch| (epoch, process.node));
        let writers: Vec<_> = self.processes.iter().filter_map(writes).collect();
        if writers.len() > 1 {
            return Err(format!("two writers: {writers:?}"));
        }
        match writers.iter().find(|writer| !self.store.committed.contains(writer)) {
            Some(writer) => Err(format!("writes under an epoch that is not committed: {writer:?}")),
            None => Ok(writers.len()),
        }
    }

    fn tick(&mut self) -> Result<(), String> {
        self.break_things();
        self.deliver_calls()?;
        let now = self.now;
        let due = |at: &BootTime| *at <= now;
        let (arrived, later) =
            std::mem::take(&mut self.network).into_iter().partition(|packet| due(&packet.0));
        self.network = later;
        let mut leaders = std::mem::take(&mut self.leaders);
        for (_, to, message) in arrived {
            if to == To::Leaders {
                leaders.iter_mut().try_for_each(|leader| leader.hears(self, &message))?;
            } else {
                self.deliver(to, message);
            }
        }
        for at in 0..self.processes.len() {
            if let Some(message) = self.processes[at].heartbeat(now) {
                self.post(To::Leaders, message);
            }
        }
        for (_, call) in self.answers.extract_if(.., |(at, _)| *at <= now) {
            for leader in &mut leaders {
                leader.answered(call);
            }
        }
        for mut leader in leaders {
            let goes_on = leader.turn(self)?;
            let crashes = std::mem::take(&mut self.crash);
            if goes_on && !crashes && now < leader.stops_at {
                self.leaders.push(leader);
            } else {
                self.crashed_in.insert(leader.state().map_or("none", name));
                // Time for what it sent to land: a new leader's fence would stop it.
                self.next_leader_at = now + TICK * 5;
            }
        }
        Ok(())
    }

    fn deliver(&mut self, to: To, message: Message) {
        let gets = |process: &Process| match to {
            To::Leaders => false,
            To::Process(id) => process.id == id,
            To::Node(node) => process.node == node,
        };
        let alive: Vec<_> = (0..self.processes.len())
            .filter(|at| self.processes[*at].alive && gets(&self.processes[*at]))
            .collect();
        if alive.is_empty() {
            return;
        }
        let at = alive[self.draw(alive.len() as u64) as usize];
        if let Some(reply) = self.processes[at].receive(message, self.mutation) {
            self.post(To::Leaders, reply);
        }
    }

    fn deliver_calls(&mut self) -> Result<(), String> {
        let guard = if self.mutation == Some(Mutation::Unguarded) { Guard::Off } else { Guard::On };
        let now = self.now;
        let due: Vec<_> = self.calls.extract_if(.., |(at, _)| *at <= now).collect();
        due.into_iter().try_for_each(|(_, transaction)| self.store.apply(transaction, guard))
    }

    /// Sends a transaction. Its name, and when its outcome counts as unknown.
    pub fn call(&mut self, transaction: Transaction) -> (u64, BootTime) {
        let name = self.called;
        self.called += 1;
        let drawn = if self.happens(self.faults.call) {
            [Fate::Lost, Fate::AnswerLost, Fate::Late][self.draw(3) as usize]
        } else {
            Fate::Answered
        };
        let script = self.script.filter(|script| script.call == name);
        self.crash |= script.is_some_and(|script| script.crash);
        let soon = self.now + TICK;
        match script.map_or(drawn, |script| script.fate) {
            Fate::Answered => {
                self.calls.push((soon, transaction));
                self.answers.push((soon, name));
            }
            Fate::Lost => {}
            Fate::AnswerLost => self.calls.push((soon, transaction)),
            Fate::Late => {
                let late = Duration::from_millis(self.draw(600));
                self.calls.push((self.now + CALL + late, transaction));
            }
        }
        (name, self.now + CALL)
    }

    pub fn tell(&mut self, term: Term, tell: Tell) -> Result<(), String> {
        if let Instruction::Upgrade { epoch, .. } = tell.instruction
            && !self.store.committed.contains(&(epoch, tell.node))
        {
            return Err(format!("told to lead under an epoch that is not committed: {tell:?}"));
        }
        self.post(To::Node(tell.node), Message::Tell { term, tell });
        Ok(())
    }

    pub fn answer(&mut self, node: NodeId, process: Incarnation, message: Message) -> Result<(), String> {
        if let Message::Open { epoch, .. } | Message::Grant { epoch, .. } = message
            && !self.store.committed.contains(&(epoch, node))
        {
            return Err(format!("{message:?} to {node} under an epoch that is not committed"));
        }
        self.post(To::Process(process), message);
        Ok(())
    }

    fn post(&mut self, to: To, message: Message) {
        let way = match (to, &message) {
            (To::Leaders, Message::Heartbeat { node, .. }) => (*node, Way::Out),
            (To::Leaders, Message::Reply(reply)) => (reply.node, Way::Out),
            (To::Node(node), _) => (node, Way::In),
            (To::Process(process), _) => (NodeId(process.nonce), Way::In),
            (To::Leaders, _) => return,
        };
        if self.cut.get(&way).is_some_and(|until| self.now < *until) {
            return;
        }
        let copies = 1 + u64::from(self.happens(self.faults.repeat));
        for _ in 0..copies {
            if !self.happens(self.faults.loss) {
                let most = if self.now < self.heal_at { self.faults.longest_delay_ms } else { 0 };
                let delay = Duration::from_millis(self.draw(most + 1));
                self.network.push((self.now + TICK + delay, to, message));
            }
        }
    }

    /// Calls to the store so far.
    pub fn called(&self) -> u64 {
        self.called
    }

    pub fn wants_more(&self, created: u64) -> bool {
        created < self.wanted || (self.now < self.heal_at && self.script.is_none())
    }

    pub fn fails(&mut self) -> bool {
        self.happens(self.faults.call)
    }

    pub fn cancels(&mut self) -> bool {
        self.happens(self.faults.cancel)
    }

    fn happens(&mut self, thousandths: u64) -> bool {
        self.now < self.heal_at && thousandths > 0 && self.draw(1_000) < thousandths
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 11) % below
    }
}

/// The name of a state, for the coverage.
pub fn name(state: &State) -> &'static str {
    match state {
        State::Preparing => "Preparing",
        State::Flushing => "Flushing",
        State::Downgrading => "Downgrading",
        State::CatchingUp { .. } => "CatchingUp",
        State::Upgrading => "Upgrading",
        State::Closing => "Closing",
        State::Undoing { .. } => "Undoing",
    }
}
