//! The side that connects: it checks the other one's certificate, by its name, and shows its own where it has one.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::version::TLS13;

use crate::files::{Material, TlsError, TlsFiles, in_full};
use crate::reload::Reloading;

/// See the module. Clones share what was read.
#[derive(Clone)]
pub struct ClientTls {
    reloading: Arc<Reloading<ClientConfig>>,
    files: TlsFiles,
    /// Protocols that are offered; those of HTTP/2 below gRPC.
    name: Option<String>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls")
            .field("files", &self.files)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl ClientTls {
    /// For gRPC: HTTP/2 is offered.
    ///
    /// # Errors
    /// The files cannot be used.
    pub fn new(files: TlsFiles) -> Result<ClientTls, TlsError> {
        ClientTls::with_protocol(files, b"h2")
    }

    /// For this protocol.
    ///
    /// # Errors
    /// The files cannot be used.
    pub fn with_protocol(files: TlsFiles, protocol: &'static [u8]) -> Result<ClientTls, TlsError> {
        let reloading = Reloading::new(files.clone(), move |material| settings(material, protocol))?;
        Ok(ClientTls { reloading: Arc::new(reloading), files, name: None })
    }

    /// The same, expecting this name in the certificate instead of the host that is connected to: for whoever goes to
    /// itself by way of the loopback address.
    pub fn expecting(&self, name: &str) -> ClientTls {
        ClientTls { name: Some(name.to_owned()), ..self.clone() }
    }

    /// Until when one's own certificate is valid; `None` where there is none.
    pub fn ends(&self) -> Option<SystemTime> {
        self.reloading.current().1
    }

    /// Shakes hands on a connection to this host, without a port.
    ///
    /// # Errors
    /// The other side is not who it has to be, or the connection fails. That the other side refuses *our* certificate is
    /// heard with the first read after it.
    pub async fn connect<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        host: &str,
        io: IO,
    ) -> io::Result<TlsStream<IO>> {
        let name = self.name.as_deref().unwrap_or(host).trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(name.clone()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no name of a host"))
        })?;
        let (settings, _) = self.reloading.current();
        TlsConnector::from(settings).connect(name, io).await
    }

    /// Connects to a port and shakes hands.
    ///
    /// # Errors
    /// As those of [`ClientTls::connect`], and those of TCP.
    pub async fn open(&self, host: &str, port: u16) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
        stream.set_nodelay(true)?;
        self.connect(host, stream).await
    }
}

fn settings(material: Material, protocol: &[u8]) -> Result<ClientConfig, TlsError> {
    let unfit = |error: &dyn std::error::Error| TlsError::Unfit(in_full(error));
    let builder = ClientConfig::builder_with_provider(crate::provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| unfit(&error))?
        .with_root_certificates(material.roots);
    let mut settings = match material.own {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| unfit(&error))?,
        None => builder.with_no_client_auth(),
    };
    settings.alpn_protocols = vec![protocol.to_vec()];
    settings.resumption = Resumption::disabled();
    Ok(settings)
}

/// Below a gRPC channel: what makes its connections.
#[derive(Clone, Debug)]
pub struct Connector(pub ClientTls);

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = self.0.clone();
        Box::pin(async move {
            let missing = |what| io::Error::new(io::ErrorKind::InvalidInput, format!("{uri} has no {what}"));
            let host = uri.host().ok_or_else(|| missing("host"))?;
            let port = uri.port_u16().ok_or_else(|| missing("port"))?;
            Ok(TokioIo::new(tls.open(host, port).await?))
        })
    }
}
