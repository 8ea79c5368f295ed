//! Leases and moves: two replicas of metasrv, two nodes of which one may restart, one region.
//!
//! | file | what |
//! | --- | --- |
//! | `world.rs` | a state: the store, the replicas, the processes of nodes, and what is on its way between them |
//! | `leader.rs` | a leader: what it knows, and what the core makes it grant, admit, move and wait for |
//! | `process.rs` | a process of a node: what it holds, and until when it may write |
//! | `step.rs` | everything that can happen, each a step |
//! | `property.rs` | what must always be so, and what must be seen to happen |
//!
//! What the model assumes of nothing: that anything happens. A process that stops for a while is one whose steps are not
//! taken; so is a message that is late, a call that hangs, a leader that does not notice its end.
//!
//! The way to leadership is one step here (how an attempt gets there is not searched): whoever finds no key in the store wins,
//! reads back and begins a term. A key may go at any time: revoked, resigned, or expired by a clock however fast.

mod leader;
mod process;
mod property;
mod step;
#[cfg(test)]
mod trace_tests;
mod world;

use metasrv_core_proof::incarnation::Holder;
use stateright::{Model, Property};

pub use step::Step;
pub use world::{Broken, World};

use crate::clock::Rate;
use crate::slip::Slip;
use leader::Node;
use process::Process;
use world::{Replica, Route, Store};

/// How far a search goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Terms that may begin.
    pub terms: u8,
    /// The highest revision of the region's route; it begins at 1, and its epoch with it.
    pub routes: u8,
    /// The node of each process, in the order in which they may start; the first of each node is there at the beginning.
    pub processes: &'static [u8],
    /// What may happen beside what always may.
    pub happens: Happens,
}

/// What may happen, where a search includes it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Happens {
    /// Processes may end, and their end may be certified, any number of times and late.
    pub deaths: bool,
    /// Leaders may ask the holder to stop writing, and undo that.
    pub stops: bool,
    /// Leaders may resign.
    pub resigns: bool,
    /// A request may be late, and come twice, also to the other replica. Otherwise only its answer may be late.
    pub late_requests: bool,
}

/// The model, within bounds.
#[derive(Clone, Debug)]
pub struct Region {
    /// How far it goes.
    pub bounds: Bounds,
    /// The mistake of the shell that is in it.
    pub slip: Option<Slip>,
}

impl Model for Region {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        // The replicas are alike but for their clocks: the fourth pair is the second one seen from the other side.
        let pairs = [[Rate::Slow, Rate::Slow], [Rate::Slow, Rate::Fast], [Rate::Fast, Rate::Fast]];
        // With one term only one of them ever leads.
        let differ = |pair: &[Rate; 2]| self.bounds.terms > 1 || pair.first() != pair.last();
        pairs.into_iter().filter(differ).map(|pair| self.beginning(pair)).collect()
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        step::possible(self, world, steps);
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        step::take(self, &mut next, step)?;
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Region>> {
        property::all(self)
    }
}

impl Region {
    /// The region is with the first process of the first node, opened and without a lease; nobody leads.
    fn beginning(&self, rates: [Rate; 2]) -> World {
        let processes = self.bounds.processes;
        let is_first =
            |at: usize| processes.iter().position(|node| Some(node) == processes.get(at)) == Some(at);
        let recorded = [0, 1].map(|node| processes.iter().position(|of| *of == node).map(process::number));
        World {
            store: Store::new(Route { node: 0, epoch: 1, revision: 1 }, recorded),
            replicas: rates.map(Replica::new),
            processes: std::array::from_fn(|at| {
                Process::new(at < processes.len() && is_first(at), if at == 0 { 1 } else { 0 })
            }),
            broken: None,
        }
    }

    /// A node as a new leader finds it in the store.
    fn inherited(recorded: Option<u8>) -> Node {
        Node {
            holder: recorded.map_or_else(Holder::default, |it| Holder::recorded(process::incarnation(it))),
            certificate: None,
            stopped: None,
            recording: false,
        }
    }
}
