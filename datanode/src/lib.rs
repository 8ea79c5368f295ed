//! The datanode SDK: what turns a process that hosts regions into a member of the cluster.
//!
//! Implement [`RegionServer`] (open, close, set role, flush, stats), start a [`HeartbeatTask`], and ask for a
//! [`WriteGuard`] before each batch of writes:
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use async_trait::async_trait;
//! use datanode::{Epoch, HeartbeatTask, HeartbeatTaskOptions, OpenOptions};
//! use datanode::{RegionError, RegionId, RegionRole, RegionServer, RegionStat};
//! use metasrv_client::{MetaClient, MetaClientConfig};
//! use metasrv_proto::meta::Role;
//!
//! struct Queues;
//!
//! #[async_trait]
//! impl RegionServer for Queues {
//!     async fn open(&self, region: RegionId, options: OpenOptions) -> Result<(), RegionError> {
//!         // Open the files of this region; as a leader, refuse writers of lower epochs from now on.
//!         println!("open {region} as a {:?} under {}", options.kind, options.epoch);
//!         Ok(())
//!     }
//!     async fn close(&self, region: RegionId) -> Result<(), RegionError> {
//!         println!("close {region}");
//!         Ok(())
//!     }
//!     async fn set_role(&self, region: RegionId, epoch: Epoch, role: RegionRole) {
//!         println!("{region} is {} under {epoch}", role.name());
//!     }
//!     async fn flush(&self, _: RegionId) -> Result<(), RegionError> {
//!         Ok(())
//!     }
//!     fn stats(&self) -> Vec<RegionStat> {
//!         Vec::new()
//!     }
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let peers = ["10.0.0.1:3002", "10.0.0.2:3002", "10.0.0.3:3002"];
//! let client = MetaClient::try_new(MetaClientConfig::new(peers, Role::Datanode, 1))?;
//! let task = HeartbeatTask::try_new(HeartbeatTaskOptions::new(client, "10.0.1.1:4001", Arc::new(Queues)))?;
//! task.start();
//!
//! let guard = task.keeper().write_guard(RegionId(7))?;
//! // Write, and tell the storage guard.epoch(). Then, before the write is acknowledged:
//! guard.check()?;
//! drop(guard); // The write has ended: a region that is being moved waits for that.
//! # Ok(())
//! # }
//! ```
//!
//! What holds without further care: a region may be written to only while a lease of its present epoch holds, counted
//! from the send time of the heartbeat that was answered, on a clock that counts time spent suspended. Without metasrv
//! every region turns read-only by itself, and is writable again as soon as a lease is granted. What the SDK cannot do
//! is to stop a thread that was paused between its check and its write: tell the storage the epoch.
//!
//! | file | what |
//! | --- | --- |
//! | `heartbeat_task.rs` | [`HeartbeatTask`]: its parts, its start and its end |
//! | `session.rs` | one stream after another: the loop, and the receiving half |
//! | `response.rs` | [`HeartbeatResponseHandler`] and the chain that runs them |
//! | `alive_keeper.rs` | [`RegionAliveKeeper`]: grants move deadlines, passed deadlines make regions read-only |
//! | `countdown.rs` | one region's deadline |
//! | `set_lease.rs` | the deadline of all regions at once, and which answers move it |
//! | `open_regions.rs` | the open regions, their digest, and what metasrv was not told of yet |
//! | `region_report.rs` | what a heartbeat says of the regions |
//! | `write_guard.rs` | the [`WriteGuard`] that compares it with the clock, and the count of writes under way |
//! | `mailbox.rs` | instructions in, replies out |
//! | `orders.rs` | the queues of what has to be done beside the stream |
//! | `instruction.rs`, `turns.rs` | carrying instructions out, for each region one after another |
//! | `region_server.rs` | [`RegionServer`], which an embedder implements |
//! | `reference/` | the binary `datanode`: regions that are small persistent key-value stores |

mod alive_keeper;
mod clock;
mod countdown;
mod heartbeat_task;
mod instruction;
mod mailbox;
mod open_regions;
mod orders;
mod region_report;
mod region_server;
mod response;
mod session;
mod set_lease;
mod turns;
mod write_guard;

#[cfg(test)]
mod tests;

pub use alive_keeper::RegionAliveKeeper;
pub use clock::SystemClock;
pub use countdown::{CountdownTask, CountdownTaskHandle};
pub use heartbeat_task::{HeartbeatTask, HeartbeatTaskOptions, InvalidOptions, TaskEnd, new_incarnation};
pub use mailbox::{Ended, HeartbeatMailbox, IncomingMessage, MessageMeta, OutgoingMessage};
pub use metasrv_client::wall_clock_ms;
pub use metasrv_core::id::{Epoch, Incarnation, RegionId};
pub use metasrv_core::time::{BootTime, Clock};
pub use metasrv_proto::admin::DirectoryLock;
pub use region_server::{
    OpenAs, OpenOptions, RegionError, RegionEventReceiver, RegionEventSender, RegionRole, RegionServer,
    RegionServerEvent, RegionStat, region_events,
};
pub use response::{
    HandleControl, HandlerError, HandlerGroupExecutor, HeartbeatResponseHandler, ResponseContext,
};
pub use write_guard::{NotWritable, WriteGuard};
