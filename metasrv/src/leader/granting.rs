//! What one heartbeat renews, opens and closes.

use std::collections::BTreeSet;
use std::time::Duration;

use metasrv_core::grant::{Reported, decide};
use metasrv_core::id::{Incarnation, NodeKey, RegionId};

use super::Leader;
use super::node::Node;
use super::registrar::Request;

/// What one heartbeat grants.
pub struct Granted {
    /// Renewed, under these epochs.
    pub renewed: Vec<Reported>,
    /// To be closed: no route names them.
    pub closeable: Vec<RegionId>,
    /// To be opened under these epochs.
    pub to_open: Vec<Reported>,
    /// Length of the lease.
    pub lease: Duration,
}

impl Leader {
    /// Compares what a process holds with the routes and renews what matches. `None` where the process may be
    /// granted nothing now, or this leader may grant nothing any more.
    pub fn grant(&self, node: &NodeKey, process: Incarnation, reported: Vec<Reported>) -> Option<Granted> {
        let mut entry = self.nodes.get_mut(node)?;
        let now = self.clock.now();
        // Leadership is compared with the clock here, at the moment of the grant, and not before.
        if !self.leads(now) || entry.recording || !entry.holder.may_be_granted(process) {
            return None;
        }
        let mut decision = decide(&entry.regions, |region| region.epoch, reported);
        // What something is about to take away is neither renewed nor opened.
        decision.renew = without(decision.renew, &entry.withheld);
        decision.open = without(decision.open, &entry.withheld);
        decision.close.retain(|region| !entry.kept_open.contains(region));
        for region in &decision.renew {
            if let Some(region) = entry.regions.get_mut(&region.region) {
                region.grant(now);
            }
        }
        if !decision.renew.is_empty() {
            entry.holder.granted(now);
        }
        let patience = self.timing.heartbeat_interval.saturating_mul(3);
        let to_open = entry.openings.next(decision.open, patience, now);
        if !decision.ahead.is_empty() && !entry.recording {
            self.ask_to_raise(node, &mut entry, decision.ahead);
        }
        Some(Granted {
            renewed: decision.renew,
            closeable: decision.close,
            to_open,
            lease: self.timing.region_lease,
        })
    }

    /// A node holds regions under higher epochs than the routes have: the store was set back.
    fn ask_to_raise(&self, node: &NodeKey, entry: &mut Node, ahead: Vec<Reported>) {
        tracing::warn!(
            term = %self.term, %node, regions = ahead.len(),
            "the node holds regions under higher epochs than their routes: the store was set back; raising the routes'"
        );
        if self.registrar.try_send(Request::RaiseAbove { node: *node, held: ahead }).is_ok() {
            entry.recording = true;
        }
    }
}

/// Those of these regions that are not in the set.
fn without(regions: Vec<Reported>, set: &BTreeSet<RegionId>) -> Vec<Reported> {
    // Nearly always empty, so that this costs nothing.
    if set.is_empty() {
        return regions;
    }
    regions.into_iter().filter(|region| !set.contains(&region.region)).collect()
}
