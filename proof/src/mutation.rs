//! The searches, and which of them must miss which rule.
//!
//! Each rule that the core carries, and each mistake that a shell could make, is tried in the scope that is to find it, in
//! one thread: the number of states and steps is the same each time, and docs/proof.md states it.

use metasrv_core_proof::guard::Rule;

use crate::region::{Bounds, Happens, Region};
use crate::search::{Effort, Outcome, search};
use crate::slip::Slip;

/// A mutation is searched for in no more than so many states, counted as often as they are reached.
const BUDGET: usize = 20_000_000;

/// A search: its name, and how far it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scope {
    /// Its name.
    pub name: &'static str,
    /// How far it goes.
    pub bounds: Bounds,
}

const NOTHING: Happens = Happens { deaths: false, stops: false, resigns: false, late_requests: false };

/// Leaders follow leaders, and one region moves.
pub const TERMS: Scope =
    Scope { name: "terms", bounds: Bounds { terms: 3, routes: 2, processes: &[0, 1], happens: NOTHING } };
/// The same with two terms and a way back.
pub const MOVES: Scope =
    Scope { name: "moves", bounds: Bounds { terms: 2, routes: 3, processes: &[0, 1], happens: NOTHING } };
/// Leaders resign.
pub const RESIGNS: Scope = Scope {
    name: "resigns",
    bounds: Bounds { terms: 2, routes: 2, processes: &[0, 1], happens: Happens { resigns: true, ..NOTHING } },
};
/// A process starts while the one before it may run on.
pub const RESTARTS: Scope =
    Scope { name: "restarts", bounds: Bounds { terms: 2, routes: 3, processes: &[0, 0], happens: NOTHING } };
/// Processes end, and that is certified late and again; the region may move too.
pub const DEATHS: Scope = Scope {
    name: "deaths",
    bounds: Bounds {
        terms: 1,
        routes: 3,
        processes: &[0, 1, 0],
        happens: Happens { deaths: true, ..NOTHING },
    },
};
/// Three processes of one node.
pub const HEIRS: Scope = Scope {
    name: "heirs",
    bounds: Bounds {
        terms: 1,
        routes: 3,
        processes: &[0, 0, 0],
        happens: Happens { deaths: true, ..NOTHING },
    },
};
/// The holder is asked to stop.
pub const STOPS: Scope = Scope {
    name: "stops",
    bounds: Bounds { terms: 1, routes: 2, processes: &[0, 1], happens: Happens { stops: true, ..NOTHING } },
};
/// Heartbeats are late and come twice.
pub const LATE: Scope = Scope {
    name: "late",
    bounds: Bounds {
        terms: 1,
        routes: 2,
        processes: &[0, 1],
        happens: Happens { late_requests: true, ..NOTHING },
    },
};
/// The holder is asked to stop, that is undone, and asked again. Too large to be exhausted here: for mutations only.
const UNDOES: Scope = Scope {
    name: "undoes",
    bounds: Bounds { terms: 1, routes: 3, processes: &[0, 1], happens: Happens { stops: true, ..NOTHING } },
};

/// The searches that `make model` exhausts.
pub const SCOPES: [Scope; 8] = [TERMS, MOVES, RESIGNS, RESTARTS, DEATHS, HEIRS, STOPS, LATE];

/// What is wrong in a search.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutation {
    /// A rule of the core is removed.
    Without(Rule),
    /// The model's shell makes a mistake.
    With(Slip),
}

impl Mutation {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Mutation> {
        let rules = Rule::ALL.iter().copied().map(Mutation::Without);
        rules.chain(Slip::ALL.iter().copied().map(Mutation::With))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Mutation::Without(rule) => rule.name(),
            Mutation::With(slip) => slip.name(),
        }
    }

    /// What the rule says, or what is done wrong.
    pub fn says(self) -> &'static str {
        match self {
            Mutation::Without(rule) => rule.says(),
            Mutation::With(slip) => slip.says(),
        }
    }

    /// The search that finds it.
    pub fn scope(self) -> Scope {
        match self {
            Mutation::Without(rule) => match rule {
                Rule::LeadershipIsShort
                | Rule::LeaseIsShort
                | Rule::GrantWaitIsLong
                | Rule::UnknownEndCostsTtl
                | Rule::MoveWaitsForGrants
                | Rule::MoveWaitsForTerms
                | Rule::MoveRaisesEpoch => MOVES,
                Rule::SuccessorWaitsForGrants | Rule::SuccessorWaitsForTerms => RESTARTS,
                Rule::EndOfTheRecorded => HEIRS,
                Rule::CertificateOfTheHolder => DEATHS,
                Rule::StoppedUnderThisEpoch => UNDOES,
            },
            Mutation::With(slip) => match slip {
                Slip::Unfenced
                | Slip::UnknownIsFailed
                | Slip::GrantsWhileMoving
                | Slip::DeadlineOnce
                | Slip::LeaseFromAnswer
                | Slip::ToldBeforeCommit => MOVES,
                Slip::RevisionIgnored | Slip::LateAnswerGoesBack => DEATHS,
                Slip::ResignsWhileGranting => RESIGNS,
                Slip::GrantsWhileRecording | Slip::SuccessorKeepsEpoch => RESTARTS,
                Slip::StopForgotten => STOPS,
            },
        }
    }

    /// Searches for what comes of it.
    pub fn search(self) -> Outcome {
        let (without, slip) = match self {
            Mutation::Without(rule) => (Some(rule), None),
            Mutation::With(slip) => (None, Some(slip)),
        };
        let model = Region { bounds: self.scope().bounds, slip };
        search(model, without, Effort { threads: 1, most: Some(BUDGET) })
    }

    /// Its line in docs/proof.md.
    pub fn row(self, outcome: &Outcome) -> String {
        let (found, steps) = match &outcome.broken {
            Some(broken) => (broken.invariant, broken.steps.len().to_string()),
            None => ("**nothing**", "-".to_owned()),
        };
        let scope = self.scope().name;
        format!("| `{}` | {} | {scope} | {found} | {steps} | {} |", self.name(), self.says(), outcome.states)
    }
}

/// Exhausts a scope.
pub fn exhaust(scope: Scope, threads: usize) -> Outcome {
    search(Region { bounds: scope.bounds, slip: None }, None, Effort { threads, most: None })
}
