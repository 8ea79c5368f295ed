//! `metactl node list`: every node that the leader knows, with its lease and its regions; or what a follower has seen.

use metasrv_proto::admin::{FollowerView, Node};
use serde::Serialize;

use crate::exit::Failure;
use crate::follower;
use crate::output::{Column, Row, Shown, print_list};
use crate::session::Session;
use crate::text::{Hex, Moment, cell, count, yes_or_no};

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
        Column { title: "CONNECTED", shown: Shown::Always, cell: |node, _| yes_or_no(node.connected) },
        Column {
            title: "LAST ACTIVITY",
            shown: Shown::Always,
            cell: |node, now| node.last_activity.age(now),
        },
        Column { title: "REGIONS", shown: Shown::Always, cell: |node, _| node.regions.to_string() },
        Column { title: "WRITABLE", shown: Shown::Always, cell: |node, _| count(node.regions_writable) },
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
            revision: follower.map(|view| view.revision),
            as_of_ms_ago: follower.map(|view| view.as_of_ms_ago),
        }
    }
}

/// Lists the nodes.
pub async fn list(session: &Session) -> Result<(), Failure> {
    let list = follower::nodes(session).await?;
    let rows: Vec<NodeRow> = list.nodes.into_iter().map(|node| NodeRow::of(node, list.follower)).collect();
    print_list(&rows, session.format)
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
                r#""version":"","hostname":"","revision":null,"as_of_ms_ago":null}"#,
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
