//! Goal: migrations and drains reach their end, whatever happens on the way, and at no moment two nodes may write.
//! Method: leaders with their control loop on a memory store, in virtual time, and datanodes that obey instructions and report
//! by heartbeats; each heartbeat checks what it was granted against what the store says ([`shared`]).
//!
//! | file | what |
//! | --- | --- |
//! | `world.rs` | the store, one leader after another, and what is looked up at the end |
//! | `shared.rs` | what datanodes do by themselves, and what every heartbeat checks |
//! | `datanode.rs` | a datanode: what it holds, and how it carries out what it is told |
//! | `migrations.rs` | migrations that nothing disturbs; the gap; what is granted meanwhile |
//! | `undone.rs` | migrations that are undone, by what happens or by an operator |
//! | `leaders.rs` | migrations that another leader takes up |
//! | `store.rs` | a store that can be full, slow, or lose answers |
//! | `drains.rs` | drains |

mod datanode;
mod drains;
mod leaders;
mod migrations;
mod shared;
mod store;
mod undone;
mod world;

use std::time::Duration;

use metasrv_core::id::{ClusterId, Incarnation, NodeId, NodeKey, RegionId};

use crate::control::ControlError;
use crate::keys::Keys;

/// The region of node 1 that moves.
const REGION: RegionId = RegionId(101);

/// The epoch of every route at the begin.
const FIRST: u64 = 3;

fn keys() -> Keys {
    Keys::new("/test")
}

fn node(id: u64) -> NodeKey {
    NodeKey::datanode(ClusterId(0), NodeId(id))
}

fn process(id: u64) -> Incarnation {
    Incarnation { epoch: 7, nonce: id }
}

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn refused(result: Result<(), ControlError>, why: &str) {
    match result {
        Err(ControlError::Refused(words)) => assert!(words.contains(why), "{words:?} does not say {why:?}"),
        other => panic!("{other:?} is no refusal"),
    }
}
