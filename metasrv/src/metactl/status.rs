//! `metactl status`: one screen that says whether all is well, also when there is no leader to ask.

use metasrv_client::ClientError;
use metasrv_proto::admin::GetStatusResponse;
use serde::Serialize;

use crate::cli::Format;
use crate::exit::{Exit, Failure};
use crate::failover::sentence;
use crate::leader::LeaderRow;
use crate::output::{Column, Row, Shown, facts, shown, table};
use crate::session::Session;
use crate::survey::{Replica, Survey};
use crate::text::{Hex, ago, cell, count};
use crate::watch::Screen;

/// The whole of it, as it is in JSON.
#[derive(Serialize)]
pub struct Overview {
    /// A leader answers, and every region is writable.
    healthy: bool,
    /// What keeps it from being healthy, in words.
    problems: Vec<String>,
    /// Absent if nobody leads and nobody names a leader.
    leader: Option<LeaderRow>,
    /// What the leader knows; nodes and regions from a follower where nobody leads.
    #[serde(flatten)]
    counts: Counts,
    /// Where the follower stands from which the counts are. Null: they are the leader's, or there are none.
    revision: Option<u64>,
    as_of_ms_ago: Option<u64>,
    /// Whether failovers of cluster 0 proceed. Null: no leader says so.
    failovers: Option<String>,
    /// Why not, in words. Empty: they proceed.
    failovers_why: String,
    replicas: Vec<ReplicaRow>,
}

/// What the leader knows; without one, null or what a follower has seen.
#[derive(Serialize, Default)]
struct Counts {
    installation: Option<Hex>,
    nodes: Option<u64>,
    nodes_connected: Option<u64>,
    regions: Option<u64>,
    regions_writable: Option<u64>,
    heartbeats: Option<u64>,
    /// What nodes are told, and what is configured: less, where the fleet is larger than that is meant for.
    heartbeat_interval_ms: Option<u64>,
    configured_interval_ms: Option<u64>,
}

/// One replica, in its own words.
#[derive(Serialize)]
struct ReplicaRow {
    addr: String,
    answers: bool,
    name: Option<String>,
    role: Option<String>,
    /// The term of the leader that it sees. Null if it sees none.
    term: Option<u64>,
    leader_name: Option<String>,
    leader_addr: Option<String>,
    /// How old that view is. Null for the leader, which needs none.
    seen_ms_ago: Option<u64>,
    /// Where it stands in the store, and when that was last known to be current. Null for the leader.
    revision: Option<u64>,
    as_of_ms_ago: Option<u64>,
    /// Why it does not answer.
    error: Option<String>,
}

impl Row for ReplicaRow {
    const COLUMNS: &'static [Column<ReplicaRow>] = &[
        Column { title: "REPLICA", shown: Shown::Always, cell: |replica, _| or_dash(&replica.name) },
        Column { title: "ADDR", shown: Shown::Always, cell: |replica, _| cell(&replica.addr) },
        Column {
            title: "ROLE",
            shown: Shown::Always,
            cell: |replica, _| replica.role.as_deref().map_or_else(|| "no answer".to_owned(), cell),
        },
        Column {
            title: "SEES LEADER",
            shown: Shown::Always,
            cell: |replica, _| or_dash(&replica.leader_name),
        },
        Column {
            title: "OF TERM",
            shown: Shown::Always,
            cell: |replica, _| replica.term.map_or_else(|| "-".to_owned(), |term| term.to_string()),
        },
        Column {
            title: "SEEN",
            shown: Shown::Always,
            cell: |replica, _| replica.seen_ms_ago.map_or_else(|| "-".to_owned(), ago),
        },
        Column { title: "REVISION", shown: Shown::Wide, cell: |replica, _| count(replica.revision) },
        Column {
            title: "AS OF",
            shown: Shown::Wide,
            cell: |replica, _| replica.as_of_ms_ago.map_or_else(|| "-".to_owned(), ago),
        },
        Column { title: "LEADER ADDR", shown: Shown::Wide, cell: |replica, _| or_dash(&replica.leader_addr) },
    ];
}

impl From<&Replica> for ReplicaRow {
    fn from(replica: &Replica) -> ReplicaRow {
        let addr = replica.addr.clone();
        let present = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        match &replica.status {
            Ok(status) => ReplicaRow {
                addr,
                answers: true,
                name: present(&status.name),
                role: present(&status.role),
                term: Some(status.term).filter(|term| *term != 0),
                leader_name: present(&status.leader_name),
                leader_addr: present(&status.leader_addr),
                seen_ms_ago: status.seen_ms_ago,
                revision: status.follower.map(|view| view.revision),
                as_of_ms_ago: status.follower.map(|view| view.as_of_ms_ago),
                error: None,
            },
            Err(error) => ReplicaRow {
                addr,
                answers: false,
                name: None,
                role: None,
                term: None,
                leader_name: None,
                leader_addr: None,
                seen_ms_ago: None,
                revision: None,
                as_of_ms_ago: None,
                error: Some(error.to_string()),
            },
        }
    }
}

impl From<&GetStatusResponse> for Counts {
    fn from(leader: &GetStatusResponse) -> Counts {
        Counts {
            installation: Some(Hex(leader.installation)),
            nodes: Some(leader.nodes),
            nodes_connected: Some(leader.nodes_connected),
            regions: Some(leader.regions),
            regions_writable: Some(leader.regions_writable),
            heartbeats: Some(leader.heartbeats),
            heartbeat_interval_ms: Some(leader.heartbeat_interval_ms).filter(|ms| *ms != 0),
            configured_interval_ms: Some(leader.configured_interval_ms).filter(|ms| *ms != 0),
        }
    }
}

/// What is shown, with whether the system is healthy.
pub async fn look(session: &Session) -> Result<Screen, Failure> {
    let overview = Overview::take(session).await?;
    Ok(Screen { text: overview.text(session.format)?, verdict: overview.verdict() })
}

impl Overview {
    /// Asks all replicas, and the leader whether failovers proceed.
    pub async fn take(session: &Session) -> Result<Overview, ClientError> {
        let survey = Survey::take(session).await?;
        let mut overview = Overview::of(&survey);
        // What is already known is not held up by this: an older leader does not even know the question.
        if survey.leader().is_some()
            && let Ok(failovers) = session.brief_operations().failover(0).await
        {
            overview.failovers = Some(failovers.verdict);
            overview.failovers_why = failovers.why;
        }
        Ok(overview)
    }

    /// What the replicas say, put together.
    fn of(survey: &Survey) -> Overview {
        let leading = survey.leader();
        let leader = LeaderRow::of(survey);
        let problems: Vec<String> = match (leading, &leader) {
            (Some(status), _) => Vec::from_iter(unwritable(status)),
            (None, Some(named)) => vec![format!(
                "no replica leads: {} at {} is named for term {}, and does not say so itself",
                named.name, named.addr, named.term
            )],
            (None, None) => vec!["no replica leads, and none names a leader".to_owned()],
        };
        let furthest = match leading {
            Some(_) => None,
            None => survey.furthest_follower(),
        };
        let counts = leading.map(Counts::from).or(furthest.map(|(status, _)| Counts {
            nodes: Some(status.nodes),
            regions: Some(status.regions),
            ..Counts::default()
        }));
        Overview {
            healthy: problems.is_empty(),
            problems,
            leader,
            counts: counts.unwrap_or_default(),
            revision: furthest.map(|(_, view)| view.revision),
            as_of_ms_ago: furthest.map(|(_, view)| view.as_of_ms_ago),
            failovers: None,
            failovers_why: String::new(),
            replicas: survey.replicas.iter().map(ReplicaRow::from).collect(),
        }
    }

    /// What keeps it from being healthy, in words.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// As it is printed.
    pub fn text(&self, format: Format) -> Result<String, Failure> {
        shown(self, |overview, _| overview.screen(format), format)
    }

    /// For people.
    fn screen(&self, format: Format) -> String {
        let mut lines = vec![("LEADER", self.leader_line())];
        let counts = &self.counts;
        let pair = |whole: Option<u64>, part: Option<u64>| Some((whole?, part?));
        if let Some((nodes, connected)) = pair(counts.nodes, counts.nodes_connected) {
            lines.push(("NODES", format!("{nodes} known, {connected} connected")));
        }
        if let Some((regions, writable)) = pair(counts.regions, counts.regions_writable) {
            lines.push(("REGIONS", format!("{regions}, {writable} writable")));
        }
        if let (Some(age), Some(revision)) = (self.as_of_ms_ago, self.revision) {
            lines.push(("NODES", format!("{} known", count(counts.nodes))));
            lines.push(("REGIONS", format!("{}, who may write to them is not known", count(counts.regions))));
            lines.push(("AS OF", format!("{}, at revision {revision}: a follower says so", ago(age))));
        }
        if let Some(verdict) = &self.failovers {
            lines.push(("FAILOVERS", sentence(verdict, &self.failovers_why)));
        }
        if let Some(heartbeats) = counts.heartbeats {
            let interval = pair(counts.heartbeat_interval_ms, counts.configured_interval_ms);
            let interval = interval.map_or_else(String::new, |(told, configured)| match told > configured {
                true => {
                    format!(", every {told} ms: slowed down from {configured} ms, because the nodes are many")
                }
                false => format!(", every {told} ms"),
            });
            lines.push(("HEARTBEATS", format!("{heartbeats} answered in this term{interval}")));
        }
        if let Some(installation) = counts.installation {
            lines.push(("INSTALLATION", installation.to_string()));
        }
        let mut screen = facts(&lines) + "\n" + &table(&self.replicas, format, 0);
        let silent = self.replicas.iter().filter_map(|replica| replica.error.as_deref());
        for (index, error) in silent.enumerate() {
            screen.push_str(if index == 0 { "\nNO ANSWER\n" } else { "" });
            screen.push_str(&format!("{}\n", cell(error)));
        }
        screen
    }

    fn leader_line(&self) -> String {
        match &self.leader {
            Some(LeaderRow { name, addr, term, confirmed }) => {
                let (name, addr) = (cell(name), cell(addr));
                match confirmed {
                    true => format!("{name} at {addr}, term {term}"),
                    false => format!("none; others name {name} at {addr}, term {term}"),
                }
            }
            None => "none".to_owned(),
        }
    }

    fn verdict(&self) -> Result<(), Failure> {
        if self.healthy {
            return Ok(());
        }
        let failure = Failure::new(Exit::Unhealthy, format!("unhealthy: {}", self.problems.join("; ")));
        Err(failure.advise(match self.counts.regions_writable {
            Some(_) => "`metactl region list` and `metactl node list` show which, and where.",
            None => "Are most of the replicas, and etcd, running? An election takes seconds.",
        }))
    }
}

fn unwritable(leader: &GetStatusResponse) -> Option<String> {
    let missing = leader.regions.checked_sub(leader.regions_writable).filter(|missing| *missing > 0)?;
    Some(format!("{missing} of {} regions are not writable", leader.regions))
}

fn or_dash(text: &Option<String>) -> String {
    cell(text.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::tests::{answer, silence};
    use metasrv_proto::admin::FollowerView;

    fn overview(replicas: Vec<Replica>) -> Overview {
        Overview::of(&Survey { replicas })
    }

    fn leading(regions: u64, regions_writable: u64) -> Replica {
        let mut leader = answer("b", "leader", 4, "b");
        if let Ok(status) = &mut leader.status {
            *status = GetStatusResponse {
                nodes: 3,
                nodes_connected: 2,
                regions,
                regions_writable,
                installation: 0xabc,
                ..status.clone()
            };
        }
        leader
    }

    #[test]
    fn a_leader_with_all_regions_writable_is_healthy() {
        let overview = overview(vec![answer("a", "follower", 4, "b"), leading(12, 12), silence("c")]);
        assert_eq!(overview.verdict(), Ok(()));
        let screen = overview.screen(Format::Table);
        for line in ["b at b:3002, term 4", "3 known, 2 connected", "12, 12 writable", "0000000000000abc"] {
            assert!(screen.contains(line), "{line} is missing:\n{screen}");
        }
        assert!(
            screen.contains("c:3002: connection refused"),
            "who does not answer is shown, and why:\n{screen}"
        );
    }

    #[test]
    fn failovers_that_are_held_are_shown_and_are_no_illness() {
        let mut overview = overview(vec![leading(12, 12)]);
        assert!(!overview.screen(Format::Table).contains("FAILOVERS"), "nobody has said so");
        overview.failovers = Some("hold".to_owned());
        overview.failovers_why = "maintenance".to_owned();
        assert!(overview.screen(Format::Table).contains("FAILOVERS     none: maintenance\n"));
        assert_eq!(overview.verdict(), Ok(()));
    }

    #[test]
    fn regions_that_nobody_may_write_to_are_unhealthy() {
        let overview = overview(vec![leading(12, 11)]);
        assert!(!overview.healthy);
        assert_eq!(overview.problems, ["1 of 12 regions are not writable"]);
        assert_eq!(overview.verdict().err().map(|failure| failure.exit), Some(Exit::Unhealthy));
    }

    #[test]
    fn without_a_leader_it_shows_what_followers_know() {
        let overview = overview(vec![answer("a", "follower", 4, "b"), silence("b")]);
        assert_eq!(overview.verdict().err().map(|failure| failure.exit), Some(Exit::Unhealthy));
        let screen = overview.screen(Format::Table);
        assert!(screen.starts_with("LEADER  none; others name b at b:3002, term 4\n"), "{screen}");
        assert!(!screen.contains("REGIONS"), "only a leader knows:\n{screen}");
        let json: serde_json::Value = serde_json::to_value(&overview).unwrap();
        assert_eq!(json["healthy"], false);
        assert_eq!(json["leader"]["confirmed"], false);
        assert!(json["regions"].is_null() && json["installation"].is_null());
        assert!(json["revision"].is_null() && json["as_of_ms_ago"].is_null());
        assert_eq!(json["replicas"][1]["answers"], false);
    }

    #[test]
    fn without_a_leader_the_counts_are_those_of_the_follower_that_has_seen_most() {
        let seen = |name, revision, regions| {
            let mut follower = answer(name, "follower", 4, "c");
            if let Ok(status) = &mut follower.status {
                let view = FollowerView { revision, as_of_ms_ago: 5_000 };
                *status = GetStatusResponse { nodes: 3, regions, follower: Some(view), ..status.clone() };
            }
            follower
        };
        let overview = overview(vec![seen("a", 8, 11), seen("b", 9, 12), silence("c")]);
        assert!(!overview.healthy);
        let screen = overview.screen(Format::Table);
        for line in ["NODES    3 known\n", "REGIONS  12, who", "AS OF    5s ago, at revision 9"] {
            assert!(screen.contains(line), "{line} is missing:\n{screen}");
        }
        let json: serde_json::Value = serde_json::to_value(&overview).unwrap();
        assert_eq!((&json["regions"], &json["revision"]), (&12.into(), &9.into()));
        assert_eq!(json["as_of_ms_ago"], 5_000);
        assert!(json["regions_writable"].is_null() && json["nodes_connected"].is_null(), "{json}");
    }
}
