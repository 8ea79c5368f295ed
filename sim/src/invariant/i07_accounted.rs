//! I7: when the store gives a region away, every right that was granted under a lower epoch has ended: nobody believes in
//! one that its grantor does not account for.

use super::{Invariant, Moment, route_changes};

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
            for process in &moment.world.processes {
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
