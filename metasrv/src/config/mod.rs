//! The configuration of a replica: where it comes from, what it must be, what it is.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | [`Config`], as the server takes it |
//! | `setting.rs` | the list of settings: name, default, meaning |
//! | `source.rs` | flag, environment, file, default: the first that speaks decides |
//! | `tls.rs` | the settings of TLS |
//! | `check.rs` | from text to values, with everything that is wrong reported at once |

mod check;
pub mod setting;
pub mod source;
mod tls;

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use metasrv_core::timing::Timing;
use metasrv_tls::{Clients, TlsFiles};

use setting::Flags;
use source::Settings;

pub use check::loopback_of;

/// What a replica is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Its name among the replicas, for people.
    pub name: String,
    /// Where it listens for gRPC.
    pub grpc_addr: SocketAddr,
    /// Where it listens for HTTP.
    pub http_addr: SocketAddr,
    /// host:port of its gRPC service as nodes and other replicas reach it.
    pub advertise_addr: String,
    /// What keeps its state.
    pub store: StoreConfig,
    /// Every key begins with it; several installations share an etcd by different prefixes.
    pub prefix: String,
    /// Leases and intervals.
    pub timing: Timing,
    /// TLS of its ports and of its way to other replicas. `None`: they are plain.
    pub tls: Option<TlsConfig>,
    /// TLS of its way to etcd.
    pub etcd_tls: Option<TlsFiles>,
    /// What is logged, and how.
    pub log: LogConfig,
}

/// TLS of a replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsConfig {
    /// Its certificate, and the authorities of others.
    pub files: TlsFiles,
    /// What is wanted of who connects.
    pub clients: Clients,
    /// Whether the HTTP port takes TLS as well.
    pub http: bool,
}

/// What keeps a replica's state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreConfig {
    /// etcd; replicas elect a leader.
    Etcd {
        /// `http://host:port` of each member, or `https://host:port`.
        endpoints: Vec<String>,
    },
    /// A local file; there is one replica, which leads.
    Embedded {
        /// Its directory; made where it is missing.
        dir: PathBuf,
    },
}

/// What is logged, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// A level, or levels by module: `info`, `warn,metasrv=debug`.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// One thing that is wrong with the configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The setting or file, and where its value came from.
    pub subject: String,
    /// What it must be.
    pub rule: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.rule)
    }
}

/// Everything that is wrong with the configuration; never empty.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Problems(pub Vec<Problem>);

/// The settings with their sources, completed by what follows from them, and the configuration they make.
pub struct Loaded {
    /// Every setting and where its value came from.
    pub settings: Settings,
    /// The configuration, or everything that is wrong with it.
    pub config: Result<Config, Problems>,
}

/// Reads flags, environment, file and defaults, in this order of precedence, and checks the result.
pub fn load(flags: &Flags, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Loaded {
    let (mut settings, problems) = source::resolve(flags, environment);
    let config = check::check(&mut settings, problems);
    Loaded { settings, config }
}
