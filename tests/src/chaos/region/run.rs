//! `make chaos FAULT=region-…`: all rounds of these faults, in a world for those that share one, and what came out.

use std::time::Duration;

use super::fault::RegionFault;
use super::page;
use super::round::{self, Measured, Rounds};
use super::summary::{self, Safety};
use super::world::RegionWorld;
use crate::chaos::page::machine;
use crate::chaos::summary::table;
use crate::chaos::world::Scale;

const FULL: Scale = Scale { nodes: 6, regions: 50 };
const QUICK: Scale = Scale { nodes: 6, regions: 4 };

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Order {
    /// The faults, in their order.
    pub faults: Vec<RegionFault>,
    /// Rounds of each; absent: as many as the fault has.
    pub rounds: Option<usize>,
    /// A small world and one round of each.
    pub quick: bool,
    /// Write the page whatever was run.
    pub write: bool,
}

impl Order {
    fn rounds_of(&self, fault: RegionFault) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { fault.rounds() })
    }

    fn scale(&self) -> Scale {
        if self.quick { QUICK } else { FULL }
    }

    fn is_whole(&self) -> bool {
        self.faults == RegionFault::ALL && self.rounds.is_none() && !self.quick
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

/// Runs it all, prints and writes what came out; says whether safety held and everything recovered.
pub async fn run(order: &Order) -> bool {
    let mut found = Found::default();
    for supervised in [true, false] {
        let here: Vec<RegionFault> =
            order.faults.iter().copied().filter(|fault| fault.is_supervised() == supervised).collect();
        let mut left = here.as_slice();
        while !left.is_empty() {
            let done = in_one_world(order, left, supervised, &mut found).await;
            left = left.get(done..).unwrap_or_default();
        }
    }
    publish(order, &found);
    found.safety.holds() && found.failures.is_empty()
}

fn publish(order: &Order, Found { rounds, safety, failures }: &Found) {
    let figures = summary::figures(rounds, safety);
    let rows = summary::rows(rounds);
    let cells: Vec<&[String]> = rows.iter().map(|row| row.cells.as_slice()).collect();
    println!("\n{}", table(&summary::COLUMNS, &cells));
    match figures.write("chaos") {
        Ok(path) => eprintln!("written to {}", path.display()),
        Err(error) => eprintln!("error: the figures cannot be written: {error}"),
    }
    if order.write || (order.is_whole() && failures.is_empty()) {
        let text = page::page(&rows, safety, order.scale(), &machine());
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
}

/// All rounds of these faults, one after another, in one world. Returns for how many faults it lasted: a world that did
/// not recover is given up with the fault that it suffered last.
async fn in_one_world(order: &Order, faults: &[RegionFault], supervised: bool, found: &mut Found) -> usize {
    let scale = order.scale();
    println!(
        "3 etcd, 3 metasrv, {} {}datanodes with {} regions each; {} faults",
        scale.nodes,
        if supervised { "supervised " } else { "" },
        scale.regions,
        faults.len()
    );
    let mut world = match RegionWorld::start(scale, supervised).await {
        Ok(world) => world,
        Err(why) => {
            found.fail(format!("the world does not begin: {why}"));
            return faults.len();
        }
    };
    let mut done = 0;
    for fault in faults {
        done += 1;
        if let Err(why) = all_rounds(order, &mut world, *fault, found).await {
            let kept = world.servers.keep_logs();
            found.fail(format!("{why}; logs are kept in {kept}"));
            break;
        }
    }
    judge(world, found).await;
    done
}

async fn all_rounds(
    order: &Order,
    world: &mut RegionWorld,
    fault: RegionFault,
    found: &mut Found,
) -> Result<(), String> {
    let all = order.rounds_of(fault);
    for number in 1..=all {
        let measured = round::run(world, fault, number)
            .await
            .map_err(|why| format!("{}, round {number}: {why}", fault.name()))?;
        println!("{}", line(&measured, number, all));
        for wrong in measured.lost.iter().chain(&measured.findings) {
            println!("{} {number}/{all}: {wrong}", fault.name());
        }
        if !measured.lost.is_empty() || !measured.findings.is_empty() || measured.moved > 0 {
            println!("logs are kept in {}", world.servers.keep_logs());
        }
        found.safety.lost_puts += measured.lost.len();
        found.safety.procedures_unfinished += measured.unfinished;
        found.safety.findings += measured.findings.len();
        found.rounds.entry(fault).or_default().push(measured);
    }
    Ok(())
}

/// What must be true at the end of a world.
async fn judge(mut world: RegionWorld, found: &mut Found) {
    match world.findings().await {
        Ok(findings) => {
            findings.iter().for_each(|finding| println!("found in the store: {finding}"));
            found.safety.findings += findings.len();
        }
        Err(why) => found.fail(format!("whether the store is sound is not known: {why}")),
    }
    let seen = world.routes.figures();
    println!(
        "{} changes of routes, seen within {:.1?} (p99), {:.1?} (longest); {} snapshots",
        seen.commits, seen.p99, seen.longest, seen.snapshots
    );
    for (frontend, (region, epoch)) in &seen.unseen {
        println!("frontend {frontend} never saw epoch {epoch} of region {region}");
    }
    found.safety.add_routes(&seen);
    let noted = world.read_intervals().map(|()| world.intervals.writes());
    let kept = match noted.as_ref().map(|_| world.intervals.overlapping().is_empty()) {
        Ok(true) => None,
        _ => Some(world.servers.keep_logs()),
    };
    match world.judge().await {
        Ok((overlapping, lost)) => {
            for wrong in overlapping.iter().chain(&lost) {
                println!("{wrong}");
            }
            found.safety.overlapping_writers += overlapping.len();
            found.safety.lost_puts += lost.len();
            found.safety.writes += noted.unwrap_or(0);
        }
        Err(why) => found.fail(format!("whether puts were lost is not known: {why}")),
    }
    if let Some(kept) = kept {
        println!("logs are kept in {kept}");
    }
}

fn line(measured: &Measured, number: usize, all: usize) -> String {
    let time = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    let mut text = format!(
        "{} {number}/{all}: longest gap {} of {} regions, over after {}, {} moved",
        measured.fault.name(),
        time(measured.worst()),
        measured.gaps.len(),
        time(measured.took),
        measured.moved
    );
    if let Some(said) = &measured.said {
        text.push_str(&format!(", the leader said: {said}"));
    }
    text
}
