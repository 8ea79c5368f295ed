//! I4: each change of who leads a region raises its epoch; no epoch of a region is used twice, nor the id of one that was
//! dropped.

use std::collections::BTreeMap;

use super::{Invariant, Moment, route_changes};

/// See the module.
#[derive(Default)]
pub struct RouteEpochs {
    /// The highest epoch that each region ever had.
    highest: BTreeMap<u64, u64>,
}

impl Invariant for RouteEpochs {
    fn name(&self) -> &'static str {
        "I4 epochs of routes"
    }

    fn look(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for change in moment.commits.iter().flat_map(route_changes) {
            let region = change.region;
            let Some(after) = &change.after else { continue };
            let highest = self.highest.get(&region).copied();
            let said = match (&change.before, highest) {
                (None, Some(highest)) => format!("is created again after epoch {highest}"),
                (Some(before), _) if before.node_id != after.node_id && after.epoch <= before.epoch => {
                    format!("moves under epoch {} after {}", after.epoch, before.epoch)
                }
                (Some(before), _) if after.epoch < before.epoch => {
                    format!("goes back to epoch {} from {}", after.epoch, before.epoch)
                }
                _ => {
                    self.highest.insert(region, after.epoch.max(highest.unwrap_or(0)));
                    continue;
                }
            };
            return Err(format!("region {region} {said}"));
        }
        Ok(())
    }
}
