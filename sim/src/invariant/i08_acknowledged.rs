//! I8: what was acknowledged is there, and what was asked for once happens at most once.
//!
//! Each call that creates regions carries a reason of its own, which is stored with them.

use std::collections::BTreeMap;

use super::{Invariant, Moment, route_changes, routes};
use crate::operator::Operation;
use crate::world::World;

/// See the module.
#[derive(Default)]
pub struct Acknowledged {
    /// How many regions each reason has made.
    made: BTreeMap<String, u32>,
}

impl Invariant for Acknowledged {
    fn name(&self) -> &'static str {
        "I8 acknowledged changes"
    }

    fn look(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for change in moment.commits.iter().flat_map(route_changes) {
            if let (None, Some(after)) = (&change.before, &change.after) {
                let made = self.made.entry(after.reason.clone()).or_default();
                *made += 1;
                if *made > 1 && after.reason != "op-0" {
                    return Err(format!("{} has created {made} regions and asked for one", after.reason));
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, world: &World) -> Result<(), String> {
        let routes: BTreeMap<u64, _> = routes(world).into_iter().collect();
        for done in world.desk.history().iter().filter(|done| done.acknowledged) {
            match done.operation {
                Operation::Create if !self.made.contains_key(&format!("op-{}", done.number)) => {
                    return Err(format!("operation #{} is acknowledged and made no region", done.number));
                }
                Operation::Drop if routes.contains_key(&done.region) => {
                    return Err(format!("region {} is there, and its drop was acknowledged", done.region));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
