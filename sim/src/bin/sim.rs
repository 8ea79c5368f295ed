//! `make sim`: many seeds, each in a process of its own, so that the run of a seed is the same whatever ran before it.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use metasrv_sim::plant::Plant;
use metasrv_sim::report::{Report, line};
use metasrv_sim::run::{Look, run};
use tracing::Level;

/// A run allocates and frees messages all the time; this takes a tenth off it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A seed that takes longer has found a loop that never ends.
const LONGEST: Duration = Duration::from_secs(120);

#[derive(Parser)]
#[command(about = "Simulates whole clusters: the real server and the real SDK in virtual time")]
struct Arguments {
    /// Runs this seed only, and prints its last lines where it fails.
    #[arg(long)]
    seed: Option<u64>,
    /// With --seed: prints every line as it comes.
    #[arg(long)]
    trace: bool,
    /// With --seed: says less (warn) or more (debug).
    #[arg(long, default_value = "info")]
    level: Level,
    /// With --seed: prints the outcome as one line of JSON, and no more.
    #[arg(long)]
    json: bool,
    /// How many seeds.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first of them. Without it, they are others each time.
    #[arg(long)]
    from: Option<u64>,
    /// Seeds at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Makes a mistake that has to be found: with it, a run that finds none of it fails.
    #[arg(long)]
    plant: Option<Plant>,
    /// Stops at the first seed that fails.
    #[arg(long)]
    fail_fast: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.seed {
        Some(seed) => one(seed, &arguments),
        None => many(&arguments),
    }
}

fn one(seed: u64, arguments: &Arguments) -> ExitCode {
    let outcome = run(seed, Look { echo: arguments.trace, level: arguments.level, plant: arguments.plant });
    if arguments.json {
        println!("{}", line(&outcome));
        return ExitCode::SUCCESS;
    }
    if outcome.broken.is_some() && !arguments.trace {
        outcome.lines.iter().for_each(|line| println!("{line}"));
    }
    println!("{}", line(&outcome));
    match &outcome.broken {
        None => ExitCode::SUCCESS,
        Some(broken) => {
            println!("seed {seed}: {} does not hold: {}", broken.invariant, broken.what);
            ExitCode::FAILURE
        }
    }
}

/// A seed in its process.
struct Running {
    seed: u64,
    child: Child,
    // The machine's time is what is measured here.
    began: Duration,
}

// The time that a run takes is the machine's, and is only reported.
#[allow(clippy::disallowed_methods)]
fn many(arguments: &Arguments) -> ExitCode {
    let began = Instant::now();
    let since = |instant: Instant| instant.elapsed();
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let fresh = (u64::from(std::process::id()) << 20) ^ wall.map_or(0, |since| since.as_secs());
    let first = arguments.from.unwrap_or(fresh & 0xffff_ffff);
    println!("seeds {first} to {}", first + arguments.seeds.saturating_sub(1));
    let mut seeds = first..first + arguments.seeds;
    let (mut running, mut report): (Vec<Running>, Report) = (Vec::new(), Report::default());
    loop {
        let go_on = !arguments.fail_fast || report.failed.is_empty();
        while go_on && running.len() < arguments.jobs.max(1) {
            let Some(seed) = seeds.next() else { break };
            match start(seed, arguments.plant) {
                Ok(child) => running.push(Running { seed, child, began: since(began) }),
                Err(why) => return fail(&why),
            }
        }
        if running.is_empty() {
            break;
        }
        let mut at = 0;
        let mut ended = false;
        while at < running.len() {
            let late = since(began).saturating_sub(running[at].began) > LONGEST;
            match running[at].child.try_wait() {
                Ok(None) if !late => at += 1,
                _ => {
                    ended = true;
                    let one = running.swap_remove(at);
                    if let Err(why) = finish(one, &mut report) {
                        return fail(&why);
                    }
                }
            }
        }
        if !ended {
            pause();
        }
    }
    say(&report, since(began))
}

fn fail(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::FAILURE
}

#[allow(clippy::disallowed_methods)]
fn pause() {
    // Nobody else runs on this thread.
    std::thread::sleep(Duration::from_millis(2));
}

fn start(seed: u64, plant: Option<Plant>) -> Result<Child, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    Command::new(program)
        .args(["--seed", &seed.to_string(), "--json"])
        .args(plant.map(|plant| format!("--plant={}", plant.name())))
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())
}

fn finish(mut one: Running, report: &mut Report) -> Result<(), String> {
    // Where it has ended this does nothing.
    let _ = one.child.kill();
    let _ = one.child.wait();
    let mut said = String::new();
    if let Some(output) = &mut one.child.stdout {
        output.read_to_string(&mut said).map_err(|error| error.to_string())?;
    }
    let before = report.failed.len();
    match said.lines().last() {
        Some(line) => report.add(line)?,
        None => report.failed.push((one.seed, "its process has ended without an outcome".to_owned())),
    }
    for (seed, what) in &report.failed[before..] {
        println!("FAILED seed {seed}: {what}\n  again: make sim SEED={seed}");
    }
    Ok(())
}

fn say(report: &Report, took: Duration) -> ExitCode {
    let counts = &report.counts;
    println!("{}", report.matrix());
    println!(
        "terms {}, failovers {}, migrations {}, restarts {}, expired leases {}, writes {}, grants {}, commits {}",
        counts.terms,
        counts.failovers,
        counts.migrations,
        counts.restarts,
        counts.expiries,
        counts.writes,
        counts.grants,
        counts.commits
    );
    println!("the slowest recovery took {} ms, in seed {}", report.slowest.0, report.slowest.1);
    let unreached = report.unreached();
    // Few seeds cannot reach everything.
    let demanded = report.seeds >= 100;
    if !unreached.is_empty() {
        println!("never happened: {}", unreached.join(", "));
    }
    let minutes = report.simulated_ms as f64 / 60_000.0;
    let rate = minutes / (took.as_secs_f64() / 60.0).max(1e-9);
    let failed = report.failed.len() as u64;
    let figures = [
        ("sim_minutes_per_minute", rate.round() as u64, "ratio"),
        ("sim_seeds", report.seeds, "seeds"),
        ("sim_seeds_failed", failed, "seeds"),
    ];
    for (name, value, unit) in figures {
        println!("figure {name} {value} {unit}");
    }
    if let Err(error) = write(&figures) {
        eprintln!("the figures are not written: {error}");
    }
    if failed == 0 && (unreached.is_empty() || !demanded) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn write(figures: &[(&str, u64, &str)]) -> std::io::Result<()> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(2).map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let directory = target.join("figures");
    std::fs::create_dir_all(&directory)?;
    let values: serde_json::Map<String, serde_json::Value> =
        figures.iter().map(|(name, value, _)| ((*name).to_owned(), (*value).into())).collect();
    let text = serde_json::to_string_pretty(&values).map_err(std::io::Error::other)?;
    std::fs::write(directory.join("sim.json"), text + "\n")
}
