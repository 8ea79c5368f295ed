//! Records of orders, and what they mean to this leader: times of the wall clock are turned into boot time here, and
//! nowhere else.

use std::time::Duration;

use metasrv_core::id::Term;
use metasrv_core::time::BootTime;
use metasrv_proto::admin::{FailoverOrderRecord, NodeOrderRecord};
use prost::Message;

use crate::mirror::state::Held;
use crate::record;
use crate::store::fenced::Write;
use crate::store::{Change, Record};

/// The longest pause, and the longest resumption.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 3_600);

/// The longest announced restart.
pub const LONGEST_RESTART: Duration = Duration::from_secs(3_600);

/// Who gives an order, and when.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// In the operator's words.
    pub reason: &'a str,
    /// The term that takes it.
    pub term: Term,
    /// The present instant.
    pub now: BootTime,
    /// The same by the wall clock, in milliseconds since 1970.
    pub wall_ms: u64,
}

/// What is wanted of a node.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct NodeOrder {
    /// As it is stored.
    pub record: NodeOrderRecord,
    /// Mod revision of the record; 0: there is none.
    pub revision: i64,
    /// [`BootTime::ZERO`]: no restart is announced.
    pub restarting_until: BootTime,
}

/// What is wanted of all failovers.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct FailoverOrder {
    /// As it is stored.
    pub record: FailoverOrderRecord,
    /// Mod revision of the record; 0: there is none.
    pub revision: i64,
    /// [`BootTime::ZERO`]: not paused.
    pub paused_until: BootTime,
    /// [`BootTime::ZERO`]: the brake decides.
    pub resumed_until: BootTime,
}

/// The write of a record of which this revision is known; 0: there is none.
pub fn put(key: String, message: &impl Message, expected_mod_revision: i64) -> Write {
    Write { change: Change::Put { key, value: record::encode(message) }, expected_mod_revision }
}

/// What was found. A record that cannot be understood orders nothing, but its revision counts: it can be written over.
pub fn held<M: Message + Default>(found: &Record) -> Held<M> {
    let value = record::decode(found).unwrap_or_else(|error| {
        tracing::error!(%error, "an order cannot be read; it orders nothing");
        M::default()
    });
    Held { value, revision: found.mod_revision }
}

/// When what begins now and lasts so long is over, by both clocks. Zero: it does not begin.
pub fn until(lasts: Duration, given: Given<'_>) -> (BootTime, u64) {
    if lasts.is_zero() {
        return (BootTime::ZERO, 0);
    }
    let lasts_ms = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
    (given.now + lasts, given.wall_ms.saturating_add(lasts_ms))
}

/// A time of the wall clock as boot time: what is left of it now, and never more than `longest`.
fn boot_time(until_ms: u64, longest: Duration, now: BootTime, wall_ms: u64) -> BootTime {
    match until_ms.saturating_sub(wall_ms) {
        0 => BootTime::ZERO,
        left => now + Duration::from_millis(left).min(longest),
    }
}

/// An order as it was stored.
pub fn node_order(held: Held<NodeOrderRecord>, now: BootTime, wall_ms: u64) -> NodeOrder {
    let restarting_until = boot_time(held.value.restarting_until_ms, LONGEST_RESTART, now, wall_ms);
    NodeOrder { record: held.value, revision: held.revision, restarting_until }
}

/// An order as it was stored.
pub fn failover_order(held: Held<FailoverOrderRecord>, now: BootTime, wall_ms: u64) -> FailoverOrder {
    FailoverOrder {
        paused_until: boot_time(held.value.paused_until_ms, LONGEST_PAUSE, now, wall_ms),
        resumed_until: boot_time(held.value.resumed_until_ms, LONGEST_PAUSE, now, wall_ms),
        record: held.value,
        revision: held.revision,
    }
}
