//! Watches the cluster as any tool could: through the `Admin` service.
//!
//! Three loops fill one [`Observation`], so that none waits for another: a paused replica keeps its question waiting, a
//! leader without etcd cannot list nodes, and the screen goes on showing what the others say.

use std::time::Duration;

use metasrv_client::{AdminClient, MetaClient, MetaClientConfig};
use metasrv_proto::admin::{CreateRegionsRequest, GetStatusResponse};
use metasrv_proto::meta::Role;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior};

/// Between two questions to every replica.
const STATUS_INTERVAL: Duration = Duration::from_millis(250);
/// A replica on this machine that takes longer does not answer.
const STATUS_PATIENCE: Duration = Duration::from_millis(700);
/// Between two questions for the nodes.
const NODES_INTERVAL: Duration = Duration::from_millis(500);
/// For the answer to one, a search for the leader included.
const NODES_PATIENCE: Duration = Duration::from_millis(1_500);
/// For a connection to etcd's port.
const ETCD_PATIENCE: Duration = Duration::from_millis(200);
/// Creating regions is one transaction for each hundred of them.
const CREATE_PATIENCE: Duration = Duration::from_secs(20);

/// What was seen last of everything.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Observation {
    /// Rounds of questions to the replicas so far. 0: nothing was seen yet.
    pub rounds: u64,
    /// Whether etcd takes connections. True where there is none.
    pub etcd: bool,
    /// What each replica says of itself, in the order of their names; none where it does not answer.
    pub replicas: Vec<Option<ReplicaSeen>>,
    /// The one that leads, by its own word; under the highest term where several say so.
    pub leader: Option<LeaderSeen>,
    /// The datanodes that this term's leader listed last.
    pub nodes: Vec<NodeSeen>,
    /// The term of that leader.
    pub nodes_term: u64,
}

/// What a replica says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaSeen {
    /// leader, follower or candidate.
    pub role: String,
    /// The term it knows of.
    pub term: u64,
}

/// What the leader says.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct LeaderSeen {
    /// Its name.
    pub name: String,
    /// Its term.
    pub term: u64,
    /// Heartbeats answered in this term.
    pub heartbeats: u64,
    /// Regions that exist.
    pub regions: u64,
    /// Regions whose lease it renewed within the length of a lease.
    pub writable: u64,
}

/// What the leader says of a datanode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeSeen {
    /// Its id.
    pub id: u64,
    /// Whether it has a stream to the leader.
    pub connected: bool,
    /// Regions whose routes name it.
    pub regions: u64,
    /// Those that it may write to.
    pub writable: u64,
}

impl Observation {
    /// The nodes, if the present leader listed them.
    pub fn present_nodes(&self) -> Option<&[NodeSeen]> {
        let leader = self.leader.as_ref()?;
        (leader.term == self.nodes_term).then_some(self.nodes.as_slice())
    }

    fn take_statuses(&mut self, answers: Vec<Option<GetStatusResponse>>) {
        self.rounds += 1;
        let leading = answers.iter().flatten().filter(|status| status.role == "leader");
        self.leader = leading.max_by_key(|status| status.term).map(|status| LeaderSeen {
            name: status.name.clone(),
            term: status.term,
            heartbeats: status.heartbeats,
            regions: status.regions,
            writable: status.regions_writable,
        });
        self.replicas = answers
            .into_iter()
            .map(|answer| answer.map(|status| ReplicaSeen { role: status.role, term: status.term }))
            .collect();
    }
}

/// A client of the cluster's replicas.
///
/// # Errors
/// The addresses do not parse.
pub fn client(addrs: Vec<String>) -> Result<AdminClient, String> {
    let mut config = MetaClientConfig::new(addrs, Role::Frontend, 0);
    config.timeouts.ask = STATUS_PATIENCE;
    config.timeouts.connect = STATUS_PATIENCE;
    let client = MetaClient::try_new(config).map_err(|error| error.to_string())?;
    Ok(client.admin())
}

/// Watches until it is dropped.
pub async fn watch(admin: AdminClient, etcd: Option<String>, seen: watch::Sender<Observation>) {
    tokio::join!(
        watch_replicas(&admin, &seen),
        watch_nodes(admin.clone().with_deadline(NODES_PATIENCE), &seen),
        watch_etcd(etcd, &seen)
    );
}

async fn watch_replicas(admin: &AdminClient, seen: &watch::Sender<Observation>) {
    let mut ticks = every(STATUS_INTERVAL);
    loop {
        ticks.tick().await;
        let answers = admin.status().await.into_iter().map(|(_, answer)| answer.ok()).collect();
        seen.send_modify(|seen| seen.take_statuses(answers));
    }
}

async fn watch_nodes(admin: AdminClient, seen: &watch::Sender<Observation>) {
    let mut ticks = every(NODES_INTERVAL);
    loop {
        ticks.tick().await;
        // Without an answer, the last one stays, with the term it belongs to.
        let Ok(list) = admin.list_nodes().await else { continue };
        let datanodes = list.nodes.into_iter().filter(|node| node.role == "datanode");
        let nodes = datanodes.map(|node| NodeSeen {
            id: node.node_id,
            connected: node.connected,
            regions: node.regions,
            writable: node.regions_writable,
        });
        let nodes = nodes.collect();
        seen.send_modify(|seen| (seen.nodes, seen.nodes_term) = (nodes, list.term));
    }
}

async fn watch_etcd(etcd: Option<String>, seen: &watch::Sender<Observation>) {
    let mut ticks = every(STATUS_INTERVAL);
    loop {
        ticks.tick().await;
        let answers = match &etcd {
            Some(addr) => {
                matches!(tokio::time::timeout(ETCD_PATIENCE, TcpStream::connect(addr)).await, Ok(Ok(_)))
            }
            None => true,
        };
        seen.send_modify(|seen| seen.etcd = answers);
    }
}

fn every(interval: Duration) -> Interval {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Creates regions, wherever metasrv places them.
///
/// # Errors
/// What the client says. Some may have been created nevertheless.
pub async fn create_regions(admin: AdminClient, count: u32) -> Result<(), String> {
    let reason = "playground".to_owned();
    let request = CreateRegionsRequest { count, node_id: None, cluster_id: 0, reason, ..Default::default() };
    let created = admin.with_deadline(CREATE_PATIENCE).create_regions(request).await;
    created.map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(name: &str, role: &str, term: u64) -> Option<GetStatusResponse> {
        Some(GetStatusResponse { name: name.to_owned(), role: role.to_owned(), term, ..Default::default() })
    }

    #[test]
    fn of_two_that_say_they_lead_the_later_term_is_believed() {
        let mut seen = Observation::default();
        seen.take_statuses(vec![status("m1", "leader", 2), None, status("m3", "leader", 3)]);
        assert_eq!(seen.leader.as_ref().unwrap().name, "m3");
        assert_eq!(seen.replicas[1], None);
        seen.take_statuses(vec![status("m1", "follower", 3), None, None]);
        assert_eq!((seen.leader, seen.rounds), (None, 2));
    }

    #[test]
    fn nodes_that_an_earlier_leader_listed_are_not_present() {
        let nodes = vec![NodeSeen { id: 1, connected: true, regions: 4, writable: 4 }];
        let mut seen = Observation { nodes, nodes_term: 2, ..Observation::default() };
        assert_eq!(seen.present_nodes(), None);
        seen.take_statuses(vec![status("m1", "leader", 2)]);
        assert_eq!(seen.present_nodes().unwrap().len(), 1);
        seen.take_statuses(vec![status("m2", "leader", 3)]);
        assert_eq!(seen.present_nodes(), None);
    }
}
