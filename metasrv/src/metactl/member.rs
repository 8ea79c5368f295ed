//! `metactl member list`: the replicas of metasrv, as they stand in the queue for leadership.

use metasrv_proto::admin::Member;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output::{Column, Row, Shown, listed};
use crate::session::Session;
use crate::survey::Survey;
use crate::text::{Moment, cell};
use crate::watch::Screen;

/// A replica.
#[derive(Serialize)]
struct MemberRow {
    name: String,
    addr: String,
    role: String,
    /// 0 for followers.
    term: u64,
    version: String,
    started_at: Moment,
}

impl Row for MemberRow {
    const COLUMNS: &'static [Column<MemberRow>] = &[
        Column { title: "NAME", shown: Shown::Always, cell: |member, _| cell(&member.name) },
        Column { title: "ADDR", shown: Shown::Always, cell: |member, _| cell(&member.addr) },
        Column { title: "ROLE", shown: Shown::Always, cell: |member, _| cell(&member.role) },
        Column {
            title: "TERM",
            shown: Shown::Always,
            cell: |member, _| if member.term == 0 { "-".to_owned() } else { member.term.to_string() },
        },
        Column { title: "STARTED", shown: Shown::Always, cell: |member, now| member.started_at.age(now) },
        Column { title: "VERSION", shown: Shown::Wide, cell: |member, _| cell(&member.version) },
    ];
}

impl From<&Member> for MemberRow {
    fn from(member: &Member) -> MemberRow {
        MemberRow {
            name: member.name.clone(),
            addr: member.addr.clone(),
            role: member.role.clone(),
            term: member.term,
            version: member.version.clone(),
            started_at: Moment(member.started_at_ms),
        }
    }
}

/// The replicas. Needs no leader; that none is known is not well.
pub async fn list(session: &Session) -> Result<Screen, Failure> {
    let survey = Survey::take(session).await?;
    let rows: Vec<MemberRow> = survey.members().iter().map(MemberRow::from).collect();
    let text = listed(&rows, session.format)?;
    if !rows.is_empty() {
        return Ok(text.into());
    }
    let what = "replicas answer, but none of them has seen the queue of candidates";
    let failure =
        Failure::new(Exit::Unhealthy, what).advise("Does etcd answer? `metactl status` shows more.");
    Ok(Screen { text, verdict: Err(failure) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Format;
    use crate::output::{document, table};

    #[test]
    fn the_names_of_its_fields_stay() {
        let member = Member { name: "m1".to_owned(), started_at_ms: 1_700_000_000_000, ..Member::default() };
        let json = document(&MemberRow::from(&member), Format::Jsonl);
        assert_eq!(
            json.as_deref(),
            Ok(concat!(
                r#"{"name":"m1","addr":"","role":"","term":0,"version":"","#,
                r#""started_at":"2023-11-14T22:13:20.000Z"}"#,
                "\n"
            ))
        );
    }

    #[test]
    fn a_table_has_ages_and_no_term_for_followers() {
        let member = Member {
            name: "m1".to_owned(),
            addr: "a:1".to_owned(),
            role: "follower".to_owned(),
            started_at_ms: 1_700_000_000_000,
            ..Member::default()
        };
        let shown = table(&[MemberRow::from(&member)], Format::Table, 1_700_000_003_000);
        let cells: Vec<_> = shown.lines().nth(1).unwrap_or_default().split_whitespace().collect();
        assert_eq!(cells, ["m1", "a:1", "follower", "-", "3s", "ago"], "{shown}");
    }
}
