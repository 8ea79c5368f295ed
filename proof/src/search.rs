//! One search through a model: breadth first, until nothing new is found or something is broken.

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use metasrv_core_proof::guard::{self, Rule};
use rustix::time::{ClockId, clock_gettime};
use stateright::{Checker, Expectation, HasDiscoveries, Model};

use crate::clock;

/// What a search found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Different states.
    pub states: usize,
    /// The longest shortest way to one of them, in steps.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// What was broken, if something was; with the shortest way there.
    pub broken: Option<Broken>,
    /// What should have been seen to happen, and was not.
    pub unseen: Vec<&'static str>,
    /// The rules that decided something.
    pub exercised: Vec<Rule>,
}

/// An invariant that does not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken {
    /// Its name.
    pub invariant: &'static str,
    /// The steps that lead there, each as it is shown.
    pub steps: Vec<String>,
}

/// How hard to search.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Effort {
    /// Threads. With one, what is found is found in the same number of states each time.
    pub threads: usize,
    /// States, generated again or not, after which the search gives up.
    pub most: Option<usize>,
}

/// Searches the model, without this rule.
pub fn search<M>(model: M, without: Option<Rule>, effort: Effort) -> Outcome
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync + 'static,
{
    clock::set_drift();
    guard::remove(without);
    let began = now();
    let mut builder = model.checker().threads(effort.threads).finish_when(HasDiscoveries::AnyFailures);
    if let Some(most) = effort.most {
        builder = builder.target_state_count(most);
    }
    let checker = builder.spawn_bfs().join();
    let took = now().saturating_sub(began);
    let exercised = guard::exercised();
    let found = checker.discoveries();
    let properties = checker.model().properties();
    let always = properties.iter().filter(|it| it.expectation == Expectation::Always).map(|it| it.name);
    let broken = always
        .filter_map(|name| Some((name, found.get(name)?)))
        .min_by_key(|(name, path)| ((*path).clone().into_actions().len(), *name));
    let broken = broken.map(|(invariant, path)| Broken {
        invariant,
        steps: path.clone().into_actions().iter().map(|step| format!("{step:?}")).collect(),
    });
    let sometimes = properties.iter().filter(|it| it.expectation == Expectation::Sometimes);
    let unseen = sometimes.map(|it| it.name).filter(|name| !found.contains_key(name)).collect();
    guard::remove(None);
    Outcome {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        took,
        broken,
        unseen,
        exercised,
    }
}

fn now() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}
