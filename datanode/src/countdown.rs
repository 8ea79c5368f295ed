//! The countdown of one region: until when it may be written to, compared with the clock at each use.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metasrv_core::id::{Epoch, RegionId};
use metasrv_core::lease::RegionLease;
use metasrv_core::procedure::instruction::{Held, HeldAs};
use metasrv_core::time::{BootTime, Clock};

use crate::region_server::{OpenAs, OpenOptions, RegionRole};
use crate::set_lease::SetLease;
use crate::write_guard::{NotWritable, WriteGuard, Writes};

/// The state of one open region. There is no timer in it: whoever asks compares its deadline with the clock, and
/// the keeper's one task tells the embedder when a deadline has passed.
#[derive(Debug)]
pub struct CountdownTask {
    lease: RegionLease,
    /// What it is open for.
    kind: OpenAs,
    /// Nothing is written any more under this epoch or an older one, whatever is granted.
    stopped: Epoch,
    /// When it was opened, or its epoch raised: an answer to an older request does not speak of it.
    held_since: BootTime,
    /// The same as the version of all that is open: an answer about an older set does not speak of it.
    since_version: u64,
    /// The last answer about all regions left it out: what it was granted is in its own lease.
    apart: bool,
    /// The role that the embedder was told last.
    told: RegionRole,
    /// The keeper will look at it when its deadline comes.
    watched: bool,
    closed: bool,
}

/// A shared handle to the countdown of one region. Clones are cheap; an embedder may keep one beside its region.
#[derive(Clone)]
pub struct CountdownTaskHandle {
    region: RegionId,
    task: Arc<Mutex<CountdownTask>>,
    writes: Arc<Writes>,
    /// The lease of all regions at once.
    all: Arc<SetLease>,
    clock: Arc<dyn Clock>,
}

/// How a region is opened, and what is known of it from before.
pub(crate) struct Opening {
    pub(crate) options: OpenOptions,
    /// The version of all that is open with which it is.
    pub(crate) version: u64,
    /// The highest epoch under which this process was told to stop writing to it.
    pub(crate) stopped: Epoch,
    /// The writes under way, also of a time before it was closed and opened again.
    pub(crate) writes: Arc<Writes>,
}

/// What a grant did to a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Granted {
    /// Its deadline moved; it was writable before.
    Renewed,
    /// It was not writable before, and is now.
    Revived,
    /// Nothing: it is for another epoch, or answers a request from before the region was opened, or came too late.
    Ignored,
}

impl CountdownTaskHandle {
    /// The countdown of a region that was just opened: no lease yet.
    pub(crate) fn new(
        region: RegionId,
        opening: Opening,
        all: Arc<SetLease>,
        clock: Arc<dyn Clock>,
    ) -> CountdownTaskHandle {
        let Opening { options, version, stopped, writes } = opening;
        let task = CountdownTask {
            lease: RegionLease::opened(options.epoch),
            kind: options.kind,
            stopped,
            held_since: clock.now(),
            since_version: version,
            apart: false,
            told: RegionRole::Follower,
            watched: false,
            closed: false,
        };
        CountdownTaskHandle { region, task: Arc::new(Mutex::new(task)), writes, all, clock }
    }

    /// The region.
    pub fn region(&self) -> RegionId {
        self.region
    }

    /// The epoch it is held under.
    pub fn epoch(&self) -> Epoch {
        self.locked().lease.epoch()
    }

    /// What it is open for.
    pub(crate) fn options(&self) -> OpenOptions {
        let task = self.locked();
        OpenOptions { epoch: task.lease.epoch(), kind: task.kind }
    }

    /// How it is held, as metasrv hears it.
    pub(crate) fn held(&self) -> Held {
        let task = self.locked();
        let role = match task.kind {
            OpenAs::Candidate => HeldAs::Candidate,
            OpenAs::Leader if task.is_stopped() => HeldAs::Downgraded,
            OpenAs::Leader => HeldAs::Leader,
        };
        Held { role, epoch: task.lease.epoch() }
    }

    /// The instant at which the right to write ends; [`BootTime::ZERO`] where there never was one.
    pub fn until(&self) -> BootTime {
        self.locked().until(&self.all)
    }

    /// What may be done with it now.
    pub fn role(&self) -> RegionRole {
        self.locked().role(&self.all, self.clock.now())
    }

    /// The right to write one batch, if there is one now.
    ///
    /// # Errors
    /// [`NotWritable`].
    pub fn write_guard(&self) -> Result<WriteGuard, NotWritable> {
        let task = self.locked();
        if task.closed {
            return Err(NotWritable::NotOpen(self.region));
        }
        if task.kind == OpenAs::Candidate {
            return Err(NotWritable::Candidate(self.region));
        }
        if task.is_stopped() {
            return Err(NotWritable::Downgraded(self.region));
        }
        let now = self.clock.now();
        let (epoch, until) = (task.lease.epoch(), task.until(&self.all));
        if now >= until {
            return Err(NotWritable::expired(self.region, until, now));
        }
        // Counted before the lock is given back: whoever stops the region afterwards waits for this write.
        Ok(WriteGuard::new(self.region, epoch, until, Arc::clone(&self.clock), &self.writes))
    }

    /// Takes a grant that answers a request of `sent_at`.
    pub(crate) fn grant(&self, epoch: Epoch, sent_at: BootTime, length: Duration) -> Granted {
        self.take(|task| sent_at >= task.held_since && task.lease.grant(epoch, sent_at, length))
    }

    /// Takes what an answer about all regions, as they were in this version, grants until then, for itself alone.
    pub(crate) fn grant_by_set(&self, version: u64, until: BootTime) -> Granted {
        self.take(|task| {
            let speaks_of_it = task.since_version <= version;
            if speaks_of_it {
                task.lease.extend(until);
            }
            speaks_of_it
        })
    }

    fn take(&self, grant: impl FnOnce(&mut CountdownTask) -> bool) -> Granted {
        let mut task = self.locked();
        if task.closed || task.is_stopped() || task.kind == OpenAs::Candidate {
            return Granted::Ignored;
        }
        let now = self.clock.now();
        let writable = task.until(&self.all) > now;
        if !grant(&mut task) {
            return Granted::Ignored;
        }
        match (writable, task.until(&self.all) > now) {
            (true, _) => Granted::Renewed,
            (false, true) => Granted::Revived,
            (false, false) => Granted::Ignored,
        }
    }

    /// Keeps what the lease of all regions has granted, and takes nothing more from it.
    pub(crate) fn stand_apart(&self) {
        let mut task = self.locked();
        let until = task.until(&self.all);
        task.lease.extend(until);
        task.apart = true;
    }

    /// Takes from the lease of all regions again.
    pub(crate) fn rejoin(&self) {
        self.locked().apart = false;
    }

    /// Holds the region under a higher epoch, without the right to write, in this version of all that is open.
    pub(crate) fn raise(&self, options: OpenOptions, version: u64) {
        let mut task = self.locked();
        if options.epoch > task.lease.epoch() {
            task.lease.raise(options.epoch);
            task.kind = options.kind;
            task.held_since = self.clock.now();
            (task.since_version, task.apart) = (version, false);
        }
    }

    /// Ends the right to write under this epoch and older ones, for good. Writes whose guards were given before may be
    /// under way.
    pub(crate) fn stop(&self, epoch: Epoch) {
        let mut task = self.locked();
        task.stopped = task.stopped.max(epoch);
    }

    /// Whether it was opened, or its epoch raised, after this instant.
    pub(crate) fn is_newer_than(&self, sent_at: BootTime) -> bool {
        sent_at < self.locked().held_since
    }

    /// Ends the right to write for good: the region is not open any more.
    pub(crate) fn close(&self) {
        self.locked().closed = true;
    }

    /// The role that the embedder has to be told, with the epoch, if it is another one than it was told last.
    pub(crate) fn role_to_tell(&self) -> Option<(Epoch, RegionRole)> {
        let mut task = self.locked();
        let role = task.role(&self.all, self.clock.now());
        if task.closed || task.told == role {
            return None;
        }
        task.told = role;
        Some((task.lease.epoch(), role))
    }

    /// The instant at which its own deadline has to be looked at, if nobody does so yet.
    pub(crate) fn watch(&self) -> Option<BootTime> {
        let mut task = self.locked();
        let watches = !task.watched && task.has_own_deadline(&self.all, self.clock.now());
        task.watched |= watches;
        watches.then(|| task.lease.until())
    }

    /// Looks at its own deadline: the instant at which to look again, or nothing once it has passed, or that of all regions
    /// counts.
    pub(crate) fn look(&self) -> Option<BootTime> {
        let mut task = self.locked();
        task.watched = task.has_own_deadline(&self.all, self.clock.now());
        task.watched.then(|| task.lease.until())
    }

    fn locked(&self) -> MutexGuard<'_, CountdownTask> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CountdownTask {
    fn is_stopped(&self) -> bool {
        self.lease.epoch() <= self.stopped
    }

    /// When its right to write ends: by its own lease, or by that of all regions where it is covered.
    fn until(&self, all: &SetLease) -> BootTime {
        let own = self.lease.until();
        let covered = !self.apart && self.kind == OpenAs::Leader && all.covers(self.since_version);
        if covered { own.max(all.until()) } else { own }
    }

    fn may_write(&self, all: &SetLease, now: BootTime) -> bool {
        !self.closed && self.kind == OpenAs::Leader && !self.is_stopped() && now < self.until(all)
    }

    fn has_own_deadline(&self, all: &SetLease, now: BootTime) -> bool {
        self.may_write(all, now) && self.until(all) == self.lease.until()
    }

    fn role(&self, all: &SetLease, now: BootTime) -> RegionRole {
        match self.kind {
            OpenAs::Leader if self.is_stopped() => RegionRole::Downgrading,
            OpenAs::Leader if self.may_write(all, now) => RegionRole::Leader,
            OpenAs::Leader | OpenAs::Candidate => RegionRole::Follower,
        }
    }
}

impl fmt::Debug for CountdownTaskHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CountdownTaskHandle").field("region", &self.region).field("task", &self.task).finish()
    }
}

#[cfg(test)]
#[path = "countdown_tests.rs"]
mod tests;
