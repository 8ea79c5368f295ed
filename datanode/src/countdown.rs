//! The countdown of one region: until when it may be written to, compared with the clock at each use.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metasrv_core::id::{Epoch, RegionId};
use metasrv_core::lease::RegionLease;
use metasrv_core::time::{BootTime, Clock};

use crate::region_server::RegionRole;

/// The state of one open region. There is no timer in it: whoever asks compares its deadline with the clock, and
/// the keeper's one task tells the embedder when a deadline has passed.
#[derive(Debug)]
pub struct CountdownTask {
    lease: RegionLease,
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
    /// The countdown of a region that was just opened: no lease yet.
    pub(crate) fn new(region: RegionId, epoch: Epoch, clock: Arc<dyn Clock>) -> CountdownTaskHandle {
        let held_since = clock.now();
        let lease = RegionLease::opened(epoch);
        let task =
            CountdownTask { lease, held_since, told: RegionRole::Follower, watched: false, closed: false };
        CountdownTaskHandle { region, task: Arc::new(Mutex::new(task)), clock }
    }

    /// The region.
    pub fn region(&self) -> RegionId {
        self.region
    }

    /// The epoch it is held under.
    pub fn epoch(&self) -> Epoch {
        self.locked().lease.epoch()
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
        let now = self.clock.now();
        if !task.lease.is_valid(now) {
            return Err(NotWritable::expired(self.region, task.lease.until(), now));
        }
        let (epoch, until) = (task.lease.epoch(), task.lease.until());
        Ok(WriteGuard { region: self.region, epoch, until, clock: Arc::clone(&self.clock) })
    }

    /// Takes a grant that answers a request of `sent_at`.
    pub(crate) fn grant(&self, epoch: Epoch, sent_at: BootTime, length: Duration) -> Granted {
        let mut task = self.locked();
        if task.closed || sent_at < task.held_since {
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
    pub(crate) fn raise(&self, epoch: Epoch) {
        let mut task = self.locked();
        if epoch > task.lease.epoch() {
            task.lease.raise(epoch);
            task.held_since = self.clock.now();
        }
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
        let watches = !task.watched && !task.closed && task.lease.is_valid(self.clock.now());
        task.watched |= watches;
        watches.then(|| task.lease.until())
    }

    /// Looks at its deadline: the instant at which to look again, or nothing once it has passed.
    pub(crate) fn look(&self) -> Option<BootTime> {
        let mut task = self.locked();
        task.watched = !task.closed && task.lease.is_valid(self.clock.now());
        task.watched.then(|| task.lease.until())
    }

    fn locked(&self) -> MutexGuard<'_, CountdownTask> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CountdownTask {
    fn role(&self, now: BootTime) -> RegionRole {
        if self.lease.is_valid(now) && !self.closed { RegionRole::Leader } else { RegionRole::Follower }
    }
}

impl fmt::Debug for CountdownTaskHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CountdownTaskHandle").field("region", &self.region).field("task", &self.task).finish()
    }
}

/// The right to write one batch to one region.
///
/// Take one per batch, hand [`WriteGuard::epoch`] to the storage, and [`WriteGuard::check`] it again once the storage
/// has answered, before the write is acknowledged. Between a check and the write a thread may be paused for any time:
/// only a storage that rejects old epochs closes that gap.
#[derive(Clone)]
#[must_use = "a right that nobody checks protects nothing"]
pub struct WriteGuard {
    region: RegionId,
    epoch: Epoch,
    until: BootTime,
    clock: Arc<dyn Clock>,
}

impl WriteGuard {
    /// The region.
    pub fn region(&self) -> RegionId {
        self.region
    }

    /// The epoch that the storage has to be told.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The instant at which this right ends. It does not move when the lease is renewed.
    pub fn until(&self) -> BootTime {
        self.until
    }

    /// Compares the deadline with the clock.
    ///
    /// # Errors
    /// [`NotWritable::Expired`] from the deadline on.
    pub fn check(&self) -> Result<(), NotWritable> {
        let now = self.clock.now();
        if now < self.until { Ok(()) } else { Err(NotWritable::expired(self.region, self.until, now)) }
    }
}

impl fmt::Debug for WriteGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WriteGuard { region, epoch, until, .. } = self;
        write!(f, "WriteGuard {{ region: {region}, epoch: {epoch}, until: {until:?} }}")
    }
}

/// Why a region may not be written to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotWritable {
    /// It is not open in this process.
    #[error("region {0} is not open on this node")]
    NotOpen(RegionId),
    /// It is open, and no lease was granted for the epoch it is held under.
    #[error("region {0} is read-only: it was not granted a lease yet")]
    NotLeased(RegionId),
    /// Its lease ran out.
    #[error("region {region} is read-only: its lease ended {ago:?} ago and was not renewed")]
    Expired {
        /// The region.
        region: RegionId,
        /// How long ago.
        ago: Duration,
    },
}

impl NotWritable {
    fn expired(region: RegionId, until: BootTime, now: BootTime) -> NotWritable {
        match until {
            BootTime::ZERO => NotWritable::NotLeased(region),
            until => NotWritable::Expired { region, ago: now.since(until) },
        }
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
        let handle = CountdownTaskHandle::new(REGION, Epoch(2), clock.clone());
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
        handle.raise(Epoch(3));
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
}
