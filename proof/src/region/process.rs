//! A process of a node: what it holds, and until when it may write. The deadline is the core's ([`RegionLease`]).

use metasrv_core_proof::id::{Epoch, Incarnation};
use metasrv_core_proof::lease::RegionLease;
use metasrv_core_proof::timing::usable_lease;

use crate::clock::{Rate, Units, after, ago, left, timing};
use crate::slip::Slip;

/// The clock of every process is as slow as can be: it only ever stops by it.
const RATE: Rate = Rate::Slow;

/// A grant that is asked for so long ago gives nothing any more.
const STALE: Units = 3;

/// A process of a node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Process {
    /// Whether it runs.
    pub life: Life,
    /// The epoch that it holds the region under; 0: it does not hold it.
    pub epoch: u8,
    /// What is left of its lease.
    until: Units,
    /// It never writes again under this epoch or an older one.
    pub stopped: u8,
    /// The highest epoch that it was told to stop under, however late it hears of it.
    pub told: u8,
    /// Its last heartbeat, which may come at any time from now on, any number of times.
    pub request: Option<Request>,
    /// The last answer to one, which may come at any time.
    pub answer: Option<Answer>,
}

/// Whether a process runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Life {
    /// Not yet.
    Unborn,
    /// It does.
    Alive,
    /// Not any more.
    Dead,
}

/// A heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Request {
    /// Units since it was sent.
    pub age: Units,
    /// The epoch that the region is reported under; 0: it is not.
    pub epoch: u8,
}

/// An answer to a heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Answer {
    /// Units since the heartbeat was sent.
    pub age: Units,
    /// What it says of the region.
    pub says: Says,
}

/// What an answer says of the region.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Says {
    /// The lease is renewed under this epoch.
    Renewed(u8),
    /// It is to be opened under this epoch.
    Open(u8),
}

/// The number of the process at this place.
pub fn number(at: usize) -> u8 {
    u8::try_from(at).unwrap_or(u8::MAX)
}

/// A process's name: later ones are newer.
pub fn incarnation(process: u8) -> Incarnation {
    let epoch = u64::from(process).saturating_add(1);
    Incarnation { epoch, nonce: epoch }
}

impl Process {
    /// A process that runs, or will; it holds the region under this epoch.
    pub fn new(is_alive: bool, epoch: u8) -> Process {
        let life = if is_alive { Life::Alive } else { Life::Unborn };
        Process { life, epoch, until: 0, stopped: 0, told: 0, request: None, answer: None }
    }

    /// Whether it runs.
    pub fn is_alive(&self) -> bool {
        self.life == Life::Alive
    }

    /// The epoch that it may write under now.
    pub fn writes(&self) -> Option<u8> {
        let may = self.is_alive() && self.epoch > self.stopped && self.lease().is_valid(crate::clock::NOW);
        may.then_some(self.epoch)
    }

    /// It ends. What is on its way from it, and its word, may still arrive.
    pub fn die(&mut self) {
        *self = Process { life: Life::Dead, epoch: self.epoch, until: 0, answer: None, ..self.clone() };
    }

    /// A tick of true time passes.
    pub fn tick(&mut self) {
        let passed = RATE.tick();
        self.until = self.until.saturating_sub(passed);
        if let Some(request) = &mut self.request {
            request.age = request.age.saturating_add(passed).min(STALE);
        }
        if let Some(answer) = &mut self.answer {
            answer.age = answer.age.saturating_add(passed).min(STALE);
            if answer.age == STALE && matches!(answer.says, Says::Renewed(_)) {
                self.answer = None;
            }
        }
    }

    /// Sends a heartbeat; the one before, and what is said to it, may be lost by now.
    pub fn beat(&mut self) {
        self.request = Some(Request { age: 0, epoch: self.epoch });
    }

    /// Takes the answer that is on its way. It is not taken twice: deadlines only ever move forward.
    pub fn receive(&mut self, slip: Option<Slip>) {
        let Some(Answer { age, says }) = self.answer.take() else { return };
        let mut lease = self.lease();
        match says {
            Says::Open(epoch) => lease.raise(Epoch(u64::from(epoch))),
            Says::Renewed(_) if self.epoch <= self.stopped && slip != Some(Slip::StopForgotten) => {}
            Says::Renewed(epoch) => {
                let sent_at = if slip == Some(Slip::LeaseFromAnswer) { crate::clock::NOW } else { ago(age) };
                if lease.grant(Epoch(u64::from(epoch)), sent_at, timing().region_lease)
                    && slip == Some(Slip::StopForgotten)
                {
                    self.stopped = 0;
                }
            }
        }
        self.epoch = u8::try_from(lease.epoch().0).unwrap_or(u8::MAX);
        self.until = left(lease.until());
    }

    /// Hears that it is to stop writing under what it was told.
    pub fn stop(&mut self) {
        self.stopped = self.stopped.max(self.told);
    }

    /// The same as the core has it.
    fn lease(&self) -> RegionLease {
        let mut lease = RegionLease::opened(Epoch(u64::from(self.epoch)));
        if self.until > 0 {
            let length = timing().region_lease;
            lease.grant(lease.epoch(), after(self.until).before(usable_lease(length)), length);
        }
        lease
    }
}
