//! What an embedder implements, [`RegionServer`], and what it says of its open regions, [`RegionServerEvent`].

use async_trait::async_trait;
use metasrv_core::id::{Epoch, RegionId};
use tokio::sync::mpsc;

/// Openings and closings that the keeper has not taken note of yet. It takes them at once; a burst is one instruction
/// of up to a thousand regions, and its sender waits for room.
const EVENTS: usize = 1_024;

/// What a datanode may do with a region at present.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegionRole {
    /// It may write, as long as a [`WriteGuard`](crate::WriteGuard) says so.
    Leader,
    /// It is read-only: no lease was granted yet, or the last one ran out.
    Follower,
}

impl RegionRole {
    /// Its name in logs.
    pub fn name(self) -> &'static str {
        match self {
            RegionRole::Leader => "leader",
            RegionRole::Follower => "follower",
        }
    }
}

/// What an embedder knows of one region, for the heartbeat.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RegionStat {
    /// The region.
    pub region: RegionId,
    /// Read capacity units since the last report.
    pub rcus: i64,
    /// Write capacity units since the last report.
    pub wcus: i64,
    /// Bytes it holds, about.
    pub approximate_bytes: i64,
    /// Name of its engine.
    pub engine: String,
}

/// Why an embedder did not do what was asked. The text goes to metasrv with the reply and into the log.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct RegionError(pub String);

/// The regions of a datanode, as its process hosts them.
///
/// Whether a region may be *written* to is not asked here but of
/// [`RegionAliveKeeper::write_guard`](crate::RegionAliveKeeper::write_guard), for each batch of writes: roles tell an
/// embedder what to expect (whether background work makes sense), a guard is the right itself.
///
/// The SDK calls `open`, `close` and `flush` one after another, and `set_role` beside them, one after another too.
/// All of them are repeated where a reply was lost, so each has to be idempotent.
#[async_trait]
pub trait RegionServer: Send + Sync + 'static {
    /// Opens a region under `epoch`, or takes note of a higher epoch of one that is open. The storage should refuse
    /// writers of lower epochs from now on: raise its epoch first, then read to its end, then write.
    ///
    /// # Errors
    /// The region is not open then; metasrv repeats the instruction.
    async fn open(&self, region: RegionId, epoch: Epoch) -> Result<(), RegionError>;

    /// Closes a region; its data stays. Closing one that is not open is a success.
    ///
    /// # Errors
    /// The region counts as open then; metasrv repeats the instruction.
    async fn close(&self, region: RegionId) -> Result<(), RegionError>;

    /// A region's role has changed.
    async fn set_role(&self, region: RegionId, epoch: Epoch, role: RegionRole);

    /// Makes everything that was written to a region durable.
    ///
    /// # Errors
    /// Not everything is.
    async fn flush(&self, region: RegionId) -> Result<(), RegionError>;

    /// What is known of the open regions. Called for each heartbeat, so it should not wait for anything.
    fn stats(&self) -> Vec<RegionStat>;
}

/// A region was opened or closed in this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegionServerEvent {
    /// It is open under this epoch. It may not be written to before a lease is granted for that epoch.
    Registered(RegionId, Epoch),
    /// It is not open any more.
    Deregistered(RegionId),
}

/// The end into which openings and closings are told. Instructions tell theirs by themselves; an embedder that opens
/// a region on its own (at its start, say) tells it here.
pub type RegionEventSender = mpsc::Sender<RegionServerEvent>;

/// The end that a [`HeartbeatTask`](crate::HeartbeatTask) takes.
pub type RegionEventReceiver = mpsc::Receiver<RegionServerEvent>;

/// Both ends.
pub fn region_events() -> (RegionEventSender, RegionEventReceiver) {
    mpsc::channel(EVENTS)
}
