//! A replica: built from its configuration, run until it is told to end.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | build, run, drain |
//! | `surroundings.rs` | the machine's clock, ports and network, or what a simulation makes of them |
//! | `coordination.rs` | how it comes to lead, and how it stops |
//! | `heartbeat.rs` | the `Heartbeat` service |
//! | `stream.rs` | the loop of one stream |
//! | `farewell.rs` | how a stream ends, and its last word |
//! | `limits.rs` | what is refused before anything is done with it |
//! | `admin.rs` | the `Admin` service |
//! | `listing.rs`, `regions.rs` | what its lists say; those of regions, a message at a time |
//! | `operations.rs`, `operations/` | the `Operations` service |
//! | `secure.rs` | TLS: ports, the way to others, who is admitted |
//! | `incoming.rs` | connections with TLS, before the server sees them |
//! | `admission.rs` | who may do what, by certificate |
//! | `refusal.rs` | what both services refuse in the same words |
//! | `routes.rs` | the `Routes` service |
//! | `reflection.rs` | gRPC reflection |
//! | `follower.rs` | what they say where this replica does not lead |
//! | `replica.rs` | what replicas ask one another |
//! | `supervisor.rs` | the `Supervisor` service: death certificates |
//! | `transfer.rs` | a planned change of leader |

mod admin;
mod admission;
mod check;
mod coordination;
mod farewell;
mod follower;
mod health;
mod heartbeat;
mod incoming;
mod limits;
mod listing;
mod operations;
mod reflection;
mod refusal;
mod regions;
mod replica;
mod routes;
mod secure;
mod stream;
mod supervisor;
mod surroundings;
mod timeline;
mod transfer;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use metasrv_core::id::Term;
use metasrv_proto::admin::CandidateRecord;
use metasrv_proto::admin::admin_server::AdminServer;
use metasrv_proto::admin::operations_server::OperationsServer;
use metasrv_proto::admin::replica_server::ReplicaServer;
use metasrv_proto::admin::routes_server::RoutesServer;
use metasrv_proto::admin::supervisor_server::SupervisorServer;
use metasrv_proto::meta::heartbeat_server::HeartbeatServer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::Stream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::Connected;

use crate::clock::wall_clock_ms;
use crate::config::{Config, StoreConfig, loopback_of};
use crate::election::{Elector, VitalSigns};
use crate::etcd::election::EtcdElection;
use crate::etcd::members::Members;
use crate::etcd::store::EtcdStore;
use crate::etcd::watch::EtcdSource;
use crate::faults::Faults;
use crate::handler::HeartbeatHandlerGroup;
use crate::keys::Keys;
use crate::leader::{Candidate, TakeoverError};
use crate::mirror::{self, Mirror};
use crate::observer::{self, View};
use crate::peer::Peers;
use crate::probe;
use crate::reserve;
use crate::routes::embedded::EmbeddedSource;
use crate::routes::{self as board, RouteBoard};
use crate::standby::Standby;
use crate::store::embedded::EmbeddedStore;
use crate::store::{Store, StoreError};
use admin::AdminService;
use coordination::{Coordination, lead_alone};
use health::ReplicaHealth;
use heartbeat::{HeartbeatService, Shared};
use operations::OperationsService;
use replica::ReplicaService;
use routes::RoutesService;
use supervisor::SupervisorService;
pub use surroundings::{Surroundings, serve};

/// A replica that was told to end does so within this time. Where etcd does not answer, the last drain, the resignation
/// and the release of the lease take 2 s each, open calls 2 s more; and room.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// Open calls have so long to end by themselves once leadership is given up. Heartbeat streams are told, and end.
const CLOSING: Duration = Duration::from_secs(2);

/// HTTP/2 pings find a peer that fell silent.
const HTTP2_KEEPALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5));

/// Bytes that a peer may send on one stream before they are taken up. A steady heartbeat has a hundred; a list of 100,000 regions
/// takes fifty round trips of these, once in a stream's life. What ten thousand nodes can pile up here at most is 1.3 GB
/// with it, and 10 GB with the megabyte that is usual.
const STREAM_WINDOW: u32 = 128 << 10;
/// The same for all streams of a connection: a node has one, whoever watches over many nodes has some.
const CONNECTION_WINDOW: u32 = 512 << 10;

/// Why a replica did not run, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A port is not to be had.
    #[error("cannot listen on {addr} ({flag}): {source}; is another process using it?")]
    Listen {
        /// The flag that asked for it.
        flag: &'static str,
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The embedded store does not open.
    #[error("cannot open the embedded store in {dir}: {source}")]
    Open {
        /// Its directory.
        dir: PathBuf,
        /// What it said.
        source: StoreError,
    },
    /// The store is not usable.
    #[error("cannot use the store: {0}")]
    Store(#[from] StoreError),
    /// etcd's endpoints do not parse.
    #[error("cannot use the etcd endpoints: {0}")]
    Endpoints(String),
    /// The embedded replica could not take over.
    #[error("cannot take over: {0}")]
    Takeover(#[from] TakeoverError),
    /// The gRPC server failed.
    #[error("the gRPC server failed: {0}")]
    Grpc(#[from] tonic::transport::Error),
    /// Certificates cannot be used.
    #[error("cannot use the certificates: {0}")]
    Tls(#[from] metasrv_tls::TlsError),
    /// Signals cannot be received.
    #[error("cannot receive signals: {0}")]
    Signals(std::io::Error),
    /// A task that runs as long as the replica does has ended. Without it the replica would be half of one.
    #[error("{0} ended by itself")]
    Task(&'static str),
    /// The embedded store was set back. A start is a new term, and the counter of terms stands where it has to.
    #[error(
        "a node has seen a higher term than {0}: the embedded store was set back; start again, to lead above it"
    )]
    Outranked(Term),
    /// Something did not end in time.
    #[error("not everything ended within {0:?}: {1}")]
    Hung(Duration, &'static str),
}

/// Runs a replica until SIGTERM or SIGINT; a second signal ends it at once.
///
/// # Errors
/// [`ServeError`].
pub async fn run(config: Config, faults: Option<Faults>) -> Result<(), ServeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    let (tell, shutdown) = watch::channel(false);
    let replica = serve(config, faults, shutdown);
    tokio::pin!(replica);
    loop {
        tokio::select! {
            biased;
            result = &mut replica => return result,
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if tell.send_replace(true) {
            tracing::warn!("told twice to end: ending at once");
            return Ok(());
        }
        tracing::info!("told to end: handing over, draining, closing");
    }
}

/// Runs a replica in these surroundings until `shutdown` turns true.
///
/// # Errors
/// [`ServeError`].
pub async fn serve_in<I, IO>(
    surroundings: Surroundings<I>,
    config: Config,
    faults: Option<Faults>,
    shutdown: watch::Receiver<bool>,
) -> Result<(), ServeError>
where
    I: Stream<Item = std::io::Result<IO>>,
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let Surroundings { clock, metrics, dialer, secure, incoming, http } = surroundings;
    let peers = Peers::new(dialer.secured(secure.peers.clone()));
    let own_listener = loopback_of(config.grpc_addr).to_string();
    let keys = Keys::new(&config.prefix);
    let (seen, leader) = watch::channel(None);
    let (view_sender, view) = watch::channel(View::of_replica(&config.advertise_addr));
    let mut tasks = JoinSet::new();

    let record = CandidateRecord {
        name: config.name.clone(),
        addr: config.advertise_addr.clone(),
        election_ttl_ms: u64::try_from(config.timing.election_ttl.as_millis()).unwrap_or(u64::MAX),
        region_lease_ms: u64::try_from(config.timing.region_lease.as_millis()).unwrap_or(u64::MAX),
        term: 0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at_ms: wall_clock_ms(),
        reserved_term: 0,
        takes_begun_term: true,
    };
    let mirror = matches!(config.store, StoreConfig::Etcd { .. })
        .then(|| Mirror::new(keys.clone(), Arc::clone(&clock), Arc::clone(&metrics)));
    let group = HeartbeatHandlerGroup::standard();
    let mailbox = Arc::clone(group.mailbox());
    let routes = RouteBoard::new(keys.clone(), Arc::clone(&clock), Arc::clone(&metrics));
    let candidate = |store: &Arc<dyn Store>| Candidate {
        record: record.clone(),
        store: Arc::clone(store),
        keys: keys.clone(),
        clock: Arc::clone(&clock),
        metrics: Arc::clone(&metrics),
        timing: config.timing,
        mirror: mirror.clone(),
        mailbox: Arc::clone(&mailbox),
    };

    let mut replica = None;
    let (store, mut coordination) = match &config.store {
        StoreConfig::Etcd { endpoints } => {
            let unusable = |error: StoreError| ServeError::Endpoints(error.to_string());
            let members = Members {
                endpoints: endpoints.clone(),
                metrics: Some(Arc::clone(&metrics)),
                dialer: dialer.secured(secure.etcd.clone()),
            };
            let store: Arc<dyn Store> = Arc::new(EtcdStore::new(&members).map_err(unusable)?);
            let election = Arc::new(EtcdElection::new(&members).map_err(unusable)?);
            let (answering, answers) = watch::channel(None);
            let oneself = peers.to_oneself(&config.advertise_addr);
            tasks.spawn(probe::probe(oneself, own_listener, Arc::clone(&clock), answering));
            let vitals =
                VitalSigns { answers, view: view.clone(), faults: faults.clone().unwrap_or_default() };
            let (elector, handle) = Elector::new(Arc::clone(&election), candidate(&store), seen, vitals);
            let longest = config.timing.election_ttl;
            let standby = Standby::new(
                Arc::clone(&election),
                Arc::clone(&store),
                keys.clone(),
                Arc::clone(&clock),
                Arc::clone(&metrics),
                peers.clone(),
                longest,
            );
            tasks.spawn(Arc::clone(&standby).watch(view.clone()));
            replica = Some(ReplicaService::new(handle.clone(), standby));
            if let Some(mirror) = mirror.clone() {
                let source = Arc::new(EtcdSource::new(&members, &keys).map_err(unusable)?);
                tasks.spawn(mirror::follow::follow(mirror, source, leader.clone()));
            }
            let source = EtcdSource::over(&members, keys.routed()).map_err(unusable)?;
            tasks.spawn(board::keep(routes.clone(), Arc::new(source)));
            tasks.spawn(reserve::keep(candidate(&store), view.clone()));
            tasks.spawn(observer::observe(
                election,
                Arc::clone(&store),
                keys.clone(),
                Arc::clone(&clock),
                view_sender,
            ));
            (store, Coordination::Elected { handle, running: tokio::spawn(elector.run()) })
        }
        StoreConfig::Embedded { dir } => {
            let opened =
                EmbeddedStore::open(dir).map_err(|source| ServeError::Open { dir: dir.clone(), source })?;
            let opened = Arc::new(opened);
            let source = Arc::new(EmbeddedSource::new(Arc::clone(&opened), keys.routed()));
            tasks.spawn(board::keep(routes.clone(), source));
            let store: Arc<dyn Store> = opened;
            let (leader, leading) = lead_alone(candidate(&store)).await?;
            let own = CandidateRecord { term: leader.term().0, ..record.clone() };
            view_sender.send_replace(observer::alone(own, clock.now()));
            seen.send_replace(Some(Arc::clone(&leader)));
            (Arc::clone(&store), Coordination::Alone { leader, leading, store, keys: keys.clone(), seen })
        }
    };

    let shared = Arc::new(Shared {
        group,
        leader: leader.clone(),
        view: view.clone(),
        mirror: mirror.clone(),
        clock: Arc::clone(&clock),
        metrics: Arc::clone(&metrics),
        election: coordination.handle(),
        faults: faults.clone().unwrap_or_default(),
        peers,
        admission: secure.admission.clone(),
    });
    let health = Arc::new(ReplicaHealth::new(Arc::clone(&shared), shutdown.clone()));
    let operations = OperationsService::new(Arc::clone(&shared), Arc::clone(&store), keys.clone());
    let supervisor = SupervisorService::new(Arc::clone(&shared));
    let admin = AdminService::new(Arc::clone(&shared), config.name.clone(), store, keys.clone());
    tracing::info!(
        name = config.name, grpc = %config.grpc_addr, http = %config.http_addr, advertised = config.advertise_addr,
        prefix = config.prefix, version = record.version, "serving"
    );

    let (close, closed) = watch::channel(false);
    let pushers = Arc::clone(shared.group.pushers());
    let (reporter, grpc_health) = tonic_health::server::health_reporter();
    tasks.spawn(health::report(Arc::clone(&health), reporter));
    if let Some(tls) = secure.grpc {
        tasks.spawn(secure::keep(tls, Arc::clone(&metrics)));
    }
    if let Some(http) = http {
        tasks.spawn(crate::http::serve(http, health.clone(), metrics, faults, wait_for(closed.clone())));
    }
    let (admission, replicas_only) = (secure.admission.admins(), secure.admission.replicas());
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(HTTP2_KEEPALIVE.0))
        .http2_keepalive_timeout(Some(HTTP2_KEEPALIVE.1))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .add_service(
            HeartbeatServer::new(HeartbeatService::new(shared))
                .max_decoding_message_size(limits::MESSAGE_BYTES),
        )
        .add_service(AdminServer::with_interceptor(admin, admission.clone()))
        .add_service(OperationsServer::with_interceptor(operations, admission))
        .add_service(SupervisorServer::new(supervisor))
        .add_service(RoutesServer::new(RoutesService::new(routes, closed.clone())))
        .add_optional_service(
            replica.map(|replica| InterceptedService::new(ReplicaServer::new(replica), replicas_only)),
        )
        .add_service(grpc_health)
        .add_service(reflection::service())
        .serve_with_incoming_shutdown(incoming, wait_for(closed));
    tokio::pin!(server);

    tokio::select! {
        biased;
        () = wait_for(shutdown) => {}
        error = coordination.ended() => return Err(error),
        Some(_) = tasks.join_next() => return Err(ServeError::Task("the observer, the mirror, the board of routes, the standby, what accepts connections, the HTTP server or the health report")),
        result = &mut server => result?,
    }
    let left = tokio::time::timeout(SHUTDOWN, async {
        coordination.leave().await;
        farewell::all_told(&pushers).await;
        close.send_replace(true);
        tokio::time::timeout(CLOSING, server).await
    });
    let result = left.await;
    tasks.shutdown().await;
    match result {
        Ok(Ok(result)) => result?,
        // Such as a client that watches the health service: it finds another replica.
        Ok(Err(_)) => tracing::warn!(after = ?CLOSING, "calls are still open; ending without them"),
        Err(_) => return Err(ServeError::Hung(SHUTDOWN, "handing over")),
    }
    tracing::info!("ended");
    Ok(())
}

async fn wait_for(mut told: watch::Receiver<bool>) {
    // The sender is gone only when the replica is.
    let _ = told.wait_for(|told| *told).await.map(|told| *told);
}
