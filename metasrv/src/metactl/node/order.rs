//! `metactl node cordon`, `uncordon`, `decommission` and `restarting`: what an operator wants of one datanode.
//!
//! Each prints what now holds. An order that stands already is no error: whoever repeats a command finds the same.

use std::time::Duration;

use metasrv_proto::admin::{AnnounceRestartRequest, CordonNodeRequest, DecommissionNodeRequest};
use serde::Serialize;

use crate::cli::{Decommission, Restarting, Which, Why};
use crate::exit::Failure;
use crate::output::{Column, Row, Shown, print_one};
use crate::session::Session;
use crate::text::{Moment, until, yes_or_no};

/// Whether a node may get regions.
#[derive(Serialize)]
struct CordonRow {
    node_id: u64,
    cluster_id: u64,
    cordoned: bool,
}

impl Row for CordonRow {
    const COLUMNS: &'static [Column<CordonRow>] = &[
        Column { title: "NODE", shown: Shown::Always, cell: |node, _| node.node_id.to_string() },
        Column { title: "CLUSTER", shown: Shown::Wide, cell: |node, _| node.cluster_id.to_string() },
        Column { title: "CORDONED", shown: Shown::Always, cell: |node, _| yes_or_no(Some(node.cordoned)) },
    ];
}

/// A node that is forgotten.
#[derive(Serialize)]
struct DecommissionRow {
    node_id: u64,
    cluster_id: u64,
    decommissioned: bool,
}

impl Row for DecommissionRow {
    const COLUMNS: &'static [Column<DecommissionRow>] = &[
        Column { title: "NODE", shown: Shown::Always, cell: |node, _| node.node_id.to_string() },
        Column { title: "CLUSTER", shown: Shown::Wide, cell: |node, _| node.cluster_id.to_string() },
        Column {
            title: "DECOMMISSIONED",
            shown: Shown::Always,
            cell: |node, _| yes_or_no(Some(node.decommissioned)),
        },
    ];
}

/// Until when a node's regions wait for its restart.
#[derive(Serialize)]
struct RestartRow {
    node_id: u64,
    cluster_id: u64,
    /// Null: they do not.
    restarting_until: Moment,
}

impl Row for RestartRow {
    const COLUMNS: &'static [Column<RestartRow>] = &[
        Column { title: "NODE", shown: Shown::Always, cell: |node, _| node.node_id.to_string() },
        Column { title: "CLUSTER", shown: Shown::Wide, cell: |node, _| node.cluster_id.to_string() },
        Column {
            title: "REGIONS WAIT",
            shown: Shown::Always,
            cell: |node, now| until(node.restarting_until, now),
        },
    ];
}

/// Cordons a node, or takes that back.
pub async fn cordon(session: &Session, which: Which, cordoned: bool, why: Why) -> Result<(), Failure> {
    let Which { node: node_id, cluster: cluster_id } = which;
    let request = CordonNodeRequest { node_id, cluster_id, cordoned, reason: why.reason };
    let operations = session.operations();
    session.change(operations.cordon_node(request), &look_at(which)).await?;
    print_one(&CordonRow { node_id, cluster_id, cordoned }, session.format)
}

/// Forgets a node for good.
pub async fn decommission(session: &Session, decommission: Decommission) -> Result<(), Failure> {
    let Which { node: node_id, cluster: cluster_id } = decommission.which;
    let request = DecommissionNodeRequest { node_id, cluster_id, reason: decommission.why.reason };
    let operations = session.operations();
    let advice = "`metactl node list` tells whether it is gone.";
    session.change(operations.decommission_node(request), advice).await?;
    print_one(&DecommissionRow { node_id, cluster_id, decommissioned: true }, session.format)
}

/// Announces a restart, or takes that back.
pub async fn restarting(session: &Session, restarting: Restarting) -> Result<(), Failure> {
    let Which { node: node_id, cluster: cluster_id } = restarting.which;
    let request = AnnounceRestartRequest {
        node_id,
        cluster_id,
        for_ms: restarting.time.map_or(0, millis),
        reason: restarting.why.reason,
    };
    let operations = session.operations();
    let announced = session.change(operations.announce_restart(request), &look_at(restarting.which)).await?;
    let restarting_until = Moment(announced.until_ms);
    print_one(&RestartRow { node_id, cluster_id, restarting_until }, session.format)
}

/// A duration as the protocol has it.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn look_at(which: Which) -> String {
    let cluster = if which.cluster == 0 { String::new() } else { format!(" --cluster {}", which.cluster) };
    format!("`metactl node show {}{cluster}` tells whether it was done.", which.node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Format;
    use crate::output::{document, table};

    #[test]
    fn the_names_of_their_fields_stay() {
        let json = document(&CordonRow { node_id: 3, cluster_id: 0, cordoned: true }, Format::Jsonl);
        assert_eq!(json.as_deref(), Ok("{\"node_id\":3,\"cluster_id\":0,\"cordoned\":true}\n"));
        let json =
            document(&DecommissionRow { node_id: 3, cluster_id: 0, decommissioned: true }, Format::Jsonl);
        assert_eq!(json.as_deref(), Ok("{\"node_id\":3,\"cluster_id\":0,\"decommissioned\":true}\n"));
        let announced = RestartRow { node_id: 3, cluster_id: 0, restarting_until: Moment(1_700_000_000_000) };
        let json = document(&announced, Format::Jsonl);
        let expected = "{\"node_id\":3,\"cluster_id\":0,\"restarting_until\":\"2023-11-14T22:13:20.000Z\"}\n";
        assert_eq!(json.as_deref(), Ok(expected));
        let shown = table(&[announced], Format::Table, 1_699_999_940_000);
        assert_eq!(shown, "NODE  REGIONS WAIT\n3     for 1m\n");
    }

    #[test]
    fn whoever_interrupts_a_change_is_told_where_to_look() {
        assert!(look_at(Which { node: 3, cluster: 0 }).starts_with("`metactl node show 3`"));
        assert!(look_at(Which { node: 3, cluster: 2 }).starts_with("`metactl node show 3 --cluster 2`"));
    }
}
