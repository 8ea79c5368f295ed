//! The second witness: what the regions' own files say, by `datanode inspect`, against what the writers were told.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::binaries::binary;

/// What a writer was told of one region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Told {
    /// Puts that were acknowledged.
    pub acknowledged: u64,
    /// Puts that were sent, as often as they were.
    pub attempts: u64,
}

/// Reads the shared directory.
///
/// # Errors
/// It cannot be read, or its files contradict each other.
pub fn inspect(shared: &Path) -> Result<String, String> {
    let output = Command::new(binary("datanode"))
        .arg("inspect")
        .arg(shared)
        .output()
        .map_err(|error| format!("datanode inspect does not run: {error}"))?;
    if !output.status.success() {
        return Err(format!("datanode inspect: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What is wrong with what was inspected, by what the writers were told. Empty: nothing.
///
/// # Errors
/// What was inspected is not what `datanode inspect` prints.
pub fn missing(inspected: &str, told: &BTreeMap<u64, Told>) -> Result<Vec<String>, String> {
    let mut counted: BTreeMap<u64, u64> = BTreeMap::new();
    for line in inspected.lines() {
        let value: Value = serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))?;
        let region = value["region"].as_u64().ok_or_else(|| format!("region is missing: {line}"))?;
        // Absent: a segment that is in nobody's chain.
        *counted.entry(region).or_default() += value["counted"].as_u64().unwrap_or(0);
    }
    let mut wrong = Vec::new();
    for (region, told) in told {
        let there = counted.get(region).copied().unwrap_or(0);
        if there < told.acknowledged {
            let missing = told.acknowledged - there;
            wrong.push(format!(
                "region {region}: {missing} of {} acknowledged puts are missing",
                told.acknowledged
            ));
        } else if there > told.attempts {
            let more = there - told.attempts;
            wrong.push(format!("region {region}: {more} puts more than were ever sent"));
        }
    }
    Ok(wrong)
}
