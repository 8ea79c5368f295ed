//! etcd: the only folder that names its client.
//!
//! The client has no default time-outs, never retries, and may keep choosing an endpoint that swallows packets. So:
//! one connection per endpoint, a deadline on each call, and the next endpoint after a failure ([`connection`]).

pub mod connection;
pub mod election;
pub mod members;
pub mod store;
pub mod watch;
