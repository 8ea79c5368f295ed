//! One candidate's way to leadership and out of it, as a state machine without I/O.
//!
//! The shell feeds [`Event`]s and executes [`Effect`]s; every etcd call comes back as an event. Nothing here trusts
//! that a call happens: what must end, ends by its deadline.
//!
//! | phase | waits for | next |
//! | --- | --- | --- |
//! | Idle | the back-off to pass | Granting |
//! | Granting | a lease of its own for this attempt | Campaigning |
//! | Campaigning | the campaign to be won; keeps the lease alive meanwhile | ReadingBack |
//! | ReadingBack | a linearizable read that shows its key with its create revision | Raising |
//! | Raising | the first fenced transaction: the term | Leading |
//! | Leading | the end: the deadline, a lost fence, or a request to leave | HandingOver or Idle |
//! | HandingOver | the shell to stop granting, drain and resign | Idle or Stopped |
//!
//! Holding on must be earned: while others stand in the queue, a lease is kept alive only by a replica whose own work is
//! proved ([`fitness`]); one that stays unproved steps down, and does not campaign again before it is proved.
//!
//! Any failure gives the attempt up: its lease is released (so that no orphan key blocks the queue) and the next
//! attempt takes a new lease, because a campaign that is cancelled makes etcd delete that lease's key, perhaps late
//! (design 03, "what goes wrong in practice").

mod back_off;
mod events;
mod fitness;
mod phase;

use std::sync::Arc;
use std::time::Duration;

pub use events::{Attempt, Effect, Event, KeySeen, LeaseId, LeaseSeen, Leave, StepDown, Vitals};

use back_off::BackOff;
use fitness::{Fitness, LOOK_AGAIN};
use phase::{Evidence, Phase, Serving};

use crate::lease::{LeadershipLease, Renewal};
use crate::time::BootTime;
use crate::timing::{self, Timing};

/// A candidate.
#[derive(Debug)]
pub struct Election {
    timing: Timing,
    attempt: Attempt,
    /// TTL of this attempt's lease, as etcd granted it.
    ttl: Duration,
    phase: Phase,
    next_call_at: BootTime,
    back_off: BackOff,
    fitness: Fitness,
}

impl Election {
    /// A candidate that makes its first attempt as soon as its work is proved, or nobody else stands in the queue.
    /// `seed` spreads the back-off of several replicas.
    pub fn new(timing: Timing, seed: u64, now: BootTime) -> Election {
        Election {
            timing,
            attempt: Attempt(0),
            ttl: timing.election_ttl,
            phase: Phase::Idle { retry_at: now },
            next_call_at: BootTime::MAX,
            back_off: BackOff::new(seed),
            fitness: Fitness::new(timing.keep_alive_interval()),
        }
    }

    /// Takes one event; returns what to do about it, in this order.
    pub fn step(&mut self, now: BootTime, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        // Knowing decides nothing by itself: what happened meanwhile comes first, and names what it was.
        let decides = !matches!(event, Event::Vitals(_));
        self.take(now, event, &mut effects);
        if decides {
            self.pass_time(now, &mut effects);
        }
        effects
    }

    /// When the next [`Event::Tick`] is due at the latest.
    pub fn wakes_at(&self) -> BootTime {
        match &self.phase {
            Phase::Idle { retry_at } => *retry_at,
            Phase::Granting { asked_at } => *asked_at + self.timing.election_ttl,
            Phase::Campaigning { kept_alive, .. } | Phase::ReadingBack { kept_alive, .. } => {
                self.next_call_at.min(*kept_alive + timing::leadership(self.ttl))
            }
            Phase::Serving { leadership, .. } => self.next_call_at.min(leadership.until()),
            Phase::Stopped => BootTime::MAX,
        }
    }

    fn take(&mut self, now: BootTime, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Tick => {}
            Event::Vitals(vitals) => self.fitness.take(vitals),
            Event::Leave(leave) => self.leave(leave, now, effects),
            Event::Granted(attempt, lease, ttl) => self.granted(attempt, lease, ttl, now, effects),
            Event::GrantFailed(attempt) if attempt == self.attempt => {
                if matches!(self.phase, Phase::Granting { .. }) {
                    self.give_up(now, effects);
                }
            }
            Event::KeptAlive(attempt, sent_at, seen) if attempt == self.attempt => {
                self.kept_alive(sent_at, seen, now, effects);
            }
            Event::Campaigned(attempt, fence) if attempt == self.attempt => {
                if let Phase::Campaigning { lease, kept_alive } = self.phase {
                    effects.push(Effect::Read(attempt, fence.clone()));
                    self.phase = Phase::ReadingBack { lease, fence, kept_alive };
                }
            }
            Event::CampaignFailed(attempt) if attempt == self.attempt => {
                if matches!(self.phase, Phase::Campaigning { .. }) {
                    self.give_up(now, effects);
                }
            }
            Event::Read(attempt, sent_at, seen) if attempt == self.attempt => {
                self.read(sent_at, seen, now, effects);
            }
            Event::TermRaised(attempt, term) if attempt == self.attempt => {
                if let Phase::Serving { serving, leadership, evidence, .. } = &mut self.phase
                    && *serving == Serving::Raising
                    && leadership.holds(now)
                {
                    *serving = Serving::Leading;
                    self.back_off.reset();
                    effects.push(Effect::Lead(attempt, term, evidence.read));
                }
            }
            Event::TermNotRaised(attempt) if attempt == self.attempt => {
                if matches!(self.phase, Phase::Serving { serving: Serving::Raising, .. }) {
                    self.step_down(StepDown::TermNotRaised, now, effects);
                }
            }
            Event::FenceLost(attempt) if attempt == self.attempt => {
                self.step_down(StepDown::FenceLost, now, effects);
            }
            Event::TaskDied(attempt) if attempt == self.attempt => {
                self.step_down(StepDown::TaskDied, now, effects);
            }
            Event::HandedOver(attempt) if attempt == self.attempt => {
                if let Phase::Serving { lease, serving: Serving::HandingOver(leave), .. } = self.phase {
                    effects.push(Effect::Release(attempt, lease));
                    self.rest(leave, now, effects);
                }
            }
            // Answers to calls of an attempt that was given up.
            Event::GrantFailed(_)
            | Event::KeptAlive(..)
            | Event::Campaigned(..)
            | Event::CampaignFailed(_)
            | Event::Read(..)
            | Event::TermRaised(..)
            | Event::TermNotRaised(_)
            | Event::FenceLost(_)
            | Event::TaskDied(_)
            | Event::HandedOver(_) => {}
        }
    }

    fn granted(
        &mut self,
        attempt: Attempt,
        lease: LeaseId,
        ttl: Duration,
        now: BootTime,
        effects: &mut Vec<Effect>,
    ) {
        let asked_at = match self.phase {
            Phase::Granting { asked_at } if attempt == self.attempt => asked_at,
            // The answer was repeated.
            Phase::Campaigning { lease: held, .. }
            | Phase::ReadingBack { lease: held, .. }
            | Phase::Serving { lease: held, .. }
                if held == lease =>
            {
                return;
            }
            // It came too late: nobody uses this lease.
            _ => return effects.push(Effect::Release(attempt, lease)),
        };
        self.ttl = ttl;
        self.phase = Phase::Campaigning { lease, kept_alive: asked_at };
        self.next_call_at = now + self.call_interval();
        effects.push(Effect::Campaign(attempt, lease));
        // The lease counts from the asking, and the answer may have taken long.
        effects.push(Effect::KeepAlive(attempt, lease));
    }

    fn kept_alive(&mut self, sent_at: BootTime, seen: LeaseSeen, now: BootTime, effects: &mut Vec<Effect>) {
        if seen == LeaseSeen::Gone {
            return match self.phase {
                Phase::Serving { .. } => self.step_down(StepDown::LeaseGone, now, effects),
                Phase::Campaigning { .. } | Phase::ReadingBack { .. } => self.give_up(now, effects),
                Phase::Idle { .. } | Phase::Granting { .. } | Phase::Stopped => {}
            };
        }
        match &mut self.phase {
            Phase::Campaigning { kept_alive, .. } | Phase::ReadingBack { kept_alive, .. } => {
                // Past the deadline it may have expired and been counted out already: passing time gives it up.
                if now < *kept_alive + timing::leadership(self.ttl) {
                    *kept_alive = sent_at.max(*kept_alive);
                }
            }
            Phase::Serving { evidence, .. } => {
                evidence.kept_alive = sent_at.max(evidence.kept_alive);
                self.renew(now, effects);
            }
            Phase::Idle { .. } | Phase::Granting { .. } | Phase::Stopped => {}
        }
    }

    fn read(&mut self, sent_at: BootTime, seen: KeySeen, now: BootTime, effects: &mut Vec<Effect>) {
        match (&mut self.phase, seen) {
            (Phase::ReadingBack { .. }, KeySeen::NotOurs) => self.give_up(now, effects),
            (Phase::ReadingBack { lease, fence, kept_alive }, KeySeen::Ours) => {
                if now >= *kept_alive + timing::leadership(self.ttl) {
                    return;
                }
                let evidence = Evidence { kept_alive: *kept_alive, read: sent_at };
                let leadership = Arc::new(LeadershipLease::new((*kept_alive).min(sent_at), self.ttl));
                effects.push(Effect::RaiseTerm(self.attempt, fence.clone(), Arc::clone(&leadership)));
                self.phase = Phase::Serving {
                    lease: *lease,
                    fence: fence.clone(),
                    leadership,
                    evidence,
                    serving: Serving::Raising,
                };
            }
            (Phase::Serving { .. }, KeySeen::NotOurs) => self.step_down(StepDown::FenceLost, now, effects),
            (Phase::Serving { evidence, .. }, KeySeen::Ours) => {
                evidence.read = sent_at.max(evidence.read);
                self.renew(now, effects);
            }
            (Phase::Idle { .. } | Phase::Granting { .. } | Phase::Campaigning { .. } | Phase::Stopped, _) => {
            }
        }
    }

    /// Leadership lasts by the older of the two pieces of evidence: a stuck etcd leader may go on answering
    /// keep-alives, and a read alone says nothing about the lease.
    fn renew(&mut self, now: BootTime, effects: &mut Vec<Effect>) {
        let Phase::Serving { leadership, evidence, .. } = &self.phase else { return };
        let sent_at = evidence.kept_alive.min(evidence.read);
        if leadership.renew(sent_at, self.ttl, now) == Renewal::TooLate {
            self.step_down(StepDown::DeadlinePassed, now, effects);
        }
    }

    fn leave(&mut self, leave: Leave, now: BootTime, effects: &mut Vec<Effect>) {
        match &mut self.phase {
            // Its turn has come before it could stand back.
            Phase::Serving { .. } if leave == Leave::Yield => {}
            Phase::Serving { serving, .. } => match serving {
                Serving::Leading => {
                    *serving = Serving::HandingOver(leave);
                    effects.push(Effect::HandOver(self.attempt));
                }
                Serving::HandingOver(before) => {
                    if leave == Leave::Shutdown {
                        *before = leave;
                    }
                }
                // It does not lead yet; a transfer has nothing to give, a shutdown gives the attempt up.
                Serving::Raising if leave != Leave::Shutdown => {}
                Serving::Raising => {
                    self.release(effects);
                    self.rest(leave, now, effects);
                }
            },
            Phase::Stopped => {}
            Phase::Campaigning { .. } if leave == Leave::Yield => {
                self.release(effects);
                self.rest(leave, now, effects);
            }
            _ if leave == Leave::Shutdown => {
                self.release(effects);
                self.rest(leave, now, effects);
            }
            _ => {}
        }
    }

    fn step_down(&mut self, why: StepDown, now: BootTime, effects: &mut Vec<Effect>) {
        let Phase::Serving { leadership, serving, .. } = &self.phase else {
            // Nothing was led yet: there is only the attempt to give up.
            return match &self.phase {
                Phase::Idle { .. } | Phase::Stopped => {}
                _ => self.give_up(now, effects),
            };
        };
        leadership.end();
        let serving = *serving;
        effects.push(Effect::StepDown(self.attempt, why));
        self.release(effects);
        match serving {
            Serving::HandingOver(leave) => self.rest(leave, now, effects),
            Serving::Raising | Serving::Leading => self.back_off(now),
        }
    }

    fn give_up(&mut self, now: BootTime, effects: &mut Vec<Effect>) {
        self.release(effects);
        self.back_off(now);
    }

    /// Releases this attempt's lease, where it has one.
    fn release(&mut self, effects: &mut Vec<Effect>) {
        match &self.phase {
            Phase::Campaigning { lease, .. } | Phase::ReadingBack { lease, .. } => {
                effects.push(Effect::Release(self.attempt, *lease));
            }
            Phase::Serving { lease, leadership, .. } => {
                leadership.end();
                effects.push(Effect::Release(self.attempt, *lease));
            }
            Phase::Idle { .. } | Phase::Granting { .. } | Phase::Stopped => {}
        }
    }

    /// After leadership was left on request: the queue again, or the end.
    fn rest(&mut self, leave: Leave, now: BootTime, effects: &mut Vec<Effect>) {
        self.next_call_at = BootTime::MAX;
        match leave {
            // Long enough for every other candidate to be ahead in the queue.
            Leave::Transfer | Leave::Yield => {
                self.phase = Phase::Idle { retry_at: now + self.timing.keep_alive_interval() }
            }
            Leave::Shutdown => {
                self.phase = Phase::Stopped;
                effects.push(Effect::Stopped);
            }
        }
    }

    fn back_off(&mut self, now: BootTime) {
        self.next_call_at = BootTime::MAX;
        self.phase = Phase::Idle { retry_at: now + self.back_off.next() };
    }

    /// What is due by the clock alone.
    fn pass_time(&mut self, now: BootTime, effects: &mut Vec<Effect>) {
        match &self.phase {
            Phase::Idle { retry_at } if now >= *retry_at && !self.fitness.may_claim(now) => {
                // Somebody else may lead, and better: no key of an unproved replica stands in the queue.
                self.phase = Phase::Idle { retry_at: now + LOOK_AGAIN };
            }
            Phase::Idle { retry_at } if now >= *retry_at => {
                self.attempt = Attempt(self.attempt.0.saturating_add(1));
                self.phase = Phase::Granting { asked_at: now };
                effects.push(Effect::Grant(self.attempt));
            }
            Phase::Granting { asked_at } if now >= *asked_at + self.timing.election_ttl => {
                self.give_up(now, effects)
            }
            Phase::Campaigning { lease, kept_alive } | Phase::ReadingBack { lease, kept_alive, .. } => {
                if now >= *kept_alive + timing::leadership(self.ttl) || self.fitness.is_lost(now) {
                    self.give_up(now, effects);
                } else if now >= self.next_call_at {
                    effects.push(self.fitness.keep_alive(self.attempt, *lease, now));
                    effects.push(match &self.phase {
                        Phase::ReadingBack { fence, .. } => Effect::Read(self.attempt, fence.clone()),
                        _ => Effect::ReadQueue(self.attempt, *lease),
                    });
                    self.next_call_at = now + self.call_interval();
                }
            }
            Phase::Serving { lease, fence, leadership, serving, .. } => {
                if !leadership.holds(now) {
                    self.step_down(StepDown::DeadlinePassed, now, effects);
                } else if *serving == Serving::Leading && self.fitness.is_lost(now) {
                    self.step_down(StepDown::Unproved, now, effects);
                } else if now >= self.next_call_at {
                    effects.push(self.fitness.keep_alive(self.attempt, *lease, now));
                    effects.push(Effect::Read(self.attempt, fence.clone()));
                    self.next_call_at = now + self.call_interval();
                }
            }
            Phase::Idle { .. } | Phase::Granting { .. } | Phase::Stopped => {}
        }
    }

    /// Time between two keep-alives; etcd may have granted another TTL than was asked for.
    fn call_interval(&self) -> Duration {
        (self.ttl / 5).min(self.timing.keep_alive_interval())
    }
}

#[cfg(test)]
#[path = "election_tests.rs"]
mod tests;
