//! What the loop knows of nodes that others list, and that placement counts: what operators want of them, and what is on its
//! way to and from them.

use std::collections::BTreeMap;

use metasrv_core::id::{NodeKey, Role};
use metasrv_core::placement::Duty;
use metasrv_core::time::BootTime;

use super::Control;

/// Of one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeDuty {
    /// What an operator wants of it.
    pub duty: Duty,
    /// Until when its regions wait for its announced restart. `None`: they do not.
    pub restarting_until: Option<BootTime>,
    /// Regions on their way to it.
    pub incoming: usize,
    /// Regions on their way from it.
    pub outgoing: usize,
}

impl NodeDuty {
    /// The name of what is wanted of it.
    pub fn name(&self) -> &'static str {
        match self.duty {
            Duty::Open => "open",
            Duty::Cordoned => "cordoned",
            Duty::Draining => "draining",
        }
    }
}

/// Of one node.
pub(super) fn of(control: &Control, node: &NodeKey, now: BootTime) -> NodeDuty {
    NodeDuty {
        duty: match (control.procedures.drains(node), control.orders.cordoned(node)) {
            (true, _) => Duty::Draining,
            (false, true) => Duty::Cordoned,
            (false, false) => Duty::Open,
        },
        restarting_until: control.orders.restarts_until(node, now),
        incoming: control.failover.incoming(node).saturating_add(control.procedures.incoming(node)),
        outgoing: control.procedures.outgoing(node),
    }
}

/// Of all datanodes.
pub(super) fn all(control: &Control, now: BootTime) -> BTreeMap<NodeKey, NodeDuty> {
    let datanodes = control.leader.nodes().iter().filter(|entry| entry.key().role == Role::Datanode);
    datanodes.map(|entry| (*entry.key(), of(control, entry.key(), now))).collect()
}
