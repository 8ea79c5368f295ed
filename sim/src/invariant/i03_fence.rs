//! I3: whatever a leader writes is guarded by its election key, and no older fence writes after a newer one.

use super::{Invariant, Moment};
use crate::etcd::Commit;
use crate::replica::PREFIX;

/// What only a leader writes.
const LEADERS: [&str; 6] = ["region/", "node/", "lease/", "procedure/", "order/", "timeline/"];

/// See the module.
#[derive(Default)]
pub struct FenceOnly {
    newest: i64,
}

fn fence(commit: &Commit) -> Option<i64> {
    let election = format!("{PREFIX}/v1/election/");
    commit
        .guards
        .iter()
        .find(|(key, revision)| key.starts_with(&election) && *revision > 0)
        .map(|guard| guard.1)
}

impl Invariant for FenceOnly {
    fn name(&self) -> &'static str {
        "I3 fenced writes"
    }

    fn look(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for commit in moment.commits {
            let of_leader = commit.changes.iter().find(|change| {
                let rest = change.key.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix("/v1/"));
                rest.is_some_and(|rest| LEADERS.iter().any(|directory| rest.starts_with(directory)))
            });
            let Some(change) = of_leader else { continue };
            let Some(fence) = fence(commit) else {
                return Err(format!("revision {} changes {} without a fence", commit.revision, change.key));
            };
            if fence < self.newest {
                return Err(format!(
                    "revision {} changes {} under fence {fence}, after fence {} has written",
                    commit.revision, change.key, self.newest
                ));
            }
            self.newest = fence;
        }
        Ok(())
    }
}
