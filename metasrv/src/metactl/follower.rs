//! Lists, from the leader; where none answers, from the follower that has seen most of the store.
//!
//! An election takes seconds, and what the leader says is better: followers are asked in the second half of the
//! deadline only. What they say goes to stdout like any list; that it is old, and how old, is said on stderr.

use futures_util::future::join_all;
use metasrv_client::{AdminClient, ClientError, NodeList, RegionList};
use metasrv_proto::admin::FollowerView;

use crate::output::say;
use crate::session::Session;
use crate::text::ago;

/// A list that says who made it.
trait Listed {
    fn follower(&self) -> Option<FollowerView>;
}

impl Listed for RegionList {
    fn follower(&self) -> Option<FollowerView> {
        self.follower
    }
}

impl Listed for NodeList {
    fn follower(&self) -> Option<FollowerView> {
        self.follower
    }
}

/// All regions, or those of one datanode.
pub async fn regions(session: &Session, node: Option<u64>) -> Result<RegionList, ClientError> {
    let error = match session.hopeful_admin().list_regions(node).await {
        Ok(list) => return Ok(list),
        Err(error) => error,
    };
    seen(session, error, async |admin, addr| admin.regions_seen_by(&addr, node).await).await
}

/// All nodes.
pub async fn nodes(session: &Session) -> Result<NodeList, ClientError> {
    let error = match session.hopeful_admin().list_nodes().await {
        Ok(list) => return Ok(list),
        Err(error) => error,
    };
    seen(session, error, async |admin, addr| admin.nodes_seen_by(&addr).await).await
}

/// Asks every replica at once what it has seen.
async fn seen<L: Listed>(
    session: &Session,
    error: ClientError,
    ask: impl AsyncFn(AdminClient, String) -> Result<L, ClientError>,
) -> Result<L, ClientError> {
    if !is_for_want_of_a_leader(&error) {
        return Err(error);
    }
    let asked = session.client.peers().iter().map(async |addr| {
        let list = ask(session.admin(), addr.clone()).await.ok()?;
        Some((addr, list))
    });
    match furthest(join_all(asked).await.into_iter().flatten()) {
        Some((addr, list)) => {
            if let Some(view) = list.follower() {
                say(&format!("no leader answers ({error})\n{}", sentence(addr, &view)));
            }
            Ok(list)
        }
        None => Err(error),
    }
}

/// The list of a leader, which has come in the meantime; else that of the highest revision.
fn furthest<A, L: Listed>(lists: impl Iterator<Item = (A, L)>) -> Option<(A, L)> {
    lists.max_by_key(|(_, list)| {
        let follower = list.follower();
        (follower.is_none(), follower.map(|view| view.revision))
    })
}

fn sentence(addr: &str, view: &FollowerView) -> String {
    format!(
        "this is what {addr} had seen of the store {} at revision {}; who is connected and who may write, it does not know",
        ago(view.as_of_ms_ago),
        view.revision
    )
}

/// Whether another answer could come from a replica that does not lead.
pub fn is_for_want_of_a_leader(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::NoLeader { .. }
            | ClientError::NotLeader { .. }
            | ClientError::TimedOut { .. }
            | ClientError::Transport { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(revision: Option<u64>) -> NodeList {
        let follower = revision.map(|revision| FollowerView { revision, as_of_ms_ago: 61_000 });
        NodeList { nodes: Vec::new(), term: 0, follower }
    }

    #[test]
    fn a_leader_that_came_in_the_meantime_is_believed_and_else_the_highest_revision() {
        let of = |revisions: &[Option<u64>]| {
            furthest(revisions.iter().map(|revision| ((), list(*revision)))).map(|(_, list)| list)
        };
        assert_eq!(of(&[Some(3), Some(7), Some(5)]), Some(list(Some(7))));
        assert_eq!(of(&[Some(3), None, Some(5)]), Some(list(None)));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn it_is_said_whose_view_it_is_and_how_old() {
        let said = sentence("m1:3002", &FollowerView { revision: 12, as_of_ms_ago: 61_000 });
        assert!(
            said.contains("m1:3002") && said.contains("1m ago") && said.contains("revision 12"),
            "{said}"
        );
    }
}
