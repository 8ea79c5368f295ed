//! Keeps the countdowns of all open regions: a grant moves deadlines, a passed deadline makes a region read-only.
//!
//! However many regions there are, one task and one timer look after them. A leader that knows digests renews all of them by
//! moving one deadline (`set_lease.rs`), and it is that which the timer waits for. A region that was renewed by itself has a
//! deadline of its own, which stands in the heap once: a renewal does not touch the heap, it only moves the deadline in the
//! region's countdown; when the old deadline comes, the region is looked at and put back under its present one.
//!
//! The timer is a courtesy to the embedder, who is told about roles. Whether a region may be written to is decided by
//! comparing its deadline with the clock, whenever a [`WriteGuard`] is taken or checked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak};
use std::time::Duration;

use futures_util::FutureExt as _;
use metasrv_core::id::{Epoch, RegionId};
use metasrv_core::time::{BootTime, Clock};
use metasrv_proto::meta;
use tokio::sync::Notify;

use crate::countdown::{CountdownTaskHandle, Granted, Opening};
use crate::open_regions::OpenRegions;
use crate::region_report::{RegionReport, Said};
use crate::region_server::{OpenOptions, RegionRole, RegionServer, RegionServerEvent};
use crate::response::{HandleControl, HandlerError, HeartbeatResponseHandler, ResponseContext};
use crate::set_lease::{Answer, Sent, SetGrants, SetLease};
use crate::write_guard::{NotWritable, WriteGuard, Writes};

/// All regions are listed out of turn no more often than this, in milliseconds.
const LIST_PAUSE_MS: u64 = 500;

mod watch;

/// See the module.
pub struct RegionAliveKeeper {
    /// When this keeper was created. Requests carry the time since then, and answers bring it back.
    epoch: BootTime,
    clock: Arc<dyn Clock>,
    server: Arc<dyn RegionServer>,
    regions: RwLock<OpenRegions>,
    /// The lease of all regions at once.
    all: Arc<SetLease>,
    /// Taken behind the lock of the regions.
    set_grants: Mutex<SetGrants>,
    /// Taken before the lock of the regions.
    reports: Mutex<RegionReport>,
    /// metasrv wants to hear of all regions, and not of what has changed.
    list_wanted: AtomicBool,
    /// When all were listed last, as requests carry it.
    listed_at_ms: AtomicU64,
    /// The writes under way. Those of a region outlive its being closed, for as long as there are any.
    writes: Mutex<BTreeMap<RegionId, Weak<Writes>>>,
    /// The highest epoch of each region under which this process was told to stop writing. It outlives the region being
    /// closed: a few bytes for each region that was ever moved away.
    stopped: Mutex<BTreeMap<RegionId, Epoch>>,
    /// Regions that became writable since the task looked last.
    revived: Mutex<BTreeSet<RegionId>>,
    revival: Notify,
    /// Regions whose role may be another one than the embedder was told.
    untold: Mutex<BTreeSet<RegionId>>,
    telling: Notify,
    /// A region was opened, closed or raised, or changed its role: metasrv should hear of it now.
    changed: Notify,
    /// When that was last, as requests carry it.
    changed_at_ms: AtomicU64,
    /// The same, and metasrv waits for it.
    urgent: Notify,
}

impl RegionAliveKeeper {
    /// A keeper without regions. Its epoch is this instant. Each region's figures are reported at least once in
    /// `full_report_interval`.
    pub fn new(
        server: Arc<dyn RegionServer>,
        clock: Arc<dyn Clock>,
        full_report_interval: Duration,
    ) -> RegionAliveKeeper {
        RegionAliveKeeper {
            all: Arc::default(),
            set_grants: Mutex::default(),
            reports: Mutex::new(RegionReport::new(full_report_interval)),
            list_wanted: AtomicBool::new(false),
            listed_at_ms: AtomicU64::new(0),
            epoch: clock.now(),
            clock,
            server,
            regions: RwLock::default(),
            writes: Mutex::default(),
            stopped: Mutex::default(),
            revived: Mutex::default(),
            revival: Notify::new(),
            untold: Mutex::default(),
            telling: Notify::new(),
            changed: Notify::new(),
            changed_at_ms: AtomicU64::new(0),
            urgent: Notify::new(),
        }
    }

    /// The right to write one batch to a region, if there is one now.
    ///
    /// # Errors
    /// [`NotWritable`].
    pub fn write_guard(&self, region: RegionId) -> Result<WriteGuard, NotWritable> {
        self.region(region).ok_or(NotWritable::NotOpen(region))?.write_guard()
    }

    /// The countdown of an open region.
    pub fn region(&self, region: RegionId) -> Option<CountdownTaskHandle> {
        self.open().get(region).cloned()
    }

    /// How many regions are open.
    pub fn len(&self) -> usize {
        self.open().len()
    }

    fn open(&self) -> RwLockReadGuard<'_, OpenRegions> {
        self.regions.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_grants(&self) -> MutexGuard<'_, SetGrants> {
        self.set_grants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no region is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Milliseconds since this keeper was created, as a request of this moment carries them. Rounded down: a lease that
    /// counts from it ends early rather than late.
    pub fn duration_since_epoch_ms(&self) -> u64 {
        u64::try_from(self.clock.now().since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }

    /// The instant that an answer's `duration_since_epoch` stands for. `None` for one that lies in the future: no
    /// request of ours carried it.
    fn sent_at(&self, duration_since_epoch_ms: u64) -> Option<BootTime> {
        let sent_at = self.epoch + Duration::from_millis(duration_since_epoch_ms);
        (sent_at <= self.clock.now()).then_some(sent_at)
    }

    /// Whether somebody waits for a region of this node: one that is moving from or to it, or that it shall lead and has no lease
    /// for.
    pub(crate) fn is_awaited(&self) -> bool {
        let awaited = |open: &CountdownTaskHandle| open.role() != RegionRole::Leader;
        self.open().iter().any(|(_, open)| awaited(open))
    }

    /// What a heartbeat of this moment says of the regions, with the time that it carries: all of them, or the digest of all
    /// and what has changed since the heartbeat before it. `handshake`: it begins a stream.
    pub(crate) fn report(&self, handshake: bool, knows_sets: bool) -> (u64, Said) {
        let stats = self.server.stats();
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        // Read before the regions are: a region that is opened in between is newer than this request.
        let duration_ms = self.duration_since_epoch_ms();
        let wanted = self.list_wanted.swap(false, Ordering::AcqRel);
        let mut open = self.regions.write().unwrap_or_else(PoisonError::into_inner);
        let said = if handshake || wanted || !knows_sets {
            self.listed_at_ms.store(duration_ms, Ordering::Release);
            reports.complete(&mut open, stats, duration_ms)
        } else {
            reports.changes(&mut open, stats, duration_ms)
        };
        let mut grants = self.set_grants();
        if handshake {
            grants.new_stream();
        }
        grants.send(Sent { duration_ms, version: open.version(), digest: open.digest() });
        (duration_ms, said)
    }

    /// The leader does not know any more what is open here.
    fn list_is_wanted(&self) {
        self.list_wanted.store(true, Ordering::Release);
        let since = self.duration_since_epoch_ms().saturating_sub(self.listed_at_ms.load(Ordering::Acquire));
        // Else with the next heartbeat: two that never agree must not talk without a pause.
        if since >= LIST_PAUSE_MS {
            self.report_now();
        }
    }

    /// Resolves when metasrv should hear of a change now. Changes that come together are one.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Asks for a heartbeat now, without waiting for further changes.
    pub(crate) fn report_now(&self) {
        self.urgent.notify_one();
    }

    /// Resolves when a heartbeat should go out now. It reports every change so far; whether none of them has to be reported
    /// once more, because one is of the same millisecond and a lease for it would not count, is returned.
    pub(crate) async fn urgent(&self) -> bool {
        self.urgent.notified().await;
        let counts = self.duration_since_epoch_ms() > self.changed_at_ms.load(Ordering::Acquire);
        if counts {
            let _ = self.changed().now_or_never();
        }
        counts
    }

    fn note_change(&self) {
        self.changed_at_ms.fetch_max(self.duration_since_epoch_ms(), Ordering::AcqRel);
        self.changed.notify_one();
    }

    /// Ends the right to write to a region under this epoch and older ones, for good, whether it is open or not.
    pub(crate) fn stop(&self, region: RegionId, epoch: Epoch) {
        {
            let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
            let highest = stopped.entry(region).or_default();
            *highest = (*highest).max(epoch);
        }
        // Whoever opens it from here on finds the number above.
        let mut open = self.regions.write().unwrap_or_else(PoisonError::into_inner);
        if open.get(region).is_some() {
            open.change(region, |open, _| open.stop(epoch));
            drop(open);
            tracing::info!(%region, %epoch, "region is not written to any more under this epoch");
            self.tell(region);
            self.note_change();
        }
    }

    /// The highest epoch of a region under which this process was told to stop writing.
    pub(crate) fn stopped(&self, region: RegionId) -> Epoch {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        stopped.get(&region).copied().unwrap_or_default()
    }

    /// Takes note of an opening or a closing.
    pub(crate) fn take(&self, event: RegionServerEvent) {
        let changed = match event {
            RegionServerEvent::Registered(region, epoch) => self.register(region, OpenOptions::leader(epoch)),
            RegionServerEvent::RegisteredCandidate(region, epoch) => {
                self.register(region, OpenOptions::candidate(epoch))
            }
            RegionServerEvent::Deregistered(region) => self.deregister(region),
        };
        if changed {
            self.note_change();
        }
    }

    fn register(&self, region: RegionId, options: OpenOptions) -> bool {
        let OpenOptions { epoch, kind } = options;
        let mut regions = self.regions.write().unwrap_or_else(PoisonError::into_inner);
        match regions.get(region) {
            Some(open) if epoch > open.epoch() => {
                tracing::info!(%region, from = %open.epoch(), %epoch, ?kind, "region held under a higher epoch");
                regions.change(region, |open, version| open.raise(options, version));
                self.tell(region);
            }
            Some(_) => return false,
            None => {
                tracing::info!(%region, %epoch, ?kind, "region opened");
                let (all, clock) = (Arc::clone(&self.all), Arc::clone(&self.clock));
                // Read under the lock above: a stop is seen here, or it finds the region.
                let (stopped, writes) = (self.stopped(region), self.count_writes(region, regions.len()));
                let opening = Opening { options, version: regions.next_version(), stopped, writes };
                regions.insert(region, CountdownTaskHandle::new(region, opening, all, clock));
            }
        }
        self.set_grants().changed(region, regions.version());
        true
    }

    fn count_writes(&self, region: RegionId, open: usize) -> Arc<Writes> {
        let mut all = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(under_way) = all.get(&region).and_then(Weak::upgrade) {
            return under_way;
        }
        if all.len() > 2 * open + 64 {
            all.retain(|_, writes| writes.strong_count() > 0);
        }
        let writes = Arc::new(Writes::default());
        all.insert(region, Arc::downgrade(&writes));
        writes
    }

    /// The writes of a region that are under way, also where it was closed meanwhile. `None`: there are none.
    pub(crate) fn writes(&self, region: RegionId) -> Option<Arc<Writes>> {
        let all = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&region).and_then(Weak::upgrade)
    }

    fn deregister(&self, region: RegionId) -> bool {
        let mut regions = self.regions.write().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = regions.remove(region) else { return false };
        open.close();
        self.set_grants().closed(region);
        tracing::info!(%region, epoch = %open.epoch(), "region closed");
        true
    }

    fn grant(&self, lease: &meta::RegionLease, term: u64) -> Result<(), String> {
        let Some(sent_at) = self.sent_at(lease.duration_since_epoch) else {
            return Err(format!(
                "answers a request of {} ms, which was not sent yet",
                lease.duration_since_epoch
            ));
        };
        let length = match lease.lease_ms {
            // A peer that knows nothing of our extensions counts in seconds.
            0 => Duration::from_secs(lease.lease_seconds),
            millis => Duration::from_millis(millis),
        };
        let regions = self.open();
        let mut revived = BTreeSet::new();
        if let Some(renewed) = &lease.renewed_set {
            let answer = Answer { term, duration_ms: lease.duration_since_epoch, sent_at, length, renewed };
            self.set_grants().take(&answer, &self.all, &regions, self.clock.now(), &mut revived)?;
        }
        for granted in lease.regions.iter().filter(|granted| granted.role() == meta::RegionRole::Leader) {
            let region = RegionId(granted.region_id);
            let Some(open) = regions.get(region) else { continue };
            if open.grant(Epoch(granted.epoch), sent_at, length) == Granted::Revived {
                revived.insert(region);
            }
        }
        drop(regions);
        if !revived.is_empty() {
            self.revived.lock().unwrap_or_else(PoisonError::into_inner).append(&mut revived);
            self.revival.notify_one();
        }
        Ok(())
    }
}

impl HeartbeatResponseHandler for RegionAliveKeeper {
    fn name(&self) -> &'static str {
        "RegionAliveKeeper"
    }

    fn handle(&self, context: &mut ResponseContext<'_>) -> Result<HandleControl, HandlerError> {
        if context.response.list_regions {
            self.list_is_wanted();
        }
        let Some(lease) = &context.response.region_lease else { return Ok(HandleControl::Continue) };
        context.sent_at = self.sent_at(lease.duration_since_epoch);
        match self.grant(lease, context.term()) {
            Ok(()) => Ok(HandleControl::Continue),
            Err(why) => Err(HandlerError { handler: self.name(), why }),
        }
    }
}

#[cfg(test)]
#[path = "alive_keeper_tests.rs"]
mod tests;
