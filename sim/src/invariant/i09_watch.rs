//! I9: who watches the routes sees no region go back, and in the end what is stored.

use std::collections::BTreeMap;

use super::{Invariant, Moment, routes};
use crate::world::World;

/// See the module; the watcher itself (`operator.rs`) remembers.
pub struct Watched;

impl Invariant for Watched {
    fn name(&self) -> &'static str {
        "I9 watched routes"
    }

    fn look(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        match moment.world.desk.take_broken() {
            broken if broken.is_empty() => Ok(()),
            broken => Err(broken.join("; ")),
        }
    }

    fn end(&mut self, world: &World) -> Result<(), String> {
        let stored: BTreeMap<u64, (u64, u64)> =
            routes(world).into_iter().map(|(region, route)| (region, (route.node_id, route.epoch))).collect();
        let watched = world.desk.routes();
        if watched == stored {
            return Ok(());
        }
        Err(format!("watched are {watched:?} (node and epoch by region), stored are {stored:?}"))
    }
}
