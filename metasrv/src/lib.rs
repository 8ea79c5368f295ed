//! The metadata server. ARCHITECTURE.md at the top of the repository has the map.

pub mod clock;
pub mod command;
pub mod config;
pub mod election;
pub mod etcd;
pub mod faults;
pub mod handler;
pub mod http;
pub mod keys;
pub mod leader;
pub mod logging;
pub mod mailbox;
pub mod metrics;
pub mod mirror;
pub mod observer;
pub mod playground;
pub mod probe;
pub mod pusher;
pub mod record;
pub mod reserve;
pub mod server;
pub mod standby;
pub mod store;
pub mod terms;
pub mod wire;
pub mod write_behind;
