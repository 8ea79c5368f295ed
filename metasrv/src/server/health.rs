//! Whether this replica lives, and whether it is ready.

use std::sync::Arc;
use std::time::Duration;

use metasrv_proto::admin::admin_server::AdminServer;
use metasrv_proto::meta::heartbeat_server::HeartbeatServer;
use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::admin::AdminService;
use super::heartbeat::{HeartbeatService, Shared};
use crate::election::ElectionHandle;
use crate::http::{Check, HealthSource};

/// Time between two updates of the gRPC health service.
const REPORT_INTERVAL: Duration = Duration::from_millis(200);

/// What health is judged by.
pub struct ReplicaHealth {
    shared: Arc<Shared>,
    shutdown: watch::Receiver<bool>,
}

impl ReplicaHealth {
    /// Over what the replica publishes of itself.
    pub fn new(shared: Arc<Shared>, shutdown: watch::Receiver<bool>) -> ReplicaHealth {
        ReplicaHealth { shared, shutdown }
    }

    fn leads(&self) -> bool {
        self.shared.leading().is_some()
    }

    /// Whether this replica holds the state: a follower that does not would have to read it first, to lead.
    fn mirror(&self) -> Result<String, String> {
        let Some(mirror) = &self.shared.mirror else { return Ok("embedded".to_owned()) };
        match mirror.standing() {
            _ if self.leads() => Ok("this replica leads".to_owned()),
            Some(standing) => {
                Ok(format!("at revision {}, as of {} ms ago", standing.revision, standing.as_of_ms_ago))
            }
            None => Err("the state is not read yet".to_owned()),
        }
    }
}

impl HealthSource for ReplicaHealth {
    /// The process answers, and its election's loop turns: that is all, on purpose. An outage of etcd must not have
    /// every replica restarted.
    fn live(&self) -> Result<(), String> {
        self.shared.election.as_ref().map_or(Ok(()), ElectionHandle::turns)
    }

    fn checks(&self) -> Vec<Check> {
        let view = self.shared.view.borrow().clone();
        let store = if self.shared.election.is_none() {
            Ok("embedded".to_owned())
        } else {
            view.is_fresh(self.shared.clock.now()).map(|()| "etcd answers".to_owned())
        };
        let leader = match (&view.leader, self.leads()) {
            (_, true) => Ok("this replica leads".to_owned()),
            (Some(leader), false) => {
                Ok(format!("{} at {} leads term {}", leader.name, leader.addr, leader.term))
            }
            (None, false) => Err("no leader is known".to_owned()),
        };
        let leaving = if *self.shutdown.borrow() {
            Err("this replica is ending".to_owned())
        } else {
            Ok("no".to_owned())
        };
        vec![
            Check { name: "store", outcome: store },
            Check { name: "mirror", outcome: self.mirror() },
            Check { name: "leader", outcome: leader },
            Check { name: "leaving", outcome: leaving },
        ]
    }
}

/// Keeps the gRPC health service current, and the metric that says the same: `""` is ready, the Heartbeat service serves only on the leader, the Admin
/// service on every replica.
pub async fn report(health: Arc<ReplicaHealth>, reporter: HealthReporter) {
    loop {
        let ready = health.checks().iter().all(|check| check.outcome.is_ok());
        let as_status = |serving| if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        reporter.set_service_status("", as_status(ready)).await;
        health.shared.metrics.ready.set(i64::from(ready));
        if health.leads() {
            reporter.set_serving::<HeartbeatServer<HeartbeatService>>().await;
        } else {
            reporter.set_not_serving::<HeartbeatServer<HeartbeatService>>().await;
        }
        reporter.set_serving::<AdminServer<AdminService>>().await;
        tokio::time::sleep(REPORT_INTERVAL).await;
    }
}
