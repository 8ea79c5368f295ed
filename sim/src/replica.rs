//! A replica: the real server, on a simulated listener and network.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use metasrv::config::{Config, LogConfig, LogFormat, StoreConfig};
use metasrv::dial::Dialer;
use metasrv::faults::Faults;
use metasrv::server::{Surroundings, serve_in};
use metasrv_core::timing::Timing;
use tokio::sync::watch;

use crate::etcd::MEMBERS;
use crate::host::HostClock;
use crate::net::NetworkOf;
use crate::trace::Trace;

/// Where each replica listens.
pub const PORT: u16 = 3002;

/// Where etcd's members listen.
pub const ETCD_PORT: u16 = 2379;

/// Every key of the installation begins with it.
pub const PREFIX: &str = "/sim";

/// The configuration of the replica that runs on this host.
pub fn config(host: &str, timing: Timing) -> Config {
    let at = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    Config {
        name: host.to_owned(),
        grpc_addr: at(PORT),
        http_addr: at(PORT + 1),
        advertise_addr: format!("{host}:{PORT}"),
        store: StoreConfig::Etcd {
            endpoints: (0..MEMBERS).map(|member| format!("http://e{member}:{ETCD_PORT}")).collect(),
        },
        prefix: PREFIX.to_owned(),
        timing,
        log: LogConfig { level: "info".to_owned(), format: LogFormat::Text },
        tls: None,
        etcd_tls: None,
    }
}

/// Its main function.
pub async fn run(
    network: NetworkOf,
    clock: Arc<HostClock>,
    config: Config,
    faults: Faults,
    shutdown: watch::Receiver<bool>,
    trace: Trace,
) {
    let name = config.name.clone();
    let incoming = network.listen(PORT);
    let dialer = Dialer::over(Arc::new(network));
    let surroundings = Surroundings::plain(clock, dialer, incoming);
    match serve_in(surroundings, config, Some(faults), shutdown).await {
        Ok(()) => trace.say(&name, "the replica has ended"),
        Err(error) => trace.say(&name, &format!("the replica has ended: {error}")),
    }
}
