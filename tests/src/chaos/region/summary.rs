//! Rounds of regions as figures and as rows of a table, each beside its target.
//!
//! A target on time is met or missed; that decides nothing. What decides is safety: [`Safety::holds`].

use std::time::Duration;

use super::fault::RegionFault;
use super::round::{Measured, Rounds};
use crate::chaos::route_watch::RouteFigures;
use crate::chaos::summary::{as_figure, count, millis, percentile};
use crate::figures::Figures;

/// A region's lease, as it is by default.
const LEASE_MS: u64 = 5_000;

/// TTL of a leader's lease, as it is by default.
const TTL_MS: u64 = 5_000;

/// What must be nothing at all, over all rounds of a run.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Safety {
    /// Two processes may have written to one region at the same time.
    pub overlapping_writers: usize,
    /// Acknowledged puts that are not there.
    pub lost_puts: usize,
    /// Procedures that neither finished nor were undone.
    pub procedures_unfinished: usize,
    /// What checks of the store found.
    pub findings: usize,
    /// Changes of routes that a frontend never saw, and times that one was led back.
    pub routes_missed: usize,
    /// Writes that the datanodes noted.
    pub writes: u64,
    /// Changes of routes that were committed.
    pub route_changes: usize,
    /// From the commit of a change until a frontend saw it: of a hundred, one took longer. The worst world.
    pub route_p99: Duration,
}

impl Safety {
    /// Whether it does hold.
    pub fn holds(&self) -> bool {
        let wrong = [self.overlapping_writers, self.lost_puts, self.procedures_unfinished, self.findings];
        wrong == [0; 4] && self.routes_missed == 0
    }

    /// What the frontends saw in one world.
    pub fn add_routes(&mut self, seen: &RouteFigures) {
        let went_back = usize::try_from(seen.went_back).unwrap_or(usize::MAX);
        self.routes_missed += seen.unseen.len().saturating_add(went_back);
        self.route_changes += seen.commits;
        self.route_p99 = self.route_p99.max(seen.p99);
    }
}

/// A row of the table.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// What happened.
    pub fault: RegionFault,
    /// The cells, as in [`COLUMNS`].
    pub cells: Vec<String>,
    /// Whether its target is met.
    pub met: bool,
}

/// The table's head. Times in milliseconds.
pub const COLUMNS: [&str; 12] = [
    "fault",
    "rounds",
    "regions",
    "gap p50 / p99 / max",
    "worst of a round p50 / p99",
    "over after p50 / max",
    "unfinished",
    "store findings",
    "moved",
    "said",
    "target",
    "met",
];

fn gaps(rounds: &[Measured]) -> Vec<Duration> {
    rounds.iter().flat_map(|round| round.gaps.iter().copied()).collect()
}

/// The longest gap of each round: a fault is over when the last of its regions is.
fn worst(rounds: &[Measured]) -> Vec<Duration> {
    rounds.iter().map(Measured::worst).collect()
}

/// A target in words, and whether these rounds meet it.
pub fn target(fault: RegionFault, rounds: &[Measured]) -> (&'static str, bool) {
    let within = |limit: u64| {
        rounds.iter().all(|round| !round.gaps.is_empty())
            && percentile(&worst(rounds), 99) <= Duration::from_millis(limit)
    };
    let stays = rounds.iter().all(|round| round.moved == 0);
    let whole = rounds.iter().all(|round| round.unfinished == 0 && round.findings.is_empty());
    let said = rounds.iter().all(|round| round.said.is_some());
    let (text, met) = match fault {
        RegionFault::WorkerKill => ("worst p99 ≤ 500", within(500)),
        RegionFault::NodeKill | RegionFault::NodeBlackhole => {
            ("worst p99 ≤ lease + 1,500", within(LEASE_MS + 1_500))
        }
        RegionFault::NodeAndLeaderKill => {
            ("worst p99 ≤ lease + TTL + 1,000", within(LEASE_MS + TTL_MS + 1_000))
        }
        RegionFault::Migrate => ("p99 ≤ 50", within(50)),
        RegionFault::Drain => ("no gap above 50; says how long it takes", within(50) && said),
        RegionFault::ProcedureLeaderKill => ("none unfinished; nothing found in the store", true),
        RegionFault::HalfBlackhole => ("the brake holds and says why; none moved", said),
    };
    (text, met && stays && whole)
}

/// The rows, in the order of faults.
pub fn rows(rounds: &Rounds) -> Vec<Row> {
    rounds.iter().map(|(fault, rounds)| row(*fault, rounds)).collect()
}

fn row(fault: RegionFault, rounds: &[Measured]) -> Row {
    let (gaps, worst) = (gaps(rounds), worst(rounds));
    let took: Vec<Duration> = rounds.iter().map(|round| round.took).collect();
    let (target, met) = target(fault, rounds);
    let sum = |value: fn(&Measured) -> usize| rounds.iter().map(value).sum::<usize>().to_string();
    let of = |values: &[Duration], percent| millis(percentile(values, percent));
    let cells = vec![
        fault.name().to_owned(),
        rounds.len().to_string(),
        gaps.len().to_string(),
        format!("{} / {} / {}", of(&gaps, 50), of(&gaps, 99), of(&gaps, 100)),
        format!("{} / {}", of(&worst, 50), of(&worst, 99)),
        format!("{} / {}", of(&took, 50), of(&took, 100)),
        sum(|round| round.unfinished),
        sum(|round| round.findings.len()),
        sum(|round| round.moved),
        rounds.iter().find_map(|round| round.said.clone()).unwrap_or_else(|| "–".to_owned()),
        target.to_owned(),
        if met { "yes" } else { "no" }.to_owned(),
    ];
    Row { fault, cells, met }
}

/// Prints and keeps the figures of those faults that were tried.
pub fn figures(rounds: &Rounds, safety: &Safety) -> Figures {
    let mut figures = Figures::default();
    let of = |faults: &[RegionFault]| -> Vec<Measured> {
        faults.iter().filter_map(|fault| rounds.get(fault)).flatten().cloned().collect()
    };
    let mut p99 = |name: &str, values: &[Duration]| {
        if !values.is_empty() {
            figures.add(name, as_figure(percentile(values, 99)), "ms");
        }
    };
    p99("failover_supervised_p99_ms", &worst(&of(&[RegionFault::WorkerKill])));
    p99("failover_lease_p99_ms", &worst(&of(&[RegionFault::NodeKill, RegionFault::NodeBlackhole])));
    p99("failover_with_leader_p99_ms", &worst(&of(&[RegionFault::NodeAndLeaderKill])));
    p99("migration_write_gap_p99_ms", &gaps(&of(&[RegionFault::Migrate])));
    p99("drain_write_gap_p99_ms", &gaps(&of(&[RegionFault::Drain])));
    if safety.route_changes > 0 {
        figures.add("route_watch_p99_ms", as_figure(safety.route_p99), "ms");
    }
    figures.add("procedures_unfinished", count(safety.procedures_unfinished), "procedures");
    figures.add("overlapping_writers", count(safety.overlapping_writers), "pairs");
    figures.add("lost_puts", count(safety.lost_puts), "puts");
    figures
}
