//! `metactl` as a script runs it: its words, what it prints, and its exit code.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use crate::binaries::binary;
use crate::cluster::Cluster;
use crate::wait::within;

/// Nothing that is run to its end takes longer.
const LONG: Duration = Duration::from_secs(30);

/// What one run came to.
#[derive(Debug)]
pub struct Run {
    /// Its exit code.
    pub code: i32,
    /// What it printed on stdout.
    pub data: String,
    /// What it printed on stderr.
    pub said: String,
}

impl Run {
    /// The data as JSON. Panics where the command failed.
    pub fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        self.document()
    }

    /// The data as JSON, whatever the exit code.
    pub fn document(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The data as an array. Panics where the command failed.
    pub fn rows(&self) -> Vec<Value> {
        self.json().as_array().unwrap_or_else(|| panic!("no array: {self:?}")).clone()
    }

    /// Panics unless it failed with this code, printed no data, and said all of this.
    pub fn fails(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.data, "", "an error is no data");
        for part in parts {
            assert!(self.said.contains(part), "{part:?} is not said: {self:?}");
        }
    }
}

/// Runs it to its end.
pub async fn run(mut command: Command) -> Run {
    let output = within(LONG, "metactl ends", command.output()).await.expect("metactl runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code =
        output.status.code().unwrap_or_else(|| panic!("{:?} was killed: {}", output, text(&output.stderr)));
    Run { code, data: text(&output.stdout), said: text(&output.stderr) }
}

/// `metactl` with these words, without a terminal, and without knowing where metasrv is.
pub fn command(line: &str) -> Command {
    let mut command = Command::new(binary("metactl"));
    command
        .args(line.split_whitespace())
        .env_remove("METACTL_METASRV")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs `metactl` without saying where metasrv is.
pub async fn bare(line: &str) -> Run {
    run(command(line)).await
}

/// Runs `metactl` against a cluster.
pub async fn on(cluster: &Cluster, line: &str) -> Run {
    let mut command = command(line);
    command.env("METACTL_METASRV", cluster.addrs().join(","));
    run(command).await
}

/// The names of an object's fields, in the order of the alphabet.
pub fn fields(row: &Value) -> Vec<&str> {
    row.as_object().unwrap_or_else(|| panic!("no object: {row}")).keys().map(String::as_str).collect()
}

/// These names in the same order.
pub fn sorted(names: &str) -> Vec<&str> {
    let mut names: Vec<&str> = names.split(' ').collect();
    names.sort_unstable();
    names
}

/// Milliseconds or seconds are no contract, but the shape is: `2026-01-31T12:00:00.000Z`.
pub fn assert_time(value: &Value) {
    let text = value.as_str().unwrap_or_else(|| panic!("no text: {value}"));
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{text}");
}

/// A random number of 64 bits, as text.
pub fn assert_hex(value: &Value) {
    let text = value.as_str().unwrap_or_else(|| panic!("no text: {value}"));
    assert!(
        text.len() == 16 && text.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c)),
        "{text}"
    );
}
