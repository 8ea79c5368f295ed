//! `metactl failover show`, `pause` and `resume`, and `metactl maintenance`: whether regions of lost nodes move by
//! themselves, and if not, why.
//!
//! All of them answer with what now holds.

use metasrv_proto::admin::set_failover_request::Order;
use metasrv_proto::admin::{GetFailoverResponse, SetFailoverRequest, SetMaintenanceRequest};
use serde::Serialize;

use crate::cli::{FailoverCommand, Format, Switch, Watch, Why};
use crate::exit::Failure;
use crate::moves::{StuckRow, stuck};
use crate::node::order::millis;
use crate::output::{facts, print, shown, table};
use crate::session::Session;
use crate::text::{Moment, cell, until, yes_or_no};
use crate::watch;

/// Whether a change was made, the answer tells.
const LOOK: &str = "`metactl failover show` tells whether it was done.";

/// Whether failovers proceed.
#[derive(Serialize)]
struct FailoverPage {
    /// proceed, reaped_only or hold.
    verdict: String,
    /// Why not. Empty: they proceed.
    why: String,
    /// Nodes with regions, and those of them that are silent.
    nodes: u64,
    silent: u64,
    /// Null: not paused.
    paused_until: Moment,
    /// Null: the brake decides.
    resumed_until: Moment,
    maintenance: bool,
    reason: String,
    term: u64,
    /// Regions of lost nodes that wait.
    waiting: Vec<StuckRow>,
}

impl From<GetFailoverResponse> for FailoverPage {
    fn from(answer: GetFailoverResponse) -> FailoverPage {
        FailoverPage {
            verdict: answer.verdict,
            why: answer.why,
            nodes: answer.nodes,
            silent: answer.silent,
            paused_until: Moment(answer.paused_until_ms),
            resumed_until: Moment(answer.resumed_until_ms),
            maintenance: answer.maintenance,
            reason: answer.reason,
            term: answer.term,
            waiting: stuck(answer.waiting),
        }
    }
}

impl FailoverPage {
    fn page(&self, format: Format, now_ms: u64) -> String {
        let mut page = facts(&[
            ("FAILOVERS", sentence(&self.verdict, &self.why)),
            ("NODES", format!("{}, {} silent", self.nodes, self.silent)),
            ("PAUSED", until(self.paused_until, now_ms)),
            ("BRAKE OVERRIDDEN", until(self.resumed_until, now_ms)),
            ("MAINTENANCE", yes_or_no(Some(self.maintenance))),
            ("REASON", cell(&self.reason)),
            ("TERM", self.term.to_string()),
        ]);
        if !self.waiting.is_empty() {
            page.push('\n');
            page.push_str(&table(&self.waiting, format, now_ms));
        }
        page
    }

    fn text(&self, format: Format) -> Result<String, Failure> {
        shown(self, |page, now| page.page(format, now), format)
    }
}

/// Whether failovers proceed, and why not, for people.
pub fn sentence(verdict: &str, why: &str) -> String {
    match verdict {
        "proceed" => "proceed".to_owned(),
        "reaped_only" => format!("only of nodes whose process has certainly ended: {}", cell(why)),
        "hold" => format!("none: {}", cell(why)),
        other => format!("{}: {}", cell(other), cell(why)),
    }
}

/// Looks at failovers, pauses them, or lets them go on.
pub async fn run(session: &Session, command: FailoverCommand) -> Result<(), Failure> {
    match command {
        FailoverCommand::Show { cluster, watch } => show(session, cluster, watch).await,
        FailoverCommand::Pause { time, why } => set(session, Order::PauseMs(millis(time)), why).await,
        FailoverCommand::Resume { time, why } => {
            set(session, Order::ResumeMs(time.map_or(0, millis)), why).await
        }
    }
}

async fn show(session: &Session, cluster: u64, watch: Watch) -> Result<(), Failure> {
    watch::show(session, watch, async |session| {
        let answer = session.operations().failover(cluster).await?;
        FailoverPage::from(answer).text(session.format)
    })
    .await
}

async fn set(session: &Session, order: Order, why: Why) -> Result<(), Failure> {
    let request = SetFailoverRequest { order: Some(order), reason: why.reason };
    let operations = session.operations();
    let answer = session.change(operations.set_failover(request), LOOK).await?;
    print(&FailoverPage::from(answer).text(session.format)?)
}

/// Switches maintenance mode.
pub async fn maintenance(session: &Session, switch: Switch, why: Why) -> Result<(), Failure> {
    let request = SetMaintenanceRequest { on: switch == Switch::On, reason: why.reason };
    let operations = session.operations();
    let answer = session.change(operations.set_maintenance(request), LOOK).await?;
    print(&FailoverPage::from(answer).text(session.format)?)
}

#[cfg(test)]
mod tests {
    use metasrv_proto::admin::StuckRegion;

    use super::*;
    use crate::output::document;

    fn held() -> FailoverPage {
        FailoverPage::from(GetFailoverResponse {
            verdict: "hold".to_owned(),
            why: "3 of 6 nodes are silent".to_owned(),
            nodes: 6,
            silent: 3,
            paused_until_ms: 1_700_000_000_000,
            waiting: vec![StuckRegion { region_id: 8, why: "the brake holds".to_owned() }],
            ..GetFailoverResponse::default()
        })
    }

    #[test]
    fn the_names_of_its_fields_stay() {
        let json = document(&held(), Format::Jsonl);
        assert_eq!(
            json.as_deref(),
            Ok(concat!(
                r#"{"verdict":"hold","why":"3 of 6 nodes are silent","nodes":6,"silent":3,"#,
                r#""paused_until":"2023-11-14T22:13:20.000Z","resumed_until":null,"maintenance":false,"#,
                r#""reason":"","term":0,"waiting":[{"region_id":8,"why":"the brake holds"}]}"#,
                "\n"
            ))
        );
    }

    #[test]
    fn a_page_says_why_nothing_moves_and_until_when() {
        let page = held().page(Format::Table, 1_699_999_940_000);
        for part in ["none: 3 of 6 nodes are silent", "6, 3 silent", "for 1m", "8       the brake holds"] {
            assert!(page.contains(part), "{part} is missing:\n{page}");
        }
        let reaped = FailoverPage { verdict: "reaped_only".to_owned(), ..held() };
        assert!(reaped.page(Format::Table, 0).contains("only of nodes whose process"));
        let well = FailoverPage { verdict: "proceed".to_owned(), waiting: Vec::new(), ..held() };
        let page = well.page(Format::Table, 1_700_000_000_000);
        assert!(page.starts_with("FAILOVERS         proceed\n") && !page.contains("WHY"), "{page}");
        assert!(page.contains("PAUSED            -\n"), "it has passed:\n{page}");
    }
}
