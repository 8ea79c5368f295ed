//! `metactl node list`: every node that the leader knows, with its lease and its regions.

use metasrv_proto::admin::Node;
use serde::Serialize;

use crate::exit::Failure;
use crate::output::{Column, Row, Shown, print_list};
use crate::session::Session;
use crate::text::{Hex, Moment, cell};

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
    connected: bool,
    last_activity: Moment,
    regions: u64,
    regions_writable: u64,
    /// Heartbeats in its persisted stats.
    persisted_stats: u64,
    /// Term under which its lease was last persisted. 0: not yet.
    persisted_term: u64,
    version: String,
    hostname: String,
}

impl Row for NodeRow {
    const COLUMNS: &'static [Column<NodeRow>] = &[
        Column { title: "NODE", shown: Shown::Always, cell: |node, _| node.node_id.to_string() },
        Column { title: "CLUSTER", shown: Shown::Wide, cell: |node, _| node.cluster_id.to_string() },
        Column { title: "ROLE", shown: Shown::Always, cell: |node, _| cell(&node.role) },
        Column { title: "ADDR", shown: Shown::Always, cell: |node, _| cell(&node.addr) },
        Column {
            title: "CONNECTED",
            shown: Shown::Always,
            cell: |node, _| if node.connected { "yes" } else { "no" }.to_owned(),
        },
        Column {
            title: "LAST ACTIVITY",
            shown: Shown::Always,
            cell: |node, now| node.last_activity.age(now),
        },
        Column { title: "REGIONS", shown: Shown::Always, cell: |node, _| node.regions.to_string() },
        Column { title: "WRITABLE", shown: Shown::Always, cell: |node, _| node.regions_writable.to_string() },
        Column {
            title: "PERSISTED TERM",
            shown: Shown::Wide,
            cell: |node, _| node.persisted_term.to_string(),
        },
        Column {
            title: "PERSISTED STATS",
            shown: Shown::Wide,
            cell: |node, _| node.persisted_stats.to_string(),
        },
        Column { title: "EPOCH", shown: Shown::Wide, cell: |node, _| node.node_epoch.to_string() },
        Column { title: "NONCE", shown: Shown::Wide, cell: |node, _| node.incarnation_nonce.to_string() },
        Column { title: "HOSTNAME", shown: Shown::Wide, cell: |node, _| cell(&node.hostname) },
        Column { title: "VERSION", shown: Shown::Wide, cell: |node, _| cell(&node.version) },
    ];
}

impl From<Node> for NodeRow {
    fn from(node: Node) -> NodeRow {
        NodeRow {
            node_id: node.node_id,
            cluster_id: node.cluster_id,
            role: node.role,
            addr: node.addr,
            node_epoch: node.node_epoch,
            incarnation_nonce: Hex(node.incarnation_nonce),
            connected: node.connected,
            last_activity: Moment(node.last_activity_ms),
            regions: node.regions,
            regions_writable: node.regions_writable,
            persisted_stats: node.persisted_stats,
            persisted_term: node.persisted_term,
            version: node.version,
            hostname: node.hostname,
        }
    }
}

/// Lists the nodes.
pub async fn list(session: &Session) -> Result<(), Failure> {
    let nodes = session.admin().list_nodes().await?.nodes;
    let rows: Vec<NodeRow> = nodes.into_iter().map(NodeRow::from).collect();
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
        let json = document(&NodeRow::from(node), Format::Jsonl);
        assert_eq!(
            json.as_deref(),
            Ok(concat!(
                r#"{"node_id":3,"cluster_id":0,"role":"","addr":"","node_epoch":0,"#,
                r#""incarnation_nonce":"00000000000000ff","connected":false,"last_activity":null,"#,
                r#""regions":0,"regions_writable":0,"persisted_stats":0,"persisted_term":0,"#,
                r#""version":"","hostname":""}"#,
                "\n"
            ))
        );
    }

    #[test]
    fn a_node_cannot_write_into_another_row() {
        let node = Node {
            node_id: 3,
            addr: "a:1\n4".to_owned(),
            hostname: "\u{1b}[2J".to_owned(),
            ..Node::default()
        };
        let shown = table(&[NodeRow::from(node)], Format::Wide, 0);
        assert_eq!(shown.lines().count(), 2, "{shown}");
        assert!(!shown.contains('\u{1b}'), "{shown}");
    }
}
