//! The system under test, as a user meets it: processes on free ports, spoken to by gRPC, HTTP and signals.
//!
//! | file | what |
//! | --- | --- |
//! | `wait.rs` | waiting on a condition with a deadline; the only way in which a test waits |
//! | `binaries.rs` | where the programs under test are, built once where they are not |
//! | `ports.rs` | ports that no other test takes meanwhile |
//! | `place.rs` | where a process runs: address and network namespace |
//! | `process.rs` | one process: started, signalled, gone with its test, its log shown when the test fails |
//! | `etcd.rs` | a real etcd of one or three members |
//! | `space.rs` | an etcd out of space, and room again |
//! | `cluster.rs` | etcd, replicas and datanodes together |
//! | `replica.rs` | one metasrv, and what can be asked of it |
//! | `secured.rs` | a cluster with certificates on both sides of every connection |
//! | `node.rs` | a heartbeat peer on the bare generated client, with or without our extensions |
//! | `fleet.rs` | many of them, keeping count of their leases |
//! | `metactl.rs` | metactl as a script runs it |
//! | `figures.rs` | figures as lines and as JSON |
//! | `chaos/` | what `make chaos` is made of: real faults, in a world of network namespaces |
//! | `compose/` | what `make test-compose` is made of: the cluster of deploy/compose in real containers |
//! | `manifests/` | what is true of compose.yaml and of the Kubernetes manifests, and no schema sees |
//! | `observe/` | the dashboard, and whether it, the alert rules and the runbook are true |
//! | `scale/` | what `make scale` is made of: many regions on many datanodes |

// A harness reports by panicking: the test that uses it fails with that message.
#![allow(clippy::panic)]

pub mod binaries;
pub mod chaos;
pub mod cluster;
pub mod compose;
pub mod etcd;
pub mod figures;
pub mod fleet;
pub mod manifests;
pub mod metactl;
pub mod node;
pub mod observe;
pub mod place;
pub mod ports;
pub mod process;
pub mod replica;
pub mod scale;
pub mod secured;
pub mod space;
pub mod wait;
