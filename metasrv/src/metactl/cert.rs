//! `metactl cert dev`: an authority of one's own and a set of certificates, to try TLS out with.
//!
//! | file | for | names |
//! | --- | --- | --- |
//! | `ca.pem`, `ca.key` | everybody checks by the first, the second signs | |
//! | `replica.pem`, `.key` | `metasrv serve` | `replica`, and the hosts |
//! | `admin.pem`, `.key` | metactl | `admin` |
//! | `frontend.pem`, `.key` | frontends | `frontend` |
//! | `datanode-N.pem`, `.key` | `datanode run --node-id N` | `datanode/CLUSTER/N` |
//! | `etcd.pem`, `.key` | etcd | the hosts |
//!
//! Where `ca.key` is there already, it signs on, and all others are made anew: that is how a change of certificates is tried.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use metasrv::certificates::{Authority, CertificateError, Issued, Wanted};
use metasrv_tls::Identity;

use crate::cli::Dev;
use crate::exit::{Exit, Failure};
use crate::output::say;

/// Machines' clocks differ.
const EARLIER: Duration = Duration::from_secs(60 * 60);

/// Makes the set.
pub fn dev(dev: &Dev) -> Result<(), Failure> {
    let directory = &dev.directory;
    std::fs::create_dir_all(directory).map_err(|error| failed(directory, &error))?;
    let now = SystemTime::now();
    let start = now.checked_sub(EARLIER).unwrap_or(now);
    let end = now.checked_add(dev.valid_for).ok_or_else(|| {
        Failure::new(Exit::Usage, "--valid-for: that is longer than there is time".to_owned())
    })?;
    let ca_key = directory.join("ca.key");
    let authority = match std::fs::read_to_string(&ca_key) {
        Ok(key) => Authority::of_key(&key).map_err(|error| failed(&ca_key, &error))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let (authority, issued) = Authority::new(start..end).map_err(unmade)?;
            write(directory, "ca", &issued)?;
            authority
        }
        Err(error) => return Err(failed(&ca_key, &error)),
    };
    let domain = dev.domain.as_str();
    let mut set = vec![
        ("replica".to_owned(), true, vec![Identity::uri(domain, "replica")]),
        ("etcd".to_owned(), true, Vec::new()),
        ("admin".to_owned(), false, vec![Identity::uri(domain, "admin")]),
        ("frontend".to_owned(), false, vec![Identity::uri(domain, "frontend")]),
    ];
    for id in &dev.nodes {
        let uri = Identity::uri_of_node(domain, "datanode", dev.cluster, *id);
        set.push((format!("datanode-{id}"), true, vec![uri]));
    }
    for (name, is_reached, uris) in &set {
        let hosts = if *is_reached { dev.hosts.as_slice() } else { &[] };
        let wanted = Wanted { name, hosts, uris, valid: start..end };
        write(directory, name, &authority.issue(&wanted).map_err(unmade)?)?;
    }
    say(&format!(
        "{} certificates of an authority of their own are in {}, valid until {}",
        set.len(),
        directory.display(),
        humantime::format_rfc3339_seconds(end)
    ));
    say("to try out with, and for nothing else: whoever reads ca.key can sign for anybody");
    Ok(())
}

fn write(directory: &Path, name: &str, issued: &Issued) -> Result<(), Failure> {
    for (ending, text, mode) in [("key", &issued.key, 0o600), ("pem", &issued.certificate, 0o644)] {
        let path = directory.join(format!("{name}.{ending}"));
        // Written beside and renamed: whoever reads it meanwhile reads all of the former one.
        let beside = directory.join(format!(".{name}.{ending}.new"));
        let written = std::fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(mode)
            .open(&beside)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .and_then(|()| std::fs::rename(&beside, &path));
        written.map_err(|error| failed(&path, &error))?;
    }
    Ok(())
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, format!("{}: {error}", path.display()))
}

fn unmade(error: CertificateError) -> Failure {
    Failure::new(Exit::Failed, error.to_string())
}
