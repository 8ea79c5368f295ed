//! [`MetaClient`]: how a node finds metasrv's leader, follows it, and speaks to it.
//!
//! Every role uses the same client: datanodes and frontends open a heartbeat stream with
//! [`MetaClient::heartbeat`], tools ask and change things with [`MetaClient::admin`]. It needs nothing but the
//! addresses of some replicas; who leads is asked, raced, remembered and asked again after any failure.
//!
//! | file | what |
//! | --- | --- |
//! | `config.rs` | [`MetaClientConfig`]: peers, identity, deadlines, limits; checked as a whole |
//! | `client.rs` | [`MetaClient`]: what all clones share: the leader, the highest term, the installation |
//! | `ask.rs` | the staggered race of `AskLeader` over shuffled peers |
//! | `standby.rs` | a connection to the replica that is next to lead, kept before it is needed |
//! | `heartbeat.rs` | one stream: handshake, [`HeartbeatSender`], [`HeartbeatStream`] |
//! | `unanswered.rs`, `suspicion.rs` | [`Suspicion`]: a leader that does not answer, and whether another one is there |
//! | `pace.rs` | the interval that metasrv dictates; [`Rhythm`]: when heartbeats are due, and when a new stream |
//! | `frontend.rs` | [`FrontendTask`]: keeps a frontend registered |
//! | `routes.rs`, `route_table.rs`, `route_follower.rs` | [`RouteCache`]: who leads each region, kept current from any replica |
//! | `admin.rs` | [`AdminClient`]: the calls behind `metactl`, which never repeat what may have been done |
//! | `operations.rs` | [`OperationsClient`]: what operators decide about nodes, regions and failovers |
//! | `call.rs` | how the calls of both find the leader, or any replica, and what is tried again |
//! | `certificate.rs` | `certify_end`: a supervisor tells that its process has ended |
//! | `dialer.rs` | [`Dialer`]: what opens connections |
//! | `channels.rs` | one HTTP/2 connection per address, dropped after a transport error |
//! | `back_off.rs` | how long to wait before the next attempt |
//! | `error.rs` | [`ClientError`] |
//!
//! Three rules hold everywhere. Every call has a deadline. Any transport error, whatever its code, means: connect
//! again and ask again who leads. An answer of a lower term than the highest one seen, or of another installation, is
//! refused (design 02 and 03).

mod admin;
mod ask;
mod back_off;
mod call;
mod certificate;
mod channels;
mod client;
mod config;
mod dialer;
mod error;
mod frontend;
mod heartbeat;
mod operations;
mod pace;
mod route_follower;
mod route_table;
mod routes;
mod standby;
mod suspicion;
mod unanswered;

// The tests of other crates use the rest of them.
#[cfg(test)]
#[allow(dead_code)]
mod fake;
#[cfg(test)]
#[allow(dead_code)]
mod fake_operations;
#[cfg(test)]
mod tests;

pub use admin::{AdminClient, NodeList, RegionList};
pub use back_off::{BackOff, Waits};
pub use client::{Leader, MetaClient};
pub use config::{ConfigError, KeepAlive, MetaClientConfig, Timeouts, Violation, parse_address};
pub use dialer::{Dialer, Network, Opening, Wire};
pub use error::ClientError;
pub use frontend::{FrontendOptions, FrontendTask};
pub use heartbeat::{HeartbeatSender, HeartbeatStream, wall_clock_ms};
pub use operations::OperationsClient;
pub use pace::{BadInterval, Rhythm, dictated_interval};
pub use route_table::{Route, RouteChange, RouteFollower, RouteState};
pub use routes::{RouteCache, RouteCacheCounts, RouteChanges};
pub use suspicion::Suspicion;
