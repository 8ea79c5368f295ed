//! I11, I12: nobody is declared dead without a reason. A region fails over from a node only where something was wrong with
//! that node itself lately; trouble of a leader, of its links or of etcd is none.
//!
//! Links between a leader and all nodes are a leader's trouble: what I11 demands of one that is isolated is part of this.

use metasrv_proto::admin::EventsRecord;

use super::{Invariant, Moment, decoded, number};

/// What was wrong with a node may show so much later: its lease, its successor's waits, and another leader's.
const LATELY: u64 = 40_000_000_000;

/// See the module.
pub struct NoReason;

impl Invariant for NoReason {
    fn name(&self) -> &'static str {
        "I12 no failover without a reason"
    }

    fn look(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for change in moment.commits.iter().flat_map(|commit| &commit.changes) {
            if number(&change.key, "timeline/").is_none() {
                continue;
            }
            let Some(told) = decoded::<EventsRecord>(change.value.as_ref()) else { continue };
            for event in told.events.iter().filter(|event| event.kind == "region_failed_over") {
                let host = format!("d{}", event.from_node_id);
                let disturbed = moment.world.disturbed.get(&host).copied();
                if disturbed.is_none_or(|until| until + LATELY < moment.world.now) {
                    return Err(format!(
                        "region {} fails over from node {}, which is well: {}",
                        event.region_id, event.from_node_id, event.why
                    ));
                }
            }
        }
        Ok(())
    }
}
