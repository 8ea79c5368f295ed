//! The way to another replica, or to this one's own listener.

use metasrv_tls::ClientTls;
use metasrv_tls::client::Connector;
use tonic::transport::{Channel, Endpoint};

/// How replicas reach one another: plain, or with certificates.
#[derive(Clone, Default)]
pub struct Peers {
    tls: Option<ClientTls>,
}

impl Peers {
    /// With certificates, where there are any.
    pub fn new(tls: Option<ClientTls>) -> Peers {
        Peers { tls }
    }

    /// The same for the way to oneself by the loopback address: the certificate is for the name that others use.
    pub fn to_oneself(&self, advertised: &str) -> Peers {
        let host = advertised.rsplit_once(':').map_or(advertised, |(host, _)| host);
        Peers { tls: self.tls.as_ref().map(|tls| tls.expecting(host)) }
    }

    /// How hands are shaken with others; `None`: connections are plain.
    pub fn tls(&self) -> Option<&ClientTls> {
        self.tls.as_ref()
    }

    /// A connection to the gRPC service at `host:port`. The caller bounds the time that this may take.
    ///
    /// # Errors
    /// Why there is none, for the log.
    pub async fn connect(&self, addr: &str) -> Result<Channel, String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let endpoint =
            Endpoint::from_shared(format!("{scheme}://{addr}")).map_err(|error| error.to_string())?;
        let endpoint = endpoint.tcp_nodelay(true);
        let connected = match &self.tls {
            Some(tls) => endpoint.connect_with_connector(Connector(tls.clone())).await,
            None => endpoint.connect().await,
        };
        connected.map_err(|error| in_full(&error))
    }
}

/// "transport error" says nothing; the innermost cause does.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(inner) = innermost.source() {
        innermost = inner;
    }
    innermost.to_string()
}
