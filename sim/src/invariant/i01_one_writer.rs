//! I1: at no instant may two processes write to one region.
//!
//! Each process is asked by its own clock at the same instant of true time, also where it stands still: it may go on at
//! that very instant.

use std::collections::BTreeMap;

use super::{Invariant, Moment, routes};

/// See the module.
#[derive(Default)]
pub struct OneWriter {
    /// Regions that were ever routed.
    regions: BTreeMap<u64, ()>,
    looked: bool,
}

impl Invariant for OneWriter {
    fn name(&self) -> &'static str {
        "I1 one writer"
    }

    fn look(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        if !self.looked || !moment.commits.is_empty() {
            self.looked = true;
            self.regions.extend(routes(moment.world).into_iter().map(|(region, _)| (region, ())));
        }
        for region in self.regions.keys() {
            let mut writers = moment.world.processes.iter().filter_map(|process| {
                process.writes(*region).map(|epoch| (process.host.as_str(), process.serial, epoch))
            });
            if let (Some(first), Some(second)) = (writers.next(), writers.next()) {
                return Err(format!(
                    "region {region} may be written by {} (process {}, epoch {}) and {} (process {}, epoch {})",
                    first.0, first.1, first.2, second.0, second.1, second.2
                ));
            }
        }
        Ok(())
    }
}
