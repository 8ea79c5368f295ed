//! `make chaos [FAULT=…] [ROUNDS=…]`: real faults, and what they cost the whole system, measured from outside.
//!
//! Faults whose names begin with `region-` have a world of their own, in `tests/src/chaos/region/`, and a page of their own,
//! docs/fault-matrix-regions.md.
//!
//! Prints a line for each round, the figures, and a table; writes `figures/chaos.json` in the target directory, and
//! docs/fault-matrix.md after a full run. The exit code says whether safety held; times are met or missed. What is
//! measured, and how, is in `tests/src/chaos/`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use metasrv_tests::chaos::fault::Fault;
use metasrv_tests::chaos::nodes::look;
use metasrv_tests::chaos::region::fault::RegionFault;
use metasrv_tests::chaos::round::{self, Measured, Rounds};
use metasrv_tests::chaos::servers::Quota;
use metasrv_tests::chaos::summary::{self, Safety};
use metasrv_tests::chaos::world::{Scale, World};
use metasrv_tests::chaos::writer::{Outcome, lost_writes};
use metasrv_tests::chaos::{network, page, region};
use tokio::signal::unix::{SignalKind, signal};

/// As the programs have it that embed the SDK.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The command line is wrong, or a tool is missing: EX_USAGE of sysexits.h. Nothing was started.
const USAGE: u8 = 64;

/// Safety did not hold, or the world did not recover.
const FAILED: u8 = 1;

/// Ended by a signal.
const INTERRUPTED: u8 = 130;

/// Connections of a datanode to three replicas, on both sides of this process, and room.
const FILES_PER_NODE: u64 = 8;

const FULL: Scale = Scale { nodes: 1_000, regions: 20 };
const QUICK: Scale = Scale { nodes: 50, regions: 4 };

#[derive(Parser)]
#[command(about = "Real faults, and what they cost")]
struct Options {
    /// A fault, or how several begin; `region-` for those of regions. All others where nothing is named
    #[arg(long, default_value = "")]
    fault: String,
    /// Rounds of each fault
    #[arg(long)]
    rounds: Option<usize>,
    /// A small world and one round of each: whether it works, not how well
    #[arg(long)]
    quick: bool,
    /// Write the page in docs/ also after a run of less than everything
    #[arg(long)]
    write: bool,
}

impl Options {
    fn rounds_of(&self, fault: Fault) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { fault.rounds() })
    }

    fn scale(&self) -> Scale {
        if self.quick { QUICK } else { FULL }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let asked = options.asked().and_then(|asked| {
        network::check_tools()?;
        check_limits(options.scale())?;
        Ok(asked)
    });
    let asked = match asked {
        Ok(asked) => asked,
        Err(why) => {
            eprintln!("error: {why}");
            return ExitCode::from(USAGE);
        }
    };
    network::remove_leftovers();
    // Whatever ends this first, what was started ends with it: the world is dropped here.
    tokio::select! {
        biased;
        () = interrupted() => {
            eprintln!("interrupted: everything that was started ends");
            ExitCode::from(INTERRUPTED)
        }
        code = run_asked(&options, &asked) => code,
    }
}

/// What is to be done.
enum Asked {
    Servers(Vec<Fault>),
    Regions(region::run::Order),
}

impl Options {
    fn asked(&self) -> Result<Asked, String> {
        if !self.fault.starts_with(region::fault::PREFIX) {
            return Fault::select(&self.fault).map(Asked::Servers);
        }
        let faults = RegionFault::select(&self.fault)?;
        let Options { rounds, quick, write, .. } = *self;
        Ok(Asked::Regions(region::run::Order { faults, rounds, quick, write }))
    }
}

async fn run_asked(options: &Options, asked: &Asked) -> ExitCode {
    match asked {
        Asked::Servers(faults) => run(options, faults).await,
        Asked::Regions(order) if region::run::run(order).await => ExitCode::SUCCESS,
        Asked::Regions(_) => ExitCode::from(FAILED),
    }
}

async fn interrupted() {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let signals = kinds.into_iter().filter_map(|kind| signal(kind).ok());
    let waits = signals.map(|mut signal| Box::pin(async move { signal.recv().await }));
    futures_util::future::select_all(waits).await;
}

/// Each datanode has connections of its own.
fn check_limits(scale: Scale) -> Result<(), String> {
    let needed = scale.nodes * FILES_PER_NODE + 1_000;
    match rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        Some(allowed) if allowed < needed => Err(format!(
            "{needed} open files are needed, {allowed} are allowed: ulimit -n {needed}, then again"
        )),
        _ => Ok(()),
    }
}

/// What a run has found so far.
#[derive(Default)]
struct Found {
    rounds: Rounds,
    safety: Safety,
    /// What did not recover, or could not be started.
    failures: Vec<String>,
}

impl Found {
    fn fail(&mut self, why: String) {
        eprintln!("error: {why}");
        self.failures.push(why);
    }
}

async fn run(options: &Options, faults: &[Fault]) -> ExitCode {
    let mut found = Found::default();
    for (quota, small) in [(Quota::Usual, false), (Quota::Small, true)] {
        let here: Vec<Fault> =
            faults.iter().copied().filter(|fault| fault.needs_a_small_etcd() == small).collect();
        let mut left = here.as_slice();
        while !left.is_empty() {
            let done = in_one_world(options, left, quota, &mut found).await;
            left = left.get(done..).unwrap_or_default();
        }
    }
    let Found { rounds, safety, failures } = found;
    let figures = summary::figures(&rounds, &safety);
    let rows = summary::rows(&rounds);
    let cells: Vec<&[String]> = rows.iter().map(|row| row.cells.as_slice()).collect();
    println!("\n{}", summary::table(&summary::COLUMNS, &cells));
    match figures.write("chaos") {
        Ok(path) => eprintln!("written to {}", path.display()),
        Err(error) => eprintln!("error: the figures cannot be written: {error}"),
    }
    let whole = options.fault.is_empty() && options.rounds.is_none() && !options.quick && failures.is_empty();
    if whole || options.write {
        let text = page::page(&rows, &safety, options.scale(), &page::machine());
        match std::fs::write(page::path(), text) {
            Ok(()) => eprintln!("written to {}", page::path().display()),
            Err(error) => eprintln!("error: {}: {error}", page::path().display()),
        }
    }
    let missed = rows.iter().filter(|row| !row.met).count();
    println!(
        "safety {}; {missed} of {} targets missed; {} rounds without recovery",
        if safety.holds() { "held" } else { "DID NOT HOLD" },
        rows.len(),
        failures.len()
    );
    if safety.holds() && failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}

/// All rounds of these faults, one after another, in one world; then what must be true of all of them. Returns for how
/// many faults it lasted: a world that did not recover is given up with the fault that it suffered last.
async fn in_one_world(options: &Options, faults: &[Fault], quota: Quota, found: &mut Found) -> usize {
    let scale = options.scale();
    println!(
        "3 etcd, 3 metasrv, {} datanodes with {} regions each; {} faults",
        scale.nodes,
        scale.regions,
        faults.len()
    );
    let mut world = match World::start(scale, quota).await {
        Ok(world) => world,
        Err(why) => {
            found.fail(format!("the world does not begin: {why}"));
            return faults.len();
        }
    };
    let mut done = 0;
    for fault in faults {
        done += 1;
        if let Err(why) = all_rounds(options, &mut world, *fault, found).await {
            let kept = world.servers.keep_logs();
            found.fail(format!("{why}; logs are kept in {kept}"));
            break;
        }
    }
    judge(&mut world, found).await;
    done
}

async fn all_rounds(
    options: &Options,
    world: &mut World,
    fault: Fault,
    found: &mut Found,
) -> Result<(), String> {
    let all = options.rounds_of(fault);
    for number in 1..=all {
        let before = look(&world.ledger).double_leader_instants();
        let measured = round::run(world, fault, number)
            .await
            .map_err(|why| format!("{}, round {number}: {why}", fault.name()))?;
        println!("{}", line(&measured, number, all));
        if measured.leader_changes > usize::from(fault.replaces_the_leader()) {
            println!("a leader went that nobody meant; logs are kept in {}", world.servers.keep_logs());
        }
        found.rounds.entry(fault).or_default().push(measured);
        match look(&world.ledger).double_leader_instants() - before {
            0 => {}
            instants => println!("{} {number}/{all}: {instants} DOUBLE LEADER INSTANTS", fault.name()),
        }
    }
    Ok(())
}

/// What must be true at the end of a world.
async fn judge(world: &mut World, found: &mut Found) {
    let (doubled, (overlapping, longest_overlap)) = {
        let ledger = look(&world.ledger);
        (ledger.double_leader_instants(), ledger.overlapping())
    };
    let safety = &mut found.safety;
    safety.double_leader_instants += doubled;
    safety.overlapping += overlapping;
    safety.longest_overlap = safety.longest_overlap.max(longest_overlap);
    safety.moved = found.rounds.values().flatten().map(|round| round.moved).sum();
    let lost = match written(world, safety).await {
        Ok(lost) => lost,
        Err(why) => return found.fail(format!("whether writes were lost is not known: {why}")),
    };
    for one in &lost {
        println!("lost: {one}");
    }
    safety.lost_writes += lost.len();
    if doubled > 0 || !lost.is_empty() {
        println!("safety did not hold; logs are kept in {}", world.servers.keep_logs());
    }
}

/// Ends the client that writes, and compares what it was told with what is there.
async fn written(world: &mut World, safety: &mut Safety) -> Result<Vec<String>, String> {
    world.settle().await?;
    let writer = world.writer.take().ok_or("nobody wrote")?;
    let history = writer.stop().await;
    let acknowledged =
        history.values().filter(|outcome| matches!(outcome, Outcome::Acknowledged { .. })).count();
    safety.acknowledged += acknowledged;
    safety.unknown += history.len() - acknowledged;
    Ok(lost_writes(&history, &world.servers.regions().await?))
}

fn line(measured: &Measured, number: usize, all: usize) -> String {
    let time = |time: Option<Duration>| {
        time.map_or("–".to_owned(), |time| format!("{:.1} ms", time.as_secs_f64() * 1e3))
    };
    let mut text = format!(
        "{} {number}/{all}: longest gap {}, serving after {}, leaderless {}, {} read-only, {} moved, {} leader changes",
        measured.fault.name(),
        time(Some(measured.gap)),
        time(measured.serving),
        time(measured.leaderless),
        measured.read_only,
        measured.moved,
        measured.leader_changes
    );
    if measured.leased_again.is_some() {
        text.push_str(&format!(", leased again after {}", time(measured.leased_again)));
    }
    if measured.refused {
        text.push_str(", a late write was refused by the fence");
    }
    text
}
