//! `metactl region show R`: one region, with what the leader says of it in one sentence.
//!
//! The leader's explanation says which node to ask for, so that a list of all regions is not read for one of them. Without a
//! leader it is what a follower has seen, and there is no explanation.

use metasrv_client::{ClientError, RegionList};
use metasrv_proto::admin::ExplainRegionResponse;
use serde::Serialize;

use super::RegionRow;
use crate::exit::{Exit, Failure};
use crate::follower;
use crate::output::{facts, page, shown};
use crate::session::Session;
use crate::text::{cell, count, unless_zero};

/// A region and what is said of it.
#[derive(Serialize)]
struct RegionPage {
    #[serde(flatten)]
    region: RegionRow,
    /// alive, suspect or lost. Null: no leader answers.
    node_health: Option<String>,
    /// What holds it where it is, or what it waits for. Null: no leader answers.
    verdict: Option<String>,
    /// The procedure at work on it. Null: none.
    procedure_id: Option<u64>,
}

/// One region.
pub async fn show(session: &Session, region: u64) -> Result<String, Failure> {
    let (node, explained) = match session.hopeful_operations().explain_region(region).await {
        Ok(explained) => (Some(explained.node_id), Some(explained)),
        Err(error) if follower::is_for_want_of_a_leader(&error) => (None, None),
        Err(error) => return Err(not_found(region, error)),
    };
    let list = follower::regions(session, node).await?;
    let found = match find(list, region) {
        // It has moved between the two questions.
        None if node.is_some() => find(follower::regions(session, None).await?, region),
        found => found,
    };
    let found = found.ok_or_else(|| unknown(region, format!("metasrv knows no region {region}")))?;
    shown(&RegionPage::of(found, explained), |page, now| page.page(now), session.format)
}

fn find(list: RegionList, region: u64) -> Option<RegionRow> {
    let found = list.regions.into_iter().find(|found| found.region_id == region);
    found.map(|found| RegionRow::of(found, list.follower))
}

impl RegionPage {
    fn of(region: RegionRow, explained: Option<ExplainRegionResponse>) -> RegionPage {
        let procedure_id = explained.as_ref().and_then(|explained| unless_zero(explained.procedure_id));
        let node_health = explained.as_ref().map(|explained| explained.node_health.clone());
        RegionPage {
            region,
            node_health,
            verdict: explained.map(|explained| explained.verdict),
            procedure_id,
        }
    }

    fn page(&self, now_ms: u64) -> String {
        let or_dash = |text: &Option<String>| cell(text.as_deref().unwrap_or_default());
        let mut lines = page(&self.region, now_ms);
        lines.push(("NODE HEALTH", or_dash(&self.node_health)));
        lines.push(("PROCEDURE", count(self.procedure_id)));
        lines.push(("WHY HERE", or_dash(&self.verdict)));
        facts(&lines)
    }
}

/// An error about a region, with what to do where it does not exist.
pub fn not_found(region: u64, error: ClientError) -> Failure {
    match error {
        ClientError::NotFound(why) => unknown(region, why),
        error => error.into(),
    }
}

fn unknown(region: u64, why: String) -> Failure {
    Failure::new(Exit::NotFound, why).advise(format!(
        "`metactl region list` shows those that there are; `metactl history region {region}` whether it was dropped."
    ))
}

#[cfg(test)]
mod tests {
    use metasrv_proto::admin::Region;

    use super::*;
    use crate::cli::Format;
    use crate::output::document;

    fn row() -> RegionRow {
        let region = Region { region_id: 7, node_id: 3, group: "orders".to_owned(), ..Region::default() };
        RegionRow::of(region, None)
    }

    fn explained() -> ExplainRegionResponse {
        ExplainRegionResponse {
            node_health: "alive".to_owned(),
            verdict: "datanode 3 holds its lease".to_owned(),
            ..ExplainRegionResponse::default()
        }
    }

    #[test]
    fn its_fields_are_those_of_the_list_and_three_more() {
        let json = document(&RegionPage::of(row(), Some(explained())), Format::Jsonl).unwrap();
        let more = r#""as_of_ms_ago":null,"node_health":"alive","verdict":"datanode 3 holds its lease","procedure_id":null}"#;
        assert!(json.starts_with(r#"{"region_id":7,"#) && json.trim_end().ends_with(more), "{json}");
        let json = document(&RegionPage::of(row(), None), Format::Jsonl).unwrap();
        assert!(json.contains(r#""node_health":null,"verdict":null"#), "{json}");
    }

    #[test]
    fn a_page_has_a_line_for_each_of_them() {
        let page = RegionPage::of(row(), Some(explained())).page(0);
        for line in ["REGION       7\n", "GROUP        orders\n", "WHY HERE     datanode 3 holds its lease\n"]
        {
            assert!(page.contains(line), "{line} is missing:\n{page}");
        }
    }

    #[test]
    fn a_region_that_does_not_exist_may_have_been_dropped() {
        let failure = not_found(7, ClientError::NotFound("no region 7".to_owned()));
        assert_eq!(failure.exit, Exit::NotFound);
        assert!(failure.to_string().contains("metactl history region 7"), "{failure}");
        let failure = not_found(7, ClientError::Refused("no".to_owned()));
        assert_eq!(failure.exit, Exit::Refused);
    }
}
