//! What many runs say together: counts, the matrix of faults and operations, figures. A run in a process of its own hands its
//! outcome over as one line of JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::fault::Fault;
use crate::invariant::i14_progress::Counts;
use crate::operator::Operation;
use crate::run::Outcome;

/// An outcome as one line.
pub fn line(outcome: &Outcome) -> String {
    let faults: BTreeMap<&str, u32> =
        outcome.faults.iter().map(|(fault, count)| (fault.name(), *count)).collect();
    let matrix: BTreeMap<String, u32> = outcome
        .matrix
        .iter()
        .map(|((fault, operation), count)| (format!("{} {}", fault.name(), operation.name()), *count))
        .collect();
    let counts = &outcome.counts;
    json!({
        "seed": outcome.seed,
        "broken": outcome.broken.as_ref().map(|broken| format!("{}: {}", broken.invariant, broken.what)),
        "simulated_ms": u64::try_from(outcome.simulated.as_millis()).unwrap_or(u64::MAX),
        "healed_ms": u64::try_from(outcome.healed_in.as_millis()).unwrap_or(u64::MAX),
        "hash": format!("{:016x}", outcome.hash),
        "faults": faults,
        "matrix": matrix,
        "counts": [counts.terms, counts.failovers, counts.migrations, counts.restarts, counts.expiries,
                   counts.writes, counts.grants, counts.commits],
    })
    .to_string()
}

/// Runs together.
#[derive(Default, Debug)]
pub struct Report {
    /// How many.
    pub seeds: u64,
    /// Those in which something did not hold, and what.
    pub failed: Vec<(u64, String)>,
    /// What happened in all of them.
    pub counts: Counts,
    /// Virtual time, in milliseconds.
    pub simulated_ms: u64,
    /// The longest time until all was well again, in milliseconds, and the seed.
    pub slowest: (u64, u64),
    faults: BTreeMap<String, u64>,
    matrix: BTreeMap<String, u64>,
}

impl Report {
    /// Adds a run by its line.
    ///
    /// # Errors
    /// Where the line is none.
    pub fn add(&mut self, line: &str) -> Result<(), String> {
        let run: Value = serde_json::from_str(line).map_err(|error| format!("{error}: {line:?}"))?;
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        let seed = number(&run["seed"]);
        self.seeds += 1;
        if let Some(broken) = run["broken"].as_str() {
            self.failed.push((seed, broken.to_owned()));
        }
        self.simulated_ms += number(&run["simulated_ms"]);
        self.slowest = self.slowest.max((number(&run["healed_ms"]), seed));
        let counts: Vec<u64> = run["counts"].as_array().into_iter().flatten().map(number).collect();
        if let [terms, failovers, migrations, restarts, expiries, writes, grants, commits] = counts[..] {
            let counts = Counts { terms, failovers, migrations, restarts, expiries, writes, grants, commits };
            self.counts.add(&counts);
        }
        for (map, name) in [(&mut self.faults, "faults"), (&mut self.matrix, "matrix")] {
            for (key, count) in run[name].as_object().into_iter().flatten() {
                *map.entry(key.clone()).or_default() += number(count);
            }
        }
        Ok(())
    }

    /// What should have happened in so many runs and did not.
    pub fn unreached(&self) -> Vec<String> {
        let counts = &self.counts;
        let demanded = [
            ("a region failed over", counts.failovers),
            ("a region was migrated", counts.migrations),
            ("a region was given back to a restarted process", counts.restarts),
            ("a lease expired", counts.expiries),
            ("a second leader", counts.terms.saturating_sub(self.seeds)),
        ];
        let never = demanded.iter().filter(|(_, count)| *count == 0).map(|(what, _)| (*what).to_owned());
        let faults = Fault::ALL.iter().filter(|fault| !self.faults.contains_key(fault.name()));
        never.chain(faults.map(|fault| format!("the fault {}", fault.name()))).collect()
    }

    /// How often each operation was under way during each fault.
    pub fn matrix(&self) -> String {
        let mut table = format!("{:<26}{:>6}", "fault", "began");
        for operation in Operation::ALL {
            // Writing to a string does not fail.
            let _ = write!(table, "{:>10}", operation.name());
        }
        for fault in Fault::ALL {
            let began = self.faults.get(fault.name()).copied().unwrap_or(0);
            let _ = write!(table, "\n{:<26}{began:>6}", fault.name());
            for operation in Operation::ALL {
                let key = format!("{} {}", fault.name(), operation.name());
                let _ = write!(table, "{:>10}", self.matrix.get(&key).copied().unwrap_or(0));
            }
        }
        table
    }
}
