//! TLS of one replica: its two ports, its way to other replicas and to etcd, and who is admitted.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use metasrv_core::time::Clock;
use metasrv_tls::{ClientTls, Clients, ServerTls, TlsError};

use super::admission::{Admission, Refusals};
use crate::config::Config;
use crate::metrics::Metrics;

/// Time between two looks at one's own certificates where nobody connects.
const LOOK: Duration = Duration::from_secs(1);

/// See the module. Without settings of TLS, everything is plain and everybody is admitted.
pub struct Secure {
    /// Below the gRPC services.
    pub grpc: Option<ServerTls>,
    /// Below the HTTP service; and whether metrics want a certificate.
    pub http: Option<(ServerTls, Clients)>,
    /// The way to other replicas.
    pub peers: Option<ClientTls>,
    /// The way to etcd.
    pub etcd: Option<ClientTls>,
    /// Who may do what.
    pub admission: Admission,
    /// Where refusals are told.
    pub refusals: Arc<Refusals>,
}

impl Secure {
    /// Without any of it.
    pub fn plain(clock: &Arc<dyn Clock>, metrics: &Arc<Metrics>) -> Secure {
        let refusals = Arc::new(Refusals::new(Arc::clone(clock), Arc::clone(metrics)));
        Secure {
            grpc: None,
            http: None,
            peers: None,
            etcd: None,
            admission: Admission::of_everybody(),
            refusals,
        }
    }

    /// By the configuration.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn of(config: &Config, clock: &Arc<dyn Clock>, metrics: &Arc<Metrics>) -> Result<Secure, TlsError> {
        let plain = Secure::plain(clock, metrics);
        let etcd = config.etcd_tls.clone().map(ClientTls::new).transpose()?;
        let Some(tls) = &config.tls else {
            return Ok(Secure { etcd, ..plain });
        };
        let grpc = ServerTls::new(tls.files.clone(), tls.clients, b"h2")?;
        // A kubelet has no certificate, and asks all the same.
        let on_http = if tls.clients == Clients::Required { Clients::Optional } else { tls.clients };
        let http = if tls.http {
            Some((ServerTls::new(tls.files.clone(), on_http, b"http/1.1")?, on_http))
        } else {
            None
        };
        let admission = match tls.clients {
            Clients::Required => Admission::by_certificate(Arc::clone(&plain.refusals)),
            Clients::Optional | Clients::None => plain.admission,
        };
        let peers = Some(ClientTls::new(tls.files.clone())?);
        Ok(Secure { grpc: Some(grpc), http, peers, etcd, admission, refusals: plain.refusals })
    }
}

/// Sees to it that new certificates are taken up where nobody connects, and that the metric says how long they are valid.
pub async fn keep(tls: ServerTls, metrics: Arc<Metrics>) {
    loop {
        let ends = tls.ends().and_then(|ends| ends.duration_since(SystemTime::UNIX_EPOCH).ok());
        let seconds = ends.map_or(0, |ends| i64::try_from(ends.as_secs()).unwrap_or(i64::MAX));
        metrics.tls_certificate_expiry.set(seconds);
        tokio::time::sleep(LOOK).await;
    }
}
