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
    /// It is read-only: no lease was granted yet, or the last one ran out, or it is open as a candidate.
    Follower,
    /// It was told to stop writing, and will not write under its present epoch again.
    Downgrading,
}

impl RegionRole {
    /// Its name in logs.
    pub fn name(self) -> &'static str {
        match self {
            RegionRole::Leader => "leader",
            RegionRole::Follower => "follower",
            RegionRole::Downgrading => "downgrading",
        }
    }
}

/// What a region is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenAs {
    /// To write to it, once a lease is granted for its epoch.
    Leader,
    /// To become the successor of the leader that has its epoch and goes on writing: read-only, and never granted anything.
    Candidate,
}

/// How a region is to be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenOptions {
    /// As a leader: its own. As a candidate: that of the present leader.
    pub epoch: Epoch,
    /// What for.
    pub kind: OpenAs,
}

impl OpenOptions {
    /// To lead it under this epoch.
    pub fn leader(epoch: Epoch) -> OpenOptions {
        OpenOptions { epoch, kind: OpenAs::Leader }
    }

    /// Beside the leader that has this epoch.
    pub fn candidate(epoch: Epoch) -> OpenOptions {
        OpenOptions { epoch, kind: OpenAs::Candidate }
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
#[error("{message}")]
pub struct RegionError {
    /// For people.
    pub message: String,
    /// The epoch of the storage, where that refused because it is not lower than the one that was offered. metasrv has to
    /// exceed it: after a restored backup it may not know of it.
    pub storage_epoch: Option<Epoch>,
}

impl RegionError {
    /// A reason that has nothing to do with epochs.
    pub fn new(message: impl Into<String>) -> RegionError {
        RegionError { message: message.into(), storage_epoch: None }
    }
}

/// The regions of a datanode, as its process hosts them.
///
/// Whether a region may be *written* to is not asked here but of
/// [`RegionAliveKeeper::write_guard`](crate::RegionAliveKeeper::write_guard), for each batch of writes: roles tell an
/// embedder what to expect (whether background work makes sense), a guard is the right itself.
///
/// For one region the SDK calls these methods one after another, for different regions beside each other, and `set_role`
/// beside all of them. Each is repeated where a reply was lost, so each has to be idempotent.
///
/// ```text
/// node A   open(5, leader)  ...writes...  flush  downgrade(5)                          close
/// node B                    open(5, candidate)               catch_up  upgrade(6)  ...writes...
/// ```
///
/// An embedder whose regions are opened quickly implements the first five methods and leaves the others as they are.
#[async_trait]
pub trait RegionServer: Send + Sync + 'static {
    /// Opens a region, or takes note of a higher epoch of one that is open, perhaps for another purpose than before.
    ///
    /// As a **leader**, the storage must refuse writers of lower epochs from now on. The order matters: raise its epoch,
    /// durably; then read to its end; then return. What an older leader was acknowledged before is found by that reading,
    /// and what it writes afterwards is refused.
    ///
    /// As a **candidate**, nothing may be changed: the leader goes on writing.
    ///
    /// # Errors
    /// The region is not open then; metasrv repeats the instruction.
    async fn open(&self, region: RegionId, options: OpenOptions) -> Result<(), RegionError>;

    /// Closes a region; its data stays. Closing one that is not open is a success.
    ///
    /// # Errors
    /// The region counts as open then; metasrv repeats the instruction.
    async fn close(&self, region: RegionId) -> Result<(), RegionError>;

    /// A region's role has changed.
    async fn set_role(&self, region: RegionId, epoch: Epoch, role: RegionRole);

    /// Makes everything that was written to a region durable, where another node can read it.
    ///
    /// # Errors
    /// Not everything is.
    async fn flush(&self, region: RegionId) -> Result<(), RegionError>;

    /// What is known of the open regions. Called for each heartbeat, so it should not wait for anything.
    fn stats(&self) -> Vec<RegionStat>;

    /// The region is not written to any more under this epoch: the SDK refuses it, and no
    /// [`WriteGuard`](crate::WriteGuard) is left. Says the last position that was written, or 0 where positions mean
    /// nothing here. When it returns, everything that was acknowledged must be durable where another node can read it.
    /// Nobody can write meanwhile, so it should be quick: metasrv asks for a flush before.
    ///
    /// # Errors
    /// Not everything is durable. The region stays read-only here; metasrv asks again, or undoes the migration.
    async fn downgrade(&self, region: RegionId, _epoch: Epoch) -> Result<u64, RegionError> {
        self.flush(region).await.map(|()| 0)
    }

    /// Reads, as a candidate, what was written up to this position; 0: to the end. Says how far it came. What is not read
    /// here has to be read by `upgrade`, while nobody can write: leaving it undone is slow, and not wrong.
    ///
    /// # Errors
    /// The region cannot be read; the migration is undone.
    async fn catch_up(&self, _region: RegionId, position: u64) -> Result<u64, RegionError> {
        Ok(position)
    }

    /// Leads an open region under a higher epoch, from which it was a candidate or read-only until now. What is said of
    /// `open` as a leader holds here: raise the storage's epoch, durably; then read to its end; then return.
    ///
    /// # Errors
    /// It is still what it was; metasrv repeats the instruction.
    async fn upgrade(&self, region: RegionId, epoch: Epoch) -> Result<(), RegionError> {
        self.open(region, OpenOptions::leader(epoch)).await
    }
}

/// A region was opened or closed in this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegionServerEvent {
    /// It is open under this epoch. It may not be written to before a lease is granted for that epoch.
    Registered(RegionId, Epoch),
    /// It is open read-only beside the leader that has this epoch.
    RegisteredCandidate(RegionId, Epoch),
    /// It is not open any more.
    Deregistered(RegionId),
}

/// The end into which an embedder tells openings and closings of its own (at its start, say). What instructions open and
/// close, the keeper knows at once.
pub type RegionEventSender = mpsc::Sender<RegionServerEvent>;

/// The end that a [`HeartbeatTask`](crate::HeartbeatTask) takes.
pub type RegionEventReceiver = mpsc::Receiver<RegionServerEvent>;

/// Both ends.
pub fn region_events() -> (RegionEventSender, RegionEventReceiver) {
    mpsc::channel(EVENTS)
}
