//! What a migration does next: the table of [`super`], row by row.

use super::{End, Migrating, Migration, Next, Observed, State, Why};
use crate::id::{Incarnation, NodeId};
use crate::procedure::instruction::{Answer, Held, HeldAs, Instruction, Led, NodeView, Tell};
use crate::time::BootTime;

impl Migrating {
    /// What is to be done now. Changes nothing: what was done is said by [`Migrating::told`] and [`Migrating::persisted`].
    pub fn step(&self, seen: &Observed, now: BootTime) -> Next {
        match &self.stored.state {
            State::Preparing => self.prepare(seen, now),
            State::Flushing => self.flush(seen, now),
            State::Downgrading => self.downgrade(seen, now),
            State::CatchingUp { position } => self.catch_up(*position, seen, now),
            State::Upgrading => self.upgrade(seen, now),
            State::Closing => self.close(seen, now),
            State::Undoing { why, owes_epoch } => self.undo(why, *owes_epoch, seen, now),
        }
    }

    /// The instruction of this state went out over this stream.
    pub fn told(&mut self, stream: Option<u64>, now: BootTime) {
        self.told = Some((now, stream));
    }

    /// The store has this now, as was answered or read.
    pub fn persisted(&mut self, stored: Migration, now: BootTime) {
        self.enter(stored, now);
    }

    /// It goes on in this state, which is not stored.
    pub fn goes_on(&mut self, then: Migration, now: BootTime) {
        self.enter(then, now);
    }

    fn enter(&mut self, then: Migration, now: BootTime) {
        if then.state != self.stored.state {
            self.entered = now;
            self.told = None;
            if then.state == State::Downgrading {
                self.gap_begun = now;
            }
        }
        self.stored = then;
    }

    fn prepare(&self, seen: &Observed, now: BootTime) -> Next {
        let this = &self.stored;
        if let Some(why) = self.broken(seen).or_else(|| self.source_gone(seen)) {
            return Next::Persist(this.undoing(why));
        }
        if seen.to.held_since(self.entered).is_some_and(|held| this.is_candidate(held)) {
            return Next::GoOn(Migration { candidate: seen.to.process, ..this.at(State::Flushing) });
        }
        let until = self.begun + self.patience.overall;
        if now >= until {
            return Next::Persist(this.undoing(Why::TargetSlow));
        }
        let open = Instruction::OpenCandidate { region: this.region, epoch: this.epoch };
        self.stay(this.to, &seen.to, seen.to.process, open, until, now)
    }

    fn flush(&self, seen: &Observed, now: BootTime) -> Next {
        let this = &self.stored;
        if let Some(why) = self.broken(seen).or_else(|| self.source_gone(seen)) {
            return Next::Persist(this.undoing(why));
        }
        if now >= self.begun + self.patience.overall {
            return Next::Persist(this.undoing(Why::SourceSlow));
        }
        let flushed = |answer| (answer == Answer::Flushed).then_some(());
        let (until, overall) = (self.entered + self.patience.flush, self.begun + self.patience.overall);
        if now >= until || this.answer(seen, this.from, Some(this.leader), flushed).is_some() {
            return if seen.has_room_for_gap {
                Next::Persist(this.at(State::Downgrading))
            } else {
                Next::Stay { tell: None, look_at: overall }
            };
        }
        let flush = Instruction::Flush { region: this.region, epoch: this.epoch };
        self.stay(this.from, &seen.from, Some(this.leader), flush, until.min(overall), now)
    }

    fn downgrade(&self, seen: &Observed, now: BootTime) -> Next {
        let this = &self.stored;
        if let Some(why) = self.broken(seen) {
            return Next::Persist(this.undoing(why));
        }
        // Only the process that leads can say that it stopped; an older one never wrote under this epoch, so its word
        // is worth nothing.
        let stopped = |answer| match answer {
            Answer::Stopped { position } => Some(position),
            _ => None,
        };
        if seen.from.process == Some(this.leader)
            && let Some(position) = this.answer(seen, this.from, Some(this.leader), stopped)
        {
            return Next::GoOn(this.at(State::CatchingUp { position }));
        }
        if now >= seen.free_at {
            return Next::GoOn(this.at(State::CatchingUp { position: None }));
        }
        if seen.from.is_lost() && now < self.entered + self.patience.overall {
            // Undoing would give it a region that it cannot write to. The region is free soon.
            return Next::Stay {
                tell: None,
                look_at: seen.free_at.min(self.entered + self.patience.overall),
            };
        }
        if seen.from.process != Some(this.leader) {
            return Next::Persist(this.undoing(Why::SourceRestarted));
        }
        let until = self.gap_begun + self.patience.gap;
        if now >= until {
            return Next::Persist(this.undoing(Why::SourceSilent));
        }
        let downgrade = Instruction::Downgrade { region: this.region, epoch: this.epoch };
        self.stay(this.from, &seen.from, Some(this.leader), downgrade, until.min(seen.free_at), now)
    }

    fn catch_up(&self, position: Option<u64>, seen: &Observed, now: BootTime) -> Next {
        let this = &self.stored;
        let upgrading = this.at(State::Upgrading);
        if seen.route == Some(this.after()) {
            // The commit was done, though its answer was lost: the store has this record already.
            return Next::Persist(upgrading);
        }
        if let Some(why) = self.broken(seen) {
            return Next::Persist(this.undoing(why));
        }
        let reached = |answer| match answer {
            Answer::CaughtUp => Some(()),
            _ => None,
        };
        if this.answer(seen, this.to, this.candidate, reached).is_some() {
            return Next::CommitRoute { route: this.after(), then: upgrading };
        }
        let failed = |answer| (answer == Answer::CannotCatchUp).then_some(());
        if this.answer(seen, this.to, this.candidate, failed).is_some() {
            return Next::Persist(this.undoing(Why::TargetFailed));
        }
        let until = if seen.from.is_lost() {
            self.entered + self.patience.overall
        } else {
            self.gap_begun + self.patience.gap
        };
        if now >= until {
            return Next::Persist(this.undoing(Why::TargetBehind));
        }
        let catch_up = Instruction::CatchUp { region: this.region, epoch: this.epoch, position };
        self.stay(this.to, &seen.to, this.candidate, catch_up, until, now)
    }

    fn upgrade(&self, seen: &Observed, now: BootTime) -> Next {
        let this = &self.stored;
        let after = this.after();
        let leads = Some(Some(Held { role: HeldAs::Leader, epoch: after.epoch }));
        let until = self.entered + self.patience.cleanup;
        // Another process of `to` must not be told: it gets the region by rule 4 and under a further epoch.
        let is_over = seen.route != Some(after)
            || seen.to.is_lost()
            || seen.to.process != this.candidate
            || seen.to.held_since(self.entered) == leads
            || now >= until;
        if is_over {
            return Next::GoOn(this.at(State::Closing));
        }
        let upgrade = Instruction::Upgrade { region: this.region, epoch: after.epoch };
        self.stay(this.to, &seen.to, this.candidate, upgrade, until, now)
    }

    fn close(&self, seen: &Observed, now: BootTime) -> Next {
        let this = &self.stored;
        match self.leave(this.from, &seen.from, seen, now) {
            Some(stay) => stay,
            None => Next::Finish(End::Done),
        }
    }

    fn undo(&self, why: &Why, owes_epoch: bool, seen: &Observed, now: BootTime) -> Next {
        let this = &self.stored;
        if owes_epoch {
            let then = this.at(State::Undoing { why: why.clone(), owes_epoch: false });
            return if seen.route == Some(this.before()) {
                let route = Led { node: this.from, epoch: this.epoch.next() };
                Next::CommitRoute { route, then }
            } else {
                Next::Persist(then)
            };
        }
        match self.leave(this.to, &seen.to, seen, now) {
            Some(stay) => stay,
            None => Next::Finish(End::Undone(why.clone())),
        }
    }

    /// Has `node` close its copy. `None`: there is nothing to wait for.
    fn leave(&self, node: NodeId, view: &NodeView, seen: &Observed, now: BootTime) -> Option<Next> {
        let this = &self.stored;
        let until = self.entered + self.patience.cleanup;
        let is_needed = seen.route.is_some_and(|route| route.node == node);
        let has_left =
            view.held_since(self.entered).is_some_and(|held| held.is_none_or(|held| held.epoch > this.epoch));
        if is_needed || has_left || view.is_lost() || view.process.is_none() || now >= until {
            return None;
        }
        let close = Instruction::Close { region: this.region, epoch: this.epoch };
        Some(self.stay(node, view, view.process, close, until, now))
    }

    /// What makes a migration fail in any state before the commit.
    fn broken(&self, seen: &Observed) -> Option<Why> {
        let this = &self.stored;
        match seen.route {
            None => return Some(Why::RegionDropped),
            Some(route) if route != this.before() => return Some(Why::RouteChanged),
            Some(_) => {}
        }
        if seen.to.is_lost() {
            return Some(Why::TargetLost);
        }
        let candidate = this.candidate?;
        if seen.to.process != Some(candidate) {
            return Some(Why::TargetRestarted);
        }
        let held = seen.to.held_since(self.entered)?;
        (!this.is_candidate(held)).then_some(Why::TargetLeft)
    }

    /// What makes it fail before `from` was asked to stop.
    fn source_gone(&self, seen: &Observed) -> Option<Why> {
        if seen.from.is_lost() {
            Some(Why::SourceLost)
        } else if seen.from.process != Some(self.stored.leader) {
            Some(Why::SourceRestarted)
        } else {
            None
        }
    }

    /// Tells the node once over each of its streams, and again where that has no effect for long.
    fn stay(
        &self,
        node: NodeId,
        view: &NodeView,
        process: Option<Incarnation>,
        instruction: Instruction,
        until: BootTime,
        now: BootTime,
    ) -> Next {
        let pace = if self.stored.is_in_gap() { self.patience.repeat_in_gap } else { self.patience.repeat };
        let due = match self.told {
            Some((told, over)) if over == view.stream => told + pace,
            _ => now,
        };
        // Where it has no stream it is told when it comes.
        let tell = process.filter(|_| now >= due && view.stream.is_some());
        let tell = tell.map(|process| Tell { node, process, instruction });
        let again = if now >= due { now + pace } else { due };
        Next::Stay { tell, look_at: again.min(until) }
    }
}
