//! The model: a search through everything that leases, elections and moves of regions can do within stated bounds.
//!
//! What is searched is the core itself ([`metasrv_core_proof`] is `metasrv-core`, compiled once more with switches that
//! remove a rule). The models here are the world around it: etcd, the network, the clocks, and as little of the shell as
//! carries the core's decisions from one to another. What the shell guards by itself is in [`slip`].
//!
//! | file | what |
//! | --- | --- |
//! | `clock.rs` | ticks, clocks that run too fast or too slow, and the durations of the models |
//! | `region/` | leases and moves: two replicas of metasrv, two nodes of which one restarts, one region |
//! | `slip.rs` | mistakes that a shell could make, to show that the searches would find them |
//! | `search.rs` | one search: runs it, and says what it found |
//! | `mutation.rs` | which search must miss which rule, and in how many states |

pub mod clock;
pub mod mutation;
pub mod region;
pub mod search;
pub mod slip;
