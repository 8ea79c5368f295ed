//! What `make chaos` is made of: real processes, real etcd, real faults, measured from outside.
//!
//! | file | what |
//! | --- | --- |
//! | `fault.rs` | the faults by their names |
//! | `network.rs` | a network namespace for each process, and black holes in it |
//! | `gateway.rs` | what is asked of etcd itself |
//! | `nodes.rs` | datanodes on the real SDK |
//! | `witness.rs` | raw streams that beat every few milliseconds, one faithful to each replica |
//! | `route_watch.rs` | frontends that watch routes, and when they saw each change |
//! | `writer.rs` | a client that creates regions meanwhile, and what must be there at the end |
//! | `ledger.rs` | every accepted heartbeat, and what follows from them |
//! | `servers.rs` | what every world has: etcd and the replicas |
//! | `world.rs` | all of that together |
//! | `round.rs` | one fault, healed, and what it cost |
//! | `summary.rs` | rounds as figures and as rows, with their targets |
//! | `page.rs` | docs/fault-matrix.md |
//! | `region/` | the faults of regions, with datanodes as processes |

pub mod fault;
pub mod gateway;
pub mod ledger;
pub mod network;
pub mod nodes;
pub mod page;
pub mod region;
pub mod round;
pub mod route_watch;
pub mod servers;
pub mod summary;
pub mod witness;
pub mod world;
pub mod writer;
