//! Terms that are reserved ahead, so that one can be led without writing anything new.
//!
//! A store that is out of space refuses puts, and allows deletes. So a candidate that stands in the queue reserves a
//! term while there is space: it raises the counter, writes the permanent record of that term, and beside it a *spare*:
//! a key that says "reserved, and not led". Whoever begins to lead a term deletes its spare and all below it in the
//! first transaction, before any grant. Without space a candidate begins with a term of its own, by these deletes alone.
//!
//! | what | says |
//! | --- | --- |
//! | the top | the highest term that is counted, recorded or reserved |
//! | the usable spares | the unbroken row of spares that ends at the top |
//! | the last term | the one below that row: no higher one was ever led |
//!
//! "Usable" is judged by what is there, never by who put it there. A term without a spare may have been led, and makes
//! every spare below it stale, also where whoever led it knew nothing of spares (an older version), and where the
//! counter was raised because a node had seen that term (a restored backup).

use std::collections::{BTreeMap, BTreeSet};

use crate::id::Term;

/// Usable spares beyond which no new one is made while one without an owner is left. Candidates are a handful; a
/// takeover deletes all spares up to its own in one transaction of up to 127 changes.
pub const MANY: usize = 32;

/// What a store knows of terms. `O` names the owner of a spare.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Terms<O> {
    top: Term,
    last: Term,
    spares: BTreeMap<Term, O>,
}

/// What a candidate may reserve.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reserve {
    /// The term after all others: the counter is to be raised to it.
    New(Term),
    /// A usable spare whose owner left the queue.
    Orphan(Term),
}

impl<O: PartialEq> Terms<O> {
    /// From the counter of terms, the terms that have a record, and the spares.
    pub fn new(counted: Term, recorded: &BTreeSet<Term>, spares: BTreeMap<Term, O>) -> Terms<O> {
        let highest = [recorded.last().copied(), spares.keys().next_back().copied()];
        let top = highest.into_iter().flatten().fold(counted, Term::max);
        let mut last = top;
        while last.0 > 0 && spares.contains_key(&last) {
            last = Term(last.0.saturating_sub(1));
        }
        Terms { top, last, spares }
    }

    /// The highest term that may have been led. 0: none.
    pub fn last(&self) -> Term {
        self.last
    }

    /// The highest term there is, led or reserved.
    pub fn top(&self) -> Term {
        self.top
    }

    /// The spares above every term that may have been led, in order.
    pub fn usable(&self) -> impl DoubleEndedIterator<Item = (Term, &O)> {
        self.spares.range(self.last.next()..).map(|(term, owner)| (*term, owner))
    }

    /// The usable spare of this owner; the highest, where it has several.
    pub fn spare_of(&self, owner: &O) -> Option<Term> {
        self.usable().rev().find(|(_, of)| *of == owner).map(|(term, _)| term)
    }

    /// The usable spare of this owner, if those who stand before it would leave it to it: a term that is led ends all
    /// spares below it.
    pub fn lasting_spare_of<'a>(&self, owner: &O, mut ahead: impl Iterator<Item = &'a O>) -> Option<Term>
    where
        O: 'a,
    {
        let own = self.spare_of(owner)?;
        ahead.all(|other| self.spare_of(other).is_none_or(|spare| spare < own)).then_some(own)
    }

    /// What a candidate may reserve that has no lasting spare; `stands` says whether an owner is still in the queue.
    ///
    /// Candidates lead in the order of the queue, and a led term ends all spares below it. So a spare that was left by
    /// its owner is taken over only where it is above those of the candidates who came before.
    pub fn reserve(&self, stands: impl Fn(&O) -> bool) -> Reserve {
        let highest_held = self.usable().rev().find(|(_, owner)| stands(owner)).map(|(term, _)| term);
        let orphans: Vec<Term> =
            self.usable().filter(|(_, owner)| !stands(owner)).map(|(term, _)| term).collect();
        let above = orphans.iter().find(|orphan| highest_held.is_none_or(|held| held < **orphan));
        let any = if self.usable().count() < MANY { None } else { orphans.first() };
        match above.or(any) {
            Some(orphan) => Reserve::Orphan(*orphan),
            None => Reserve::New(self.top.next()),
        }
    }

    /// The spares that end when this term begins, the highest first.
    pub fn ended_by(&self, term: Term) -> impl Iterator<Item = Term> {
        self.spares.range(..=term).rev().map(|(spare, _)| *spare)
    }
}

#[cfg(test)]
#[path = "spare_tests.rs"]
mod tests;
