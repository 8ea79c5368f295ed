//! What the control loop counts, for graphs and alerts.
//!
//! Gauges of what only a leader knows go back to zero with its loop: a replica that led once would show for ever what was so
//! then.

use std::time::Duration;

use super::Leader;

/// Why automatic failovers stand still, as the label says it.
pub const HELD: [&str; 5] = ["paused", "maintenance", "too_many_silent", "calming_down", "stalled"];

/// The datanodes, counted by their health.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Nodes {
    /// Heard of lately.
    pub alive: usize,
    /// Silent for a little while.
    pub suspect: usize,
    /// Silent for too long, with regions.
    pub lost: usize,
    /// Regions of nodes that are lost, or whose process has ended.
    pub waiting: usize,
}

impl Leader {
    /// So many regions were failed over.
    pub fn count_failovers(&self, regions: usize) {
        self.metrics.failovers.inc_by(u64::try_from(regions).unwrap_or(0));
    }

    /// So many migrations and drains are at work.
    pub fn count_procedures(&self, migrations: usize, drains: usize) {
        for (kind, count) in [("migration", migrations), ("drain", drains)] {
            self.metrics.procedures.with_label_values(&[kind]).set(gauge(count));
        }
    }

    /// A migration ended.
    pub fn count_migration(&self, outcome: &str) {
        self.metrics.migrations.with_label_values(&[outcome]).inc();
    }

    /// A region had no writer for so long, as far as a leader can see.
    pub fn measure_stopped(&self, duration: Duration) {
        self.metrics.migration_stopped.observe(duration.as_secs_f64());
    }

    /// An instruction of this kind was sent, or was not.
    pub fn count_instruction(&self, kind: &str, outcome: &str) {
        self.metrics.instructions.with_label_values(&[kind, outcome]).inc();
    }

    /// Nodes and waiting regions, as just counted.
    pub fn measure_nodes(&self, nodes: Nodes) {
        let Nodes { alive, suspect, lost, waiting } = nodes;
        for (health, count) in [("alive", alive), ("suspect", suspect), ("lost", lost)] {
            self.metrics.nodes.with_label_values(&[health]).set(gauge(count));
        }
        self.metrics.regions_waiting.set(gauge(waiting));
    }

    /// Why automatic failovers stand still, one of [`HELD`]; `None` where they go on.
    pub fn measure_held(&self, why: Option<&str>) {
        for reason in HELD {
            self.metrics.failovers_held.with_label_values(&[reason]).set(i64::from(why == Some(reason)));
        }
    }

    /// Sets to zero what only a leader knows.
    pub fn measure_nothing(&self) {
        self.count_procedures(0, 0);
        self.measure_nodes(Nodes::default());
        self.measure_held(None);
        self.metrics.regions.set(0);
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
