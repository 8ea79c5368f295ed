//! Who may do what, where clients have to have certificates: told by whom the certificate of a connection names.
//!
//! | service | who |
//! | --- | --- |
//! | `Heartbeat`: the stream | the node itself, by role, cluster and id; frontends; for probes, replicas |
//! | `Supervisor` | the datanode that the certificate of its end is about |
//! | `Replica` | replicas |
//! | `Admin`, `Operations` | operators |
//! | `AskLeader`, `Routes`, health, reflection | whoever has a certificate |
//!
//! Where clients need no certificates, everybody may do everything, as without TLS.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metasrv_core::id::{NodeKey, Role};
use metasrv_core::time::{BootTime, Clock};
use metasrv_tls::Identity;
use tonic::{Request, Status};

use crate::metrics::Metrics;

/// Refusals are told one by one no more often than this.
const TOLD: Duration = Duration::from_secs(1);

/// Whom the certificate of a connection names. Stands in the extensions of its requests.
#[derive(Clone, Default, Debug)]
pub struct Peer(pub Option<Arc<Identity>>);

/// Tells of refusals: each is counted, and few are logged.
pub struct Refusals {
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    last: Option<BootTime>,
    /// Since then, without a word.
    silent: u64,
}

impl Refusals {
    /// Of one replica.
    pub fn new(clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Refusals {
        Refusals { clock, metrics, told: Mutex::default() }
    }

    /// Somebody is refused, for this reason; `whom` and `why` are for the log.
    pub fn refused(&self, reason: &'static str, whom: &str, why: &str) {
        self.metrics.tls_refused.with_label_values(&[reason]).inc();
        let now = self.clock.now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.last.is_some_and(|last| now.since(last) < TOLD) {
            told.silent = told.silent.saturating_add(1);
            return;
        }
        let others = std::mem::take(&mut told.silent);
        told.last = Some(now);
        drop(told);
        tracing::warn!(peer = whom, reason, why, others, "refused by its certificate");
    }
}

/// What every service asks.
#[derive(Clone)]
pub struct Admission {
    /// Absent: certificates are not asked for.
    refusals: Option<Arc<Refusals>>,
}

impl Admission {
    /// Where clients have to have certificates.
    pub fn by_certificate(refusals: Arc<Refusals>) -> Admission {
        Admission { refusals: Some(refusals) }
    }

    /// Where they do not.
    pub fn of_everybody() -> Admission {
        Admission { refusals: None }
    }

    /// Operators alone.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`.
    pub fn admin(&self, peer: &Peer) -> Result<(), Status> {
        self.admit(peer, "admin", Identity::is_admin)
    }

    /// Replicas alone.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`.
    pub fn replica(&self, peer: &Peer) -> Result<(), Status> {
        self.admit(peer, "replica", Identity::is_replica)
    }

    /// This node alone.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`.
    pub fn node(&self, peer: &Peer, node: &NodeKey) -> Result<(), Status> {
        let (role, cluster, id) = (node.role.name(), node.cluster.0, node.id.0);
        match node.role {
            Role::Frontend => {
                self.admit(peer, "frontend", |identity| identity.is_frontend() || identity.is_admin())
            }
            Role::Datanode | Role::Flownode => {
                self.admit(peer, &format!("{role}/{cluster}/{id}"), |identity| {
                    identity.is_node(role, cluster, id)
                })
            }
        }
    }

    fn admit(&self, peer: &Peer, wanted: &str, fits: impl Fn(&Identity) -> bool) -> Result<(), Status> {
        let Some(refusals) = &self.refusals else { return Ok(()) };
        if peer.0.as_deref().is_some_and(fits) {
            return Ok(());
        }
        let named = peer.0.as_deref().cloned().unwrap_or_default();
        let why = format!("its certificate names {named}; this takes {wanted}");
        refusals.refused("identity", &named.to_string(), &why);
        Err(Status::permission_denied(format!(
            "{why} (a URI spiffe://DOMAIN/metasrv/{wanted} among the certificate's names)"
        )))
    }

    /// An interceptor that lets operators through.
    pub fn admins(&self) -> impl FnMut(Request<()>) -> Result<Request<()>, Status> + Clone + use<> {
        let admission = self.clone();
        move |request| admission.admin(&peer(&request)).map(|()| request)
    }

    /// An interceptor that lets replicas through.
    pub fn replicas(&self) -> impl FnMut(Request<()>) -> Result<Request<()>, Status> + Clone + use<> {
        let admission = self.clone();
        move |request| admission.replica(&peer(&request)).map(|()| request)
    }
}

/// Whom the certificate of this request's connection names.
pub fn peer<T>(request: &Request<T>) -> Peer {
    request.extensions().get::<Peer>().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use metasrv_core::id::{ClusterId, NodeId};

    use crate::clock::SystemClock;

    fn named(uris: &[&str]) -> Peer {
        Peer(Some(Arc::new(Identity::named(uris.iter().copied()))))
    }

    fn node(role: Role, id: u64) -> NodeKey {
        NodeKey { role, ..NodeKey::datanode(ClusterId(0), NodeId(id)) }
    }

    #[test]
    fn each_may_do_what_its_certificate_names_and_nothing_else() {
        let metrics = Arc::new(Metrics::new());
        let refusals = Arc::new(Refusals::new(Arc::new(SystemClock), Arc::clone(&metrics)));
        let admission = Admission::by_certificate(refusals);
        let seven = named(&["spiffe://x/metasrv/datanode/0/7"]);
        let (admin, replica) = (named(&["spiffe://x/metasrv/admin"]), named(&["spiffe://x/metasrv/replica"]));
        let frontend = named(&["spiffe://x/metasrv/frontend"]);
        assert!(admission.node(&seven, &node(Role::Datanode, 7)).is_ok());
        assert!(admission.node(&frontend, &node(Role::Frontend, 0)).is_ok());
        assert!(admission.admin(&admin).is_ok() && admission.replica(&replica).is_ok());
        let refused = [
            admission.node(&seven, &node(Role::Datanode, 8)),
            admission.node(&seven, &node(Role::Flownode, 7)),
            admission.node(&seven, &node(Role::Frontend, 7)),
            admission.node(&admin, &node(Role::Datanode, 7)),
            admission.node(&Peer(None), &node(Role::Datanode, 7)),
            admission.admin(&seven),
            admission.admin(&replica),
            admission.replica(&admin),
            admission.admin(&Peer::default()),
        ];
        for refusal in &refused {
            assert_eq!(refusal.as_ref().unwrap_err().code(), tonic::Code::PermissionDenied);
        }
        let counted = metrics.tls_refused.with_label_values(&["identity"]).get();
        assert_eq!(counted, u64::try_from(refused.len()).unwrap());
        assert!(Admission::of_everybody().admin(&Peer::default()).is_ok());
    }
}
