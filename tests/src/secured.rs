//! A cluster with certificates on both sides of every connection, etcd's included: those of `metactl cert dev`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use metasrv_proto::admin::GetStatusRequest;
use metasrv_proto::admin::admin_client::AdminClient;
use metasrv_tls::client::Connector;
use metasrv_tls::{ClientTls, Own, TlsFiles};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::transport::{Channel, Endpoint};

use crate::binaries::binary;
use crate::metactl::{Run, bare, command, run};
use crate::ports::free_port;
use crate::process::Process;
use crate::wait::eventually;

/// A first election, and room for a loaded machine.
const ELECTED: Duration = Duration::from_secs(30);

/// Where everything listens.
const HOST: &str = "127.0.0.1";

/// One replica.
pub struct Replica {
    /// Its process.
    pub process: Process,
    /// Its gRPC port.
    pub grpc: u16,
    /// Its HTTP port.
    pub http: u16,
}

/// See the module.
pub struct Secured {
    /// Its replicas.
    pub replicas: Vec<Replica>,
    /// Its datanodes, with ids from 1.
    pub datanodes: Vec<Process>,
    _etcd: Process,
    directory: TempDir,
}

impl Secured {
    /// Starts etcd, so many replicas and so many datanodes, and waits until somebody leads.
    pub async fn start(replicas: usize, datanodes: u64) -> Secured {
        let directory = tempfile::Builder::new().prefix("metasrv-tls-").tempdir().expect("a directory");
        let path = directory.path();
        certificates(path, "certificates").await;
        let port = free_port();
        let etcd = etcd(path, port);
        let ports: Vec<(u16, u16)> = (0..replicas).map(|_| (free_port(), free_port())).collect();
        let replicas = ports.iter().enumerate().map(|(index, (grpc, http))| {
            let mut arguments = vec![
                "serve".to_owned(),
                format!("--name=metasrv-{index}"),
                format!("--grpc-addr={HOST}:{grpc}"),
                format!("--http-addr={HOST}:{http}"),
                format!("--etcd-endpoints=https://{HOST}:{port}"),
            ];
            arguments.extend(flags(path, "", "replica"));
            arguments.extend(flags(path, "etcd-", "replica"));
            let process = Process::start(&format!("metasrv-{index}"), &binary("metasrv"), arguments, path);
            Replica { process, grpc: *grpc, http: *http }
        });
        let replicas = replicas.collect();
        let mut secured = Secured { replicas, datanodes: Vec::new(), _etcd: etcd, directory };
        secured.leader().await;
        for id in 1..=datanodes {
            let started = secured.datanode(id, &format!("datanode-{id}"));
            secured.datanodes.push(started);
        }
        secured.connected(datanodes).await;
        secured
    }

    /// Waits until so many datanodes are connected.
    async fn connected(&self, datanodes: u64) {
        eventually(ELECTED, &format!("{datanodes} datanodes are connected"), async || {
            let listed = self.metactl("admin", "node list -o json").await;
            let nodes: Vec<serde_json::Value> = serde_json::from_str(&listed.data).unwrap_or_default();
            let connected =
                nodes.iter().filter(|node| node["connected"] == true && node["role"] == "datanode");
            let connected = connected.count();
            if u64::try_from(connected) == Ok(datanodes) { Ok(()) } else { Err(format!("{listed:?}")) }
        })
        .await;
    }

    /// A datanode of this id, with the certificate of this name.
    pub fn datanode(&self, id: u64, certificate: &str) -> Process {
        let path = self.directory.path();
        let name = format!("datanode-{id}-as-{certificate}");
        let mut arguments = vec![
            "run".to_owned(),
            format!("--node-id={id}"),
            format!("--metasrv={}", self.addrs()),
            format!("--grpc-addr={HOST}:{}", free_port()),
            format!("--data={}", path.join(&name).display()),
            format!("--shared={}", path.join("regions").display()),
        ];
        arguments.extend(flags(path, "", certificate));
        Process::start(&name, &binary("datanode"), arguments, path)
    }

    /// Where everything is.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The replicas' gRPC addresses, separated by commas.
    pub fn addrs(&self) -> String {
        let addrs: Vec<String> = self.replicas.iter().map(|one| format!("{HOST}:{}", one.grpc)).collect();
        addrs.join(",")
    }

    /// The files of this name, and the authority that all share.
    pub fn files(&self, name: &str) -> TlsFiles {
        files(&self.directory.path().join("certificates"), name)
    }

    /// Waits until somebody leads; says which replica, and its term.
    pub async fn leader(&self) -> (usize, u64) {
        let admin = ClientTls::new(self.files("admin")).expect("the certificates are there");
        eventually(ELECTED, "a replica leads", async || {
            let mut seen = Vec::new();
            for (index, replica) in self.replicas.iter().enumerate() {
                match status(channel(replica.grpc, Some(admin.clone()))).await {
                    Ok((role, term)) if role == "leader" => return Ok((index, term)),
                    Ok((role, term)) => seen.push(format!("{index}: {role} {term}")),
                    Err(why) => seen.push(format!("{index}: {why}")),
                }
            }
            Err(seen.join("; "))
        })
        .await
    }

    /// Runs metactl with the certificate of this name.
    pub async fn metactl(&self, name: &str, line: &str) -> Run {
        let files = self.files(name);
        let mut command = command(line);
        command.env("METACTL_METASRV", self.addrs()).env("METACTL_TLS_CA", files.ca);
        if let Some(own) = files.own {
            command.env("METACTL_TLS_CERTIFICATE", own.certificate).env("METACTL_TLS_KEY", own.key);
        }
        run(command).await
    }

    /// A metric of a replica, with these labels as they stand there; 0 where it is not there yet.
    pub async fn metric(&self, replica: usize, series: &str) -> f64 {
        let page = self.page(replica, Some("admin"), "/metrics").await.expect("metrics are served");
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// A page of a replica's HTTP port, with the certificate of this name or with none.
    ///
    /// # Errors
    /// There is no connection.
    pub async fn page(&self, replica: usize, name: Option<&str>, path: &str) -> std::io::Result<String> {
        let mut files = self.files(name.unwrap_or("admin"));
        if name.is_none() {
            files.own = None;
        }
        let tls = ClientTls::with_protocol(files, b"http/1.1").expect("the certificates are there");
        let mut stream = tls.open(HOST, self.replicas[replica].http).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut page = Vec::new();
        match stream.read_to_end(&mut page).await {
            Err(error) if page.is_empty() => Err(error),
            // Some end a connection without a word.
            _ => Ok(String::from_utf8_lossy(&page).into_owned()),
        }
    }
}

/// Makes a set of certificates in this directory, of an authority that is there or of a new one.
pub async fn certificates(directory: &Path, name: &str) {
    let path = directory.join(name);
    let made = bare(&format!("cert dev --directory {} --hosts localhost,{HOST}", path.display())).await;
    assert_eq!(made.code, 0, "{made:?}");
}

/// The files of this name in a directory.
pub fn files(directory: &Path, name: &str) -> TlsFiles {
    let of = |ending: &str| directory.join(format!("{name}.{ending}"));
    TlsFiles { ca: directory.join("ca.pem"), own: Some(Own { certificate: of("pem"), key: of("key") }) }
}

/// A gRPC connection to a port of this machine that is made when it is used; plain without certificates.
pub fn channel(port: u16, tls: Option<ClientTls>) -> Channel {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{HOST}:{port}")).expect("an address");
    let endpoint = endpoint.connect_timeout(Duration::from_secs(2));
    match tls {
        Some(tls) => endpoint.connect_with_connector_lazy(Connector(tls)),
        None => endpoint.connect_lazy(),
    }
}

/// What a replica says of itself: its role and its term.
///
/// # Errors
/// Why it says nothing, with the cause.
pub async fn status(channel: Channel) -> Result<(String, u64), String> {
    let mut request = tonic::Request::new(GetStatusRequest::default());
    request.set_timeout(Duration::from_secs(2));
    match AdminClient::new(channel).get_status(request).await {
        Ok(status) => Ok((status.get_ref().role.clone(), status.get_ref().term)),
        Err(status) => Err(in_full(&status)),
    }
}

fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

fn flags(directory: &Path, prefix: &str, name: &str) -> Vec<String> {
    let certificates: PathBuf = directory.join("certificates");
    let path = |file: String| certificates.join(file).display().to_string();
    vec![
        format!("--{prefix}tls-ca={}", path("ca.pem".to_owned())),
        format!("--{prefix}tls-certificate={}", path(format!("{name}.pem"))),
        format!("--{prefix}tls-key={}", path(format!("{name}.key"))),
    ]
}

fn etcd(directory: &Path, port: u16) -> Process {
    let certificates = directory.join("certificates");
    let path = |file: &str| certificates.join(file).display().to_string();
    let (client, peer) = (format!("https://{HOST}:{port}"), format!("http://{HOST}:{}", free_port()));
    let arguments = [
        "--name=etcd".to_owned(),
        format!("--data-dir={}", directory.join("etcd.data").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=etcd={peer}"),
        format!("--cert-file={}", path("etcd.pem")),
        format!("--key-file={}", path("etcd.key")),
        format!("--trusted-ca-file={}", path("ca.pem")),
        "--client-cert-auth".to_owned(),
    ];
    Process::start("etcd", Path::new("etcd"), arguments, directory)
}
