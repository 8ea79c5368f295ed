//! Keeps the countdowns of all open regions: a grant moves deadlines, a passed deadline makes a region read-only.
//!
//! However many regions there are, one task and one timer look after them. A region's deadline stands in the heap once:
//! a renewal does not touch the heap, it only moves the deadline in the region's countdown; when the old deadline comes,
//! the region is looked at and put back under its present one. So ten thousand renewals a second cost ten thousand
//! stores, and the heap sees each region once per lease.
//!
//! The timer is a courtesy to the embedder, who is told about roles. Whether a region may be written to is decided by
//! comparing its deadline with the clock, whenever a [`WriteGuard`] is taken or checked.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use futures_util::FutureExt as _;
use metasrv_core::id::{Epoch, RegionId};
use metasrv_core::time::{BootTime, Clock};
use metasrv_proto::meta;
use tokio::sync::Notify;

use crate::countdown::{CountdownTaskHandle, Granted};
use crate::region_server::{
    OpenAs, OpenOptions, RegionEventReceiver, RegionRole, RegionServer, RegionServerEvent, RegionStat,
};
use crate::response::{HandleControl, HandlerError, HeartbeatResponseHandler, ResponseContext};
use crate::write_guard::{NotWritable, WriteGuard, Writes};

/// The timer sleeps no longer than this: its clock stands still while the machine sleeps, the deadlines' does not.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// See the module.
pub struct RegionAliveKeeper {
    /// When this keeper was created. Requests carry the time since then, and answers bring it back.
    epoch: BootTime,
    clock: Arc<dyn Clock>,
    server: Arc<dyn RegionServer>,
    regions: RwLock<BTreeMap<RegionId, CountdownTaskHandle>>,
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
    /// A keeper without regions. Its epoch is this instant.
    pub fn new(server: Arc<dyn RegionServer>, clock: Arc<dyn Clock>) -> RegionAliveKeeper {
        RegionAliveKeeper {
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
        self.regions.read().unwrap_or_else(PoisonError::into_inner).get(&region).cloned()
    }

    /// How many regions are open.
    pub fn len(&self) -> usize {
        self.regions.read().unwrap_or_else(PoisonError::into_inner).len()
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
        let regions = self.regions.read().unwrap_or_else(PoisonError::into_inner);
        regions
            .values()
            .any(|open| open.held().kind == OpenAs::Candidate || open.role() != RegionRole::Leader)
    }

    /// Every open region as a heartbeat reports it, in the order of ids.
    pub(crate) fn report(&self) -> Vec<meta::RegionStat> {
        let stats: HashMap<RegionId, RegionStat> =
            self.server.stats().into_iter().map(|stat| (stat.region, stat)).collect();
        let unknown = RegionStat::default();
        let regions = self.regions.read().unwrap_or_else(PoisonError::into_inner);
        let describe = |(region, handle): (&RegionId, &CountdownTaskHandle)| {
            let stat = stats.get(region).unwrap_or(&unknown);
            let role = match handle.role() {
                RegionRole::Leader => meta::RegionRole::Leader,
                RegionRole::Follower => meta::RegionRole::Follower,
                RegionRole::Downgrading => meta::RegionRole::DowngradingLeader,
            };
            let held = handle.held();
            meta::RegionStat {
                region_id: region.0,
                rcus: stat.rcus,
                wcus: stat.wcus,
                approximate_bytes: stat.approximate_bytes,
                engine: stat.engine.clone(),
                role: role.into(),
                epoch: held.epoch.0,
                candidate: held.kind == OpenAs::Candidate,
                ..meta::RegionStat::default()
            }
        };
        regions.iter().map(describe).collect()
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
        if let Some(open) = self.region(region) {
            open.stop(epoch);
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
        match regions.get(&region) {
            Some(open) if epoch > open.epoch() => {
                tracing::info!(%region, from = %open.epoch(), %epoch, ?kind, "region held under a higher epoch");
                open.raise(options);
                self.tell(region);
            }
            Some(_) => return false,
            None => {
                tracing::info!(%region, %epoch, ?kind, "region opened");
                let clock = Arc::clone(&self.clock);
                // Read under the lock above: a stop is seen here, or it finds the region.
                let (stopped, writes) = (self.stopped(region), self.count_writes(region, regions.len()));
                let handle = CountdownTaskHandle::new(region, options, stopped, writes, clock);
                regions.insert(region, handle);
            }
        }
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
        let removed = self.regions.write().unwrap_or_else(PoisonError::into_inner).remove(&region);
        let Some(open) = removed else { return false };
        open.close();
        tracing::info!(%region, epoch = %open.epoch(), "region closed");
        true
    }

    fn grant(&self, lease: &meta::RegionLease) -> Result<(), String> {
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
        let regions = self.regions.read().unwrap_or_else(PoisonError::into_inner);
        let mut revived = BTreeSet::new();
        for granted in lease.regions.iter().filter(|granted| granted.role() == meta::RegionRole::Leader) {
            let region = RegionId(granted.region_id);
            let Some(open) = regions.get(&region) else { continue };
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

    /// Takes openings and closings, and watches deadlines, until nobody can tell of either any more.
    pub(crate) async fn run(self: Arc<Self>, mut events: RegionEventReceiver) {
        let mut deadlines = Deadlines::default();
        loop {
            let sleep = deadlines.earliest().map_or(LONGEST_SLEEP, |at| at.since(self.clock.now()));
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Some(event) => self.take(event),
                    None => return,
                },
                () = self.revival.notified() => {}
                () = tokio::time::sleep(sleep.min(LONGEST_SLEEP)) => {}
            }
            self.look(&mut deadlines);
        }
    }

    /// Puts revived regions under watch, and looks at those whose deadline may have passed.
    fn look(&self, deadlines: &mut Deadlines) {
        let revived = std::mem::take(&mut *self.revived.lock().unwrap_or_else(PoisonError::into_inner));
        for region in revived {
            if let Some(at) = self.region(region).and_then(|open| open.watch()) {
                deadlines.add(at, region);
            }
            self.tell(region);
        }
        let now = self.clock.now();
        while let Some(region) = deadlines.next_due(now) {
            let Some(open) = self.region(region) else { continue };
            match open.look() {
                Some(at) => deadlines.add(at, region),
                None => self.tell(region),
            }
        }
    }

    fn tell(&self, region: RegionId) {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner).insert(region);
        self.telling.notify_one();
    }

    /// Tells the embedder about roles, one after another. Slowness there delays nothing but this.
    pub(crate) async fn tell_roles(self: Arc<Self>) {
        loop {
            self.telling.notified().await;
            let untold = std::mem::take(&mut *self.untold.lock().unwrap_or_else(PoisonError::into_inner));
            for region in untold {
                let Some((epoch, role)) = self.region(region).and_then(|open| open.role_to_tell()) else {
                    continue;
                };
                match role {
                    RegionRole::Leader => tracing::info!(%region, %epoch, "region is writable"),
                    RegionRole::Follower => {
                        tracing::warn!(%region, %epoch, "region is read-only until a lease is granted")
                    }
                    RegionRole::Downgrading => {
                        tracing::info!(%region, %epoch, "region is read-only under this epoch for good")
                    }
                }
                self.note_change();
                self.server.set_role(region, epoch, role).await;
            }
        }
    }
}

impl HeartbeatResponseHandler for RegionAliveKeeper {
    fn name(&self) -> &'static str {
        "RegionAliveKeeper"
    }

    fn handle(&self, context: &mut ResponseContext<'_>) -> Result<HandleControl, HandlerError> {
        let Some(lease) = &context.response.region_lease else { return Ok(HandleControl::Continue) };
        context.sent_at = self.sent_at(lease.duration_since_epoch);
        match self.grant(lease) {
            Ok(()) => Ok(HandleControl::Continue),
            Err(why) => Err(HandlerError { handler: self.name(), why }),
        }
    }
}

/// When to look at which region, the earliest first.
#[derive(Default)]
struct Deadlines(BinaryHeap<Reverse<(BootTime, RegionId)>>);

impl Deadlines {
    fn add(&mut self, at: BootTime, region: RegionId) {
        self.0.push(Reverse((at, region)));
    }

    fn earliest(&self) -> Option<BootTime> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    fn next_due(&mut self, now: BootTime) -> Option<RegionId> {
        if self.earliest()? > now {
            return None;
        }
        self.0.pop().map(|Reverse((_, region))| region)
    }
}

#[cfg(test)]
#[path = "alive_keeper_tests.rs"]
mod tests;
