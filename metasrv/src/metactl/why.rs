//! `metactl why region R`: where a region is, what holds it there, and where else it could be and why not.

use metasrv_proto::admin::{ExplainRegionResponse, PlacementOpinion};
use serde::Serialize;

use crate::cli::Format;
use crate::events::EventRow;
use crate::exit::Failure;
use crate::output::{Column, Row, Shown, facts, print, shown, table};
use crate::region::show::not_found;
use crate::session::Session;
use crate::text::{cell, count, unless_zero};

/// All that is said of it.
#[derive(Serialize)]
struct Explanation {
    region_id: u64,
    cluster_id: u64,
    node_id: u64,
    epoch: u64,
    group: String,
    /// alive, suspect or lost.
    node_health: String,
    verdict: String,
    /// Null: none is at work on it.
    procedure_id: Option<u64>,
    /// Every node that it could be on, the best first.
    placement: Vec<OpinionRow>,
    /// The last events that name it, the latest first.
    events: Vec<EventRow>,
}

/// What placement thinks of one node.
#[derive(Serialize)]
struct OpinionRow {
    node_id: u64,
    /// holds, best, beaten or excluded.
    outcome: String,
    why: String,
    regions: u64,
}

impl Row for OpinionRow {
    const COLUMNS: &'static [Column<OpinionRow>] = &[
        Column { title: "NODE", shown: Shown::Always, cell: |row, _| row.node_id.to_string() },
        Column { title: "REGIONS", shown: Shown::Always, cell: |row, _| row.regions.to_string() },
        Column { title: "IF IT WERE PLACED NOW", shown: Shown::Always, cell: |row, _| cell(&row.outcome) },
        Column { title: "WHY", shown: Shown::Always, cell: |row, _| cell(&row.why) },
    ];
}

impl From<PlacementOpinion> for OpinionRow {
    fn from(opinion: PlacementOpinion) -> OpinionRow {
        let PlacementOpinion { node_id, outcome, why, regions } = opinion;
        OpinionRow { node_id, outcome, why, regions }
    }
}

impl From<ExplainRegionResponse> for Explanation {
    fn from(answer: ExplainRegionResponse) -> Explanation {
        Explanation {
            region_id: answer.region_id,
            cluster_id: answer.cluster_id,
            node_id: answer.node_id,
            epoch: answer.epoch,
            group: answer.group,
            node_health: answer.node_health,
            verdict: answer.verdict,
            procedure_id: unless_zero(answer.procedure_id),
            placement: answer.placement.into_iter().map(OpinionRow::from).collect(),
            events: answer.events.into_iter().map(EventRow::from).collect(),
        }
    }
}

impl Explanation {
    fn page(&self, format: Format, now_ms: u64) -> String {
        let mut page = facts(&[
            ("REGION", self.region_id.to_string()),
            ("NODE", format!("{}, {}", self.node_id, cell(&self.node_health))),
            ("EPOCH", self.epoch.to_string()),
            ("GROUP", cell(&self.group)),
            ("PROCEDURE", count(self.procedure_id)),
            ("WHY HERE", cell(&self.verdict)),
        ]);
        if !self.placement.is_empty() {
            page.push('\n');
            page.push_str(&table(&self.placement, format, now_ms));
        }
        if !self.events.is_empty() {
            page.push('\n');
            page.push_str(&table(&self.events, format, now_ms));
        }
        page
    }
}

/// Explains a region.
pub async fn region(session: &Session, region: u64) -> Result<(), Failure> {
    let answer = session.operations().explain_region(region).await;
    let explanation = Explanation::from(answer.map_err(|error| not_found(region, error))?);
    let format = session.format;
    print(&shown(&explanation, |explanation, now| explanation.page(format, now), format)?)
}

#[cfg(test)]
mod tests {
    use metasrv_proto::admin::Event;

    use super::*;
    use crate::output::document;

    fn explanation() -> Explanation {
        let opinion = |node_id, outcome: &str, why: &str| PlacementOpinion {
            node_id,
            outcome: outcome.to_owned(),
            why: why.to_owned(),
            regions: 5,
        };
        Explanation::from(ExplainRegionResponse {
            region_id: 7,
            node_id: 3,
            epoch: 2,
            node_health: "alive".to_owned(),
            verdict: "datanode 3 holds its lease".to_owned(),
            placement: vec![opinion(1, "best", "fewest regions"), opinion(2, "excluded", "it is cordoned")],
            events: vec![Event { kind: "region_created".to_owned(), region_id: 7, ..Event::default() }],
            ..ExplainRegionResponse::default()
        })
    }

    #[test]
    fn the_names_of_its_fields_stay() {
        let json = document(&explanation(), Format::Jsonl).unwrap();
        let expected = concat!(
            r#"{"region_id":7,"cluster_id":0,"node_id":3,"epoch":2,"group":"","node_health":"alive","#,
            r#""verdict":"datanode 3 holds its lease","procedure_id":null,"#,
            r#""placement":[{"node_id":1,"outcome":"best","why":"fewest regions","regions":5},"#,
        );
        assert!(json.starts_with(expected), "{json}");
        assert!(json.contains(r#""events":[{"id":0,"#), "{json}");
    }

    #[test]
    fn a_page_says_what_holds_it_and_why_each_other_node_does_not() {
        let page = explanation().page(Format::Table, 0);
        for part in [
            "3, alive",
            "datanode 3 holds its lease",
            "2     5        excluded",
            "it is cordoned",
            "region_created",
        ] {
            assert!(page.contains(part), "{part} is missing:\n{page}");
        }
    }
}
