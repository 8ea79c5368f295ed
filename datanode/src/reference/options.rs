//! What can be set, by flag or environment, and the check of all of it at once.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use metasrv_client::{MetaClientConfig, parse_address};
use metasrv_proto::meta::Role;
use metasrv_tls::{ClientTls, TlsFiles};

/// Bytes of a label: metasrv accepts no more.
const LABEL_BYTES: usize = 256;

/// The flags of `datanode run`.
#[derive(Args, Debug)]
pub struct Options {
    /// Id of this node, unique among the datanodes of its cluster
    #[arg(long, env = "DATANODE_NODE_ID", value_name = "N")]
    node_id: u64,
    /// Replicas of metasrv; some of them suffice
    #[arg(
        long,
        env = "DATANODE_METASRV",
        value_name = "HOST:PORT,…",
        value_delimiter = ',',
        required = true
    )]
    metasrv: Vec<String>,
    /// Where to listen for gRPC
    #[arg(long, env = "DATANODE_GRPC_ADDR", value_name = "IP:PORT", default_value = "127.0.0.1:4001")]
    grpc_addr: SocketAddr,
    /// How others reach the gRPC address [default: grpc-addr]
    #[arg(long, env = "DATANODE_ADVERTISE_ADDR", value_name = "HOST:PORT")]
    advertise_addr: Option<String>,
    /// This node's own directory; one process at a time
    #[arg(long, env = "DATANODE_DATA", value_name = "DIR")]
    data: PathBuf,
    /// Where the regions are, for all datanodes that may host them [default: DATA/regions]
    #[arg(long, env = "DATANODE_SHARED", value_name = "DIR")]
    shared: Option<PathBuf>,
    /// Zone of this node, for placement
    #[arg(long, env = "DATANODE_ZONE", value_name = "NAME", default_value = "")]
    zone: String,
    /// Machine of this node, for placement [default: the host name]
    #[arg(long, env = "DATANODE_HOST", value_name = "NAME")]
    host: Option<String>,
    /// Capacity relative to the other nodes
    #[arg(long, env = "DATANODE_WEIGHT", value_name = "N", default_value_t = 1)]
    weight: u32,
    /// Note every acknowledged write in this file, for tests
    #[arg(long, env = "DATANODE_WRITE_INTERVALS", value_name = "FILE")]
    write_intervals: Option<PathBuf>,
    /// Write on when the right to has ended, whatever the storage says: a test sees to it that this is noticed
    #[arg(long, hide = true)]
    write_without_right: bool,
    /// Run under a small parent that certifies this process's end to metasrv and starts it again
    #[arg(long, env = "DATANODE_SUPERVISED")]
    supervised: bool,
    /// Authorities of metasrv's certificates (PEM): connections to it are TLS then
    #[arg(long, env = "DATANODE_TLS_CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// This node's certificate, which names its id (PEM)
    #[arg(long, env = "DATANODE_TLS_CERTIFICATE", value_name = "FILE")]
    tls_certificate: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, env = "DATANODE_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Namespace of node ids
    #[arg(long, env = "DATANODE_CLUSTER_ID", value_name = "N", default_value_t = 0)]
    cluster_id: u64,
    /// Time between two heartbeats until metasrv dictates another one
    #[arg(long, env = "DATANODE_HEARTBEAT_INTERVAL", value_name = "DURATION", default_value = "1s",
          value_parser = humantime::parse_duration)]
    heartbeat_interval: Duration,
    /// off, error, warn, info, debug, trace; by module: warn,datanode=debug
    #[arg(long, env = "DATANODE_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    log_level: String,
}

/// Options that make sense together.
#[derive(Debug)]
pub struct Settings {
    /// Where to listen.
    pub grpc_addr: SocketAddr,
    /// What metasrv is told.
    pub advertise_addr: String,
    /// This node's own directory.
    pub data: PathBuf,
    /// Where the regions are; `None`: within `data`.
    pub shared: Option<PathBuf>,
    /// Zone, for placement; empty: not said.
    pub zone: String,
    /// Machine, for placement; `None`: the host name.
    pub host: Option<String>,
    /// Capacity relative to other nodes; not 0.
    pub weight: u32,
    /// Where acknowledged writes are noted.
    pub write_intervals: Option<PathBuf>,
    /// Breaks the rule, for a test of the tests.
    pub write_without_right: bool,
    /// Under a parent.
    pub supervised: bool,
    /// Time between two heartbeats at first.
    pub heartbeat_interval: Duration,
    /// What is logged.
    pub log_level: String,
    /// How the leader is found, and who this node is.
    pub client: MetaClientConfig,
}

impl Options {
    /// Checks everything.
    ///
    /// # Errors
    /// Everything that is wrong, a sentence each, naming the flag.
    pub fn check(self) -> Result<Settings, Vec<String>> {
        let mut problems = Vec::new();
        if self.node_id == 0 {
            problems.push("--node-id: 0 is no id of a node".to_owned());
        }
        for peer in &self.metasrv {
            if let Err(why) = parse_address(peer) {
                problems.push(format!("--metasrv: {peer:?} {why}"));
            }
        }
        if self.grpc_addr.port() == 0 {
            problems
                .push("--grpc-addr: must have a port other than 0: others must know where to go".to_owned());
        }
        if self.weight == 0 {
            problems.push("--weight: must be at least 1; cordon a node that is to get no regions".to_owned());
        }
        let labels = [("--zone", Some(&self.zone)), ("--host", self.host.as_ref())];
        for (flag, label) in labels {
            if label.is_some_and(|label| label.len() > LABEL_BYTES) {
                problems.push(format!("{flag}: must have at most {LABEL_BYTES} bytes"));
            }
        }
        if self.heartbeat_interval < Duration::from_millis(50) {
            problems.push("--heartbeat-interval: must be at least 50ms".to_owned());
        }
        let advertise_addr = match self.advertise_addr {
            None if self.grpc_addr.ip().is_unspecified() => {
                let why = "is every address, and no address that others can use";
                problems.push(format!(
                    "--advertise-addr: must be set, because --grpc-addr {} {why}",
                    self.grpc_addr
                ));
                String::new()
            }
            None => self.grpc_addr.to_string(),
            Some(text) => {
                let host = text.rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']']);
                if let Err(why) = parse_address(&text) {
                    problems.push(format!("--advertise-addr: {text:?} {why}"));
                } else if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
                    problems.push(format!(
                        "--advertise-addr: {text:?} is every address, and no address that others can use"
                    ));
                }
                text
            }
        };
        let tls = match TlsFiles::of(self.tls_ca, self.tls_certificate, self.tls_key) {
            Ok(files) => files.map(ClientTls::new).transpose().unwrap_or_else(|error| {
                problems.push(format!("--tls-ca, --tls-certificate, --tls-key: {error}"));
                None
            }),
            Err(_) => {
                problems.push("--tls-ca, --tls-certificate and --tls-key: must be set together".to_owned());
                None
            }
        };
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut client = MetaClientConfig::new(self.metasrv, Role::Datanode, self.node_id);
        client.cluster_id = self.cluster_id;
        client.tls = tls;
        Ok(Settings {
            grpc_addr: self.grpc_addr,
            advertise_addr,
            data: self.data,
            shared: self.shared,
            zone: self.zone,
            host: self.host,
            weight: self.weight,
            write_intervals: self.write_intervals,
            write_without_right: self.write_without_right,
            supervised: self.supervised,
            heartbeat_interval: self.heartbeat_interval,
            log_level: self.log_level,
            client,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn check(arguments: &[&str]) -> Result<Settings, Vec<String>> {
        let line = [&["datanode", "--data", "/nowhere"], arguments].concat();
        Line::try_parse_from(line).expect("the command line parses").options.check()
    }

    #[test]
    fn every_mistake_is_reported_at_once_and_names_its_flag() {
        let arguments = [
            "--node-id",
            "0",
            "--metasrv",
            "a:1,nonsense",
            "--grpc-addr",
            "0.0.0.0:0",
            "--heartbeat-interval",
            "1ms",
            "--weight",
            "0",
        ];
        let problems = check(&arguments).unwrap_err();
        let flags: Vec<_> = problems.iter().filter_map(|problem| problem.split(':').next()).collect();
        assert_eq!(
            flags,
            ["--node-id", "--metasrv", "--grpc-addr", "--weight", "--heartbeat-interval", "--advertise-addr"]
        );
    }

    #[test]
    fn the_advertised_address_is_the_one_to_listen_on_where_nothing_else_is_said() {
        let settings =
            check(&["--node-id", "3", "--metasrv", "a:1,b:2", "--grpc-addr", "127.0.0.1:4003"]).unwrap();
        assert_eq!(settings.advertise_addr, "127.0.0.1:4003");
        assert_eq!((settings.client.member_id, settings.client.peers.len()), (3, 2));
        let bad = ["--node-id", "3", "--metasrv", "a:1", "--advertise-addr", "[::]:4"];
        assert!(check(&bad).unwrap_err()[0].starts_with("--advertise-addr"));
    }
}
