//! The way to another replica, or to this one's own listener.

use metasrv_tls::ClientTls;
use tonic::transport::{Channel, Endpoint};

use crate::dial::{Connection, Dialer};

/// How replicas reach one another.
#[derive(Clone, Default)]
pub struct Peers {
    dialer: Dialer,
}

impl Peers {
    /// By this dialer, whose certificates are those for replicas.
    pub fn new(dialer: Dialer) -> Peers {
        Peers { dialer }
    }

    /// The same for the way to oneself by the loopback address: the certificate is for the name that others use.
    pub fn to_oneself(&self, advertised: &str) -> Peers {
        let host = advertised.rsplit_once(':').map_or(advertised, |(host, _)| host);
        Peers { dialer: self.dialer.secured(self.tls().map(|tls| tls.expecting(host))) }
    }

    /// How hands are shaken with others; `None`: connections are plain.
    pub fn tls(&self) -> Option<&ClientTls> {
        self.dialer.tls()
    }

    /// A connection on which nothing is said yet.
    ///
    /// # Errors
    /// As TCP has them.
    pub async fn open(&self, addr: &str) -> std::io::Result<Connection> {
        self.dialer.connect(addr).await
    }

    /// A connection to the gRPC service at `host:port`. The caller bounds the time that this may take.
    ///
    /// # Errors
    /// Why there is none, for the log.
    pub async fn connect(&self, addr: &str) -> Result<Channel, String> {
        let scheme = if self.tls().is_some() { "https" } else { "http" };
        let endpoint =
            Endpoint::from_shared(format!("{scheme}://{addr}")).map_err(|error| error.to_string())?;
        self.dialer.connected(&endpoint.tcp_nodelay(true)).await.map_err(|error| in_full(&error))
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
