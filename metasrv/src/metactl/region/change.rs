//! `metactl region migrate` and `metactl region drop`.

use metasrv_proto::admin::{DropRegionRequest, MigrateRegionRequest};
use serde::Serialize;

use crate::cli::{Drop, Migrate};
use crate::exit::Failure;
use crate::output::{Column, Row, Shown, print_one};
use crate::procedure::{Work, follow_or_leave};
use crate::session::Session;
use crate::text::yes_or_no;

/// A migration that has begun.
#[derive(Serialize)]
struct MigrationRow {
    region_id: u64,
    procedure_id: u64,
    from_node_id: u64,
    to_node_id: u64,
}

impl Row for MigrationRow {
    const COLUMNS: &'static [Column<MigrationRow>] = &[
        Column { title: "REGION", shown: Shown::Always, cell: |row, _| row.region_id.to_string() },
        Column { title: "FROM", shown: Shown::Always, cell: |row, _| row.from_node_id.to_string() },
        Column { title: "TO", shown: Shown::Always, cell: |row, _| row.to_node_id.to_string() },
        Column { title: "PROCEDURE", shown: Shown::Always, cell: |row, _| row.procedure_id.to_string() },
    ];
}

/// A region that is gone.
#[derive(Serialize)]
struct DropRow {
    region_id: u64,
    /// The epoch that it had.
    epoch: u64,
    dropped: bool,
}

impl Row for DropRow {
    const COLUMNS: &'static [Column<DropRow>] = &[
        Column { title: "REGION", shown: Shown::Always, cell: |row, _| row.region_id.to_string() },
        Column { title: "EPOCH", shown: Shown::Always, cell: |row, _| row.epoch.to_string() },
        Column { title: "DROPPED", shown: Shown::Always, cell: |row, _| yes_or_no(Some(row.dropped)) },
    ];
}

/// Begins to move a region; on request waits for the end.
pub async fn migrate(session: &Session, migrate: Migrate) -> Result<(), Failure> {
    let Migrate { region, to, why, wait } = migrate;
    let request = MigrateRegionRequest { region_id: region, to_node: to, reason: why.reason };
    let look = format!("`metactl region show {region}` tells whether it moves; look before you repeat it.");
    let operations = session.operations();
    let begun = session.change(operations.migrate_region(request), &look).await?;
    let row = MigrationRow {
        region_id: region,
        procedure_id: begun.procedure_id,
        from_node_id: begun.from_node,
        to_node_id: begun.to_node,
    };
    // Printed at once: whoever waits in vain, or does not wait at all, needs the number.
    print_one(&row, session.format)?;
    follow_or_leave(session, Work::Migration { id: begun.procedure_id, region }, wait).await
}

/// Drops a region.
pub async fn drop(session: &Session, drop: Drop) -> Result<(), Failure> {
    let request = DropRegionRequest { region_id: drop.region, reason: drop.why.reason };
    let look = format!("`metactl region show {}` tells whether it is still there.", drop.region);
    let operations = session.operations();
    let dropped = session.change(operations.drop_region(request), &look).await?;
    print_one(&DropRow { region_id: drop.region, epoch: dropped.epoch, dropped: true }, session.format)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Format;
    use crate::output::{document, table};

    #[test]
    fn the_names_of_their_fields_stay() {
        let begun = MigrationRow { region_id: 7, procedure_id: 9, from_node_id: 1, to_node_id: 2 };
        let json = document(&begun, Format::Jsonl);
        let expected = "{\"region_id\":7,\"procedure_id\":9,\"from_node_id\":1,\"to_node_id\":2}\n";
        assert_eq!(json.as_deref(), Ok(expected));
        assert_eq!(table(&[begun], Format::Table, 0), "REGION  FROM  TO  PROCEDURE\n7       1     2   9\n");
        let json = document(&DropRow { region_id: 7, epoch: 4, dropped: true }, Format::Jsonl);
        assert_eq!(json.as_deref(), Ok("{\"region_id\":7,\"epoch\":4,\"dropped\":true}\n"));
    }
}
