//! `metactl node drain` and `metactl plan drain`: all regions away from a datanode, and what that would come to.

use metasrv_proto::admin::{DrainNodeRequest, DrainNodeResponse};
use serde::Serialize;

use crate::cli::{Drain, Format, Which};
use crate::exit::Failure;
use crate::moves::{MoveRow, StuckRow, moves, stuck};
use crate::output::{facts, print, shown, table};
use crate::procedure::{Work, follow_or_leave};
use crate::session::Session;
use crate::text::{count, estimate, unless_zero};

/// A drain that was begun, or is only planned.
#[derive(Serialize)]
struct DrainPlan {
    node_id: u64,
    cluster_id: u64,
    /// Null: it is only planned.
    procedure_id: Option<u64>,
    /// How long all of it takes. Null: nothing was measured yet.
    eta_ms: Option<u64>,
    /// Where each region would go now.
    moves: Vec<MoveRow>,
    /// Regions that would stay.
    stuck: Vec<StuckRow>,
}

impl DrainPlan {
    fn of(which: Which, answer: DrainNodeResponse) -> DrainPlan {
        DrainPlan {
            node_id: which.node,
            cluster_id: which.cluster,
            procedure_id: unless_zero(answer.procedure_id),
            eta_ms: answer.eta_ms,
            moves: moves(answer.moves),
            stuck: stuck(answer.stuck),
        }
    }

    fn page(&self, format: Format, now_ms: u64) -> String {
        let mut page = facts(&[
            ("NODE", self.node_id.to_string()),
            ("PROCEDURE", count(self.procedure_id)),
            ("REGIONS THAT MOVE", self.moves.len().to_string()),
            ("REGIONS THAT STAY", self.stuck.len().to_string()),
            ("TAKES", self.eta_ms.map_or_else(|| "not known: nothing was moved yet".to_owned(), estimate)),
        ]);
        if !self.moves.is_empty() {
            page.push('\n');
            page.push_str(&table(&self.moves, format, now_ms));
        }
        if !self.stuck.is_empty() {
            page.push('\n');
            page.push_str(&table(&self.stuck, format, now_ms));
        }
        page
    }

    fn text(&self, format: Format) -> Result<String, Failure> {
        shown(self, |plan, now| plan.page(format, now), format)
    }
}

/// Says what a drain would do.
pub async fn plan(session: &Session, which: Which) -> Result<(), Failure> {
    let answer = session.operations().drain_node(request(which, String::new(), true)).await?;
    print(&DrainPlan::of(which, answer).text(session.format)?)
}

/// Begins a drain; on request waits for its end, and says meanwhile how far it is.
pub async fn drain(session: Session, drain: Drain) -> Result<(), Failure> {
    let session = if drain.wait { session.patient() } else { session };
    let operations = session.operations();
    let begin = operations.drain_node(request(drain.which, drain.why.reason, false));
    let look = "`metactl procedure list` tells whether it began; look before you repeat it.";
    let answer = session.change(begin, look).await?;
    let id = answer.procedure_id;
    // Printed at once: whoever waits in vain, or does not wait at all, needs the number.
    print(&DrainPlan::of(drain.which, answer).text(session.format)?)?;
    follow_or_leave(&session, Work::Drain { id }, drain.wait).await
}

fn request(which: Which, reason: String, dry_run: bool) -> DrainNodeRequest {
    DrainNodeRequest { node_id: which.node, cluster_id: which.cluster, reason, dry_run }
}

#[cfg(test)]
mod tests {
    use metasrv_proto::admin::{PlannedMove, StuckRegion};

    use super::*;
    use crate::output::document;

    fn planned() -> DrainPlan {
        let answer = DrainNodeResponse {
            procedure_id: 0,
            moves: vec![PlannedMove { region_id: 7, from_node: 3, to_node: 1 }],
            stuck: vec![StuckRegion { region_id: 8, why: "it is being migrated".to_owned() }],
            eta_ms: Some(61_000),
        };
        DrainPlan::of(Which { node: 3, cluster: 0 }, answer)
    }

    #[test]
    fn the_names_of_its_fields_stay() {
        let json = document(&planned(), Format::Jsonl);
        assert_eq!(
            json.as_deref(),
            Ok(concat!(
                r#"{"node_id":3,"cluster_id":0,"procedure_id":null,"eta_ms":61000,"#,
                r#""moves":[{"region_id":7,"from_node_id":3,"to_node_id":1}],"#,
                r#""stuck":[{"region_id":8,"why":"it is being migrated"}]}"#,
                "\n"
            ))
        );
    }

    #[test]
    fn a_plan_says_what_moves_what_stays_and_how_long_it_takes() {
        let page = planned().page(Format::Table, 0);
        for part in
            ["PROCEDURE          -", "TAKES              about 2m", "7       3     1", "8       it is being"]
        {
            assert!(page.contains(part), "{part} is missing:\n{page}");
        }
        let unmeasured = DrainPlan { eta_ms: None, moves: Vec::new(), stuck: Vec::new(), ..planned() };
        let page = unmeasured.page(Format::Table, 0);
        assert!(page.contains("not known") && !page.contains("WHY"), "{page}");
    }
}
