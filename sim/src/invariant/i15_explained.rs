//! I15: the transaction that changes who leads a region also tells it on the timeline, so that the timeline, replayed, gives
//! the routes.

use metasrv_proto::admin::EventsRecord;

use super::{Invariant, Moment, decoded, number, route_changes};

/// See the module.
pub struct Explained;

impl Invariant for Explained {
    fn name(&self) -> &'static str {
        "I15 the timeline explains"
    }

    fn look(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for commit in moment.commits {
            let told: Vec<EventsRecord> = commit
                .changes
                .iter()
                .filter(|change| number(&change.key, "timeline/").is_some())
                .filter_map(|change| decoded(change.value.as_ref()))
                .collect();
            for change in route_changes(commit) {
                let before = change.before.as_ref().map(|route| (route.node_id, route.epoch));
                let after = change.after.as_ref().map(|route| (route.node_id, route.epoch));
                let mut events = told.iter().flat_map(|told| &told.events);
                if before != after && !events.any(|event| event.region_id == change.region) {
                    return Err(format!(
                        "region {} goes from {before:?} to {after:?} at revision {}, and nothing is told of it",
                        change.region, commit.revision
                    ));
                }
            }
        }
        Ok(())
    }
}
