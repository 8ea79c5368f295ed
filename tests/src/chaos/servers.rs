//! What every world has: three members of etcd and three replicas, each in a network namespace of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use metasrv_proto::admin::{ListMembersRequest, ListRegionsRequest, Region};
use tempfile::TempDir;

use super::gateway::Gateway;
use super::network::Network;
use crate::cluster::Leadership;
use crate::etcd::Etcd;
use crate::place::Place;
use crate::replica::Replica;
use crate::wait::now;

/// Members of etcd, and replicas.
pub const MEMBERS: usize = 3;

/// Whatever takes longer than this does not come any more.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Time between two looks at a condition.
const POLL: Duration = Duration::from_millis(25);

/// An etcd that is filled within seconds, and has room for the world's own keys.
const SMALL_ETCD: u64 = 96 << 20;

/// How etcd is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quota {
    /// As it is by default.
    Usual,
    /// Small enough to be filled.
    Small,
}

/// The node and the epoch of each region.
pub type Routes = BTreeMap<u64, (u64, u64)>;

/// See the module. Everything in it ends with it, the network last.
pub struct Servers {
    /// The replicas.
    pub replicas: Vec<Replica>,
    /// Where each of them runs.
    pub replica_places: Vec<Place>,
    /// The members of etcd.
    pub etcd: Etcd,
    /// Where each of them runs.
    pub etcd_places: Vec<Place>,
    /// What connects them.
    pub network: Network,
    /// For logs and data.
    pub directory: TempDir,
}

impl Servers {
    /// Starts them; nobody may lead yet.
    ///
    /// # Errors
    /// What the system refused.
    pub async fn start(quota: Quota) -> Result<Servers, String> {
        let mut network = Network::new()?;
        let directory = tempfile::Builder::new()
            .prefix("metasrv-chaos-")
            .tempdir()
            .map_err(|error| format!("no directory for logs and data: {error}"))?;
        let mut places = |name: &str, first: u8| -> Result<Vec<Place>, String> {
            (0..3).map(|index| network.place(&format!("{name}{index}"), first + index)).collect()
        };
        let (etcd_places, replica_places) = (places("etcd", 21)?, places("metasrv", 11)?);
        let arguments = match quota {
            Quota::Usual => Vec::new(),
            Quota::Small => vec![format!("--quota-backend-bytes={SMALL_ETCD}")],
        };
        let etcd = Etcd::start_at(etcd_places.clone(), arguments, directory.path()).await;
        let replicas: Vec<Replica> = (0..)
            .zip(&replica_places)
            .map(|(index, place)| {
                let arguments = ["--etcd-endpoints".to_owned(), etcd.endpoints().join(",")];
                let arguments = arguments.into_iter().chain(["--fault-injection".to_owned()]).collect();
                let mut replica = Replica::new_at(place.clone(), &format!("metasrv-{index}"), arguments);
                replica.start(directory.path());
                replica
            })
            .collect();
        Ok(Servers { replicas, replica_places, etcd, etcd_places, network, directory })
    }

    /// Where the replicas answer.
    pub fn addrs(&self) -> Vec<String> {
        self.replicas.iter().map(Replica::addr).collect()
    }

    /// Who leads: the replica that says so, under the highest term where several do.
    ///
    /// # Errors
    /// Nobody says so now.
    pub async fn leader(&self) -> Result<Leadership, String> {
        let asked = self.replicas.iter().enumerate().filter(|(_, replica)| replica.process.is_some());
        let answers = asked.map(async |(index, replica)| (index, replica.status().await));
        let answers = futures_util::future::join_all(answers).await;
        let leads = |(replica, status): &(usize, Result<_, _>)| match status {
            Ok(metasrv_proto::admin::GetStatusResponse { role, term, .. }) if role == "leader" => {
                Some(Leadership { replica: *replica, term: *term })
            }
            _ => None,
        };
        answers
            .iter()
            .filter_map(leads)
            .max_by_key(|leader| leader.term)
            .ok_or_else(|| "nobody says that it leads".to_owned())
    }

    /// Waits until they are whole: etcd takes writes, a replica leads, and every replica stands in the queue.
    ///
    /// # Errors
    /// What did not come in time.
    pub async fn whole(&self) -> Result<Leadership, String> {
        reach("every member of etcd takes writes", async || {
            for index in 0..self.etcd.members() {
                Gateway(&self.etcd.addr(index)).writes().await?;
            }
            Ok(())
        })
        .await?;
        reach("a leader, and every replica in its queue", async || {
            let leader = self.leader().await?;
            let mut admin = self.replicas[leader.replica].admin();
            let mut request = tonic::Request::new(ListMembersRequest::default());
            request.set_timeout(Duration::from_secs(2));
            match admin.list_members(request).await.map(|response| response.into_inner().members.len()) {
                Ok(members) if members == self.replicas.len() => Ok(leader),
                Ok(members) => Err(format!("{members} replicas are in the queue")),
                Err(status) => Err(status.to_string()),
            }
        })
        .await
    }

    /// Which member of etcd leads it.
    ///
    /// # Errors
    /// None of them says so.
    pub async fn etcd_leader(&self) -> Result<usize, String> {
        reach("a member of etcd leads", async || {
            for index in 0..self.etcd.members() {
                if Gateway(&self.etcd.addr(index)).leads().await? {
                    return Ok(index);
                }
            }
            Err("none says so".to_owned())
        })
        .await
    }

    /// All regions, as the leader lists them.
    ///
    /// # Errors
    /// It did not list them in time.
    pub async fn regions(&self) -> Result<Vec<Region>, String> {
        reach("the leader lists all regions", async || {
            let leader = self.leader().await?;
            let listing = async {
                let mut admin = self.replicas[leader.replica].admin();
                let mut chunks = admin.list_regions(ListRegionsRequest::default()).await?.into_inner();
                let mut regions = Vec::new();
                while let Some(chunk) = chunks.message().await? {
                    regions.extend(chunk.regions);
                }
                Ok::<_, tonic::Status>(regions)
            };
            match tokio::time::timeout(Duration::from_secs(20), listing).await {
                Ok(listed) => listed.map_err(|status| status.to_string()),
                Err(_) => Err("it takes too long".to_owned()),
            }
        })
        .await
    }

    /// Where each region is.
    ///
    /// # Errors
    /// As [`Servers::regions`].
    pub async fn routes(&self) -> Result<Routes, String> {
        let regions = self.regions().await?;
        Ok(regions.iter().map(|region| (region.region_id, (region.node_id, region.epoch))).collect())
    }

    /// Starts a replica again.
    pub fn start_replica(&mut self, index: usize) {
        self.replicas[index].start(self.directory.path());
    }

    /// Keeps logs and data, and says where they are.
    pub fn keep_logs(&mut self) -> String {
        self.directory.disable_cleanup(true);
        self.directory.path().display().to_string()
    }
}

/// Looks at a condition until it holds, and returns what it yields.
///
/// # Errors
/// What was waited for, and why it did not hold at the end.
pub async fn reach<T>(
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, String> {
    let started = now();
    loop {
        let why = match tokio::time::timeout(PATIENCE, condition()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(why)) => why,
            Err(_) => "looking at it took too long".to_owned(),
        };
        if now().since(started) > PATIENCE {
            return Err(format!("waited {PATIENCE:?} for this: {what}; still: {why}"));
        }
        tokio::time::sleep(POLL).await;
    }
}
