//! docs/fault-matrix.md: the table of a run, with what it means and how to repeat it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::summary::{COLUMNS, Row, Safety};
use super::world::Scale;

/// What the page says of words. The table and the machine go above it, and change with each run.
const DEFINITIONS: &str = "\
## What the words mean

Everything is measured from outside, on the clock CLOCK_BOOTTIME, which all processes of one machine share. The datanodes
would be machines of their own; here their threads have a low priority (nice 10), so that what a thousand of them do at the same
time delays themselves rather than the servers.

- **Accepted heartbeat**: an answer with a lease that the datanode SDK accepted (seen by a handler that was added as an
  embedder adds one), or that a witness was given. A *witness* is a raw stream that sends a heartbeat every 5 ms to one
  replica, whether that leads or not; there is one for each.
- **Longest gap**: the longest time between two accepted heartbeats of one datanode in a round, of all datanodes; a gap
  that is open when the fault comes counts from its beginning. The interval itself is part of it: 1,000 ms is what a
  quiet cluster shows. Percentiles are over rounds, by nearest rank: p99 of fewer than 100 rounds is the maximum.
- **Serving**: the first accepted heartbeat of a higher term (of anybody), less the instant just before the fault. Without
  quorum it contains the 30 s for which there is none.
- **Leaderless**: the first accepted heartbeat of the next term, less the last accepted one of the old term (of anybody).
  For a leader that lives on, as one that hangs, it says little.
- **Leased again**: from the first write that etcd took after the fault until every datanode was answered under a
  higher term and may write to each of its regions.
- **Read-only**: regions whose datanode was told that it may not write to them any more; the most of one round.
- **Moved**: regions on another node after a round than before it, or gone; all rounds.
- **Leader changes**: terms that began in all rounds.
- **Refused by the fence**: rounds after which the log of the deposed leader, awake again, says `fenced write refused`.
  A leader that has nothing left to write, or finds its deadline passed before it writes, does not say so.
- **Double leader instants**: a node accepted a lower term than before; or a witness was granted something under a lower
  term in answer to a request that it sent after a higher term had granted something to anybody. Where a leader was
  deposed while it lives (hang, black hole, blocked loop), its successor begins before the old one's own deadline, by
  design: nothing changes hands before that. Its grants within that deadline, which from outside is at most one
  leadership (TTL less drift, about 4.9 s) after its successor began, are counted apart, as *overlapping grants*.
- **Lost writes**: a client creates a region twice a second in all rounds. Each acknowledged one has to be listed at the
  end, once, on the same node, under the same epoch or a higher one; each with an unknown outcome at most once.

## The faults

A leader that hangs, is cut off or is blocked is so for 8 s, longer than its TTL. Before each of these rounds every
replica is started again: their patience with a silent leader doubles with each one that is deposed within a minute of
its beginning, and what is measured is the first one of a quiet day. An etcd member that was killed is
started again after 8 s. The loop of a blocked leader is blocked by `metasrv serve --fault-injection`, which has no other use.
Without quorum: two of three members of etcd get SIGSTOP, its leader among them, and SIGCONT after 30 s. etcd without
space: filled up to a quota of 96 MiB until it raises its alarm; heartbeats are watched for 6 s; then our leader is
killed; at the end etcd is compacted, defragmented and its alarm taken back. After each round everything has to be whole
again before the next one: etcd takes writes, three replicas stand in the queue, every region is leased.

## Repeat it

```
make chaos                          # all of it: root, iproute2 and iptables are needed; writes this page
make chaos FAULT=leader-            # one fault, or all whose names begin so; prints, and leaves this page alone
make chaos FAULT=leader-kill ROUNDS=3
make chaos ARGS=--quick             # a small world and one round: whether it works
```

The exit code is 0 if safety held: no double leader instant, no lost write, no region moved. Times decide nothing.
Figures: `target/figures/chaos.json`.
";

/// The page of a run.
pub fn page(rows: &[Row], safety: &Safety, scale: Scale, machine: &str) -> String {
    let mut text = String::from("# Fault matrix\n\nWritten by `make chaos`; do not edit it by hand.\n\n");
    text.push_str(&format!(
        "Three members of etcd and three replicas, each in a network namespace of its own, {} datanodes on the SDK with {} \
         regions each\nin one process, a heartbeat interval of 1 s, a TTL and a region lease of 5 s (the defaults), release \
         builds.\nOn {machine}.\n\nTimes are in milliseconds.\n\n",
        scale.nodes, scale.regions
    ));
    text.push_str(&format!("| {} |\n|{}\n", COLUMNS.join(" | "), " --- |".repeat(COLUMNS.len())));
    for row in rows {
        text.push_str(&format!("| {} |\n", row.cells.join(" | ")));
    }
    text.push_str(&format!(
        "\nIn all rounds together: **{} double leader instants**, **{} lost writes** ({} acknowledged, {} with an unknown \
         outcome), **{} regions moved**. {} overlapping grants, the latest {} ms after the successor's first grant.\n\n",
        safety.double_leader_instants,
        safety.lost_writes,
        safety.acknowledged,
        safety.unknown,
        safety.moved,
        safety.overlapping,
        safety.longest_overlap.as_millis(),
    ));
    text.push_str(DEFINITIONS);
    text
}

/// The machine of this run, for people: cores, memory, kernel, etcd.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, model)| model.trim());
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: u64 = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap_or(0);
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let etcd = Command::new("etcd").arg("--version").output().ok().and_then(|output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().next()?.rsplit(' ').next().map(str::to_owned)
    });
    let etcd = etcd.unwrap_or_else(|| "of an unknown version".to_owned());
    format!("{cores} cores ({model}), {} GiB, Linux {kernel}, etcd {etcd}", kib >> 20)
}

/// Where the page stands.
pub fn path() -> PathBuf {
    beside("fault-matrix.md")
}

/// Where a page of this name stands.
pub fn beside(name: &str) -> PathBuf {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    top.join("docs").join(name)
}
