//! A hand-over: a leader that resigns begins the term of whoever is next, in the transaction that ends its own. A standby
//! that deposes a leader does the same for whoever is next.
//!
//! The other way, a successor begins its term itself after it has won: a second transaction after the resignation, and
//! nobody leads for as long as both take. Here is who may be given a term so, and what the one who was given it makes of
//! it; `metasrv/src/leader/succession.rs` is the transaction.
//!
//! Why this is safe:
//!
//! - **The queue decides, and nobody else.** Create revisions only grow. So whoever is second behind the oldest key at one
//!   revision is the oldest from the moment at which that key goes, as long as its own key lives. The transaction compares
//!   the create revisions of both keys: it gives the term to the very key that etcd's campaign makes the winner with it.
//! - **A term gives no right.** Who leads is whose deadline holds, and that counts from the successor's own keep-alives and
//!   from its own read-back of its key, sent after it has heard of the win, as for any other win. Only the raising of the
//!   term is left out, because it is done.
//! - **A term is led once.** The transaction writes the term into that one key, and one attempt of one process stands behind
//!   a key: a new attempt has a new key. Nobody can begin this term again, because its record is there and it has no spare.
//! - **The waits stay what they were.** The record of the new term says by which numbers the successor grants, as it has
//!   published them itself; it leads by it only where they are still its own. The predecessor is recorded as resigned in the
//!   same transaction, after it has stopped granting; the successor's read-back comes later, and its waits count from there.
//! - **A deposition** takes the key away instead of the lease, which is revoked afterwards. To the one who is deposed both are the
//!   same: its fence is gone. It is not recorded as resigned, so its successor waits for all that it may still grant within its
//!   own deadline, as after a revocation. Of two standbys the store takes one.
//! - **Nobody is waited for.** A successor that does not come to know of it (it has died, its lease ends, it is of a version
//!   that looks at nothing but the queue) has a term that nobody led, which counts as one whose end is unknown: the next in
//!   the queue, or that version, begins a higher one, and waits longer for it.
//! - **An unknown outcome** is the predecessor's resignation of unknown outcome: it grants nothing more in either case, and
//!   its key is revoked. Where the transaction was done, the successor reads the term in its key; where it was not, it cannot
//!   be done any more once the key is gone, and the successor begins its term itself.

use std::time::Duration;

use crate::id::{Fence, Term};

/// One key in the queue, as a leader reads it before it resigns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Key and create revision.
    pub fence: Fence,
    /// What it says of its candidate; nothing where that cannot be read.
    pub says: Option<Says>,
}

/// What a candidate says of itself in its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Says {
    /// It leads this term. 0: none.
    pub term: Term,
    /// TTL of its lease.
    pub election_ttl: Duration,
    /// Length of the region leases that it would grant.
    pub region_lease: Duration,
    /// It looks for a term that its predecessor has begun for it.
    pub takes_begun_term: bool,
}

/// Why no term is begun for anybody: the resignation is one that leaves this to the successor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nobody {
    /// The leader's own key is not the oldest: it may lead no longer.
    NotFirst,
    /// Nobody else stands in the queue.
    Alone,
    /// The next one's record cannot be read, or makes no sense.
    Unreadable,
    /// The next one is of a version that begins its terms itself.
    Older,
}

impl std::fmt::Display for Nobody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Nobody::NotFirst => "the leader's own key is not the oldest",
            Nobody::Alone => "nobody else stands in the queue",
            Nobody::Unreadable => "what the next in the queue says of itself makes no sense",
            Nobody::Older => "the next in the queue is of a version that begins its terms itself",
        })
    }
}

/// Whose term begins with the end of the leader with this fence. The queue in any order.
///
/// # Errors
/// [`Nobody`].
pub fn successor<'q>(own: &Fence, queue: &'q [Standing]) -> Result<(&'q Standing, Says), Nobody> {
    let mut by_age: Vec<&Standing> = queue.iter().collect();
    by_age.sort_by_key(|standing| standing.fence.create_revision);
    let mut by_age = by_age.into_iter();
    if by_age.next().is_none_or(|first| first.fence != *own) {
        return Err(Nobody::NotFirst);
    }
    let next = by_age.next().ok_or(Nobody::Alone)?;
    let says = next.says.ok_or(Nobody::Unreadable)?;
    if says.term > Term(0) || says.election_ttl.is_zero() || says.region_lease.is_zero() {
        return Err(Nobody::Unreadable);
    }
    if !says.takes_begun_term {
        return Err(Nobody::Older);
    }
    Ok((next, says))
}

/// The term that a winner need not begin, because it has begun: the one in its own key, where that is the last one that may
/// have been led, and where its record says what this winner grants by. Otherwise it begins one above the last.
pub fn begun(in_own_key: Term, last: Term, record_is_own: bool) -> Option<Term> {
    (in_own_key > Term(0) && in_own_key == last && record_is_own).then_some(in_own_key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn fence(name: &str, create_revision: i64) -> Fence {
        Fence { key: name.to_owned(), create_revision }
    }

    fn says() -> Says {
        Says { term: Term(0), election_ttl: SECOND, region_lease: SECOND, takes_begun_term: true }
    }

    fn standing(name: &str, create_revision: i64) -> Standing {
        Standing { fence: fence(name, create_revision), says: Some(says()) }
    }

    fn leads(name: &str, create_revision: i64) -> Standing {
        let says = Some(Says { term: Term(3), ..says() });
        Standing { says, ..standing(name, create_revision) }
    }

    /// Goal: nobody but whom etcd's campaign makes the winner is given a term. Method: queues in every order of their keys.
    #[test]
    fn the_oldest_key_after_the_leaders_own_is_given_the_term() {
        let [a, b, c] = [leads("a", 5), standing("b", 7), standing("c", 9)];
        for queue in [
            [a.clone(), b.clone(), c.clone()],
            [c.clone(), b.clone(), a.clone()],
            [b.clone(), c.clone(), a.clone()],
        ] {
            let next = successor(&fence("a", 5), &queue).map(|(next, _)| next.fence.clone());
            assert_eq!(next, Ok(fence("b", 7)));
        }
    }

    /// Goal: a leader whose own key is gone, was made anew, or is not the oldest gives nothing away. Method: such queues.
    #[test]
    fn a_leader_that_is_not_first_gives_no_term_away() {
        let not_first = Err(Nobody::NotFirst);
        assert_eq!(successor(&fence("a", 5), &[]), not_first);
        assert_eq!(successor(&fence("a", 5), &[standing("b", 7)]), not_first);
        assert_eq!(successor(&fence("a", 5), &[leads("a", 6), standing("b", 7)]), not_first, "made anew");
        assert_eq!(successor(&fence("a", 5), &[standing("b", 4), leads("a", 5)]), not_first);
    }

    /// Goal: who does not look for a term in its key, or cannot be understood, begins one itself. Method: a queue for each
    /// reason; nobody further behind is given the term in its place.
    #[test]
    fn who_would_not_understand_it_is_given_no_term() {
        let next = |says: Option<Says>| {
            let queue = [leads("a", 5), Standing { says, ..standing("b", 7) }, standing("c", 9)];
            successor(&fence("a", 5), &queue).map(|(next, _)| next.fence.clone())
        };
        assert_eq!(successor(&fence("a", 5), &[leads("a", 5)]), Err(Nobody::Alone));
        assert_eq!(next(None), Err(Nobody::Unreadable));
        assert_eq!(next(Some(Says { term: Term(4), ..says() })), Err(Nobody::Unreadable), "it leads already");
        assert_eq!(next(Some(Says { election_ttl: Duration::ZERO, ..says() })), Err(Nobody::Unreadable));
        assert_eq!(next(Some(Says { region_lease: Duration::ZERO, ..says() })), Err(Nobody::Unreadable));
        assert_eq!(next(Some(Says { takes_begun_term: false, ..says() })), Err(Nobody::Older));
    }

    /// Goal: a winner leads a term that it did not begin only where nobody can have led it or a later one, and where its
    /// successors will wait by the right numbers. Method: each condition alone is missing.
    #[test]
    fn a_term_that_was_begun_is_led_only_by_its_own_numbers_and_as_the_last() {
        assert_eq!(begun(Term(4), Term(4), true), Some(Term(4)));
        assert_eq!(begun(Term(0), Term(0), true), None, "nobody has begun one");
        assert_eq!(begun(Term(4), Term(5), true), None, "a later one may have been led");
        assert_eq!(begun(Term(4), Term(3), true), None, "it has a spare, or no record");
        assert_eq!(begun(Term(4), Term(4), false), None, "by other numbers");
    }
}
