//! `metactl node`: every node that the leader knows, with its lease and its regions, or what a follower has seen; and what
//! an operator wants of one.
//!
//! | file | what |
//! | --- | --- |
//! | here | `node list`, `node show` |
//! | `order.rs` | `node cordon`, `uncordon`, `decommission`, `restarting` |
//! | `drain.rs` | `node drain`, `plan drain` |

pub mod drain;
pub mod order;

use metasrv_client::NodeList;
use metasrv_proto::admin::{FollowerView, Node};
use serde::Serialize;

use crate::cli::Which;
use crate::exit::{Exit, Failure};
use crate::follower;
use crate::output::{Column, Row, Shown, facts, listed, page, shown};
use crate::session::Session;
use crate::text::{Hex, Moment, cell, count, span, unless_zero, yes_or_no};

/// A node. The order of the fields is the order in JSON.
#[derive(Serialize)]
struct NodeRow {
    node_id: u64,
    cluster_id: u64,
    role: String,
    addr: String,
    /// Creation of its process, in milliseconds since 1970: an identity more than a time.
    node_epoch: u64,
    incarnation_nonce: Hex,
    /// Null: a follower does not know.
    connected: Option<bool>,
    last_activity: Moment,
    regions: u64,
    /// Null: a follower does not know.
    regions_writable: Option<u64>,
    /// Heartbeats in its persisted stats. Null: a follower does not read them.
    persisted_stats: Option<u64>,
    /// Term under which its lease was last persisted. 0: not yet.
    persisted_term: u64,
    version: String,
    hostname: String,
    zone: String,
    host: String,
    /// As placement counts it: 100 is usual. Null: not known.
    weight: Option<u32>,
    /// alive, suspect or lost. Null: a follower does not know.
    health: Option<String>,
    /// open, cordoned or draining. Null: not known.
    duty: Option<String>,
    /// Its regions wait so long for its restart. Null: none is announced.
    restarting_ms: Option<u64>,
    /// Where the follower stands that says so. Null: the leader does.
    revision: Option<u64>,
    as_of_ms_ago: Option<u64>,
}

impl Row for NodeRow {
    const COLUMNS: &'static [Column<NodeRow>] = &[
        Column { title: "NODE", shown: Shown::Always, cell: |node, _| node.node_id.to_string() },
        Column { title: "CLUSTER", shown: Shown::Wide, cell: |node, _| node.cluster_id.to_string() },
        Column { title: "ROLE", shown: Shown::Always, cell: |node, _| cell(&node.role) },
        Column { title: "ADDR", shown: Shown::Always, cell: |node, _| cell(&node.addr) },
        Column { title: "HEALTH", shown: Shown::Always, cell: |node, _| or_dash(&node.health) },
        Column { title: "DUTY", shown: Shown::Always, cell: |node, _| or_dash(&node.duty) },
        Column { title: "CONNECTED", shown: Shown::Always, cell: |node, _| yes_or_no(node.connected) },
        Column {
            title: "LAST ACTIVITY",
            shown: Shown::Always,
            cell: |node, now| node.last_activity.age(now),
        },
        Column { title: "REGIONS", shown: Shown::Always, cell: |node, _| node.regions.to_string() },
        Column { title: "WRITABLE", shown: Shown::Always, cell: |node, _| count(node.regions_writable) },
        Column { title: "RESTARTING", shown: Shown::Wide, cell: |node, _| restarting(node.restarting_ms) },
        Column { title: "ZONE", shown: Shown::Wide, cell: |node, _| cell(&node.zone) },
        Column { title: "HOST", shown: Shown::Wide, cell: |node, _| cell(&node.host) },
        Column { title: "WEIGHT", shown: Shown::Wide, cell: |node, _| count(node.weight.map(u64::from)) },
        Column {
            title: "PERSISTED TERM",
            shown: Shown::Wide,
            cell: |node, _| node.persisted_term.to_string(),
        },
        Column { title: "PERSISTED STATS", shown: Shown::Wide, cell: |node, _| count(node.persisted_stats) },
        Column { title: "EPOCH", shown: Shown::Wide, cell: |node, _| node.node_epoch.to_string() },
        Column { title: "NONCE", shown: Shown::Wide, cell: |node, _| node.incarnation_nonce.to_string() },
        Column { title: "HOSTNAME", shown: Shown::Wide, cell: |node, _| cell(&node.hostname) },
        Column { title: "VERSION", shown: Shown::Wide, cell: |node, _| cell(&node.version) },
    ];
}

impl NodeRow {
    fn of(node: Node, follower: Option<FollowerView>) -> NodeRow {
        let leads = follower.is_none();
        NodeRow {
            node_id: node.node_id,
            cluster_id: node.cluster_id,
            role: node.role,
            addr: node.addr,
            node_epoch: node.node_epoch,
            incarnation_nonce: Hex(node.incarnation_nonce),
            connected: leads.then_some(node.connected),
            last_activity: Moment(node.last_activity_ms),
            regions: node.regions,
            regions_writable: leads.then_some(node.regions_writable),
            persisted_stats: leads.then_some(node.persisted_stats),
            persisted_term: node.persisted_term,
            version: node.version,
            hostname: node.hostname,
            zone: node.zone,
            host: node.host,
            weight: Some(node.weight).filter(|weight| *weight != 0),
            health: present(node.health).filter(|_| leads),
            duty: present(node.duty),
            restarting_ms: unless_zero(node.restarting_ms),
            revision: follower.map(|view| view.revision),
            as_of_ms_ago: follower.map(|view| view.as_of_ms_ago),
        }
    }
}

/// The nodes.
pub async fn list(session: &Session) -> Result<String, Failure> {
    let list = follower::nodes(session).await?;
    let rows: Vec<NodeRow> = list.nodes.into_iter().map(|node| NodeRow::of(node, list.follower)).collect();
    listed(&rows, session.format)
}

/// One datanode.
pub async fn show(session: &Session, which: Which) -> Result<String, Failure> {
    let node = find(follower::nodes(session).await?, which).ok_or_else(|| unknown(which))?;
    shown(&node, |node, now| facts(&page(node, now)), session.format)
}

fn find(list: NodeList, which: Which) -> Option<NodeRow> {
    let is_it = |node: &Node| {
        node.role == "datanode" && (node.node_id, node.cluster_id) == (which.node, which.cluster)
    };
    list.nodes.into_iter().find(is_it).map(|node| NodeRow::of(node, list.follower))
}

/// That there is no such datanode.
fn unknown(which: Which) -> Failure {
    let cluster = if which.cluster == 0 { String::new() } else { format!(" of cluster {}", which.cluster) };
    Failure::new(Exit::NotFound, format!("metasrv knows no datanode {}{cluster}", which.node))
        .advise("`metactl node list` shows those that it knows.")
}

fn present(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn or_dash(text: &Option<String>) -> String {
    cell(text.as_deref().unwrap_or_default())
}

fn restarting(left_ms: Option<u64>) -> String {
    left_ms.map_or_else(|| "-".to_owned(), |left| format!("{} more", span(left)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Format;
    use crate::output::{document, table};

    #[test]
    fn the_names_of_its_fields_stay() {
        let node = Node { node_id: 3, incarnation_nonce: 0xff, ..Node::default() };
        let json = document(&NodeRow::of(node, None), Format::Jsonl);
        assert_eq!(
            json.as_deref(),
            Ok(concat!(
                r#"{"node_id":3,"cluster_id":0,"role":"","addr":"","node_epoch":0,"#,
                r#""incarnation_nonce":"00000000000000ff","connected":false,"last_activity":null,"#,
                r#""regions":0,"regions_writable":0,"persisted_stats":0,"persisted_term":0,"#,
                r#""version":"","hostname":"","zone":"","host":"","weight":null,"health":null,"duty":null,"#,
                r#""restarting_ms":null,"revision":null,"as_of_ms_ago":null}"#,
                "\n"
            ))
        );
        let view = FollowerView { revision: 7, as_of_ms_ago: 9 };
        let json = document(&NodeRow::of(Node::default(), Some(view)), Format::Jsonl).unwrap();
        for part in [r#""connected":null"#, r#""regions_writable":null"#, r#""revision":7,"as_of_ms_ago":9"#]
        {
            assert!(json.contains(part), "{part} is not in {json}");
        }
    }

    #[test]
    fn a_datanode_is_found_by_its_id_and_its_namespace() {
        let node = |role: &str, cluster_id, addr: &str| Node {
            node_id: 3,
            cluster_id,
            role: role.to_owned(),
            addr: addr.to_owned(),
            health: "suspect".to_owned(),
            restarting_ms: 59_000,
            ..Node::default()
        };
        let nodes =
            || vec![node("frontend", 0, "f:1"), node("datanode", 1, "b:1"), node("datanode", 0, "a:1")];
        let list = |follower| NodeList { nodes: nodes(), term: 1, follower };
        let found = |cluster, follower| find(list(follower), Which { node: 3, cluster });
        assert_eq!(found(0, None).map(|node| node.addr), Some("a:1".to_owned()));
        assert_eq!(found(1, None).map(|node| node.addr), Some("b:1".to_owned()));
        assert!(found(2, None).is_none());
        let view = FollowerView { revision: 7, as_of_ms_ago: 9 };
        assert_eq!(found(0, Some(view)).and_then(|node| node.health), None, "a follower does not know");
        let shown = found(0, None).map(|node| facts(&page(&node, 0))).unwrap_or_default();
        for line in ["NODE             3\n", "HEALTH           suspect\n", "59s more\n"] {
            assert!(shown.contains(line), "{line} is missing:\n{shown}");
        }
    }

    #[test]
    fn a_node_cannot_write_into_another_row() {
        let node = Node {
            node_id: 3,
            addr: "a:1\n4".to_owned(),
            hostname: "\u{1b}[2J".to_owned(),
            ..Node::default()
        };
        let shown = table(&[NodeRow::of(node, None)], Format::Wide, 0);
        assert_eq!(shown.lines().count(), 2, "{shown}");
        assert!(!shown.contains('\u{1b}'), "{shown}");
    }
}
