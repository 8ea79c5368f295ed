//! From nothing to a cluster with regions, step by step.
//!
//! | step | goes on when | by |
//! | --- | --- | --- |
//! | `Etcd` | etcd takes connections, or there is none | starting the replicas |
//! | `Replicas` | one of them leads | starting the datanodes |
//! | `Datanodes` | all have a stream to the leader | creating the regions |
//! | `Regions` | they exist | letting it run |
//!
//! A call that creates regions and fails may have created them: it is looked before it is repeated.

use std::time::Duration;

use metasrv_client::AdminClient;
use tokio::task::JoinHandle;

use super::child::Kind;
use super::cluster::Cluster;
use super::watch::{self, Observation};

/// Looks after a failed creation before it is repeated: the first may have begun before the failure.
const LOOKS_BEFORE_REPEATING: u64 = 2;

/// Where the start stands.
pub enum Step {
    /// Waiting for etcd.
    Etcd,
    /// Waiting for a leader.
    Replicas,
    /// Waiting for the datanodes.
    Datanodes,
    /// Creating regions.
    Regions {
        /// The call, while it is under way.
        call: Option<JoinHandle<Result<(), String>>>,
        /// No further call before so many rounds of observation.
        not_before: u64,
    },
    /// The cluster stands, since then.
    Running(Duration),
}

impl Step {
    /// What is being done, for people.
    pub fn name(&self) -> &'static str {
        match self {
            Step::Etcd => "starting etcd",
            Step::Replicas => "waiting for a leader",
            Step::Datanodes => "waiting for the datanodes",
            Step::Regions { .. } => "creating regions",
            Step::Running(_) => "running",
        }
    }

    /// Whether the cluster stands.
    pub fn is_running(&self) -> bool {
        matches!(self, Step::Running(_))
    }

    /// Goes one step further if it is time. Returns a sentence if something is worth one. Must be called on the main
    /// thread.
    ///
    /// # Errors
    /// A process cannot be started.
    pub async fn advance(
        &mut self,
        at: Duration,
        seen: &Observation,
        cluster: &mut Cluster,
        wanted: &Goal,
    ) -> Result<Option<String>, String> {
        let connected =
            seen.present_nodes().map_or(0, |nodes| nodes.iter().filter(|node| node.connected).count());
        match self {
            Step::Etcd if seen.rounds > 0 && seen.etcd => {
                cluster.start(Kind::Metasrv)?;
                *self = Step::Replicas;
            }
            Step::Replicas if seen.leader.is_some() => {
                cluster.start(Kind::Datanode)?;
                *self = Step::Datanodes;
            }
            Step::Datanodes if connected >= wanted.datanodes => {
                *self = Step::Regions { call: None, not_before: seen.rounds };
            }
            Step::Regions { call: call @ None, not_before } if seen.rounds >= *not_before => {
                let Some(leader) = &seen.leader else { return Ok(None) };
                let missing = u64::from(wanted.regions).saturating_sub(leader.regions);
                match u32::try_from(missing) {
                    Ok(0) => *self = Step::Running(at),
                    Ok(missing) => {
                        *call = Some(tokio::spawn(watch::create_regions(wanted.admin.clone(), missing)));
                    }
                    Err(_) => return Err(format!("{missing} regions cannot be created at once")),
                }
            }
            Step::Regions { call: Some(call), .. } if call.is_finished() => {
                let created = call.await.unwrap_or_else(|error| Err(error.to_string()));
                match created {
                    Ok(()) => {
                        *self = Step::Running(at);
                        return Ok(Some(format!("{} regions created", wanted.regions)));
                    }
                    Err(error) => {
                        *self =
                            Step::Regions { call: None, not_before: seen.rounds + LOOKS_BEFORE_REPEATING };
                        return Ok(Some(format!("regions could not be created: {error}")));
                    }
                }
            }
            _ => {}
        }
        Ok(None)
    }
}

/// What the start is to lead to.
pub struct Goal {
    /// Datanodes that have to be there.
    pub datanodes: usize,
    /// Regions that have to exist.
    pub regions: u32,
    /// Creates them.
    pub admin: AdminClient,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::cluster::Size;
    use super::super::programs::Programs;
    use super::super::watch::{LeaderSeen, NodeSeen};
    use super::*;

    /// Goal: each step waits for what it needs, and regions that exist already are not created again.
    /// Method: looks at a cluster without processes, one after the other.
    #[tokio::test]
    async fn each_step_waits_for_the_one_below() {
        let programs = Programs { metasrv: "/bin/true".into(), datanode: "/bin/true".into(), etcd: None };
        let data = tempfile::tempdir().unwrap();
        let mut cluster = Cluster::plan(&programs, Size { replicas: 1, datanodes: 1 }, data.path()).unwrap();
        assert!(Path::new("/bin/true").exists(), "it stands for every program");
        let admin = watch::client(cluster.metasrv_addrs()).unwrap();
        let goal = Goal { datanodes: 1, regions: 4, admin };
        let mut step = Step::Etcd;
        let mut seen = Observation::default();
        let mut names = Vec::new();
        for change in 0..6 {
            match change {
                1 => (seen.etcd, seen.rounds) = (true, 1),
                2 => {
                    seen.leader =
                        Some(LeaderSeen { name: "m1".into(), term: 1, regions: 4, ..LeaderSeen::default() });
                }
                3 => {
                    seen.nodes_term = 1;
                    seen.nodes = vec![NodeSeen { id: 1, connected: false, regions: 4, writable: 0 }];
                }
                4 => seen.nodes[0].connected = true,
                _ => {}
            }
            step.advance(Duration::from_secs(change), &seen, &mut cluster, &goal).await.unwrap();
            names.push(step.name());
        }
        let waiting = "waiting for the datanodes";
        assert_eq!(
            names,
            ["starting etcd", "waiting for a leader", waiting, waiting, "creating regions", "running"]
        );
    }
}
