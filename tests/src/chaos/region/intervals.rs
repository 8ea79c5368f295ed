//! The interval check: what the datanodes noted of their own writes, and whether two of them ever wrote to a region at the
//! same time.
//!
//! Each datanode appends a line for every put before it acknowledges it (`--write-intervals`): node, process, region, epoch,
//! from, until, on the clock that all processes of a machine share. Between two writes under one epoch nobody else may
//! write either, so the lines of one process and one epoch are joined to one interval. Of one region,
//!
//! - no two intervals of different processes overlap, and
//! - no two processes wrote under one epoch.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Who wrote: a node and the process that it was.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Process {
    /// Its node id.
    pub node: u64,
    /// Its process id.
    pub process: u64,
}

/// From the first write to the last, in nanoseconds since the machine was started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Interval {
    from: u64,
    until: u64,
}

/// See the module. Reads each file on from where it was read before.
#[derive(Default, Debug)]
pub struct Intervals {
    read: BTreeMap<PathBuf, u64>,
    /// By region, then by epoch and process.
    joined: BTreeMap<u64, BTreeMap<(u64, Process), Interval>>,
    writes: u64,
}

impl Intervals {
    /// Reads what was appended to these files since the last time. A last line that is not whole yet is left.
    ///
    /// # Errors
    /// A file cannot be read, or holds a line that is not of this kind.
    pub fn read(&mut self, files: &[PathBuf]) -> Result<(), String> {
        files.iter().try_for_each(|file| self.read_one(file))
    }

    fn read_one(&mut self, path: &Path) -> Result<(), String> {
        let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let mut from = self.read.get(path).copied().unwrap_or(0);
        let mut file = std::fs::File::open(path).map_err(|error| named(&error))?;
        file.seek(SeekFrom::Start(from)).map_err(|error| named(&error))?;
        let mut lines = BufReader::new(file);
        let mut line = String::new();
        loop {
            line.clear();
            let length = lines.read_line(&mut line).map_err(|error| named(&error))?;
            if !line.ends_with('\n') {
                break;
            }
            self.note(&line).map_err(|why| named(&why))?;
            from += u64::try_from(length).unwrap_or(0);
        }
        self.read.insert(path.to_owned(), from);
        Ok(())
    }

    /// Takes one line.
    ///
    /// # Errors
    /// It is not of this kind.
    pub fn note(&mut self, line: &str) -> Result<(), String> {
        let value: Value = serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))?;
        let field = |name: &str| value[name].as_u64().ok_or_else(|| format!("{name} is missing: {line}"));
        let process = Process { node: field("node")?, process: field("process")? };
        let (from, until) = (field("from")?, field("until")?);
        let of_region = self.joined.entry(field("region")?).or_default();
        let joined = of_region.entry((field("epoch")?, process)).or_insert(Interval { from, until });
        joined.from = joined.from.min(from);
        joined.until = joined.until.max(until);
        self.writes += 1;
        Ok(())
    }

    /// How many writes were noted.
    pub fn writes(&self) -> u64 {
        self.writes
    }

    /// Every pair of processes that may have written to a region at the same time, a sentence each.
    pub fn overlapping(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (region, joined) in &self.joined {
            for (index, ((epoch, one), first)) in joined.iter().enumerate() {
                for ((other_epoch, other), second) in joined.iter().skip(index + 1) {
                    if one == other {
                        continue;
                    }
                    if epoch == other_epoch {
                        found.push(format!(
                            "region {region}: {one:?} and {other:?} wrote under epoch {epoch}"
                        ));
                    } else if first.from < second.until && second.from < first.until {
                        let common = first.until.min(second.until) - first.from.max(second.from);
                        found.push(format!(
                            "region {region}: {one:?} under epoch {epoch} and {other:?} under epoch {other_epoch} \
                             wrote at the same time, for {} µs",
                            common / 1_000
                        ));
                    }
                }
            }
        }
        found
    }
}
