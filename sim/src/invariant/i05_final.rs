//! I5: stepping down is final. A leader that has resigned grants nothing more; a term that has ended stays so.
//!
//! A resignation is seen in the store. An answer may be on its way then, so what counts is when its request was sent: after the
//! resignation none is answered with a grant. (A leader that was deposed does not know it at once; I6 is about that.)

use std::collections::BTreeMap;

use metasrv_proto::admin::TermRecord;

use super::{Invariant, Moment, decoded, number};

/// See the module.
#[derive(Default)]
pub struct Final {
    /// When each term was resigned, in nanoseconds of true time.
    resigned: BTreeMap<u64, u64>,
}

impl Invariant for Final {
    fn name(&self) -> &'static str {
        "I5 stepping down is final"
    }

    fn look(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        let now = moment.world.now;
        for grant in moment.grants {
            let Some(at) = self.resigned.get(&grant.term) else { continue };
            let sender = moment.world.processes.iter().find(|process| process.serial == grant.process);
            if sender.is_some_and(|sender| grant.sent_at > sender.clock.at(*at)) {
                return Err(format!(
                    "term {} has resigned, and grants to process {}",
                    grant.term, grant.process
                ));
            }
        }
        for change in moment.commits.iter().flat_map(|commit| &commit.changes) {
            let Some(term) = number(&change.key, "term/record/") else { continue };
            let record: Option<TermRecord> = decoded(change.value.as_ref());
            if record.is_some_and(|record| record.resigned) {
                self.resigned.entry(term).or_insert(now);
            }
        }
        Ok(())
    }
}
