//! Regions that move or would move, and regions that stay: what plans, drains, balancing and failovers have in common. And
//! `metactl rebalance`, which is nothing else.

use metasrv_proto::admin::{PlannedMove, RebalanceRequest, StuckRegion};
use serde::Serialize;

use crate::cli::Rebalance;
use crate::exit::Failure;
use crate::output::{Column, Row, Shown, print_list, say};
use crate::session::Session;
use crate::text::cell;

/// A region that moves, or would move.
#[derive(Serialize)]
pub struct MoveRow {
    region_id: u64,
    from_node_id: u64,
    to_node_id: u64,
}

impl Row for MoveRow {
    const COLUMNS: &'static [Column<MoveRow>] = &[
        Column { title: "REGION", shown: Shown::Always, cell: |moved, _| moved.region_id.to_string() },
        Column { title: "FROM", shown: Shown::Always, cell: |moved, _| moved.from_node_id.to_string() },
        Column { title: "TO", shown: Shown::Always, cell: |moved, _| moved.to_node_id.to_string() },
    ];
}

/// A region that stays where it is.
#[derive(Serialize, Clone)]
pub struct StuckRow {
    /// Which.
    pub region_id: u64,
    /// Why, in words.
    pub why: String,
}

impl Row for StuckRow {
    const COLUMNS: &'static [Column<StuckRow>] = &[
        Column { title: "REGION", shown: Shown::Always, cell: |stuck, _| stuck.region_id.to_string() },
        Column { title: "WHY IT STAYS", shown: Shown::Always, cell: |stuck, _| cell(&stuck.why) },
    ];
}

/// Moves as rows.
pub fn moves(moves: Vec<PlannedMove>) -> Vec<MoveRow> {
    let row = |PlannedMove { region_id, from_node, to_node }| MoveRow {
        region_id,
        from_node_id: from_node,
        to_node_id: to_node,
    };
    moves.into_iter().map(row).collect()
}

/// Regions that stay as rows.
pub fn stuck(stuck: Vec<StuckRegion>) -> Vec<StuckRow> {
    stuck.into_iter().map(|StuckRegion { region_id, why }| StuckRow { region_id, why }).collect()
}

/// Evens out loads, or says which regions that would move.
pub async fn rebalance(session: &Session, rebalance: Rebalance) -> Result<(), Failure> {
    let Rebalance { cluster, dry_run, why } = rebalance;
    let request = RebalanceRequest { cluster_id: cluster, dry_run, reason: why.reason };
    let operations = session.operations();
    let look = "`metactl procedure list` tells what began; look before you repeat it.";
    let answer = session.change(operations.rebalance(request), look).await?;
    let moves = moves(answer.moves);
    print_list(&moves, session.format)?;
    say(&sentence(moves.len(), dry_run));
    Ok(())
}

fn sentence(moves: usize, dry_run: bool) -> String {
    match (moves, dry_run) {
        (0, _) => "loads are even: nothing moves".to_owned(),
        (_, true) => format!("{moves} regions would move; nothing was begun"),
        (_, false) => format!("{moves} regions move: `metactl procedure list` shows how far they are"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Format;
    use crate::output::{listed, table};

    #[test]
    fn the_names_of_their_fields_stay() {
        let moves = moves(vec![PlannedMove { region_id: 7, from_node: 3, to_node: 1 }]);
        let json = listed(&moves, Format::Jsonl);
        assert_eq!(json.as_deref(), Ok("{\"region_id\":7,\"from_node_id\":3,\"to_node_id\":1}\n"));
        assert_eq!(table(&moves, Format::Table, 0), "REGION  FROM  TO\n7       3     1\n");
        let stuck = stuck(vec![StuckRegion { region_id: 8, why: "no node\nmay".to_owned() }]);
        let json = listed(&stuck, Format::Jsonl);
        assert_eq!(json.as_deref(), Ok("{\"region_id\":8,\"why\":\"no node\\nmay\"}\n"));
        assert_eq!(table(&stuck, Format::Table, 0), "REGION  WHY IT STAYS\n8       no node\\nmay\n");
    }

    #[test]
    fn a_dry_run_says_that_nothing_was_begun() {
        assert!(sentence(2, true).contains("would move; nothing was begun"));
        assert!(sentence(2, false).contains("metactl procedure list"));
        assert!(sentence(0, false).contains("even") && sentence(0, true).contains("even"));
    }
}
