//! Procedures as operators see them.

use std::time::Duration;

use metasrv_core::procedure::migrate::Migration;
use metasrv_proto::admin::{ProcedureView, StuckRegion};

use super::Procedures;
use super::drain::Emptying;
use super::moving::Moving;
use super::record::state_name;

impl Procedures {
    /// All that are at work, in the order in which they began.
    pub fn list(&self) -> Vec<ProcedureView> {
        let migrations = self.migrations.values().map(of_migration);
        let drains = self.drains.values().map(of_drain);
        let mut views: Vec<ProcedureView> = migrations.chain(drains).collect();
        views.sort_unstable_by_key(|view| view.id);
        views
    }
}

fn of_migration(moving: &Moving) -> ProcedureView {
    let Migration { id, region, from, to, state, reason, .. } = moving.stored();
    let (started_at_ms, drain) = moving.origin();
    ProcedureView {
        id: id.0,
        kind: "migration".to_owned(),
        cluster_id: moving.from().cluster.0,
        region_id: region.0,
        from_node: from.0,
        to_node: to.0,
        state: state_name(state).to_owned(),
        started_at_ms,
        reason: reason.clone(),
        drain_id: drain.map_or(0, |drain| drain.0),
        ..ProcedureView::default()
    }
}

fn of_drain(emptying: &Emptying) -> ProcedureView {
    let stored = emptying.stored();
    let progress = &emptying.progress;
    let blocked = emptying
        .blocked
        .iter()
        .map(|blocked| StuckRegion { region_id: blocked.region.0, why: blocked.why.clone() });
    ProcedureView {
        id: stored.drain.id.0,
        kind: "drain".to_owned(),
        cluster_id: stored.cluster.0,
        from_node: stored.drain.node.0,
        state: emptying.state().to_owned(),
        started_at_ms: stored.drain.started_ms,
        reason: stored.drain.reason.clone(),
        done: number(progress.done),
        left: number(progress.left),
        in_flight: number(progress.in_flight),
        eta_ms: progress.eta.map(millis),
        stuck: blocked.collect(),
        ..ProcedureView::default()
    }
}

/// In the unit of the wire, rounded up: 0 would say that it is over.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
