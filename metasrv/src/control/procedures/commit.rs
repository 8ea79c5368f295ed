//! One fenced transaction of a procedure: its record, the route that changes with it, and what is told of it.
//!
//! It runs beside the loop. A procedure has at most one under way and does nothing else meanwhile, so that each is decided
//! from what is known to be stored.
//!
//! | outcome | what is stored | then |
//! | --- | --- | --- |
//! | done | all of it | the procedure goes on at once |
//! | a record is another one than expected | nothing of it | the record that was found counts; look again |
//! | the route is another one than expected | nothing of it | look again: the route is known by now |
//! | the store refused | nothing of it | the same again, later each time |
//! | the fence is lost, or leadership ended | unknown | nothing: the next leader goes on from what is stored |

use std::sync::Arc;
use std::time::Duration;

use metasrv_core::grant::Reported;
use metasrv_core::procedure::ProcedureId;
use metasrv_core::time::BootTime;
use metasrv_proto::admin::{ProcedureRecord, StoredEvent};
use tokio::task::JoinSet;

use super::record::Stored;
use super::{Done, Event};
use crate::control::{self, ControlError};
use crate::leader::{Leader, RelocateError, RouteChange};
use crate::mailbox::HeartbeatMailbox;
use crate::mirror::state::Held;
use crate::record;
use crate::store::Change;
use crate::store::fenced::{CommitError, Write};

/// After the second failure in a row; twice as long after each further one. The first is tried again at once.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Never longer than this: an operator who made room in the store should not wait for long.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What is committed, all or nothing.
#[derive(Default)]
pub(super) struct Transaction {
    /// The route that changes.
    pub route: Option<RouteChange>,
    /// The record's write first, then those beside it.
    pub writes: Vec<Write>,
    /// What is told of it.
    pub events: Vec<StoredEvent>,
}

impl Transaction {
    /// Stores the record; `revision` is the one that it has now, 0 where it is new.
    pub(super) fn put(leader: &Leader, id: ProcedureId, stored: &Stored, revision: i64) -> Transaction {
        let value = record::encode(&stored.to_record(leader.term().0));
        let change = Change::Put { key: leader.keys().procedure(id), value };
        Transaction {
            writes: vec![Write { change, expected_mod_revision: revision }],
            ..Transaction::default()
        }
    }

    /// Takes the record away.
    pub(super) fn delete(leader: &Leader, id: ProcedureId, revision: i64) -> Transaction {
        let change = Change::Delete { key: leader.keys().procedure(id) };
        Transaction {
            writes: vec![Write { change, expected_mod_revision: revision }],
            ..Transaction::default()
        }
    }

    /// Commits it beside the loop, which gets the outcome.
    pub(super) fn send(
        self,
        id: ProcedureId,
        leader: &Arc<Leader>,
        mailbox: &Arc<HeartbeatMailbox>,
        work: &mut JoinSet<control::Done>,
    ) {
        let (leader, mailbox) = (Arc::clone(leader), Arc::clone(mailbox));
        work.spawn(async move {
            let Transaction { route, writes, events } = self;
            let outcome = leader.change_routes(route.as_slice(), writes, events).await;
            if let (Ok(_), Some(route)) = (&outcome, route) {
                raised_for_its_own(&leader, &mailbox, &route);
            }
            let outcome = outcome.map_err(|error| Failure::of(error, usize::from(route.is_some())));
            control::Done::Procedure(Done(Event::Committed { id, outcome }))
        });
    }
}

/// Who keeps a region under a raised epoch is told at once: it writes again only when it knows. A new node is told by its
/// upgrade.
fn raised_for_its_own(leader: &Leader, mailbox: &HeartbeatMailbox, route: &RouteChange) {
    if route.from == route.to {
        let raised = Reported { region: route.region, epoch: route.epoch };
        mailbox.open_regions(leader, &route.to, &[raised]);
    }
}

/// Why a transaction is not done.
#[derive(Debug)]
pub(super) enum Failure {
    /// This term is over, or may be.
    Over,
    /// The procedure's record is another one than expected. `None`: it is not there.
    Found(Option<Box<Held<ProcedureRecord>>>),
    /// Nothing was written.
    Not(RelocateError),
}

impl Failure {
    /// `at` is the place of the procedure's record among the writes.
    fn of(error: RelocateError, at: usize) -> Failure {
        match error {
            RelocateError::Commit(CommitError::FenceLost | CommitError::LeadershipEnded) => Failure::Over,
            RelocateError::Commit(CommitError::Conflict { ref found }) => match found.get(at) {
                Some(None) => Failure::Found(None),
                Some(Some(found)) => match record::decode(found) {
                    Ok(value) => Failure::Found(Some(Box::new(Held { value, revision: found.mod_revision }))),
                    Err(unreadable) => {
                        tracing::error!(%unreadable, "the record of a procedure was changed by somebody else");
                        Failure::Not(error)
                    }
                },
                None => Failure::Not(error),
            },
            error => Failure::Not(error),
        }
    }

    /// What one who waits for the transaction is told.
    pub(super) fn for_people(&self) -> ControlError {
        match self {
            Failure::Over => ControlError::NotLeading,
            Failure::Not(RelocateError::Commit(error)) => ControlError::Store(error.clone()),
            Failure::Not(error) => ControlError::Refused(error.to_string()),
            Failure::Found(_) => {
                ControlError::Refused("the procedure was changed by something else".to_owned())
            }
        }
    }
}

/// When what failed is tried again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Pause {
    failures: u32,
    until: BootTime,
}

impl Pause {
    /// Until then nothing is tried.
    pub(super) fn until(&self) -> BootTime {
        self.until
    }

    /// It failed once more.
    pub(super) fn failed(&mut self, now: BootTime) {
        if self.failures > 0 {
            let doubled = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(self.failures.saturating_sub(1)));
            self.until = now + doubled.min(LONGEST_PAUSE);
        }
        self.failures = self.failures.saturating_add(1);
    }

    /// Nothing is tried any more in this term.
    pub(super) fn for_good(&mut self) {
        self.until = BootTime::MAX;
    }

    /// It succeeded.
    pub(super) fn over(&mut self) {
        *self = Pause::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_tried_again_at_once_and_then_later_each_time() {
        let now = BootTime::from_millis(1_000);
        let mut pause = Pause::default();
        let waits: Vec<Duration> = (0..9)
            .map(|_| {
                pause.failed(now);
                pause.until().since(now)
            })
            .collect();
        assert_eq!(waits[..4], [0, 100, 200, 400].map(Duration::from_millis));
        assert_eq!(waits[8], LONGEST_PAUSE);
        pause.over();
        assert_eq!(pause.until(), BootTime::ZERO);
    }
}
