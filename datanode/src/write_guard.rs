//! The right to write one batch to one region, and the count of the writes that are under way.
//!
//! A guard is held for as long as its write takes, and dropped when the write was answered: that is how a region that is
//! told to stop writing knows when the last write has ended. Time alone cannot tell it: a write that was begun before may
//! still be on its way to the storage.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use metasrv_core::id::{Epoch, RegionId};
use metasrv_core::time::{BootTime, Clock};
use tokio::sync::Notify;

/// The right to write one batch to one region.
///
/// Take one per batch, hand [`WriteGuard::epoch`] to the storage, and [`WriteGuard::check`] it again once the storage
/// has answered, before the write is acknowledged; then drop it. A region that is told to stop writing waits for every
/// guard to be dropped, so none should be kept longer than its write. Between a check and the write a thread may be
/// paused for any time: only a storage that rejects old epochs closes that gap.
#[derive(Clone)]
#[must_use = "a right that nobody checks protects nothing"]
pub struct WriteGuard {
    region: RegionId,
    epoch: Epoch,
    until: BootTime,
    clock: Arc<dyn Clock>,
    _under_way: UnderWay,
}

impl WriteGuard {
    pub(crate) fn new(
        region: RegionId,
        epoch: Epoch,
        until: BootTime,
        clock: Arc<dyn Clock>,
        writes: &Arc<Writes>,
    ) -> WriteGuard {
        WriteGuard { region, epoch, until, clock, _under_way: UnderWay::begin(writes) }
    }

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

/// The writes of one region that are under way: its guards that were not dropped yet.
#[derive(Default, Debug)]
pub(crate) struct Writes {
    guards: AtomicUsize,
    ended: Notify,
}

impl Writes {
    /// Resolves once no guard is left. Means something only after the giving of guards was stopped.
    pub(crate) async fn ended(&self) {
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            // From here on no end is missed, also one between the look and the wait.
            ended.as_mut().enable();
            if self.guards.load(Ordering::Acquire) == 0 {
                return;
            }
            ended.await;
        }
    }
}

/// One write under way.
struct UnderWay(Arc<Writes>);

impl UnderWay {
    fn begin(writes: &Arc<Writes>) -> UnderWay {
        writes.guards.fetch_add(1, Ordering::AcqRel);
        UnderWay(Arc::clone(writes))
    }
}

impl Clone for UnderWay {
    fn clone(&self) -> UnderWay {
        UnderWay::begin(&self.0)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if self.0.guards.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.ended.notify_waiters();
        }
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
    /// It was told to stop writing under the epoch it is held under.
    #[error("region {0} is read-only: it is being moved to another node")]
    Downgraded(RegionId),
    /// It is open beside its leader.
    #[error("region {0} is read-only here: this node is a candidate to lead it")]
    Candidate(RegionId),
}

impl NotWritable {
    pub(crate) fn expired(region: RegionId, until: BootTime, now: BootTime) -> NotWritable {
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

    /// Goal: the end of the last write is seen, whichever of its guards ends last. Method: a guard, its clone, and a
    /// wait that is begun before the last of them is dropped.
    #[tokio::test]
    async fn writes_have_ended_when_the_last_guard_is_dropped() {
        let writes = Arc::new(Writes::default());
        writes.ended().await;
        let until = BootTime::from_millis(9);
        let guard = WriteGuard::new(RegionId(1), Epoch(1), until, Arc::new(ManualClock::default()), &writes);
        let other = guard.clone();
        drop(guard);
        let waiting = tokio::spawn({
            let writes = Arc::clone(&writes);
            async move { writes.ended().await }
        });
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(!waiting.is_finished(), "a clone is a write as well");
        drop(other);
        tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("it ends").unwrap();
    }
}
