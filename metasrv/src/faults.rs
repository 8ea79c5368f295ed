//! Faults that somebody asks for, to see what becomes of them: `metasrv serve --fault-injection`, and nothing without it.
//!
//! | asked for by POST | what happens |
//! | --- | --- |
//! | `/faults/block-loop?ms=N` | the loop of the election stands still, and the rest goes on |
//! | `/faults/hold-heartbeats?ms=N` | no heartbeat is answered, and the rest goes on |

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metasrv_core::time::{BootTime, Clock};

/// A fault that lasts for longer than this teaches nothing more.
pub const LONGEST_FAULT: Duration = Duration::from_secs(60);

const NANOS_PER_MILLI: u64 = 1_000_000;

/// What a replica shall suffer. Clones share it.
#[derive(Clone, Default, Debug)]
pub struct Faults {
    block_ms: Arc<AtomicU64>,
    /// Heartbeats are held until then, in milliseconds of the boot-time clock.
    held_until_ms: Arc<AtomicU64>,
}

impl Faults {
    /// The loop of the election shall stand still for so long, as if it waited for what does not come, at most for
    /// [`LONGEST_FAULT`]. The rest of the process goes on. (A thread that blocks is another fault: it may hold up all of
    /// the runtime, and shows as a process that was stopped.)
    pub fn block_loop(&self, duration: Duration) {
        let millis = duration.min(LONGEST_FAULT).as_millis();
        self.block_ms.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// Heartbeats that come within so long shall not be answered before it is over, at most for [`LONGEST_FAULT`]. The
    /// rest of the process goes on, the election's loop with it.
    pub fn hold_heartbeats(&self, duration: Duration, now: BootTime) {
        let until = now + duration.min(LONGEST_FAULT);
        self.held_until_ms.store(until.as_nanos() / NANOS_PER_MILLI, Ordering::Release);
    }

    /// Called by each stream for each heartbeat. Costs one load where nothing is held.
    pub(crate) async fn hold_here(&self, clock: &dyn Clock) {
        let until = self.held_until_ms.load(Ordering::Acquire);
        if until > 0 {
            tokio::time::sleep(BootTime::from_millis(until).since(clock.now())).await;
        }
    }

    /// Called by the loop of the election each time that it turns.
    pub(crate) async fn block_here(&self) {
        let millis = self.block_ms.swap(0, Ordering::AcqRel);
        if millis > 0 {
            tracing::warn!(millis, "fault injected: the loop of the election stands still");
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
    }
}
