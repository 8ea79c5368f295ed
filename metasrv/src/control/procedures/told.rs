//! What the history tells of procedures.
//!
//! | kind | written with | names |
//! | --- | --- | --- |
//! | `migration_begun` | the first record | region, both nodes, the epoch it is led under; why |
//! | `region_migrated` | the commit of the route | region, both nodes, the new epoch |
//! | `region_epoch_raised` | the commit of the route that undoes | region, its node, the new epoch; why |
//! | `migration_done` | the record's end | region, both nodes |
//! | `migration_undone` | the record's end | region, both nodes; why |
//! | `drain_begun` | the first record | node; why |
//! | `drain_done`, `drain_cancelled` | the record's end | node; why |

use metasrv_core::id::Epoch;
use metasrv_core::procedure::drain;
use metasrv_core::procedure::migrate::{End, State};
use metasrv_proto::admin::StoredEvent;

use super::record::{StoredDrain, StoredMigration};
use crate::leader::RouteChange;

/// A migration begins.
pub(super) fn migration_begun(of: &StoredMigration) -> StoredEvent {
    let epoch = of.migration.epoch;
    of_migration("migration_begun", of, epoch, of.migration.reason.clone())
}

/// The route changes: the region has moved, or its node keeps it under a raised epoch.
pub(super) fn route_changed(of: &StoredMigration, change: &RouteChange) -> StoredEvent {
    if change.from != change.to {
        return of_migration("region_migrated", of, change.epoch, of.migration.reason.clone());
    }
    let why = match &of.migration.state {
        State::Undoing { why, .. } => format!("a migration is undone: {why}"),
        _ => "a migration is undone".to_owned(),
    };
    StoredEvent { node_id: change.to.id.0, ..of_migration("region_epoch_raised", of, change.epoch, why) }
}

/// A migration ends.
pub(super) fn migration_ended(of: &StoredMigration, end: &End) -> StoredEvent {
    match end {
        End::Done => of_migration("migration_done", of, of.migration.epoch.next(), String::new()),
        End::Undone(why) => of_migration("migration_undone", of, Epoch::default(), why.to_string()),
    }
}

/// A drain begins.
pub(super) fn drain_begun(of: &StoredDrain) -> StoredEvent {
    of_drain("drain_begun", of, &of.drain.reason)
}

/// A drain ends; `why` is the operator's word where it is cancelled.
pub(super) fn drain_ended(of: &StoredDrain, end: drain::End, why: &str) -> StoredEvent {
    match end {
        drain::End::Empty => of_drain("drain_done", of, "no route names the node any more"),
        drain::End::Cancelled => of_drain("drain_cancelled", of, why),
    }
}

fn of_migration(kind: &str, of: &StoredMigration, epoch: Epoch, why: String) -> StoredEvent {
    StoredEvent {
        kind: kind.to_owned(),
        cluster_id: of.cluster.0,
        region_id: of.migration.region.0,
        node_id: of.migration.to.0,
        from_node_id: of.migration.from.0,
        epoch: epoch.0,
        procedure_id: of.migration.id.0,
        why,
    }
}

fn of_drain(kind: &str, of: &StoredDrain, why: &str) -> StoredEvent {
    StoredEvent {
        kind: kind.to_owned(),
        cluster_id: of.cluster.0,
        node_id: of.drain.node.0,
        procedure_id: of.drain.id.0,
        why: why.to_owned(),
        ..StoredEvent::default()
    }
}
