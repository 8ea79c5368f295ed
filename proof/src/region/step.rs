//! Everything that can happen, each a step. Nothing has to happen, but that steps are taken one after another.

use super::Region;
use super::leader::Leader;
use super::process::{Answer, Life, Process, Says};
use super::world::{Broken, Change, Fate, Flight, World};
use crate::slip::Slip;

/// A step. Numbers are those of replicas and processes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)] // `take` says what they do.
pub enum Step {
    Tick,
    Wins(u8),
    IsConfirmed(u8),
    KeyGoes,
    StopsGranting(u8),
    Resigns(u8),
    IsDropped(u8),
    Settles(u8),
    Beats(u8),
    IsHeard { process: u8, by: u8 },
    Receives(u8),
    Moves(u8),
    Lands { of: u8, what: What },
    Learns { replica: u8, what: What },
    GivesUp(u8),
    Starts(u8),
    Dies(u8),
    IsCertified { process: u8, to: u8 },
    IsToldToStop { by: u8 },
    Stops(u8),
    Confirms { process: u8, to: u8 },
    Undoes(u8),
    OpensEarly(u8),
}

/// Which of a replica's two transactions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum What {
    /// The one that gives the region away.
    Moving,
    /// The one that records a process.
    Recording,
}

/// The steps that may be taken. Some of them change nothing.
pub fn possible(model: &Region, world: &World, steps: &mut Vec<Step>) {
    let happens = model.bounds.happens;
    steps.extend([Step::Tick, Step::KeyGoes]);
    for replica in 0..2 {
        steps.push(Step::Wins(replica));
        for what in [What::Moving, What::Recording] {
            steps.extend([Step::Lands { of: replica, what }, Step::Learns { replica, what }]);
        }
        if leader(world, replica).is_none() {
            continue;
        }
        steps.extend([Step::IsConfirmed(replica), Step::Settles(replica), Step::IsDropped(replica)]);
        if model.bounds.processes.contains(&1) {
            steps.push(Step::Moves(replica));
        }
        if happens.resigns {
            steps.extend([Step::StopsGranting(replica), Step::Resigns(replica)]);
        }
        if happens.stops {
            steps.extend([Step::IsToldToStop { by: replica }, Step::Undoes(replica)]);
        }
        match model.slip {
            Some(Slip::UnknownIsFailed) => steps.push(Step::GivesUp(replica)),
            Some(Slip::ToldBeforeCommit) => steps.push(Step::OpensEarly(replica)),
            _ => {}
        }
    }
    for (process, of) in (0..).zip(world.processes.iter().take(model.bounds.processes.len())) {
        steps.push(Step::Receives(process));
        if happens.late_requests {
            steps.push(Step::Beats(process));
        }
        if of.life == Life::Unborn {
            steps.push(Step::Starts(process));
        }
        if happens.deaths {
            steps.push(Step::Dies(process));
        }
        if happens.stops {
            steps.push(Step::Stops(process));
        }
        for replica in 0..2 {
            if leader(world, replica).is_some() {
                steps.push(Step::IsHeard { process, by: replica });
                if happens.deaths && of.life == Life::Dead {
                    steps.push(Step::IsCertified { process, to: replica });
                }
                if happens.stops && of.stopped > 0 {
                    steps.push(Step::Confirms { process, to: replica });
                }
            }
        }
    }
}

/// Takes a step. `None`: it cannot be taken.
pub fn take(model: &Region, world: &mut World, step: Step) -> Option<()> {
    let bounds = model.bounds;
    match step {
        // True time passes.
        Step::Tick => {
            world.processes.iter_mut().for_each(Process::tick);
            for replica in &mut world.replicas {
                let rate = replica.rate;
                replica.leader.iter_mut().for_each(|leader| leader.tick(rate));
                if model.slip != Some(Slip::DeadlineOnce) {
                    // Whoever cannot act any more may as well have noticed.
                    replica.leader.take_if(|leader| leader.has_ended());
                }
            }
        }
        // A replica finds no key, puts its own, and begins a term.
        Step::Wins(replica) => {
            let of = world.replicas.get(usize::from(replica))?;
            if world.store.key.is_some() || of.leader.is_some() || world.store.term >= bounds.terms {
                return None;
            }
            let [one, other] = &world.replicas;
            if world.store.term == 0 && replica > 0 && one.rate == other.rate {
                // Seen from the other side, this is the first replica.
                return None;
            }
            let of = world.replicas.get_mut(usize::from(replica))?;
            of.leader = Some(Leader::begin(&world.store));
            // What was answered meanwhile was answered to another leader.
            (of.moving, of.recording) = (None, None);
            world.store.term = world.store.term.saturating_add(1);
            world.store.key = Some(replica);
        }
        // A keep-alive is confirmed and the key read back.
        Step::IsConfirmed(replica) => {
            if world.store.key != Some(replica) {
                return None;
            }
            leader_mut(world, replica)?.renew();
        }
        // The key is revoked, or expires; what its owner sent cannot be done any more.
        Step::KeyGoes => drop_key(world, model.slip)?,
        // The first half of a resignation.
        Step::StopsGranting(replica) => leader_mut(world, replica)?.closing = true,
        // The second: the key is deleted, and the record says that nothing was granted afterwards.
        Step::Resigns(replica) => {
            let early = model.slip == Some(Slip::ResignsWhileGranting);
            if world.store.key != Some(replica) || !(leader(world, replica)?.closing || early) {
                return None;
            }
            world.store.resign();
            drop_key(world, model.slip)?;
        }
        // A replica has learned that it leads no more.
        Step::IsDropped(replica) => {
            if leader(world, replica)?.leads() && world.store.key == Some(replica) {
                return None;
            }
            world.replicas.get_mut(usize::from(replica))?.leader = None;
        }
        // It is recorded that what earlier terms granted is over.
        Step::Settles(replica) => {
            let leader = leader(world, replica)?;
            let may = leader.leads() && leader.is_settled() && world.store.key == Some(replica);
            world.store.settled_below = may.then_some(leader.term)?;
        }
        // A process sends a heartbeat.
        Step::Beats(process) => {
            let of = world.processes.get_mut(usize::from(process))?;
            of.is_alive().then(|| of.beat())?;
        }
        // A heartbeat arrives, and is answered.
        Step::IsHeard { process, by } => hear(model, world, process, by)?,
        // An answer arrives.
        Step::Receives(process) => {
            let of = world.processes.get_mut(usize::from(process))?;
            let (before, answer) = (of.writes(), of.answer?);
            if !of.is_alive() {
                return None;
            }
            of.receive(model.slip);
            let epoch = of.epoch;
            if of.writes().is_some() && before.is_none() && answer.says != Says::Renewed(epoch) {
                world.broken = Some(Broken::NotGranted);
            }
        }
        // The region is to be given to the other node.
        Step::Moves(replica) => {
            let leader = leader(world, replica)?;
            let is_free = world.replicas.get(usize::from(replica))?.moving.is_none();
            if !is_free || !leader.leads() || leader.route.revision >= bounds.routes {
                return None;
            }
            let change = leader.plan_move()?;
            leader_mut(world, replica)?.withheld = true;
            send(model, world, replica, What::Moving, change)?;
        }
        // A transaction reaches the store, or the same again does.
        Step::Lands { of, what } => land(model, world, of, what)?,
        // Its answer reaches the leader.
        Step::Learns { replica, what } => {
            let flight = (*flight_mut(world, replica, what)?)?;
            if flight.fate == Fate::Sent {
                return None;
            }
            *flight_mut(world, replica, what)? = None;
            if flight.fate == Fate::Refused && world.store.key != Some(replica) {
                leader_mut(world, replica)?.end();
                return Some(());
            }
            let store = world.store.clone();
            if let Some(next) = leader_mut(world, replica)?.learn(flight, &store, model.slip) {
                send(model, world, replica, What::Recording, next)?;
            }
        }
        // A mistake: what had no answer is taken for undone.
        Step::GivesUp(replica) => {
            (*flight_mut(world, replica, What::Moving)?)?;
            leader_mut(world, replica)?.withheld = false;
        }
        // A mistake: the next node is told what is not committed yet.
        Step::OpensEarly(replica) => {
            let Change::Route { to, .. } = (*flight_mut(world, replica, What::Moving)?)?.change else {
                return None;
            };
            let process = leader(world, replica)?.recorded(to.node)?;
            let answer = Answer { age: 0, says: Says::Open(to.epoch) };
            world.processes.get_mut(usize::from(process))?.answer = Some(answer);
        }
        // A process starts; the one before it may run on.
        Step::Starts(process) => {
            let at = usize::from(process);
            let before = world.processes.get(..at)?;
            let node = model.bounds.processes.get(at)?;
            let is_next = (0..).zip(before).all(|(other, of): (usize, _)| {
                bounds.processes.get(other) != Some(node) || of.life != Life::Unborn
            });
            is_next.then(|| world.processes.get_mut(at).map(|of| of.life = Life::Alive))??;
        }
        // A process ends.
        Step::Dies(process) => {
            let of = world.processes.get_mut(usize::from(process))?;
            (of.life == Life::Alive).then(|| of.die())?;
        }
        // Its supervisor says so, perhaps late, perhaps again.
        Step::IsCertified { process, to } => {
            let node = *bounds.processes.get(usize::from(process))?;
            let entry = leader_mut(world, to)?.nodes.get_mut(usize::from(node))?;
            entry.certificate = Some(process);
            entry.holder.certify_end(super::process::incarnation(process));
        }
        // The recorded process of the region's node is to stop writing. Nothing is granted to it from now on.
        Step::IsToldToStop { by } => {
            let leader = leader_mut(world, by)?;
            let (route, process) = (leader.route, leader.recorded(leader.route.node)?);
            if !leader.leads() {
                return None;
            }
            leader.withheld = true;
            let of = world.processes.get_mut(usize::from(process))?;
            of.told = of.told.max(route.epoch);
        }
        // It hears of that.
        Step::Stops(process) => {
            let of = world.processes.get_mut(usize::from(process))?;
            of.is_alive().then(|| of.stop())?;
        }
        // Its word arrives, perhaps late, perhaps again.
        Step::Confirms { process, to } => {
            let (node, stopped) = (
                *bounds.processes.get(usize::from(process))?,
                world.processes.get(usize::from(process))?.stopped,
            );
            let entry = leader_mut(world, to)?.nodes.get_mut(usize::from(node))?;
            entry.stopped = Some((process, stopped));
        }
        // The region stays with its node, under a raised epoch.
        Step::Undoes(replica) => {
            let leader = leader(world, replica)?;
            let is_free = world.replicas.get(usize::from(replica))?.moving.is_none();
            if !is_free || !leader.leads() || !leader.withheld || leader.route.revision >= bounds.routes {
                return None;
            }
            let route = leader.route;
            let change = leader.change_route(route.node, route.epoch.saturating_add(1), None);
            send(model, world, replica, What::Moving, change)?;
        }
    }
    Some(())
}

fn leader(world: &World, replica: u8) -> Option<&Leader> {
    world.replicas.get(usize::from(replica))?.leader.as_ref()
}

fn leader_mut(world: &mut World, replica: u8) -> Option<&mut Leader> {
    world.replicas.get_mut(usize::from(replica))?.leader.as_mut()
}

fn flight_mut(world: &mut World, replica: u8, what: What) -> Option<&mut Option<Flight>> {
    let of = world.replicas.get_mut(usize::from(replica))?;
    Some(match what {
        What::Moving => &mut of.moving,
        What::Recording => &mut of.recording,
    })
}

/// Sends a transaction. It is sent again until its answer is certain, so that it may be done at any time, but not once
/// the fence is gone.
fn send(model: &Region, world: &mut World, replica: u8, what: What, change: Change) -> Option<()> {
    let is_fenced = model.slip != Some(Slip::Unfenced);
    let is_late = is_fenced && world.store.key != Some(replica);
    let fate = if is_late { Fate::Refused } else { Fate::Sent };
    *flight_mut(world, replica, what)? = Some(Flight { change, fate });
    Some(())
}

fn hear(model: &Region, world: &mut World, process: u8, by: u8) -> Option<()> {
    let of = world.processes.get(usize::from(process))?;
    let node = *model.bounds.processes.get(usize::from(process))?;
    let (age, epoch) = match of.request {
        Some(request) => (request.age, request.epoch),
        None if !model.bounds.happens.late_requests && of.is_alive() => (0, of.epoch),
        None => return None,
    };
    let leads = leader(world, by)?.leads();
    if !leads && model.slip != Some(Slip::DeadlineOnce) {
        return None;
    }
    let (says, change) = leader_mut(world, by)?.hear(process, node, epoch, model.slip);
    if let Some(says) = says {
        if !leads {
            world.broken = Some(Broken::GrantedTooLate);
        }
        world.processes.get_mut(usize::from(process))?.answer = Some(Answer { age, says });
    }
    if let Some(change) = change {
        let is_within = world.store.route.revision < model.bounds.routes;
        let raises = matches!(change, Change::Route { .. });
        if flight_mut(world, by, What::Recording)?.is_some() || (raises && !is_within) {
            return None;
        }
        send(model, world, by, What::Recording, change)?;
    }
    Some(())
}

fn land(model: &Region, world: &mut World, of: u8, what: What) -> Option<()> {
    let flight = (*flight_mut(world, of, what)?)?;
    if flight.fate != Fate::Sent {
        return None;
    }
    let before = world.store.route;
    let fate = world.store.apply(flight.change, model.slip != Some(Slip::RevisionIgnored));
    if fate == Fate::Done {
        let now = world.store.route;
        if world.store.key != Some(of) {
            world.broken = Some(Broken::WithoutFence);
        } else if now != before && now.epoch <= before.epoch {
            world.broken = Some(Broken::EpochNotRaised);
        } else if now != before {
            // Where the node keeps the region, its recorded process may go on under the older epoch until it hears.
            let heir = match flight.change {
                Change::Route { then: Some(process), .. } => Some(process),
                _ => world.store.recorded.get(usize::from(now.node)).copied().flatten(),
            };
            let writes = |(at, process): (u8, &Process)| Some(at) != heir && process.writes().is_some();
            if (0..).zip(&world.processes).any(writes) {
                world.broken = Some(Broken::TakenTooSoon);
            }
        }
    }
    flight_mut(world, of, what)?.as_mut()?.fate = fate;
    Some(())
}

fn drop_key(world: &mut World, slip: Option<Slip>) -> Option<()> {
    let owner = world.store.key.take()?;
    if slip == Some(Slip::Unfenced) {
        return Some(());
    }
    for what in [What::Moving, What::Recording] {
        if let Some(flight) = flight_mut(world, owner, what)?
            && flight.fate == Fate::Sent
        {
            flight.fate = Fate::Refused;
        }
    }
    Some(())
}
