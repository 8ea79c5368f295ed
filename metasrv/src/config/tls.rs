//! The settings of TLS: which files, for which connections, and that they can be used.

use std::path::PathBuf;

use metasrv_tls::{ClientTls, Clients, ServerTls, TlsFiles};

use super::check::Checker;
use super::{StoreConfig, TlsConfig};

/// The settings of replicas' own connections, in the order of [`TlsFiles::of`].
const OWN: [&str; 3] = ["tls-ca", "tls-certificate", "tls-key"];

/// Those of connections to etcd.
const ETCD: [&str; 3] = ["etcd-tls-ca", "etcd-tls-certificate", "etcd-tls-key"];

/// TLS of a replica's ports and of its way to other replicas.
pub(super) fn of_replicas(checker: &mut Checker<'_>) -> Option<TlsConfig> {
    let clients = match checker.text("tls-clients")?.as_str() {
        "required" => Clients::Required,
        "none" => Clients::None,
        _ => {
            checker.wrong("tls-clients", "must be required or none");
            return None;
        }
    };
    let http = match checker.text("tls-http")?.as_str() {
        "on" => true,
        "off" => false,
        _ => {
            checker.wrong("tls-http", "must be on or off");
            return None;
        }
    };
    let files = files(checker, OWN)?;
    if files.own.is_none() {
        checker.wrong(
            "tls-certificate",
            "must be set, because tls-ca is: a replica needs a certificate of its own",
        );
        return None;
    }
    if let Err(error) = ServerTls::new(files.clone(), clients, b"h2") {
        checker.wrong("tls-certificate", error.to_string());
        return None;
    }
    Some(TlsConfig { files, clients, http })
}

/// TLS of connections to etcd: wanted where, and only where, its addresses are of TLS.
pub(super) fn of_etcd(checker: &mut Checker<'_>, store: Option<&StoreConfig>) -> Option<TlsFiles> {
    let files = files(checker, ETCD);
    let secured = match store {
        Some(StoreConfig::Etcd { endpoints }) => {
            let secured = endpoints.iter().filter(|endpoint| endpoint.starts_with("https://")).count();
            if secured != 0 && secured != endpoints.len() {
                checker.wrong("etcd-endpoints", "must all begin with https://, or all with http://");
            }
            secured != 0
        }
        _ => false,
    };
    match (&files, secured) {
        (None, true) => {
            checker.wrong("etcd-tls-ca", "must be set, because etcd-endpoints begin with https://")
        }
        (Some(_), false) => {
            checker.wrong("etcd-tls-ca", "is for etcd-endpoints that begin with https://, and none does")
        }
        (Some(files), true) => {
            if let Err(error) = ClientTls::new(files.clone()) {
                checker.wrong("etcd-tls-ca", error.to_string());
            }
        }
        (None, false) => {}
    }
    files
}

fn files(checker: &mut Checker<'_>, names: [&str; 3]) -> Option<TlsFiles> {
    let path = |name: &str| checker.text(name).filter(|text| !text.is_empty()).map(PathBuf::from);
    let [ca, certificate, key] = names.map(path);
    match TlsFiles::of(ca, certificate, key) {
        Ok(files) => files,
        Err(missing) => {
            let rule = format!("must be set together with the others of {}", names.join(", "));
            checker.wrong(names.get(missing).copied().unwrap_or_default(), rule);
            None
        }
    }
}
