//! A run: faults for a while, with every invariant looked at after every tick; then everything is healed, and has to be well.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Once, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tracing::{Dispatch, Level};

use crate::entropy;
use crate::fault::{Cast, Fault, draw};
use crate::host;
use crate::invariant::i14_progress::Counts;
use crate::invariant::{self, Invariant, Moment, i13_converges};
use crate::operator::Operation;
use crate::plant::Plant;
use crate::trace::{Lines, Trace};
use crate::world::World;

/// A cluster without faults is up after so long.
const UP: Duration = Duration::from_secs(60);

/// Time between two looks at whether all is well.
const LOOK: u64 = 250_000_000;

/// Lines of a transcript.
const LINES: usize = 400;

/// How a run is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Every line is printed as it comes.
    pub echo: bool,
    /// Lines of this level and more important ones.
    pub level: Level,
    /// A mistake that has to be found.
    pub plant: Option<Plant>,
}

impl Default for Look {
    fn default() -> Look {
        Look { echo: false, level: Level::INFO, plant: None }
    }
}

/// What must hold and did not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken {
    /// The invariant.
    pub invariant: String,
    /// How.
    pub what: String,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// What must hold and did not, if anything.
    pub broken: Option<Broken>,
    /// What happened.
    pub counts: Counts,
    /// Faults that began, by name.
    pub faults: BTreeMap<Fault, u32>,
    /// How often an operation was under way during a fault.
    pub matrix: BTreeMap<(Fault, Operation), u32>,
    /// Virtual time.
    pub simulated: Duration,
    /// How long it took until all was well again.
    pub healed_in: Duration,
    /// The hash of everything.
    pub hash: u64,
    /// The last lines.
    pub lines: Vec<String>,
}

thread_local! {
    /// Where a process of this thread's run panicked.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let noted = PANIC.try_with(|panic| *panic.borrow_mut() = Some(info.to_string()));
            // Where no process runs it is the simulation itself.
            if noted.is_err() || host::running() == "sim" {
                usual(info);
            }
        }));
    });
}

/// Runs a seed, in a thread of its own: what a thread has drawn before would change the run.
///
/// # Panics
/// Where the simulation itself does, or there is no thread to be had.
pub fn run(seed: u64, look: Look) -> Outcome {
    note_panics();
    let thread = std::thread::Builder::new().name("simulation".to_owned()).spawn(move || {
        entropy::begin(seed);
        let trace = Trace::new(LINES, look.echo);
        let lines = Dispatch::new(Lines::new(trace.clone(), look.level));
        tracing::dispatcher::with_default(&lines, || Run::new(seed, trace, look.plant).go())
    });
    let outcome = thread.map(std::thread::JoinHandle::join);
    #[allow(clippy::panic)]
    match outcome {
        Ok(Ok(outcome)) => outcome,
        _ => panic!("the simulation of seed {seed} has panicked"),
    }
}

struct Run {
    seed: u64,
    world: World,
    random: StdRng,
    invariants: Vec<Box<dyn Invariant>>,
    counts: Counts,
    faults: BTreeMap<Fault, u32>,
    matrix: BTreeMap<(Fault, Operation), u32>,
    together: BTreeSet<(Fault, Operation)>,
    healed_in: Duration,
}

impl Run {
    fn new(seed: u64, trace: Trace, plant: Option<Plant>) -> Run {
        let world = World::new(seed, trace, plant);
        world.trace.say("sim", &format!("{:?}", world.settings));
        Run {
            seed,
            world,
            random: StdRng::seed_from_u64(seed ^ 0xfa17),
            invariants: invariant::all(),
            counts: Counts::default(),
            faults: BTreeMap::new(),
            matrix: BTreeMap::new(),
            together: BTreeSet::new(),
            healed_in: Duration::ZERO,
        }
    }

    fn go(mut self) -> Outcome {
        let broken = self.phases().err();
        if let Some(broken) = &broken {
            self.world.trace.say("sim", &format!("BROKEN {}: {}", broken.invariant, broken.what));
        }
        Outcome {
            seed: self.seed,
            broken,
            counts: self.counts,
            faults: self.faults,
            matrix: self.matrix,
            simulated: Duration::from_nanos(self.world.now),
            healed_in: self.healed_in,
            hash: self.world.trace.hash(),
            lines: self.world.trace.lines(),
        }
    }

    fn phases(&mut self) -> Result<(), Broken> {
        self.rise()?;
        self.suffer()?;
        self.recover()?;
        for at in 0..self.invariants.len() {
            let invariant = &mut self.invariants[at];
            let name = invariant.name();
            invariant.end(&self.world).map_err(|what| broken(name, what))?;
        }
        self.counts.end(&self.world).map_err(|what| broken("I14 progress", what))
    }

    /// The cluster comes up, and the first regions are made.
    fn rise(&mut self) -> Result<(), Broken> {
        while !self.world.desk.ready.load(std::sync::atomic::Ordering::Relaxed) {
            self.tick()?;
            if Duration::from_nanos(self.world.now) > UP {
                return Err(broken("I13 convergence", "the cluster does not come up".to_owned()));
            }
        }
        Ok(())
    }

    /// Faults, one after another and beside each other.
    fn suffer(&mut self) -> Result<(), Broken> {
        let end = self.world.now + u64::try_from(self.world.settings.faults.as_nanos()).unwrap_or(0);
        let mut next = self.world.now;
        while self.world.now < end {
            if self.world.now >= next {
                self.begin_fault();
                let pause = self.random.random_range(0..self.world.settings.pause_ms);
                next = self.world.now + pause * 1_000_000;
            }
            self.tick()?;
        }
        Ok(())
    }

    fn begin_fault(&mut self) {
        let fault = *Fault::ALL.choose(&mut self.random).unwrap_or(&Fault::LeaderKilled);
        let (replicas, nodes) = (self.world.replicas(), self.world.nodes());
        let leader = self.world.leader().map_or_else(|| replicas[0].clone(), |(name, _)| name);
        let cast = Cast { leader: &leader, replicas: &replicas, nodes: &nodes };
        let plan = draw(fault, &cast, &mut self.random);
        *self.faults.entry(fault).or_default() += 1;
        self.world.suffer(plan);
    }

    /// Everything heals, and is well within the bound, and still a while later.
    fn recover(&mut self) -> Result<(), Broken> {
        self.world.heal();
        let healed = self.world.now;
        let bound = u64::try_from(self.world.settings.calm.as_nanos()).unwrap_or(0);
        let mut missing = Some("nobody has looked".to_owned());
        while let Some(what) = missing {
            if self.world.now > healed + bound {
                return Err(broken("I13 convergence", what));
            }
            let next = self.world.now + LOOK;
            while self.world.now < next {
                self.tick()?;
            }
            missing = i13_converges::missing(&self.world);
        }
        self.healed_in = Duration::from_nanos(self.world.now - healed);
        let rest = self.world.now + 8 * LOOK;
        while self.world.now < rest {
            self.tick()?;
        }
        match i13_converges::missing(&self.world) {
            None => Ok(()),
            Some(what) => Err(broken("I13 convergence", format!("all was well, and then {what}"))),
        }
    }

    fn tick(&mut self) -> Result<(), Broken> {
        self.world.tick();
        if let Some(what) = PANIC.take() {
            return Err(broken("a process panicked", what));
        }
        let (commits, grants) = self.world.news();
        let moment = Moment { world: &self.world, commits: &commits, grants: &grants };
        self.counts.look(&moment);
        for invariant in &mut self.invariants {
            invariant.look(&moment).map_err(|what| broken(invariant.name(), what))?;
        }
        self.count_pairs();
        Ok(())
    }

    fn count_pairs(&mut self) {
        let open = self.world.desk.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.is_empty() {
            self.together.clear();
            return;
        }
        let active = self.world.active();
        let pairs = active.iter().flat_map(|fault| open.iter().map(|operation| (*fault, *operation)));
        let now: BTreeSet<(Fault, Operation)> = pairs.collect();
        for pair in now.difference(&self.together) {
            *self.matrix.entry(*pair).or_default() += 1;
        }
        self.together = now;
    }
}

fn broken(invariant: &str, what: String) -> Broken {
    Broken { invariant: invariant.to_owned(), what }
}
