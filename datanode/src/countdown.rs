//! The countdown of one region: until when it may be written to, compared with the clock at each use.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metasrv_core::id::{Epoch, RegionId};
use metasrv_core::lease::RegionLease;
use metasrv_core::time::{BootTime, Clock};

use crate::region_server::{OpenAs, OpenOptions, RegionRole};
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
    clock: Arc<dyn Clock>,
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
    /// The countdown of a region that was just opened: no lease yet. `stopped`: the highest epoch under which this
    /// process was told to stop writing to it. `writes`: those under way, also of a time before it was closed and opened again.
    pub(crate) fn new(
        region: RegionId,
        options: OpenOptions,
        stopped: Epoch,
        writes: Arc<Writes>,
        clock: Arc<dyn Clock>,
    ) -> CountdownTaskHandle {
        let task = CountdownTask {
            lease: RegionLease::opened(options.epoch),
            kind: options.kind,
            stopped,
            held_since: clock.now(),
            told: RegionRole::Follower,
            watched: false,
            closed: false,
        };
        CountdownTaskHandle { region, task: Arc::new(Mutex::new(task)), writes, clock }
    }

    /// The region.
    pub fn region(&self) -> RegionId {
        self.region
    }

    /// The epoch it is held under.
    pub fn epoch(&self) -> Epoch {
        self.locked().lease.epoch()
    }

    /// How it is held.
    pub(crate) fn held(&self) -> OpenOptions {
        let task = self.locked();
        OpenOptions { epoch: task.lease.epoch(), kind: task.kind }
    }

    /// The instant at which the right to write ends; [`BootTime::ZERO`] where there never was one.
    pub fn until(&self) -> BootTime {
        self.locked().lease.until()
    }

    /// What may be done with it now.
    pub fn role(&self) -> RegionRole {
        self.locked().role(self.clock.now())
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
        let (epoch, until) = (task.lease.epoch(), task.lease.until());
        if !task.lease.is_valid(now) {
            return Err(NotWritable::expired(self.region, until, now));
        }
        // Counted before the lock is given back: whoever stops the region afterwards waits for this write.
        Ok(WriteGuard::new(self.region, epoch, until, Arc::clone(&self.clock), &self.writes))
    }

    /// Takes a grant that answers a request of `sent_at`.
    pub(crate) fn grant(&self, epoch: Epoch, sent_at: BootTime, length: Duration) -> Granted {
        let mut task = self.locked();
        if task.closed || task.is_stopped() || task.kind == OpenAs::Candidate || sent_at < task.held_since {
            return Granted::Ignored;
        }
        let now = self.clock.now();
        let writable = task.lease.is_valid(now);
        if !task.lease.grant(epoch, sent_at, length) {
            return Granted::Ignored;
        }
        match (writable, task.lease.is_valid(now)) {
            (true, _) => Granted::Renewed,
            (false, true) => Granted::Revived,
            (false, false) => Granted::Ignored,
        }
    }

    /// Holds the region under a higher epoch, without the right to write.
    pub(crate) fn raise(&self, options: OpenOptions) {
        let mut task = self.locked();
        if options.epoch > task.lease.epoch() {
            task.lease.raise(options.epoch);
            task.kind = options.kind;
            task.held_since = self.clock.now();
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
        let role = task.role(self.clock.now());
        if task.closed || task.told == role {
            return None;
        }
        task.told = role;
        Some((task.lease.epoch(), role))
    }

    /// The instant at which its deadline has to be looked at, if nobody does so yet.
    pub(crate) fn watch(&self) -> Option<BootTime> {
        let mut task = self.locked();
        let watches = !task.watched && task.may_write(self.clock.now());
        task.watched |= watches;
        watches.then(|| task.lease.until())
    }

    /// Looks at its deadline: the instant at which to look again, or nothing once it has passed.
    pub(crate) fn look(&self) -> Option<BootTime> {
        let mut task = self.locked();
        task.watched = task.may_write(self.clock.now());
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

    fn may_write(&self, now: BootTime) -> bool {
        !self.closed && self.kind == OpenAs::Leader && !self.is_stopped() && self.lease.is_valid(now)
    }

    fn role(&self, now: BootTime) -> RegionRole {
        match self.kind {
            OpenAs::Leader if self.is_stopped() => RegionRole::Downgrading,
            OpenAs::Leader if self.may_write(now) => RegionRole::Leader,
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
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const L: Duration = Duration::from_millis(1_000);
    const REGION: RegionId = RegionId(7);

    fn countdown() -> (Arc<ManualClock>, CountdownTaskHandle) {
        let clock = Arc::new(ManualClock::default());
        clock.set(5_000);
        let handle = CountdownTaskHandle::new(
            REGION,
            OpenOptions::leader(Epoch(2)),
            Epoch(0),
            Arc::default(),
            clock.clone(),
        );
        (clock, handle)
    }

    fn at(millis: u64) -> BootTime {
        BootTime::from_millis(millis)
    }

    #[test]
    fn an_opened_region_is_read_only_until_a_grant_for_its_epoch() {
        let (clock, handle) = countdown();
        assert_eq!(handle.write_guard().unwrap_err(), NotWritable::NotLeased(REGION));
        assert_eq!(handle.grant(Epoch(1), at(5_000), L), Granted::Ignored);
        assert_eq!(handle.grant(Epoch(3), at(5_000), L), Granted::Ignored);
        assert_eq!(handle.grant(Epoch(2), at(5_000), L), Granted::Revived);
        assert_eq!(handle.role(), RegionRole::Leader);
        let guard = handle.write_guard().unwrap();
        assert_eq!(guard.epoch(), Epoch(2));
        clock.set(5_989);
        assert_eq!(guard.check(), Ok(()));
        clock.set(5_990);
        assert_eq!(guard.check(), Err(NotWritable::Expired { region: REGION, ago: Duration::ZERO }));
        assert!(handle.write_guard().is_err(), "the deadline alone ends it; no timer has to run");
    }

    #[test]
    fn an_expired_region_is_writable_again_without_help() {
        let (clock, handle) = countdown();
        handle.grant(Epoch(2), at(5_000), L);
        clock.set(9_000);
        assert_eq!(handle.role(), RegionRole::Follower);
        assert_eq!(handle.grant(Epoch(2), at(8_900), L), Granted::Revived);
        assert!(handle.write_guard().is_ok());
    }

    #[test]
    fn a_grant_that_comes_after_its_own_deadline_revives_nothing() {
        let (clock, handle) = countdown();
        clock.set(9_000);
        assert_eq!(handle.grant(Epoch(2), at(5_100), L), Granted::Ignored);
        assert!(handle.write_guard().is_err());
    }

    #[test]
    fn an_answer_from_before_the_opening_says_nothing_about_it() {
        let (clock, handle) = countdown();
        assert_eq!(handle.grant(Epoch(2), at(4_999), L), Granted::Ignored);
        assert!(handle.is_newer_than(at(4_999)) && !handle.is_newer_than(at(5_000)));
        handle.grant(Epoch(2), at(5_000), L);
        clock.set(5_100);
        handle.raise(OpenOptions::leader(Epoch(3)));
        assert!(handle.write_guard().is_err(), "a raised epoch takes the right away");
        assert_eq!(handle.grant(Epoch(3), at(5_050), L), Granted::Ignored);
        assert_eq!(handle.grant(Epoch(3), at(5_100), L), Granted::Revived);
    }

    #[test]
    fn a_closed_region_stays_closed_and_its_roles_are_told_once() {
        let (clock, handle) = countdown();
        assert_eq!(handle.role_to_tell(), None, "read-only is what an opened region is");
        handle.grant(Epoch(2), at(5_000), L);
        assert_eq!(handle.role_to_tell(), Some((Epoch(2), RegionRole::Leader)));
        assert_eq!(handle.role_to_tell(), None);
        clock.set(6_000);
        assert_eq!(handle.role_to_tell(), Some((Epoch(2), RegionRole::Follower)));
        handle.close();
        assert_eq!(handle.grant(Epoch(2), at(6_000), L), Granted::Ignored);
        assert_eq!(handle.write_guard().unwrap_err(), NotWritable::NotOpen(REGION));
    }
    /// Goal: after a stop nothing that is granted for the epoch counts, also where it was under way; a raised epoch counts
    /// again. Method: stop between a request and its answer, with a write under way.
    #[tokio::test]
    async fn a_stopped_region_refuses_its_epoch_for_good_and_waits_for_its_writes() {
        let (_, handle) = countdown();
        handle.grant(Epoch(2), at(5_000), L);
        let guard = handle.write_guard().unwrap();
        handle.stop(Epoch(2));
        assert_eq!(handle.write_guard().unwrap_err(), NotWritable::Downgraded(REGION));
        assert_eq!(handle.role(), RegionRole::Downgrading);
        assert_eq!(handle.grant(Epoch(2), at(5_000), L), Granted::Ignored, "a late answer");
        assert_eq!(guard.check(), Ok(()), "what was under way may end");
        let waits = tokio::time::timeout(Duration::from_millis(20), handle.writes.ended()).await;
        assert!(waits.is_err(), "a write is under way");
        drop(guard);
        tokio::time::timeout(Duration::from_secs(20), handle.writes.ended()).await.expect("none is left");
        handle.raise(OpenOptions::leader(Epoch(3)));
        assert_eq!(handle.role(), RegionRole::Follower);
        assert_eq!(handle.grant(Epoch(3), at(5_000), L), Granted::Revived);
        assert!(handle.write_guard().is_ok());
    }

    #[test]
    fn a_candidate_is_granted_nothing_until_it_leads_under_a_higher_epoch() {
        let clock = Arc::new(ManualClock::default());
        let handle = CountdownTaskHandle::new(
            REGION,
            OpenOptions::candidate(Epoch(2)),
            Epoch(0),
            Arc::default(),
            clock.clone(),
        );
        assert_eq!(handle.grant(Epoch(2), at(0), L), Granted::Ignored);
        assert_eq!(handle.write_guard().unwrap_err(), NotWritable::Candidate(REGION));
        handle.raise(OpenOptions::leader(Epoch(2)));
        assert_eq!(handle.held(), OpenOptions::candidate(Epoch(2)), "the same epoch has another leader");
        handle.raise(OpenOptions::leader(Epoch(3)));
        assert_eq!(handle.grant(Epoch(3), at(0), L), Granted::Revived);
    }
}
