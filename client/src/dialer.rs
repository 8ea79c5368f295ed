//! How a client reaches replicas: over TCP, plain or with certificates, and in the simulation over whatever is put in its place.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use metasrv_tls::ClientTls;
use metasrv_tls::client::Connector as TlsConnector;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint, Error, Uri};

/// The bytes of a connection, in both directions.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A connection that is being opened.
pub type Opening = Pin<Box<dyn Future<Output = io::Result<Box<dyn Wire>>> + Send>>;

/// What stands in for TCP.
pub trait Network: Send + Sync + 'static {
    /// Opens a connection to `host:port`; fails as TCP does.
    fn connect(&self, addr: &str) -> Opening;
}

/// Opens connections. Clones open them in the same way; the default is TCP.
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
    pub(crate) fn secured(&self, tls: Option<ClientTls>) -> Dialer {
        Dialer { network: self.network.clone(), tls }
    }

    /// The scheme of addresses.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// A channel that connects when it is used.
    pub(crate) fn channel(&self, endpoint: &Endpoint) -> Channel {
        match (&self.network, &self.tls) {
            (None, None) => endpoint.connect_lazy(),
            (None, Some(tls)) => endpoint.connect_with_connector_lazy(TlsConnector(tls.clone())),
            (Some(network), _) => endpoint.connect_with_connector_lazy(Connector(Arc::clone(network))),
        }
    }

    /// A channel that is connected when this returns.
    pub(crate) async fn connected(&self, endpoint: &Endpoint) -> Result<Channel, Error> {
        match (&self.network, &self.tls) {
            (None, None) => endpoint.connect().await,
            (None, Some(tls)) => endpoint.connect_with_connector(TlsConnector(tls.clone())).await,
            (Some(network), _) => endpoint.connect_with_connector(Connector(Arc::clone(network))).await,
        }
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.network.is_some() { "Dialer(another network)" } else { "Dialer(TCP)" })
    }
}

/// A network as gRPC's transport wants it.
#[derive(Clone)]
struct Connector(Arc<dyn Network>);

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Wire>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let opening = self.0.connect(uri.authority().map_or("", |authority| authority.as_str()));
        Box::pin(async move { opening.await.map(TokioIo::new) })
    }
}
