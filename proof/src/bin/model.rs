//! `make model`: exhausts every scope, removes every rule, makes every mistake, and prints what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use metasrv_core_proof::guard::Rule;
use metasrv_proof::mutation::{Mutation, SCOPES, exhaust};

/// Searches the model.
#[derive(Parser)]
#[command(name = "model")]
struct Arguments {
    /// Threads of the searches that exhaust a scope.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Only the mutations.
    #[arg(long)]
    mutations: bool,
    /// Prints the steps that lead to what each mutation breaks.
    #[arg(long)]
    steps: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut figures = BTreeMap::new();
    let mut failures = Vec::new();
    if !arguments.mutations {
        exhaust_all(&arguments, &mut figures, &mut failures);
    }
    mutate_all(&arguments, &mut figures, &mut failures);
    let command = if arguments.mutations { "mutations" } else { "model" };
    let written = write(&figures, command);
    failures.extend(written.err().map(|error| format!("the figures could not be written: {error}")));
    failures.iter().for_each(|failure| eprintln!("failed: {failure}"));
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Every state of every scope.
fn exhaust_all(arguments: &Arguments, figures: &mut BTreeMap<String, u64>, failures: &mut Vec<String>) {
    let mut exercised = BTreeSet::new();
    let (mut states, mut took) = (0_usize, Duration::ZERO);
    for scope in SCOPES {
        let outcome = exhaust(scope, arguments.threads);
        println!(
            "{:9} {:>9} states, depth {:>3}, {:>6.1} s",
            scope.name,
            outcome.states,
            outcome.depth,
            outcome.took.as_secs_f64()
        );
        states = states.saturating_add(outcome.states);
        took = took.saturating_add(outcome.took);
        exercised.extend(outcome.exercised);
        if let Some(broken) = outcome.broken {
            failures.push(format!("{}: {} after {:#?}", scope.name, broken.invariant, broken.steps));
        }
        failures.extend(outcome.unseen.iter().map(|what| format!("{}: never seen: {what}", scope.name)));
    }
    let names = |rules: &BTreeSet<Rule>| rules.iter().map(|rule| rule.name()).collect::<Vec<_>>().join(", ");
    println!("rules that decided something: {}", names(&exercised));
    let idle: BTreeSet<Rule> = Rule::ALL.iter().copied().filter(|rule| !exercised.contains(rule)).collect();
    if !idle.is_empty() {
        println!("rules that decided nothing in these scopes: {}", names(&idle));
    }
    figure(figures, "model_states", states as u64, "states");
    figure(figures, "model_seconds", took.as_secs(), "s");
}

/// Every mutation, as the rows of docs/proof.md.
fn mutate_all(arguments: &Arguments, figures: &mut BTreeMap<String, u64>, failures: &mut Vec<String>) {
    let (mut tried, mut slips, mut survived) = (0, 0, 0);
    for mutation in Mutation::all() {
        let outcome = mutation.search();
        println!("{}", mutation.row(&outcome));
        match mutation {
            Mutation::Without(_) => tried += 1,
            Mutation::With(_) => slips += 1,
        }
        match &outcome.broken {
            Some(broken) if arguments.steps => broken.steps.iter().for_each(|step| println!("    {step}")),
            Some(_) => {}
            None => {
                survived += 1;
                failures.push(format!("{} survived", mutation.name()));
            }
        }
    }
    figure(figures, "mutations", tried, "rules");
    figure(figures, "mutations_of_shell", slips, "mistakes");
    figure(figures, "mutations_survived", survived, "mutations");
}

fn figure(figures: &mut BTreeMap<String, u64>, name: &str, value: u64, unit: &str) {
    println!("figure {name} {value} {unit}");
    figures.insert(name.to_owned(), value);
}

/// To `figures/COMMAND.json` in the target directory.
fn write(figures: &BTreeMap<String, u64>, command: &str) -> std::io::Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    let directory = target.join("figures");
    std::fs::create_dir_all(&directory)?;
    let path = directory.join(format!("{command}.json"));
    std::fs::write(&path, serde_json::to_string_pretty(figures)? + "\n")?;
    Ok(path)
}
