//! How a replica reaches others: over TCP, plain or with certificates, and in the simulation over whatever is put in its place.
//!
//! Everything that a replica opens (to etcd, to other replicas, to its own listener) is opened here, so that a simulated
//! network sees all of it. What listens is handed in the same way (`server::Surroundings`). The client has the same few
//! lines: a server does not use it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use metasrv_tls::ClientTls;
use metasrv_tls::client::Connector as TlsConnector;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint, Error, Uri};

/// The bytes of a connection, in both directions.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// An open connection.
pub type Connection = Box<dyn Wire>;

/// What stands in for TCP.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// Opens a connection to `host:port`.
    ///
    /// # Errors
    /// As TCP has them: [`io::ErrorKind::ConnectionRefused`] where nobody listens. What is swallowed has no answer.
    async fn connect(&self, addr: &str) -> io::Result<Connection>;
}

/// Opens connections. Clones open them in the same way; the default is TCP without certificates.
#[derive(Clone, Default)]
pub struct Dialer {
    network: Option<Arc<dyn Network>>,
    tls: Option<ClientTls>,
}

impl Dialer {
    /// Over this network instead of TCP.
    pub fn over(network: Arc<dyn Network>) -> Dialer {
        Dialer { network: Some(network), tls: None }
    }

    /// The same with these certificates, or without. What stands in for TCP is plain.
    pub fn secured(&self, tls: Option<ClientTls>) -> Dialer {
        Dialer { network: self.network.clone(), tls }
    }

    /// How hands are shaken; `None`: connections are plain.
    pub fn tls(&self) -> Option<&ClientTls> {
        self.tls.as_ref()
    }

    /// A channel that connects when it is used.
    pub fn channel(&self, endpoint: &Endpoint) -> Channel {
        match (&self.network, &self.tls) {
            (None, None) => endpoint.connect_lazy(),
            (None, Some(tls)) => endpoint.connect_with_connector_lazy(TlsConnector(tls.clone())),
            (Some(network), _) => endpoint.connect_with_connector_lazy(Connector(Arc::clone(network))),
        }
    }

    /// A channel that is connected when this returns.
    ///
    /// # Errors
    /// As the transport has them.
    pub async fn connected(&self, endpoint: &Endpoint) -> Result<Channel, Error> {
        match (&self.network, &self.tls) {
            (None, None) => endpoint.connect().await,
            (None, Some(tls)) => endpoint.connect_with_connector(TlsConnector(tls.clone())).await,
            (Some(network), _) => endpoint.connect_with_connector(Connector(Arc::clone(network))).await,
        }
    }

    /// A connection on which nothing is said yet.
    ///
    /// # Errors
    /// As TCP has them.
    pub async fn connect(&self, addr: &str) -> io::Result<Connection> {
        match &self.network {
            None => Ok(Box::new(TcpStream::connect(addr).await?)),
            Some(network) => network.connect(addr).await,
        }
    }
}

/// A network as gRPC's transport wants it.
#[derive(Clone)]
struct Connector(Arc<dyn Network>);

impl Service<Uri> for Connector {
    type Response = TokioIo<Connection>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Connection>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let network = Arc::clone(&self.0);
        let addr = uri.authority().map(ToString::to_string).unwrap_or_default();
        Box::pin(async move { network.connect(&addr).await.map(TokioIo::new) })
    }
}
