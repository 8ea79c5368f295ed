//! Watches the deadlines of a keeper's regions, and tells the embedder what has become of their roles.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use metasrv_core::id::RegionId;
use metasrv_core::time::BootTime;

use super::RegionAliveKeeper;
use crate::countdown::CountdownTaskHandle;
use crate::region_server::{RegionEventReceiver, RegionRole};

/// The timer sleeps no longer than this: its clock stands still while the machine sleeps, the deadlines' does not.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

impl RegionAliveKeeper {
    /// Takes openings and closings, and watches deadlines, until nobody can tell of either any more.
    pub(crate) async fn run(self: Arc<Self>, mut events: RegionEventReceiver) {
        let mut deadlines = Deadlines::default();
        loop {
            let all = deadlines.watches_all.then(|| self.all.until());
            let next = deadlines.earliest().into_iter().chain(all).min();
            let sleep = next.map_or(LONGEST_SLEEP, |at| at.since(self.clock.now()));
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
        let all_may_write = now < self.all.until();
        if deadlines.watches_all && !all_may_write {
            let open: Vec<CountdownTaskHandle> = self.open().iter().map(|(_, open)| open.clone()).collect();
            for open in open {
                // One that was renewed by itself goes on.
                if let Some(at) = open.watch() {
                    deadlines.add(at, open.region());
                }
                self.tell(open.region());
            }
        }
        deadlines.watches_all = all_may_write;
        while let Some(region) = deadlines.next_due(now) {
            let Some(open) = self.region(region) else { continue };
            match open.look() {
                Some(at) => deadlines.add(at, region),
                None => self.tell(region),
            }
        }
    }

    pub(super) fn tell(&self, region: RegionId) {
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

/// When to look at which region that has a deadline of its own, the earliest first.
#[derive(Default)]
struct Deadlines {
    own: BinaryHeap<Reverse<(BootTime, RegionId)>>,
    /// The deadline of all regions has to be looked at.
    watches_all: bool,
}

impl Deadlines {
    fn add(&mut self, at: BootTime, region: RegionId) {
        self.own.push(Reverse((at, region)));
    }

    fn earliest(&self) -> Option<BootTime> {
        self.own.peek().map(|Reverse((at, _))| *at)
    }

    fn next_due(&mut self, now: BootTime) -> Option<RegionId> {
        if self.earliest()? > now {
            return None;
        }
        self.own.pop().map(|Reverse((_, region))| region)
    }
}
