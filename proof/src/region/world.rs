//! A state of the model: the store, the replicas, the processes of nodes, and what is on its way between them.

use metasrv_core_proof::id::Term;
use metasrv_core_proof::settlement::{TermEnd, TermNumbers};

use super::leader::Leader;
use super::process::Process;
use crate::clock::{Rate, timing};

/// Processes of nodes, terms and routes that a search may have at most: states are copied often, and have one size.
pub const MOST_PROCESSES: usize = 3;
const MOST_TERMS: usize = 4;
const MOST_EPOCHS: usize = 6;

/// A state.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct World {
    /// etcd.
    pub store: Store,
    /// Of metasrv.
    pub replicas: [Replica; 2],
    /// Of nodes; those beyond the bounds never start.
    pub processes: [Process; MOST_PROCESSES],
    /// What was done that must never be done.
    pub broken: Option<Broken>,
}

/// A step that must never be taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Broken {
    /// A write of a replica was done though its key was gone.
    WithoutFence,
    /// A route was written whose epoch is not above the one before, though its writer is another one.
    EpochNotRaised,
    /// A region was given away in the store while somebody else than its new writer could write to it.
    TakenTooSoon,
    /// A process may write under an epoch that it was not granted.
    NotGranted,
    /// A leader granted something after its deadline, or after it had stopped for good.
    GrantedTooLate,
}

/// The store: what is in it is what was committed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Store {
    /// The replica whose election key is there.
    pub key: Option<u8>,
    /// The last term.
    pub term: u8,
    /// Which terms ended by a resignation, as far as their records say.
    resigned: [bool; MOST_TERMS],
    /// The highest `settled_below` of all records.
    pub settled_below: u8,
    /// The route of the region.
    pub route: Route,
    /// The node that each epoch was given to.
    given: [Option<u8>; MOST_EPOCHS],
    /// The recorded process of each node.
    pub recorded: [Option<u8>; 2],
}

/// The route of the region.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Route {
    /// The node that may be granted leases.
    pub node: u8,
    /// Under this epoch.
    pub epoch: u8,
    /// Counts the changes.
    pub revision: u8,
}

/// A replica of metasrv.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Replica {
    /// Its clock.
    pub rate: Rate,
    /// What it leads, or believes that it does.
    pub leader: Option<Leader>,
    /// A change of the route on its way.
    pub moving: Option<Flight>,
    /// A process that is being recorded.
    pub recording: Option<Flight>,
}

/// A transaction on its way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Flight {
    /// What it changes.
    pub change: Change,
    /// What became of it, unknown to its sender.
    pub fate: Fate,
}

/// What a transaction changes, and what it compares for that.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Change {
    /// The route; `before` is the revision that it must have.
    Route {
        /// The new route.
        to: Route,
        /// The revision that it must have before.
        before: u8,
        /// The process that is to be recorded afterwards, where it is done for one.
        then: Option<u8>,
    },
    /// The recorded process of its node.
    Record {
        /// The node.
        node: u8,
        /// Its new process.
        process: u8,
        /// The one that must be recorded before.
        before: Option<u8>,
    },
}

/// What became of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fate {
    /// It may be done at any time.
    Sent,
    /// It is done.
    Done,
    /// It can never be done.
    Refused,
}

impl Store {
    /// Before the first term.
    pub fn new(route: Route, recorded: [Option<u8>; 2]) -> Store {
        Store {
            key: None,
            term: 0,
            resigned: [false; MOST_TERMS],
            settled_below: 0,
            given: std::array::from_fn(|at| (at < usize::from(route.epoch)).then_some(route.node)),
            route,
            recorded,
        }
    }

    /// The last term ends by a resignation.
    pub fn resign(&mut self) {
        let at = usize::from(self.term).checked_sub(1);
        if let Some(resigned) = at.and_then(|at| self.resigned.get_mut(at)) {
            *resigned = true;
        }
    }

    /// Whether a term ended by a resignation.
    pub fn has_resigned(&self, term: u8) -> bool {
        usize::from(term).checked_sub(1).and_then(|at| self.resigned.get(at)) == Some(&true)
    }

    /// The records of all terms, as a successor reads them.
    pub fn term_records(&self) -> Vec<TermNumbers> {
        let numbers = (1..=self.term).map(|term| TermNumbers {
            term: Term(u64::from(term)),
            election_ttl: timing().election_ttl,
            region_lease: timing().region_lease,
            end: if self.has_resigned(term) { TermEnd::Resigned } else { TermEnd::Unknown },
            settled_below: Term(if term == self.settled_below { u64::from(term) } else { 0 }),
        });
        numbers.collect()
    }

    /// The node that an epoch was given to.
    pub fn given_to(&self, epoch: u8) -> Option<u8> {
        *self.given.get(usize::from(epoch).checked_sub(1)?)?
    }

    /// Does what a transaction says, if what it compares is so.
    pub fn apply(&mut self, change: Change, compares_revision: bool) -> Fate {
        match change {
            Change::Route { to, before, .. } if self.route.revision == before || !compares_revision => {
                self.route = to;
                if let Some(given) = self.given.get_mut(usize::from(to.epoch).saturating_sub(1)) {
                    // What was given once is not given to anybody else: that would be seen.
                    *given = given.or(Some(to.node));
                }
                Fate::Done
            }
            Change::Record { node, process, before }
                if self.recorded.get(usize::from(node)) == Some(&before) =>
            {
                if let Some(recorded) = self.recorded.get_mut(usize::from(node)) {
                    *recorded = Some(process);
                }
                Fate::Done
            }
            _ => Fate::Refused,
        }
    }
}

impl Replica {
    /// It leads nothing.
    pub fn new(rate: Rate) -> Replica {
        Replica { rate, leader: None, moving: None, recording: None }
    }
}
