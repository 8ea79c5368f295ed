//! How long a new term waits before it gives a region to somebody else.
//!
//! A predecessor may have granted leases that still run, and a predecessor that was deposed may have gone on
//! granting until its own deadline. Each term leaves a permanent record of its numbers; a successor waits for the
//! longest that any predecessor not yet settled requires, counted from its own read-back (design 03, rule 4b and
//! its amendment). Renewing to the process that already holds a region needs no wait.
//!
//! A term that was reserved and passed over ([`crate::spare`]) has a record like any other and counts like one: nobody has
//! to know that it was never led, and the wait is only ever longer for it. `spare_tests.rs` compares the waits of random
//! histories with what was really led.

use std::time::Duration;

use crate::guard::{Rule, carried};
use crate::id::Term;
use crate::timing::{self, Timing};

/// What the record of a term says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TermNumbers {
    /// The term.
    pub term: Term,
    /// TTL of its leader's election lease.
    pub election_ttl: Duration,
    /// Length of the region leases it granted.
    pub region_lease: Duration,
    /// Whether it ended by itself, after it had stopped granting.
    pub end: TermEnd,
    /// Nothing granted in a term below this one can still be valid.
    pub settled_below: Term,
}

/// How a term ended, as far as its record says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TermEnd {
    /// Its leader stopped granting and then said so, in the transaction that deleted its key.
    Resigned,
    /// Nothing is known: it may have believed in itself for a whole TTL.
    Unknown,
}

/// How long the term after `last` waits, given the records of its predecessors (in any order) and its own inputs.
/// A term without a record, other than 0, counts as one with our own inputs whose end is unknown.
pub fn takeover_wait(records: &[TermNumbers], last: Term, own: &Timing) -> Duration {
    let settled_below = records.iter().map(|record| record.settled_below).max().unwrap_or_default();
    let unsettled = records.iter().filter(|record| record.term >= settled_below && record.term <= last);
    let mut count: u64 = 0;
    let mut wait = Duration::ZERO;
    for record in unsettled {
        count = count.saturating_add(1);
        let own_grants = timing::grant_wait(record.region_lease);
        wait = wait.max(match record.end {
            TermEnd::Resigned => own_grants,
            TermEnd::Unknown => carried(
                Rule::UnknownEndCostsTtl,
                timing::takeover_wait(record.election_ttl, record.region_lease),
                || own_grants,
            ),
        });
    }
    let expected = last.0.saturating_add(1).saturating_sub(settled_below.0.max(1));
    if count < expected { wait.max(own.takeover_wait()) } else { wait }
}

#[cfg(test)]
mod tests {
    use super::*;

    const L: Duration = Duration::from_secs(5);

    fn record(term: u64, end: TermEnd) -> TermNumbers {
        TermNumbers { term: Term(term), election_ttl: L, region_lease: L, end, settled_below: Term(0) }
    }

    fn wait(records: &[TermNumbers], last: u64) -> Duration {
        takeover_wait(records, Term(last), &Timing::default())
    }

    #[test]
    fn the_first_term_waits_for_nobody() {
        assert_eq!(wait(&[], 0), Duration::ZERO);
    }

    #[test]
    fn a_resigned_predecessor_costs_the_lease_any_other_the_ttl_too() {
        assert_eq!(wait(&[record(1, TermEnd::Resigned)], 1), timing::grant_wait(L));
        assert_eq!(wait(&[record(1, TermEnd::Unknown)], 1), timing::takeover_wait(L, L));
    }

    #[test]
    fn a_resignation_does_not_shorten_what_its_own_predecessor_requires() {
        let records = [record(1, TermEnd::Unknown), record(2, TermEnd::Resigned)];
        assert_eq!(
            wait(&records, 2),
            timing::takeover_wait(L, L),
            "A deposed, B resigns at once, C still waits for A"
        );
    }

    #[test]
    fn settled_terms_are_over_but_the_term_that_settled_them_is_not() {
        let mut settler = record(3, TermEnd::Resigned);
        settler.settled_below = Term(3);
        let mut older = record(1, TermEnd::Unknown);
        older.region_lease = Duration::from_secs(60);
        assert_eq!(wait(&[older, record(2, TermEnd::Unknown), settler], 3), timing::grant_wait(L));
    }

    #[test]
    fn the_predecessors_numbers_count_not_ours() {
        let mut slow = record(1, TermEnd::Unknown);
        slow.region_lease = Duration::from_secs(30);
        assert_eq!(wait(&[slow], 1), timing::takeover_wait(L, Duration::from_secs(30)));
    }

    #[test]
    fn a_missing_record_is_taken_for_one_that_did_not_resign() {
        assert_eq!(wait(&[], 1), Timing::default().takeover_wait());
        assert_eq!(wait(&[record(2, TermEnd::Resigned)], 2), Timing::default().takeover_wait());
    }
}
