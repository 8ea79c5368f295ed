//! The store of the simulation: one route, one record, the recorded processes; every change compares revisions.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{Epoch, Incarnation, NodeId, Term};
use crate::procedure::ProcedureId;
use crate::procedure::instruction::Led;
use crate::procedure::migrate::{End, Migration};

/// A value and the revision that it has since.
#[derive(Clone, Debug)]
pub struct Versioned<T> {
    pub value: T,
    pub revision: u64,
}

#[derive(Clone, Debug)]
pub struct Store {
    /// Of the last leader that won: the fence.
    pub term: Term,
    pub route: Versioned<Led>,
    pub record: Versioned<Option<Migration>>,
    pub recorded: BTreeMap<NodeId, Incarnation>,
    /// Who was given the region under which epoch, ever.
    pub committed: BTreeSet<(Epoch, NodeId)>,
    pub created: u64,
    pub ends: Vec<(ProcedureId, End)>,
    revision: u64,
}

#[derive(Clone, Debug)]
pub enum Change {
    Create(Migration),
    Put(Migration),
    /// The migration's commit, or a failover's, which has no record here.
    Commit(Led, Option<Migration>),
    /// Another process of this node may be granted leases; a raised epoch if it leads.
    Record(NodeId, Incarnation, Option<Led>),
    Remove(End),
}

/// A transaction of a leader, fenced by its term, with the revisions that it compares.
#[derive(Clone, Debug)]
pub struct Transaction {
    pub term: Term,
    pub route_revision: u64,
    pub record_revision: u64,
    pub change: Change,
}

impl Store {
    pub fn new(route: Led, recorded: BTreeMap<NodeId, Incarnation>) -> Store {
        Store {
            term: Term(0),
            route: Versioned { value: route, revision: 0 },
            record: Versioned { value: None, revision: 0 },
            recorded,
            committed: BTreeSet::from([(route.epoch, route.node)]),
            created: 0,
            ends: Vec::new(),
            revision: 0,
        }
    }

    /// Does all of it or nothing. An error is a broken invariant.
    pub fn apply(&mut self, transaction: Transaction, guarded: Guard) -> Result<(), String> {
        let Transaction { term, route_revision, record_revision, change } = transaction;
        let needs_route = matches!(change, Change::Commit(..) | Change::Record(..));
        let needs_record = !matches!(change, Change::Commit(_, None) | Change::Record(..));
        let holds = term == self.term
            && (!needs_route || route_revision == self.route.revision)
            && (!needs_record || record_revision == self.record.revision);
        if !holds && guarded == Guard::On {
            return Ok(());
        }
        self.revision += 1;
        match change {
            Change::Create(migration) => {
                self.created += 1;
                self.put(Some(migration));
            }
            Change::Put(migration) => self.put(Some(migration)),
            Change::Commit(route, then) => {
                self.lead(route)?;
                if then.is_some() {
                    self.put(then);
                }
            }
            Change::Record(node, process, route) => {
                self.recorded.insert(node, process);
                if let Some(route) = route {
                    self.lead(route)?;
                }
            }
            Change::Remove(end) => {
                let record = self.record.value.take().ok_or("ended without a record")?;
                if self.ends.iter().any(|(id, _)| *id == record.id) {
                    return Err(format!("procedure {} ended twice", record.id));
                }
                self.ends.push((record.id, end));
                self.put(None);
            }
        }
        Ok(())
    }

    fn put(&mut self, record: Option<Migration>) {
        self.record = Versioned { value: record, revision: self.revision };
    }

    fn lead(&mut self, route: Led) -> Result<(), String> {
        if route.epoch <= self.route.value.epoch {
            return Err(format!("the epoch went from {:?} to {:?}", self.route.value, route));
        }
        self.committed.insert((route.epoch, route.node));
        self.route = Versioned { value: route, revision: self.revision };
        Ok(())
    }
}

/// Whether revisions and the fence are compared: one of the mutations leaves it out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Guard {
    On,
    Off,
}
