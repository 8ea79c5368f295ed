//! docs/fault-matrix-regions.md: the table of a run, with what it means and how to repeat it.

use std::path::PathBuf;

use super::summary::{COLUMNS, Row, Safety};
use crate::chaos::page::beside;
use crate::chaos::world::Scale;

/// What the page says of words. The table and the machine go above it, and change with each run.
const DEFINITIONS: &str = "\
## What the words mean

Everything is measured from outside, by one writer for each region, on the clock CLOCK_BOOTTIME, which all processes of one
machine share.

- **Writer**: puts a number under a ring of keys, again and again, at the node that the replicas list for its region. It
  tries a put again after 5 ms that was refused, and after 20 ms one whose outcome is unknown; a change of the route
  ends the attempt that is under way.
- **Gap** of a region: the longest time between two acknowledged puts in a round. The pace of the writer is part of it: 20 ms
  where a node is lost, 2 ms for a migration, 10 ms for each region of a drain.
- **Worst of a round**: the longest gap of all regions that were affected. Percentiles are by nearest rank: p99 of fewer than
  100 values is the maximum.
- **Over after**: from the fault until each affected region was written to elsewhere; of a drain until it ended; of half of
  the nodes from healing until every region was written to.
- **Unfinished**: procedures that neither finished nor were undone within 90 s.
- **Store findings**: what a check of everything that is stored found after a round.
- **Moved**: regions on another node after a round that had no reason to move.
- **Overlapping writers**: every put is noted by its datanode before it is acknowledged, with its process, its epoch, when
  the right to write was found, and when it was written. The notes of one process and one epoch are joined. Counted are
  pairs of processes whose intervals of one region overlap, or that share an epoch.
- **Lost puts**: after each round every writer reads back all of its keys from the node that leads, and each has to hold
  what was acknowledged last. At the end the regions' own files have to hold as many puts as were acknowledged
  (`datanode inspect`).

- **Changes of routes**: two frontends with a route cache each watch all the time, and a watch on etcd says when each change was
  committed. Missed are those that one of them never saw, and times that one was led back to an older route.

## The faults

`region-worker-kill`: SIGKILL of a worker under its supervisor, which certifies its end. `region-node-kill`: SIGKILL of a
datanode without one, so that the lease decides. `region-node-blackhole`: its namespace drops every packet, both ways, for
30 s. `region-node-and-leader-kill`: SIGKILL of both in one moment. `region-procedure-leader-kill`: SIGKILL of the leader at a
random moment of four migrations, or (each third round) of a failover. `region-half-blackhole`: three of six datanodes are cut
off for 30 s; the leader has to say that it fails nothing over, and why. The victim is the datanode with the most regions. After
each round everything has to be whole again before the next one.

The regions are on a file system in memory: six machines would have six disks, and here one disk would be shared by all puts and
by etcd.

## Repeat it

```
make chaos FAULT=region-            # all of it: root, iproute2 and iptables are needed; writes this page
make chaos FAULT=region-node        # one fault, or all whose names begin so; prints, and leaves this page alone
make chaos FAULT=region-migrate ROUNDS=3
make chaos FAULT=region- ARGS=--quick
```

The exit code is 0 if safety held: no overlapping writers, no lost put, no procedure unfinished, nothing found in the store,
no change of a route missed. Times decide nothing. Figures: `target/figures/chaos.json`.
";

/// The page of a run.
pub fn page(rows: &[Row], safety: &Safety, scale: Scale, machine: &str) -> String {
    let mut text =
        String::from("# Fault matrix of regions\n\nWritten by `make chaos`; do not edit it by hand.\n\n");
    text.push_str(&format!(
        "Three members of etcd, three replicas and {} datanodes with {} regions each on one shared directory, every process in \
         a\nnetwork namespace of its own, a heartbeat interval of 1 s, a TTL and a region lease of 5 s (the defaults), release \
         builds.\nOn {machine}.\n\nTimes are in milliseconds.\n\n",
        scale.nodes, scale.regions
    ));
    text.push_str(&format!("| {} |\n|{}\n", COLUMNS.join(" | "), " --- |".repeat(COLUMNS.len())));
    for row in rows {
        text.push_str(&format!("| {} |\n", row.cells.join(" | ")));
    }
    text.push_str(&format!(
        "\nIn all rounds together, of {} noted puts: **{} overlapping writers**, **{} lost puts**, **{} procedures \
         unfinished**, **{} findings in the store**. Of {} changes of routes two frontends missed **{}**; 99 of 100 were seen within \
         **{:.1} ms** of their commit.\n\n",
        safety.writes,
        safety.overlapping_writers,
        safety.lost_puts,
        safety.procedures_unfinished,
        safety.findings,
        safety.route_changes,
        safety.routes_missed,
        safety.route_p99.as_secs_f64() * 1e3,
    ));
    text.push_str(DEFINITIONS);
    text
}

/// Where the page stands.
pub fn path() -> PathBuf {
    beside("fault-matrix-regions.md")
}
