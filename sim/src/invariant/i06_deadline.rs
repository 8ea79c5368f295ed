//! I6: nobody acts past its own deadline. A leader whose key is gone may not know it; it grants for at most its TTL longer.

use std::collections::BTreeMap;

use metasrv_proto::admin::CandidateRecord;

use super::{Invariant, Moment, decoded};
use crate::replica::PREFIX;

const NANOS_PER_MILLI: u64 = 1_000_000;

/// See the module.
#[derive(Default)]
pub struct Deadline {
    /// The latest that each term may grant, in nanoseconds of true time.
    until: BTreeMap<u64, u64>,
}

impl Invariant for Deadline {
    fn name(&self) -> &'static str {
        "I6 no grant past the deadline"
    }

    fn look(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for grant in moment.grants {
            let Some(until) = self.until.get(&grant.term) else { continue };
            let sender = moment.world.processes.iter().find(|process| process.serial == grant.process);
            if sender.is_some_and(|sender| grant.sent_at > sender.clock.at(*until)) {
                return Err(format!(
                    "term {} grants to process {} more than a TTL after its key was gone",
                    grant.term, grant.process
                ));
            }
        }
        let election = format!("{PREFIX}/v1/election/");
        for change in moment.commits.iter().flat_map(|commit| &commit.changes) {
            if !change.key.starts_with(&election) || change.value.is_some() {
                continue;
            }
            let record: Option<CandidateRecord> = decoded(change.before.as_ref());
            if let Some(record) = record.filter(|record| record.term > 0) {
                let until = moment.world.now + record.election_ttl_ms * NANOS_PER_MILLI;
                self.until.entry(record.term).or_insert(until);
            }
        }
        Ok(())
    }
}
