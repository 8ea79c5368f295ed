//! What a replica finds around it: the machine's clock, its ports and its network, or what a simulation makes of them.

use std::net::SocketAddr;
use std::sync::Arc;

use metasrv_core::time::Clock;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::server::TcpIncoming;

use super::secure::Secure;
use super::{ServeError, incoming, serve_in};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::dial::Dialer;
use crate::faults::Faults;
use crate::http::Port;
use crate::metrics::Metrics;

/// See the module.
pub struct Surroundings<I> {
    /// Counts also the time in which the process does not run.
    pub clock: Arc<dyn Clock>,
    /// Where everything is counted.
    pub metrics: Arc<Metrics>,
    /// How others are reached; 127.0.0.1 is the replica itself.
    pub dialer: Dialer,
    /// What is known of certificates.
    pub secure: Secure,
    /// The connections of its gRPC listener.
    pub incoming: I,
    /// Its HTTP port, where it has one.
    pub http: Option<Port>,
}

impl<I> Surroundings<I> {
    /// Without certificates and without HTTP.
    pub fn plain(clock: Arc<dyn Clock>, dialer: Dialer, incoming: I) -> Surroundings<I> {
        let metrics = Arc::new(Metrics::new());
        let secure = Secure::plain(&clock, &metrics);
        Surroundings { clock, metrics, dialer, secure, incoming, http: None }
    }
}

/// Runs a replica on this machine until `shutdown` turns true.
///
/// # Errors
/// [`ServeError`].
pub async fn serve(
    config: Config,
    faults: Option<Faults>,
    shutdown: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let metrics = Arc::new(Metrics::new());
    let mut secure = Secure::of(&config, &clock, &metrics)?;
    let grpc = listen("grpc-addr", config.grpc_addr).await?;
    let http = listen("http-addr", config.http_addr).await?;
    let http = Some(Port { listener: http, tls: secure.http.take() });
    let dialer = Dialer::default();
    match secure.grpc.clone() {
        None => {
            let incoming = TcpIncoming::from(grpc).with_nodelay(Some(true));
            let here = Surroundings { clock, metrics, dialer, secure, incoming, http };
            serve_in(here, config, faults, shutdown).await
        }
        Some(tls) => {
            // Ends when the server takes no more connections.
            let (incoming, accepting) = incoming::secured(grpc, tls, Arc::clone(&secure.refusals));
            let here = Surroundings { clock, metrics, dialer, secure, incoming, http };
            let (served, ()) = tokio::join!(serve_in(here, config, faults, shutdown), accepting);
            served
        }
    }
}

async fn listen(flag: &'static str, addr: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(addr).await.map_err(|source| ServeError::Listen { flag, addr, source })
}
