//! The side that accepts: it shows its certificate, and wants one of the other side, or not.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{CertificateError, Error, ServerConfig};
pub use tokio_rustls::server::TlsStream as Stream;

use crate::files::{Material, TlsError, TlsFiles, in_full};
use crate::identity::Identity;
use crate::reload::Reloading;

/// What is wanted of the other side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clients {
    /// A certificate of one of the authorities. Without one, or with another one, there is no connection.
    Required,
    /// If it has one, it has to be of one of the authorities.
    Optional,
    /// Nothing.
    None,
}

/// See the module. Clones share what was read.
#[derive(Clone)]
pub struct ServerTls {
    reloading: Arc<Reloading<ServerConfig>>,
}

impl ServerTls {
    /// For this protocol, such as `h2`.
    ///
    /// # Errors
    /// The files cannot be used, or there is no certificate of one's own among them.
    pub fn new(files: TlsFiles, clients: Clients, protocol: &'static [u8]) -> Result<ServerTls, TlsError> {
        let reloading = Reloading::new(files, move |material| settings(material, clients, protocol))?;
        Ok(ServerTls { reloading: Arc::new(reloading) })
    }

    /// Until when the certificate is valid.
    pub fn ends(&self) -> Option<SystemTime> {
        self.reloading.current().1
    }

    /// Shakes hands; returns whom the other side's certificate names. `None`: it showed none.
    ///
    /// # Errors
    /// The other side is refused, or refuses, or the connection fails.
    pub async fn accept<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: IO,
    ) -> io::Result<(Stream<IO>, Option<Identity>)> {
        let (settings, _) = self.reloading.current();
        let stream = TlsAcceptor::from(settings).accept(io).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let identity = shown.map(Identity::of);
        Ok((stream, identity))
    }
}

fn settings(material: Material, clients: Clients, protocol: &[u8]) -> Result<ServerConfig, TlsError> {
    let unfit = |error: &dyn std::error::Error| TlsError::Unfit(in_full(error));
    let Some((chain, key)) = material.own else {
        return Err(TlsError::Unfit("a server needs a certificate of its own".to_owned()));
    };
    let builder = ServerConfig::builder_with_provider(crate::provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| unfit(&error))?;
    let verifier = || {
        let roots = Arc::new(material.roots.clone());
        WebPkiClientVerifier::builder_with_provider(roots, crate::provider())
    };
    let builder = match clients {
        Clients::None => builder.with_no_client_auth(),
        Clients::Optional => builder.with_client_cert_verifier(
            verifier().allow_unauthenticated().build().map_err(|error| unfit(&error))?,
        ),
        Clients::Required => {
            builder.with_client_cert_verifier(verifier().build().map_err(|error| unfit(&error))?)
        }
    };
    let mut settings = builder.with_single_cert(chain, key).map_err(|error| unfit(&error))?;
    settings.alpn_protocols = vec![protocol.to_vec()];
    settings.session_storage = Arc::new(NoServerSessionStorage {});
    settings.send_tls13_tickets = 0;
    Ok(settings)
}

/// Why a handshake failed, in a word; `None` where nobody began one.
pub fn reason(error: &io::Error) -> Option<&'static str> {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    Some(match inner {
        Some(Error::NoCertificatesPresented) => "no_certificate",
        Some(Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) => "expired",
        Some(Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        )) => "not_valid_yet",
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => {
            "unknown_issuer"
        }
        Some(Error::InvalidCertificate(_)) => "invalid_certificate",
        Some(Error::AlertReceived(_)) => "refused_by_peer",
        Some(Error::InvalidMessage(_)) => "not_tls",
        Some(_) => "handshake",
        None => return None,
    })
}
