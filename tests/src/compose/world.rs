//! The cluster in the containers, as its ports on 127.0.0.1 answer.

use std::collections::BTreeMap;
use std::time::Duration;

use metasrv_proto::admin::admin_client::AdminClient;
use metasrv_proto::admin::operations_client::OperationsClient;
use metasrv_proto::admin::{
    CheckStoreRequest, CreateRegionsRequest, GetFailoverRequest, GetStatusRequest, ListNodesRequest,
    ListRegionsRequest, Node,
};
use tonic::transport::Channel;

use super::project::{MEMBERS, Project};
use crate::chaos::region::book::Book;
use crate::chaos::region::writer::Writers;
use crate::chaos::servers::{Routes, reach};
use crate::cluster::Leadership;
use crate::replica::channel;

/// Deadline of one call.
const CALL: Duration = Duration::from_secs(5);

/// Regions on each datanode.
const REGIONS: u32 = 4;

/// See the module.
pub struct World {
    replicas: Vec<Channel>,
    /// One for each region.
    pub writers: Writers,
}

impl World {
    /// Waits until every datanode is connected, creates regions, and returns when all of them are written to.
    ///
    /// # Errors
    /// What did not come in time.
    pub async fn begin(project: &Project) -> Result<World, String> {
        let addr = |port: &u16| format!("127.0.0.1:{port}");
        let addrs: Vec<String> = project.replica_ports.iter().map(addr).collect();
        let replicas: Vec<Channel> = addrs.iter().map(|addr| channel(addr)).collect();
        let nodes: BTreeMap<u64, String> = (1..).zip(project.datanode_ports.iter().map(addr)).collect();
        let none = Writers::start([], &nodes, Book::open(&addrs)?);
        let mut world = World { replicas, writers: none };
        world.nodes_are_well().await?;
        let mut regions = Vec::new();
        for node in nodes.keys() {
            let request = CreateRegionsRequest {
                count: REGIONS,
                node_id: Some(*node),
                ..CreateRegionsRequest::default()
            };
            let mut admin = AdminClient::new(world.leading().await?);
            let created = admin.create_regions(timed(request)).await;
            let created = created.map_err(|status| format!("regions cannot be created: {status}"))?;
            regions.extend(created.into_inner().regions.iter().map(|region| region.region_id));
        }
        world.writers = Writers::start(regions, &nodes, Book::open(&addrs)?);
        world.settle().await?;
        Ok(world)
    }

    /// Who leads: the replica that says so, under the highest term where several do.
    ///
    /// # Errors
    /// Nobody says so now.
    pub async fn leader(&self) -> Result<Leadership, String> {
        let answers = self.replicas.iter().map(async |replica| {
            let mut admin = AdminClient::new(replica.clone());
            let mut request = tonic::Request::new(GetStatusRequest::default());
            request.set_timeout(Duration::from_secs(1));
            // A port that is published for a container that is gone may be silent.
            let answer = tokio::time::timeout(Duration::from_secs(1), admin.get_status(request)).await;
            answer.ok()?.ok().map(tonic::Response::into_inner)
        });
        let answers = futures_util::future::join_all(answers).await.into_iter().enumerate();
        let leads = answers.filter_map(|(replica, status)| {
            let status = status.filter(|status| status.role == "leader")?;
            Some(Leadership { replica, term: status.term })
        });
        leads.max_by_key(|leader| leader.term).ok_or_else(|| "nobody says that it leads".to_owned())
    }

    /// Waits until another replica than this leads in a later term, and then until so many datanodes have come to it. The
    /// replica of before is not asked: its port may answer nothing.
    ///
    /// # Errors
    /// It takes too long.
    pub async fn succeeded(&self, before: Leadership, datanodes: u16) -> Result<(), String> {
        let others: Vec<usize> = (0..self.replicas.len()).filter(|one| *one != before.replica).collect();
        reach(&format!("a later leader hears {datanodes} datanodes"), async || {
            let asked = others.iter().map(async |replica| {
                let mut admin = AdminClient::new(self.replicas[*replica].clone());
                let status = admin.get_status(timed(GetStatusRequest::default())).await.ok()?.into_inner();
                let leads = status.role == "leader" && status.term > before.term;
                (leads && status.nodes_connected >= u64::from(datanodes)).then_some(())
            });
            let found = futures_util::future::join_all(asked).await;
            found.into_iter().flatten().next().ok_or_else(|| "nobody yet".to_owned())
        })
        .await
    }

    /// Waits until every datanode is alive, failovers go on, and every region is written to.
    ///
    /// # Errors
    /// What did not come in time.
    pub async fn settle(&self) -> Result<Leadership, String> {
        self.nodes_are_well().await?;
        reach("failovers go on", async || {
            let mut operations = OperationsClient::new(self.leading().await?);
            let answer = operations.get_failover(timed(GetFailoverRequest::default())).await;
            match answer.map_err(|status| status.to_string())?.into_inner() {
                failover if failover.verdict == "proceed" => Ok(()),
                failover => Err(format!("{}: {}", failover.verdict, failover.why)),
            }
        })
        .await?;
        let all = self.writers.regions().into_iter().map(|region| (region, 0)).collect();
        self.writers.written(&all).await?;
        self.leader().await
    }

    /// Where each region is.
    ///
    /// # Errors
    /// Nobody lists them in time.
    pub async fn routes(&self) -> Result<Routes, String> {
        reach("the leader lists all regions", async || {
            let mut admin = AdminClient::new(self.leading().await?);
            let answer = admin.list_regions(timed(ListRegionsRequest::default())).await;
            let mut chunks = answer.map_err(|status| status.to_string())?.into_inner();
            let mut routes = Routes::new();
            while let Some(chunk) = chunks.message().await.map_err(|status| status.to_string())? {
                let pairs = chunk.regions.iter().map(|it| (it.region_id, (it.node_id, it.epoch)));
                routes.extend(pairs);
            }
            Ok(routes)
        })
        .await
    }

    /// What a check of the store finds.
    ///
    /// # Errors
    /// Nobody checks it in time.
    pub async fn findings(&self) -> Result<Vec<String>, String> {
        reach("the store is checked", async || {
            let mut operations = OperationsClient::new(self.leading().await?);
            let answer = operations.check_store(timed(CheckStoreRequest {})).await;
            let found = answer.map_err(|status| status.to_string())?.into_inner().findings;
            Ok(found.into_iter().map(|finding| format!("{}: {}", finding.key, finding.what)).collect())
        })
        .await
    }

    async fn nodes_are_well(&self) -> Result<(), String> {
        reach("every datanode is alive", async || {
            let mut admin = AdminClient::new(self.leading().await?);
            let answer = admin.list_nodes(timed(ListNodesRequest::default())).await;
            let mut chunks = answer.map_err(|status| status.to_string())?.into_inner();
            let mut well = 0;
            while let Some(chunk) = chunks.message().await.map_err(|status| status.to_string())? {
                let is_well = |node: &&Node| {
                    node.role == "datanode" && node.connected && node.health == "alive" && node.duty == "open"
                };
                well += chunk.nodes.iter().filter(is_well).count();
            }
            if well == usize::from(MEMBERS) { Ok(()) } else { Err(format!("{well} are")) }
        })
        .await
    }

    async fn leading(&self) -> Result<Channel, String> {
        let leader = self.leader().await?;
        self.replicas.get(leader.replica).cloned().ok_or_else(|| "no such replica".to_owned())
    }
}

fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL);
    request
}
