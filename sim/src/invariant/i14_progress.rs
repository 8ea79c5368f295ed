//! I14: a run in which nothing happens proves nothing. What happened is counted, and demanded.

use metasrv_proto::admin::EventsRecord;

use super::{Moment, decoded, number, routes};
use crate::replica::PREFIX;
use crate::world::World;

/// What happened in a run.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Terms that were begun.
    pub terms: u64,
    /// Regions that failed over.
    pub failovers: u64,
    /// Regions that were migrated.
    pub migrations: u64,
    /// Regions that stayed with a restarted process of their node.
    pub restarts: u64,
    /// Leases of candidates that expired.
    pub expiries: u64,
    /// Writes that the storage took.
    pub writes: u64,
    /// Grants that arrived.
    pub grants: u64,
    /// Transactions.
    pub commits: u64,
}

impl Counts {
    /// Takes note of one tick.
    pub fn look(&mut self, moment: &Moment<'_>) {
        self.grants += moment.grants.len() as u64;
        self.commits += moment.commits.len() as u64;
        for change in moment.commits.iter().flat_map(|commit| &commit.changes) {
            if change.before.is_none() && number(&change.key, "term/record/").is_some() {
                self.terms += 1;
            }
            if number(&change.key, "timeline/").is_none() {
                continue;
            }
            let told: EventsRecord = decoded(change.value.as_ref()).unwrap_or_default();
            for event in told.events {
                match event.kind.as_str() {
                    "region_failed_over" => self.failovers += 1,
                    "region_epoch_raised" => self.restarts += 1,
                    "region_migrated" => self.migrations += 1,
                    _ => {}
                }
            }
        }
    }

    /// Takes note of the end.
    ///
    /// # Errors
    /// What did not happen.
    pub fn end(&mut self, world: &World) -> Result<(), String> {
        self.expiries = world.etcd.expired();
        self.writes = world.storage.written();
        let stored = world.etcd.stored(&format!("{PREFIX}/v1/region/")).len();
        if routes(world).len() != stored {
            return Err(format!("{stored} routes are stored, and not all of them can be read"));
        }
        match (self.terms, self.writes, self.grants) {
            (0, ..) => Err("nobody has led".to_owned()),
            (_, 0, _) => Err("nothing was written".to_owned()),
            (_, _, 0) => Err("nothing was granted".to_owned()),
            _ => Ok(()),
        }
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Counts) {
        self.terms += other.terms;
        self.failovers += other.failovers;
        self.migrations += other.migrations;
        self.restarts += other.restarts;
        self.expiries += other.expiries;
        self.writes += other.writes;
        self.grants += other.grants;
        self.commits += other.commits;
    }
}
