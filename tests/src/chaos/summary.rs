//! Rounds as figures and as rows of a table, each beside its target.
//!
//! A target on time is met or missed; that decides nothing. What decides is safety: [`Safety::holds`].

use std::time::Duration;

use super::fault::Fault;
use super::round::{Measured, Rounds};
use super::world::INTERVAL;
use crate::figures::Figures;

/// What must be nothing at all, over all rounds of a run.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Safety {
    /// See `ledger.rs`.
    pub double_leader_instants: u64,
    /// Acknowledged changes that are not there, and unknown ones that are there more than once.
    pub lost_writes: usize,
    /// Regions that changed nodes.
    pub moved: usize,
    /// Grants of a deposed leader within its own deadline. Not a violation; see `ledger.rs`.
    pub overlapping: u64,
    /// How long after its successor's first grant one of them was asked for.
    pub longest_overlap: Duration,
    /// Regions that the client was told to be created.
    pub acknowledged: usize,
    /// Calls of the client with an unknown outcome.
    pub unknown: usize,
}

impl Safety {
    /// Whether it does hold.
    pub fn holds(&self) -> bool {
        self.double_leader_instants == 0 && self.lost_writes == 0 && self.moved == 0
    }
}

/// A row of the table.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// What happened.
    pub fault: Fault,
    /// The cells, as in [`COLUMNS`].
    pub cells: Vec<String>,
    /// Whether its target is met.
    pub met: bool,
}

/// The table's head. Times in milliseconds.
pub const COLUMNS: [&str; 13] = [
    "fault",
    "rounds",
    "longest gap p50 / p99 / max",
    "gap − interval p50 / p99",
    "serving p99 / max",
    "leaderless p99",
    "leased again max",
    "read-only",
    "moved",
    "leader changes",
    "refused by the fence",
    "target",
    "met",
];

/// The smallest value that is not less than this share of all values (nearest rank). Zero of none.
pub fn percentile(values: &[Duration], percent: usize) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// One number for each round in which there is one.
fn values(rounds: &[Measured], value: impl Fn(&Measured) -> Option<Duration>) -> Vec<Duration> {
    rounds.iter().filter_map(value).collect()
}

fn most(rounds: &[Measured], value: impl Fn(&Measured) -> Option<Duration>) -> Option<Duration> {
    rounds.iter().filter_map(value).max()
}

fn serving(rounds: &[Measured]) -> Vec<Duration> {
    values(rounds, |round| round.serving)
}

fn gaps(rounds: &[Measured]) -> Vec<Duration> {
    values(rounds, |round| Some(round.gap))
}

/// A target in words, and whether these rounds meet it.
pub fn target(fault: Fault, rounds: &[Measured]) -> (&'static str, bool) {
    let gap =
        |percent, over: u64| percentile(&gaps(rounds), percent) <= INTERVAL + Duration::from_millis(over);
    let serves = |percent, limit: u64| {
        serving(rounds).len() == rounds.len()
            && percentile(&serving(rounds), percent) <= Duration::from_millis(limit)
    };
    let leaderless = values(rounds, |round| round.leaderless);
    let hands_over =
        percentile(&leaderless, 99) <= Duration::from_millis(20) && leaderless.len() == rounds.len();
    let changes: usize = rounds.iter().map(|round| round.leader_changes).sum();
    let untouched = rounds.iter().all(|round| round.read_only == 0);
    let stays = changes == 0 && untouched;
    match fault {
        Fault::LeaderKill => (
            "gap p50 ≤ interval + 50, p99 ≤ interval + 250; serving p99 ≤ 50; none read-only",
            gap(50, 50) && gap(99, 250) && serves(99, 50) && untouched,
        ),
        Fault::LeaderTerm | Fault::LeaderTransfer => (
            "gap ≤ interval + 100; leaderless p99 ≤ 20; none read-only",
            gap(100, 100) && hands_over && untouched,
        ),
        Fault::LeaderHang
        | Fault::LeaderBlackhole
        | Fault::LeaderBlackholeIn
        | Fault::LeaderBlackholeOut
        | Fault::LeaderBlocked => {
            ("serving ≤ 1,500; one change", serves(100, 1_500) && changes == rounds.len())
        }
        Fault::EtcdLeaderKill | Fault::EtcdMemberBlackhole | Fault::EtcdLeaderBlackhole => {
            ("no change of leader; none read-only", stays)
        }
        Fault::EtcdAndLeaderKill => ("serving ≤ 3,500", serves(100, 3_500)),
        Fault::EtcdQuorumLoss => {
            let again = most(rounds, |round| round.leased_again);
            ("leased again ≤ 2,000; none moved", again.is_some_and(|again| again <= Duration::from_secs(2)))
        }
        Fault::EtcdNospace => (
            "heartbeats go on: none read-only; takeover works",
            serving(rounds).len() == rounds.len() && untouched,
        ),
    }
}

/// The rows, in the order of faults.
pub fn rows(rounds: &Rounds) -> Vec<Row> {
    rounds.iter().map(|(fault, rounds)| row(*fault, rounds)).collect()
}

fn row(fault: Fault, rounds: &[Measured]) -> Row {
    let gaps = gaps(rounds);
    let serving = serving(rounds);
    let leaderless = values(rounds, |round| round.leaderless);
    let over = |percent| millis(percentile(&gaps, percent).saturating_sub(INTERVAL));
    let some = |values: &[Duration], text: String| if values.is_empty() { "–".to_owned() } else { text };
    let (target, met) = target(fault, rounds);
    let refused = rounds.iter().filter(|round| round.refused).count();
    let cells = vec![
        fault.name().to_owned(),
        rounds.len().to_string(),
        format!(
            "{} / {} / {}",
            millis(percentile(&gaps, 50)),
            millis(percentile(&gaps, 99)),
            millis(percentile(&gaps, 100))
        ),
        format!("{} / {}", over(50), over(99)),
        some(
            &serving,
            format!("{} / {}", millis(percentile(&serving, 99)), millis(percentile(&serving, 100))),
        ),
        some(&leaderless, millis(percentile(&leaderless, 99))),
        most(rounds, |round| round.leased_again).map_or("–".to_owned(), millis),
        rounds.iter().map(|round| round.read_only).max().unwrap_or(0).to_string(),
        rounds.iter().map(|round| round.moved).sum::<usize>().to_string(),
        rounds.iter().map(|round| round.leader_changes).sum::<usize>().to_string(),
        if fault.deposes_the_living() { format!("{refused} of {}", rounds.len()) } else { "–".to_owned() },
        target.to_owned(),
        if met { "yes" } else { "no" }.to_owned(),
    ];
    Row { fault, cells, met }
}

/// Whole milliseconds, for people.
pub fn millis(duration: Duration) -> String {
    format!("{:.0}", duration.as_secs_f64() * 1e3)
}

/// Milliseconds as a figure.
pub fn as_figure(duration: Duration) -> f64 {
    // A tenth of a millisecond is what a look from outside resolves.
    (duration.as_secs_f64() * 1e4).round() / 10.0
}

/// A count as a figure.
pub fn count(value: impl TryInto<u32>) -> f64 {
    f64::from(value.try_into().unwrap_or(u32::MAX))
}

/// Prints and keeps the figures of those faults that were tried.
pub fn figures(rounds: &Rounds, safety: &Safety) -> Figures {
    let mut figures = Figures::default();
    let none = Vec::new();
    let of = |fault: Fault| rounds.get(&fault).unwrap_or(&none);
    let mut time = |name: &str, of: &[Measured], duration: Duration| {
        if !of.is_empty() {
            figures.add(name, as_figure(duration), "ms");
        }
    };
    let longest = |rounds: &[Measured]| percentile(&serving(rounds), 100);
    let kill = of(Fault::LeaderKill);
    time("leader_kill_gap_p50_ms", kill, percentile(&gaps(kill), 50));
    time("leader_kill_gap_p99_ms", kill, percentile(&gaps(kill), 99));
    time("leader_kill_serving_p99_ms", kill, percentile(&serving(kill), 99));
    let term = of(Fault::LeaderTerm);
    time("leader_term_gap_p99_ms", term, percentile(&gaps(term), 99));
    let transfer = of(Fault::LeaderTransfer);
    let leaderless = values(transfer, |round| round.leaderless);
    time("transfer_leaderless_p99_ms", transfer, percentile(&leaderless, 99));
    time("leader_hang_serving_max_ms", of(Fault::LeaderHang), longest(of(Fault::LeaderHang)));
    let holes = [Fault::LeaderBlackhole, Fault::LeaderBlackholeIn, Fault::LeaderBlackholeOut];
    let holes: Vec<Measured> = holes.into_iter().flat_map(|fault| of(fault).iter().cloned()).collect();
    time("leader_blackhole_serving_max_ms", &holes, longest(&holes));
    time("leader_blocked_serving_max_ms", of(Fault::LeaderBlocked), longest(of(Fault::LeaderBlocked)));
    let both = of(Fault::EtcdAndLeaderKill);
    time("etcd_and_leader_serving_max_ms", both, longest(both));
    let quorum = of(Fault::EtcdQuorumLoss);
    let again = most(quorum, |round| round.leased_again).unwrap_or_default();
    time("etcd_quorum_loss_leased_again_ms", quorum, again);
    if !quorum.is_empty() {
        let moved: usize = quorum.iter().map(|round| round.moved).sum();
        figures.add("etcd_quorum_loss_regions_moved", count(moved), "regions");
    }
    let faults = [Fault::EtcdLeaderKill, Fault::EtcdMemberBlackhole, Fault::EtcdLeaderBlackhole];
    let faults: Vec<&Measured> = faults.into_iter().flat_map(of).collect();
    if !faults.is_empty() {
        let changes: usize = faults.iter().map(|round| round.leader_changes).sum();
        figures.add("etcd_fault_leader_changes", count(changes), "changes");
    }
    figures.add("overlapping_grants", count(safety.overlapping), "grants");
    figures.add("double_leader_instants", count(safety.double_leader_instants), "grants");
    figures.add("lost_writes", count(safety.lost_writes), "writes");
    figures
}

/// The table as text, its columns as wide as they have to be.
pub fn table(head: &[&str], rows: &[&[String]]) -> String {
    let named: Vec<String> = head.iter().map(|column| (*column).to_owned()).collect();
    let lines: Vec<&[String]> = std::iter::once(named.as_slice()).chain(rows.iter().copied()).collect();
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}
