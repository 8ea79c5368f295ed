//! I7: when the store gives a region away, every right that was granted under a lower epoch has ended: nobody believes in
//! one that its grantor does not account for.
//!
//! Where a region stays with its process under a raised epoch (a migration was undone), that process goes on under the lower one
//! until it is told: it is one writer all the same.

use super::{Invariant, Moment, route_changes};
use crate::datanode::Process;

/// See the module.
pub struct Accounted;

impl Invariant for Accounted {
    fn name(&self) -> &'static str {
        "I7 rights are accounted for"
    }

    fn look(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for change in moment.commits.iter().flat_map(route_changes) {
            let (Some(before), Some(after)) = (&change.before, &change.after) else { continue };
            if after.epoch == before.epoch {
                continue;
            }
            let stays = |process: &Process| {
                let newest = moment.world.processes.iter().filter(|other| other.node == process.node);
                before.node_id == after.node_id
                    && process.node == after.node_id
                    && newest.map(|other| other.serial).max() == Some(process.serial)
            };
            for process in moment.world.processes.iter().filter(|process| !stays(process)) {
                let epoch = process.writes(change.region).filter(|epoch| *epoch < after.epoch);
                if let Some(epoch) = epoch {
                    return Err(format!(
                        "region {} is given to node {} under epoch {} while process {} on {} may write under {epoch}",
                        change.region, after.node_id, after.epoch, process.serial, process.host
                    ));
                }
            }
        }
        Ok(())
    }
}
