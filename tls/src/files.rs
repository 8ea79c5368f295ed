//! The files that keys and certificates come from, all in PEM.

use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::validity;

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is not what it has to be.
    #[error("{}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Certificate and key, or the certificates among themselves, do not fit.
    #[error("{0}")]
    Unfit(String),
}

/// Where keys and certificates are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// The authorities that the other side's certificate has to come from.
    pub ca: PathBuf,
    /// This side's own. `None`: it has none, and says nothing of itself.
    pub own: Option<Own>,
}

/// One's own certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Own {
    /// It, and the authorities between it and the root, in this order.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl TlsFiles {
    /// From three settings, each of which may be missing. `Ok(None)`: all are, so no TLS.
    ///
    /// # Errors
    /// Which of the three is missing: 0 the authority, 1 the certificate, 2 the key.
    pub fn of(
        ca: Option<PathBuf>,
        certificate: Option<PathBuf>,
        key: Option<PathBuf>,
    ) -> Result<Option<TlsFiles>, usize> {
        match (ca, certificate, key) {
            (None, None, None) => Ok(None),
            (None, ..) => Err(0),
            (Some(_), None, Some(_)) => Err(1),
            (Some(_), Some(_), None) => Err(2),
            (Some(ca), None, None) => Ok(Some(TlsFiles { ca, own: None })),
            (Some(ca), Some(certificate), Some(key)) => {
                Ok(Some(TlsFiles { ca, own: Some(Own { certificate, key }) }))
            }
        }
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        let own = self.own.iter().flat_map(|own| [own.certificate.as_path(), own.key.as_path()]);
        std::iter::once(self.ca.as_path()).chain(own)
    }

    /// What tells that a file was changed: time, size and number. A link that leads elsewhere (as Kubernetes mounts secrets)
    /// is another file.
    pub(crate) fn stamps(&self) -> Stamps {
        let stamp = |path: &Path| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.modified().ok()?, found.len(), found.ino()))
        };
        self.paths().map(stamp).collect()
    }

    /// Reads them all.
    pub(crate) fn load(&self) -> Result<Material, TlsError> {
        let mut roots = RootCertStore::empty();
        for authority in certificates(&self.ca)? {
            roots.add(authority).map_err(|error| wrong(&self.ca, error))?;
        }
        let Some(own) = &self.own else { return Ok(Material { roots, own: None, ends: None }) };
        let chain = certificates(&own.certificate)?;
        let ends = chain.first().and_then(|first| validity::ends(first));
        let key = PrivateKeyDer::from_pem_file(&own.key).map_err(|error| wrong(&own.key, error))?;
        Ok(Material { roots, own: Some((chain, key)), ends })
    }
}

pub(crate) type Stamps = Vec<Option<(SystemTime, u64, u64)>>;

/// What stands in the files.
pub(crate) struct Material {
    pub(crate) roots: RootCertStore,
    pub(crate) own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    /// Until when one's own certificate is valid.
    pub(crate) ends: Option<SystemTime>,
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| wrong(path, error))?;
    let found: Result<Vec<_>, _> = read.collect();
    let found = found.map_err(|error| wrong(path, error))?;
    if found.is_empty() {
        return Err(wrong(path, "there is no certificate in it (PEM, -----BEGIN CERTIFICATE-----)"));
    }
    Ok(found)
}

fn wrong(path: &Path, why: impl ToString) -> TlsError {
    TlsError::File { path: path.to_owned(), why: why.to_string() }
}

/// An error with its innermost cause, in one line.
pub(crate) fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        if !text.contains(&cause.to_string()) {
            // Writing to a text does not fail.
            let _ = write!(text, ": {cause}");
        }
        next = cause.source();
    }
    text
}
