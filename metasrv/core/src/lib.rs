//! The pure core of metasrv: what can be decided without I/O is decided here.
//!
//! Nothing in this crate reads a clock, draws a random number, logs, or waits. `now` is always an argument,
//! randomness is a number that is handed in, iteration is ordered. The shells (`metasrv`, `datanode`) execute
//! what is decided here, and the same functions run in simulation and in the model checker.
//!
//! One file, one domain word:
//!
//! | file | what it decides |
//! | --- | --- |
//! | [`time`] | what an instant is, and the [`time::Clock`] that hands it in |
//! | [`id`] | the identities: nodes, incarnations, regions, terms, epochs, fences |
//! | [`timing`] | every duration, derived from a few inputs |
//! | [`lease`] | until when a leader leads and a datanode may write |
//! | [`election`] | one candidate's way to leadership and out of it |
//! | [`settlement`] | how long a new term waits for what its predecessors may have granted |
//! | [`incarnation`] | which process of a node may be granted leases |
//! | [`grant`] | which of the reported regions a heartbeat renews, opens, or closes |
//! | [`opening`] | what a node is told to open, and when again |
//! | [`placement`] | which node a new region goes to |
//! | [`stats`] | the epoch cache in front of the persisted stats |
//! | [`backlog`] | what waits to be written behind, coalesced and cut into batches |

pub mod backlog;
pub mod election;
pub mod grant;
pub mod id;
pub mod incarnation;
pub mod lease;
pub mod opening;
pub mod placement;
pub mod settlement;
pub mod stats;
pub mod time;
pub mod timing;
