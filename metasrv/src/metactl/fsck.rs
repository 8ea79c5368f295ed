//! `metactl fsck`: whether all that is stored can be read, and fits together.
//!
//! Any replica reads the store for it, so that it works without a leader. It changes nothing.

use metasrv_proto::admin::{CheckStoreResponse, Finding};
use serde::Serialize;

use crate::cli::Format;
use crate::exit::{Exit, Failure};
use crate::output::{Column, Row, Shown, facts, print, shown, table};
use crate::session::Session;
use crate::text::cell;

/// What was read, and what is wrong with it.
#[derive(Serialize)]
struct Check {
    /// Revision that was read.
    revision: u64,
    records: u64,
    findings: Vec<FindingRow>,
}

/// What is wrong with one record.
#[derive(Serialize)]
struct FindingRow {
    key: String,
    what: String,
}

impl Row for FindingRow {
    const COLUMNS: &'static [Column<FindingRow>] = &[
        Column { title: "KEY", shown: Shown::Always, cell: |row, _| cell(&row.key) },
        Column { title: "WHAT IS WRONG", shown: Shown::Always, cell: |row, _| cell(&row.what) },
    ];
}

impl From<CheckStoreResponse> for Check {
    fn from(answer: CheckStoreResponse) -> Check {
        let row = |Finding { key, what }| FindingRow { key, what };
        Check {
            revision: answer.revision,
            records: answer.records,
            findings: answer.findings.into_iter().map(row).collect(),
        }
    }
}

impl Check {
    fn page(&self, format: Format, now_ms: u64) -> String {
        let mut page = facts(&[
            ("REVISION", self.revision.to_string()),
            ("RECORDS", self.records.to_string()),
            ("FINDINGS", self.findings.len().to_string()),
        ]);
        if !self.findings.is_empty() {
            page.push('\n');
            page.push_str(&table(&self.findings, format, now_ms));
        }
        page
    }

    fn verdict(&self) -> Result<(), Failure> {
        match self.findings.len() {
            0 => Ok(()),
            count => {
                Err(Failure::new(Exit::Unhealthy, format!("{count} findings in {} records", self.records))
                    .advise(
                        "Change nothing by hand: keep this output and a snapshot of etcd, and report it.",
                    ))
            }
        }
    }
}

/// Checks; fails if something is wrong.
pub async fn check(session: &Session) -> Result<(), Failure> {
    let check = Check::from(session.operations().check_store().await?);
    let format = session.format;
    print(&shown(&check, |check, now| check.page(format, now), format)?)?;
    check.verdict()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::document;

    fn check(findings: Vec<Finding>) -> Check {
        Check::from(CheckStoreResponse { revision: 12, records: 40, findings })
    }

    #[test]
    fn the_names_of_its_fields_stay() {
        let found = Finding { key: "/metasrv/v1/region/7".to_owned(), what: "epoch 0".to_owned() };
        let json = document(&check(vec![found]), Format::Jsonl);
        assert_eq!(
            json.as_deref(),
            Ok(concat!(
                r#"{"revision":12,"records":40,"findings":[{"key":"/metasrv/v1/region/7","what":"epoch 0"}]}"#,
                "\n"
            ))
        );
    }

    #[test]
    fn a_finding_is_unhealthy_and_none_is_well() {
        assert_eq!(check(Vec::new()).verdict(), Ok(()));
        assert_eq!(check(Vec::new()).page(Format::Table, 0), "REVISION  12\nRECORDS   40\nFINDINGS  0\n");
        let bad = check(vec![Finding { key: "k".to_owned(), what: "bad".to_owned() }]);
        assert_eq!(bad.verdict().err().map(|failure| failure.exit), Some(Exit::Unhealthy));
        assert!(bad.page(Format::Table, 0).ends_with("KEY  WHAT IS WRONG\nk    bad\n"));
    }
}
