//! `metactl region`: which regions there are, where, and who may write to them.
//!
//! | file | what |
//! | --- | --- |
//! | here | `region create`, `region list` |
//! | `show.rs` | `region show` |
//! | `change.rs` | `region migrate`, `region drop` |

pub mod change;
pub mod show;

use std::collections::BTreeMap;

use metasrv_client::ClientError;
use metasrv_proto::admin::{CreateRegionsRequest, FollowerView, Region};
use serde::Serialize;

use crate::cli::Create;
use crate::exit::{Exit, Failure};
use crate::follower;
use crate::output::{Column, Row, Shown, listed, print_list};
use crate::session::{Look, Session, Waited};
use crate::text::{Moment, cell, yes_or_no};

/// A region. The order of the fields is the order in JSON.
#[derive(Serialize)]
struct RegionRow {
    region_id: u64,
    cluster_id: u64,
    node_id: u64,
    node_addr: String,
    epoch: u64,
    /// Null: a follower does not know.
    writable: Option<bool>,
    state: String,
    created_at: Moment,
    reason: String,
    /// Label of the group that it belongs to. Empty: none.
    group: String,
    /// Where the follower stands that says so. Null: the leader does.
    revision: Option<u64>,
    as_of_ms_ago: Option<u64>,
}

impl Row for RegionRow {
    const COLUMNS: &'static [Column<RegionRow>] = &[
        Column { title: "REGION", shown: Shown::Always, cell: |region, _| region.region_id.to_string() },
        Column { title: "CLUSTER", shown: Shown::Wide, cell: |region, _| region.cluster_id.to_string() },
        Column { title: "NODE", shown: Shown::Always, cell: |region, _| region.node_id.to_string() },
        Column { title: "NODE ADDR", shown: Shown::Wide, cell: |region, _| cell(&region.node_addr) },
        Column { title: "EPOCH", shown: Shown::Always, cell: |region, _| region.epoch.to_string() },
        Column { title: "WRITABLE", shown: Shown::Always, cell: |region, _| yes_or_no(region.writable) },
        Column { title: "STATE", shown: Shown::Always, cell: |region, _| cell(&region.state) },
        Column { title: "GROUP", shown: Shown::Always, cell: |region, _| cell(&region.group) },
        Column { title: "CREATED", shown: Shown::Always, cell: |region, now| region.created_at.age(now) },
        Column { title: "REASON", shown: Shown::Wide, cell: |region, _| cell(&region.reason) },
    ];
}

impl RegionRow {
    fn of(region: Region, follower: Option<FollowerView>) -> RegionRow {
        RegionRow {
            region_id: region.region_id,
            cluster_id: region.cluster_id,
            node_id: region.node_id,
            node_addr: region.node_addr,
            epoch: region.epoch,
            writable: follower.is_none().then_some(region.writable),
            state: region.state,
            created_at: Moment(region.created_at_ms),
            reason: region.reason,
            group: region.group,
            revision: follower.map(|view| view.revision),
            as_of_ms_ago: follower.map(|view| view.as_of_ms_ago),
        }
    }
}

/// Creates regions and lists them, on request only once they are writable.
pub async fn create(session: &Session, create: Create) -> Result<(), Failure> {
    let request = CreateRegionsRequest {
        count: create.count,
        node_id: create.on,
        cluster_id: 0,
        reason: create.why.reason,
        group: create.group,
    };
    let admin = session.admin();
    let look = "`metactl region list` shows what was created; look before you repeat it.";
    let regions = session.change(admin.create_regions(request), look).await?;
    let mut created = Created::of(regions);
    if !create.wait {
        return created.print(session);
    }
    let waited = session.wait(async || created.look(session).await).await;
    // The regions exist, however the waiting ended: whoever asked for them needs their ids.
    created.print(session)?;
    let unfinished = |exit: Exit, what: String| {
        let node = create.on.map(|node| format!(" --node {node}")).unwrap_or_default();
        let follow =
            format!("They exist and go on opening: `metactl region list{node}` shows how far they are.");
        Err(Failure::new(exit, what).advise(follow))
    };
    match waited? {
        Waited::Done(()) => Ok(()),
        Waited::TimedOut(so_far) => unfinished(
            Exit::TimedOut,
            format!("not all regions are writable within {}: {so_far}", session.limit()),
        ),
        Waited::Interrupted(so_far) => unfinished(Exit::Failed, format!("interrupted: {so_far}")),
    }
}

/// All regions, or those of one datanode.
pub async fn list(session: &Session, node: Option<u64>) -> Result<String, Failure> {
    let list = follower::regions(session, node).await?;
    if let Some(node) = node.filter(|_| list.regions.is_empty()) {
        check_known(session, node).await?;
    }
    let rows: Vec<RegionRow> =
        list.regions.into_iter().map(|region| RegionRow::of(region, list.follower)).collect();
    listed(&rows, session.format)
}

/// No regions, because the node has none or because its number is mistyped? The first is an answer.
async fn check_known(session: &Session, node: u64) -> Result<(), Failure> {
    let nodes = follower::nodes(session).await?.nodes;
    if nodes.iter().any(|known| known.node_id == node && known.role == "datanode") {
        return Ok(());
    }
    Err(Failure::new(Exit::NotFound, format!("metasrv knows no datanode {node}"))
        .advise("`metactl node list` shows those that it knows."))
}

/// The regions that one call created, as they were last seen.
struct Created(BTreeMap<u64, Region>);

impl Created {
    fn of(regions: Vec<Region>) -> Created {
        Created(regions.into_iter().map(|region| (region.region_id, region)).collect())
    }

    /// Looks at them again, wherever they are by now.
    async fn look(&mut self, session: &Session) -> Result<Look<()>, ClientError> {
        let regions = session.admin().list_regions(None).await?.regions;
        Ok(self.take(regions))
    }

    fn take(&mut self, regions: Vec<Region>) -> Look<()> {
        let mut writable = 0;
        for region in regions {
            if let Some(created) = self.0.get_mut(&region.region_id) {
                writable += usize::from(region.writable);
                *created = region;
            }
        }
        match self.0.len() {
            count if count == writable => Look::Done(()),
            count => Look::NotYet(format!("{writable} of {count} are writable")),
        }
    }

    fn print(self, session: &Session) -> Result<(), Failure> {
        let rows: Vec<RegionRow> = self.0.into_values().map(|region| RegionRow::of(region, None)).collect();
        print_list(&rows, session.format)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Format;
    use crate::output::document;

    fn region(region_id: u64, writable: bool) -> Region {
        Region { region_id, writable, ..Region::default() }
    }

    #[test]
    fn the_names_of_its_fields_stay() {
        let json = document(&RegionRow::of(region(7, true), None), Format::Jsonl);
        assert_eq!(
            json.as_deref(),
            Ok(concat!(
                r#"{"region_id":7,"cluster_id":0,"node_id":0,"node_addr":"","epoch":0,"writable":true,"#,
                r#""state":"","created_at":null,"reason":"","group":"","revision":null,"as_of_ms_ago":null}"#,
                "\n"
            ))
        );
        let view = FollowerView { revision: 7, as_of_ms_ago: 9 };
        let json = document(&RegionRow::of(region(7, false), Some(view)), Format::Jsonl).unwrap();
        assert!(
            json.contains(r#""writable":null"#) && json.contains(r#""revision":7,"as_of_ms_ago":9"#),
            "{json}"
        );
    }

    #[test]
    fn waiting_is_for_the_created_regions_and_no_others() {
        let mut created = Created::of(vec![region(7, false), region(8, false)]);
        let look = created.take(vec![region(6, true), region(7, true), region(8, false)]);
        assert!(matches!(look, Look::NotYet(so_far) if so_far == "1 of 2 are writable"));
        let look = created.take(vec![region(8, true)]);
        assert!(matches!(look, Look::NotYet(_)), "a region that is not listed is not writable");
        let look = created.take(vec![region(7, true), region(8, true)]);
        assert!(matches!(look, Look::Done(())));
        assert_eq!(created.0.keys().collect::<Vec<_>>(), [&7, &8]);
    }
}
