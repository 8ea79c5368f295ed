//! What was seen from outside: every accepted heartbeat with its term and instant, and what follows from them.
//!
//! All instants are of one clock, CLOCK_BOOTTIME: the whole world is one machine. Nothing here asks a replica.
//!
//! **Two leaders at once.** A grant counts as given by a second leader (`double_leader_instants`) in two cases. A node
//! accepted a term lower than one that it had accepted before. Or a grant of a lower term answers a request that was
//! *sent* after a higher term had granted something to anybody, so that it can only have been computed after that.
//!
//! There is one exception, and it is counted apart (`overlapping`). Where the old leader was deposed while it lives
//! (it hung, it was cut off), its successor begins before the old one's own deadline, by design: both renew leases, of
//! the same regions for the same nodes under the same epochs, and nothing changes hands before everything that the old
//! one may have granted is over. From outside the old deadline has a bound: no keep-alive that was sent after the
//! higher term began can have been confirmed, so it ends within one leadership (TTL less drift) after that. A grant
//! later than this bound is one of a second leader, also here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use metasrv_core::time::BootTime;

/// One term, as it was seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TermSeen {
    /// When its first answer was accepted by anybody.
    pub first: BootTime,
    /// When its last one was.
    pub last: BootTime,
}

/// What is known of one node.
#[derive(Clone, Copy, Default, Debug)]
struct NodeSeen {
    highest_term: u64,
    accepted_at: Option<BootTime>,
    longest_gap: Duration,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Ledger {
    nodes: Vec<NodeSeen>,
    terms: BTreeMap<u64, TermSeen>,
    read_only: BTreeSet<u64>,
    leadership: Duration,
    /// Terms whose leaders were deposed while they lived.
    may_overlap: BTreeSet<u64>,
    double_leader_instants: u64,
    overlapping: u64,
    longest_overlap: Duration,
}

impl Ledger {
    /// For so many nodes; a leadership ends so long after the last keep-alive that was confirmed.
    pub fn new(nodes: usize, leadership: Duration) -> Ledger {
        Ledger {
            nodes: vec![NodeSeen::default(); nodes],
            terms: BTreeMap::new(),
            read_only: BTreeSet::new(),
            leadership,
            may_overlap: BTreeSet::new(),
            double_leader_instants: 0,
            overlapping: 0,
            longest_overlap: Duration::ZERO,
        }
    }

    /// A round begins: gaps and read-only regions of before are forgotten; a gap that is open counts from its beginning.
    /// Says whether the present leader is deposed in it while it lives.
    pub fn begin_round(&mut self, deposes_the_living: bool) {
        for node in &mut self.nodes {
            node.longest_gap = Duration::ZERO;
        }
        self.read_only.clear();
        if deposes_the_living {
            self.may_overlap.insert(self.highest_term());
        }
    }

    /// A node accepted an answer of this term.
    pub fn accept(&mut self, node: usize, term: u64, at: BootTime) {
        self.saw_term(term, at);
        let Some(seen) = self.nodes.get_mut(node) else { return };
        if term < seen.highest_term {
            self.double_leader_instants += 1;
        }
        seen.highest_term = seen.highest_term.max(term);
        if let Some(before) = seen.accepted_at {
            seen.longest_gap = seen.longest_gap.max(at.since(before));
        }
        seen.accepted_at = Some(at);
    }

    /// A witness was granted something under this term, in answer to a request of `sent_at`.
    pub fn witness(&mut self, term: u64, sent_at: BootTime, at: BootTime) {
        let begun = self.terms.range(term + 1..).map(|(_, seen)| seen.first).min();
        self.saw_term(term, at);
        let Some(begun) = begun.filter(|begun| sent_at > *begun) else { return };
        let overlap = sent_at.since(begun);
        if self.may_overlap.contains(&term) && overlap <= self.leadership {
            self.overlapping += 1;
            self.longest_overlap = self.longest_overlap.max(overlap);
        } else {
            self.double_leader_instants += 1;
        }
    }

    fn saw_term(&mut self, term: u64, at: BootTime) {
        let seen = self.terms.entry(term).or_insert(TermSeen { first: at, last: at });
        seen.first = seen.first.min(at);
        seen.last = seen.last.max(at);
    }

    /// A region turned read-only.
    pub fn turned_read_only(&mut self, region: u64) {
        self.read_only.insert(region);
    }

    /// Regions that turned read-only since the round began.
    pub fn read_only(&self) -> usize {
        self.read_only.len()
    }

    /// The highest term that anybody accepted; 0: none yet.
    pub fn highest_term(&self) -> u64 {
        self.terms.last_key_value().map_or(0, |(term, _)| *term)
    }

    /// What was seen of a term.
    pub fn term(&self, term: u64) -> Option<TermSeen> {
        self.terms.get(&term).copied()
    }

    /// The lowest term above this one that anybody accepted, with what was seen of it.
    pub fn term_after(&self, term: u64) -> Option<(u64, TermSeen)> {
        self.terms.range(term + 1..).next().map(|(term, seen)| (*term, *seen))
    }

    /// How many terms above this one were seen.
    pub fn terms_after(&self, term: u64) -> usize {
        self.terms.range(term + 1..).count()
    }

    /// The longest time between two accepted heartbeats of any node since the round began, with those still open.
    pub fn longest_gap(&self, now: BootTime) -> Duration {
        let gap = |node: &NodeSeen| {
            node.longest_gap.max(node.accepted_at.map_or(Duration::ZERO, |at| now.since(at)))
        };
        self.nodes.iter().map(gap).max().unwrap_or_default()
    }

    /// Nodes that accepted this term or a higher one at or after this instant.
    pub fn accepted_since(&self, term: u64, since: BootTime) -> usize {
        let accepted = |node: &&NodeSeen| {
            node.highest_term >= term && node.accepted_at.is_some_and(|accepted_at| accepted_at >= since)
        };
        self.nodes.iter().filter(accepted).count()
    }

    /// Grants by a second leader, in all rounds.
    pub fn double_leader_instants(&self) -> u64 {
        self.double_leader_instants
    }

    /// Grants by a deposed leader within its own deadline, and the longest time that one came after its successor's
    /// first, in all rounds.
    pub fn overlapping(&self) -> (u64, Duration) {
        (self.overlapping, self.longest_overlap)
    }
}
