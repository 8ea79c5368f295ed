//! What operators want of nodes and of failovers: kept as the store has it, and changed by fenced writes only.
//!
//! | order | record | it ends |
//! | --- | --- | --- |
//! | a node is cordoned | `order/node/…` | when it is uncordoned, or the node decommissioned |
//! | a node's restart is announced | `order/node/…` | at its time, or when it is taken back |
//! | failovers are paused | `order/failover` | at its time, or by a resumption |
//! | failovers go on whatever the brake sees | `order/failover` | at its time, or by another order |
//! | maintenance | `order/failover` | when it is switched off |
//!
//! Records name times of the wall clock, since the next leader may be another machine. Each is turned into boot time once, when
//! it is given or inherited: what was left then is what counts, and whoever sets a wall clock afterwards changes nothing. An
//! inherited time is never longer than an order may be, however far a clock was set back.
//!
//! | file | what |
//! | --- | --- |
//! | `orders.rs` | what is wanted, and the changes of it |
//! | `orders/record.rs` | records of the store, made into orders and back |
//! | `orders/commit.rs` | a change's way to the store, and the operator's answer |
//!
//! A change is made in three steps, because the loop does not wait for the store: it is prepared here, which marks its record
//! as changing; the caller commits the write on a task; and then it is [`Orders::committed`], or dropped where it failed. A
//! command that comes for a record which is changing waits here for its turn.

mod commit;
mod record;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use metasrv_core::brake::Brake;
use metasrv_core::id::{ClusterId, NodeId, NodeKey};
use metasrv_core::time::BootTime;
use metasrv_proto::admin::{FailoverOrderRecord, NodeOrderRecord};

pub use commit::Done;
pub(super) use commit::{Answer, Told, begin, begin_to_forget, done, turn};
use record::{FailoverOrder, NodeOrder, failover_order, held, node_order, put, until};
pub use record::{Given, LONGEST_PAUSE, LONGEST_RESTART};

use super::Command;
use crate::keys::Keys;
use crate::mirror::state::Held;
use crate::store::fenced::Write;
use crate::store::{Change as StoreChange, Record};

/// Commands that wait for a record to be changed. An operator's script has a handful under way.
const MOST_WAITING: usize = 64;

/// A record whose time is over is in nobody's way: where it could not be removed, it is tried again after so long.
const REST: Duration = Duration::from_secs(1);

/// What operators want, as the store has it.
#[derive(Default)]
pub struct Orders {
    nodes: BTreeMap<NodeKey, NodeOrder>,
    failover: FailoverOrder,
    /// Held by the change that is on its way; one that is dropped has let go of its record.
    changing: BTreeMap<Subject, Weak<()>>,
    waiting: VecDeque<(Subject, Command)>,
    /// Before that no record whose time is over is removed: the last attempt failed.
    resting_until: BootTime,
}

/// A record of an order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Subject {
    /// Of a node.
    Node(NodeKey),
    /// Of all failovers.
    Failover,
}

/// A change that is on its way to the store.
#[derive(Debug)]
#[must_use = "a change that is dropped was not made"]
pub struct Change {
    what: What,
    /// No other change of its record begins as long as this is held.
    _locked: Arc<()>,
}

#[derive(Debug)]
enum What {
    /// `None`: nothing is wanted of the node any more.
    Node(NodeKey, Option<NodeOrder>),
    Failover(FailoverOrder),
}

impl Change {
    fn subject(&self) -> Subject {
        match self.what {
            What::Node(node, _) => Subject::Node(node),
            What::Failover(_) => Subject::Failover,
        }
    }
}

impl Orders {
    /// What earlier terms left.
    pub fn load(
        nodes: Vec<(NodeKey, Held<NodeOrderRecord>)>,
        failover: Option<Held<FailoverOrderRecord>>,
        now: BootTime,
        wall_ms: u64,
    ) -> Orders {
        let nodes = nodes.into_iter().map(|(node, held)| (node, node_order(held, now, wall_ms)));
        let failover = failover.map(|held| failover_order(held, now, wall_ms)).unwrap_or_default();
        Orders { nodes: nodes.collect(), failover, ..Orders::default() }
    }

    /// Whether a node gets no more regions.
    pub fn cordoned(&self, node: &NodeKey) -> bool {
        self.nodes.get(node).is_some_and(|order| order.record.cordoned)
    }

    /// Until when the regions of a node wait for its announced restart. `None`: they do not.
    pub fn restarts_until(&self, node: &NodeKey, now: BootTime) -> Option<BootTime> {
        self.nodes.get(node).map(|order| order.restarting_until).filter(|until| now < *until)
    }

    /// Nodes whose regions wait for them, and until when.
    pub fn restarting(&self, cluster: ClusterId, now: BootTime) -> BTreeMap<NodeId, BootTime> {
        let of_cluster = self.nodes.iter().filter(|(node, _)| node.cluster == cluster);
        of_cluster
            .filter(|(_, order)| now < order.restarting_until)
            .map(|(node, order)| (node.id, order.restarting_until))
            .collect()
    }

    /// Whether nothing moves by itself.
    pub fn maintenance(&self) -> bool {
        self.failover.record.maintenance
    }

    /// What is wanted of all failovers, with the times that are over taken out.
    pub fn failovers(&self, now: BootTime) -> FailoverOrderRecord {
        let FailoverOrder { record, paused_until, resumed_until, .. } = &self.failover;
        let still = |until: BootTime, wall_ms| if now < until { wall_ms } else { 0 };
        let paused_until_ms = still(*paused_until, record.paused_until_ms);
        let resumed_until_ms = still(*resumed_until, record.resumed_until_ms);
        if paused_until_ms == 0 && resumed_until_ms == 0 && !record.maintenance {
            // The reason of an order that is over would explain nothing.
            return FailoverOrderRecord::default();
        }
        FailoverOrderRecord { paused_until_ms, resumed_until_ms, ..record.clone() }
    }

    /// Tells the brake of a pause or a resumption, or that neither lasts any more.
    pub fn apply_to(&self, brake: &mut Brake, now: BootTime) {
        let FailoverOrder { record, paused_until, resumed_until, .. } = &self.failover;
        if now < *paused_until {
            brake.pause(*paused_until, record.reason.clone());
        } else {
            brake.resume(*resumed_until);
        }
    }

    /// Cordons a node, or ends that. `None`: it is so already.
    pub fn cordon(
        &mut self,
        keys: &Keys,
        node: NodeKey,
        cordoned: bool,
        given: Given<'_>,
    ) -> Option<(Write, Change)> {
        let order = self.nodes.get(&node).cloned().unwrap_or_default();
        if order.record.cordoned == cordoned {
            return None;
        }
        let record = NodeOrderRecord { cordoned, ..order.record.clone() };
        Some(self.change_node(keys, node, NodeOrder { record, ..order }, given))
    }

    /// Announces that a node restarts, or with [`Duration::ZERO`] takes that back. `None`: nothing was announced.
    pub fn announce_restart(
        &mut self,
        keys: &Keys,
        node: NodeKey,
        lasts: Duration,
        given: Given<'_>,
    ) -> Option<(Write, Change)> {
        let order = self.nodes.get(&node).cloned().unwrap_or_default();
        if lasts.is_zero() && order.record.restarting_until_ms == 0 {
            return None;
        }
        let (restarting_until, restarting_until_ms) = until(lasts, given);
        let record = NodeOrderRecord { restarting_until_ms, ..order.record.clone() };
        Some(self.change_node(keys, node, NodeOrder { record, restarting_until, ..order }, given))
    }

    /// Forgets what is wanted of a node. `None`: nothing is.
    pub fn forget(&mut self, keys: &Keys, node: NodeKey) -> Option<(Write, Change)> {
        let revision = self.nodes.get(&node)?.revision;
        let change = StoreChange::Delete { key: keys.node_order(&node) };
        let write = Write { change, expected_mod_revision: revision };
        Some((write, self.begin(What::Node(node, None))))
    }

    /// An announced restart whose time is over, and of which nothing else is left: its record is to go.
    pub fn outlived(&mut self, keys: &Keys, now: BootTime) -> Option<(NodeKey, (Write, Change))> {
        if now < self.resting_until {
            return None;
        }
        let over = |order: &NodeOrder| !order.record.cordoned && order.restarting_until <= now;
        let is_free = |node: &NodeKey| !self.is_changing(Subject::Node(*node));
        let node =
            self.nodes.iter().find(|(node, order)| over(order) && is_free(node)).map(|(node, _)| *node)?;
        Some((node, self.forget(keys, node)?))
    }

    /// No failover begins for so long.
    pub fn pause(&mut self, keys: &Keys, lasts: Duration, given: Given<'_>) -> (Write, Change) {
        let (paused_until, paused_until_ms) = until(lasts, given);
        let record =
            FailoverOrderRecord { paused_until_ms, resumed_until_ms: 0, ..self.failover.record.clone() };
        let order = FailoverOrder {
            record,
            paused_until,
            resumed_until: BootTime::ZERO,
            revision: self.failover.revision,
        };
        self.change_failover(keys, order, given)
    }

    /// A pause ends, and for so long failovers go on whatever the brake sees.
    pub fn resume(&mut self, keys: &Keys, lasts: Duration, given: Given<'_>) -> (Write, Change) {
        let (resumed_until, resumed_until_ms) = until(lasts, given);
        let record =
            FailoverOrderRecord { paused_until_ms: 0, resumed_until_ms, ..self.failover.record.clone() };
        let order = FailoverOrder {
            record,
            resumed_until,
            paused_until: BootTime::ZERO,
            revision: self.failover.revision,
        };
        self.change_failover(keys, order, given)
    }

    /// Switches maintenance on or off. `None`: it is so already.
    pub fn maintain(&mut self, keys: &Keys, on: bool, given: Given<'_>) -> Option<(Write, Change)> {
        if self.failover.record.maintenance == on {
            return None;
        }
        let record = FailoverOrderRecord { maintenance: on, ..self.failover.record.clone() };
        let order = FailoverOrder { record, ..self.failover.clone() };
        Some(self.change_failover(keys, order, given))
    }

    /// The change is in the store since this revision.
    pub fn committed(&mut self, change: Change, revision: i64) {
        self.changing.remove(&change.subject());
        match change.what {
            What::Node(node, Some(order)) => drop(self.nodes.insert(node, NodeOrder { revision, ..order })),
            What::Node(node, None) => drop(self.nodes.remove(&node)),
            What::Failover(order) => self.failover = FailoverOrder { revision, ..order },
        }
    }

    /// The change was not made because somebody else changed its record, which no replica does: what was found counts.
    pub fn overtaken(&mut self, change: Change, found: Option<&Record>, now: BootTime, wall_ms: u64) {
        let subject = change.subject();
        drop(change);
        tracing::error!(
            ?subject,
            "an operator's order was changed by somebody else; it is taken as it is found"
        );
        match subject {
            Subject::Node(node) => match found {
                Some(found) => drop(self.nodes.insert(node, node_order(held(found), now, wall_ms))),
                None => drop(self.nodes.remove(&node)),
            },
            Subject::Failover => {
                let order = found.map(|found| failover_order(held(found), now, wall_ms));
                self.failover = order.unwrap_or_default();
            }
        }
    }

    /// A change was not made. What was begun by itself is not begun again at once: where leadership has just ended, an attempt
    /// fails as soon as it begins, and the loop would do nothing else until it is told.
    pub fn failed(&mut self, change: Change, now: BootTime) {
        drop(change);
        self.resting_until = now + REST;
    }

    /// Whether a change of this record is on its way to the store.
    pub fn is_changing(&self, subject: Subject) -> bool {
        self.changing.get(&subject).is_some_and(|held| held.strong_count() > 0)
    }

    /// Keeps a command until its record is not changing any more.
    ///
    /// # Errors
    /// The command, where too many wait.
    pub fn wait(&mut self, subject: Subject, command: Command) -> Result<(), Box<Command>> {
        if self.waiting.len() >= MOST_WAITING {
            return Err(Box::new(command));
        }
        self.waiting.push_back((subject, command));
        Ok(())
    }

    /// Takes out the commands whose record is not changing any more, in the order in which they came.
    pub fn ready(&mut self) -> Vec<Command> {
        let (mut ready, mut waiting) = (Vec::new(), VecDeque::new());
        for (subject, command) in std::mem::take(&mut self.waiting) {
            if self.is_changing(subject) {
                waiting.push_back((subject, command));
            } else {
                ready.push(command);
            }
        }
        self.waiting = waiting;
        ready
    }

    fn begin(&mut self, what: What) -> Change {
        let locked = Arc::new(());
        let held = Arc::downgrade(&locked);
        let change = Change { what, _locked: locked };
        self.changing.insert(change.subject(), held);
        change
    }

    fn change_node(
        &mut self,
        keys: &Keys,
        node: NodeKey,
        order: NodeOrder,
        given: Given<'_>,
    ) -> (Write, Change) {
        // Nothing is left to be wanted: no record.
        if !order.record.cordoned && order.restarting_until <= given.now && order.revision != 0 {
            let change = StoreChange::Delete { key: keys.node_order(&node) };
            let write = Write { change, expected_mod_revision: order.revision };
            return (write, self.begin(What::Node(node, None)));
        }
        let record = NodeOrderRecord {
            reason: given.reason.to_owned(),
            at_ms: given.wall_ms,
            term: given.term.0,
            ..order.record
        };
        let write = put(keys.node_order(&node), &record, order.revision);
        (write, self.begin(What::Node(node, Some(NodeOrder { record, ..order }))))
    }

    fn change_failover(&mut self, keys: &Keys, order: FailoverOrder, given: Given<'_>) -> (Write, Change) {
        let record = FailoverOrderRecord {
            reason: given.reason.to_owned(),
            at_ms: given.wall_ms,
            term: given.term.0,
            ..order.record
        };
        let write = put(keys.failover_order(), &record, order.revision);
        (write, self.begin(What::Failover(FailoverOrder { record, ..order })))
    }
}

#[cfg(test)]
mod tests;
