//! Whole clusters in virtual time: the real server and the real SDK, over a model etcd and a faulty network, repeatable by a
//! seed.
//!
//! A run has one thread and one seed. Each process of the cluster has a tokio runtime of its own, driven a tick at a time; what it
//! opens and accepts goes over a simulated network; its clock is one that drifts; its random numbers come from the seed. Faults
//! happen for a while, and after each tick every invariant is looked at; then everything is healed, and all has to be well within
//! a bound. The same seed gives the same run, byte by byte.
//!
//! | file | what |
//! | --- | --- |
//! | `run.rs` | a run: the two phases, and what came of it |
//! | `world.rs` | the machines, what runs on them, and time |
//! | `settings.rs`, `fault.rs` | what a seed draws |
//! | `host.rs` | a machine's clock and its process |
//! | `net/` | the network |
//! | `etcd/` | the model etcd |
//! | `replica.rs`, `datanode.rs`, `operator.rs` | the processes |
//! | `storage.rs` | the storage that datanodes share |
//! | `invariant/` | the invariants, one a file |
//! | `entropy.rs` | random bytes and clocks of a thread that simulates |
//! | `trace.rs` | the hash of everything, and the lines for people |
//! | `plant.rs` | mistakes that it has to find |
//! | `report.rs` | what many runs say together |

pub mod datanode;
pub mod entropy;
pub mod etcd;
pub mod fault;
pub mod host;
pub mod invariant;
pub mod net;
pub mod operator;
pub mod plant;
pub mod replica;
pub mod report;
pub mod run;
pub mod settings;
pub mod storage;
pub mod trace;
pub mod world;
