//! A leader in the simulation: the shell around the step functions. One call to the store at a time; while its outcome is
//! open nothing is granted; after any outcome but "done" the store is read again.

use std::collections::BTreeMap;

use super::store::{Change, Store, Transaction};
use super::{GRANT_WAIT, LEASE, Message, Mutation, NODES, World};
use crate::id::{Epoch, Incarnation, NodeId, Term};
use crate::procedure::instruction::{Instruction, Led, NodeView, Presence, Reply, Report, Tell};
use crate::procedure::migrate::{Migrating, Migration, Next, Observed, State};
use crate::procedure::{Claim, Procedure, ProcedureId};
use crate::time::BootTime;

#[derive(Clone, Debug)]
pub struct Leader {
    pub term: Term,
    /// A deposed leader goes on until then, without knowing.
    pub stops_at: BootTime,
    since: BootTime,
    settled_at: BootTime,
    /// The store as it was last read.
    known: Option<Store>,
    migrating: Option<Migrating>,
    /// The revision of the record that it goes by.
    record: Option<u64>,
    replies: Vec<Reply>,
    reports: BTreeMap<NodeId, Report>,
    heard: BTreeMap<NodeId, BootTime>,
    successors: BTreeMap<NodeId, Incarnation>,
    last_grant: BTreeMap<NodeId, BootTime>,
    /// The call under way: its name, and when it counts as unknown.
    pending: Option<(u64, BootTime)>,
    read_again_at: BootTime,
    /// The route's revision that a failover of this leader compared. While it is the route's, that failover may still land:
    /// nothing is granted, and only another change of the route settles it.
    frozen: Option<u64>,
}

impl Leader {
    pub fn new(term: Term, since: BootTime, settled_at: BootTime) -> Leader {
        Leader {
            term,
            stops_at: BootTime::MAX,
            since,
            settled_at,
            known: None,
            migrating: None,
            record: None,
            replies: Vec::new(),
            reports: BTreeMap::new(),
            heard: BTreeMap::new(),
            successors: BTreeMap::new(),
            last_grant: BTreeMap::new(),
            pending: None,
            read_again_at: BootTime::ZERO,
            frozen: None,
        }
    }

    pub fn answered(&mut self, call: u64) {
        if self.pending.is_some_and(|(pending, _)| pending == call) {
            self.pending = None;
            self.known = None;
        }
    }

    /// One turn. `false`: it found that it leads no more.
    pub fn turn(&mut self, world: &mut World) -> Result<bool, String> {
        let now = world.now;
        if self.pending.is_some_and(|(_, unknown_at)| now >= unknown_at) {
            self.pending = None;
            self.known = None;
        }
        if self.pending.is_some() {
            return Ok(true);
        }
        if now >= self.read_again_at {
            // A creation that was given up may land when nothing else is to be stored.
            self.known = None;
        }
        if self.known.is_none() {
            if world.fails() {
                return Ok(true);
            }
            if world.store.term > self.term {
                return Ok(false);
            }
            self.read(world);
        }
        let Some(known) = self.known.clone() else { return Ok(true) };
        if let Some(change) = self.admission(world, &known) {
            self.send(world, &known, change);
            return Ok(true);
        }
        if let Some(change) = self.failover(world, &known) {
            self.frozen = (world.mutation != Some(Mutation::ForgetsUnknown)).then_some(known.route.revision);
            self.send(world, &known, change);
            return Ok(true);
        }
        let Some(mut migrating) = self.migrating.take() else {
            if let Some(change) = self.begin(world, &known) {
                self.send(world, &known, change);
            }
            return Ok(true);
        };
        if world.cancels()
            && let Ok(next) = migrating.stored().cancel("test")
        {
            self.send(world, &known, Change::Put(next));
        } else {
            self.act(world, &known, &mut migrating)?;
        }
        self.migrating = Some(migrating);
        Ok(true)
    }

    fn read(&mut self, world: &mut World) {
        let now = world.now;
        let revision = Some(world.store.record.revision);
        let is_known = self.record == revision;
        self.record = revision;
        self.migrating = match (world.store.record.value.clone(), self.migrating.take()) {
            (None, _) => None,
            (Some(_), Some(at_work)) if is_known => Some(at_work),
            (Some(stored), Some(mut at_work)) if stored.id == at_work.stored().id => {
                at_work.persisted(stored, now);
                Some(at_work)
            }
            (Some(stored), _) => Some(Migrating::on_leader_change(stored, world.patience, now)),
        };
        self.known = Some(world.store.clone());
        self.read_again_at = now + LEASE;
    }

    fn act(&mut self, world: &mut World, known: &Store, migrating: &mut Migrating) -> Result<(), String> {
        let stored = migrating.stored().clone();
        match migrating.step(&self.observed(world, known, &stored), world.now) {
            Next::Stay { tell, look_at } => {
                if look_at < world.now {
                    return Err(format!("{stored:?} is to be looked at in the past"));
                }
                if let Some(tell) = tell {
                    migrating.told(Some(0), world.now);
                    world.tell(self.term, tell)?;
                }
            }
            Next::GoOn(then) => migrating.goes_on(then, world.now),
            Next::Persist(next) => self.send(world, known, Change::Put(next)),
            Next::CommitRoute { route, then } => {
                let undoes = route.node == stored.from;
                if undoes && world.mutation == Some(Mutation::UndoWithoutEpoch) {
                    self.send(world, known, Change::Put(then));
                    return Ok(());
                }
                if !undoes && world.mutation == Some(Mutation::UpgradeBeforeCommit) {
                    let instruction = Instruction::Upgrade { region: stored.region, epoch: route.epoch };
                    let process = stored.candidate.unwrap_or_default();
                    world.tell(self.term, Tell { node: stored.to, process, instruction })?;
                }
                self.send(world, known, Change::Commit(route, Some(then)));
            }
            Next::Finish(end) => self.send(world, known, Change::Remove(end)),
        }
        Ok(())
    }

    fn observed(&self, world: &World, known: &Store, stored: &Migration) -> Observed {
        let mut replies = self.replies.clone();
        for reply in replies.iter_mut().filter(|reply| reply.node == stored.from) {
            match world.mutation {
                Some(Mutation::AnyProcessConfirms) => reply.process = stored.leader,
                Some(Mutation::AnyEpochConfirms) => reply.epoch = stored.epoch,
                _ => {}
            }
        }
        let view = |node: NodeId| NodeView {
            process: known.recorded.get(&node).copied(),
            presence: if self.is_lost(world, known, node) { Presence::Lost } else { Presence::Reachable },
            report: self.reports.get(&node).copied(),
            stream: Some(0),
        };
        let is_free = world.mutation == Some(Mutation::WaitsForNothing);
        let free_at = if is_free { BootTime::ZERO } else { self.free_at(world, known, stored.from) };
        Observed {
            route: Some(known.route.value),
            from: view(stored.from),
            to: view(stored.to),
            replies,
            free_at,
            // Now and then another region of these nodes has no writer.
            has_room_for_gap: !(world.now.since(BootTime::ZERO).as_millis() / 100).is_multiple_of(4),
        }
    }

    fn is_lost(&self, world: &World, known: &Store, node: NodeId) -> bool {
        let heard = self.heard.get(&node).copied().unwrap_or_default().max(self.since);
        let is_certified = known.recorded.get(&node).is_some_and(|process| world.certified.contains(process));
        world.now.since(heard) > LEASE || (is_certified && !self.successors.contains_key(&node))
    }

    /// Rule 4 for whatever this node was granted.
    fn free_at(&self, world: &World, known: &Store, node: NodeId) -> BootTime {
        if known.recorded.get(&node).is_some_and(|process| world.certified.contains(process)) {
            return BootTime::ZERO;
        }
        let own = self.last_grant.get(&node).map_or(BootTime::ZERO, |granted| *granted + GRANT_WAIT);
        self.settled_at.max(own)
    }

    /// A process that waits is recorded when rule 4 is met for its predecessor, under a raised epoch.
    fn admission(&self, world: &World, known: &Store) -> Option<Change> {
        let (node, process) = self.successors.iter().find(|(node, process)| {
            known.recorded.get(node) != Some(process) && world.now >= self.free_at(world, known, **node)
        })?;
        let route = known.route.value;
        let raised = (route.node == *node).then(|| Led { epoch: route.epoch.next(), ..route });
        Some(Change::Record(*node, *process, raised))
    }

    /// A region of a lost node goes to the other one, unless a migration may still change the route itself.
    fn failover(&self, world: &World, known: &Store) -> Option<Change> {
        let route = known.route.value;
        let claim = self.migrating.as_ref().map(Procedure::claim);
        let is_claimed = matches!(claim, Some(Claim::Route(_)));
        let other = NODES.into_iter().find(|node| *node != route.node)?;
        let moves = self.is_lost(world, known, route.node)
            && !self.is_lost(world, known, other)
            && world.now >= self.free_at(world, known, route.node);
        let epoch = route.epoch.next();
        if moves && !is_claimed {
            Some(Change::Commit(Led { node: other, epoch }, None))
        } else {
            self.is_frozen(known).then_some(Change::Commit(Led { epoch, ..route }, None))
        }
    }

    fn is_frozen(&self, known: &Store) -> bool {
        self.frozen == Some(known.route.revision)
    }

    fn begin(&self, world: &World, known: &Store) -> Option<Change> {
        let route = known.route.value;
        let to = NODES.into_iter().find(|node| *node != route.node)?;
        let leader = *known.recorded.get(&route.node)?;
        let is_lost = NODES.into_iter().any(|node| self.is_lost(world, known, node));
        (world.wants_more(known.created) && !is_lost).then(|| {
            Change::Create(Migration {
                id: ProcedureId(known.created + 1),
                region: super::REGION,
                from: route.node,
                leader,
                to,
                candidate: None,
                epoch: route.epoch,
                state: State::Preparing,
                reason: String::new(),
            })
        })
    }

    fn send(&mut self, world: &mut World, known: &Store, change: Change) {
        let transaction = Transaction {
            term: self.term,
            route_revision: known.route.revision,
            record_revision: known.record.revision,
            change,
        };
        self.pending = Some(world.call(transaction));
    }

    pub fn hears(&mut self, world: &mut World, message: &Message) -> Result<(), String> {
        match message {
            Message::Reply(reply) => {
                if !self.replies.contains(reply) {
                    self.replies.push(*reply);
                }
            }
            Message::Heartbeat { node, process, sent_at, held } => {
                self.heard.insert(*node, world.now);
                let Some(known) = self.known.clone() else { return Ok(()) };
                let recorded = known.recorded.get(node).copied().unwrap_or_default();
                if *process > recorded {
                    let newest = self.successors.entry(*node).or_insert(*process);
                    *newest = (*newest).max(*process);
                    // The newer one takes its predecessor's place; while it waits, nobody is granted anything.
                    return Ok(());
                }
                let is_superseded = self.successors.get(node).is_some_and(|newer| *newer > *process);
                if *process < recorded || is_superseded {
                    return Ok(());
                }
                self.reports.insert(*node, Report { at: world.now, held: *held });
                if self.pending.is_none() && !self.is_frozen(&known) {
                    self.serve(world, &known, *node, *sent_at, held.map(|held| held.epoch))?;
                }
            }
            Message::Grant { .. } | Message::Open { .. } | Message::Tell { .. } => {}
        }
        Ok(())
    }

    /// Answers a heartbeat: renews, opens, or closes.
    fn serve(
        &mut self,
        world: &mut World,
        known: &Store,
        node: NodeId,
        sent_at: BootTime,
        held: Option<Epoch>,
    ) -> Result<(), String> {
        let term = self.term;
        let route = known.route.value;
        let process = known.recorded.get(&node).copied().unwrap_or_default();
        let stored = self.migrating.as_ref().map(Procedure::stored);
        if route.node != node {
            if let Some(epoch) = held
                && !stored.is_some_and(|stored| stored.keeps_open(node))
            {
                let instruction = Instruction::Close { region: super::REGION, epoch };
                world.tell(term, Tell { node, process, instruction })?;
            }
            return Ok(());
        }
        let is_withheld = stored.and_then(Migration::withholds) == Some(route);
        if is_withheld && world.mutation != Some(Mutation::GrantsInGap) {
            return Ok(());
        }
        if !is_withheld {
            self.last_grant.insert(node, world.now);
        }
        let message = if held == Some(route.epoch) {
            Message::Grant { term, epoch: route.epoch, sent_at }
        } else {
            Message::Open { term, epoch: route.epoch }
        };
        world.answer(node, process, message)
    }

    /// Which states this leader saw stored, for the coverage.
    pub fn state(&self) -> Option<&State> {
        self.migrating.as_ref().map(|migrating| &migrating.stored().state)
    }
}
